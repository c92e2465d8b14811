"""After measuring, reports say what was tried, what each way took, and what was taken."""

from __future__ import annotations

from dataclasses import replace

import pytest

import kerasfold
from kerasfold.reports.views import FoldReport
from zoo.attempts import TRIED
from zoo.commands import conv_bn


@pytest.fixture(scope="module")
def report() -> FoldReport:
    return replace(kerasfold.explain(conv_bn()), tried=TRIED)


def test_the_text_lists_the_ways_of_each_part_that_which_was_taken_first(report) -> None:
    text = report.text(None)
    expected = """
tried on litert, in ms a call (* taken):
  the whole model:
    *     1.000  Conv2D 3x3; 1.30 times as fast (1.20 to 1.40)
          1.300  as it was: Conv2D + BatchNormalization
  conv0 + bn0, and 1 part like it:
    *     1.000  Conv2D 3x3; 1.30 times as fast (1.20 to 1.40)
          0.900  Conv2D 5x5; 1.40 times as fast
          1.300  as it was: Conv2D + BatchNormalization
      not timed  Conv2D 7x7; litert computes it wrongly
  conv2 + bn2:
      planned for latency: no time was left
"""
    assert expected in f"{text}\n"


def test_of_many_parts_the_short_text_lists_some(report) -> None:
    others = [replace(TRIED[0], attempts=TRIED[0].attempts[i:]) for i in range(4)]
    many = replace(report, tried=tuple(others))
    assert "\n  and 1 part more" in many.text(None)
    assert "part more" not in many.text(None, verbose=True)


def test_pages_and_notebooks_have_the_table(report) -> None:
    for shown in (report.html(), report._repr_html_()):
        assert "as it was: Conv2D + BatchNormalization" in shown
        assert "litert computes it wrongly" in shown
    assert "Tried on litert, in ms a call (6)" in report.html()


def test_where_nothing_was_timed_there_is_no_table() -> None:
    report = kerasfold.explain(conv_bn())
    assert "tried" not in report.text()
    assert "ms a call" not in report.html() + report._repr_html_()

"""The benchmark of the stopwatch counts intervals that exclude 1, and how wide they are."""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
import pytest

from kerasfold.measure.stopwatch import Times


@pytest.mark.parametrize(("luck", "code"), [(0.01, 0), (0.2, 1)])
def test_what_is_too_wide_fails(luck, code, monkeypatch, tmp_path, capsys):
    benchmark = importlib.import_module("against_itself")

    def timed(deploys: Any, trials: int, rounds: int) -> Times:
        return Times(
            [
                [np.full((rounds, 1), np.exp(luck * x * (i == 1))) for i in range(3)]
                for x in np.linspace(-1, 1, trials)
            ]
        )

    monkeypatch.setattr(benchmark, "timed", timed)
    out = tmp_path / "itself.json"
    options = ["--runtimes", "tensorflow", "--runs", "3", "--size", "4", "--out", str(out)]
    assert benchmark.main(options) == code
    assert benchmark.main([*options, "--append"]) == code
    assert len(json.loads(out.read_text())["rows"]) == 6
    assert " 1000.00      6           0" in capsys.readouterr().out


def test_intervals_that_exclude_1_are_counted():
    benchmark = importlib.import_module("against_itself")
    rows = [
        {"runtime": "xla", "milliseconds": 1.0, "ratio": [low, 1.05, 1.1], "control": [1, 1, 1]}
        for low in (1.01, *[0.99] * 5)
    ]
    (found,) = benchmark.summary(rows)
    assert (found["runs"], found["excluded"], found["warned"], found["holds"]) == (6, 1, 0, False)

"""Means of what falls inside, read by one window: that divides, and nothing is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import pytest

from laws.alone import Axis, Refused, conv
from laws.draws import Pick, draw_groups, draw_normalised, draw_sizes, draw_weights, image
from laws.operators import average, bilinear, random_weights, same
from laws.oracle import output_sizes
from laws.properties import assert_same_map, for_ranks


def _window(pick: Pick, size: int) -> Any:
    """An axis of one output, which reads nothing but real samples."""
    crop = (pick(0, size - 1), 0)
    taps = pick(1, min(4, size - crop[0]))
    dilation = pick(1, (size - crop[0] - 1) // (taps - 1)) if taps > 1 else 1
    rest = size - crop[0] - dilation * (taps - 1) - 1
    return Axis(size, taps, pick(1, 3), dilation, crop=(crop[0], rest))


def _one_window_divides(pick: Pick, rank: int) -> None:
    a = draw_normalised(pick, draw_sizes(pick, rank), pick(1, 4))
    inner = zip(a.geometry.axes, output_sizes(a), strict=True)
    axes = tuple(
        Axis(n, 3, pad=(1, 1)) if axis.is_pointwise and pick(0, 1) else _window(pick, n)
        for axis, n in inner
    )
    groups, outputs = draw_groups(pick, a.geometry.channels[1])
    geometry = conv.Geometry(axes, (a.geometry.channels[1], outputs), groups, pick(0, 1) == 1)
    b = draw_weights(geometry, pick(0, 2**31))
    composed = conv.compose(b, a)
    assert composed.geometry == conv.Geometry.__matmul__(b.geometry, a.geometry)
    assert_same_map(composed, [a, b], image(a, pick(0, 99)))


test_one_window_divides = for_ranks(_one_window_divides)


@pytest.mark.parametrize("means", [average, lambda *n: average(*n, k=2, stride=2), bilinear])
def test_all_that_a_matrix_reads_is_one_matrix(means: Any) -> None:
    """A chain whose borders compose with nothing but what sees all of the image."""
    before, mean = same(5, 4), means(5, 4)
    last = tuple(Axis(n, n) for n in output_sizes(mean))
    operators = [before, mean, random_weights(*last, channels=(2, 3), biased=True, vector=True)]
    total = conv.chain(operators)
    assert total.geometry.taps == (5, 4)
    assert not any(axis.reaches_out for axis in total.geometry.axes)
    assert_same_map(total, operators, image(before, 1))


def test_taps_that_read_no_pixel_go_as_windows_compose() -> None:
    operators = [same(5), same(5, seed=1), same(5, seed=2)]
    with pytest.raises(Refused, match="zero padding between two layers"):
        reduce(lambda a, b: conv.compose(b, a), operators)
    operators.append(random_weights(Axis(5, 5), channels=(2, 3), biased=True))
    total = conv.chain(operators)
    assert total.geometry.axes == (Axis(5, 5),)
    assert_same_map(total, operators, image(operators[0], 1))


def test_means_that_several_windows_read_stay() -> None:
    for after in (Axis(8, 7), Axis(8, 8, pad=(1, 0)), Axis(8, 1, 4)):
        b = random_weights(after, channels=(2, 2))
        with pytest.raises(Refused, match="weights change along the border"):
            conv.compose(b, average(8))
    biased = replace(average(8), geometry=replace(average(8).geometry, biased=True))
    with pytest.raises(Refused, match="weights change along the border"):
        conv.compose(random_weights(Axis(8, 8), channels=(2, 2)), biased)


def test_sums_taken_for_means_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = average(6), random_weights(Axis(6, 6), channels=(2, 2))
    monkeypatch.setattr(conv.operator, "corrected", lambda kernel, *_: kernel)
    with pytest.raises(AssertionError, match="values differ"):
        assert_same_map(conv.compose(b, a), [a, b], image(a, 0))
    monkeypatch.setattr(conv.operator, "corrected", lambda kernel, *_: kernel * np.nan)
    with pytest.raises(AssertionError):
        assert_same_map(conv.compose(b, a), [a, b], image(a, 0))

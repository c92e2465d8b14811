"""Means of means, of whatever order of the samples, against NumPy's own mean."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import numpy as np
import pytest

from kerasfold.algebra import Axis, Geometry, Rearrangement, Reduction, Refused, windows_of

DRAWS = 600


def divisors(n: int) -> list[int]:
    return [m for m in range(1, n + 1) if n % m == 0]


def step(draw: random.Random, whole: Reduction, image: np.ndarray) -> tuple[Reduction, np.ndarray]:
    """A permutation, a reshape or means over windows side by side, of both."""
    match draw.randrange(3):
        case 0:
            axes = draw.sample(range(image.ndim), image.ndim)
            permuted = Rearrangement.permutation(image.shape, axes)
            return whole.rearranged(permuted), image.transpose(axes)
        case 1:
            first = draw.choice(divisors(image.size))
            shape = (first, image.size // first)
            reshaped = Rearrangement.reshape(image.shape, shape)
            return whole.rearranged(reshaped), image.reshape(shape)
        case _:
            windows = [draw.choice(divisors(n)) for n in image.shape]
            split = [m for n, w in zip(image.shape, windows, strict=True) for m in (n // w, w)]
            means = image.reshape(split).mean(axis=tuple(range(1, len(split), 2)))
            return whole.averaged(windows), means


def several(seed: int) -> Iterator[tuple[Reduction, np.ndarray, np.ndarray]]:
    """Some steps after each other as one, an image, and what NumPy makes of it step by step."""
    draw = random.Random(seed)
    for _ in range(DRAWS):
        shape = tuple(draw.choice([1, 2, 3, 4, 6]) for _ in range(draw.randint(1, 4)))
        image = np.random.default_rng(seed).normal(size=shape)
        whole, moved = Reduction.identity(shape), image
        try:
            for _ in range(draw.randint(1, 4)):
                whole, moved = step(draw, whole, moved)
        except Refused:
            continue
        yield whole, image, moved


def test_several_are_one() -> None:
    found = list(several(0))
    assert len(found) > DRAWS / 2
    for whole, image, moved in found:
        np.testing.assert_allclose(whole.applied(image), moved, rtol=0, atol=1e-14)


def test_what_is_a_mean_over_axes_is_one() -> None:
    found = 0
    for whole, image, moved in several(1):
        try:
            axes, rest = whole.axes()
        except Refused:
            continue
        found += bool(axes)
        np.testing.assert_allclose(rest.applied(image.mean(axis=axes)), moved, rtol=0, atol=1e-14)
    assert found > DRAWS / 10


def test_reductions_that_are_equal_have_one_normal_form() -> None:
    rows = Reduction.identity((4, 6, 3)).averaged((4, 1, 1)).averaged((1, 6, 1))
    halves = Reduction.identity((4, 6, 3)).averaged((2, 3, 1)).averaged((2, 2, 1))
    assert rows == halves


def test_axes_of_unknown_size_stay() -> None:
    whole = Reduction.identity((None, 6, 3)).averaged((1, 6, 1))
    axes, rest = whole.axes()
    assert (axes, rest.target) == ((1,), (None, 1, 3))


@pytest.mark.parametrize("windows", [(3, 1, 1), (1, 1, 2)])
def test_windows_that_do_not_divide_an_axis_are_refused(windows: tuple[int, ...]) -> None:
    with pytest.raises(Refused, match="do not divide"):
        Reduction.identity((None, 6, 3)).averaged(windows)


def test_a_mean_over_a_part_of_an_axis_is_none_over_axes() -> None:
    with pytest.raises(Refused, match="a part of an axis"):
        Reduction.identity((4, 3)).averaged((2, 1)).axes()


def test_a_mean_over_all_leaves_no_axis() -> None:
    with pytest.raises(Refused, match="leaves no axis"):
        Reduction.identity((4, 3)).averaged((4, 3)).axes()


def test_windows_side_by_side() -> None:
    axes = (Axis(6, taps=2, stride=2), Axis(5, taps=5), Axis(None))
    assert windows_of(Geometry(axes, (2, 2), 2)) == (2, 5, 1)


@pytest.mark.parametrize(
    "axis",
    [
        Axis(6, taps=3, stride=1),
        Axis(7, taps=2, stride=2, crop=(0, 1)),
        Axis(6, taps=2, stride=2, pad=(1, 1)),
        Axis(6, taps=2, stride=2, crop=(1, 1)),
        Axis(None, taps=2, stride=2),
        Axis(4, taps=2, stride=2, dilation=2, pad=(1, 1)),
    ],
)
def test_windows_that_overlap_or_leave_samples_out_are_refused(axis: Axis) -> None:
    with pytest.raises(Refused, match="overlap"):
        windows_of(Geometry((axis,), (2, 2), 2))


def test_a_multiple() -> None:
    image = np.arange(6.0).reshape(2, 3)
    doubled = Reduction.identity((2, 3)).averaged((2, 1)).scaled(2.0)
    assert math.isclose(doubled.applied(image)[0, 0], 2 * image[:, 0].mean())

"""A tolerance, number by number; and percentiles of errors against those of all of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import kerasfold
from kerasfold.equivalence.tolerance import Errors, Tolerance

TRUTH = np.array([0.0, 1.0, -2.0, math.inf, math.nan])


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (TRUTH, 0),
        ([0.1, 1.0, -2.0, math.inf, math.nan], 0),
        ([0.11, 1.0, -2.0, math.inf, math.nan], 1),
        ([-0.1, 1.19, -2.29, math.inf, math.nan], 0),
        ([-0.1, 1.21, -2.31, math.inf, math.nan], 2),
        ([0.0, math.nan, -2.0, -math.inf, 0.0], 3),
        ([math.inf, 1.0, -2.0, 1e300, math.nan], 2),
    ],
)
def test_each_number_has_its_own_bound(value: Any, count: int) -> None:
    assert Tolerance(atol=0.1, rtol=0.1).beyond(np.array(value), TRUTH) == count


def test_either_may_be_left_out() -> None:
    assert Tolerance.of(None, None) is None
    assert Tolerance.of(0.5, None) == Tolerance(0.5, 0.0)
    assert str(Tolerance.of(None, 1e-3)) == "atol 0, rtol 0.001"


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, "1"])
def test_no_tolerance(bad: Any) -> None:
    with pytest.raises(kerasfold.FoldError, match=r"rtol=.*expected a finite number, 0 or more"):
        Tolerance.of(0.0, bad)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_percentiles_are_those_of_all_errors(scale: float) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(7, 300))
    value = truth + scale * rng.normal(size=truth.shape) ** 3
    errors = Errors()
    for x, y in zip(value, truth, strict=True):
        errors.add(x, y)
    off = np.abs(value - truth)
    for found, all_of_them in ((errors.absolute, off), (errors.relative, off / np.abs(truth))):
        for rank, got in ((50, found.p50), (90, found.p90), (99, found.p99)):
            true = np.percentile(all_of_them, rank, method="inverted_cdf")
            assert true <= got <= true * (1 + 1 / 32)
        assert found.largest == all_of_them.max()


def test_percentiles_of_what_is_equal_or_not_finite() -> None:
    errors = Errors()
    errors.add(TRUTH, TRUTH)
    assert str(errors.absolute) == "p50 0, p90 0, p99 0, max 0"
    errors.add(np.array([1.0]), np.array([0.0]))
    assert (errors.absolute.largest, errors.relative.largest) == (1.0, math.inf)
    errors.add(np.array([math.nan]), np.array([0.0]))
    assert (errors.absolute.p50, errors.absolute.p99) == (0.0, math.inf)


def test_percentiles_of_nothing() -> None:
    assert Errors().absolute.largest == 0.0


def test_other_shapes_do_not_broadcast() -> None:
    with pytest.raises(kerasfold.FoldError, match=r"\(3, 1\) and \(3, 2\)"):
        Errors().add(np.zeros((3, 2)), np.zeros((3, 1)))

"""A tolerance, number by number; and percentiles of errors against those of all of them."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.equivalence.tolerance import Errors, Tolerance
from zoo.making import chain, policy

pytestmark = pytest.mark.usefixtures("fresh")


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
    off = np.abs(value - truth)
    for x, y in zip(off, truth, strict=True):
        errors.add(x, y)
    for found, all_of_them in ((errors.absolute, off), (errors.relative, off / np.abs(truth))):
        for rank, got in ((50, found.p50), (90, found.p90), (99, found.p99)):
            true = np.percentile(all_of_them, rank, method="inverted_cdf")
            assert true <= got <= true * (1 + 1 / 32)
        assert found.largest == all_of_them.max()


def test_percentiles_of_what_is_equal_or_not_finite() -> None:
    errors = Errors()
    errors.add(np.zeros(4), np.array([0.0, 1.0, math.inf, math.nan]))
    assert str(errors.absolute) == str(errors.relative) == "p50 0, p90 0, p99 0, max 0"
    errors.add(np.array([1.0]), np.array([0.0]))
    assert (errors.absolute.largest, errors.relative.largest) == (1.0, math.inf)
    errors.add(np.array([math.inf]), np.array([math.nan]))
    assert (errors.absolute.p50, errors.absolute.p99) == (0.0, math.inf)


def test_percentiles_of_nothing() -> None:
    assert Errors().absolute.largest == 0.0


def shifted(by: Any) -> keras.Model:
    x = keras.Input((3,), name="x")
    return keras.Model(x, x + np.asarray(by, "float32"))


@pytest.mark.parametrize(
    ("tolerance", "equivalent"),
    [
        ({"atol": 0.11}, True),
        ({"atol": 0.09}, False),
        ({"rtol": 1e-3}, True),
        ({"rtol": 1e-5}, False),
        ({"atol": 0.05, "rtol": 1e-3}, True),
    ],
)
def test_two_models_within_a_tolerance(tolerance: dict[str, float], equivalent: bool) -> None:
    """Outputs near 1000, 0.1 apart at one of three numbers."""
    a, b = shifted([1000.0] * 3), shifted([1000.0, 1000.1, 1000.0])
    data = np.random.default_rng(0).normal(size=(20, 3))
    assert kerasfold.verify(a, b, data).verdict == "different"
    report = kerasfold.verify(a, b, data, **tolerance)
    assert report.equivalent is equivalent
    (out,) = report.outputs
    assert out.absolute is not None
    assert out.absolute.p50 < 1e-4 < 0.09 < out.absolute.p90
    assert report.to_dict()["outputs"][0]["tolerance"] == {"atol": 0.0, "rtol": 0.0} | tolerance


def net(limit: float | None = None, dtype: str = "float32") -> keras.Model:
    """What goes into its last activation is 0 +- 1 where inputs are."""
    with policy(dtype):
        stack = [layers.Dense(16, "relu") for _ in range(3)]
        return chain((16,), *stack, layers.ReLU(limit), layers.Dense(4, "softmax"))


@pytest.mark.parametrize(
    "tolerance", [{"rtol": 1e-3}, {"atol": 1e-2}, {"atol": 1e-3, "rtol": 1e-2}]
)
def test_relu6_is_not_relu_within_a_tolerance(tolerance: dict[str, float]) -> None:
    model = net()
    assert kerasfold.verify(model, net(), **tolerance).verdict == "equivalent"
    report = kerasfold.verify(model, net(6.0), **tolerance)
    assert report.verdict == "different"
    assert "on large inputs" in str(report)


@pytest.mark.parametrize("kind", ["mixed_float16", "mixed_bfloat16", "float16", "int8"])
def test_what_is_within_a_tolerance_is_so_on_large_inputs(kind: str) -> None:
    model = net()
    other = net(dtype="float32" if kind == "int8" else kind)
    if kind == "int8":
        other.quantize("int8", filters="dense")
    coarse = {"strict_signature": False}
    assert kerasfold.verify(model, other, **coarse).verdict == "different"
    assert kerasfold.verify(model, other, atol=0.03, **coarse).verdict == "equivalent"


def test_what_is_not_finite_is_within_no_tolerance() -> None:
    report = kerasfold.verify(shifted(0.0), shifted([0.0, math.nan, 0.0]), atol=1e30, rtol=1e30)
    assert report.verdict == "different"

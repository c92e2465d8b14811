"""What overflows is left out of a comparison: it makes no difference, and bounds nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from kerasfold.equivalence.bounds import accuracy_bound, beyond_bound, difference_bound, noise_share
from kerasfold.equivalence.judge import _closest
from kerasfold.equivalence.tally import Tally
from zoo.making import chain

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def scaled(model: keras.Model, scale: float, seed: int = 0) -> keras.Model:
    """With kernels that give numbers of some scale."""
    rng = np.random.default_rng(seed)
    for w in model.weights:
        if len(w.shape) > 1:
            w.assign(rng.normal(0, scale / math.sqrt(w.shape[0]), w.shape))
    return model


def rates(scale: float) -> keras.Model:
    dense = [layers.Dense(8), layers.Dense(4), layers.Dense(5, activation="exponential")]
    return scaled(chain((16,), *dense), scale)


def nested(scale: float) -> keras.Model:
    """Whose sums of infinities are infinite, or NaN, by the order in which they are added up."""
    x = keras.Input((16,))
    y = ops.exp(layers.Dense(4)(layers.Dense(8)(x)))
    return scaled(keras.Model(x, ops.exp(layers.Dense(3)(layers.Dense(3)(y)))), scale)


def squares(scale: float) -> keras.Model:
    x = y = keras.Input((16,))
    for _ in range(6):
        y = ops.square(layers.Dense(4)(layers.Dense(4)(y)))
    return scaled(keras.Model(x, y), scale)


@pytest.mark.parametrize(
    ("model", "scale", "verdict"),
    [
        *((rates, scale, "equivalent") for scale in (1.0, 2.0, 5.0, 100.0)),
        *((nested, scale, "equivalent") for scale in (1.0, 5.0)),
        *((squares, scale, "inconclusive") for scale in (5.0, 50.0)),
        (nested, 20.0, "inconclusive"),
    ],
)
def test_a_right_fold_is_told_where_it_is_in_range(
    model: Callable[[float], keras.Model], scale: float, verdict: str
) -> None:
    report = model(scale).fold().fold_report.equivalence
    assert (report.verdict, report.same_function) == (verdict, True)
    assert ("give inputs of its own range as data=" in report.reason) == (verdict != "equivalent")
    assert all(math.isfinite(x) for out in report.outputs for x in (out.bound, out.accuracy_bound))


@pytest.mark.parametrize(("model", "scale"), [(rates, 2.0), (rates, 5.0), (nested, 1.0)])
def test_a_wrong_one_is_told_there_too(model: Callable[[float], keras.Model], scale: float) -> None:
    right, wrong = model(scale), model(scale)
    kernel = wrong.layers[1].kernel
    kernel.assign(kernel * (1 + 1e-3 * np.sign(np.random.default_rng(1).normal(size=kernel.shape))))
    assert kerasfold.verify(right, wrong, strict_signature=False).verdict == "different"


def test_nan_where_nothing_is_large_is_a_difference() -> None:
    """As of a mask: the first model is infinite on the way by itself."""

    def masked(least: float, fill: Any) -> keras.Model:
        x = keras.Input((6,))
        filled = ops.where(x > least, ops.log(ops.relu(x)), fill)
        return keras.Model(x, ops.exp(filled))

    right, wrong = masked(0.0, -math.inf), masked(0.0, math.nan)
    assert kerasfold.verify(right, right).equivalent
    assert kerasfold.verify(right, wrong, strict_signature=False).verdict == "different"


def test_nan_where_the_first_overflows_on_the_way_is_neither_a_difference_nor_none() -> None:
    """Of float32 alone: in float64 they are the same function."""

    def rare(rest: float) -> keras.Model:
        x = keras.Input((6,))
        large = ops.exp(ops.square(x))
        return keras.Model(x, ops.exp(-large) + rest * large)

    x = keras.Input((6,))
    one = keras.Model(x, ops.exp(-ops.exp(ops.square(x))))
    report = kerasfold.verify(one, rare(0.0), strict_signature=False)
    assert (report.verdict, report.same_function) == ("inconclusive", True)
    assert report.reason.startswith("on inputs that overflow on the way, output ")
    assert kerasfold.verify(rare(0.0), one, strict_signature=False).equivalent
    assert kerasfold.verify(one, rare(1e-3), strict_signature=False).verdict == "different"


def test_no_accuracy_is_told_by_what_the_dtype_does_not_hold() -> None:
    tally = Tally(name="y", shape=(None, 2), pixels=())
    truth = np.array([[1.0, 2.0], [1e60, 3.0], [1e70, 1e80]])
    with np.errstate(over="ignore"):
        own = truth.astype("float32")
    off = own * np.array([[1.1, 1.0], [1.0, 1.0], [1.0, 1.0]], "float32")
    tally.saw_own(truth, own, off)
    tally.saw_own_noise(truth, truth * (1 + 1e-7))
    assert tally.output_scale.tolist() == [1.0, 3.0]
    assert tally.lost == 3
    assert np.any(tally.other_error > accuracy_bound(tally, 2.0**-23))


@pytest.mark.parametrize("size", [1e-300, 1.0, 1e160, 1e300, 1.7e308])
@pytest.mark.parametrize("noise", [0.0, 1e-7, 0.5, 0.999])
def test_no_bound_is_nan(size: float, noise: float) -> None:
    tally = Tally(name="y", shape=(None, 3), pixels=(), kinds=2)
    values = np.array(
        [[0.0, 1.0, size], [0.0, -1.0, -size], [0.0, size, 0.5], [0.0, 2.0, math.inf]]
    )
    for start in (0, 2):
        batch = values[start : start + 2]
        tally.saw_copies(batch, batch * (1 - 1e-9))
        tally.saw_noise(batch, batch * (1 - noise))
        tally.saw_own(batch, batch, batch)
        tally.saw_own_noise(batch, batch * (1 - noise))
    joined = Tally(name="y", shape=(None, 3), pixels=(), kinds=2)
    joined.merge(tally)
    joined.merge(tally)
    for each in (tally, joined):
        bounds = difference_bound(each, 2.0**-23), accuracy_bound(each, 2.0**-7)
        told = (*bounds, each.spread, each.whole_spread, noise_share(each), beyond_bound(each, 0.0))
        assert not any(np.any(np.isnan(x)) for x in told)
        assert np.all(np.isfinite(each.spread))


def test_a_difference_beyond_any_bound_warns_of_nothing() -> None:
    tally = Tally(name="y", shape=(None, 2), pixels=(), kinds=1)
    small = np.array([[1e-5, -1e-5], [2e-5, 1e-5]])
    tally.saw_copies(small, np.array([[1e-5, 1e305], [2e-5, 1e-5]]))
    with np.errstate(all="raise"):
        assert beyond_bound(tally, 2.0**-23) == math.inf
        assert _closest(tally.error, difference_bound(tally, 2.0**-23)) == 1


@pytest.mark.parametrize("field", ["bound", "accuracy_bound"])
def test_nothing_is_told_by_a_bound_that_is_nan(field: str) -> None:
    (out,) = kerasfold.verify(rates(1.0), rates(1.0), strict_signature=False).outputs
    assert out.equivalent
    unbounded = replace(out, **{field: math.nan})
    assert unbounded.verdict == "inconclusive"
    assert unbounded.reason.startswith("no bound can be told of output")

"""Outputs that are few values of many: what they were made of is compared too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from kerasfold.equivalence.runs import Ran
from kerasfold.equivalence.seen import Within
from kerasfold.equivalence.steps import Step
from kerasfold.equivalence.tally import Tally
from zoo.making import randomise


def net(ending: Callable[[Any], Any], off: float = 0.0, activation: str | None = None) -> Any:
    """Ten scores, and what is made of them; weights that are off by a share."""
    keras.utils.set_random_seed(3)
    x = keras.Input((12,), name="x")
    scores = layers.Dense(10, activation, name="scores")
    y = ending(scores(x))
    rng = np.random.default_rng(3)
    kernel = 0.1 * rng.normal(size=(12, 10))
    scores.kernel.assign(kernel * (1 + off * rng.normal(size=kernel.shape)))
    return keras.Model(x, y)


STEPS: dict[str, Callable[[Any], Any]] = {
    "argmax": lambda y: ops.argmax(y, axis=-1),
    "its class by name": lambda y: ops.one_hot(ops.argmax(y, axis=1), 10),
    "argmin, and more": lambda y: ops.argmin(y, axis=-1) + 1,
    "round": lambda y: ops.round(1e-3 * y),
    "sign": ops.sign,
    "threshold": lambda y: ops.sigmoid(y) > 0.5,
    "which of two": lambda y: y[:, :5] > y[:, 5:],
    "cast": lambda y: ops.cast(y, "int32"),
    "bins": lambda y: layers.Discretization([0.0, 1.0, 2.0], name="bins")(y),
    "in the middle": lambda y: layers.Dense(2, name="last")(ops.cast(y > 0, "float32")),
    "in a branch": lambda y: layers.Dense(2, name="last")(ops.ones_like(y) + ops.sign(y)),
    "as a gate": lambda y: layers.Dense(2, name="last")(
        ops.ones_like(y) * ops.cast(y > 0, "float32")
    ),
}


@pytest.mark.parametrize("step", STEPS)
def test_what_goes_into_the_last_step_is_compared(step: str) -> None:
    report = kerasfold.verify(net(STEPS[step]), net(STEPS[step], off=1e-6))
    assert report.verdict == "inconclusive"
    assert "agree, but what goes into" in report.reason
    report = kerasfold.verify(net(STEPS[step]), net(STEPS[step]))
    assert (report.verdict, report.note) == ("equivalent", "")


def test_a_softmax_before_an_argmax_is_looked_behind() -> None:
    plain = net(STEPS["argmax"])
    other = net(STEPS["argmax"], activation="softmax")
    assert kerasfold.verify(plain, other).equivalent
    assert kerasfold.verify(other, plain).equivalent
    off = net(STEPS["argmax"], off=1e-6, activation="softmax")
    assert kerasfold.verify(plain, off).verdict == "inconclusive"


def test_another_step_is_noted() -> None:
    report = kerasfold.verify(net(ops.sign), net(lambda y: ops.sign(y) * ops.ones((10,))))
    assert (report.verdict, report.note) == ("equivalent", "")
    report = kerasfold.verify(net(lambda y: y > 0), net(lambda y: ops.sigmoid(y) > 0.5))
    assert report.verdict == "equivalent"
    assert "answers were compared that greater 0 gives, and not what goes into it" in report.note
    report = kerasfold.verify(net(ops.sign), net(ops.sign), rtol=1e-3)
    assert "answers were compared that sign gives" in report.note


CONSTANTS: dict[str, Callable[[Any, float], Any]] = {
    "threshold": lambda y, c: y > 0.5 + c,
    "from below": lambda y, c: ops.less(0.5 + c, y),
    "bins": lambda y, c: layers.Discretization([0.0, 1.0 + c, 2.0])(y),
    "in the middle": lambda y, c: layers.Dense(2, name="last")(ops.cast(y > c, "float32")),
}


@pytest.mark.parametrize("step", CONSTANTS)
def test_the_same_step_with_another_constant_is_told(step: str) -> None:
    def of(constant: float) -> keras.Model:
        return net(lambda y: CONSTANTS[step](y, constant))

    report = kerasfold.verify(of(0.0), of(1e-5))
    assert report.verdict == "inconclusive"
    assert "of the first model is" in report.reason
    report = kerasfold.verify(of(0.1), of(np.float32(0.1)))
    assert (report.verdict, report.note) == ("equivalent", "")


def test_what_is_computed_of_rounded_inputs_is_not_said_to_be_answers() -> None:
    x = keras.Input((4,))
    table = layers.Embedding(10, 3)(ops.cast(x, "int32"))
    model = keras.Model(x, table)
    report = kerasfold.verify(model, model, np.ones((3, 4)), rtol=1e-3)
    assert report.note == ""


def test_sigmoids_that_are_one_in_float64_are_equal() -> None:
    def ended(most: float) -> keras.Model:
        return net(lambda y: ops.sigmoid(ops.clip(y, -most, most)))

    plain = net(ops.sigmoid)
    assert kerasfold.verify(plain, ended(100.0), strict_signature=False).equivalent
    report = kerasfold.verify(plain, ended(20.0), strict_signature=False)
    assert report.reason.startswith("what goes into the sigmoid of output 'sigmoid")
    assert report.outputs[0].ending == "sigmoid"


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_whole_numbers_differ_by_one_however_large_they_are(dtype: str) -> None:
    def plus(number: int) -> keras.Model:
        x = keras.Input((3,), dtype=dtype)
        return keras.Model(x, x + 2**60 + number)

    report = kerasfold.verify(plus(0), plus(1), strict_signature=False)
    assert (report.verdict, report.max_abs_error) == ("different", 1.0)
    assert kerasfold.verify(plus(1), plus(1)).equivalent


def test_what_overflows_in_the_second_alone_is_noted() -> None:
    def written_out(y: Any) -> Any:
        powers = ops.exp(y)
        return powers / ops.sum(powers, axis=-1, keepdims=True)

    safe, unsafe = net(ops.softmax), net(written_out)
    report = kerasfold.verify(safe, unsafe, strict_signature=False)
    assert report.equivalent
    assert "of the second model is not finite where that of the first is" in report.note
    assert "finite" not in kerasfold.verify(unsafe, safe, strict_signature=False).note


def test_a_fold_before_an_argmax_is_equivalent() -> None:
    keras.utils.set_random_seed(1)
    x = keras.Input((8, 8, 3))
    y = layers.Flatten()(layers.BatchNormalization()(layers.Conv2D(4, 3)(x)))
    model = keras.Model(x, ops.argmax(layers.Dense(5)(layers.Dense(7)(y)), axis=-1))
    assert model.fold(objective="layers").fold_report.equivalence.equivalent


@pytest.mark.parametrize("dtype", ["float64", "int32", "bool"])
def test_answers_that_are_nan_in_both_agree(dtype: str) -> None:
    answer = np.array([0, 1]).astype(dtype)
    if dtype == "float64":
        answer[0] = np.nan
    step = Step("round", (None, 2))
    within = Within(step, 0, 0, Tally(name="round", shape=step.shape, pixels=()))
    ran = Ran([], [], [(np.zeros((1, 2)), answer[None])])
    within.saw(ran, Ran([], [], [(np.zeros((1, 2)), answer[None].copy())]))
    assert within.agrees
    within.saw(ran, Ran([], [], [(np.zeros((1, 2)), np.zeros((1, 2), dtype))]))
    assert not within.agrees


@pytest.mark.parametrize("first", ["the model", "its fold"])
def test_a_step_on_fewer_channels_is_told_from_a_wrong_one(first: str) -> None:
    x = keras.Input((6, 6, 3))
    normalised = layers.BatchNormalization(name="bn")(layers.Conv2D(6, 3)(x))
    model = randomise(keras.Model(x, layers.Conv2D(4, 3)(ops.round(4 * normalised))))
    gamma = model.get_layer("bn").gamma.numpy()
    gamma[[0, 3, 4]] = 0
    model.get_layer("bn").gamma.assign(gamma)
    folded = model.fold(objective="macs")
    assert folded.fold_report.channels
    pair = (model, folded) if first == "the model" else (folded, model)
    assert kerasfold.verify(*pair).verdict == "equivalent"
    kernel = next(x for x in folded.weights if x.name == "kernel")
    kernel.assign(1.001 * kernel)
    assert kerasfold.verify(*pair).verdict == "different"

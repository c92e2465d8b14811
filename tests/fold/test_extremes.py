"""Positive gains, and shifts, pass a maximum or a minimum of several tensors."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

import kerasfold
from zoo.closed import Body, made
from zoo.same import FLOAT64, assert_same, inputs_of, kinds, run

pytestmark = pytest.mark.usefixtures("fresh")


def maxout(kind: Any, scale: Body, count: int = 2, between: Body = lambda x: x) -> Body:
    def body(x: Any) -> Any:
        parts = [between(L.Conv2D(4, 3, name=f"conv{i}")(x)) for i in range(count)]
        return ops.tanh(scale(kind(parts)))

    return body


EXTREMES: dict[str, Any] = {
    "Maximum": lambda x: L.Maximum()(x),
    "Minimum": lambda x: L.Minimum()(x),
    "maximum": lambda x: ops.maximum(*x),
    "minimum": lambda x: ops.minimum(*x),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_gains_and_shifts_pass_an_extreme(name: str) -> None:
    body = maxout(EXTREMES[name], lambda x: L.Rescaling([0.5, 1.0, 2.0, 3.0], 1.0)(x))
    model = made(body, (6, 6, 3))
    folded = kerasfold.fold(model)
    x = inputs_of(model)
    assert_same(model, folded, FLOAT64)
    assert not {"Rescaling", "BatchNormalization"} & set(kinds(folded))
    assert folded.count_params() == model.count_params()
    convolved = keras.Model(model.input, [model.get_layer(f"conv{i}").output for i in (0, 1)])
    first, second = run(convolved, x)
    most = np.maximum(first, second) if "ax" in name else np.minimum(first, second)
    wanted = np.tanh(most * [0.5, 1.0, 2.0, 3.0] + 1.0)
    assert np.abs(run(folded, x)[0] - wanted).max() < FLOAT64


SOME = [0.5, 1.0, -2.0, 3.0]
NO_EXTREME: dict[str, tuple[Body, str]] = {
    "of a negative gain": (
        maxout(lambda x: L.Maximum()(x), lambda x: L.Rescaling(SOME, name="norm")(x)),
        "KF110",
    ),
    "of an operand that is not linear": (
        maxout(
            lambda x: L.Maximum()(x),
            lambda x: L.Rescaling(2.0, 1.0, name="norm")(x),
            between=ops.tanh,
        ),
        "KF601",
    ),
    "of numbers": (
        lambda x: ops.tanh(L.Rescaling(2.0, 1.0, name="norm")(ops.maximum(L.Conv2D(4, 3)(x), 0.5))),
        "KF601",
    ),
    "that others read": (
        lambda x: (lambda y: [ops.tanh(y), ops.tanh(L.Rescaling(2.0, 1.0, name="norm")(y))])(
            L.Maximum()([L.Conv2D(4, 3)(x), L.Conv2D(4, 3)(x)])
        ),
        "KF601",
    ),
}


@pytest.mark.parametrize("name", NO_EXTREME)
def test_an_extreme_stays_before_it(name: str) -> None:
    body, code = NO_EXTREME[name]
    model = made(body, (6, 6, 3))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    (row,) = (x for x in folded.fold_report.kept if x.layer == "norm")
    assert row.code == code, row.reason

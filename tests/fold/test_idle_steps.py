"""Steps of affine layers and operations that change nothing: none of them is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from zoo.making import policy, randomise
from zoo.same import FLOAT64, assert_same

IMAGE = (6, 7, 4)
Step = Callable[[Any], Any]

ROWS: dict[str, list[Step]] = {
    "all_is_selected": [lambda x: x[:, :6, ..., 0:4], lambda x: ops.split(x, 1, axis=-1)[0]],
    "all_is_taken": [lambda x: ops.take(x, [0, 1, 2, 3], axis=-1)],
    "products": [lambda x: x * np.ones(4), lambda x: 1.0 * x, lambda x: x / 1.0],
    "sums": [lambda x: x + 0.0, lambda x: x - np.zeros(4), lambda x: x + np.zeros(IMAGE)],
    "layers": [lambda x: layers.Flatten()(layers.Rescaling(1.0)(x))],
}


@pytest.mark.parametrize("name", ROWS)
def test_nothing_is_left(name: str) -> None:
    shape = (5,) if name == "layers" else IMAGE
    with policy("float64"):
        x = inputs = keras.Input(shape, dtype="float64", name="image")
        for step in (layers.ReLU(), *ROWS[name], layers.ReLU()):
            x = step(x)
        model = randomise(keras.Model(inputs, x))
    folded = kerasfold.fold(model, verify=False)
    nodes = [node for level in folded._nodes_by_depth.values() for node in level]
    kinds = [type(node.operation).__name__ for node in nodes if not node.is_input]
    assert kinds == ["ReLU", "ReLU"]
    assert_same(model, folded, FLOAT64)

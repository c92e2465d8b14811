"""A suite that takes every warning for an error folds, explains and verifies as any other."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasfold

L, ops = keras.layers, keras.ops
STEPS: dict[str, Callable[[Any], Any]] = {  # that hold arrays of their own, of several kinds
    "a NumPy array": lambda x: x * np.ones(3, "float32") + np.float32(2),
    "a tensor": lambda x: x * tf.constant([1.0, 2.0, 3.0]),
    "a variable": lambda x: ops.einsum("bhwc,cd->bhwd", x, keras.Variable(np.ones((3, 4)))),
    "indices in an array": lambda x: ops.take(x, np.array([0, 2]), axis=-1),
    "indices in a tensor": lambda x: ops.take(x, tf.constant([0, 2]), axis=-1),
    "NumPy's integers": lambda x: x[:, ::2, np.int64(1) :, :2],
    "layers with numbers": lambda x: L.Rescaling(np.array([1.0, 2.0, 3.0]))(
        L.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 2.0, 3.0])(x)
    ),
    "two dtypes": lambda x: L.BatchNormalization()(L.Conv2D(4, 3, dtype="mixed_float16")(x)),
    "a recurrent layer": lambda x: L.LSTM(3)(L.Reshape((16, 3))(x)),
    "interpolation": lambda x: L.UpSampling2D(2, interpolation="bilinear")(x),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_nothing_warns(step: Callable[[Any], Any]) -> None:
    image = keras.Input((4, 4, 3))
    model = keras.Model(image, step(L.Conv2D(3, 1)(image)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folded = model.fold()
        assert folded.fold_report.equivalence.same_function
        assert str(kerasfold.explain(model, "layers"))
        assert kerasfold.verify(model, folded, np.ones((2, 4, 4, 3), "float32")).same_function

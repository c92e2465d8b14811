"""What models are made with: a dtype policy, and weights as training leaves them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np


@contextlib.contextmanager
def policy(dtype: str) -> Iterator[None]:
    """Layers that are made meanwhile get this dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def chain(shape: Any, *stack: keras.Layer, dtype: str | None = None) -> keras.Model:
    """Layers one after another, on an input of the policy's dtype unless told."""
    x = inputs = keras.Input(shape, dtype=dtype or keras.config.dtype_policy().compute_dtype)
    for layer in stack:
        x = layer(x)
    return randomise(keras.Model(inputs, x))


def randomise(model: keras.Model, seed: int = 0) -> keras.Model:
    """Weights as training leaves them: biases and statistics off zero, gammas of both signs."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        shape, name = tuple(weight.shape), weight.name
        if "seed" in name or not str(weight.dtype).startswith(("float", "bfloat")):
            continue
        if "variance" in name:
            value = rng.uniform(0.4, 2.0, shape)
        elif "gamma" in name or name == "scale":
            value = rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)
        elif "kernel" in name and len(shape) > 1:
            fan_in = np.prod(shape[:-1]) / (shape[-2] if "depthwise" in name else 1)
            value = rng.normal(0, 1 / np.sqrt(fan_in), shape)
        else:
            value = rng.normal(0, 0.5, shape)
        weight.assign(value.astype("float64"))
    return model

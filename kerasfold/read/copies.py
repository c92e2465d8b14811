"""Fresh copies of layers and operations, with their weights and other state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from kerasfold.errors import UnsupportedModelError, words_of
from kerasfold.read.model import sublayers
from kerasfold.read.weights import as_array


def _at_dtype(config: Any, dtype: str) -> Any:
    """A layer config with every floating dtype in it replaced by `dtype`."""
    if isinstance(config, dict):
        return {
            key: dtype if key == "dtype" and _is_float_policy(value) else _at_dtype(value, dtype)
            for key, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return type(config)(_at_dtype(value, dtype) for value in config)
    return config


def _is_float_policy(value: Any) -> bool:
    if isinstance(value, dict):
        value = value.get("config", {}).get("name", "")
    return isinstance(value, str) and "float" in value


def copy_operation(operation: keras.Operation, name: str, dtype: str | None) -> keras.Operation:
    """A fresh, unbuilt copy of a layer or operation, under another name.

    Args:
        operation: the original; it is not touched.
        name: name of the copy.
        dtype: dtype policy of the copy, or None for the original's.

    Raises:
        UnsupportedModelError: the config does not rebuild the layer.
    """
    try:
        if type(operation) is keras.layers.Lambda:
            fresh: Any = keras.layers.Lambda(
                operation.function,
                operation._output_shape,
                operation.mask,
                operation.arguments,
                dtype=dtype or operation.dtype_policy,
                trainable=operation.trainable,
            )
        else:
            config = operation.get_config()
            if dtype is not None:
                config = _at_dtype(config, dtype)
            if "name" in config:
                config = {**config, "name": name}
            fresh = type(operation).from_config(config)
    except Exception as error:
        raise UnsupportedModelError(
            f"layer '{operation.name}' of class {type(operation).__name__} cannot be rebuilt from "
            f"its config ({words_of(error)}): "
            "give it a get_config() that returns every argument of its __init__"
        ) from error
    fresh.name = name
    return fresh


@contextlib.contextmanager
def blank_weights(operation: keras.Operation) -> Iterator[None]:
    """Let a copy build its weights as zeros: they are replaced at once, and drawing costs time."""
    usual = {
        name: value
        for name, value in vars(operation).items()
        if name.endswith("_initializer") and isinstance(value, keras.initializers.Initializer)
    }
    zeros = keras.initializers.Zeros()
    for name in usual:
        setattr(operation, name, zeros)
    try:
        yield
    finally:
        for name, value in usual.items():
            setattr(operation, name, value)


def copy_state(source: keras.Operation, target: keras.Operation) -> None:
    """Give a built copy the weights and other state of its original.

    Raises:
        UnsupportedModelError: the copy's weights differ in number or shape.
    """
    if not isinstance(source, keras.Layer):
        return
    pairs = list(zip(sublayers(source), sublayers(target), strict=False))
    shapes = [[tuple(v.shape) for v in layer.weights] for layer in (source, target)]
    if shapes[0] != shapes[1] or len(pairs) != len(list(sublayers(source))):
        raise UnsupportedModelError(
            f"layer '{source.name}' of class {type(source).__name__} cannot be rebuilt from its "
            f"config: its weights have shapes {shapes[0]}, those of its copy {shapes[1]}"
        )
    for old, new in zip(source.variables, target.variables, strict=False):
        if tuple(old.shape) == tuple(new.shape):
            new.assign(old.value if old.dtype == new.dtype else as_array(old))
    for old, new in pairs:  # what a layer is made of may be frozen by itself
        if new.trainable != old.trainable:
            new.trainable = old.trainable
        finalize = getattr(new, "finalize_state", None)
        if finalize is not None:
            finalize()
        if type(old) is keras.layers.Normalization and old.mean is not None:
            # It computes with these and not with its weights, which set_weights may change.
            new.mean = keras.ops.cast(old.mean, new.compute_dtype)
            new.variance = keras.ops.cast(old.variance, new.compute_dtype)

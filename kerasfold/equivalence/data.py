"""The user's own inputs, as batches that fit the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import tree

from kerasfold.errors import FoldError
from kerasfold.read.model import input_structure
from kerasfold.read.weights import as_dtype


def given(model: keras.Model, data: Any) -> list[Any]:
    """The user's data as batches that fit the model.

    Raises:
        FoldError: no data, or data of another structure or shape.
    """
    try:
        batches = list(_batches(model, data))
    except (TypeError, ValueError) as error:
        if isinstance(error, FoldError):
            raise
        raise FoldError(
            f"data of type {type(data).__name__} does not fit the inputs of '{model.name}': {error}"
        ) from error
    if not batches or any(len(x) == 0 for x in tree.flatten(batches)):
        raise FoldError("data holds no input")
    specs = tree.flatten(input_structure(model))
    for batch in batches:
        for x, spec in zip(tree.flatten(batch), specs, strict=True):
            fits = len(x.shape) == len(spec.shape) and all(
                n is None or n == m for n, m in zip(spec.shape[1:], x.shape[1:], strict=True)
            )
            if not fits:
                raise FoldError(
                    f"data of shape {tuple(x.shape)} does not fit input '{spec.name}' of shape "
                    f"{tuple(spec.shape)}"
                )
    return [
        tree.map_structure(lambda x, spec: as_dtype(x, spec.dtype), batch, input_structure(model))
        for batch in batches
    ]


def _batches(model: keras.Model, data: Any) -> Iterator[Any]:
    """Inputs of the model, batch by batch, whatever `data` is."""
    specs = input_structure(model)
    if keras.ops.is_tensor(data):
        data = keras.ops.convert_to_numpy(data)
    if isinstance(data, (str, bytes, int, float)):
        raise FoldError(f"data of type {type(data).__name__}: pass arrays, or batches of them")
    flat = tree.flatten(data) if isinstance(data, (Mapping, list, tuple, np.ndarray)) else []
    if flat and all(hasattr(x, "shape") for x in flat):
        arrays = _arrays(specs, data)
        for start in range(0, len(arrays[0]), 32):
            yield tree.pack_sequence_as(specs, [x[start : start + 32] for x in arrays])
        return
    indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    for item in (data[i] for i in range(len(data))) if indexed else data:
        x = item[0] if isinstance(item, tuple) else item
        arrays = [keras.ops.convert_to_numpy(v) for v in _arrays(specs, x)]
        yield tree.pack_sequence_as(specs, arrays)


def _arrays(specs: Any, data: Any) -> list[Any]:
    """One array for each input, in the model's order: of a mapping, those of their names."""
    inputs = tree.flatten(specs)
    if isinstance(data, Mapping):
        names = list(specs) if isinstance(specs, Mapping) else [spec.name for spec in inputs]
        missing = [name for name in names if name not in data]
        if missing:
            raise FoldError(
                f"data has no array for input(s) {missing}. Received: {sorted(map(str, data))}"
            )
        chosen = {name: data[name] for name in names}
        data = chosen if isinstance(specs, Mapping) else list(chosen.values())
    arrays = tree.flatten(data)
    if len(arrays) != len(inputs):
        raise FoldError(f"data holds {len(arrays)} array(s), the model takes {len(inputs)}")
    lengths = {spec.name: len(x) for spec, x in zip(inputs, arrays, strict=True)}
    if len(set(lengths.values())) > 1:
        raise FoldError(f"data holds arrays of different lengths: {lengths}")
    return arrays

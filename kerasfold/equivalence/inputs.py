"""Inputs to compare models on, random or given, and running models on them."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import tree

from kerasfold.backend import device
from kerasfold.errors import FoldError, words_of
from kerasfold.read.model import input_structure, sublayers
from kerasfold.read.weights import as_array, as_dtype

PROBES = (4, 16)  # random inputs, at least and at most
PROBED = 200_000  # numbers in all of them, between the two
FREE_SIZES = (33, 64, 97, 128, 224, 299)  # tried along unknown axes
MOST = 2**25  # numbers in one input that is looked for beyond them

Arrays: TypeAlias = list[np.ndarray]
Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Ran:
    """A model, inputs, and what it gives on them, so that no model runs twice on the same.

    Attributes:
        model: the model.
        batches: the inputs.
        outputs: in flat order, the batches stacked.
    """

    model: keras.Model
    batches: list[Any]
    outputs: Arrays


def run(model: keras.Model, batches: Iterable[Any]) -> Arrays:
    """Outputs in flat order, the batches stacked."""
    parts = []
    specs = input_structure(model)
    for batch in batches:
        flat = zip(tree.flatten(batch), tree.flatten(specs), strict=True)
        typed = tree.pack_sequence_as(
            specs, [keras.ops.convert_to_tensor(x, dtype=spec.dtype) for x, spec in flat]
        )
        with warnings.catch_warnings():
            # A nested model called with another structure was reported when it was built.
            warnings.filterwarnings("ignore", message="The structure of `inputs`")
            outputs = tree.flatten(model(typed, training=False))
        parts.append([keras.ops.convert_to_numpy(y) for y in outputs])
    same = all(p[i].shape[1:] == parts[0][i].shape[1:] for p in parts for i in range(len(parts[0])))
    if same:
        columns = zip(*parts, strict=True)
        return [np.concatenate([np.atleast_1d(y) for y in column]) for column in columns]
    # Images of several sizes: one flat row per input.
    return [
        np.concatenate([c.reshape(-1) for c in column])[None] for column in zip(*parts, strict=True)
    ]


def ran(model: keras.Model, batches: list[Any]) -> Ran:
    """Run a model that may not run here. Raises `FoldError`."""
    try:
        return Ran(model, batches, run(model, batches))
    except Exception as error:
        raise FoldError(
            f"model '{model.name}' does not run on {device()}, where it was to be compared "
            f"({words_of(error)}): pass verify=False, and compare where it does run"
        ) from error


def probes(model: keras.Model, input_shape: Any = None) -> list[Any]:
    """Random inputs; where the image size is free, of a size that the model takes.

    Args:
        model: the model.
        input_shape: of one input without the batch, to draw them of; a structure of shapes as the
            model takes its inputs; or None.

    Raises:
        FoldError: a shape that does not fit, or a model that runs on none.
    """
    if input_shape is not None:
        return _drawn(model, _shapes(model, input_shape))
    specs = tree.flatten(input_structure(model))
    error: Exception | None = None
    for size in _sizes(model, specs):
        batches = _drawn(model, [_sized(spec, size) for spec in specs])
        try:
            run(model, batches[:1])
        except Exception as failure:
            error = failure
        else:
            return batches
        if all(n is not None for spec in specs for n in spec.shape[1:]):
            break
    assert error is not None
    raise FoldError(
        f"model '{model.name}' does not run on random inputs ({words_of(error)}): give the size of "
        "one it runs on as input_shape=, or inputs as data=, or pass verify=False"
    ) from error


def _sizes(model: keras.Model, specs: Sequence[Any]) -> Iterator[int]:
    """Sizes to try along unknown axes: usual ones, then larger where those give empty images."""
    yield from FREE_SIZES
    size = FREE_SIZES[-1]
    while not _gives_pixels(model, [_sized(spec, size) for spec in specs]):
        size += size // 2
        if sum(math.prod(_sized(spec, size)) for spec in specs) > MOST:
            return
        if _gives_pixels(model, [_sized(spec, size) for spec in specs]):
            yield size


def _gives_pixels(model: keras.Model, shapes: Sequence[Shape]) -> bool:
    """Whether no output is empty, by the layers' own account of sizes."""
    structure = input_structure(model)
    tensors = [
        keras.KerasTensor((spec.shape[0], *shape), spec.dtype)
        for spec, shape in zip(tree.flatten(structure), shapes, strict=True)
    ]
    try:
        outputs = model.compute_output_spec(tree.pack_sequence_as(structure, tensors))
    except Exception:
        return False
    return all(n is None or n > 0 for y in tree.flatten(outputs) for n in y.shape)


def _sized(spec: Any, size: int) -> Shape:
    return tuple(size if n is None else n for n in spec.shape[1:])


def _shapes(model: keras.Model, given: Any) -> list[Shape]:
    """The user's shapes, one for each input. Raises `FoldError`."""
    structure = input_structure(model)
    specs = tree.flatten(structure)
    try:
        numbers = [int(n) for n in tree.flatten(given)]
    except (TypeError, ValueError):
        numbers = []
    ranks = [len(spec.shape) - 1 for spec in specs]
    starts = itertools.accumulate(ranks, initial=0)
    shapes = [tuple(numbers[i : i + rank]) for i, rank in zip(starts, ranks, strict=False)]
    fits = len(numbers) == sum(ranks) and all(
        m > 0 and n in (None, m)
        for spec, shape in zip(specs, shapes, strict=True)
        for n, m in zip(spec.shape[1:], shape, strict=True)
    )
    if not fits:
        wanted = {spec.name: tuple(spec.shape[1:]) for spec in specs}
        raise FoldError(
            f"input_shape={given!r} does not fit the inputs of '{model.name}', which are, without "
            f"the batch: {wanted}"
        )
    return shapes


def _drawn(model: keras.Model, shapes: Sequence[Shape]) -> list[Any]:
    """Random inputs of given shapes."""
    structure = input_structure(model)
    rng = np.random.default_rng(0)
    specs = tree.flatten(structure)
    fixed = {x.shape[0] for x in specs} - {None}
    numbers = sum(map(math.prod, shapes))
    wanted = min(max(PROBED // max(numbers, 1), PROBES[0]), PROBES[1])
    count = 1 if not fixed else -(-wanted // max(fixed))
    words = [
        layer.input_dim for layer in sublayers(model) if isinstance(layer, keras.layers.Embedding)
    ]

    def draw(spec: Any, shape: Shape) -> np.ndarray:
        size = (wanted if spec.shape[0] is None else spec.shape[0], *shape)
        if "float" in spec.dtype:
            # Rounded as the model will round it, so that both precisions see one input.
            return as_array(as_dtype(rng.normal(size=size), spec.dtype))
        few = 256 if spec.dtype == "uint8" else 2
        return rng.integers(0, min(words, default=few), size=size)

    return [
        tree.pack_sequence_as(structure, list(map(draw, specs, shapes)))
        for _ in range(max(count, 1))
    ]


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

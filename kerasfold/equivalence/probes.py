"""Random inputs to compare models on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import tree

from kerasfold.equivalence.runs import AsIs
from kerasfold.errors import FoldError, words_of
from kerasfold.read.model import input_structure, sublayers
from kerasfold.read.weights import as_array, as_dtype

PROBES = (4, 16)  # random inputs, at least and at most
PROBED = 200_000  # numbers in all of them, between the two
FREE_SIZES = (33, 64, 97, 128, 224, 299)  # tried along unknown axes
MOST = 2**25  # numbers in one input that is looked for beyond them

Shape: TypeAlias = tuple[int, ...]


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
    if all(n is not None for spec in specs for n in spec.shape[1:]):
        return _drawn(model, [_sized(spec, 0) for spec in specs])
    error: Exception | None = None
    for size in _sizes(model, specs):
        batches = _drawn(model, [_sized(spec, size) for spec in specs])
        try:
            AsIs(model)(batches[0])
        except Exception as failure:
            error = failure
        else:
            return batches
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

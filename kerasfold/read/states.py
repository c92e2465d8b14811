"""What a copy has of its original: its weights, and what else it holds."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Container, Iterator
from typing import Any

import keras
import numpy as np

from kerasfold.backend import tensor_of
from kerasfold.errors import UnsupportedModelError, words_of
from kerasfold.read.model import held_by, is_of_keras, sublayers
from kerasfold.read.weights import as_array, as_stored, shape_of


class _Start:
    """An initializer that gives a weight of a copy the values of the original's.

    Drawing values, and writing others over them, takes longer than all else that a weight needs.
    """

    def __init__(self, weight: keras.Variable) -> None:
        self.weight = weight
        self.was_asked = False

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        if tuple(shape) != shape_of(self.weight):
            return keras.ops.zeros(shape, dtype)
        self.was_asked = True
        if dtype == self.weight.dtype:
            return tensor_of(self.weight)
        return keras.ops.convert_to_tensor(as_array(self.weight), dtype=dtype)


@contextlib.contextmanager
def started(source: keras.Operation, target: keras.Operation) -> Iterator[dict[str, _Start]]:
    """Let a copy build its weights as its original's are, where it names them, or as zeros.

    Args:
        source: the original.
        target: its copy, to be built meanwhile.

    Yields:
        The initializers that it is asked for, by the name of the weight.
    """
    usual = {
        name: value
        for name, value in vars(target).items()
        if name.endswith("_initializer") and isinstance(value, keras.initializers.Initializer)
    }
    zeros, starts = keras.initializers.Zeros(), {}
    for name in usual:
        own = name.removesuffix("_initializer")
        named = ((n, getattr(source, n, None)) for n in (own, f"{own}_kernel"))
        found = next(((n, w) for n, w in named if isinstance(w, keras.Variable)), None)
        start = zeros
        if found is not None:
            start = starts[found[0]] = _Start(found[1])
        setattr(target, name, start)
    try:
        yield starts
    finally:
        for name, value in usual.items():
            setattr(target, name, value)


def _other_state(
    source: keras.Layer, target: keras.Layer
) -> Iterator[tuple[keras.Variable, keras.Variable]]:
    """What a copy and its original hold besides weights, layer by layer, where that is alike.

    It need not be: a layer rebuilt without a rate at which to drop has no seed either.
    """
    weights = {id(v) for layer in (source, target) for v in layer.weights}
    for pair in zip(sublayers(source), sublayers(target), strict=True):
        old, new = ([v for v in held_by(layer) if id(v) not in weights] for layer in pair)
        if list(map(shape_of, old)) == list(map(shape_of, new)):
            yield from zip(old, new, strict=True)


def copy_policy(layer: keras.Layer, copied: keras.Layer) -> None:
    """Give a layer or model the dtype policy of another, and not that of the process.

    But for one that quantises: to set it is to do so.
    """
    if getattr(layer.dtype_policy, "quantization_mode", None) is None:
        copied.dtype_policy = layer.dtype_policy


def copy_state(
    source: keras.Operation, target: keras.Operation, given: Container[int] = ()
) -> None:
    """Give a built copy the weights and other state of its original.

    Args:
        source: the original.
        target: its copy.
        given: weights of the copy, by id, that have their values.

    Raises:
        UnsupportedModelError: the copy's weights differ in number or shape, or it does not take
            what else its original saves.
    """
    if not isinstance(source, keras.Layer):
        return
    pairs = list(zip(sublayers(source), sublayers(target), strict=False))
    shapes = [[shape_of(v) for v in layer.weights] for layer in (source, target)]
    if shapes[0] != shapes[1] or len(pairs) != len(list(sublayers(source))):
        raise UnsupportedModelError(
            f"the weights of '{source.name}' have shapes {shapes[0]}, those of its copy {shapes[1]}"
        )
    for old, new in pairs:
        _copy_saved(old, new)
    weights = list(zip(source.weights, target.weights, strict=True))
    for old, new in (*weights, *_other_state(source, target)):
        if id(new) not in given:
            new.assign(tensor_of(old) if old.dtype == new.dtype else as_array(old))
    for old, new in pairs:  # what a layer is made of may be frozen by itself
        if new.trainable != old.trainable:
            new.trainable = old.trainable
        if type(old) is keras.layers.Normalization and old.mean is not None:
            # It computes with these and not with its weights, which set_weights may change.
            new.mean = keras.ops.cast(old.mean, new.compute_dtype)
            new.variance = keras.ops.cast(old.variance, new.compute_dtype)


def _copy_saved(source: keras.Layer, target: keras.Layer) -> None:
    """Give a copy what its original saves besides weights, as Keras does with what is in a file.

    That is a vocabulary, or what the author of a layer lets it save.

    Raises:
        UnsupportedModelError: the copy does not take it.
    """
    try:
        if hasattr(source, "get_vocabulary"):
            _copy_vocabulary(source, target)
        elif not is_of_keras(source):
            _copy_as_saved(source, target)
    except Exception as error:
        raise UnsupportedModelError(
            f"layer '{source.name}' of class {type(source).__name__} saves more than its weights, "
            f"which a copy of it does not take ({words_of(error)}): let the model be saved and "
            "loaded, and mend what that says"
        ) from error


def _copy_vocabulary(source: Any, target: Any) -> None:
    """Give a layer for strings or numbers what another looks them up in."""
    words = source.get_vocabulary(include_special_tokens=True)
    store: dict[str, Any] = {}
    source.save_own_variables(store)  # the weight of each word, if they have any
    weights = [x[: len(words)] for x in store.values()]
    target.set_vocabulary(words, *weights)


def _copy_as_saved(source: Any, target: Any) -> None:
    """Let a layer save what it saves in its own way, and a copy load that."""
    if type(source).load_own_variables.__module__.partition(".")[0] != "keras":
        store: dict[str, Any] = {}
        source.save_own_variables(store)
        # Arrays of its own, as a file has: what is loaded may be kept.
        target.load_own_variables({k: np.array(as_stored(v)) for k, v in store.items()})
    if hasattr(source, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            source.save_assets(folder)
            target.load_assets(folder)

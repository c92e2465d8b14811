"""What is of any batch, where Keras says that it is of one.

Keras says of a sum of a constant and of what is of any batch that it has the constant's, of 1; and
so of all that is called on it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
from keras import tree

from kerasfold.quiet import unsaid
from kerasfold.read.nodes import symbolic

_MERGES = (
    *(keras.layers.Add, keras.layers.Subtract, keras.layers.Multiply, keras.layers.Average),
    *(keras.layers.Maximum, keras.layers.Minimum),
)


def shape_given(
    operation: keras.Operation, shape: Sequence[int | None], given: Iterable[Sequence[int | None]]
) -> tuple[int | None, ...]:
    """The shape of what an operation gives: of a sum of any batch, if one of its terms is.

    Args:
        operation: the operation.
        shape: what Keras says.
        given: the shapes of what it is given.
    """
    is_free = isinstance(operation, _MERGES) and any(tuple(x[:1]) == (None,) for x in given)
    return (None, *shape[1:]) if is_free else tuple(shape)


@contextlib.contextmanager
def of_any_batch(layers: Iterable[keras.Layer]) -> Iterator[None]:
    """Meanwhile merging layers say `shape_given` of what they give."""
    merges = [layer for layer in layers if isinstance(layer, _MERGES)]

    def saying(layer: keras.Layer) -> Callable[..., keras.KerasTensor]:
        def says(*args: Any, **kwargs: Any) -> keras.KerasTensor:
            said = type(layer).compute_output_spec(layer, *args, **kwargs)
            given = [x.shape for x in symbolic(args)]
            if shape_given(layer, said.shape, given) == tuple(said.shape):
                return said
            return keras.KerasTensor(shape_given(layer, said.shape, given), said.dtype)

        return says

    for layer in merges:
        vars(layer)["compute_output_spec"] = saying(layer)
    try:
        yield
    finally:
        for layer in merges:
            del vars(layer)["compute_output_spec"]


def shapes_anew(
    operation: keras.Operation, args: Any, kwargs: Any
) -> list[tuple[int | None, ...]] | None:
    """The shapes of what an operation gives of other tensors than it was called on; None if unsaid.

    Args:
        operation: the operation.
        args: what it is given, with `keras.KerasTensor` for tensors.
        kwargs: the same.
    """
    try:
        with unsaid():
            said = operation.compute_output_spec(*args, **kwargs)
    except Exception:  # it takes no such tensors, or looks at numbers
        return None
    return [tuple(x.shape) for x in tree.flatten(said)]

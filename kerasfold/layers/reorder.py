"""A rearrangement in as few Reshape and Permute layers as say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.rearrange import Rearrangement, Shape


@dataclass(frozen=True, slots=True)
class Step:
    """One layer, without the batch.

    Attributes:
        shape: after it.
        axes: for a Permute layer, the axes in their new order; None for a Reshape layer.
    """

    shape: Shape
    axes: tuple[int, ...] | None = None

    @property
    def layer(self) -> tuple[Any, dict[str, Any]]:
        """Its class, and what it is told."""
        if self.axes is None:
            shape = tuple(-1 if n is None else n for n in self.shape)
            return keras.layers.Reshape, {"target_shape": shape}
        return keras.layers.Permute, {"dims": tuple(axis + 1 for axis in self.axes)}


def in_tensors(r: Rearrangement, layout: str) -> Rearrangement:
    """A rearrangement of images as one of their Keras tensors, without the batch."""
    return r.channels_at(-1, 0) if layout == "channels_first" else r


def steps(r: Rearrangement) -> list[Step]:
    """The layers that rearrange Keras tensors so.

    Raises:
        Refused: it takes a reshape to several axes of unknown size.
    """
    if r.keeps_order:
        return [] if r.is_identity else [_reshape(r.target)]
    whole = _permutation(r)
    if whole is not None:
        return [Step(r.target, whole)]
    found = [] if r.source == r.factors else [_reshape(r.factors)]
    permuted = tuple(r.factors[i] for i in r.order)
    found.append(Step(permuted, r.order))
    return found if permuted == r.target else [*found, _reshape(r.target)]


def _reshape(shape: Shape) -> Step:
    if shape.count(None) > 1:
        raise Refused("a reshape to several axes of unknown size")
    return Step(shape)


def _permutation(r: Rearrangement) -> tuple[int, ...] | None:
    """The axes before in the order of those after, if the rearrangement is no more than that."""
    parts = sorted(r.parts(), key=lambda part: part.place)
    after = {part.target: part.source for part in parts}
    if len(r.source) != len(r.target) or not len(parts) == len(after) == len(set(after.values())):
        return None
    rest = iter(axis for axis in range(len(r.source)) if axis not in after.values())
    return tuple(after[axis] if axis in after else next(rest) for axis in range(len(r.target)))

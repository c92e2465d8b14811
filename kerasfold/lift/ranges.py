"""Interval analysis: between which numbers each channel of a tensor lies, and which are constant.

Forward, from inputs that may be anything. What a convolution makes of intervals is known of the
signs of its weights, rounded outwards; a channel is constant only where that is exact: nothing
that varies is read with a weight other than zero, or an activation cuts all of its interval off.
A constant before zero padding is an image, which is the same for all inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.product import ENTRIES, Array, runs
from kerasfold.algebra.response import even, response, some
from kerasfold.lift.program import Node

EPS = float(np.finfo("float64").eps)


@dataclass(frozen=True, eq=False, slots=True)
class Range:
    """What is known of a tensor, by channel.

    Attributes:
        low: no sample is less, (channels,).
        high: none is more, (channels,).
        fixed: whether a channel is the same for all inputs, (channels,).
        image: those that are, and zeros for others: (*sizes, channels), of one sample along
            axes that none of them varies along.
    """

    low: Array
    high: Array
    fixed: Array
    image: Array

    @staticmethod
    def between(low: Array, high: Array, rank: int) -> Range:
        """Of intervals; none of them is of one number."""
        fixed = np.zeros(low.shape, bool)
        return Range(low, high, fixed, np.zeros((1,) * rank + low.shape))

    @staticmethod
    def unknown(rank: int, channels: int) -> Range:
        """Anything."""
        far = np.full(channels, math.inf)
        return Range.between(-far, far, rank)

    @property
    def rank(self) -> int:
        """Axes of the image."""
        return self.image.ndim - 1

    @property
    def constants(self) -> Array:
        """The numbers of channels that are the same all over the image, and zeros."""
        return self.image[(0,) * self.rank]

    def of_channels(self, channels: Sequence[int]) -> Range:
        """Of some channels, in an order."""
        chosen = list(channels)
        parts = (self.low[chosen], self.high[chosen], self.fixed[chosen])
        return Range(*parts, even(self.image[..., chosen]))

    def having(self, fixed: Array, image: Array) -> Range:
        """The same, with channels that are constant."""
        if not fixed.any():
            return self
        image = even(np.where(fixed, image, 0.0))
        axes = tuple(range(image.ndim - 1))
        low = np.where(fixed, image.min(axis=axes), self.low)
        return Range(low, np.where(fixed, image.max(axis=axes), self.high), fixed, image)


def after(node: Node, xs: Sequence[Range]) -> Range:
    """What is known of a node of a program, given what is of its operands."""
    if node.selected:
        return xs[0].of_channels(node.selected)
    if node.op == "operator":
        return _after_operator(node, *xs)
    found = _AFTER[node.op](node, xs) if node.op in _AFTER else None
    return Range.unknown(len(node.sizes), node.channels) if found is None else found


def _after_operator(node: Node, x: Range) -> Range:
    assert node.geometry is not None
    rank, kernel, groups = len(node.sizes), node.looked_at(), node.geometry.groups
    found = Range.between(*((x.low, x.high) if node.mean else _interval(node, kernel, x)), rank)
    fixed = ~some(kernel, groups, ~x.fixed, _any)
    if not fixed.any():
        return found
    bias = node.offset()
    try:
        return found.having(fixed, response(node.as_stored(), x.image) + bias)
    except Refused:
        axes = tuple(range(x.rank))
        fixed = ~some(kernel, groups, ~x.fixed | x.image.any(axis=axes), _any)
        return found.having(fixed, bias.reshape((1,) * rank + bias.shape))


def _interval(node: Node, stored: Array, x: Range) -> tuple[Array, Array]:
    """Between which numbers the outputs of an operator lie, of which the kernel is stored so."""
    assert node.geometry is not None
    groups = node.geometry.groups
    top, bottom = np.isposinf(x.high), np.isneginf(x.low)
    rises = some(stored, groups, top, _more) | some(stored, groups, bottom, _less)
    falls = some(stored, groups, bottom, _more) | some(stored, groups, top, _less)
    if np.all(rises & falls):
        return np.full(node.channels, -math.inf), np.full(node.channels, math.inf)
    bias = node.offset()
    low, high = np.where(bottom, 0.0, x.low), np.where(top, 0.0, x.high)
    most = np.maximum(np.abs(low), np.abs(high))
    middle, reach, sizes = _by_tap(stored, groups, (low + high) / 2, (high - low) / 2, most)
    upper, lower = middle + reach, middle - reach
    if any(a.same or max(a.pad) > 0 or a.upsampling > 1 for a in node.geometry.axes):
        upper, lower = np.maximum(upper, 0.0), np.minimum(lower, 0.0)  # zeros are read, too
    size = sizes.sum(axis=0)
    slack = EPS * (8 + math.prod(stored.shape[:-1])) * (size + np.where(size > 0, np.abs(bias), 0))
    return (
        np.where(falls, -math.inf, lower.sum(axis=0) + bias - slack),
        np.where(rises, math.inf, upper.sum(axis=0) + bias + slack),
    )


def _by_tap(kernel: Array, groups: int, middle: Array, *sizes: Array) -> Sequence[Array]:
    """What each tap makes of one pixel; and without its signs of others: each (taps, outputs)."""
    width, outputs = kernel.shape[-2:]
    blocks = kernel.reshape(-1, width, groups, outputs // groups)
    pixels = np.stack([middle, *sizes]).reshape(-1, groups, width)
    made = np.zeros((len(pixels), len(blocks), groups, outputs // groups))
    for these in runs(width, ENTRIES // (len(blocks) * outputs)):  # what a cache holds
        part, seen = blocks[:, these].astype("float64"), pixels[..., these]
        made[:1] += np.einsum("twgm,pgw->ptgm", part, seen[:1])
        made[1:] += np.einsum("twgm,pgw->ptgm", np.abs(part, out=part), seen[1:])
    return [each.reshape(-1, outputs) for each in made]


def _any(weights: Array) -> Array:
    return weights != 0


def _more(weights: Array) -> Array:
    return weights > 0


def _less(weights: Array) -> Array:
    return weights < 0


def _after_sum(node: Node, xs: Sequence[Range]) -> Range | None:
    pairs = [(x, f) for x, f in zip(xs, node.factors, strict=True) if f]
    ends = [sorted_ends(x.low * f, x.high * f) for x, f in pairs]
    if not pairs:
        ends, pairs = [(np.zeros(node.channels),) * 2], [(xs[0], 0.0)]
    with np.errstate(invalid="ignore"):
        low, high = np.sum(ends, axis=0)
    fixed = np.logical_and.reduce([x.fixed | (f == 0) for x, f in pairs])
    image = sum(x.image * f for x, f in pairs)
    return widened(low, high, len(pairs), len(node.sizes)).having(fixed, np.asarray(image))


def sorted_ends(a: Array, b: Array) -> tuple[Array, Array]:
    """The lower and the higher of two numbers each."""
    return np.minimum(a, b), np.maximum(a, b)


def widened(low: Array, high: Array, steps: int, rank: int) -> Range:
    """Intervals, rounded outwards by some steps of float64; of what is no number, anything."""
    low = np.where(np.isnan(low), -math.inf, low - EPS * steps * np.abs(low))
    high = np.where(np.isnan(high), math.inf, high + EPS * steps * np.abs(high))
    return Range.between(low, high, rank)


def _after_concatenation(node: Node, xs: Sequence[Range]) -> Range:
    sizes = np.broadcast_shapes(*(x.image.shape[:-1] for x in xs))
    images = [np.broadcast_to(x.image, (*sizes, x.image.shape[-1])) for x in xs]
    return Range(
        np.concatenate([x.low for x in xs]),
        np.concatenate([x.high for x in xs]),
        np.concatenate([x.fixed for x in xs]),
        np.concatenate(images, axis=-1),
    )


def _after_rearrangement(node: Node, xs: Sequence[Range]) -> Range | None:
    (x,) = xs
    moved, known = node.rearrangement, x.fixed.any() or np.isfinite([x.low, x.high]).any()
    assert moved is not None
    sizes = [n for n in moved.source if n is not None]
    if len(sizes) < len(moved.source) or not known:
        return None
    axes = tuple(range(len(node.sizes)))
    low, high, fixed, image = (
        moved.applied(np.broadcast_to(values, sizes))
        for values in (x.low, x.high, x.fixed, x.image)
    )
    found = Range.between(low.min(axis=axes), high.max(axis=axes), len(axes))
    return found.having(np.asarray(fixed.all(axis=axes)), image)


_AFTER: dict[str, Callable[[Node, Sequence[Range]], Range | None]] = {
    "sum": _after_sum,
    "concatenate": _after_concatenation,
    "rearrange": _after_rearrangement,
}

"""A graph whose calls compute the pixels that are read, and hardly any others.

A call that works on every pixel by itself gives those of them that are read if it is given those:
`f(x)[cut] = f(x[cut])`. What reads it finds them where they were, in an image that is spread
again. The cut and the spreading are affine: a plan composes the one with what comes before the
call and the other with what comes behind it, and neither is computed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import keras

from kerasfold.algebra.places import progression
from kerasfold.lift.activations import acts_on_samples
from kerasfold.lift.demand import demands, pixel_axes
from kerasfold.lift.pointwise import works_by_pixel
from kerasfold.lift.regions import Regions, Rewritings, lift
from kerasfold.lift.writing import Writer, rewritten
from kerasfold.read.graph import Call, Graph, Tensor, given_others

Cut: TypeAlias = tuple[slice, ...]  # for each axis of a tensor


def narrowed(regions: Regions, least: float = 1.0) -> Rewritings:
    """The same model with calls that compute less: those that compute much more, and all.

    Args:
        regions: the lifted model.
        least: how many times the pixels that are read a call computes that computes much more.
    """
    cuts = _cuts(regions)
    much = {i: cut for i, cut in cuts.items() if _surplus(regions, i, cut) >= least}
    for chosen in (much, cuts) if len(much) < len(cuts) else (cuts,):
        if chosen:
            yield lift(_Narrowing(regions, chosen).run(), regions)


def _cuts(regions: Regions) -> dict[int, Cut]:
    """What is read of calls that can compute that alone and compute more, by their index."""
    graph, acting, found = regions.graph, _acting(regions), {}
    for index, demand in demands(regions).items():
        call = graph.calls[index]
        (output,) = call.outputs
        axes, cut = pixel_axes(graph, output), [slice(None)] * len(output.shape)
        cut[axes.start : axes.stop] = map(progression, demand)
        if all(kept == slice(None) for kept in cut) or not _can_spread(graph, axes):
            continue
        if index in acting:
            able = acts_on_samples(acting[index])
        else:  # what is composed with other steps anyway is not asked
            composes = index not in regions.barriers and len(call.inputs) == 1
            able = not composes and works_by_pixel(call, axes)
        if able:
            found[index] = tuple(cut)
    return found


def _can_spread(graph: Graph, axes: range) -> bool:
    """Whether Keras has an upsampling of images of so many axes."""
    return graph.layout == "channels_last" or len(axes) > 1


def _acting(regions: Regions) -> dict[int, Any]:
    """The inline activations of lifted calls, by their index."""
    records = regions.lifted.values()
    return {x.call.index: x.activation for x in records if x.activation is not None}


def _surplus(regions: Regions, index: int, cut: Cut) -> float:
    """How many times the pixels that a cut leaves there are."""
    (output,) = regions.graph.calls[index].outputs
    sizes = [(n, c) for n, c in zip(output.shape, cut, strict=True) if c != slice(None)]
    return math.prod(n / len(range(n)[c]) for n, c in sizes if n is not None)


class _Narrowing:
    """Writes the calls anew, in order; a tensor of which less is made keeps its number."""

    def __init__(self, regions: Regions, cuts: dict[int, Cut]) -> None:
        self.graph, self.cuts, self.acting = regions.graph, cuts, _acting(regions)
        self.writer = Writer(self.graph)
        self.names = {x.index: call.name for call in self.graph.calls for x in call.outputs}
        self.whole: dict[int, Tensor] = {}  # by tensor of which less is made, what its readers read
        self.read: dict[tuple[int, str], Tensor] = {}  # by tensor and cut

    def run(self) -> Graph:
        for call in self.graph.calls:
            cut = self.cuts.get(call.index)
            if cut is None:
                self.writer.calls.append(given_others(call, self._whole))
            elif call.index in self.acting:
                self._make_less(replace(given_others(call, self._whole), cut=cut), cut)
            else:
                self._make_less(given_others(call, functools.partial(self._cut, cut)), cut)
        return rewritten(self.graph, self.writer.calls)

    def _whole(self, tensor: Tensor) -> Tensor:
        return self.whole.get(tensor.index, tensor)

    def _cut(self, cut: Cut, tensor: Tensor) -> Tensor:
        """The pixels of a tensor that are read, but for axes along which it is repeated."""
        pairs = zip(tensor.shape, cut, strict=True)
        own = tuple(slice(None) if n == 1 else kept for n, kept in pairs)
        if all(kept == slice(None) for kept in own):
            return self._whole(tensor)
        key = tensor.index, str(own)
        if key not in self.read:
            name = f"{self.names.get(tensor.index, 'input')}_cut"
            self.read[key] = self.writer.called(name, lambda x: x[own], self._whole(tensor), own)
        return self.read[key]

    def _make_less(self, call: Call, cut: Cut) -> None:
        """A call that makes what is read of its output; and all of that, for its readers."""
        (output,) = call.outputs
        pairs = zip(output.shape, cut, strict=True)
        shape = tuple(
            n if kept == slice(None) or n is None else len(range(n)[kept]) for n, kept in pairs
        )
        less = replace(output, shape=shape)
        self.writer.calls.append(replace(call, outputs=(less,)))
        self.read[output.index, str(cut)] = less
        for step, *rest in _back(cut, output, self.graph.layout):
            less = self.writer.called(f"{call.name}_spread", step, less, *rest)
        self.whole[output.index] = less


def _back(cut: Cut, output: Tensor, layout: str) -> Iterator[tuple[Any, ...]]:
    """Steps that put the pixels of a cut where they were, each with what else it is given.

    Each is repeated up to the next one; before the first and behind the last there are zeros.
    """
    places = [_place(n, kept) for n, kept in zip(output.shape, cut, strict=True)]
    factors, ends, zeros = (list(x) for x in zip(*places, strict=True))
    axes = slice(2, None) if layout == "channels_first" else slice(1, -1)
    if max(factors) > 1:
        yield (_upsampling(factors[axes], layout, output.dtype),)
    if any(end != slice(None) for end in ends):
        key = tuple(ends)
        yield (lambda x: x[key]), key
    if any(map(any, zeros)):
        yield ((lambda x: keras.ops.pad(x, zeros)),)


def _place(size: int | None, kept: slice) -> tuple[int, slice, tuple[int, int]]:
    """Of one axis: how often what is kept is repeated, what of that there is, and zeros around."""
    if kept == slice(None):
        return 1, kept, (0, 0)
    assert size is not None
    start, _, step = kept.indices(size)
    repeated = step * len(range(size)[kept])
    end = min(repeated, size - start)
    return step, slice(end if end < repeated else None), (start, size - start - end)


def _upsampling(factors: Sequence[int], layout: str, dtype: str) -> keras.Layer:
    if len(factors) == 1:
        return keras.layers.UpSampling1D(factors[0], dtype=dtype)
    kind = keras.layers.UpSampling2D if len(factors) == 2 else keras.layers.UpSampling3D
    return kind(tuple(factors), data_format=layout, dtype=dtype)

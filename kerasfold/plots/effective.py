"""A linear part of a model as the one kernel that it is, and what it does to frequencies.

With `k[t, i, o]` the kernel, of a multiplication by `exp(j w p)` at every pixel `p` the part makes
one by `H(w)[i, o] = sum_t k[t, i, o] exp(j w t)`, up to its stride. Its gain is the root of the sum
of `|H|^2` over the channels that are read and written: `|H|` itself of one channel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from keras import tree

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.border import frame_boxes, frame_of, restricted
from kerasfold.algebra.chain import chain, collapsed
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.errors import FoldError
from kerasfold.forms.evaluate import evaluate, own, whole
from kerasfold.forms.known import Known
from kerasfold.lift.regions import Regions

FREQUENCIES = 128  # along an axis


@dataclass(frozen=True, eq=False, slots=True)
class Effective:
    """A linear part of a model as one operator; away from the border, where it pads inside.

    Attributes:
        reads: name of the layer or input whose tensor it reads.
        layers: names of the calls that it is made of, in order; the last gives its output.
        operator: what it computes.
    """

    reads: str
    layers: tuple[str, ...]
    operator: Operator

    @property
    def window(self) -> np.ndarray:
        """The kernel, with zeros between dilated taps: (*window, inputs of a group, outputs)."""
        return self.operator.window

    @property
    def weight(self) -> np.ndarray:
        """How much each pixel of the window weighs: the root of the sum of squares of channels."""
        return np.sqrt(np.square(self.window).sum(axis=(-2, -1)))

    @property
    def strides(self) -> tuple[int, ...]:
        """How far the window moves along each axis."""
        return tuple(axis.stride for axis in self.operator.geometry.axes)

    def gain(self, frequencies: int = FREQUENCIES) -> np.ndarray:
        """The gain at so many frequencies along each axis, from -pi on; pi itself is -pi."""
        window = self.window
        rank = window.ndim - 2
        # A window longer than the number of frequencies wraps around: exp(j w t) has that period.
        shape = tuple(frequencies * math.ceil(n / frequencies) for n in window.shape[:rank])
        power = np.zeros(shape)
        for output in np.moveaxis(window, -1, 0):
            spectrum = np.fft.fftn(output, shape, axes=tuple(range(rank)))
            power += np.square(np.abs(spectrum)).sum(axis=-1)
        sampled = power[tuple(slice(None, None, n // frequencies) for n in shape)]
        return np.fft.fftshift(np.sqrt(sampled))


def effective(models: Iterable[Regions], layer: str | None = None) -> Effective:
    """A linear part of some models as one operator.

    Args:
        models: lifted models.
        layer: name of the call that the part ends in; None for the part of the widest window.

    Raises:
        FoldError: no such part, or none that is one operator; the message says why.
    """
    parts = [part for regions in models for part in _parts(regions)]
    if layer is not None:
        parts = [part for part in parts if isinstance(layer, str) and part.layers[-1] == layer]
        if not parts:
            raise FoldError(
                f"no linear part of the model ends in a layer {layer!r}: name one that an "
                "activation, another layer that is not linear or the model's output comes after"
            )
    found: list[tuple[tuple, _Part]] = []
    refusal = "no layer of it is linear"
    for part in parts:
        try:
            found.append((part.rank(), part))
        except Refused as refused:
            refusal = refused.reason
    if not found:
        raise FoldError(f"no linear part of the model is one kernel: {refusal}")
    return max(found, key=lambda ranked: ranked[0])[1].effective()


@dataclass(frozen=True, eq=False, slots=True)
class _Part:
    """What the last of some nodes composes, between tensors that must be there.

    Attributes:
        known: the program.
        nodes: in order.
        layers: names of the calls that the nodes were added for.
    """

    known: Known
    nodes: tuple[int, ...]
    layers: tuple[str, ...]

    def rank(self) -> tuple[bool, int, int]:
        """By what parts are compared: an image before a vector, then the widest window.

        Raises:
            Refused: it is no operator.
        """
        widest = self._widest()[1]
        return not widest.vector, _pixels(widest), len(self.nodes)

    def effective(self) -> Effective:
        """As one operator; of several tensors that it reads, of the one with the widest window."""
        root, _ = self._widest()
        return Effective(self._name(root), self.layers, self._operator(root))

    def _widest(self) -> tuple[int, Geometry]:
        """The tensor that is read through the widest window, and that. Raises `Refused`."""
        known, nodes = self.known, self.nodes
        try:
            terms = known.terms(nodes)
        except Refused:
            if not known.is_path(nodes):
                raise
            terms = known.reads(nodes, collapsed(_interior(map(known.geometry, nodes))))
        plain = {root: term for root, term in terms.items() if isinstance(term, Geometry)}
        if not plain:
            raise Refused("it rearranges what it reads")
        return max(plain.items(), key=lambda term: _pixels(term[1]))

    def _operator(self, root: int) -> Operator:
        nodes = self.known.nodes
        try:
            return whole(evaluate(nodes, self.nodes), nodes, Operator)[root]
        except Refused:
            links = [own(nodes[i], Operator) for i in self.nodes]
            inner = _interior([link.geometry for link in links])
            return chain(
                [
                    Operator(geometry, link.kernel, link.bias)
                    for geometry, link in zip(inner, links, strict=True)
                ]
            )

    def _name(self, root: int) -> str:
        """Of the call or the input that makes a tensor."""
        regions = self.known.regions
        if root in self.known.owner:
            return self.known.owner[root].call.name
        tensor, graph = regions.roots[root], regions.graph
        inputs = zip(tree.flatten(graph.inputs), graph.input_layers, strict=True)
        made = {x.index: layer.name for x, layer in inputs}
        made |= {x.index: call.name for call in graph.calls for x in call.outputs}
        return made[tensor.index]


def _parts(regions: Regions) -> Iterator[_Part]:
    """What each tensor that must be there is composed of."""
    known = Known(regions)
    for sink in sorted(regions.sinks):
        seen, stack = {sink}, [sink]
        while stack:
            for operand in known.nodes[stack.pop()].operands:
                if operand in regions.owner and operand not in regions.sinks | seen:
                    seen.add(operand)
                    stack.append(operand)
        nodes = tuple(sorted(seen))
        layers = dict.fromkeys(regions.owner[i].call.name for i in nodes)
        yield _Part(known, nodes, tuple(layers))


def _interior(links: Iterable[Geometry]) -> list[Geometry]:
    """The links of a chain on the pixels that no padding between them reaches. Raises `Refused`."""
    links = list(links)
    frame = frame_of(links)
    box, _ = frame_boxes([n for n in links[-1].sizes if n is not None], frame)
    return restricted(links, box)


def _pixels(geometry: Geometry) -> int:
    return math.prod(axis.span for axis in geometry.axes)

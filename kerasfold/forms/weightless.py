"""Pools, upsamplings, paddings and croppings one after another, as one of them.

Each counts samples of a window, and so do they together: where that counts all of its samples
equally often, a mean of means is a mean, and what repeats repetitions repeats.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.chain import chain
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.cost import Cost, Prices, moved_bytes
from kerasfold.forms.form import Form, Nothing, activated
from kerasfold.forms.known import Known
from kerasfold.layers.rewrite import keras_pairs
from kerasfold.layers.spelling import keras_padding, nearest_axis, without_idle_strides
from kerasfold.layers.words import window
from kerasfold.lift.program import Node, Trait
from kerasfold.rooflines import Kind

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions

WINDOWED = ("AveragePooling", "UpSampling")  # what is said with its window

Family: TypeAlias = Literal[
    "AveragePooling", "GlobalAveragePooling", "UpSampling", "ZeroPadding", "Cropping"
]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Weightless(Form[Nothing]):
    """One layer without weights.

    Attributes:
        family: of the layer; what is cropped, too, is cropped before.
        whole: what it computes.
    """

    name: ClassVar[str] = "weightless"
    bars: ClassVar[frozenset[Trait]] = frozenset(
        {"sum", "concatenate", "rearranged", "multiplies", "scales"}
    )

    family: Family
    whole: Geometry

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Weightless | None:
        """A path of several such steps that is one."""
        return None if len(visited) == 1 else cls.of(known, visited)

    @classmethod
    def of(cls, known: Known, visited: Sequence[int]) -> Weightless | None:
        """The layer that a path of such steps is; None of other steps. Raises `Refused`."""
        if not known.is_path(visited):
            return None
        nodes = [known.nodes[i] for i in visited]
        if not all(map(_counts, nodes)):
            return None
        family, whole = known.once((cls, *map(known.kind, visited)), lambda: _layer(nodes))
        return cls(
            node=visited[-1],
            reads=known.reads(visited, whole),
            visited=tuple(visited),
            cost=_cost(known.prices, family, whole),
            family=family,
            whole=whole,
        )

    @classmethod
    def strided(cls, known: Known, visited: Sequence[int]) -> Weightless | None:
        """Means of single samples that a step selects at strides, from the first on; or None.

        They are copies, which add nothing up. TensorFlow has no pools of volumes in float64.
        """
        found = cls.of(known, visited)
        if found is None or math.prod(found.whole.taps) > 1 or len(found.whole.axes) > 2:
            return None
        if any(axis.crop[0] for axis in found.whole.axes):
            return None
        return replace(found, cost=Cost(seconds=found.cost.seconds))

    @property
    def averages(self) -> bool:
        """Whether it is a pool."""
        return self.family in ("AveragePooling", "GlobalAveragePooling")

    def on(self, channels: int, prices: Prices) -> Weightless:
        """The same on images of so many channels, at such prices."""
        whole = replace(self.whole, channels=(channels, channels), groups=channels)
        return replace(self, whole=whole, cost=_cost(prices, self.family, whole))

    def compose(self, nodes: Sequence[Node]) -> Nothing:
        """There are no weights."""
        return Nothing()

    def emit(self, build: Builder, composed: Nothing, xs: Mapping[int, Value]) -> Value:
        """A layer."""
        return activated(build, lambda name: self.emitted(build, xs[self.source], name))

    def emitted(self, build: Builder, x: Value, name: str, role: Hashable = None) -> Value:
        """The layer on a tensor, under a name; `role` tells it from others of one form."""
        axes, rank = self.whole.axes, len(self.whole.axes)
        crops, pads = [axis.crop for axis in axes], [axis.pad for axis in axes]
        config: dict[str, Any] = {"data_format": build.layout}
        if self.family == "UpSampling":
            sizes = tuple(axis.upsampling for axis in axes)
            config = {"size": sizes[0]} if rank == 1 else config | {"size": sizes}
        elif self.family == "GlobalAveragePooling":
            config["keepdims"] = not self.whole.vector
        elif self.family == "AveragePooling":
            config |= {"pool_size": self.whole.taps, "strides": tuple(a.stride for a in axes)}
        elif self.family == "ZeroPadding":
            config["padding"] = keras_pairs(pads)
        elif self.family == "Cropping":
            return build.cropped(x, crops, name) if any(map(any, crops)) else build.same(x, name)
        if self.family != "UpSampling" and keras_padding(self.whole) != "valid":
            x = build.pad_and_crop(x, crops, [(0, 0)] * rank, name)
        kind = build.kind(self.family, rank)
        return build.applied(kind, (self.name, role), x, name=name, **config)

    def words(self, regions: Regions) -> str:
        """The layer; of a crop of what was padded by as much, nothing."""
        if self.whole.is_pointwise:
            return "Identity"
        said = f" {window(replace(self.whole, groups=1))}" if self.family in WINDOWED else ""
        return f"{self.family}{len(self.whole.axes)}D{said}"


def _counts(node: Node) -> bool:
    """Whether a node adds up samples of a window, each channel by itself, all of them alike."""
    g = node.geometry
    return (
        g is not None
        and g.keeps_channels
        and (node.work == "copy" or (node.mean and all(axis.upsampling == 1 for axis in g.axes)))
    )


def _layer(nodes: Sequence[Node]) -> tuple[Family, Geometry]:
    """The layer that nodes are together, and what it computes. Raises `Refused`."""
    counts = chain([_counting(node) for node in nodes])
    if all(axis.out == 1 for axis in counts.geometry.axes):
        counts = counts.trimmed()
    channels = nodes[-1].channels
    whole = replace(counts.geometry, channels=(channels, channels), groups=channels)
    whole, axes = without_idle_strides(whole), whole.axes
    if any(axis.same or axis.dilation > 1 for axis in axes) or len(axes) > 3:
        raise Refused("windows with gaps, or of unknown padding")
    times = np.rint(counts.kernel)
    if np.any(times != times.flat[0]):
        raise Refused("a mean that counts some samples more often than others")
    means = math.prod(math.prod(n.geometry.taps) for n in nodes if n.work == "pool" and n.geometry)
    if times.sum() != means * math.prod(axis.upsampling for axis in axes):
        raise Refused("a mean of samples and of zeros")
    if any(axis.upsampling > 1 for axis in axes):
        if not all(axis == nearest_axis(axis.size, axis.upsampling) for axis in axes):
            raise Refused("what repeats samples is cropped or padded")
        return "UpSampling", whole
    padded = any(map(any, (axis.pad for axis in axes)))
    if all(axis.taps == axis.stride == 1 for axis in axes) and not whole.vector:
        return "ZeroPadding" if padded else "Cropping", whole
    if padded:
        raise Refused("a mean of what is padded with zeros")
    if all(axis.size == axis.taps + sum(axis.crop) for axis in axes):
        return "GlobalAveragePooling", whole
    if whole.vector:
        raise Refused("a mean of a part of the image, as a vector")
    return "AveragePooling", whole


def _counting(node: Node) -> Operator:
    """How often a window counts each of its samples, of one channel."""
    assert node.geometry is not None
    geometry = replace(node.geometry, channels=(1, 1), groups=1)
    return Operator(geometry, np.ones(geometry.kernel_shape), np.zeros(1))


def _cost(prices: Prices, family: Family, whole: Geometry) -> Cost:
    """What the layer costs."""
    if family in ("ZeroPadding", "Cropping"):
        moved = 2 * moved_bytes(whole.sizes, whole.channels[1])
        ends = [[axis.crop for axis in whole.axes], [axis.pad for axis in whole.axes]]
        calls = sum(any(map(any, pairs)) for pairs in ends)
        return prices.step("cut", calls * moved, calls) if calls else Cost()
    kinds: dict[Family, Kind] = {"UpSampling": "copy", "GlobalAveragePooling": "reduction"}
    cost = prices.operator(whole, kind=kinds.get(family, "pool"))
    return cost._replace(params=0.0, unconvolved=1)

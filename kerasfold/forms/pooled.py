"""One convolution, and a pool or an upsampling, or several, moved before or behind it.

What keeps constants commutes with pointwise operators: y = W mean(x) + b = mean(W x + b).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from kerasfold.algebra.chain import chain, collapsed
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.cost import Cost, pixels
from kerasfold.forms.evaluate import own
from kerasfold.forms.form import Composed, Form
from kerasfold.forms.kept import moved_cost
from kerasfold.forms.known import Known, is_matrix_alone, plain_image
from kerasfold.forms.normalised import normalised_cost
from kerasfold.forms.weightless import Weightless
from kerasfold.layers.limits import normalises
from kerasfold.layers.normalise import normalised
from kerasfold.layers.words import described
from kerasfold.lift.program import Node, Trait

if TYPE_CHECKING:
    from typing import Self

    from kerasfold.layers.build import Activation, Builder, Value
    from kerasfold.lift.regions import Regions


@dataclass(frozen=True, eq=False, slots=True)
class Single(Composed):
    """All but the pool."""

    operator: Operator

    @property
    def operators(self) -> Iterable[Operator]:
        """The one."""
        return (self.operator,)

    def of(self, read: int) -> Operator:
        """The one."""
        return self.operator


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Pooled(Form[Single]):
    """One convolution and a pool.

    Attributes:
        pool: the node that the pool is; of several, the last.
        several: what they are together, or what one is that is a part of a call; else None.
    """

    name: ClassVar[str] = "pooled"
    needs: ClassVar[frozenset[Trait]] = frozenset({"mean"})
    bars: ClassVar[frozenset[Trait]] = frozenset({"sum", "concatenate", "rearranged"})
    pool_first: ClassVar[bool]

    pool: int
    several: Weightless | None

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Self | None:
        """A path with a pool, or several in a row, where all that moves past it is pointwise."""
        if not known.is_path(visited):
            return None
        pools = tuple(i for i in visited if known.nodes[i].mean)
        others = [i for i in visited if i not in pools]
        if not (pools and others):
            return None
        alone = len(pools) == 1 and known.is_layer(pools[0])
        several = None if alone else Weightless.of(known, pools)
        if several is None and not alone:
            return None
        geometry = known.geometry(pools[0]) if several is None else several.whole
        if not geometry.steady or any(a.crop[0] for a in geometry.axes):
            return None
        if pools[0] == visited[0] if cls.pool_first else geometry.vector:
            return None  # nothing that moves
        links = []
        for i, sizes in zip(others, cls._sizes(known.nodes, others, pools), strict=True):
            link = known.geometry(i)
            if sizes is not None and not (link.axes and link.is_pointwise):
                return None
            links.append(link if sizes is None else link.at_sizes(sizes))
        rest = cls._rest(known, others, links)
        if rest is None:
            return None
        whole, cost = rest
        reads = known.reads(visited, whole)
        channels = known.nodes[next(iter(reads)) if cls.pool_first else index].channels
        if several is None:
            moved = replace(geometry, channels=(channels,) * 2, groups=channels)
            priced = known.prices.operator(moved, kind=known.layer_kind(pools[0]))
            cost += priced._replace(params=0.0, unconvolved=1)
        else:
            several = several.on(channels, known.prices)
            cost += several.cost
        return cls(
            node=index,
            reads=reads,
            visited=tuple(visited),
            cost=cost,
            pool=pools[-1],
            several=several,
        )

    @classmethod
    def _rest(
        cls, known: Known, others: Sequence[int], links: Sequence[Geometry]
    ) -> tuple[Geometry, Cost] | None:
        """What nodes other than the pool are as one step, and cost, or None. Raises `Refused`."""
        whole = plain_image(links)
        if whole is None:
            return None
        return whole, known.prices.operator(whole, known.shared(others))

    @classmethod
    def _sizes(
        cls, nodes: Sequence[Node], others: Sequence[int], pools: Sequence[int]
    ) -> list[Sequence[int | None] | None]:
        """Image sizes for the pointwise nodes of a chain that move past its pools, else None."""
        before, after = nodes[nodes[pools[0]].operands[0]].sizes, nodes[pools[-1]].sizes
        moved = [i < pools[0] if cls.pool_first else i > pools[-1] for i in others]
        return [(after if cls.pool_first else before) if m else None for m in moved]

    def compose(self, nodes: Sequence[Node]) -> Single:
        """All but the pools."""
        pools = [i for i in self.visited if nodes[i].mean]
        others = [i for i in self.visited if i not in pools]
        sizes = self._sizes(nodes, others, pools)
        steps = [own(nodes[i], Operator) for i in others]
        links = [x if n is None else x.at_sizes(n) for x, n in zip(steps, sizes, strict=True)]
        return Single(chain(links))

    def pooled(self, build: Builder, x: Value, name: str) -> Value:
        """A copy of the pool on a tensor, or the one that several are."""
        if self.several is None:
            return build.copied(self.pool, x, name)
        return self.several.emitted(build, x, name)

    def words(self, regions: Regions) -> str:
        """Both steps, in order."""
        kind = type(regions.owner[self.pool].call.operation).__name__
        steps = [self._said(regions), self.several.words(regions) if self.several else kind]
        return " + ".join(reversed(steps) if self.pool_first else steps)

    def _said(self, regions: Regions) -> str:
        (geometry,) = self.reads.values()
        return described(geometry, is_matrix_alone(regions, self.visited))


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class PoolFirst(Pooled):
    """The pool, then the convolution."""

    pool_first: ClassVar[bool] = True

    def emit(self, build: Builder, composed: Single, xs: Mapping[int, Value]) -> Value:
        """A copy of the pool, and a layer."""
        name, activation = build.result()
        wanted = f"{name}_moved" if self.pool == self.node else build.call(self.pool).name
        x = self.pooled(build, xs[self.source], build.names.reserve(wanted))
        return self._after(build, composed.operator, x, name, activation)

    def _after(
        self, build: Builder, operator: Operator, x: Value, name: str, activation: Activation
    ) -> Value:
        return build.convolution(x, operator, name, activation, "operator")


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class PoolThenScale(PoolFirst):
    """The pool, then a product and a sum by constants."""

    @classmethod
    def _rest(
        cls, known: Known, others: Sequence[int], links: Sequence[Geometry]
    ) -> tuple[Geometry, Cost] | None:
        """Scales and shifts of the channels: a weight that trains is made no constant."""
        scales = [known.nodes[i].work in ("scale", "shift") for i in others]
        if not all(scales) or any(known.layer_kind(i) == "normalisation" for i in others):
            return None
        whole = collapsed(links)
        samples = pixels(whole.sizes) * whole.channels[1]
        multiplies = any(known.nodes[i].work == "scale" for i in others)
        return whole, known.prices.elementwise(samples, 0, multiplies, whole.biased)

    def _after(
        self, build: Builder, operator: Operator, x: Value, name: str, activation: Activation
    ) -> Value:
        last = name if activation is None else build.names.reserve(f"{name}_scaled")
        gain, shift = operator.kernel.ravel(), operator.bias
        if not np.any(shift):
            x = build.scaled(x, gain, None, last)
        else:
            x = build.scaled(x, gain if np.any(gain != 1) else None, shift, last)
        return x if activation is None else build.activated(x, activation, name)

    def _said(self, regions: Regions) -> str:
        return "elementwise"


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class PoolThenNormalised(PoolFirst):
    """The pool, then the BatchNormalization that was before it, or one for several steps."""

    @classmethod
    def _rest(
        cls, known: Known, others: Sequence[int], links: Sequence[Geometry]
    ) -> tuple[Geometry, Cost] | None:
        """Scales and shifts of the channels, one at least by a BatchNormalization."""
        if not all(known.nodes[i].work in ("scale", "shift") for i in others):
            return None
        owners, whole = (known.owner[i].call.operation for i in others), collapsed(links)
        if not any(normalises(operation, whole.channels[1]) for operation in owners):
            return None
        if len(others) == 1:
            return whole, moved_cost(known, others[0], whole.sizes)
        return whole, normalised_cost(known, others, whole.sizes, behind=False)

    def _after(
        self, build: Builder, operator: Operator, x: Value, name: str, activation: Activation
    ) -> Value:
        pools = 1 if self.several is None else len(self.several.visited)
        if len(self.visited) == pools + 1:
            axis = 1 if build.layout == "channels_first" else -1
            return build.copied(self.visited[0], x, name, axis=axis)  # no activation is inline
        last = name if activation is None else build.names.reserve(f"{name}_scaled")
        x = normalised(build, x, operator.kernel.ravel(), operator.bias, last)
        return x if activation is None else build.activated(x, activation, name)

    def _said(self, regions: Regions) -> str:
        return "BatchNormalization"


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class PoolLast(Pooled):
    """The convolution, then the pool."""

    pool_first: ClassVar[bool] = False

    @property
    def roles(self) -> Mapping[int, Hashable]:
        """The convolution."""
        return {self.source: "operator"}

    def emit(self, build: Builder, composed: Single, xs: Mapping[int, Value]) -> Value:
        """A layer, and a copy of the pool."""
        name, activation = build.result()
        reserve = build.names.reserve
        label = reserve(f"{name}_operator")
        x = build.convolution(xs[self.source], composed.operator, label, None, "operator")
        if activation is None:
            return self.pooled(build, x, name)
        x = self.pooled(build, x, reserve(f"{name}_pool"))
        return build.activated(x, activation, name)

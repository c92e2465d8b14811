"""A sum of multiples of one scale: what is added or subtracted first is scaled once.

c x + c y - c z = c (x + y - z), each channel with a number of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.cost import Cost, Prices, moved_bytes, pixels
from kerasfold.forms.evaluate import evaluate
from kerasfold.forms.form import Composed, Form, activated
from kerasfold.forms.known import Known
from kerasfold.layers.limits import check_emittable
from kerasfold.lift.program import Node, Trait
from kerasfold.read.weights import count_params

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions


@dataclass(frozen=True, eq=False, slots=True)
class Factor(Composed):
    """What all terms are multiplied by, with what is added in the end, and the signs of terms."""

    scale: Operator
    signs: Mapping[int, bool]

    @property
    def operators(self) -> Iterable[Operator]:
        """The scale."""
        return (self.scale,)

    @property
    def gain(self) -> np.ndarray:
        """Of each channel."""
        return self.scale.kernel.ravel()


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Factored(Form[Factor]):
    """A sum, a difference, and a scale and a shift: those that are needed.

    Attributes:
        trains: whether the scale has weights that train, and is a convolution.
        subtracts: whether some of the terms are subtracted.
    """

    name: ClassVar[str] = "factored"
    needs: ClassVar[frozenset[Trait]] = frozenset({"sum", "concatenate"})

    trains: bool
    subtracts: bool

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Factored | None:
        """A sum of several tensors, each times the same numbers or their negatives."""
        parts = known.parts(visited)
        terms, node = parts[0].terms, known.nodes[index]
        if len(parts) > 1 or len(terms) == 1 or not all(map(_is_scale, terms.values())):
            return None
        signs, scale, multiplies = known.told(cls, visited)
        trains = any(count_params(known.owner[i].call.operation) for i in visited)
        cost = _sum_cost(known.prices, node, signs)
        if trains and (multiplies or scale.biased):
            check_emittable(scale)
            cost += known.prices.operator(scale, known.shared(visited))
        else:
            samples = pixels(node.sizes) * node.channels
            cost += known.prices.elementwise(samples, 0, multiplies, scale.biased)
        return cls(
            node=index,
            reads=terms,
            visited=tuple(visited),
            cost=cost,
            trains=trains,
            subtracts=not all(signs),
        )

    @staticmethod
    def ask(known: Known, visited: Sequence[int]) -> tuple[tuple[bool, ...], Geometry, bool]:
        """The signs of terms, the scale of their sum, and whether it multiplies."""
        factor = _factored(known.nodes, visited)
        multiplies = bool(np.any(factor.gain != 1))
        return tuple(factor.signs.values()), factor.scale.geometry, multiplies

    def compose(self, nodes: Sequence[Node]) -> Factor:
        """The scale, and the signs."""
        return _factored(nodes, self.visited)

    def emit(self, build: Builder, composed: Factor, xs: Mapping[int, Value]) -> Value:
        """The sum, and what it is multiplied by."""
        scale, shift = composed.scale, composed.scale.bias
        gain = composed.gain if np.any(composed.gain != 1) else None
        if gain is None and not np.any(shift):
            return activated(build, lambda name: _summed(build, composed, xs, name))
        if self.trains:
            name, activation = build.result()
            x = _summed(build, composed, xs, build.names.reserve(f"{name}_sum"))
            return build.convolution(x, scale, name, activation, "scale")

        def linear(name: str) -> Value:
            x = _summed(build, composed, xs, build.names.reserve(f"{name}_sum"))
            return build.scaled(x, gain, shift if np.any(shift) else None, name)

        return activated(build, linear)

    def words(self, regions: Regions) -> str:
        """That it is a sum or a difference, scaled once."""
        kind = "difference" if self.subtracts else "sum"
        return f"{kind} of {len(self.reads)}, scaled as one"


def _is_scale(term: object) -> bool:
    """Whether a term has one weight for each channel; None is the identity."""
    return term is None or (
        isinstance(term, Geometry) and term.is_of_pixels and term.keeps_channels
    )


def _factored(nodes: Sequence[Node], visited: Sequence[int]) -> Factor:
    """The scale that all terms have in common. Raises `Refused`."""
    (part,) = evaluate(nodes, visited)
    terms = {
        read: Operator.identity(nodes[read].sizes, nodes[read].channels) if term is None else term
        for read, term in part.terms.items()
    }
    first, *_ = terms.values()
    signs = {read: bool(np.all(x.kernel == first.kernel)) for read, x in terms.items()}
    if not all(signs[read] or np.all(x.kernel == -first.kernel) for read, x in terms.items()):
        raise Refused("a sum of different multiples")
    kernel = first.kernel
    if np.all(kernel == -1) and not all(signs.values()):  # y - x, and no product
        kernel, signs = -kernel, {read: not plus for read, plus in signs.items()}
    bias = np.sum([x.bias for x in terms.values()], axis=0)
    axes, channels = first.geometry.axes, first.geometry.channels
    geometry = Geometry(axes, channels, channels[0], bool(np.any(bias)))
    return Factor(Operator(geometry, kernel, bias), signs)


def _sum_cost(prices: Prices, node: Node, signs: Sequence[bool]) -> Cost:
    """What the sum costs."""
    image, counts = moved_bytes(node.sizes, node.channels), (sum(signs), signs.count(False))
    sums = [(count + 1) * image for count in counts if count > 1]
    sums += [3 * image] if min(counts) else []
    return sum((prices.step("elementwise", moved) for moved in sums), Cost(layers=len(sums)))


def _summed(build: Builder, factor: Factor, xs: Mapping[int, Value], name: str) -> Value:
    """The sum, the last of its layers with the name."""
    plus, minus = (
        [xs[read] for read, sign in factor.signs.items() if sign is side] for side in (True, False)
    )
    if not minus:
        return build.sum(plus, name)
    sides = [
        build.sum(side, build.names.reserve(f"{name}_{i}"))
        if len(side) > 1
        else build.as_computed(side[0], name)
        for i, side in enumerate((plus, minus))
    ]
    return build.names.give_exactly(sides[0] - sides[1], name)

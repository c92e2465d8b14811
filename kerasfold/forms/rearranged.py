"""One convolution for each tensor that is read, added up, and then rearranged.

Operators that are behind a rearrangement are composed with those before it where they pass it.
Scales and shifts that do not, as they vary from pixel to pixel, are one of each in the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.operator import Operator
from kerasfold.algebra.rearrange import Rearrangement
from kerasfold.algebra.rearranged import Rearranged, along, require_along
from kerasfold.cost import pixels
from kerasfold.forms.convolved import sum_cost, sum_words, summed
from kerasfold.forms.evaluate import Part, evaluate, whole
from kerasfold.forms.form import Composed, Form
from kerasfold.forms.known import Known, is_matrix_alone
from kerasfold.lift.activations import acts_on_samples
from kerasfold.lift.program import Node, Trait

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions


@dataclass(frozen=True, eq=False, slots=True)
class Samples(Composed):
    """Operators by the node that each reads, None for the identity, and a scale of all samples."""

    terms: Mapping[int, Operator | None]
    scale: Operator | None

    @property
    def operators(self) -> Iterable[Operator]:
        """All of them."""
        return filter(None, (*self.terms.values(), self.scale))


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Reordered(Form[Samples]):
    """Convolutions, a rearrangement of what they give, and a scale and a shift of its samples.

    Attributes:
        rearrangement: of the samples of their sum.
        after: of channels that are scaled, to the samples that they are; None without a scale.
        multiplies: whether they are scaled, and not only shifted.
    """

    name: ClassVar[str] = "rearranged"
    needs: ClassVar[frozenset[Trait]] = frozenset({"rearranged"})
    is_whole: ClassVar[bool] = True

    rearrangement: Rearrangement
    after: Rearrangement | None
    multiplies: bool

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Reordered | None:
        """The whole, where something passes a rearrangement, or several are one."""
        moving = [i for i in visited if known.nodes[i].rearrangement is not None]
        values = list(known.terms(visited).items()) if moving else []
        if not any(isinstance(value, Rearranged) for _, value in values):
            return None
        if moving == [index] and known.is_layer(index):
            raise Refused(
                "it does not work along what is computed before it, and is a step of its own"
            )
        terms, kinds, scales = {}, set(), []
        for read, value in values:
            if not isinstance(value, Rearranged):
                raise Refused("a sum of what is rearranged and what is not")
            if value.took and len(values) > 1:
                raise Refused("a sum of what is scaled and what is not")
            terms[read] = value.value
            kinds.add((value.whole, value.after, value.multiplies))
            scales += [value.scale] if value.scale is not None else []
        if len(kinds) > 1:
            raise Refused("a sum of what is rearranged in different ways")
        ((rearrangement, after, multiplies),) = kinds
        if any(map(known.misplaces_bias_of, filter(None, terms.values()))):
            return None
        node = known.nodes[index]
        cost = sum_cost(known, Part(node.channels, terms), node.sizes, known.layering(visited))
        if not rearrangement.is_identity:
            cost += known.prices.rearrangement(rearrangement, known.regions.graph.layout)
        constants = 0
        if after is not None:
            require_along(after)
            shifts = any(scale.biased for scale in scales)
            samples, count = pixels(node.sizes) * node.channels, scales[0].channels[0]
            constants = count * (multiplies + shifts)
            cost += known.prices.elementwise(samples, count, multiplies, shifts)
        return cls(
            node=index,
            reads=terms,
            visited=tuple(visited),
            cost=cost,
            constants=constants,
            rearrangement=rearrangement,
            after=after,
            multiplies=multiplies,
        )

    def compose(self, nodes: Sequence[Node]) -> Samples:
        """Each term by itself, before it is rearranged, and the scale."""
        values = whole(evaluate(nodes, self.visited), nodes, Operator)
        first = next(iter(values.values()))
        return Samples({read: value.value for read, value in values.items()}, first.scale)

    def emit(self, build: Builder, composed: Samples, xs: Mapping[int, Value]) -> Value:
        """A layer a term, their sum, Reshape and Permute layers, and a product and a sum."""
        name, activation = build.result()
        inner = self.after is None and acts_on_samples(activation)
        last = name if inner or activation is None else build.names.reserve(f"{name}_linear")
        label = build.names.reserve(f"{name}_operator")
        x = summed(build, composed.terms, xs, label, activation if inner else None)
        if not self.rearrangement.is_identity:
            moved = last if self.after is None else build.names.reserve(f"{name}_rearranged")
            x = build.rearranged(x, self.rearrangement, moved)
        if self.after is not None:
            assert composed.scale is not None
            gain, shift = composed.scale.kernel, composed.scale.bias
            constants = [along(self.after, values.ravel()) for values in (gain, shift)]
            x = build.scaled(
                x,
                constants[0] if self.multiplies else None,
                constants[1] if np.any(shift) else None,
                last,
            )
        return x if last == name else build.activated(x, activation, name)

    def words(self, regions: Regions) -> str:
        """Its terms, the shape after all, and what is done to each sample."""
        steps = [sum_words(self.reads, is_matrix_alone(regions, self.visited))]
        if not self.rearrangement.is_identity:
            shape = "x".join("?" if n is None else str(n) for n in self.rearrangement.target)
            steps.append(f"then rearranged to {shape}")
        if self.after is not None:
            steps.append("then scaled sample by sample" if self.multiplies else "then shifted")
        return ", ".join(steps)

"""Channels scaled and shifted, by normalisations among others: one BatchNormalization.

y[c] = gain[c] x[c] + shift[c], which is gain[c] (x[c] - 0) / sqrt(1) + shift[c].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kerasfold.cost import Cost, pixels
from kerasfold.forms.evaluate import operator_of
from kerasfold.forms.form import Form, activated
from kerasfold.forms.known import Known
from kerasfold.forms.scaled import Constants, gain_of, term_of_pixels
from kerasfold.layers.limits import normalises
from kerasfold.layers.normalise import normalised
from kerasfold.lift.program import Node, Sizes, Trait

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Normalised(Form[Constants]):
    """One BatchNormalization."""

    name: ClassVar[str] = "normalised"
    needs: ClassVar[frozenset[Trait]] = frozenset({"scales"})
    bars: ClassVar[frozenset[Trait]] = frozenset({"window"})

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Normalised | None:
        """Steps that take each channel by itself, of one tensor, at least one by such a layer."""
        term = term_of_pixels(known, visited)  # of weights too: those of the layer train
        if term is None or not term[1].keeps_channels:
            return None
        node = known.nodes[index]
        owners = (known.owner[i].call.operation for i in visited)
        if not any(normalises(operation, node.channels) for operation in owners):
            return None
        cost = normalised_cost(known, visited, node.sizes, known.ends_layer(term[0]))
        return cls(node=index, reads=dict([term]), visited=tuple(visited), cost=cost)

    def compose(self, nodes: Sequence[Node]) -> Constants:
        """The product and the sum of each channel."""
        operator = operator_of(nodes, self.visited)
        return Constants(gain_of(operator), operator.bias, operator)

    def emit(self, build: Builder, composed: Constants, xs: Mapping[int, Value]) -> Value:
        """A layer."""
        x = xs[self.source]
        return activated(
            build, lambda name: normalised(build, x, composed.gain, composed.shift, name)
        )

    def words(self, regions: Regions) -> str:
        """That it is a normalisation."""
        return "BatchNormalization"


def normalised_cost(known: Known, visited: Sequence[int], sizes: Sizes, behind: bool) -> Cost:
    """What one BatchNormalization in place of steps costs.

    Args:
        known: what is known of the program.
        visited: the steps.
        sizes: of the image.
        behind: whether it is the step behind a layer.
    """
    channels = known.nodes[visited[-1]].channels
    samples = pixels(sizes) * channels
    return known.prices.step("normalisation", 16 * samples, behind=behind)._replace(
        macs=samples, params=4 * channels / known.shared(visited), layers=1
    )

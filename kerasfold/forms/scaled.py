"""Channels selected, multiplied and shifted by constants: elementwise calls, and no convolution.

y[o] = gain[o] x[selected[o]] + shift[o].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.cost import pixels
from kerasfold.forms.evaluate import operator_of
from kerasfold.forms.form import Composed, Form
from kerasfold.forms.known import Known
from kerasfold.layers.rewrite import constants
from kerasfold.lift.program import Node, Trait
from kerasfold.read.weights import count_params

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions


@dataclass(frozen=True, eq=False, slots=True)
class Constants(Composed):
    """What channels are multiplied and shifted by."""

    gain: np.ndarray
    shift: np.ndarray
    operator: Operator

    @property
    def operators(self) -> Iterable[Operator]:
        """The steps as one."""
        return (self.operator,)


class Said(NamedTuple):
    """What weights say of steps by constants.

    Attributes:
        selected: the channels that are read, where a slice says them.
        multiplies: whether any of them is multiplied.
        shifts: whether something is added.
    """

    selected: range | None
    multiplies: bool
    shifts: bool


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Scaled(Form[Constants]):
    """A slice of the channels, a product and a sum: those of the three that are needed.

    Attributes:
        selected: the channels that are read.
    """

    name: ClassVar[str] = "scaled"
    bars: ClassVar[frozenset[Trait]] = frozenset({"multiplies", "window"})

    selected: range

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Scaled | None:
        """Steps by constants alone, of one tensor: a weight that trains is not made one."""
        if known.regions.graph.layout == "channels_first":
            return None
        if any(known.nodes[i].multiplies for i in visited):
            return None
        term = term_of_pixels(known, visited)
        if term is None or any(count_params(known.owner[i].call.operation) for i in visited):
            return None
        (read, _), node = term, known.nodes[index]
        said = known.told(cls, visited)
        if said.selected is None:
            return None
        samples = pixels(node.sizes) * node.channels
        behind = known.ends_layer(read)
        cost = known.prices.elementwise(samples, 0, said.multiplies, said.shifts, behind)
        if len(said.selected) < known.nodes[read].channels:
            cost += known.prices.step("cut", 8 * samples)
        return cls(
            node=index,
            reads=dict([term]),
            visited=tuple(visited),
            cost=cost,
            selected=said.selected,
        )

    @staticmethod
    def ask(known: Known, visited: Sequence[int]) -> Said:
        """Which of the three are needed."""
        whole = known.weights(visited)
        multiplies = bool(np.any(gain_of(whole) != 1))
        return Said(_selected(whole), multiplies, whole.geometry.biased)

    def compose(self, nodes: Sequence[Node]) -> Constants:
        """The product and the sum of each channel."""
        operator = operator_of(nodes, self.visited)
        return Constants(gain_of(operator), operator.bias, operator)

    def emit(self, build: Builder, composed: Constants, xs: Mapping[int, Value]) -> Value:
        """A slice, and operations."""
        name, activation = build.result()
        selected = slice(self.selected.start, self.selected.stop, self.selected.step)
        calls: dict[str, Callable[[Value], Value]] = {}
        if len(self.selected) < composed.operator.geometry.channels[0]:
            calls["slice"] = lambda x: x[..., selected]
        if np.any(composed.gain != 1):
            calls["scale"] = lambda x: x * constants(composed.gain, x, build.layout)
        if np.any(composed.shift):
            calls["shift"] = lambda x: x + constants(composed.shift, x, build.layout)
        x, (*before, last) = xs[self.source], [*calls, ""]
        if activation is None and not before:
            return build.same(x, name)
        x = build.as_computed(x, name)  # a layer casts what it is given, an operator does not
        if activation is None:
            *before, last = before
        for label in before:
            x = build.names.give(calls[label](x), f"{name}_{label}")
        if last:
            return build.names.give_exactly(calls[last](x), name)
        return build.activated(x, activation or "linear", name)

    def words(self, regions: Regions) -> str:
        """That it is elementwise."""
        return "elementwise"


def term_of_pixels(known: Known, visited: Sequence[int]) -> tuple[int, Geometry] | None:
    """The one tensor that steps read, pixel by pixel, and how; None where they do otherwise."""
    steps = (known.nodes[i].geometry for i in visited)
    if not all(step is None or step.is_of_pixels for step in steps):
        return None
    ((read, term), *others) = known.terms(visited).items()
    if others or not isinstance(term, Geometry) or not term.is_of_pixels:
        return None
    return read, term


def _selected(operator: Operator) -> range | None:
    """The channels that are read, one by each output, where a slice says them."""
    geometry, kernel = operator.geometry, _matrix(operator)
    if np.any(np.count_nonzero(kernel, axis=0) > 1):
        return None
    outputs = np.arange(geometry.channels[1])
    groups = outputs * geometry.groups // geometry.channels[1]
    chosen = (kernel != 0).argmax(axis=0) + groups * len(kernel)
    steps = set(np.diff(chosen))
    step = int(steps.pop()) if steps else 1
    if steps or step < 1:
        return None
    return range(int(chosen[0]), int(chosen[-1]) + 1, step)


def gain_of(operator: Operator) -> np.ndarray:
    """What each output channel is multiplied by, which is all that its column has."""
    return _matrix(operator).sum(axis=0)


def _matrix(operator: Operator) -> np.ndarray:
    """The kernel of one pixel: input channels of a group, output channels."""
    return operator.kernel.reshape(operator.kernel.shape[-2:])

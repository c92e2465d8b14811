"""Channels selected, multiplied and shifted by constants: elementwise calls, and no convolution.

y[o] = gain[o] x[selected[o]] + shift[o].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from kerasfold.algebra.operator import Operator
from kerasfold.cost import elementwise_cost, pixels, step_cost
from kerasfold.forms.evaluate import operator_of, own
from kerasfold.forms.form import Composed, Form
from kerasfold.forms.known import Known
from kerasfold.lift.program import Node
from kerasfold.read.weights import count_params

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Lifted


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


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Scaled(Form[Constants]):
    """A slice of the channels, a product and a sum: those of the three that are needed.

    Attributes:
        selected: the channels that are read.
    """

    name: ClassVar[str] = "scaled"

    selected: range

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Scaled | None:
        """A path of steps by constants alone: a weight that trains is not made one."""
        if not known.is_path(visited) or known.regions.graph.layout == "channels_first":
            return None
        nodes = [known.nodes[i] for i in visited]
        if not all(_is_per_channel(node) for node in nodes):
            return None
        if any(count_params(known.owner[i].call.operation) for i in visited):
            return None
        selected = known.once((cls, *visited), lambda: _selected(nodes))
        if selected is None:
            return None
        whole, node = known.weights(visited), nodes[-1]
        multiplies = bool(np.any(_gain(whole, selected) != 1))
        samples = pixels(node.sizes) * node.channels
        cost = elementwise_cost(samples, 0, multiplies, whole.geometry.biased)
        if len(selected) < whole.geometry.channels[0]:
            cost += step_cost("elementwise", 8 * samples)
        return cls(
            node=index,
            reads=known.reads(visited, whole.geometry),
            visited=tuple(visited),
            cost=cost,
            selected=selected,
        )

    def compose(self, nodes: Sequence[Node]) -> Constants:
        """The product and the sum of each channel."""
        operator = operator_of(nodes, self.visited)
        return Constants(_gain(operator, self.selected), operator.bias, operator)

    def emit(self, build: Builder, composed: Constants, xs: Mapping[int, Value]) -> Value:
        """A slice, and operations."""
        name, activation = build.result()
        selected = slice(self.selected.start, self.selected.stop, self.selected.step)
        calls: dict[str, Callable[[Value], Value]] = {}
        if len(self.selected) < composed.operator.geometry.channels[0]:
            calls["slice"] = lambda x: x[..., selected]
        if np.any(composed.gain != 1):
            calls["scale"] = lambda x: x * composed.gain.astype(x.dtype)
        if np.any(composed.shift):
            calls["shift"] = lambda x: x + composed.shift.astype(x.dtype)
        x, (*before, last) = xs[self.source], [*calls, ""]
        if activation is None and before:
            *before, last = before
        for label in before:
            x = build.names.give(calls[label](x), f"{name}_{label}")
        if last:
            return build.names.give_exactly(calls[last](x), name)
        return build.activated(x, activation or "linear", name)

    def words(self, owner: Mapping[int, Lifted]) -> str:
        """That it is elementwise."""
        return "elementwise"


def _is_per_channel(node: Node) -> bool:
    """Whether each output channel is one of the input's, pixel by pixel."""
    return (
        node.work in ("scale", "shift", "copy")
        and node.geometry is not None
        and node.geometry.is_pointwise
    )


def _selected(nodes: Sequence[Node]) -> range | None:
    """The channels of the first node's input that are read, where a slice says them."""
    assert nodes[0].geometry is not None
    chosen = np.arange(nodes[0].geometry.channels[0])
    for node in nodes:
        if node.work == "copy":
            kernel = own(node, Operator).kernel
            chosen = chosen[kernel.reshape(kernel.shape[-2:]).argmax(axis=0)]
    steps = set(np.diff(chosen))
    step = int(steps.pop()) if steps else 1
    if steps or step < 1:
        return None
    return range(int(chosen[0]), int(chosen[-1]) + 1, step)


def _gain(operator: Operator, selected: range) -> np.ndarray:
    """What each output channel is multiplied by."""
    outputs = operator.geometry.channels[1]
    if operator.geometry.groups > 1:
        return operator.kernel.reshape(outputs)
    return operator.kernel.reshape(-1, outputs)[list(selected), range(outputs)]

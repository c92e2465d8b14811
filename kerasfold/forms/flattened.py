"""One matrix of all samples of several images, flattened side by side.

A x + B y = [A B] [x, y], of images that may differ in size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.cost import moved_bytes
from kerasfold.forms.concatenated import Block
from kerasfold.forms.evaluate import evaluate
from kerasfold.forms.form import Form
from kerasfold.forms.known import Known
from kerasfold.layers.rewrite import constant_ones, on_image
from kerasfold.layers.spelling import sees_all
from kerasfold.lift.program import Node, Trait

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Flattened(Form[Block]):
    """Flatten layers, a Concatenate and a Dense layer."""

    name: ClassVar[str] = "flattened"
    needs: ClassVar[frozenset[Trait]] = frozenset({"sum", "concatenate"})

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Flattened | None:
        """A sum of matrices of several images, not all of one size."""
        part, *others = known.parts(visited)
        terms = part.terms
        if others or not all(map(is_matrix, terms.values())):
            return None
        if len({tuple(axis.size for axis in g.axes) for g in terms.values()}) == 1:
            return None  # one convolution of them all
        whole = Geometry.row([flat_geometry(g) for g in terms.values()])
        images = sum(bool(g.axes) for g in terms.values())
        beside = known.prices.step("copy", 2 * moved_bytes((), whole.channels[0]), 1 + images)
        return cls(
            node=index,
            reads=terms,
            visited=tuple(visited),
            cost=known.prices.operator(whole, known.shared(visited)) + beside,
        )

    def compose(self, nodes: Sequence[Node]) -> Block:
        """A row of the matrices."""
        (part,) = evaluate(nodes, self.visited)
        return Block(Operator.row([flat_operator(x) for x in part.terms.values()]))

    def emit(self, build: Builder, composed: Block, xs: Mapping[int, Value]) -> Value:
        """The images flattened, side by side, and a layer."""
        name, activation = build.result()
        x = side_by_side(build, self.reads, xs, name)
        return build.convolution(x, composed.operator, name, activation, 0)

    def words(self, regions: Regions) -> str:
        """The layers."""
        return f"Flatten of {len(self.reads)} + Concatenate + Dense"


def side_by_side(
    build: Builder, reads: Mapping[int, Geometry | None], xs: Mapping[int, Value], name: str
) -> Value:
    """What matrices read, flattened where it is an image, as one vector."""
    reserve, flat = build.names.reserve, []
    for k, (read, geometry) in enumerate(reads.items()):
        x = xs[read]
        if geometry is not None and geometry.axes:
            x = build.flattened(x, reserve(f"{name}_flat_{k}"), k)
        flat.append(x)
    return build.stacked(flat, reserve(f"{name}_inputs"))


def is_matrix(term: Any) -> bool:
    """Whether a term multiplies all samples of an image, or a vector, by a matrix."""
    if not isinstance(term, Geometry) or term.normalised or not (term.vector or not term.axes):
        return False
    return term.groups == 1 and sees_all(term)


def flat_geometry(geometry: Geometry) -> Geometry:
    """The same of the image as a vector."""
    samples = math.prod(axis.size or 0 for axis in geometry.axes) * geometry.channels[0]
    return Geometry((), (samples, geometry.channels[1]), 1, geometry.biased or geometry.ones)


def flat_operator(operator: Operator) -> Operator:
    """The same of the image as a vector. Raises `Refused`."""
    if operator.ones is not None:
        operator = constant_ones(operator)
    kernel, geometry = on_image(operator), flat_geometry(operator.geometry)
    if kernel is None:
        raise Refused("a matrix of a part of an image")
    return Operator(geometry, kernel.reshape(geometry.kernel_shape), operator.bias)

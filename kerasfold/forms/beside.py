"""Dense operators of several tensors as one: of images alike, or of all samples as one vector.

A x + B y = [A B] [x, y].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.cost import Cost, Prices, moved_bytes
from kerasfold.layers.limits import check_emittable, is_pointwise_matrix
from kerasfold.layers.rewrite import constant_ones, on_image
from kerasfold.layers.spelling import sees_all
from kerasfold.layers.words import described
from kerasfold.rooflines import Kind

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value


@dataclass(frozen=True, slots=True)
class Beside:
    """What reads several tensors side by side.

    Attributes:
        terms: what is applied to each.
        whole: what is applied to all.
        flat: whether all are matrices, of vectors or of whole images, which are flattened.
    """

    terms: tuple[Geometry, ...]
    whole: Geometry
    flat: bool

    @classmethod
    def of(cls, terms: Sequence[Geometry]) -> Beside:
        """Of dense terms. Raises `Refused`."""
        flat = all(map(is_matrix, terms))
        whole = Geometry.row([*map(_flat, terms)] if flat else terms)
        check_emittable(whole)
        return cls(tuple(terms), whole, flat)

    @property
    def images(self) -> int:
        """How many tensors are flattened."""
        return sum(map(bool, (g.axes for g in self.terms))) if self.flat else 0

    def cost(self, prices: Prices, shared: int, is_matrix: bool) -> Cost:
        """What it costs; for `shared` and `is_matrix` see `Known.layering`."""
        kind = matrix_kind(self.whole, is_matrix)
        read = sum(moved_bytes([a.size for a in g.axes], g.channels[0]) for g in self.terms)
        beside = prices.step("copy", 2 * read, 1 + self.images)
        return prices.operator(self.whole, shared, kind) + beside

    def operator(self, terms: Sequence[Operator]) -> Operator:
        """The weights, of those of each term. Raises `Refused`."""
        return Operator.row([*map(_flattened, terms)] if self.flat else terms)

    def read(self, build: Builder, xs: Sequence[Value], name: str) -> Value:
        """The tensors side by side."""
        reserve, parts = build.names.reserve, list(xs)
        for k, geometry in enumerate(self.terms):
            if self.flat and geometry.axes:
                parts[k] = build.flattened(parts[k], reserve(f"{name}_flat_{k}"), k)
        return build.stacked(parts, reserve(f"{name}_inputs"))

    def words(self, is_matrix: bool) -> str:
        """The layers."""
        flatten = [times(self.images, "Flatten")] if self.images else []
        return " + ".join([*flatten, "Concatenate", described(self.whole, is_matrix)])


def matrix_kind(geometry: Geometry, is_matrix: bool) -> Kind | None:
    """The kind of a Dense layer on images, where an operator becomes one."""
    return "matrix" if is_matrix and is_pointwise_matrix(geometry) else None


def times(count: int, what: str) -> str:
    """So many of something, in words."""
    return what if count == 1 else f"{count} x {what}"


def is_matrix(geometry: Geometry) -> bool:
    """Whether it multiplies all samples of an image, or a vector, by a matrix."""
    of_vector = geometry.vector or not geometry.axes
    return of_vector and not geometry.normalised and geometry.groups == 1 and sees_all(geometry)


def _flat(geometry: Geometry) -> Geometry:
    """The same of the image as a vector."""
    samples = math.prod(n for n in (axis.size for axis in geometry.axes) if n is not None)
    channels = samples * geometry.channels[0], geometry.channels[1]
    return Geometry((), channels, 1, geometry.biased or geometry.ones)


def _flattened(operator: Operator) -> Operator:
    """The same of the image as a vector. Raises `Refused`."""
    if operator.ones is not None:
        operator = constant_ones(operator)
    kernel, geometry = on_image(operator), _flat(operator.geometry)
    if kernel is None:
        raise Refused("a matrix of a part of an image")
    return Operator(geometry, kernel.reshape(geometry.kernel_shape), operator.bias)

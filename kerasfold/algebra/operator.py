"""A geometry and its weights, in float64: they compose, add and concatenate as geometries do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .axis import Axis, Pair, aligned_axes
from .geometry import (
    Geometry,
    add_geometry,
    composition,
    concatenate_geometry,
    trimmed_geometry,
)
from .means import corrected
from .product import Array, composed_kernel, regroup


def _frozen(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, eq=False, slots=True)
class Operator:
    """A geometry and its weights.

    Attributes:
        geometry: the sizes.
        kernel: (*taps, input channels / groups, output channels), float64; of one that is only
            looked at, of any float.
        bias: (output channels,), float64.
        ones: (*taps, output channels), float64, or None.

    Raises:
        ValueError: an array whose shape the geometry does not give.
    """

    geometry: Geometry
    kernel: Array
    bias: Array
    ones: Array | None = None

    def __post_init__(self) -> None:
        g = self.geometry
        if self.kernel.shape != g.kernel_shape or self.bias.shape != g.channels[1:]:
            raise ValueError(
                f"kernel {self.kernel.shape} and bias {self.bias.shape} do not fit the geometry: "
                f"expected {g.kernel_shape} and {g.channels[1:]}"
            )
        if (self.ones is not None) != g.ones or (
            self.ones is not None and self.ones.shape != (*g.taps, g.channels[1])
        ):
            raise ValueError(f"ones kernel does not fit the geometry {g}")
        for name in ("kernel", "bias", "ones"):
            array = getattr(self, name)
            if array is not None:
                object.__setattr__(self, name, _frozen(array))

    def __matmul__(self, other: Operator) -> Operator:
        """`self @ other`: `other` first, then `self`."""
        return compose(self, other)

    def __add__(self, other: Operator) -> Operator:
        return add([self, other])

    @staticmethod
    def sum(terms: Sequence[Operator]) -> Operator:
        """Sum of operators on one input. Raises `Refused`."""
        return add(terms)

    @staticmethod
    def concatenation(parts: Sequence[Operator]) -> Operator:
        """Operators on one input, stacked along the output channels. Raises `Refused`."""
        return concatenate(parts)

    @staticmethod
    def row(terms: Sequence[Operator]) -> Operator:
        """Sum of dense operators, each on channels of its own. Raises `Refused`."""
        if len(terms) == 1:
            return terms[0]
        geometry = Geometry.row([term.geometry for term in terms])
        kernels, ones = zip(*_aligned(terms, geometry), strict=True)
        bias = np.sum([term.bias for term in terms], axis=0)
        return Operator(geometry, np.concatenate(kernels, axis=-2), bias, _total(ones))

    @staticmethod
    def diagonal(parts: Sequence[Operator]) -> Operator:
        """Operators of equal groups, each on channels of its own, stacked. Raises `Refused`."""
        if len(parts) == 1:
            return parts[0]
        geometry = Geometry.diagonal([part.geometry for part in parts])
        placed = _aligned(parts, geometry)
        kernel = np.concatenate([kernel for kernel, _ in placed], axis=-1)
        bias = np.concatenate([part.bias for part in parts])
        return Operator(geometry, kernel, bias, _stacked_ones(parts, placed, geometry))

    @staticmethod
    def identity(sizes: Sequence[int | None], channels: int) -> Operator:
        """The identity on images of `sizes` with `channels` channels."""
        kernel = np.ones((1,) * len(sizes) + (1, channels))
        return Operator(Geometry.identity(sizes, channels), kernel, np.zeros(channels))

    def scaled(self, factor: float) -> Operator:
        """The operator times a number."""
        ones = None if self.ones is None else self.ones * factor
        return Operator(self.geometry, self.kernel * factor, self.bias * factor, ones)

    def linear(self) -> Operator:
        """The part without any constant."""
        return Operator(self.geometry.linear(), self.kernel, 0 * self.bias)

    def reading(self, first: int, count: int) -> tuple[Operator, int]:
        """What it makes of `count` input channels, and the first output channel that has it.

        Raises:
            Refused: some, and not all, of the channels of one group, and others.
        """
        geometry, at = self.geometry.reading(first, count)
        if geometry is self.geometry:
            return self, 0
        written = slice(at, at + geometry.channels[1])
        start = first % (self.geometry.channels[0] // self.geometry.groups)
        read = slice(start, start + geometry.kernel_shape[-2])
        ones = None if self.ones is None else self.ones[..., written]
        return Operator(geometry, self.kernel[..., read, written], self.bias[written], ones), at

    def block(self, first: int, count: int, at: int, outputs: int) -> Operator:
        """`outputs` output channels of a dense one, from `at`, of `count` inputs from `first`."""
        kernel = self.kernel[..., first : first + count, at : at + outputs]
        geometry = self.geometry.block(first, count, at, outputs)
        return Operator(geometry, kernel, self.bias[at : at + outputs])

    def at_sizes(self, sizes: Sequence[int | None]) -> Operator:
        """A pointwise operator, on images of other sizes."""
        geometry = self.geometry.at_sizes(sizes)
        return Operator(geometry, self.kernel.reshape(geometry.kernel_shape), self.bias)

    @property
    def window(self) -> Array:
        """The kernel, with zeros between dilated taps: (*spans, inputs of a group, outputs)."""
        axes = self.geometry.axes
        places = [(0, axis.dilation) for axis in axes]
        return embedded(self.kernel, places, tuple(axis.span for axis in axes))

    def trimmed(self) -> Operator:
        """Without the taps that every output reads zeros with. Raises `Refused`.

        Where the windows of a normalised operator are all cut alike, it is plain: its kernel, of
        the taps that stay, over their sum.
        """
        geometry, taps = trimmed_geometry(self.geometry)
        kernel = self.kernel[taps]
        if self.geometry.normalised and not geometry.normalised:
            kernel = kernel / kernel.sum(axis=tuple(range(len(taps))), keepdims=True)
        ones = None if self.ones is None else self.ones[taps]
        return Operator(geometry, kernel, self.bias, ones)


def compose(b: Operator, a: Operator, over: bool = False) -> Operator:
    """`B o A`, A applied first. Raises `Refused` where no exact composition exists.

    The kernel may be written `over` that of A, if nobody else reads that: large kernels take less
    time to scale than to find memory for.
    """
    geometry, placements, indicator = composition(b.geometry, a.geometry)
    groups = (b.geometry.groups, a.geometry.groups)
    rank = len(placements)
    kernel_b = b.kernel.reshape((1,) * rank + b.kernel.shape) if a.geometry.vector else b.kernel
    if a.geometry.normalised:
        axes_b = (Axis(1),) * rank if a.geometry.vector else b.geometry.axes
        kernel_b = corrected(kernel_b, groups[0], axes_b, a.geometry.axes, a.kernel)
    spare = a.kernel.base if over else None
    kernel = composed_kernel(kernel_b, a.kernel, groups, placements, spare)
    phases = math.prod(axis.upsampling for axis in b.geometry.axes)
    bias = b.bias
    carried = a.ones
    if a.geometry.biased:
        if indicator is None:
            total = kernel_b.sum(axis=tuple(range(rank)))
            bias = bias + _channels(total, a.bias, groups[0]) / phases
        else:
            constant = _carry(a.bias[None, :], indicator, a.geometry)
            carried = constant if carried is None else carried + constant
    ones = None
    if geometry.ones:
        ones = np.zeros((*geometry.taps, geometry.channels[1]))
        if carried is not None:
            dense = carried[..., None, :]
            ones = ones + composed_kernel(kernel_b, dense, (groups[0], 1), placements)[..., 0, :]
        if b.ones is not None:
            assert indicator is not None
            select = _carry(np.ones((1, 1)), indicator, a.geometry)[..., None, :]
            ones = (
                ones + composed_kernel(b.ones[..., None, :], select, (1, 1), placements)[..., 0, :]
            )
    return Operator(geometry, kernel, bias, ones)


def _carry(values: Array, first: tuple[int, ...], a: Geometry) -> Array:
    """An image-of-ones kernel on A's taps that gives `values` at A's real outputs."""
    kernel = np.zeros((*a.taps, values.shape[-1]))
    run = tuple(slice(t, t + axis.upsampling) for t, axis in zip(first, a.axes, strict=True))
    kernel[run] = values
    return kernel


def _channels(matrix: Array, vector: Array, groups: int) -> Array:
    """A grouped matrix (c/groups, outputs) times a vector (c,)."""
    width, outputs = matrix.shape
    blocks = matrix.reshape(width, groups, outputs // groups)
    return np.einsum("igo,gi->go", blocks, vector.reshape(groups, width)).reshape(outputs)


def embedded(kernel: Array, places: Sequence[Pair], taps: tuple[int, ...]) -> Array:
    """`kernel` (*taps, ...) placed in a window of `taps` taps."""
    rank = len(taps)
    if kernel.shape[:rank] == taps:
        return kernel
    full = np.zeros((*taps, *kernel.shape[rank:]))
    where = tuple(
        slice(first, first + (k - 1) * step + 1, step)
        for (first, step), k in zip(places, kernel.shape[:rank], strict=True)
    )
    full[where] = kernel
    return full


def _aligned(operators: Sequence[Operator], geometry: Geometry) -> list[tuple[Array, Array | None]]:
    """Kernel and ones kernel of each operator, in the common window of `geometry`."""
    axes = zip(*(op.geometry.axes for op in operators), strict=True)
    places = list(zip(*(aligned_axes(list(column))[1] for column in axes), strict=True)) or [
        ()
    ] * len(operators)
    return [
        (
            embedded(op.kernel, place, geometry.taps),
            None if op.ones is None else embedded(op.ones, place, geometry.taps),
        )
        for op, place in zip(operators, places, strict=True)
    ]


def add(operators: Sequence[Operator]) -> Operator:
    """Sum of operators on one input. Raises `Refused`."""
    if len(operators) == 1:
        return operators[0]
    geometry = add_geometry([op.geometry for op in operators])
    placed = _aligned(operators, geometry)
    kernel = sum(
        regroup(kernel, op.geometry.groups, geometry.groups)
        for op, (kernel, _) in zip(operators, placed, strict=True)
    )
    bias = np.sum([op.bias for op in operators], axis=0)
    return Operator(geometry, np.asarray(kernel), bias, _total(ones for _, ones in placed))


def concatenate(operators: Sequence[Operator]) -> Operator:
    """Operators on one input, stacked along the output channels. Raises `Refused`."""
    if len(operators) == 1:
        return operators[0]
    geometry = concatenate_geometry([op.geometry for op in operators])
    placed = _aligned(operators, geometry)
    kernel = np.concatenate(
        [
            regroup(kernel, op.geometry.groups, 1)
            for op, (kernel, _) in zip(operators, placed, strict=True)
        ],
        axis=-1,
    )
    bias = np.concatenate([op.bias for op in operators])
    return Operator(geometry, kernel, bias, _stacked_ones(operators, placed, geometry))


def _total(ones: Iterable[Array | None]) -> Array | None:
    """The sum of those kernels on ones that there are."""
    given = [o for o in ones if o is not None]
    return np.sum(given, axis=0) if given else None


def _stacked_ones(
    operators: Sequence[Operator],
    placed: Sequence[tuple[Array, Array | None]],
    geometry: Geometry,
) -> Array | None:
    """Their kernels on ones, in the window of `geometry`, along the output channels."""
    if not geometry.ones:
        return None
    return np.concatenate(
        [
            np.zeros((*geometry.taps, op.geometry.channels[1])) if ones is None else ones
            for op, (_, ones) in zip(operators, placed, strict=True)
        ],
        axis=-1,
    )

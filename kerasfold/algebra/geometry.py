"""All of an operator but its weights, which compose, add and concatenate: what plans look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from .axis import Axis, Pair, Placement, Refused, aligned_axes, composed_axis
from .means import sees_alike


@dataclass(frozen=True, slots=True)
class Geometry:
    """All of an operator but its weights: what planning looks at.

    Attributes:
        axes: one `Axis` per spatial axis, outermost first; none for a plain matrix.
        channels: (input, output) channels.
        groups: `feature_group_count`; the channels split into so many independent blocks.
        biased: whether a bias that is not zero is added.
        ones: whether it reads an image of ones beside its input.
        steady: whether it maps a constant image to a constant image, border included: true
            where it neither inserts nor pads with zeros, and to be said where it does in spite
            of them (nearest upsampling does; a transposed convolution of arbitrary weights
            does not).
        vector: whether its one output pixel is a vector, as after global pooling; what
            follows then has no spatial axes.
        normalised: whether a window that reaches beyond the image divides by the weight that
            falls inside it, as average pooling 'same' and bilinear upsampling do
            (normalized convolution: Knutsson and Westin, CVPR 1993). Then the kernel is
            right but for the `overhang` of each axis, and nothing composes with it whole.
    """

    axes: tuple[Axis, ...]
    channels: Pair
    groups: int = 1
    biased: bool = False
    ones: bool = False
    steady: bool = False
    vector: bool = False
    normalised: bool = False

    def __post_init__(self) -> None:
        if not self.steady and (
            self.normalised
            or not any(axis.same or max(axis.pad) > 0 or axis.upsampling > 1 for axis in self.axes)
        ):
            object.__setattr__(self, "steady", True)

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """Output samples along each axis."""
        return tuple(axis.out for axis in self.axes)

    @property
    def taps(self) -> tuple[int, ...]:
        """Kernel size along each axis."""
        return tuple(axis.taps for axis in self.axes)

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of the kernel: taps, input channels per group, output channels."""
        return (*self.taps, self.channels[0] // self.groups, self.channels[1])

    @property
    def is_pointwise(self) -> bool:
        """Whether every output pixel reads the one input pixel at its own position."""
        return all(axis.is_pointwise for axis in self.axes)

    @property
    def is_depthwise(self) -> bool:
        """Whether every output channel reads one input channel."""
        return self.groups == self.channels[0]

    @property
    def is_of_pixels(self) -> bool:
        """Whether each pixel is one of those that are read, and no other is."""
        return self.is_pointwise and not (self.ones or self.vector)

    @property
    def keeps_channels(self) -> bool:
        """Whether every output channel reads the input channel at its place, and no other."""
        return self.groups == self.channels[0] == self.channels[1]

    @property
    def params(self) -> int:
        """Weights, the bias included."""
        weights = math.prod(self.kernel_shape)
        extra = math.prod(self.taps) * self.channels[1] if self.ones else 0
        return weights + extra + (self.channels[1] if self.biased else 0)

    def __matmul__(self, other: Geometry) -> Geometry:
        """`self @ other`: `other` first, then `self`. Raises `Refused`."""
        return composition(self, other)[0]

    @staticmethod
    def sum(terms: Sequence[Geometry]) -> Geometry:
        """Of the sum of operators on one input. Raises `Refused`."""
        return add_geometry(terms)

    @staticmethod
    def concatenation(parts: Sequence[Geometry]) -> Geometry:
        """Of operators on one input, stacked along the output channels. Raises `Refused`."""
        return concatenate_geometry(parts)

    @staticmethod
    def row(terms: Sequence[Geometry]) -> Geometry:
        """Of the sum of dense operators, each on channels of its own. Raises `Refused`."""
        if len(terms) == 1:
            return terms[0]
        return _aligned_geometry(
            terms, (sum(t.channels[0] for t in terms), terms[0].channels[1]), 1
        )

    @staticmethod
    def diagonal(parts: Sequence[Geometry]) -> Geometry:
        """Of operators of equal groups, each on channels of its own, stacked. Raises `Refused`."""
        if len(parts) == 1:
            return parts[0]
        inputs, outputs = (sum(p.channels[i] for p in parts) for i in (0, 1))
        return _aligned_geometry(parts, (inputs, outputs), sum(p.groups for p in parts))

    @staticmethod
    def identity(sizes: Sequence[int | None], channels: int) -> Geometry:
        """Of the identity on images of `sizes` with `channels` channels."""
        return Geometry(tuple(map(Axis, sizes)), (channels, channels), channels)

    def scaled(self, factor: float) -> Geometry:
        """Of a multiple: the same."""
        return self

    def linear(self) -> Geometry:
        """Of the part without any constant."""
        if not (self.biased or self.ones):
            return self
        return replace(self, biased=False, ones=False)

    def reading(self, first: int, count: int) -> tuple[Geometry, int]:
        """Of what it makes of `count` input channels, and the first output channel that has it.

        Raises:
            Refused: some, and not all, of the channels of one group, and others.
        """
        if count == self.channels[0]:
            return self, 0
        groups, outputs = self.groups_reading(first, count), self.channels[1] // self.groups
        channels = (count, len(groups) * outputs)
        return replace(self, channels=channels, groups=len(groups)), groups.start * outputs

    def block(self, first: int, count: int, at: int, outputs: int) -> Geometry:
        """Of `outputs` output channels of a dense operator, from `at`, that read `count` inputs."""
        return replace(self, channels=(count, outputs))

    def groups_reading(self, first: int, count: int) -> range:
        """The groups that read `count` input channels. Raises `Refused`, as `reading`."""
        width = self.channels[0] // self.groups
        groups = range(first // width, -(-(first + count) // width))
        if len(groups) > 1 and (first % width or count % width):
            raise Refused("a concatenation whose parts share groups of channels")
        return groups

    def at_sizes(self, sizes: Sequence[int | None]) -> Geometry:
        """Of a pointwise operator, on images of other sizes."""
        return replace(self, axes=tuple(map(Axis, sizes)))

    def trimmed(self) -> Geometry:
        """Without the taps that every output reads zeros with. Raises `Refused`."""
        return trimmed_geometry(self)[0]


def require_plain(*geometries: Geometry) -> None:
    """Refuse operators whose weights change at the border."""
    if any(geometry.normalised for geometry in geometries):
        raise Refused(
            "together, their weights change along the border, where average pooling with "
            "padding='same' and bilinear upsampling see fewer pixels"
        )


def as_sums(geometry: Geometry, after: Sequence[Axis]) -> Geometry:
    """Means, as sums over their windows where what comes after reads each once, and can divide.

    That is where it has one output along every axis along which their windows differ.
    """
    if not geometry.normalised or geometry.biased or geometry.ones:
        return geometry
    once = (
        sees_alike(a) or (b.out == 1 and sees_alike(b))
        for a, b in zip(geometry.axes, after, strict=True)
    )
    return replace(geometry, normalised=False, steady=False) if all(once) else geometry


def composition(
    b: Geometry, a: Geometry
) -> tuple[Geometry, list[Placement], tuple[int, ...] | None]:
    """`B o A`, where each tap lands, and the taps of A that carry its bias, if any must."""
    vector = a.vector if not b.axes else b.vector
    if a.vector:
        b = replace(b, axes=(Axis(1),) * len(a.axes))
    a = as_sums(a, b.axes)
    require_plain(b, a)
    if a.channels[1] != b.channels[0] or len(a.axes) != len(b.axes):
        raise ValueError(
            f"operators do not fit: {a.channels[1]} channels over {len(a.axes)} axes, "
            f"then {b.channels[0]} over {len(b.axes)}"
        )
    placements = [
        composed_axis(axis_b, axis_a) for axis_b, axis_a in zip(b.axes, a.axes, strict=True)
    ]
    indicator = None
    if b.ones or (a.biased and not b.steady):
        indicator = _indicator(b, a)
    geometry = Geometry(
        tuple(p.axis for p in placements),
        (a.channels[0], b.channels[1]),
        math.gcd(a.groups, b.groups),
        b.biased or (a.biased and indicator is None),
        a.ones or b.ones or indicator is not None,
        a.steady and b.steady,
        vector,
    )
    if any(axis.has_unread for axis in geometry.axes):
        with suppress(Refused):  # no tap is left: it is a constant
            fewer, cuts = trimmed_geometry(geometry)
            if fewer.steady or not geometry.steady:
                placements = list(map(Placement.cut, placements, fewer.axes, cuts))
                geometry = fewer
    return geometry, placements, indicator


def _indicator(b: Geometry, a: Geometry) -> tuple[int, ...]:
    taps = []
    for axis_b, axis_a in zip(b.axes, a.axes, strict=True):
        padded = [side for side in (0, 1) if axis_b.pad[side] >= axis_b.upsampling]
        tap = axis_a.cropped(axis_b.crop).indicator(padded)
        if tap is None:
            raise Refused(
                "a bias before zero padding: no tap of the layer before it tells its real "
                "outputs from the padding"
            )
        taps.append(tap)
    return tuple(taps)


def trimmed_geometry(geometry: Geometry) -> tuple[Geometry, tuple[slice, ...]]:
    """Without the taps that every output reads zeros with, and the taps that stay."""
    if any(axis.out is None for axis in geometry.axes):
        raise Refused("the border of an image of unknown size")
    cuts = [axis.trimmed() for axis in geometry.axes]
    axes = tuple(axis for axis, _ in cuts)
    normalised = geometry.normalised and any(axis.reaches_out for axis in axes)
    if geometry.normalised and any(axis.upsampling > 1 for axis in axes):
        raise Refused("a bilinear window at the border")
    steady = geometry.steady and (geometry.normalised or axes == geometry.axes)
    return replace(geometry, axes=axes, steady=steady, normalised=normalised), tuple(
        taps for _, taps in cuts
    )


def _aligned_geometry(operators: Sequence[Geometry], channels: Pair, groups: int) -> Geometry:
    """Of several operators in one window. Raises `Refused`."""
    require_plain(*operators)
    first = operators[0]
    axes = tuple(aligned_axes([o.axes[d] for o in operators])[0] for d in range(len(first.axes)))
    return Geometry(
        axes,
        channels,
        groups,
        any(o.biased for o in operators),
        any(o.ones for o in operators),
        all(o.steady for o in operators),
        first.vector,
    )


def add_geometry(terms: Sequence[Geometry]) -> Geometry:
    """Geometry of a sum of operators on one input. Raises `Refused`."""
    require_plain(*terms)
    first = terms[0]
    if any(t.channels != first.channels for t in terms):
        raise Refused("a sum that broadcasts over channels")
    return _aligned_geometry(terms, first.channels, math.gcd(*(t.groups for t in terms)))


def concatenate_geometry(parts: Sequence[Geometry]) -> Geometry:
    """Geometry of operators on one input, stacked along the output channels."""
    if len(parts) == 1:
        return parts[0]
    return _aligned_geometry(parts, (parts[0].channels[0], sum(p.channels[1] for p in parts)), 1)

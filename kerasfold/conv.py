"""The affine operator: geometry (sizes only), weights, and their algebra. NumPy only.

Every affine layer of a Keras CNN is one value of one type, a general dilated convolution
plus a bias. Along each spatial axis, with ``n`` input samples,

    y[p, o] = bias[o] + sum_{t, i} kernel[t, i, o] * x^[p*s + t*r - lo, i]
                      + sum_t      ones[t, o]      * 1^[p*s + t*r - lo]

where ``x^`` is ``x`` cropped, then spread by ``L - 1`` zeros between samples, and zero
outside; ``1^`` is the same for an image of ones (the homogeneous coordinate: a bias that a
later zero padding must not see). ``s`` is the stride, ``r`` the dilation of the taps, ``L``
the upsampling factor. Such operators are closed under composition, sum and concatenation;
the exceptions raise `Refused`, with the reason.

Planning composes `Geometry` values, which hold sizes alone; emission composes `Operator`
values, which also hold the weights, in float64, a chain of them in its cheapest order.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import numpy as np

Array = np.ndarray
Pair = tuple[int, int]

ENTRIES = 2**17  # numbers that are made and added at a time: 1 MiB, which a cache holds
ROWS = 4096  # of a matrix product: enough for its full rate
LONGEST = 16  # links of a chain whose orders are all compared
ENTRY = 256  # multiplications of a matrix product in the time that a number of its result takes


class Refused(Exception):
    """An exact step that does not exist; `reason` goes to the report."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


# --------------------------------------------------------------------------- geometry


@dataclass(frozen=True, slots=True)
class Axis:
    """Geometry along one spatial axis.

    Attributes:
        size: input samples, or None where the image size is unknown.
        taps: kernel size `k`.
        stride: `s`, in samples of the upsampled, padded input.
        dilation: `r`, spacing of the taps (Keras `dilation_rate`).
        upsampling: `L`, XLA's `lhs_dilation`: one input sample every `L` positions.
        crop: samples of the input made unreal, at either end, before anything else.
        pad: zeros added after cropping and upsampling; a negative number trims.
        same: the padding is Keras 'same' of an unknown size, and `pad` says nothing.
    """

    size: int | None
    taps: int = 1
    stride: int = 1
    dilation: int = 1
    upsampling: int = 1
    crop: Pair = (0, 0)
    pad: Pair = (0, 0)
    same: bool = False

    @property
    def span(self) -> int:
        """Positions from the first tap to the last."""
        return self.dilation * (self.taps - 1) + 1

    @property
    def extent(self) -> int | None:
        """Positions of the cropped and upsampled input."""
        if self.size is None:
            return None
        return self.upsampling * (self.size - sum(self.crop) - 1) + 1

    @property
    def out(self) -> int | None:
        """Output samples; None where the input size is unknown."""
        if self.extent is None:
            return None
        return (self.extent + sum(self.pad) - self.span) // self.stride + 1

    @property
    def is_pointwise(self) -> bool:
        """Whether each output reads the input sample at its own position, and nothing else."""
        return self.stride == self.taps == self.upsampling == 1 and not (
            any(self.crop) or any(self.pad) or self.same
        )

    def tight(self) -> Axis:
        """The same map in normal form: nothing padded or kept that no window reads.

        With a known size the last window ends where the padding ends, and samples beyond
        it count as cropped: they are unread, so making them unreal changes nothing, and a
        later layer that pads then sees nothing there (AveragePooling2D(2) on 5 pixels).
        """
        if self.same:
            return self
        (crop_lo, crop_hi), (pad_lo, pad_hi) = self.crop, self.pad
        if self.size is not None and self.stride > 1:
            assert self.extent is not None
            assert self.out is not None
            pad_hi = self.stride * (self.out - 1) + self.span - self.extent - pad_lo
        if pad_lo < 0:
            crop_lo, pad_lo = crop_lo - pad_lo // self.upsampling, pad_lo % self.upsampling
        if pad_hi < 0:
            crop_hi, pad_hi = crop_hi - pad_hi // self.upsampling, pad_hi % self.upsampling
        dilation = self.dilation if self.taps > 1 else 1
        if (crop_lo, crop_hi) == self.crop and (pad_lo, pad_hi) == self.pad:
            return self if dilation == self.dilation else replace(self, dilation=1)
        return replace(self, crop=(crop_lo, crop_hi), pad=(pad_lo, pad_hi), dilation=dilation)

    def cropped(self, crop: Pair) -> Axis:
        """This axis with `crop` outputs dropped at either end."""
        if not any(crop):
            return self
        if self.same:
            raise Refused(
                "a crop of a strided 'same' layer depends on the image size, which is unknown "
                "here: give the model's Input a fixed size"
            )
        lo, hi = (p - self.stride * c for p, c in zip(self.pad, crop, strict=True))
        if self.size is not None:
            assert self.extent is not None
            assert self.out is not None
            out = self.out - sum(crop)
            hi = self.stride * (out - 1) + self.span - self.extent - lo
        axis = replace(self, pad=(lo, hi)).tight()
        if self.size is None and axis.crop != self.crop and sum(axis.pad) >= axis.span:
            raise Refused(
                "padding and cropping that would crop more than there is of a small image, at an "
                "unknown size: give the model's Input a fixed size"
            )
        return axis

    def trimmed(self) -> tuple[Axis, slice]:
        """Without taps that every output reads zeros with, and the taps that stay.

        Those are outer ones, and between the samples that a single output reads.
        """
        assert self.extent is not None
        assert self.out is not None
        reads = [t * self.dilation - self.pad[0] for t in range(self.taps)]  # of the first output
        last = self.stride * (self.out - 1)
        kept = [t for t, j in enumerate(reads) if j + last >= 0 and j < self.extent]
        if not kept:
            raise Refused("a border that reads nothing but padding")
        low, high = kept[0], self.taps - 1 - kept[-1]
        pad = (self.pad[0] - low * self.dilation, self.pad[1] - high * self.dilation)
        axis = replace(self, taps=self.taps - low - high, pad=pad).tight()
        if axis.upsampling == 1 or axis.out != 1:
            return axis, slice(low, kept[-1] + 1)
        assert axis.extent is not None
        pad = (axis.pad[0], axis.span - axis.extent - axis.pad[0])
        axis, phase = _reduced(replace(axis, stride=axis.upsampling, pad=pad))
        return axis.tight(), slice(low + phase.start, kept[-1] + 1, phase.step)

    @property
    def overhang(self) -> Pair:
        """Outputs at either end whose window reaches a sample beyond the image."""
        assert not self.same
        lo, hi = (max(0, (p - self.upsampling) // self.stride + 1) for p in self.pad)
        return lo, hi

    @property
    def reaches_out(self) -> bool:
        """Whether a window reads, or might read, samples beyond the image."""
        return (self.same and self.taps > 1) or (not self.same and any(self.overhang))

    def first_reads(self) -> list[int | None]:
        """The input sample that each tap of the first output reads, None for a zero."""
        assert self.size is not None
        reads: list[int | None] = []
        for tap in range(self.taps):
            j, rest = divmod(tap * self.dilation - self.pad[0], self.upsampling)
            j += self.crop[0]
            real = rest == 0 and self.crop[0] <= j < self.size - self.crop[1]
            reads.append(j if real else None)
        return reads

    def slack(self, side: int) -> int:
        """How far the first window past the end at `side` (0 low, 1 high) is from the input.

        Negative: that window still sees so many real positions. Exact for a known size; for
        an unknown one, the worst remainder of the division by the stride.
        """
        step = 1 if side == 1 and self.size is None else self.stride
        return self.pad[side] - self.span + step

    def indicator(self, sides: Iterable[int]) -> int | None:
        """First of `L` consecutive taps that see one real sample exactly at real outputs.

        A constant can then be carried by an image of ones instead of by the bias: it is
        there at every output of this axis and zero beyond the ends named in `sides`.
        None where no such taps exist.
        """
        if self.same or (self.upsampling > 1 and self.dilation > 1):
            return None
        ell, unknown = self.upsampling, self.size is None and self.stride > 1
        end = self.span - 1 - sum(self.pad)
        lowest, highest = 1 - ell, end  # real outputs see a sample
        for side in sides:
            if side == 0:
                highest = min(highest, self.stride - ell)
            else:
                lowest = max(lowest, end + 1 - (1 if unknown else self.stride))
        for tap in range(self.taps - ell + 1):
            if lowest <= tap * self.dilation - self.pad[0] <= highest:
                return tap
        return None


def _gcd(values: Iterable[int]) -> int:
    return reduce(math.gcd, values, 0)


@dataclass(frozen=True, slots=True)
class _Placement:
    """Where the taps of two factors land in the kernel of their composition."""

    axis: Axis
    step: Pair  # spacing of A's taps and of B's, in taps of the full kernel
    full: int  # taps of the full kernel
    keep: slice  # those left once stride and upsampling are divided by their common factor


def _compose_axis(b: Axis, a: Axis) -> _Placement:
    """One axis of `B o A`."""
    if (b.same and not a.is_pointwise) or (a.same and not b.is_pointwise):
        raise Refused(
            "a strided padding='same' depends on the image size, which is unknown here: "
            "give the model's Input a fixed size"
        )
    if a.same or b.same:
        return _Placement(b if b.same else a, (1, 1), max(a.taps, b.taps), slice(None))
    if math.gcd(a.stride, b.upsampling) > 1:
        raise Refused(
            f"a stride of {a.stride} meets an upsampling by {b.upsampling}: "
            "the result varies periodically from pixel to pixel"
        )
    a = a.cropped(b.crop)
    for side in (0, 1):
        if b.pad[side] >= b.upsampling and a.slack(side) < 0:
            raise Refused(
                "zero padding between two layers: at the border the collapsed kernel would "
                f"read {-a.slack(side)} position(s) that are zeros in the original"
            )
    spread, stretch = b.upsampling, a.stride
    spacing = [
        axis * r
        for axis, r, k in ((spread, a.dilation, a.taps), (stretch, b.dilation, b.taps))
        if k > 1
    ]
    dilation = _gcd(spacing) or 1
    step = (spread * a.dilation // dilation or 1, stretch * b.dilation // dilation or 1)
    full = (a.taps - 1) * step[0] * (a.taps > 1) + (b.taps - 1) * step[1] * (b.taps > 1) + 1
    lo, hi = (spread * pa + stretch * pb for pa, pb in zip(a.pad, b.pad, strict=True))
    axis = Axis(
        a.size, full, a.stride * b.stride, dilation, a.upsampling * b.upsampling, a.crop, (lo, hi)
    )
    if a.size is not None:
        inner = replace(b, size=a.out, crop=(0, 0))
        assert axis.extent is not None
        assert inner.out is not None
        hi = axis.stride * (inner.out - 1) + axis.span - axis.extent - lo
        axis = replace(axis, pad=(lo, hi))
    elif a.stride > 1 and b.upsampling > 1:
        raise Refused("a stride before an upsampling, at an unknown image size")
    axis, keep = _reduced(axis)
    return _Placement(axis.tight(), step, full, keep)


def _reduced(axis: Axis) -> tuple[Axis, slice]:
    """Divide stride and upsampling by their common factor; keep the taps of that phase."""
    g = math.gcd(axis.stride, axis.upsampling)
    if g == 1:
        return axis, slice(None)
    every = g // math.gcd(g, axis.dilation)
    first = next(
        (t for t in range(min(every, axis.taps)) if (t * axis.dilation - axis.pad[0]) % g == 0),
        None,
    )
    if first is None:  # every window falls between two samples: nothing but zeros
        raise Refused("every window falls between two upsampled samples")
    taps = len(range(first, axis.taps, every))
    lo = -((first * axis.dilation - axis.pad[0]) // g)
    dilation = axis.dilation * every // g
    total = (sum(axis.pad) - axis.span + 1) // g  # floor((L(n-1) + c) / s) is unchanged
    hi = total + dilation * (taps - 1) - lo
    return (
        Axis(
            axis.size, taps, axis.stride // g, dilation, axis.upsampling // g, axis.crop, (lo, hi)
        ),
        slice(first, None, every),
    )


def _align(axes: Sequence[Axis]) -> tuple[Axis, list[Pair]]:
    """One axis that holds the windows of all `axes`, and each one's (first tap, step)."""
    first = axes[0]
    if all(axis == first for axis in axes[1:]):
        return first, [(0, 1)] * len(axes)
    for axis in axes:
        if axis.same:
            raise Refused("branches whose strided padding='same' depends on an unknown image size")
        if (axis.stride, axis.upsampling, axis.size) != (
            first.stride,
            first.upsampling,
            first.size,
        ):
            raise Refused(
                f"branches of different stride or upsampling: {axis.stride}/{axis.upsampling} "
                f"and {first.stride}/{first.upsampling}"
            )
    crop: list[int] = []
    for side in (0, 1):
        # A crop is part of the map only where the window reads beyond it.
        fixed = {axis.crop[side] for axis in axes if axis.pad[side] >= axis.upsampling}
        least = min(axis.crop[side] for axis in axes)
        if len(fixed) > 1 or (fixed and fixed != {least}):
            raise Refused("branches that crop the image differently before padding it")
        crop.append(least)
    ell = first.upsampling
    # Position of each first tap, relative to the commonly cropped input.
    starts = [ell * (axis.crop[0] - crop[0]) - axis.pad[0] for axis in axes]
    ends = [start + axis.span - 1 for start, axis in zip(starts, axes, strict=True)]
    start = min(starts)
    dilation = (
        _gcd([axis.dilation for axis in axes if axis.taps > 1] + [s - start for s in starts]) or 1
    )
    taps = (max(ends) - start) // dilation + 1
    tails = {
        axis.pad[1] - ell * (axis.crop[1] - crop[1]) - end
        for axis, end in zip(axes, ends, strict=True)
    }
    if first.size is None:
        if len(tails) > 1:
            raise Refused(
                "branches of different output sizes, or not alike at every size: give the "
                "model's Input a fixed size"
            )
        hi = tails.pop() + max(ends)
    else:
        outs = {axis.out for axis in axes}
        if len(outs) > 1:
            raise Refused(f"branches of different output sizes {sorted(map(str, outs))}")
        out = outs.pop()
        assert out is not None
        extent = ell * (first.size - sum(crop) - 1) + 1
        hi = first.stride * (out - 1) + dilation * (taps - 1) + 1 - extent + start
    axis = Axis(first.size, taps, first.stride, dilation, ell, (crop[0], crop[1]), (-start, hi))
    places = [
        ((s - start) // dilation, a.dilation // dilation if a.taps > 1 else 1)
        for s, a in zip(starts, axes, strict=True)
    ]
    return axis.tight(), places


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
    def params(self) -> int:
        """Weights, the bias included."""
        weights = math.prod(self.kernel_shape)
        extra = math.prod(self.taps) * self.channels[1] if self.ones else 0
        return weights + extra + (self.channels[1] if self.biased else 0)


def flattened_input(matrix: Geometry, sizes: Sequence[int | None], channels: int) -> Geometry:
    """Geometry of a matrix whose input is a flattened image, as an operator on the image.

    Raises:
        Refused: a matrix of independent groups, or an image of unknown size.
    """
    if matrix.groups > 1:
        raise Refused("a scale for each pixel of a flattened image is no convolution")
    if any(n is None for n in sizes):
        raise Refused("a flattened image of unknown size")
    axes = tuple(Axis(n, taps=n or 1) for n in sizes)
    return Geometry(axes, (channels, matrix.channels[1]), 1, matrix.biased, vector=True)


def identity_geometry(sizes: Sequence[int | None], channels: int) -> Geometry:
    """Geometry of the identity on images of `sizes` with `channels` channels."""
    return Geometry(tuple(map(Axis, sizes)), (channels, channels), channels)


def require_plain(*geometries: Geometry) -> None:
    """Refuse operators whose weights change at the border."""
    if any(geometry.normalised for geometry in geometries):
        raise Refused(
            "average pooling 'same' divides by the pixels really there, and bilinear upsampling "
            "clamps: their weights change at the border"
        )


def _compose_geometry(
    b: Geometry, a: Geometry
) -> tuple[Geometry, list[_Placement], tuple[int, ...] | None]:
    """`B o A`, where each tap lands, and the taps of A that carry its bias, if any must."""
    require_plain(b, a)
    vector = a.vector if not b.axes else b.vector
    if a.vector:
        b = replace(b, axes=(Axis(1),) * len(a.axes))
    if a.channels[1] != b.channels[0] or len(a.axes) != len(b.axes):
        raise ValueError(
            f"operators do not fit: {a.channels[1]} channels over {len(a.axes)} axes, "
            f"then {b.channels[0]} over {len(b.axes)}"
        )
    placements = [
        _compose_axis(axis_b, axis_a) for axis_b, axis_a in zip(b.axes, a.axes, strict=True)
    ]
    indicator = None
    if b.ones or (a.biased and not b.steady):
        indicator = _indicator(b, a)
    return (
        Geometry(
            tuple(p.axis for p in placements),
            (a.channels[0], b.channels[1]),
            math.gcd(a.groups, b.groups),
            b.biased or (a.biased and indicator is None),
            a.ones or b.ones or indicator is not None,
            a.steady and b.steady,
            vector,
        ),
        placements,
        indicator,
    )


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


def compose_geometry(b: Geometry, a: Geometry) -> Geometry:
    """Geometry of `B o A`, A applied first. Raises `Refused` where none is exact."""
    return _compose_geometry(b, a)[0]


Link = TypeVar("Link")


def shifted(stack: tuple[Link, ...], link: Link, after: Callable[[Link, Link], Link]) -> Any:
    """A stack of links that do not compose, with one more link, composed as far as it can be.

    A stride refuses an upsampling; but with a pool behind it that undoes the upsampling, the
    two are one, and compose with the stride. So what is refused waits for what is to come.
    """
    while stack:
        try:
            link = after(link, stack[-1])
        except Refused:
            break
        stack = stack[:-1]
    return (*stack, link)


def collapsed(links: Iterable[Link], after: Callable[[Link, Link], Link]) -> Link:
    """A chain as one link, where `after(b, a)` is `b o a`. Raises `Refused`."""
    stack: tuple[Link, ...] = ()
    for link in links:
        stack = shifted(stack, link, after)
    return one_of(stack, after)


def one_of(stack: tuple[Link, ...], after: Callable[[Link, Link], Link]) -> Link:
    """The only link of a stack. Raises `Refused`, with the reason, where there are several."""
    if len(stack) > 1:
        after(stack[1], stack[0])
        raise Refused("a chain that does not compose")
    return stack[0]


Box = tuple[Pair, ...]  # outputs [first, last) along each axis


def restricted(links: Sequence[Geometry], box: Box) -> list[Geometry]:
    """A chain of operators, first to last, that computes only the outputs in `box`.

    Each operator gives exactly the pixels that the next one reads.

    Raises:
        Refused: an unknown size, or outputs that read nothing but padding.
    """
    result: list[Geometry] = []
    for geometry in reversed(links):
        axes, before = [], []
        for axis, (first, last) in zip(geometry.axes, box, strict=True):
            if axis.out is None or axis.size is None:
                raise Refused("the border of an image of unknown size")
            part = axis.cropped((first, axis.out - last))
            if axis.size - sum(part.crop) < 1:
                raise Refused("a border that reads nothing but padding")
            before.append((part.crop[0], axis.size - part.crop[1]))
            axes.append(part)
        if geometry is not links[0]:
            axes = [
                replace(a, size=hi - lo, crop=(0, 0))
                for a, (lo, hi) in zip(axes, before, strict=True)
            ]
        normalised = geometry.normalised and any(axis.reaches_out for axis in axes)
        cut = replace(geometry, axes=tuple(axes), steady=geometry.steady, normalised=normalised)
        result.append(cut)
        box = tuple(before)
    return result[::-1]


def tile_geometry(links: Sequence[Geometry], box: Box) -> Geometry:
    """A chain that computes only the outputs in `box`, as one operator.

    Links are composed from the last, each time without the taps that every output reads zeros
    with. Along an axis where the box is one output wide, what is left pads nothing that an
    earlier link made.

    Raises:
        Refused: an unknown size, or no exact composition.
    """
    return _tile(restricted(links, box), lambda g: _trimmed(g)[0], compose_geometry)


def _tile(
    links: Sequence[Link], trim: Callable[[Link], Link], after: Callable[[Link, Link], Link]
) -> Link:
    *earlier, whole = map(trim, links)
    for link in reversed(earlier):
        whole = trim(after(whole, link))
    return whole


def _trimmed(geometry: Geometry) -> tuple[Geometry, tuple[slice, ...]]:
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


def frame_of(links: Sequence[Geometry]) -> Box:
    """How many outputs of a chain, at each side, its composition does not give.

    An operator that pads reads, there, what the one before it gives beyond its own image;
    where that is not zero, its outputs belong to the frame, and the frame only widens.
    A normalised operator begins with a frame of its own.

    Raises:
        Refused: an unknown size, or a frame that leaves no interior.
    """
    frame = _own_frame(links[0])
    for a, b in itertools.pairwise(links):
        # Beyond its image a later link gives what the ones before it give beyond theirs.
        extends = a.biased or a is not links[0]
        frame = tuple(
            _widened(axis_a, axis_b, extends, *frames)
            for axis_a, axis_b, *frames in zip(a.axes, b.axes, frame, _own_frame(b), strict=True)
        )
    if any(
        (axis.out or 0) <= lo + hi for axis, (lo, hi) in zip(links[-1].axes, frame, strict=True)
    ):
        raise Refused("an image too small to have an interior that padding does not reach")
    return frame


def _own_frame(geometry: Geometry) -> Box:
    if any(axis.out is None for axis in geometry.axes):
        raise Refused("the border of an image of unknown size")
    return tuple(axis.overhang if geometry.normalised else (0, 0) for axis in geometry.axes)


def _widened(a: Axis, b: Axis, extends: bool, inner: Pair, own: Pair) -> Pair:
    """The frame of one axis after B.

    Args:
        a: the axis of the link before.
        b: the axis of the link.
        extends: whether A is not zero where its window sees no real sample.
        inner: A's outputs at either end that the composition does not give.
        own: B's outputs at either end that its kernel does not give.
    """
    assert a.out is not None
    assert b.out is not None
    ell, shown = b.upsampling, a.cropped(b.crop)
    unclean = [b.pad[side] >= ell and (extends or shown.slack(side) < 0) for side in (0, 1)]
    # A's outputs that B may not read; where its padding is not clean, only what is real.
    low, high = (
        max(inner[side], b.crop[side]) if unclean[side] else inner[side] for side in (0, 1)
    )
    first, last = own[0], b.out - 1 - own[1]
    # Output p reads positions p s - lo to p s - lo + span - 1; A's output j is at L (j - crop).
    if unclean[0] or inner[0]:
        least = ell * (low - b.crop[0] - 1) + 1
        first = max(first, -((-least - b.pad[0]) // b.stride))
    if unclean[1] or inner[1]:
        most = ell * (a.out - high - b.crop[0]) - 1
        last = min(last, (most + b.pad[0] - b.span + 1) // b.stride)
    return first, max(b.out - 1 - last, 0)


def frame_boxes(sizes: Sequence[int], frame: Box) -> tuple[Box, list[tuple[int, int, Box]]]:
    """The interior, and the strips around it as (axis, side, box).

    The strips of an axis lie within the interior of the axes before it and run along the
    whole of those after it, so that concatenating axis by axis, last first, gives the image.
    """
    interior = tuple((lo, n - hi) for n, (lo, hi) in zip(sizes, frame, strict=True))
    strips = []
    for d, (n, (lo, hi)) in enumerate(zip(sizes, frame, strict=True)):
        rest = tuple((0, m) for m in sizes[d + 1 :])
        for side, part in ((0, (0, lo)), (1, (n - hi, n))):
            if part[0] < part[1]:
                strips.append((d, side, (*interior[:d], part, *rest)))
    return interior, strips


Place = tuple[int, ...]  # of one part of each axis
Group = tuple[Pair | None, ...]  # parts [first, last) of an axis; None gives nothing of it
Parts = Sequence[Sequence[Group]]  # of each axis


def tile_parts(sizes: Sequence[int], frame: Box) -> Parts:
    """Parts of each axis whose products tile an image: the interior, and rows of one output."""
    return [
        [
            *(((i, i + 1),) for i in range(lo)),
            ((lo, n - hi),),
            *(((i, i + 1),) for i in range(n - hi, n)),
        ]
        for n, (lo, hi) in zip(sizes, frame, strict=True)
    ]


def mirrored_parts(sizes: Sequence[int], frame: Box) -> Parts:
    """The same, with two rows in a group where they are as far from either end.

    A row of the high end alone is the second of two, so that no image is cropped for it.
    """
    parts = []
    for n, (lo, hi) in zip(sizes, frame, strict=True):
        low: list[Pair | None] = [(i, i + 1) for i in range(lo)]
        high = [(n - 1 - i, n - i) for i in range(hi)]
        groups: list[Group] = [((lo, n - hi),), *((part,) for part in low[hi:])]
        low += [None] * (hi - lo)
        parts.append([*groups, *zip(low, high, strict=False)])
    return parts


def products(groups: Sequence[Group]) -> dict[Place, Box]:
    """The boxes of one group of each axis, by the place of each part in its group."""
    choices = [[(i, part) for i, part in enumerate(group) if part is not None] for group in groups]
    return {
        tuple(i for i, _ in choice): tuple(part for _, part in choice)
        for choice in itertools.product(*choices)
    }


def mirrored_geometry(tiles: Mapping[Place, Geometry]) -> Geometry:
    """The tiles of one group of each axis as one operator.

    Raises:
        Refused: one of several tiles pads or upsamples, or a tile is not plain.
    """
    return _mirrored_geometry(tiles)[0]


def _mirrored_geometry(
    tiles: Mapping[Place, Geometry],
) -> tuple[Geometry, list[tuple[Pair, ...]]]:
    """The same, and of each axis (first tap, step) of the taps of each place."""
    require_plain(*tiles.values())
    if any(tile.ones for tile in tiles.values()):
        raise Refused("a tile with an image of ones")
    columns: list[dict[int, Axis]] = [{} for _ in next(iter(tiles))]
    for place, tile in tiles.items():
        for column, i, axis in zip(columns, place, tile.axes, strict=True):
            if column.setdefault(i, axis) != axis:
                raise Refused("tiles of one row whose windows differ")
    placed = [
        _ends(column.get(0), column[1]) if 1 in column else (column[0], ((0, 1),))
        for column in columns
    ]
    axes = tuple(axis for axis, _ in placed)
    tile = next(iter(tiles.values()))
    geometry = replace(tile, axes=axes, steady=tile.steady and axes == tile.axes)
    return geometry, [steps for _, steps in placed]


def _ends(low: Axis | None, high: Axis) -> tuple[Axis, tuple[Pair, Pair]]:
    """Two axes of one output each as one of two, of which the first may give anything.

    The taps of `high` come first: the first output reads them before the image, where all is
    zero, and the second one reads those of `low` behind it.
    """
    assert high.size is not None
    if any(axis and (axis.upsampling > 1 or any(axis.pad)) for axis in (low, high)):
        raise Refused("an output that reads padding, in one convolution with another")
    last = high.crop[0]  # the sample that its first tap reads
    if low is None:
        if last == 0:
            raise Refused("an output at the high end that reads the image from its start")
        crop = (0, high.crop[1])
        return replace(high, stride=last, crop=crop).tight(), ((0, 1), (0, 1))
    dilation = _gcd(axis.dilation for axis in (low, high) if axis.taps > 1) or 1
    first = low.crop[0]
    shift = -(-max(first + high.span, high.size - last) // dilation) * dilation
    span = shift + low.span
    taps, stride = (span - 1) // dilation + 1, last - first + shift
    axis = Axis(high.size, taps, stride, dilation, pad=(shift - first, last + span - high.size))
    steps = [end.dilation // dilation if end.taps > 1 else 1 for end in (low, high)]
    return axis.tight(), ((shift // dilation, steps[0]), (0, steps[1]))


def add_geometry(terms: Sequence[Geometry]) -> Geometry:
    """Geometry of a sum of operators on one input. Raises `Refused`."""
    require_plain(*terms)
    first = terms[0]
    if any(t.channels != first.channels for t in terms):
        raise Refused("a sum that broadcasts over channels")
    axes = tuple(_align([t.axes[d] for t in terms])[0] for d in range(len(first.axes)))
    return Geometry(
        axes,
        first.channels,
        math.gcd(*(t.groups for t in terms)),
        any(t.biased for t in terms),
        any(t.ones for t in terms),
        all(t.steady for t in terms),
        first.vector,
    )


def concatenate_geometry(parts: Sequence[Geometry]) -> Geometry:
    """Geometry of operators on one input, stacked along the output channels."""
    if len(parts) == 1:
        return parts[0]
    require_plain(*parts)
    first = parts[0]
    axes = tuple(_align([p.axes[d] for p in parts])[0] for d in range(len(first.axes)))
    channels = (first.channels[0], sum(p.channels[1] for p in parts))
    return Geometry(
        axes,
        channels,
        1,
        any(p.biased for p in parts),
        any(p.ones for p in parts),
        all(p.steady for p in parts),
        first.vector,
    )


# ---------------------------------------------------------------------------- weights


def _frozen(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, eq=False, slots=True)
class Operator:
    """A geometry and its weights.

    Attributes:
        geometry: the sizes.
        kernel: (*taps, input channels / groups, output channels), float64.
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

    def scaled(self, factor: float) -> Operator:
        """The operator times a number."""
        ones = None if self.ones is None else self.ones * factor
        return Operator(self.geometry, self.kernel * factor, self.bias * factor, ones)


def identity(sizes: Sequence[int | None], channels: int) -> Operator:
    """The identity on images of `sizes` with `channels` channels."""
    kernel = np.ones((1,) * len(sizes) + (1, channels))
    return Operator(identity_geometry(sizes, channels), kernel, np.zeros(channels))


def flattened_operator(matrix: Operator, sizes: Sequence[int | None], channels: int) -> Operator:
    """`flattened_input`, with the weights."""
    geometry = flattened_input(matrix.geometry, sizes, channels)
    return Operator(geometry, matrix.kernel.reshape(geometry.kernel_shape), matrix.bias)


def regroup(kernel: Array, groups: int, fewer: int) -> Array:
    """A grouped kernel written with `fewer` groups, a divisor of `groups`."""
    if groups == fewer:
        return kernel
    *taps, width, outputs = kernel.shape
    merged = groups // fewer
    blocks = kernel.reshape(*taps, width, fewer, merged, outputs // groups)
    full = np.zeros((*taps, merged, width, fewer, merged, outputs // groups), kernel.dtype)
    for j in range(merged):
        full[..., j, :, :, j, :] = blocks[..., j, :]
    return full.reshape(*taps, merged * width, outputs)


def _convolve(b: Array, a: Array, groups: Pair, placements: Sequence[_Placement]) -> Array:
    """Kernel of the composition: the sum of `A[t] B[v]` over the taps, at `t step_a + v step_b`.

    A tap of either is (joined, fine_a, fine_b) dense matrices, nothing else: `joined` groups of
    the composition are each `fine_a` groups of A or `fine_b` groups of B, of which one is 1.

    Args:
        b: (*taps of B, c1 / groups of B, c2).
        a: (*taps of A, inputs per group of A, c1).
        groups: of B and of A; where neither divides the other, B is written with fewer.
        placements: where the taps land, axis by axis.

    Returns:
        (*taps, inputs / joined groups, c2).
    """
    groups_b, groups_a = groups
    joined = math.gcd(groups_a, groups_b)
    if groups_a % groups_b and groups_b % groups_a:
        b, groups_b = regroup(b, groups_b, joined), joined
    fine_a, fine_b = groups_a // joined, groups_b // joined
    rank = len(placements)
    (ci, c1), c2 = a.shape[rank:], b.shape[-1]
    cm, co = c1 // (joined * fine_a * fine_b), c2 // groups_b
    full = np.zeros((*(p.full for p in placements), fine_a * ci, c2))
    parts = (
        (full, (fine_a, ci, joined, fine_b, co), (-3, -5, -2)),
        (b, (fine_a, cm, joined, fine_b, co), (-3, -5, -2)),
        (a, (ci, joined, fine_a, fine_b, cm), (-4, -3, -2)),
    )
    unit = (1,) * (2 - rank)  # axes of one tap, so that one comes before the last
    in_blocks = [
        np.moveaxis(part.reshape(*unit, *part.shape[:rank], *channels), blocks, (0, 1, 2))
        for part, channels, blocks in parts
    ]
    steps = [(1, 1)] * len(unit) + [
        (p.step[0] if k_a > 1 else 1, p.step[1] if k_b > 1 else 1)
        for p, k_a, k_b in zip(placements, a.shape, b.shape, strict=False)
    ]
    compose_blocks = _add_scaled if cm == 1 else _add_products
    compose_blocks(in_blocks[0], in_blocks[1], in_blocks[2], steps)
    return full[tuple(p.keep for p in placements)]


# Kernels in blocks: (joined, fine_a, fine_b, *taps, rows, columns). The composition has the rows
# of A, `ci`, and the columns of B, `co`; what it sums over has `cm`.


def _add_scaled(full: Array, b: Array, a: Array, steps: Sequence[Pair]) -> None:
    """Add a composition where `cm` is 1: A scaled by each tap of B, without any product."""
    for part in _runs(a.shape[3], ENTRIES * a.shape[3] // (a.size * b.shape[-1])):
        some, place = a[:, :, :, part], full[:, :, :, part.start * steps[0][0] :]
        for tap in np.ndindex(b.shape[3:-2]):
            only: Any = (..., *(slice(t, t + 1) for t in tap), slice(None), slice(None))
            place[_landing(some.shape[3:-2], tap, steps)] += some * b[only]


def _add_products(full: Array, b: Array, a: Array, steps: Sequence[Pair]) -> None:
    """Add a composition, a matrix product for each tap `u` along the last axis.

    Along that axis the product sums: the taps of A that reach `u`, last to first, are side by
    side in `left`, and B's, first to last, below each other in `right`. With `step_b` between
    B's taps they are the taps of one phase, every `step_b`-th of A; and so for B. Phases of as
    many taps are rows of one product. Along the other axes, `lead`, it has a row for each tap of
    A and a column for each of B:

        left: (*blocks, taps of A along lead * phases * rows, taps * cm)
        right: (*blocks, taps * cm, taps of B along lead * co)

    Both factors are read once for each `u`, and few numbers are added outside of a product:
    those that land at one place one after another, so that it stays in a cache.
    """
    *lead, (step_a, step_b) = steps
    blocks, lead_a, lead_b = a.shape[:3], a.shape[3:-3], b.shape[3:-3]
    ci, cm, co = *a.shape[-2:], b.shape[-1]
    places = _places(lead_a, lead_b, lead)
    every = slice(None)
    of_blocks = (every,) * 3
    numbers = math.prod(lead_a) * ci * math.prod(lead_b) * co  # of a product of one phase
    of_a = _phases(a.shape[-3], step_b, ENTRIES // numbers)
    for (first, count, k_a), s in itertools.product(of_a, range(min(step_a, b.shape[-3]))):
        phase_b = b[..., s::step_a, :, :]
        k_b = phase_b.shape[-3]
        right = np.moveaxis(phase_b, (-3, -2), (3, 4)).reshape(*blocks, k_b * cm, -1)
        for rows in _runs(ci, ROWS // (math.prod(lead_a) * count)):
            in_phases = [a[..., first + t * step_b :, rows, :] for t in reversed(range(k_a))]
            taps = np.stack([phase[..., :count, :, :] for phase in in_phases], axis=-2)
            left = taps.reshape(*blocks, -1, k_a * cm)
            product = np.empty((*blocks, left.shape[-2], right.shape[-1]))
            in_taps = product.reshape(*blocks, *lead_a, count, -1, *lead_b, co)
            for u in range(k_a + k_b - 1):
                low, high = max(0, u - k_b + 1), min(k_a, u + 1)  # the taps of A that reach u
                np.matmul(
                    left[..., (k_a - high) * cm : (k_a - low) * cm],
                    right[..., (u - high + 1) * cm : (u - low + 1) * cm, :],
                    out=product,
                )
                start = first * step_a + s * step_b + u * step_a * step_b
                phases = slice(start, start + (count - 1) * step_a + 1, step_a)
                for place, pairs in places.items():
                    where: Any = (*of_blocks, *place, phases, rows)
                    target = full[where]
                    for tap_a, tap_b in pairs:
                        what: Any = (*of_blocks, *tap_a, every, every, *tap_b)
                        target += in_taps[what]


def _phases(taps: int, step: int, most: int) -> list[tuple[int, int, int]]:
    """Runs of at most `most` phases, of every `step`-th tap: the first, how many, taps of each."""
    longer = taps % step
    alike = ((0, longer, taps // step + 1), (longer, step - longer, taps // step))
    return [
        (first + run.start, run.stop - run.start, each)
        for first, count, each in alike
        if count and each
        for run in _runs(count, most)
    ]


def _runs(count: int, most: int) -> Iterable[slice]:
    """So many in runs alike, each of at least one and at most `most`."""
    runs = -(-count // max(1, most))
    return itertools.starmap(slice, itertools.pairwise(count * i // runs for i in range(runs + 1)))


def _places(
    taps_a: Sequence[int], taps_b: Sequence[int], steps: Sequence[Pair]
) -> dict[tuple[int, ...], list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """The pairs of a tap of A and one of B that land at each place."""
    places = defaultdict(list)
    for tap_a in np.ndindex(*taps_a):
        for tap_b in np.ndindex(*taps_b):
            place = tuple(
                t * s_a + v * s_b for t, v, (s_a, s_b) in zip(tap_a, tap_b, steps, strict=True)
            )
            places[place].append((tap_a, tap_b))
    return places


def _landing(taps: Sequence[int], tap: Sequence[int], steps: Sequence[Pair]) -> tuple[slice, ...]:
    """Where A's taps land with one tap of B, in a kernel in blocks."""
    return (slice(None),) * 3 + tuple(
        slice(t * step_b, t * step_b + (k - 1) * step_a + 1, step_a)
        for k, t, (step_a, step_b) in zip(taps, tap, steps, strict=True)
    )


def compose(b: Operator, a: Operator) -> Operator:
    """`B o A`, A applied first. Raises `Refused` where no exact composition exists."""
    geometry, placements, indicator = _compose_geometry(b.geometry, a.geometry)
    groups = (b.geometry.groups, a.geometry.groups)
    rank = len(placements)
    kernel_b = b.kernel.reshape((1,) * rank + b.kernel.shape) if a.geometry.vector else b.kernel
    kernel = _convolve(kernel_b, a.kernel, groups, placements)
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
            ones = ones + _convolve(kernel_b, dense, (groups[0], 1), placements)[..., 0, :]
        if b.ones is not None:
            assert indicator is not None
            select = _carry(np.ones((1, 1)), indicator, a.geometry)[..., None, :]
            ones = ones + _convolve(b.ones[..., None, :], select, (1, 1), placements)[..., 0, :]
    return Operator(geometry, kernel, bias, ones)


def tile(operators: Sequence[Operator], box: Box) -> Operator:
    """`tile_geometry`, with the weights."""
    links = restricted([op.geometry for op in operators], box)
    cut = [replace(op, geometry=link) for op, link in zip(operators, links, strict=True)]
    return _tile(cut, _trim, compose)


def mirrored(tiles: Mapping[Place, Operator]) -> tuple[Operator, Array | None]:
    """`mirrored_geometry`, with the weights.

    Returns:
        The operator, and the biases of its outputs, (*parts of each group, output channels),
        where they are not all the same. It has no bias of its own then.
    """
    geometry, steps = _mirrored_geometry({place: t.geometry for place, t in tiles.items()})
    kernel = np.zeros(geometry.kernel_shape)
    for place, tile in tiles.items():
        where = [step[i] for step, i in zip(steps, place, strict=True)]
        kernel += _embed(tile.kernel, where, geometry.taps)
    (bias, *others) = (tile.bias for tile in tiles.values())
    if all(np.array_equal(bias, other) for other in others):
        return Operator(geometry, kernel, bias), None
    biases = np.zeros((*map(len, steps), geometry.channels[1]))
    for place, tile in tiles.items():
        biases[place] = tile.bias
    return Operator(replace(geometry, biased=False), kernel, np.zeros_like(bias)), biases


def _trim(operator: Operator) -> Operator:
    """Without the taps that every output reads zeros with.

    Where the windows of a normalised operator are all cut alike, it is plain: its kernel, of
    the taps that stay, over their sum.
    """
    geometry, taps = _trimmed(operator.geometry)
    kernel = operator.kernel[taps]
    if operator.geometry.normalised and not geometry.normalised:
        kernel = kernel / kernel.sum(axis=tuple(range(len(taps))), keepdims=True)
    ones = None if operator.ones is None else operator.ones[taps]
    return Operator(geometry, kernel, operator.bias, ones)


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


def _embed(kernel: Array, places: Sequence[Pair], taps: tuple[int, ...]) -> Array:
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
    places = list(zip(*(_align(list(column))[1] for column in axes), strict=True)) or [()] * len(
        operators
    )
    return [
        (
            _embed(op.kernel, place, geometry.taps),
            None if op.ones is None else _embed(op.ones, place, geometry.taps),
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
    ones = np.sum([o for _, o in placed if o is not None], axis=0) if geometry.ones else None
    bias = np.sum([op.bias for op in operators], axis=0)
    return Operator(geometry, np.asarray(kernel), bias, ones)


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
    ones = None
    if geometry.ones:
        ones = np.concatenate(
            [
                np.zeros((*geometry.taps, op.geometry.channels[1])) if o is None else o
                for op, (_, o) in zip(operators, placed, strict=True)
            ],
            axis=-1,
        )
    return Operator(geometry, kernel, np.concatenate([op.bias for op in operators]), ones)


class Order(NamedTuple):
    """A way to associate a chain.

    Attributes:
        cost: multiplications of its compositions, and `ENTRY` for each number of their kernels.
        geometry: what they give.
        parts: the two chains that are composed last, or the number of a link.
    """

    cost: int
    geometry: Geometry
    parts: tuple[Order, Order] | int


def chain(operators: Sequence[Operator]) -> Operator:
    """`operators[-1] o ... o operators[0]`, associated by `cheapest_order`.

    That order may be refused, or pad and crop otherwise than the order of `collapsed`, which
    plans are made with; then it does not count.

    Raises:
        Refused: no exact composition in the order of `collapsed`.
    """
    links = [operator.geometry for operator in operators]
    target = collapsed(links, compose_geometry)
    order = cheapest_order(links)
    if order is None or replace(order.geometry, steady=target.steady) != target:
        return collapsed(operators, compose)
    return _composed(operators, order)


def cheapest_order(links: Sequence[Geometry]) -> Order | None:
    """The order of least cost, or None where all that were tried are refused.

    That of the matrix chain (Cormen et al., Introduction to Algorithms, section 14.2), whose
    matrices are convolutions here. Longer chains than `LONGEST` are cut into such, and these
    put in order: the number of geometries composed is linear in the number of links.
    """
    orders: list[Order | None] = [Order(0, link, i) for i, link in enumerate(links)]
    while len(orders) > 1:
        cuts = range(0, len(orders), LONGEST)
        orders = [_cheapest(orders[i : i + LONGEST]) for i in cuts]
    return orders[0]


def _cheapest(links: Sequence[Order | None]) -> Order | None:
    """The cheapest order of a short chain, of what the links themselves cost included."""
    count = len(links)
    best = {(i, i + 1): link for i, link in enumerate(links)}
    for length in range(2, count + 1):
        for first in range(count - length + 1):
            last = first + length
            ways = []
            for middle in range(last - 1, first, -1):
                a, b = best[first, middle], best[middle, last]
                if a is not None and b is not None:
                    cost = a.cost + b.cost + product_cost(b.geometry, a.geometry)
                    ways.append((cost, (a, b)))
            best[first, last] = next(_accepted(sorted(ways, key=itemgetter(0))), None)
    return best[0, count]


def _accepted(ways: Iterable[tuple[int, tuple[Order, Order]]]) -> Iterator[Order]:
    """Those of the ways to compose two chains that are not refused."""
    for cost, (a, b) in ways:
        with suppress(Refused):
            geometry = compose_geometry(b.geometry, a.geometry)
            yield Order(cost + ENTRY * math.prod(geometry.kernel_shape), geometry, (a, b))


def _composed(operators: Sequence[Operator], order: Order) -> Operator:
    if isinstance(order.parts, int):
        return operators[order.parts]
    a, b = (_composed(operators, part) for part in order.parts)
    return compose(b, a)


def product_cost(b: Geometry, a: Geometry) -> int:
    """Multiplications of one composition, of group counts of which one divides the other."""
    pairs = math.prod(a.taps) * math.prod(b.taps)
    return pairs * a.channels[0] * a.channels[1] * b.channels[1] // (a.groups * b.groups)

"""One spatial axis of an operator: its normal form, and what it makes of another one.

With ``n`` input samples along it,

    y[p] = sum_t kernel[t] x^[p*s + t*r - lo]

where ``x^`` is ``x`` cropped, then spread by ``L - 1`` zeros between samples, and zero outside;
``s`` is the stride, ``r`` the dilation of the taps, ``L`` the upsampling factor.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

Pair = tuple[int, int]


class Refused(Exception):
    """An exact step that does not exist; `reason` goes to the report.

    Example:
        >>> @kerasfold.lifts(keras.layers.GroupNormalization)
        ... def group_normalization(layer, x):
        ...     raise kerasfold.Refused("its statistics are of the image")
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def anew(self) -> Refused:
        """The same, to be kept or raised again: a traceback keeps frames alive, and grows."""
        return Refused(self.reason)


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
        return self.upsampling * (self.size - self.crop[0] - self.crop[1] - 1) + 1

    @property
    def out(self) -> int | None:
        """Output samples; None where the input size is unknown."""
        extent = self.extent
        if extent is None:
            return None
        return (extent + self.pad[0] + self.pad[1] - self.span) // self.stride + 1

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
        axis, phase = reduced(replace(axis, stride=axis.upsampling, pad=pad))
        return axis.tight(), slice(low + phase.start, kept[-1] + 1, phase.step)

    @property
    def has_unread(self) -> bool:
        """Whether there is something for `trimmed` to take."""
        extent, out = self.extent, self.out
        if extent is None or out is None:
            return False
        first, last = -self.pad[0], self.span - 1 - self.pad[0]  # reads of the first output
        beyond = first + self.stride * (out - 1) < 0 or last >= extent
        return beyond or (out == 1 < self.upsampling)

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


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the taps of two factors land in the kernel of their composition."""

    axis: Axis
    step: Pair  # spacing of A's taps and of B's, in taps of the full kernel
    full: int  # taps of the full kernel
    keep: slice  # those left once stride and upsampling are divided by their common factor

    def cut(self, axis: Axis, taps: slice) -> Placement:
        """With some of the taps that are left, as `Axis.trimmed` says them."""
        kept = range(self.full)[self.keep][taps]
        return replace(self, axis=axis, keep=slice(kept.start, kept.stop, kept.step))


@functools.lru_cache(maxsize=4096)  # rows are as columns, and blocks are as those before
def composed_axis(b: Axis, a: Axis) -> Placement:
    """One axis of `B o A`. Raises `Refused`."""
    if (b.same and not a.is_pointwise) or (a.same and not b.is_pointwise):
        raise Refused(
            "a strided padding='same' depends on the image size, which is unknown here: "
            "give the model's Input a fixed size"
        )
    if a.same or b.same:
        return Placement(b if b.same else a, (1, 1), max(a.taps, b.taps), slice(None))
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
    dilation = math.gcd(*spacing) or 1
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
    axis, keep = reduced(axis)
    return Placement(axis.tight(), step, full, keep)


def reduced(axis: Axis) -> tuple[Axis, slice]:
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


def aligned_axes(axes: Sequence[Axis]) -> tuple[Axis, list[Pair]]:
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
    spacing = [axis.dilation for axis in axes if axis.taps > 1]
    dilation = math.gcd(*spacing, *(s - start for s in starts)) or 1
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

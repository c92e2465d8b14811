"""The frame of a chain: the outputs that its composition does not give, and strips around it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from .axis import Axis, Pair, Refused
from .geometry import Geometry

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

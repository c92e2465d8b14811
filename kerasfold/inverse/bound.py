"""How far two convolutions can be apart on an input of norm 1."""

from __future__ import annotations

import math

import numpy as np

from kerasfold.algebra.product import Array

DENSITY = 8  # frequencies for each tap
WORK = 2**29  # multiplications that the singular values of all frequencies may take
ROUNDED = 1 + 1e-9  # what rounding may take from a norm


def output_bound(blocks: Array) -> float:
    """A bound of the norm of `blocks` * x for x of norm 1, at any size of image.

    In frequencies a convolution is a matrix for each, and its norm the largest singular value of
    any (Sedghi, Gupta and Long, ICLR 2019, for images that wrap around; on an endless image the
    frequencies are a continuum, and zeros around an image, no padding and strides only take inputs
    and outputs away). With k taps along an axis, what is between two fixed vectors is a
    trigonometric polynomial of degree (k - 1) / 2, counted from the middle: near its maximum it
    falls no faster than a cosine of that degree (Ehlich and Zeller, Math. Z. 86, 1964). Of n
    frequencies evenly spaced the next is at most pi / n away, so the largest singular value of
    theirs is short by no more than cos(pi (k - 1) / 2n), along each axis. Where they would take too
    long, it is the norm of the matrix of sums over the taps of magnitudes, which no frequency
    exceeds.

    Args:
        blocks: (groups, *taps, inputs of a group, outputs of a group).
    """
    *_, inputs, outputs = blocks.shape
    taps = blocks.shape[1:-2]
    axes = tuple(range(1, len(taps) + 1))
    coarse = _largest(np.abs(blocks).sum(axis=axes))
    counts = [DENSITY * k if k > 1 else 1 for k in taps]
    if math.prod(counts) * blocks.shape[0] * inputs * outputs * min(inputs, outputs) > WORK:
        return coarse * ROUNDED
    short = math.prod(
        math.cos(math.pi * (k - 1) / (2 * n)) for k, n in zip(taps, counts, strict=True)
    )
    return min(coarse, _largest(np.fft.rfftn(blocks, counts, axes)) / short) * ROUNDED


def _largest(matrices: Array) -> float:
    return float(np.linalg.norm(matrices, 2, axis=(-2, -1)).max())

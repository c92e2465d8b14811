"""Forms of windows: a pool behind a convolution, and taps that are apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from kerasfold.algebra.product import Array
from kerasfold.errors import FoldError
from kerasfold.inverse.deconvolve import deconvolve
from kerasfold.inverse.steps import ROUNDING, Part, convolution, in_blocks, whole_numbers
from kerasfold.inverse.steps import pool as pool_of


def pool(
    kernel: Array,
    *,
    pool_size: int | Sequence[int],
    depthwise: bool = False,
    tolerance: float = 0.0,
) -> list[Part]:
    """A convolution, then an average pooling, by least squares: 18 x 18 as 15 x 15 and a pool of 4.

    Args:
        kernel: (*taps, in, out), of the strides `pool_size`; (*taps, in, multiplier) where
            depthwise.
        pool_size: of the pool, which are its strides.
        depthwise: the kernel is of a DepthwiseConv, and so is the factor.
        tolerance: has no say: there is one form.
    """
    *taps, inputs, outputs = kernel.shape
    sizes = whole_numbers(pool_size, len(taps), "pool_size")
    if any(size > k for size, k in zip(sizes, taps, strict=True)):
        raise FoldError(
            f"a pool of {'x'.join(map(str, sizes))} is larger than the kernel, which has "
            f"{'x'.join(map(str, taps))} taps: give a smaller pool_size"
        )
    mean = np.full((*sizes, 1, 1), 1 / np.prod(sizes))
    found = deconvolve(kernel.reshape(*taps, -1, 1), last=mean).kernel  # each filter by itself
    rest = found.reshape(*found.shape[:-2], inputs, outputs)
    channels = inputs * outputs if depthwise else outputs
    return [convolution(in_blocks(rest, depthwise)), pool_of(sizes, channels)]


def dilated(
    kernel: Array,
    *,
    dilation: int | Sequence[int] | None = None,
    depthwise: bool = False,
    tolerance: float = 0.0,
) -> list[Part]:
    """Fewer taps, some apart, where what is between them is zeros: 5 x 5 of 9 numbers as 3 x 3.

    Args:
        kernel: (*taps, in, out); (*taps, in, multiplier) where depthwise.
        dilation: of the taps along each axis, which divides their number less one; that of the
            fewest taps that meets the tolerance if None.
        depthwise: the kernel is of a DepthwiseConv, and so is the one with fewer taps.
        tolerance: relative error that is met; 0 for exact up to rounding.
    """
    taps = kernel.shape[:-2]
    if dilation is None:
        allowed = max(tolerance, ROUNDING) * np.linalg.norm(kernel)
        every = [[r for r in range(1, max(k, 2)) if (k - 1) % r == 0] for k in taps]
        ways = sorted(itertools.product(*every), key=lambda rates: kernel[_apart(rates)].size)
        rates = next(rates for rates in ways if _between(kernel, rates) <= allowed)
    else:
        rates = whole_numbers(dilation, len(taps), "dilation")
        if any((k - 1) % r for k, r in zip(taps, rates, strict=True)):
            raise FoldError(
                f"a dilation of {'x'.join(map(str, rates))} has no kernel of "
                f"{'x'.join(map(str, taps))} taps: each number divides that of the taps less one"
            )
    return [convolution(in_blocks(kernel[_apart(rates)], depthwise), rates)]


def _apart(rates: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(None, None, rate) for rate in rates)


def _between(kernel: Array, rates: Sequence[int]) -> float:
    """The norm of what is not at every so many taps."""
    rest = kernel.copy()
    rest[_apart(rates)] = 0
    return float(np.linalg.norm(rest))

"""The convolution by a kernel as a linear map of the kernels that it is a factor of."""

from __future__ import annotations

import functools
import math

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view

from kerasfold.algebra.product import Array


class Convolution:
    """The convolution by a kernel as a linear map.

    Args:
        kernel: (*taps, rows, columns).
        sizes: of what is convolved.
    """

    def __init__(self, kernel: Array, sizes: tuple[int, ...]) -> None:
        self.kernel, self.sizes = kernel, sizes
        self.full = tuple(n + k - 1 for n, k in zip(sizes, kernel.shape, strict=False))
        self.rows, self.columns = kernel.shape[-2:]
        self.shape = (math.prod(self.full) * self.rows, math.prod(sizes) * self.columns)
        self.axes = tuple(range(len(sizes)))
        self.grid = tuple(scipy.fft.next_fast_len(n, real=True) for n in self.full)

    @functools.cached_property
    def symbol(self) -> Array:
        """(*frequencies, rows, columns), what each frequency is multiplied by."""
        return self._frequencies(self.kernel)

    def _frequencies(self, values: Array) -> Array:
        return scipy.fft.rfftn(values, self.grid, self.axes) if self.axes else values

    def _taps(self, values: Array, taps: tuple[int, ...]) -> Array:
        whole = scipy.fft.irfftn(values, self.grid, self.axes) if self.axes else values
        return whole[tuple(map(slice, taps))]

    def apply(self, x: Array) -> Array:
        """(*full, rows, sides) of (*sizes, columns, sides)."""
        return self._taps(self.symbol @ self._frequencies(x), self.full)

    def adjoint(self, y: Array) -> Array:
        """Its transpose: (*sizes, columns, sides) of (*full, rows, sides)."""
        return self._taps(adjoint_of(adjoint_of(self._frequencies(y)) @ self.symbol), self.sizes)

    def matrix(self) -> Array:
        """(full taps and rows, taps and columns)."""
        matrix = np.zeros((*self.full, self.rows, *self.sizes, self.columns))
        taps = self.kernel.shape[:-2]
        for at in np.ndindex(self.sizes):
            window = tuple(slice(first, first + k) for first, k in zip(at, taps, strict=True))
            matrix[(*window, slice(None), *at)] = self.kernel
        return matrix.reshape(self.shape)

    def gram(self) -> Array:
        """Its transpose times itself, made of the kernel's autocorrelation."""
        rank = len(self.sizes)
        lags = Convolution(self.kernel, tuple(2 * n - 1 for n in self.sizes))
        centred = np.zeros((*lags.full, self.rows, self.columns))
        taps = zip(self.sizes, self.kernel.shape, strict=False)
        centred[tuple(slice(n - 1, n - 1 + k) for n, k in taps)] = self.kernel
        windows = sliding_window_view(lags.adjoint(centred), self.sizes, tuple(range(rank)))
        flipped = np.flip(windows, tuple(range(-rank, 0)))  # of a lag i - j, by i and j
        return np.moveaxis(flipped, rank + 1, -1).reshape(self.shape[1], self.shape[1])


def adjoint_of(matrices: Array) -> Array:
    """The conjugate transpose of each matrix."""
    return np.conj(np.swapaxes(matrices, -1, -2))

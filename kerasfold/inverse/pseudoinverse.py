"""Least squares with a convolution: the laws that make it smaller, then matrices or Fourier.

The convolution by a kernel `G` makes `Y` of `X`, for each of many right-hand sides:

    Y[u] = sum_t G[t] X[u - t]      G (*taps, rows, columns), X (*sizes, columns, sides)

Two laws split it, exactly: sets of channels that no weight connects are problems of their own,
equal ones a single one; and what is a product along an axis has the pseudoinverses of its factors,
pinv(g (x) H) = pinv(g) (x) pinv(H). The rest is left to `solvers`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kerasfold.algebra.product import Array
from kerasfold.inverse.convolution import Convolution
from kerasfold.inverse.solvers import EPS, Pseudoinverse, solver

Channels = tuple[list[int], list[int]]
"""Rows and columns."""


def pseudoinverse(kernel: Array, sizes: Sequence[int]) -> Pseudoinverse:
    """Of the convolution by `kernel`, (*taps, rows, columns), of what has `sizes` taps."""
    sets = connected(kernel)
    if [tuple(map(len, channels)) for channels in sets] != [kernel.shape[-2:]]:
        return _Blocks(kernel, sizes, sets)
    for axis, taps in enumerate(kernel.shape[:-2]):
        if kernel.size > taps and (factors := factored(kernel, axis)) is not None:
            return _Kronecker(*factors, sizes, axis)
    return solver(Convolution(kernel, tuple(sizes)))


def connected(kernel: Array) -> list[Channels]:
    """The sets of channels that weights connect."""
    rows, columns = kernel.shape[-2:]
    at = np.nonzero(np.any(kernel, axis=tuple(range(kernel.ndim - 2))))
    edges = coo_array((np.ones(len(at[0])), (at[0], at[1] + rows)), shape=(rows + columns,) * 2)
    sets: dict[int, Channels] = defaultdict(lambda: ([], []))
    labels = connected_components(edges, directed=False)[1]
    for side, those in enumerate((labels[:rows], labels[rows:])):
        for i, label in enumerate(those):
            sets[label][side].append(i)
    return [channels for channels in sets.values() if all(channels)]


def factored(kernel: Array, axis: int) -> tuple[Array, Array] | None:
    """`g` and `H`, of a kernel that is `g[t] H` along an axis, up to rounding."""
    taps = np.moveaxis(kernel, axis, 0)
    peak = np.argmax(np.abs(taps))
    row, column = divmod(int(peak), taps[0].size)
    g, rest = taps.reshape(len(taps), -1)[:, column], taps[row] / taps.flat[peak]
    error = np.abs(taps - np.multiply.outer(g, rest))
    return (g, rest) if np.max(error) <= 8 * EPS * abs(taps.flat[peak]) else None


class _Blocks(Pseudoinverse):
    """Sets of channels that no weight connects; where some have no weight, nothing tells them."""

    def __init__(self, kernel: Array, sizes: Sequence[int], sets: Sequence[Channels]) -> None:
        alike: dict[bytes, list[Channels]] = defaultdict(list)
        for rows, columns in sets:
            block = kernel[..., rows, :][..., columns]
            alike[bytes(str(block.shape), "ascii") + block.tobytes()].append((rows, columns))
        self.parts: list[tuple[Array, Array, Pseudoinverse]] = []
        for places in alike.values():
            block = kernel[..., places[0][0], :][..., places[0][1]]
            at = [np.array(channels) for channels in zip(*places, strict=True)]
            self.parts.append((at[0], at[1], pseudoinverse(block, sizes)))
        self.sizes, self.channels = tuple(sizes), kernel.shape[-2:]
        self.full = tuple(n + k - 1 for n, k in zip(sizes, kernel.shape, strict=False))
        inner = [part for _, _, part in self.parts]
        told = sum(len(columns) for _, columns in sets) == kernel.shape[-1]
        self.largest = max((part.largest for part in inner), default=0.0)
        self.smallest = min(part.smallest for part in inner) if told else 0.0

    def solve(self, y: Array) -> Array:
        x = np.zeros((*self.sizes, self.channels[1], y.shape[-1]))
        for rows, columns, part in self.parts:
            x[..., columns, :] = _side_by_side(part.solve, y[..., rows, :])
        return x

    def apply(self, x: Array) -> Array:
        y = np.zeros((*self.full, self.channels[0], x.shape[-1]))
        for rows, columns, part in self.parts:
            y[..., rows, :] = _side_by_side(part.apply, x[..., columns, :])
        return y


def _side_by_side(function: Callable[[Array], Array], blocks: Array) -> Array:
    """Of (*taps, blocks, channels, sides), all blocks at once."""
    sides = np.moveaxis(blocks, -3, -2)
    made = function(sides.reshape(*sides.shape[:-2], -1))
    return np.moveaxis(made.reshape(*made.shape[:-1], *sides.shape[-2:]), -2, -3)


class _Kronecker(Pseudoinverse):
    """A product of a kernel along one axis and of another along all the others."""

    def __init__(self, along: Array, rest: Array, sizes: Sequence[int], axis: int) -> None:
        self.axis = axis
        self.along = pseudoinverse(along[:, None, None], sizes[axis : axis + 1])
        self.rest = pseudoinverse(rest, [*sizes[:axis], *sizes[axis + 1 :]])
        self.largest = self.along.largest * self.rest.largest
        self.smallest = self.along.smallest * self.rest.smallest

    def solve(self, y: Array) -> Array:
        return self._both(self.along.solve, self.rest.solve, y)

    def apply(self, x: Array) -> Array:
        return self._both(self.along.apply, self.rest.apply, x)

    def _both(
        self,
        along: Callable[[Array], Array],
        rest: Callable[[Array], Array],
        values: Array,
    ) -> Array:
        first = np.moveaxis(values, self.axis, 0)
        made = along(first.reshape(len(first), 1, -1)).reshape(-1, *first.shape[1:])
        last = np.moveaxis(made, 0, -1)
        made = rest(last.reshape(*last.shape[:-2], -1))
        return np.moveaxis(made.reshape(*made.shape[:-1], *last.shape[-2:]), -1, self.axis)

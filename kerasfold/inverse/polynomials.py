"""A kernel of one channel as a polynomial, and its factors, which a chain of kernels is made of.

Convolving kernels multiplies the polynomials that have their taps as coefficients. In one
variable the factors are known from the roots. In two, from the solutions of a linear equation
(W. Ruppert, J. Number Theory 77, 1999; for rounded numbers: Gao, Kaltofen, May, Yang and Zhi,
ISSAC 2004): where f = f_1 ... f_r, each once, the polynomials

    P = sum_i l_i (f / f_i) df_i/dx    and    Q = sum_i l_i (f / f_i) df_i/dy

with any numbers l_i have d(P / f)/dy = d(Q / f)/dx, and no others of such degrees have it. At a
root of f_i, P is l_i df/dx and Q is l_i df/dy: that tells which roots belong together.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from kerasfold.algebra.product import Array
from kerasfold.inverse.descent import composed, derivative

LARGE = 625  # taps, such as 25 x 25: more take minutes, and are not tried
ZERO = 1e-13  # of the largest coefficient: those below are none
SINGULAR = 1e-14  # of the largest eigenvalue: those below belong to solutions
ALIKE = 1e-5  # of their range: marks that are nearer are of one factor
REAL = 1e-9  # of a root: an imaginary part below that is none


def times(first: Array, last: Array) -> Array:
    """The product of two polynomials, arrays of coefficients."""
    return composed(first[..., None, None], last[..., None, None])[..., 0, 0]


def factors(polynomial: Array) -> list[Array]:
    """Real factors of a polynomial in one variable or two, times a number.

    In one variable of degree 1 and 2; in two as far as they are told apart, which those that
    divide it more than once are not. One of more than `LARGE` taps, but for powers of a variable
    and one in `x` times one in `y`, is its only factor.
    """
    found = []
    for axis, _ in enumerate(polynomial.shape):
        slices = np.moveaxis(polynomial, axis, 0).reshape(polynomial.shape[axis], -1)
        lines = np.abs(slices).max(axis=1)
        kept = np.flatnonzero(lines > ZERO * lines.max())
        unit = np.eye(2).reshape(2, *np.where(np.arange(polynomial.ndim) == axis, 2, 1))
        found += [unit[1]] * kept[0] + [unit[0]] * (len(lines) - 1 - kept[-1])
        polynomial = np.take(polynomial, range(kept[0], kept[-1] + 1), axis)
    if polynomial.size == 1:
        return found
    if polynomial.ndim == 2:
        u, s, v = np.linalg.svd(polynomial)
        if not np.any(s[1:] > ZERO * s[0]) and max(polynomial.shape) <= LARGE:  # in x, and in y
            of_x, of_y = _of_roots(u[:, 0]), _of_roots(v[0])
            return found + [f[:, None] for f in of_x] + [f[None] for f in of_y]
    if polynomial.size > LARGE:
        return [*found, polynomial]
    return found + (_of_roots(polynomial) if polynomial.ndim == 1 else _told_apart(polynomial))


def _of_roots(coefficients: Array) -> list[Array]:
    """The factors of degree 1 and 2 of a polynomial in one variable, lowest power first."""
    roots = np.roots(coefficients[::-1])
    real = np.abs(roots.imag) <= REAL * np.abs(roots)
    pairs = roots[~real & (roots.imag > 0)]
    return [np.array([-r, 1]) for r in roots[real].real] + [
        np.array([abs(r) ** 2, -2 * r.real, 1]) for r in pairs
    ]


def _told_apart(f: Array) -> list[Array]:
    """The factors of a polynomial in two variables."""
    rows, columns = f.shape
    shapes = ((rows - 1, columns), (rows, columns - 1))
    equation = np.concatenate([_wronskian(f, shapes[0], 1), -_wronskian(f, shapes[1], 0)], axis=1)
    values, vectors = np.linalg.eigh(equation.T @ equation)
    solutions = vectors[:, values <= SINGULAR * values[-1]].T
    if len(solutions) < 2:
        return [f]
    ps, qs = np.split(solutions, [math.prod(shapes[0])], axis=1)
    ps = np.pad(ps.reshape(-1, *shapes[0]), ((0, 0), (0, 1), (0, 0)))
    qs = np.pad(qs.reshape(-1, *shapes[1]), ((0, 0), (0, 0), (0, 1)))
    of_x, of_y = _marks(f, ps), _marks(f.T, qs.swapaxes(1, 2))
    marks = np.concatenate([of_x, of_y])
    system = np.concatenate([marks.real, marks.imag])
    found = []
    for group in _groups(marks):
        shape = (1 + int(group[: len(of_x)].sum()), 1 + int(group[len(of_x) :].sum()))
        mixed = np.linalg.lstsq(system, np.concatenate([group, 0 * group]), rcond=None)[0]
        p, q = np.tensordot(mixed, ps, 1), np.tensordot(mixed, qs, 1)
        rows_of = [
            _times(f, shape) @ _slopes(shape, axis) - _times(other, shape)
            for axis, other in enumerate((p, q))
        ]  # dg/dx = (P / f) g, dg/dy = (Q / f) g
        found.append(np.linalg.svd(np.concatenate(rows_of))[2][-1].reshape(shape))
    return found


def _marks(f: Array, ps: Array) -> Array:
    """P over df/dx at the roots of `f` on a line of one `y`: (roots, solutions)."""
    line = np.exp(1j) ** np.arange(f.shape[1])
    along = (f @ line)[::-1]
    roots = np.roots(along)
    values = [np.polyval((p @ line)[::-1], roots) for p in ps]
    return np.stack(values, axis=-1) / np.polyval(np.polyder(along), roots)[:, None]


def _groups(marks: Array) -> list[Array]:
    """Masks of the marks that are alike, or conjugate."""
    weights = np.random.default_rng(0).standard_normal(marks.shape[1])
    keys = (marks @ weights).real + math.sqrt(2) * np.abs((marks @ weights).imag)
    order = np.argsort(keys)
    apart = np.flatnonzero(np.diff(keys[order]) > ALIKE * np.ptp(keys))
    return [np.isin(range(len(keys)), part) for part in np.split(order, apart + 1)]


def _slope(polynomial: Array, axis: int) -> Array:
    """A polynomial differentiated, in an array of the same shape."""
    powers = np.moveaxis(polynomial, axis, -1)
    lower = powers[..., 1:] * np.arange(1, powers.shape[-1])
    return np.moveaxis(np.concatenate([lower, 0 * powers[..., :1]], axis=-1), -1, axis)


def _slopes(shape: tuple[int, int], axis: int) -> Array:
    """The matrix that differentiates a polynomial of a shape."""
    count = math.prod(shape)
    return _slope(np.eye(count).reshape(*shape, count), axis).reshape(count, count)


def _times(f: Array, shape: tuple[int, int]) -> Array:
    """The matrix that multiplies a polynomial of a shape by `f`."""
    return derivative(np.ones((1,) * (f.ndim + 2)), f[..., None, None], shape)


def _wronskian(f: Array, shape: tuple[int, int], axis: int) -> Array:
    """The matrix that makes `f dg - g df` of `g`, without the highest power, which cancels."""
    matrix = _times(f, shape) @ _slopes(shape, axis) - _times(_slope(f, axis), shape)
    full = [n + k - 1 for n, k in zip(f.shape, shape, strict=True)]
    powers = np.moveaxis(matrix.reshape(*full, -1), axis, 0)[:-1]
    return np.moveaxis(powers, 0, axis).reshape(-1, matrix.shape[1])


def shared_out(
    found: Sequence[Array], sizes: Sequence[tuple[int, ...]], rng: np.random.Generator
) -> list[Array] | None:
    """Products of factors, of such sizes, or None where the degrees do not add up to them.

    A pair of conjugate roots may go apart then, to be a real root that is double: the nearest
    pair first.
    """
    found = [found[i] for i in rng.permutation(len(found))]
    while True:
        found.sort(key=np.size, reverse=True)
        degrees = [tuple(n - 1 for n in factor.shape) for factor in found]
        room = tuple(tuple(n - 1 for n in size) for size in sizes)
        places = _placed(degrees, room)
        if places is not None:
            ones = np.ones((1,) * len(sizes[0]))
            return [
                functools.reduce(
                    times, (f for f, at in zip(found, places, strict=True) if at == j), ones
                )
                for j in range(len(sizes))
            ]
        pairs = [i for i, factor in enumerate(found) if factor.size == max(factor.shape) == 3]
        if not pairs:
            return None
        square = found.pop(min(pairs, key=lambda i: _imaginary(found[i])))
        root = -square.ravel()[1] / 2 / square.ravel()[2]
        half = np.array([-root, 1]).reshape([2 if n > 1 else 1 for n in square.shape])
        found += [half, half]


def _imaginary(square: Array) -> float:
    """How far the roots of a polynomial of degree 2 are from the real ones, for their size."""
    low, middle, high = square.ravel()
    return 1 - middle**2 / (4 * low * high)


def _placed(
    degrees: Sequence[tuple[int, ...]], room: tuple[tuple[int, ...], ...]
) -> tuple[int, ...] | None:
    """For each of some degrees a place with room for it, such that all rooms are filled."""

    @functools.cache
    def placed(first: int, room: tuple[tuple[int, ...], ...]) -> tuple[int, ...] | None:
        if first == len(degrees):
            return None if any(map(any, room)) else ()
        for j, left in enumerate(room):
            less = tuple(a - b for a, b in zip(left, degrees[first], strict=True))
            if min(less) >= 0:
                rest = placed(first + 1, (*room[:j], less, *room[j + 1 :]))
                if rest is not None:
                    return (j, *rest)
        return None

    return placed(0, room)

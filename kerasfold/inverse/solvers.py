"""Least squares with a convolution, by the first of `SOLVERS` that it is not too large for."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import scipy.fft
import scipy.linalg

from kerasfold.algebra.product import Array
from kerasfold.errors import FoldError
from kerasfold.inverse.convolution import Convolution, adjoint_of

EPS = float(np.finfo("float64").eps)
MULTIPLICATIONS = 2e6  # of a singular value decomposition that takes no time
UNKNOWNS = 4096  # of a Gram matrix: 128 MiB
WORST = 1e6  # condition whose square leaves digits to refine with
ENTRIES = 2**25  # of the largest matrix that is decomposed: 256 MiB
STEPS = 300  # of conjugate gradients, before they start anew from what is left
FINE, ROUGH = 1e-6, 1e-1  # what they leave, of an answer and of an estimate
POWERS = 12  # of a map, for an estimate of its largest eigenvalue
CONSISTENT = 1e-12  # what dividing leaves of what divides, or less
LEVEL = 1e-8  # slope, as a part of what is left, where it is least
NOISE = 1e-14  # eigenvalue of a square that rounding may have made
SINGULAR = 1e-13  # pivot of a frequency that cannot be divided by
GOLDEN = (math.sqrt(5) - 1) / 2


class Pseudoinverse(ABC):
    """The shortest of the best answers to a convolution.

    Attributes:
        largest: singular value, or an estimate of it.
        smallest: singular value, or an estimate; 0 where several answers are as good.
    """

    largest: float
    smallest: float

    @abstractmethod
    def solve(self, y: Array) -> Array:
        """(*sizes, columns, sides) of (*sizes + taps - 1, rows, sides)."""

    @abstractmethod
    def apply(self, x: Array) -> Array:
        """The convolution: (*sizes + taps - 1, rows, sides) of (*sizes, columns, sides)."""


def solver(convolution: Convolution) -> Pseudoinverse:
    """The pseudoinverse, by the first of `SOLVERS` that can."""
    return next(found for solve in SOLVERS if (found := solve(convolution)) is not None)


class _SingularValues(Pseudoinverse):
    """By the singular value decomposition of the matrix."""

    def __init__(self, convolution: Convolution) -> None:
        self.convolution, self.matrix = convolution, convolution.matrix()
        left, values, right = scipy.linalg.svd(self.matrix, full_matrices=False)
        rank = int(np.sum(values > max(self.matrix.shape) * EPS * values[0]))
        self.largest = float(values[0])
        self.smallest = float(values[-1]) if rank == self.matrix.shape[1] else 0.0
        self.left, self.right = left[:, :rank].T, right[:rank].T / values[:rank]

    def solve(self, y: Array) -> Array:
        x = self.right @ (self.left @ y.reshape(len(self.matrix), -1))
        return x.reshape(*self.convolution.sizes, self.convolution.columns, -1)

    def apply(self, x: Array) -> Array:
        y = self.matrix @ x.reshape(self.matrix.shape[1], -1)
        return y.reshape(*self.convolution.full, self.convolution.rows, -1)


class _Cholesky(Pseudoinverse):
    """By the normal equations, again and again: they square the condition, and lose its digits."""

    def __init__(self, convolution: Convolution) -> None:
        self.convolution = convolution
        gram = convolution.gram()
        self.factor = scipy.linalg.cho_factor(gram)
        self.largest = math.sqrt(_growth(lambda x: gram @ x, (len(gram),)))
        self.smallest = 1 / math.sqrt(_growth(self._normal, (len(gram),)))

    def _normal(self, x: Array) -> Array:
        return scipy.linalg.cho_solve(self.factor, x)

    def _answer(self, y: Array) -> Array:
        x = self.convolution.adjoint(y)
        return self._normal(x.reshape(self.convolution.shape[1], -1)).reshape(x.shape)

    def solve(self, y: Array) -> Array:
        return _refined(self.apply, self._answer, y)

    def apply(self, x: Array) -> Array:
        return self.convolution.apply(x)


class _Gradients(Pseudoinverse):
    """By division in the Fourier domain; where that leaves something, by conjugate gradients.

    These start from zero where there is no division, and end at the shortest answer.
    """

    def __init__(self, convolution: Convolution) -> None:
        self.convolution = convolution
        rows, columns = convolution.shape
        tall = convolution.rows >= convolution.columns
        self.divided, least = _division(convolution) if tall else (None, math.inf)
        start = np.random.default_rng(0).normal(size=(*convolution.sizes, convolution.columns, 1))
        _, lengths, turns = _descent(self._square, start, ROUGH)
        values = _ritz_values(lengths, turns)
        self.largest = math.sqrt(values[-1])
        told = rows >= columns and values[0] > NOISE * values[-1]
        self.smallest = math.sqrt(values[0]) if told else 0.0
        if len(lengths) == STEPS:  # far from the end: that of all frequencies is no larger
            self.smallest = min(self.smallest, least)

    def solve(self, y: Array) -> Array:
        """The answer.

        Raises:
            FoldError: the gradients go on for too long.
        """
        x = np.zeros((*self.convolution.sizes, self.convolution.columns, y.shape[-1]))
        size = float(np.linalg.norm(y))
        if self.divided is not None:
            x = _refined(self.apply, self.divided, y)
        if np.linalg.norm(y - self.apply(x)) <= CONSISTENT * size:
            return x
        x = _refined(self.apply, self._answer, y, x)
        rest = y - self.apply(x)
        slope = float(np.linalg.norm(self.convolution.adjoint(rest))) / self.largest
        if slope > max(LEVEL * float(np.linalg.norm(rest)), CONSISTENT * size):
            raise FoldError(
                f"the divisor of {self.convolution.kernel.shape[: len(self.convolution.sizes)]} "
                "taps is so near to one that cannot be inverted that conjugate gradients find no "
                "factor by it: it is to have a better condition, or the kernel fewer taps"
            )
        return x

    def apply(self, x: Array) -> Array:
        return self.convolution.apply(x)

    def _square(self, x: Array) -> Array:
        return self.convolution.adjoint(self.convolution.apply(x))

    def _answer(self, y: Array) -> Array:
        return _descent(self._square, self.convolution.adjoint(y), FINE)[0]


def _division(convolution: Convolution) -> tuple[Callable[[Array], Array] | None, float]:
    """Division of each frequency by itself, in the circular convolution that this is a part of.

    The frequencies lie a golden section of the way between multiples of `2 pi / n`, where means
    and differences have their zeros. None where one cannot be divided by; with it, about the least
    of their singular values.
    """
    grid, axes, sizes = convolution.grid, convolution.axes, convolution.sizes

    def frequencies(values: Array) -> Array:
        return scipy.fft.fftn(values * _turns(values.shape, grid), grid, axes, overwrite_x=True)

    q, r = np.linalg.qr(frequencies(convolution.kernel))
    pivots = np.abs(np.diagonal(r, axis1=-2, axis2=-1))
    if np.min(pivots) <= SINGULAR * np.max(pivots):
        return None, 0.0
    inverse = np.linalg.inv(r) @ adjoint_of(q)

    def divided(y: Array) -> Array:
        whole = scipy.fft.ifftn(inverse @ frequencies(y), axes=axes, overwrite_x=True)
        return (whole[tuple(map(slice, sizes))] * _turns(sizes, grid).conj()).real

    return divided, 1 / float(np.max(np.linalg.norm(inverse, axis=(-2, -1))))


def _turns(taps: Sequence[int], grid: Sequence[int]) -> Array:
    """What moves the frequencies of so many taps by a golden section."""
    each = [
        np.exp(-2j * np.pi * GOLDEN / n * np.arange(k)) for n, k in zip(grid, taps, strict=False)
    ]
    return functools.reduce(np.multiply.outer, each)[..., None, None]


def _descent(
    square: Callable[[Array], Array], b: Array, tolerance: float
) -> tuple[Array, list[Array], list[Array]]:
    """`x` of `square(x) = b` by conjugate gradients, each side's own; their lengths and turns."""
    x, rest, step = np.zeros_like(b), b, b
    slopes = start = _dots(rest, rest)
    lengths: list[Array] = []
    turns: list[Array] = []
    while len(lengths) < STEPS and np.sum(slopes) > tolerance**2 * np.sum(start):
        made = square(step)
        lengths.append(_quotients(slopes, _dots(step, made)))
        x = x + lengths[-1] * step
        rest = rest - lengths[-1] * made
        last, slopes = slopes, _dots(rest, rest)
        turns.append(_quotients(slopes, last))
        step = rest + turns[-1] * step
    return x, lengths, turns


def _ritz_values(lengths: list[Array], turns: list[Array]) -> Array:
    """Of the tridiagonal matrix that conjugate gradients went by, of the first side."""
    length, turn = (np.array(numbers)[:, 0] for numbers in (lengths, turns))
    count = np.argmin(length) if np.min(length) == 0 else len(length)  # before a step of no slope
    length, turn = length[:count], turn[:count]
    diagonal = 1 / length
    diagonal[1:] += turn[:-1] / length[:-1]
    return scipy.linalg.eigvalsh_tridiagonal(diagonal, np.sqrt(turn[:-1]) / length[:-1])


def _dots(a: Array, b: Array) -> Array:
    """Of each side."""
    return np.einsum("is,is->s", *(x.reshape(-1, x.shape[-1]) for x in (a, b)))


def _quotients(a: Array, b: Array) -> Array:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _refined(
    apply: Callable[[Array], Array],
    answer: Callable[[Array], Array],
    y: Array,
    x: Array | None = None,
) -> Array:
    """An answer, corrected by answers to what it leaves for as long as they get smaller."""
    last = math.inf
    if x is None:
        x = answer(y)
        last = float(np.linalg.norm(x))
    while True:
        step = answer(y - apply(x))
        size = float(np.linalg.norm(step))
        if not size < last / 2:
            return x
        x, last = x + step, size
        if size <= EPS * np.linalg.norm(x):
            return x


def _growth(function: Callable[[Array], Array], shape: tuple[int, ...]) -> float:
    """About the largest eigenvalue of a symmetric map, by power iteration from a fixed start."""
    x, size = np.random.default_rng(0).normal(size=shape), 1.0
    for _ in range(POWERS):
        x = function(x / np.linalg.norm(x))
        size = float(np.linalg.norm(x))
    return size


def _at_once(convolution: Convolution) -> Pseudoinverse | None:
    small = math.prod(convolution.shape) * min(convolution.shape) <= MULTIPLICATIONS
    return _SingularValues(convolution) if small else None


def _by_squares(convolution: Convolution) -> Pseudoinverse | None:
    rows, columns = convolution.shape
    if not columns <= min(rows, UNKNOWNS):
        return None
    try:
        found = _Cholesky(convolution)
    except scipy.linalg.LinAlgError:
        return None
    return found if found.largest <= WORST * found.smallest else None


def _by_values(convolution: Convolution) -> Pseudoinverse | None:
    return _SingularValues(convolution) if math.prod(convolution.shape) <= ENTRIES else None


SOLVERS: tuple[Callable[[Convolution], Pseudoinverse | None], ...] = (
    _at_once,
    _by_squares,
    _by_values,
    _Gradients,
)

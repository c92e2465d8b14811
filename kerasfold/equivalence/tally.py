"""What is kept of one output of two models while batch after batch of it is compared.

An output is judged line by line: a line is all that has one index along one axis, such as one
channel, or one class. A channel whose values are 1e-5 of the others' would be lost in a maximum
over the whole. Every axis counts whose size the model fixes, the batch's excepted.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from kerasfold.equivalence.tolerance import Errors
from kerasfold.read.weights import largest

Lines: TypeAlias = np.ndarray  # a number for each line, those of one axis after another
WHOLE = "iub"  # kinds of dtypes
LARGEST = {dtype: largest(dtype) for dtype in ("float32", "bfloat16", "float16")}


def _beyond() -> np.errstate:
    """What is beyond float64 tells no spread, and is nothing to warn of."""
    return np.errstate(over="ignore", invalid="ignore")


@dataclass(slots=True)
class Moments:
    """Mean, and sum of squares of what is left without it, of each element over samples."""

    count: int
    mean: np.ndarray
    squares: np.ndarray

    def saw(self, values: np.ndarray) -> None:
        """Take in more samples (n, ...), by the pairwise formula of Chan, Golub, LeVeque (1979)."""
        n = len(values)
        with _beyond():
            mean = values.mean(axis=0)
            squares = np.square(values - mean).sum(axis=0)
        self.merge(Moments(n, mean, squares))

    def merge(self, other: Moments) -> None:
        """Take in what another has seen."""
        total = self.count + other.count
        weight = self.count * other.count / total
        with _beyond():
            shift = other.mean - self.mean
            self.mean = self.mean + shift * (other.count / total)
            self.squares = self.squares + other.squares + np.square(shift) * weight
        self.count = total


# Attributes of a tally, by how those of two are one.
_LINES = ("error", "scale", "own_error", "other_error", "effect", "own_effect", "output_scale")
_LARGEST = ("border_error", "inside_error", "beyond")
_COUNTS = ("numbers", "finite", "lost", "overflowed", "astray", "number")


@dataclass(slots=True, kw_only=True)
class Tally:
    """One output of a reference and of another model, in float64 and as they are.

    Attributes:
        name: of the output.
        shape: of the output, with None for the batch and for sizes that are free.
        pixels: the axes of an image.
        kinds: of samples that come in turn, of one loudness each; what rounds is larger in a louder
            one, and is judged apart.
        error: largest difference of the float64 copies, by kind and line.
        border_error: the same among the outermost pixels, over all lines; of vectors, 0.
        inside_error: the same among the others; of vectors and small images, 0.
        scale: largest finite value in float64, by kind and line.
        own_error: of the reference in its own dtype, against float64, by line.
        other_error: of the other model.
        effect: largest change that rounding noise makes in float64, by kind and line.
        expected: the same, as a share of the scale, until it is measured.
        own_effect: the same, of the noise of the models' own dtype.
        output_scale: as `scale`, of the output itself where something before it is judged, and of
            nothing that is lost.
        beyond: largest error of the other model beyond a share of the value, over all.
        moments: of each element of outputs of one size, by that size.
        numbers: in all.
        finite: how many are finite, in float64.
        lost: of these, how many are not in the reference's own dtype.
        overflowed: how many of the other model are not, where the reference's are, on inputs so
            large that this is no difference.
        astray: the same of the models in their own dtypes, in samples that overflow on the way.
        number: of samples.
        own_dtype: of the reference's output.
        whole: whether it is whole numbers or flags, of which none is off by rounding.
        errors: of the other model in its own dtype, where it has no float64 copy; else None. The
            errors at the border and inside are then these.
        tolerated: the share of the output that a user allows the copies to differ by, where they
            may differ by more than their rounding; or None.
    """

    name: str
    shape: tuple[int | None, ...]
    pixels: tuple[int, ...]
    kinds: int = 1
    error: Lines = field(default_factory=lambda: np.zeros(1))
    border_error: float = 0.0
    inside_error: float = 0.0
    scale: Lines = field(default_factory=lambda: np.zeros(1))
    own_error: Lines = field(default_factory=lambda: np.zeros(1))
    other_error: Lines = field(default_factory=lambda: np.zeros(1))
    effect: Lines = field(default_factory=lambda: np.zeros(1))
    own_effect: Lines = field(default_factory=lambda: np.zeros(1))
    output_scale: Lines = field(default_factory=lambda: np.zeros(1))
    expected: float = 0.0
    beyond: float = -math.inf
    moments: dict[tuple[int, ...], Moments] = field(default_factory=dict)
    numbers: int = 0
    finite: int = 0
    lost: int = 0
    overflowed: int = 0
    astray: int = 0
    number: int = 0
    own_dtype: str = "float32"
    whole: bool = False
    errors: Errors | None = None
    tolerated: float | None = None

    @property
    def axes(self) -> tuple[int, ...]:
        """Those whose lines are judged."""
        return tuple(i for i, n in enumerate(self.shape) if i and n)

    def lines(self, values: np.ndarray) -> Lines:
        """The largest of each line of values (n, ...)."""
        return self._by_line(functools.partial(np.max, initial=0.0), values)

    def _by_line(self, reduced: Callable[..., Any], values: np.ndarray) -> Lines:
        """What a reduction makes of each line of values (n, ...)."""
        if not self.axes:
            return np.array([reduced(values)])
        others = [tuple(i for i in range(values.ndim) if i != axis) for axis in self.axes]
        return np.concatenate([reduced(values, axis=o) for o in others])

    def place(self, line: int) -> tuple[int, int] | None:
        """The axis and the index of a line; None where an output is one line."""
        for axis in self.axes:
            size = self.shape[axis]
            assert size is not None
            if line < size:
                return axis, line
            line -= size
        return None

    def _by_kind(self, values: np.ndarray, first: int) -> np.ndarray:
        """The largest of each line of each kind, of samples whose first has this number."""
        if self.kinds == 1:
            return self.lines(values)
        starts = ((kind - first) % self.kinds for kind in range(self.kinds))
        return np.stack([self.lines(values[start :: self.kinds]) for start in starts])

    def saw_copies(self, truth: np.ndarray, other: np.ndarray | None) -> Lines:
        """Take in what float64 copies give; the largest difference of each line of this batch."""
        if truth.ndim != len(self.shape):  # as of a TextVectorization, Keras said otherwise
            self.shape, self.pixels = (*(None,) * (truth.ndim - 1), truth.shape[-1]), ()
        first = self.number
        self.number += len(truth)
        self.whole = truth.dtype.kind in WHOLE
        self.numbers += truth.size
        finite = np.isfinite(truth)
        self.finite += int(finite.sum())
        values = np.where(finite, truth, 0.0)
        scale = self._by_kind(np.abs(values), first)
        self.scale = np.maximum(self.scale, scale)
        self._saw_moments(values)
        if other is None:
            return np.zeros_like(scale)
        errors = distances(other, truth)
        error = self._by_kind(errors, first)
        self.error = np.maximum(self.error, error)
        self._saw_border(errors)
        return error

    def saw_overflow(self, truth: np.ndarray, other: np.ndarray) -> None:
        """Count where the other copy is not finite and the reference's is, if they fit."""
        if other.shape == truth.shape:
            self.overflowed += fewer_finite(truth, other)

    def _saw_border(self, errors: np.ndarray) -> None:
        outer, inner = at_border(errors, self.pixels)
        self.border_error = max(self.border_error, outer)
        self.inside_error = max(self.inside_error, inner)

    def _saw_moments(self, values: np.ndarray) -> None:
        shape = values.shape[1:]
        if shape not in self.moments:
            self.moments[shape] = Moments(0, np.zeros(shape), np.zeros(shape))
        self.moments[shape].saw(values)

    def saw_own(
        self, truth: np.ndarray, own: np.ndarray, other: np.ndarray, share: float = 0.0
    ) -> Lines:
        """Take in what the models give as they are, beside the float64 truth.

        Where the reference itself is not finite in its own dtype, nothing can be asked of another.

        Args:
            truth: (n, ...), of the reference's float64 copy.
            own: of the reference.
            other: of the other model.
            share: of the value, that `beyond` leaves out.

        Returns:
            The largest error of either, of each line of this batch.
        """
        self.own_dtype = str(own.dtype)
        finite, owns = np.isfinite(truth), distances(own, truth)
        lost = (owns > 0) & ~np.isfinite(own)  # NaN may be what another infinity has become
        self.lost += int(np.sum(finite & lost))
        owns = np.where(lost, 0.0, owns)
        others = np.where(lost, 0.0, distances(other, truth))
        scale = self.lines(np.abs(np.where(finite & ~lost, truth, 0.0)))
        self.output_scale = np.maximum(self.output_scale, scale)
        own_error, other_error = self.lines(owns), self.lines(others)
        self.own_error = np.maximum(self.own_error, own_error)
        self.other_error = np.maximum(self.other_error, other_error)
        if self.errors is not None:
            self.errors.add(others, truth)
            self._saw_border(others)
        rest = others - share * np.abs(np.where(finite, truth, 0.0))
        self.beyond = max(self.beyond, float(np.max(rest, initial=-math.inf)))
        return np.maximum(own_error, other_error)

    def saw_noise(self, truth: np.ndarray, noisy: np.ndarray) -> None:
        """Take in what a float64 copy gives with noise, of the batch that was seen last."""
        self.felt(self._by_kind(_moved(noisy, truth), self.number - len(truth)))

    def saw_own_noise(self, truth: np.ndarray, noisy: np.ndarray) -> None:
        """The same, of the noise of the models' own dtype, where that holds the truth."""
        moved = np.where(holds(self.own_dtype, truth), _moved(noisy, truth), 0.0)
        self.felt_own(self.lines(moved))

    def felt(self, effect: Lines) -> None:
        """Take in how far noise moves each line."""
        self.expected = 0.0
        self.effect = np.maximum(self.effect, effect)

    def felt_own(self, effect: Lines) -> None:
        """The same, of the noise of the models' own dtype."""
        self.own_effect = np.maximum(self.own_effect, effect)

    def moved(self, truth: np.ndarray, noisy: np.ndarray) -> Lines:
        """How far noise moves each line at most."""
        return self.lines(_moved(noisy, truth))

    def merge(self, other: Tally) -> None:
        """Take in what another has seen of the same output."""
        if other.number:
            self.own_dtype, self.whole = other.own_dtype, other.whole
        for names, joined in ((_LINES, np.maximum), (_LARGEST, max), (_COUNTS, operator.add)):
            for name in names:
                setattr(self, name, joined(getattr(self, name), getattr(other, name)))
        if self.errors is not None and other.errors is not None:
            self.errors.merge(other.errors)
        for shape, moments in other.moments.items():
            if shape in self.moments:
                self.moments[shape].merge(moments)
            else:
                self.moments[shape] = moments

    @property
    def spread(self) -> Lines:
        """Standard deviation over inputs, by line; the scale where that is not to be had.

        A line may ignore its input, or be so large that float64 holds no squares of it.
        """
        return _or_scale(self._deviation(self._sums), self.line_scale)

    @property
    def line_scale(self) -> Lines:
        """Largest finite value, by line, of all kinds."""
        return self.scale.max(axis=0) if self.scale.ndim > 1 else self.scale

    @property
    def share(self) -> Lines:
        """The scale of each kind, as a share of that of all kinds, by kind and line."""
        return np.divide(
            self.scale, self.line_scale, out=np.ones_like(self.scale), where=self.line_scale > 0
        )

    @property
    def whole_spread(self) -> float:
        """The same of the output as one."""
        spread = self._deviation(lambda values: np.array([np.sum(values)]))
        return float(_or_scale(spread, np.array([self.whole_scale]))[0])

    @property
    def whole_scale(self) -> float:
        """Largest finite value of the output."""
        return float(np.max(self.scale, initial=0.0))

    def _sums(self, values: np.ndarray) -> Lines:
        """The sum of each line of the elements (...) of one sample."""
        return self._by_line(np.sum, values[None])

    @property
    def varies(self) -> bool:
        """Whether two samples or more of one size were seen, so that there is a spread."""
        return any(m.count > 1 for m in self.moments.values())

    def _deviation(self, sums: Callable[[np.ndarray], Lines]) -> Lines:
        several = [m for m in self.moments.values() if m.count > 1]
        if not several:
            return np.zeros(1)
        with _beyond():
            squares = np.sum([sums(m.squares) for m in several], axis=0)
        numbers = np.sum([sums(np.full(m.mean.shape, m.count)) for m in several], axis=0)
        return np.sqrt(squares / np.maximum(numbers, 1))


def _or_scale(spread: Lines, scale: Lines) -> Lines:
    """The spread where it is some of the scale, and no square that it is made of overflows."""
    return np.where(np.isfinite(spread) & (spread > 1e-12 * scale), spread, scale)


def at_border(errors: np.ndarray, pixels: Sequence[int]) -> tuple[float, float]:
    """The largest error among the outermost pixels of images, and among the others.

    Small images are all border; vectors have no pixels, and neither error.

    Args:
        errors: (n, ...).
        pixels: the axes of an image.
    """
    if not pixels:
        return 0.0, 0.0
    if any(errors.shape[axis] < 3 for axis in pixels):
        return float(np.max(errors, initial=0.0)), 0.0

    def at(axis: int, place: slice) -> float:
        return float(np.max(errors[(slice(None),) * axis + (place,)], initial=0.0))

    inside = [slice(1, -1) if axis in pixels else slice(None) for axis in range(errors.ndim)]
    edges = (slice(0, 1), slice(-1, None))
    outer = max(at(axis, edge) for axis in pixels for edge in edges)
    return outer, float(np.max(errors[tuple(inside)], initial=0.0))


def distances(value: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Differences of two arrays; infinite where one is finite and the other is not, or other.

    Those of whole numbers are 0 of equal ones alone, however large they are.
    """
    if value.dtype.kind in WHOLE and truth.dtype.kind in WHOLE:
        larger, less = np.maximum(value, truth), np.minimum(value, truth)
        return np.where(larger == less, 0.0, np.maximum(larger - less.astype("float64"), 1.0))
    value, truth = np.asarray(value, "float64"), np.asarray(truth, "float64")
    finite = np.isfinite(truth) & np.isfinite(value)
    same = finite | (value == truth) | (np.isnan(value) & np.isnan(truth))
    with np.errstate(over="ignore", invalid="ignore"):
        apart = np.abs(value - truth)
    return np.where(same, np.where(finite, apart, 0.0), math.inf)


def fewer_finite(values: np.ndarray, others: np.ndarray) -> int:
    """How many values are finite that others at their places are not."""
    return int(np.sum(np.isfinite(values) & ~np.isfinite(others)))


def holds(dtype: Any, values: np.ndarray) -> np.ndarray:
    """Where values are no larger than a dtype's largest; NaN is."""
    return ~(np.abs(values) > LARGEST.get(str(dtype), math.inf))


def _moved(noisy: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How far noise moves what is finite."""
    moved = distances(noisy, truth)
    return np.where(np.isfinite(moved), moved, 0.0)

"""What one input of a model is drawn from."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import keras
import numpy as np

from kerasfold.equivalence.asks import Ask, Blank, Numbers, Rows
from kerasfold.equivalence.reached import in_dtype
from kerasfold.read.weights import as_array, as_dtype, largest

FAR = 64.0  # units from 0 from which on a number is none of what it is usually
LOST = 2.0**15  # the same, of which float32 leaves too few digits to tell

Kind: TypeAlias = tuple[float, float]  # scale and shift of what is usually 0 +- 1


class Stream(Protocol):
    """What numbers are drawn by: a generator of NumPy's, or what draws as one does."""

    def normal(self, *, size: Any) -> Any:
        """Normal numbers, 0 +- 1."""
        ...

    def permutation(self, x: Any, /) -> Any:
        """Some values, or those below a number, in another order."""
        ...

    def choice(self, a: Any, size: Any, /) -> Any:
        """So many of some values."""
        ...


@dataclass(frozen=True, eq=False, slots=True)
class Domain:
    """The values that one input is to be compared on.

    Attributes:
        shape: of one sample.
        dtype: of the input.
        usual: centre and unit (n,) of each number, in turn of one sample after another.
        choices: places that are looked up in a table, and the values that have a row in it.
        blank: (n,) what each number is where part of a sample is blank; NaN of one that never is.
    """

    shape: tuple[int, ...]
    dtype: str
    usual: list[tuple[np.ndarray, np.ndarray]]
    choices: list[tuple[np.ndarray, np.ndarray]]
    blank: np.ndarray

    @classmethod
    def of(cls, shape: Sequence[int], dtype: str, asked: Sequence[Ask]) -> Domain:
        """Of an input, given what its readers ask for, at places in it."""
        numbers = [x for x in asked if isinstance(x, Numbers)]
        least = 0.0 if keras.backend.is_float_dtype(dtype) else 1.0
        choices = [
            (places, _possible(values, dtype))
            for places, values in _choices([x for x in asked if isinstance(x, Rows)])
        ]
        usual = _usual(math.prod(shape), numbers, least)
        blank = np.where(_reach_zero(usual), 0.0, np.nan)
        for x in asked:
            if isinstance(x, Blank):
                blank[x.places] = x.values
        return cls(tuple(shape), dtype, usual, choices, blank)

    @property
    def samples(self) -> int:
        """How many it takes until every row of every table that it is looked up in was read."""
        return max((-(-len(v) // len(p)) for p, v in self.choices), default=1)

    @property
    def ranges(self) -> list[int]:
        """How many rows there are for each number of one sample that is looked up."""
        return [len(v) for p, v in self.choices for _ in p]

    @property
    def scales(self) -> bool:
        """Whether some of it is numbers, and not rows of a table."""
        looked_up = sum(len(places) for places, _ in self.choices)
        return looked_up < math.prod(self.shape) and self.dtype != "string"

    def draw(
        self,
        kinds: Sequence[Kind],
        rng: Stream,
        rows: np.ndarray | None = None,
        blank: int = 0,
        loud: bool = False,
    ) -> np.ndarray:
        """Samples, one of each kind, rounded as the model will round them.

        Args:
            kinds: of the samples.
            rng: what they are drawn by.
            rows: (samples, numbers that are looked up), the rows to read, in the order of `ranges`;
                None to read the last and the first of a table first, and each once before one is
                again.
            blank: how many samples are blank: the last throughout, that before, if it is, in part.
            loud: whether numbers that are usually far from 0 are to be 0 so.
        """
        drawn = self._numbers(kinds, rng)
        if loud and self._is_float:
            far = np.broadcast_to(~_reach_zero(self.usual), drawn.shape[1:])
            drawn[-1, far] = 0.0
            drawn[:-1][-1:, far & _blotted(self.shape)] = 0.0
        if blank and self._is_float:
            drawn[-1, np.broadcast_to(_reach_zero(self.usual), drawn.shape[1:])] = 0.0
            blotted = _blotted(self.shape) & ~np.isnan(self.blank)
            drawn[-blank] = np.where(blotted, self.blank, drawn[-blank])
        done = 0
        for places, values in self.choices:
            if values.dtype.kind not in "if":
                drawn = drawn.astype(object)  # words
            if rows is None:
                read = _each_once(values, len(kinds) * len(places), rng)
            else:
                read = values[rows[:, done : done + len(places)]]
            drawn[:, places] = read.reshape(len(kinds), -1)
            done += len(places)
        drawn = drawn.reshape(len(kinds), *self.shape)
        if self._is_float:
            # So that both precisions see one input.
            return as_array(as_dtype(drawn, self.dtype))
        return drawn.astype(str if self.dtype == "string" else self.dtype)

    @property
    def _is_float(self) -> bool:
        return keras.backend.is_float_dtype(self.dtype)

    def _numbers(self, kinds: Sequence[Kind], rng: Stream) -> np.ndarray:
        """(samples, numbers) of them."""
        drawn = np.empty((len(kinds), math.prod(self.shape)))
        turns: dict[Kind, int] = {}  # so that each kind meets all that the numbers are asked to be
        for k, (scale, shift) in enumerate(kinds):
            turns[scale, shift] = turns.get((scale, shift), k - 1) + 1
            centre, unit = self.usual[turns[scale, shift] % len(self.usual)]
            drawn[k] = centre + unit * (scale * rng.normal(size=drawn[k].shape) + shift)
        if self._is_float:
            return np.clip(drawn, -largest(self.dtype), largest(self.dtype))
        if self.dtype == "string":
            return drawn
        if self.dtype.startswith("complex"):
            return drawn + 1j * rng.normal(size=drawn.shape)
        low, high = _limits(self.dtype)
        drawn = np.rint(drawn)
        return np.clip(drawn if low < 0 else np.abs(drawn), low, high)


def _reach_zero(usual: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Which numbers of a sample may be 0, as those of a black pixel, and years may not.

    What a model makes of such would be many times as large as what it makes of others, and so
    would be what it may be off.
    """
    from_zero = (np.abs(centre) / unit for centre, unit in usual)
    return functools.reduce(np.logical_and, ((n <= FAR) | (n >= LOST) for n in from_zero))


def _blotted(shape: tuple[int, ...]) -> np.ndarray:
    """Which numbers of a sample are blank: the last quarter of its pixels or time steps, and more.

    Those that are all of a vector count one by one.
    """
    count = math.prod(shape[:-1]) if len(shape) > 1 else math.prod(shape)
    at = np.arange(count)
    return np.repeat((at >= count - count // 4) | (at % 5 == 1), math.prod(shape) // max(count, 1))


def domains(
    specs: Sequence[Any], shapes: Sequence[Sequence[int]], asked: Sequence[Ask]
) -> list[Domain]:
    """The domain of each input.

    Args:
        specs: the inputs.
        shapes: of one sample of each.
        asked: of all of them, at places among all their numbers.
    """
    start, found = 0, []
    for spec, shape in zip(specs, shapes, strict=True):
        stop = start + math.prod(shape)
        within = [x for ask in asked if (x := ask.within(start, stop)) is not None]
        found.append(Domain.of(shape, spec.dtype, within))
        start = stop
    return found


def _possible(values: np.ndarray, dtype: str) -> np.ndarray:
    """Those of some values that a dtype has; of numbers, digits where it is words."""
    if dtype == "string" and values.dtype.kind in "if":
        return in_dtype(values, dtype)
    if keras.backend.is_float_dtype(dtype) or values.dtype.kind not in "if":
        return values
    low, high = _limits(dtype)
    return values[(values == np.rint(values)) & (values >= low) & (values <= high)]


def _each_once(values: np.ndarray, count: int, rng: Stream) -> np.ndarray:
    """So many of some values: the last, the first, the others, and then any."""
    once = (values[-1:], values[:-1][:1], rng.permutation(values[1:-1]))
    again = rng.choice(values, max(count - len(values), 0))
    return np.concatenate([*once, again])[:count]


def _limits(dtype: str) -> tuple[int, int]:
    """The least and the largest number of a dtype of integers."""
    if dtype == "bool":
        return 0, 1
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def _usual(
    size: int, asked: Sequence[Numbers], least: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Centre and unit of each number: once for all readers, each of which is once the last.

    What nobody asks for, such as a border that is cut off, is as the rest.
    """
    if not asked:
        return [(np.zeros(size), np.ones(size))]
    variants: list[tuple[np.ndarray, np.ndarray]] = []
    for k in range(len(asked)):
        centre, unit = (
            np.full(size, np.mean(np.concatenate(v)))
            for v in ([x.centre for x in asked], [x.unit for x in asked])
        )
        for x in (*asked[k + 1 :], *asked[: k + 1]):
            centre[x.places], unit[x.places] = x.centre, np.maximum(x.unit, least)
        if not any(np.array_equal(c, centre) and np.array_equal(u, unit) for c, u in variants):
            variants.append((centre, unit))
    return variants


def _choices(asked: Sequence[Rows]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Places that are looked up in the same tables, and the values that all of those have."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for rows in asked:
        rest, split = np.unique(rows.places), []
        for places, values in found:
            both = np.isin(places, rest)
            split += [(places[both], _common(values, rows.values)), (places[~both], values)]
            rest = np.setdiff1d(rest, places)
        found = [(p, v) for p, v in (*split, (rest, rows.values)) if len(p)]
    return found


def _common(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The values in both; those of the first where there are none."""
    common = np.intersect1d(a, b)
    return common if len(common) else a

"""What the numbers of inputs are asked to be, by what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeAlias

import numpy as np


@dataclass(frozen=True, eq=False, slots=True)
class _AtPlaces:
    """What some numbers of the inputs are asked to be.

    Attributes:
        places: (n,) elements of the inputs, as places among all their numbers.
    """

    places: np.ndarray

    def within(self, start: int, stop: int) -> Self | None:
        """What it asks for between two places, counted from the first; None of nothing."""
        inside = (self.places >= start) & (self.places < stop)
        return self._of(self.places[inside] - start, inside) if inside.any() else None

    def _of(self, places: np.ndarray, chosen: np.ndarray) -> Self:
        """The same at other places, of which there is one for each of its own that is chosen."""
        return replace(self, places=places)


@dataclass(frozen=True, eq=False, slots=True)
class Rows(_AtPlaces):
    """What looks its input up in a table asks for.

    Attributes:
        values: (rows,) what has a row of its own in the table, in the input's terms.
        guessed: whether that there is a table is not known.
    """

    values: np.ndarray
    guessed: bool = False

    def without(self, others: Sequence[Ask]) -> Rows:
        """What it asks for at places that others ask for nothing at."""
        taken = [x.places for x in others]
        return replace(self, places=np.setdiff1d(self.places, np.concatenate([[], *taken])))


@dataclass(frozen=True, eq=False, slots=True)
class Numbers(_AtPlaces):
    """What computes with its input asks for: what it is usually given is 0 +- 1.

    Attributes:
        centre: (n,) what of an input becomes 0.
        unit: (n,) what of a change of an input becomes one of 1; positive.
    """

    centre: np.ndarray
    unit: np.ndarray

    @property
    def is_told(self) -> bool:
        """Whether what reads it says of which size it is: all else would ask for 0 +- 1."""
        return bool(np.any(self.centre != 0) or np.any(self.unit != 1))

    def _of(self, places: np.ndarray, chosen: np.ndarray) -> Numbers:
        return Numbers(places, self.centre[chosen], self.unit[chosen])


@dataclass(frozen=True, eq=False, slots=True)
class Blank(_AtPlaces):
    """What tells some of its input from all else asks for: a Masking, time steps of one value.

    Attributes:
        values: (n,) what each is, where it is blank.
    """

    values: np.ndarray

    def _of(self, places: np.ndarray, chosen: np.ndarray) -> Blank:
        return Blank(places, self.values[chosen])


Ask: TypeAlias = Rows | Numbers | Blank
Asked: TypeAlias = list[Ask]

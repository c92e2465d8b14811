"""What is kept of two models that run on batches, and what two that ran elsewhere have kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kerasfold.equivalence.runs import Ran
from kerasfold.equivalence.steps import Step
from kerasfold.equivalence.tally import Lines, Tally
from kerasfold.equivalence.units import Units


@dataclass(frozen=True, eq=False, slots=True)
class Shown:
    """A batch that shows an error best.

    Attributes:
        error: of each line.
        batch: as the reference takes it.
    """

    error: Lines = field(default_factory=lambda: np.zeros(1))
    batch: Any = None


@dataclass(eq=False, slots=True)
class Within:
    """A step of both models that makes few values of many.

    Attributes:
        step: of the reference.
        mine: its number there.
        theirs: that of the other's.
        tally: of what goes into it.
        other: what the other's is, where it does the same with other constants; or "".
        agrees: whether both gave the same answers; if not, they are not the same step.
        fits: whether as many numbers go into both: one may be without channels that are constant.
    """

    step: Step
    mine: int
    theirs: int
    tally: Tally
    other: str = ""
    agrees: bool = True
    fits: bool = True

    def saw(self, truth: Ran, other: Ran) -> Lines:
        """Take in what the copies gave; the largest difference of each line of what goes in."""
        (x, answer), (y, theirs) = truth.stepped[self.mine], other.stepped[self.theirs]
        self.agrees = self.agrees and np.array_equal(answer, theirs, equal_nan=True)
        self.fits = self.fits and x.shape == y.shape
        return self.tally.saw_copies(x, y if x.shape == y.shape else None)

    def merge(self, other: Within) -> None:
        """Take in what another has seen of the same step."""
        self.tally.merge(other.tally)
        self.agrees = self.agrees and other.agrees
        self.fits = self.fits and other.fits


@dataclass(eq=False, slots=True)
class Seen:
    """What a verdict needs of a comparison that has run, wherever it ran.

    Attributes:
        tallies: by output.
        within: by step that both have.
        shows: by output, the batch that shows a difference in float64 best.
        shows_own: the same of either's error in its own dtype.
        reached: what units of the reference gave, if that is known.
        unit: of rounding, of the copies.
        other_shape: which output has another shape, or "".
    """

    tallies: list[Tally]
    within: list[Within]
    shows: list[Shown]
    shows_own: list[Shown]
    reached: Units | None
    unit: float
    other_shape: str

    def merge(self, other: Seen) -> None:
        """Take in what another has seen of the same models."""
        for mine, theirs in zip(self.tallies, other.tallies, strict=True):
            mine.merge(theirs)
        for inner, outer in zip(self.within, other.within, strict=True):
            inner.merge(outer)
        for i, tally in enumerate(self.tallies):
            self.shows[i] = _of_both(self.shows[i], other.shows[i], tally.line_scale)
            self.shows_own[i] = _of_both(self.shows_own[i], other.shows_own[i], tally.output_scale)
        if self.reached is not None and other.reached is not None:
            self.reached.merge(other.reached)
        self.unit = max(self.unit, other.unit)
        self.other_shape = self.other_shape or other.other_shape


def larger(shown: Shown, error: Lines, scale: Lines, batch: Any) -> Shown:
    """The batch with the larger error in the line where either has the worst, for its scale."""
    if not error.size:
        return shown
    before = np.broadcast_to(shown.error, error.shape)
    with np.errstate(over="ignore"):
        worst = int(np.argmax(np.maximum(error, before) / np.where(scale > 0, scale, 1.0)))
    return Shown(error, batch) if error[worst] > before[worst] else shown


def _of_both(shown: Shown, other: Shown, scale: Lines) -> Shown:
    """The same of two that were kept."""
    return shown if other.batch is None else larger(shown, other.error, scale, other.batch)

"""What was tried by measuring, and what came of it: plain values, for reports."""

from __future__ import annotations

from dataclasses import dataclass

from kerasfold.measure.timing import Ratio


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to compute a part of a model.

    Attributes:
        what: the layers that it is.
        is_original: whether that is how the part was computed before.
        taken: whether it was taken.
        milliseconds: what a call took, in the median; None where it was not timed.
        gain: how many times as fast as before it is, over deployments; None of what was not among
            the last to be timed, and of what there was before.
        note: why it was not timed, or "".
    """

    what: str
    is_original: bool = False
    taken: bool = False
    milliseconds: float | None = None
    gain: Ratio | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Tried:
    """The ways to compute a part of a model that there were to choose from.

    Attributes:
        runtime: where they were timed.
        layers: names of the calls of the part; none stand for the whole model.
        attempts: the ways; none where no time was left for them, and the part is planned for
            'latency'.
    """

    runtime: str
    layers: tuple[str, ...]
    attempts: tuple[Attempt, ...]

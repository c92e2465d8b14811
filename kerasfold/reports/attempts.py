"""What measuring tried, for all views: parts that fared alike as one, and each way in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kerasfold.measure.tried import Attempt, Tried


class Part(NamedTuple):
    """Parts of a model with the same ways to compute them, timed once.

    Attributes:
        names: of the layers of the first of them, or what it is.
        alike: how many more there are.
        attempts: the ways, that which was taken first, then by what they took.
    """

    names: tuple[str, ...]
    alike: int
    attempts: tuple[Attempt, ...]


def title(tried: Iterable[Tried]) -> str:
    """What the parts are."""
    return f"tried on {', '.join(dict.fromkeys(one.runtime for one in tried))}, in ms a call"


def parts(tried: Iterable[Tried]) -> list[Part]:
    """Parts by what was tried of them, the whole model first."""
    groups: dict[tuple[Attempt, ...], list[Tried]] = {}
    for one in sorted(tried, key=lambda one: bool(one.layers)):
        groups.setdefault(one.attempts, []).append(one)
    return [
        Part(ones[0].layers or ("the whole model",), len(ones) - 1, _sorted(attempts))
        for attempts, ones in groups.items()
    ]


def _sorted(attempts: Iterable[Attempt]) -> tuple[Attempt, ...]:
    def place(attempt: Attempt) -> tuple[bool, float]:
        took = attempt.milliseconds
        return not attempt.taken, float("inf") if took is None else took

    return tuple(sorted(attempts, key=place))


def milliseconds(attempt: Attempt) -> str:
    """What a call took."""
    return "not timed" if attempt.milliseconds is None else f"{attempt.milliseconds:.3f}"


def words(attempt: Attempt) -> str:
    """What it is, and how it fared."""
    what = f"as it was: {attempt.what}" if attempt.is_original else attempt.what
    gain = attempt.gain
    fared = (
        "" if gain is None else f"{gain.median:.2f} times as fast{_interval(gain.low, gain.high)}"
    )
    return "; ".join(filter(None, (what, fared, attempt.note)))


def _interval(low: float, high: float) -> str:
    return f" ({low:.2f} to {high:.2f})" if high < float("inf") else ""

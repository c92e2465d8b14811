"""A graph before and after a fold: plain values, which need neither Keras nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """An input of a model, a call of it, or what calls became.

    Attributes:
        name: its name.
        kind: its class; of what calls became, the operator in words.
        reads: positions of the steps that it reads, on its own side of the fold.
        calls: of a step after the fold, positions of the calls that became it.
    """

    name: str
    kind: str
    reads: tuple[int, ...] = ()
    calls: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Flow:
    """A graph before and after a fold, both in topological order.

    Attributes:
        before: the inputs and calls of the original.
        after: the inputs, and what the calls became; of those that are removed, nothing.
    """

    before: tuple[Step, ...]
    after: tuple[Step, ...]

    @property
    def removed(self) -> frozenset[int]:
        """Positions of the calls that became nothing."""
        return frozenset(range(len(self.before))).difference(*(step.calls for step in self.after))

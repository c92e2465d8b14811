"""What a fold did, as plain values: text, JSON, pages and pictures are views of these."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasfold.equivalence.report import EquivalenceReport
from kerasfold.measure.tried import Tried
from kerasfold.plots.steps import Flow
from kerasfold.reasons import code_of

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True, slots=True)
class Merged:
    """Calls that became one step.

    Attributes:
        into: name of the emitted layer.
        kind: the layers that it is, and of the last its kernel, stride and so on.
        layers: names of the calls merged into it.
        kinds: their classes.
        grown: what it has more of than they had, and for what gain; or how far it is from a kernel
            that it is as stored; or "".
    """

    into: str
    kind: str
    layers: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    grown: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """A call that stays as it is, and why.

    Attributes:
        layer: its name.
        reason: in words.
        kind: its class.
        code: of the reason; `kerasfold why CODE` explains it.
    """

    layer: str
    reason: str
    kind: str = ""
    code: str = ""

    @classmethod
    def because(cls, layer: str, reason: str, kind: str) -> Kept:
        """With the code of the reason."""
        return cls(layer, reason, kind, code_of(reason))


@dataclass(frozen=True, slots=True)
class Channels:
    """Channels of one call that are not computed any more, and those that could have gone.

    Attributes:
        layer: its name.
        count: how many it had.
        unread: of those, the ones that nobody reads, and that are gone.
        constant: others that are gone: they are the same for all inputs, and what reads them has
            that in its bias.
        staying: constant ones that are still computed.
        reason: why those stay, or "".
    """

    layer: str
    count: int
    unread: int
    constant: int
    staying: int = 0
    reason: str = ""

    @property
    def gone(self) -> int:
        """How many are not computed any more."""
        return self.unread + self.constant


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a model takes on a runtime before and after a fold, in milliseconds."""

    runtime: str
    before: float
    after: float

    @property
    def gain(self) -> float:
        """How many times as fast it is after; infinitely, where nothing is left."""
        return self.before / self.after if self.after else math.inf if self.before else 1.0


@dataclass(frozen=True, slots=True)
class Files:
    """Where a fold was read from and written to.

    Attributes:
        read: path of the original.
        written: path of the fold.
        bytes_before: size of the original.
        bytes_after: size of the fold.
        sha256: of the original, in hexadecimal.
        training: bytes of the original that are its optimizer's state, which a fold has not.
    """

    read: str
    written: str
    bytes_before: int
    bytes_after: int
    sha256: str
    training: int = 0


# What reports of parts are joined by, and what is saved of what they count.
_LISTS = (
    *(
        "merged",
        "removed",
        "kept",
        "apart",
        "random",
        "opened",
        "repeated",
        "narrowed",
        "channels",
        "uncounted",
    ),
    *("flows", "models", "tried"),
)
COUNTS = ("macs", "params", "layers")


@dataclass(frozen=True, slots=True)
class Record:
    """The values of a `kerasfold.FoldReport`, which says what each is."""

    model: str
    objective: str
    merged: tuple[Merged, ...]
    removed: tuple[str, ...]
    random: tuple[str, ...]
    kept: tuple[Kept, ...]
    apart: tuple[Kept, ...]
    macs_before: int
    macs_after: int
    params_before: int
    params_after: int
    layers_before: int
    layers_after: int
    equivalence: EquivalenceReport | None = None
    opened: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    note: str = ""
    flows: tuple[Flow, ...] = field(default=(), repr=False, compare=False)
    models: tuple[Any, ...] = field(default=(), repr=False, compare=False)
    keras_layers_before: int = 0
    keras_layers_after: int | None = None
    predicted: tuple[Pace, ...] = ()
    measured: Pace | None = None
    tried: tuple[Tried, ...] = ()
    is_linear: bool = False
    narrowed: tuple[str, ...] = ()
    channels: tuple[Channels, ...] = ()
    uncounted: tuple[str, ...] = ()
    files: Files | None = None
    original: str = ""
    version: str = ""
    batch_size: int = 1
    constants: int = 0
    folded: str = ""

    @property
    def aim(self) -> str:
        """The objective, and the batch where it is not one image."""
        return self.objective + ("" if self.batch_size == 1 else f" at batch {self.batch_size}")

    def verified(self, equivalence: EquivalenceReport) -> Self:
        """The same report with the result of verification."""
        return replace(self, equivalence=equivalence)

    def stored(self, read: str | Path, written: str | Path, training: int) -> Self:
        """The same report with the files that it was read from and written to: see `Files`."""
        before, after = (Path(name).stat().st_size for name in (read, written))
        with Path(read).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return replace(self, files=Files(str(read), str(written), before, after, sha256, training))

    def with_parts(self, kind: str, parts: Mapping[str, Self]) -> Self:
        """The report of a model of which only some parts were folded.

        Args:
            kind: the model's class.
            parts: the reports of those, by the argument of the model's class that each is.
        """
        reports = parts.values()
        changed: dict[str, Any] = {
            name: tuple(itertools.chain.from_iterable(getattr(r, name) for r in reports))
            for name in _LISTS
        }
        for name in COUNTS:
            saved = (getattr(r, f"{name}_before") - getattr(r, f"{name}_after") for r in reports)
            changed[f"{name}_after"] = getattr(self, f"{name}_before") - sum(saved)
        changed["constants"] = sum(r.constants for r in reports)
        changed["predicted"] = tuple(
            replace(whole, after=whole.before - sum(p.before - p.after for p in own))
            for whole, own in zip(
                self.predicted, zip(*(r.predicted for r in reports), strict=True), strict=True
            )
        )
        note = (
            f"it is still a {kind}, of which only {' and '.join(map(repr, parts))} is folded: "
            "keras.Model(model.inputs, model.outputs) can be folded whole"
        )
        return replace(self, **changed, note=note)

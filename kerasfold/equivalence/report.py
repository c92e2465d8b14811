"""What a comparison found: errors, the bounds on them, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from html import escape
from typing import Any, Literal, TypeAlias

from kerasfold.equivalence.agreement import AgreementReport
from kerasfold.equivalence.tolerance import Percentiles, Tolerance
from kerasfold.legible import legible

Verdict: TypeAlias = Literal["equivalent", "different", "inconclusive"]


@dataclass(frozen=True, slots=True)
class OutputReport:
    """Agreement of one output.

    Errors are judged line by line (one channel, one class, one row: all that has one index along
    one axis); `error` and `bound` are those of the line that comes closest to its bound, and so
    are `original_error`, `folded_error` and `accuracy_bound`.

    Attributes:
        name: of the output.
        max_abs_error: largest difference in float64; of what goes into the output's `ending`, if
            it has one. Of a second model that has no float64 copy, being
            deployed or held against a tolerance: its own error, against float64.
        max_border_error: the same among the outermost pixels of an image; 0 of a vector.
        max_inside_error: the same among its other pixels.
        spread: standard deviation of the output over inputs.
        scale: largest absolute value of the output.
        error: largest difference of the line that comes closest to its bound.
        bound: what that may be.
        line: of which axis and index that line is, the batch being axis 0; None where the output
            has one line.
        original_error: the first model's own error in its own dtype, against float64.
        folded_error: the second model's; what it is beyond the relative part of a tolerance.
        accuracy_bound: what `folded_error` may be.
        accuracy_line: as `line`, of these.
        absolute: of a second model that has no float64 copy, percentiles of its errors; else None.
        relative: the same as shares of the truth.
        tolerance: what the user allowed, in place of measured bounds, or None.
        untold: share of lines whose rounding noise reaches their spread, so that an error would
            not show.
        doubt: why nothing can be told of this output, or "".
        ending: the 'softmax' or 'sigmoid' that the output ends in alike in both models: what goes
            into it is then what `spread`, `scale`, `bound` and all errors in float64 are of. Those
            in the models' own dtypes are of the output. "" where all are of the output.
        agreement: for given data and an output that looks like class scores, how often both models
            name the same class; else None.
    """

    name: str
    max_abs_error: float
    max_border_error: float
    max_inside_error: float
    spread: float
    scale: float
    error: float
    bound: float
    line: tuple[int, int] | None = None
    original_error: float = 0.0
    folded_error: float = 0.0
    accuracy_bound: float = math.inf
    accuracy_line: tuple[int, int] | None = None
    absolute: Percentiles | None = None
    relative: Percentiles | None = None
    tolerance: Tolerance | None = None
    untold: float = 0.0
    doubt: str = ""
    ending: str = ""
    agreement: AgreementReport | None = None

    @property
    def what(self) -> str:
        """What is compared in float64, in words."""
        before = f"what goes into the {self.ending} of " if self.ending else ""
        return f"{before}output '{self.name}'"

    @property
    def tells_border(self) -> bool:
        """Whether there are errors, and those of an image, which has a border."""
        return max(self.max_border_error, self.max_inside_error) > 0

    @property
    def same_function(self) -> bool:
        """Whether the first question is answered with yes."""
        return self.error <= self.bound and self.untold < 1.0

    @property
    def verdict(self) -> Verdict:
        """Of both questions."""
        pairs = ((self.error, self.bound), (self.folded_error, self.accuracy_bound))
        if not all(error <= bound or math.isnan(bound) for error, bound in pairs):
            return "different"
        return "inconclusive" if self._doubted else "equivalent"

    @property
    def _doubted(self) -> str:
        """Why nothing can be told, or ""; nothing is less than NaN, or more."""
        unbounded = math.isnan(self.bound) or math.isnan(self.accuracy_bound)
        return self.doubt or (f"no bound can be told of {self.what}" if unbounded else "")

    @property
    def equivalent(self) -> bool:
        """Whether both questions are answered with yes."""
        return self.verdict == "equivalent"

    @property
    def reason(self) -> str:
        """What failed, or why nothing can be told, or ""."""
        if self.verdict != "different":
            return self._doubted
        if not self.error <= self.bound and not math.isnan(self.bound):
            return (
                f"{self.what} differs {line_words(self.line)}by {self.error:.3g}, more "
                f"than {self.bound:.3g}"
            )
        if self.tolerance is not None:
            return (
                f"output '{self.name}' has errors beyond {self.tolerance}: the largest is "
                f"{self.max_abs_error:.3g}"
            )
        return (
            f"output '{self.name}' is less accurate: {line_words(self.accuracy_line)}error "
            f"{self.folded_error:.3g} against {self.original_error:.3g} before, more than "
            f"{self.accuracy_bound:.3g}"
        )


@dataclass(frozen=True, slots=True)
class Parting:
    """Where two models part.

    Attributes:
        layer: of the reference, the first whose output differs; "" where none does on its own.
        size: the largest difference of its output.
        place: the index of that: (sample, ...) in the layer's own layout.
        border: the largest difference among the outermost pixels; 0 of a vector.
        inside: the largest among the others.
    """

    layer: str
    size: float = 0.0
    place: tuple[int, ...] = ()
    border: float = 0.0
    inside: float = 0.0

    def __str__(self) -> str:
        if not self.layer:
            return "no tensor between input and output differs on its own"
        is_image = max(self.border, self.inside) > 0
        where = f" (at the border {self.border:.3g}, inside {self.inside:.3g})" if is_image else ""
        return (
            f"the first tensor that differs is that of layer '{self.layer}', by {self.size:.3g} at "
            f"{self.place}{where}"
        )


@dataclass(frozen=True, slots=True)
class EquivalenceReport:
    """What `verify` found.

    Attributes:
        verdict: 'equivalent': the models compute the same, as accurately. 'different': they do
            not. 'inconclusive': nothing was shown, for the reason given.
        max_abs_error: largest difference of any output, in `dtype`.
        max_rel_error: largest difference relative to the output's spread over inputs.
        dtype: precision of the comparison.
        device: where the models ran.
        inputs: number of inputs compared.
        outputs: one record per output.
        unreached: the share of units of the reference that gave one value on all inputs, among
            those of activations with a flat part, such as ReLUs: nothing is known of what only
            they would show.
        reason: what failed, or why nothing can be told, or "".
        note: what is to be known of a comparison that did not fail, or "".
        signature: in what the second model would break callers of the first, unless that may be.
        shapes: of drawn inputs whose sizes are free: those that were compared, without the batch.
        where: where the models part, if they differ and that is known.
        shown: the inputs that show it, by the names of the model's inputs; not in `to_dict()`.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="scores")])
        >>> report = kerasfold.verify(model, model)
        >>> report.equivalent, report.max_abs_error
        (True, 0.0)
    """

    verdict: Verdict
    max_abs_error: float
    max_rel_error: float
    dtype: str
    device: str
    inputs: int
    outputs: tuple[OutputReport, ...]
    unreached: float = 0.0
    reason: str = ""
    note: str = ""
    signature: tuple[str, ...] = ()
    shapes: tuple[tuple[tuple[int, ...], ...], ...] = ()
    where: Parting | None = None
    shown: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def equivalent(self) -> bool:
        """Whether the models compute the same, as accurately, and that was shown."""
        return self.verdict == "equivalent"

    def noted(self, *notes: str) -> EquivalenceReport:
        """The same, with more that is to be known; "" is nothing."""
        return replace(self, note="; ".join(filter(None, dict.fromkeys((self.note, *notes)))))

    @property
    def same_function(self) -> bool:
        """Whether the models compute the same, whatever is known of their accuracy."""
        return self.verdict != "different" and all(out.same_function for out in self.outputs)

    @property
    def agreement(self) -> AgreementReport | None:
        """That of the outputs for which it is least; None without data, or scores of classes."""
        found = (out.agreement for out in self.outputs if out.agreement is not None)
        return min(found, key=lambda one: one.top1, default=None)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        values = asdict(self)
        del values["shown"]
        return {"equivalent": self.equivalent, **values}

    def __str__(self) -> str:
        tolerance = next((out.tolerance for out in self.outputs), None)
        within = "" if tolerance is None else f" within {tolerance}"
        verdict = {
            "equivalent": f"equivalent{within}",
            "different": f"NOT equivalent: {self.reason}",
            "inconclusive": f"inconclusive: {self.reason}",
        }[self.verdict]
        lines = [
            f"{verdict} ({self.inputs} inputs, {self.dtype}, {self.device}; largest difference "
            f"{self.max_abs_error:.2g}, {self.max_rel_error:.2g} of the spread)"
        ]
        lines += [f"  {line}" for out in self.outputs for line in _words(out)]
        if self.where is not None:
            lines.append(f"  {self.where}")
        if self.shapes:
            sizes = (" and ".join(map(str, each)) for each in self.shapes)
            lines.append(f"  sizes are free: compared at {', '.join(sizes)}")
        if self.unreached:
            share = f"{100 * self.unreached:.2g} %"
            lines.append(f"  no input reached {share} of the units of ReLUs and their like")
        if self.note:
            lines.append(f"  {self.note}")
        lines += [f"  {out.agreement}" for out in self.outputs if out.agreement is not None]
        return "\n".join(map(legible, lines))

    def _repr_html_(self) -> str:
        """The same in a notebook."""
        return f"<pre>{escape(str(self))}</pre>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """The same in IPython, where there is text alone."""
        printer.text(str(self))


def _words(out: OutputReport) -> list[str]:
    at_border = f" (at the border {out.max_border_error:.2g})" if out.tells_border else ""
    largest = f"{out.max_abs_error:.2g}{at_border}"
    own = (
        f"error against float64 {out.original_error:.2g} -> {out.folded_error:.2g}, "
        f"{line_words(out.accuracy_line)}at most {out.accuracy_bound:.2g}"
    )
    if out.absolute is not None:
        return [
            f"{out.name}: error {largest}; {own}",
            f"  absolute {out.absolute}",
            f"  relative {out.relative}",
        ]
    within = f" in what goes into its {out.ending}" if out.ending else ""
    return [
        f"{out.name}: difference {largest}{within}, closest to its bound {line_words(out.line)}"
        f"with {out.error:.2g} of {out.bound:.2g}; {own}"
    ]


def line_words(line: tuple[int, int] | None) -> str:
    """In words, where a line is."""
    return "" if line is None else f"at index {line[1]} of axis {line[0]} "

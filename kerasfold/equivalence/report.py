"""What a comparison found: errors, the bounds on them, and a verdict."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class OutputReport:
    """Agreement of one output.

    Attributes:
        name: of the output.
        max_abs_error: largest difference in float64.
        max_border_error: the same among the outermost pixels of an image.
        spread: standard deviation of the output over inputs.
        scale: largest absolute value of the output.
        bound: what `max_abs_error` may be.
        original_error: the first model's own error in its own dtype, against float64.
        folded_error: the second model's.
        accuracy_bound: what `folded_error` may be.
    """

    name: str
    max_abs_error: float
    max_border_error: float
    spread: float
    scale: float
    bound: float
    original_error: float = 0.0
    folded_error: float = 0.0
    accuracy_bound: float = math.inf

    @property
    def equivalent(self) -> bool:
        """Whether both questions are answered with yes."""
        return self.max_abs_error <= self.bound and self.folded_error <= self.accuracy_bound


@dataclass(frozen=True, slots=True)
class EquivalenceReport:
    """What `verify` found.

    Attributes:
        equivalent: whether the models compute the same, as accurately.
        max_abs_error: largest difference of any output, in `dtype`.
        max_rel_error: largest difference relative to the output's spread over inputs.
        dtype: precision of the comparison.
        device: where the models ran.
        inputs: number of inputs compared.
        outputs: one record per output.
        agreement: for given data and outputs that look like class scores, the share of
            inputs with the same top class; else None.
        reason: what failed, or "".
        note: what is to be known of a comparison that did not fail, or "".
    """

    equivalent: bool
    max_abs_error: float
    max_rel_error: float
    dtype: str
    device: str
    inputs: int
    outputs: tuple[OutputReport, ...]
    agreement: float | None = None
    reason: str = ""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        verdict = "equivalent" if self.equivalent else f"NOT equivalent: {self.reason}"
        lines = [
            f"{verdict} ({self.inputs} inputs, {self.dtype}, {self.device}; largest difference "
            f"{self.max_abs_error:.2g}, {self.max_rel_error:.2g} of the spread)"
        ]
        for out in self.outputs:
            lines.append(
                f"  {out.name}: difference {out.max_abs_error:.2g} (at the border "
                f"{out.max_border_error:.2g}), bound {out.bound:.2g}; own error "
                f"{out.original_error:.2g} -> {out.folded_error:.2g}, "
                f"bound {out.accuracy_bound:.2g}"
            )
        if self.note:
            lines.append(f"  {self.note}")
        if self.agreement is not None:
            lines.append(f"  top class agrees on {100 * self.agreement:.2f} % of the data")
        return "\n".join(lines)

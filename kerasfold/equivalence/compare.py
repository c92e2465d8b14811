"""Old model against new: the same function, and as accurate as before.

Two questions, because float32 noise and a wrong fold must not be confusable:

1. *Same function?* Both models in float64, on random inputs. A fold still holds its
   unrounded weights, so both sides agree to 1e-10 of the output scale or the fold is wrong.
   Two stored models have been rounded; there the bound is a small multiple of the change
   that rounding noise of half a unit in the last place makes, measured on those models.
2. *As accurate?* Both models as they are, each against the float64 truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import tree

from kerasfold.backend import device
from kerasfold.equivalence.bounds import (
    ARITHMETIC,
    FLOAT_EPS,
    border_error,
    computed_eps,
    eps_of,
    largest_error,
    noise_effect,
    rounds_to_single,
    single_unit,
    spread_of,
    tells,
)
from kerasfold.equivalence.culprit import miscomputed
from kerasfold.equivalence.report import EquivalenceReport, OutputReport
from kerasfold.equivalence.runs import Ran, ran
from kerasfold.read.model import computed_dtypes, layout_of, output_names, sublayers

LOSS = 8.0  # times the original's own error in its own dtype
REBUILT = 16.0  # times rounding effects that a model may be off its rebuilt float64 copy


@dataclass(frozen=True, eq=False, slots=True)
class Runs:
    """Two models and their float64 copies, all of them run on the same inputs.

    Attributes:
        a: the reference.
        b: the other model.
        a64: `a` in float64.
        b64: `b` in float64.
    """

    a: Ran
    b: Ran
    a64: Ran
    b64: Ran


Bound = Callable[[Runs, str, float], list[float]]


def compare(
    a: keras.Model,
    b: keras.Model,
    a64: keras.Model,
    b64: keras.Model,
    batches: list[Any],
    bound: Bound,
) -> tuple[EquivalenceReport, Runs]:
    """Both questions of two models and their float64 copies.

    Args:
        a: the reference.
        b: the other model.
        a64: `a` in float64.
        b64: `b` in float64.
        batches: the inputs.
        bound: largest difference allowed of each output, given what ran, the dtype of the
            comparison, and the rounding unit of operations that have no float64 (0.0 where
            there are none).

    Raises:
        FoldError: a model that does not run here.
    """
    a64_ran, b64_ran, a_ran, b_ran = (ran(model, batches) for model in (a64, b64, a, b))
    runs = Runs(a_ran, b_ran, a64_ran, b64_ran)
    dtype = _coarsest(runs)
    report = _judge(runs, dtype, bound(runs, dtype, 0.0))
    if report.equivalent or report.dtype != "float64":
        return report, runs
    if not any(map(rounds_to_single, (runs.a64, runs.b64))):
        return report, runs
    unit = single_unit([a64, b64])
    report = _judge(runs, dtype, bound(runs, dtype, unit), unit)
    return replace(report, dtype="float64, with operations that round to float32"), runs


def _judge(runs: Runs, dtype: str, bounds: list[float], unit: float = 0.0) -> EquivalenceReport:
    outputs = []
    names, layout = output_names(runs.a.model), layout_of(sublayers(runs.a.model))
    columns = (one.outputs for one in (runs.a64, runs.b64, runs.a, runs.b))
    for name, truth, other, x, y, limit in zip(names, *columns, bounds, strict=True):
        scale = float(np.max(np.abs(truth), initial=0.0, where=np.isfinite(truth)))
        own = largest_error(x, truth)
        rounding = max(eps_of(str(x.dtype)), eps_of(dtype), unit)
        outputs.append(
            OutputReport(
                name=name,
                max_abs_error=largest_error(other, truth),
                max_border_error=border_error(other, truth, layout),
                spread=spread_of(truth),
                scale=scale,
                bound=limit + ARITHMETIC * eps_of(dtype) * scale,
                original_error=own,
                folded_error=largest_error(y, truth),
                accuracy_bound=LOSS * own + ARITHMETIC * rounding * scale,
            )
        )
    worst = max(outputs, key=lambda r: r.max_abs_error / (r.spread or r.scale or 1.0))
    wrong = _other_shape(names, runs) or _blind(names, runs)
    doubt, note = ("", "") if wrong else _unlike_its_copy(runs, outputs)
    reason = wrong or doubt or _first_failure(outputs)
    return EquivalenceReport(
        not reason,
        max(r.max_abs_error for r in outputs),
        worst.max_abs_error / (worst.spread or worst.scale or 1.0),
        dtype,
        device(),
        sum(len(tree.flatten(batch)[0]) for batch in runs.a.batches),
        tuple(outputs),
        reason=reason,
        note=note,
    )


def _other_shape(names: Sequence[str], runs: Runs) -> str:
    """Which output has another shape, or ""."""
    for name, x, y in reversed(list(zip(names, runs.a.outputs, runs.b.outputs, strict=True))):
        if x.shape[1:] != y.shape[1:]:
            return f"output '{name}' has shape {x.shape[1:]} in one, {y.shape[1:]} in the other"
    return ""


def _blind(names: Sequence[str], runs: Runs) -> str:
    """Which output says nothing, or ""."""
    blind = [n for n, t in zip(names, runs.a64.outputs, strict=True) if not tells(t)]
    return f"output '{blind[0]}' is nowhere finite, so nothing can be told of it" if blind else ""


def _coarsest(runs: Runs) -> str:
    """The float dtype that rounds most, among what the copies compute in and what they give."""
    computed = computed_dtypes(runs.a64.model) | computed_dtypes(runs.b64.model)
    floats = computed | {str(t.dtype) for t in runs.a64.outputs}
    floats = {dtype for dtype in floats if dtype in FLOAT_EPS}
    return max(floats, key=eps_of, default="float64")


def _first_failure(outputs: list[OutputReport]) -> str:
    """What is wrong with the first output that is not equivalent, or ""."""
    failing = next((r for r in outputs if not r.equivalent), None)
    if failing is None:
        return ""
    if not failing.max_abs_error <= failing.bound:
        return (
            f"output '{failing.name}' differs by {failing.max_abs_error:.3g}, "
            f"more than {failing.bound:.3g}"
        )
    return (
        f"output '{failing.name}' is less accurate: error {failing.folded_error:.3g} "
        f"against {failing.original_error:.3g} before"
    )


def _unlike_its_copy(runs: Runs, outputs: list[OutputReport]) -> tuple[str, str]:
    """Why the float64 copy that serves as truth is none of this model, or ""; and a note.

    Where it is the backend that computes the model wrongly, the copy is the truth. Then a second
    model that is right is so noted, and one that is not is not handed out.
    """
    model, copy = runs.a.model, runs.a64
    eps = computed_eps(model)
    if copy.model is model or all(r.original_error <= ARITHMETIC * eps * r.scale for r in outputs):
        return "", ""
    changes = noise_effect(copy, eps)
    rounding = [
        REBUILT * (change + ARITHMETIC * eps * r.scale)
        for r, change in zip(outputs, changes, strict=True)
    ]
    off = [r for r, limit in zip(outputs, rounding, strict=True) if not r.original_error <= limit]
    if not off:
        return "", ""
    if math.isinf(off[0].original_error):
        return (
            f"output '{off[0].name}' of model '{model.name}' overflows its dtype on these inputs: "
            "use fold(verify=False), and kerasfold.verify(model, folded, data=...) with yours"
        ), ""
    culprit = miscomputed(model, runs.a.batches[0])
    if culprit is not None:
        layer, error = culprit
        said = (
            f"{device()} computes layer '{layer}' of model '{model.name}' wrongly: in its own "
            f"dtype it is {error:.3g} off what it gives in float64"
        )
        if all(r.folded_error <= limit for r, limit in zip(outputs, rounding, strict=True)):
            return "", f"{said}; the second model is computed rightly"
        return f"{said}: run the model elsewhere, or write that layer otherwise", ""
    return (
        f"model '{model.name}' differs from its own copy by {off[0].original_error:.3g} at "
        f"output '{off[0].name}': a layer's get_config() or weights do not say all that "
        "it computes"
    ), ""

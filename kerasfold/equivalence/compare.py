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
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import tree

from kerasfold.backend import device, full_precision
from kerasfold.equivalence.bounds import (
    _FLOAT_EPS,
    ARITHMETIC,
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
from kerasfold.equivalence.inputs import Arrays, run_or_refuse
from kerasfold.equivalence.report import EquivalenceReport, OutputReport
from kerasfold.read.model import computed_dtypes, output_names

LOSS = 8.0  # times the original's own error in its own dtype


REBUILT = 16.0  # times rounding effects that a model may be off its rebuilt float64 copy


Run = Callable[[Any], Arrays]


def compare(
    a: keras.Model,
    b: keras.Model,
    a64: keras.Model,
    b64: keras.Model,
    batches: list[Any],
    bound: Callable[[Arrays, str, float], list[float]],
) -> EquivalenceReport:
    """Both questions of two models and their float64 copies.

    Args:
        a: the reference.
        b: the other model.
        a64: `a` in float64.
        b64: `b` in float64.
        batches: the inputs.
        bound: largest difference allowed of each output, given the outputs, their dtype, and
            the rounding unit of operations that have no float64 (0.0 where there are none).
    """
    with full_precision():
        runs = tuple(run_or_refuse(m, batches) for m in (a64, b64, a, b))
    dtype = _coarsest([a64, b64], runs[0])
    report = _judge(a, a64, batches, runs, dtype, bound(runs[0], dtype, 0.0))
    if report.equivalent or report.dtype != "float64":
        return report
    if not any(rounds_to_single(m, batches) for m in (a64, b64)):
        return report
    unit = single_unit([a64, b64])
    report = _judge(a, a64, batches, runs, dtype, bound(runs[0], dtype, unit), unit)
    return replace(report, dtype="float64, with operations that round to float32")


def _judge(
    a: keras.Model,
    a64: keras.Model,
    batches: list[Any],
    runs: tuple[Arrays, ...],
    dtype: str,
    bounds: list[float],
    unit: float = 0.0,
) -> EquivalenceReport:
    """The report on what `a64`, `b64`, `a` and `b` gave, in that order."""
    truth, other, own_a, own_b = runs
    outputs = []
    for name, t, o, x, y, limit in zip(
        output_names(a), truth, other, own_a, own_b, bounds, strict=True
    ):
        scale = float(np.max(np.abs(t), initial=0.0, where=np.isfinite(t)))
        floor = ARITHMETIC * eps_of(dtype) * scale
        own = largest_error(x, t)
        outputs.append(
            OutputReport(
                name,
                largest_error(o, t),
                border_error(o, t),
                spread_of(t),
                scale,
                limit + floor,
                own,
                largest_error(y, t),
                LOSS * own + ARITHMETIC * max(eps_of(str(x.dtype)), eps_of(dtype), unit) * scale,
            )
        )
    blind = [n for n, t in zip(output_names(a), truth, strict=True) if not tells(t)]
    worst = max(outputs, key=lambda r: r.max_abs_error / (r.spread or r.scale or 1.0))
    reason = f"output '{blind[0]}' is nowhere finite, so nothing can be told of it" if blind else ""
    for name, x, y in zip(output_names(a), own_a, own_b, strict=True):
        if x.shape[1:] != y.shape[1:]:
            reason = f"output '{name}' has shape {x.shape[1:]} in one, {y.shape[1:]} in the other"
    reason = reason or _unlike_its_copy(a, a64, outputs, batches) or _first_failure(outputs)
    return EquivalenceReport(
        not reason,
        max(r.max_abs_error for r in outputs),
        worst.max_abs_error / (worst.spread or worst.scale or 1.0),
        dtype,
        device(),
        sum(len(tree.flatten(batch)[0]) for batch in batches),
        tuple(outputs),
        reason=reason,
    )


def _coarsest(copies: list[keras.Model], truth: Arrays) -> str:
    """The float dtype that rounds most, among what the copies compute in and what they give."""
    computed = set().union(*(computed_dtypes(copy) for copy in copies))
    floats = {d for d in computed | {str(t.dtype) for t in truth} if d in _FLOAT_EPS}
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


def _unlike_its_copy(
    model: keras.Model, copy: keras.Model, outputs: list[OutputReport], batches: list[Any]
) -> str:
    """Why the float64 copy that serves as truth is none of this model, or ""."""
    eps = computed_eps(model)
    if copy is model or all(r.original_error <= ARITHMETIC * eps * r.scale for r in outputs):
        return ""
    for r, change in zip(outputs, noise_effect(copy, batches, eps), strict=True):
        if math.isinf(r.original_error):
            return (
                f"output '{r.name}' of model '{model.name}' overflows its dtype on these inputs: "
                "use fold(verify=False), and kerasfold.verify(model, folded, data=...) with yours"
            )
        if not r.original_error <= REBUILT * (change + ARITHMETIC * eps * r.scale):
            return (
                f"model '{model.name}' differs from its own copy by {r.original_error:.3g} at "
                f"output '{r.name}': a layer's get_config() or weights do not say all that "
                "it computes"
            )
    return ""

"""From what was kept of two models' outputs to a verdict."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from kerasfold.backend import device
from kerasfold.equivalence.bounds import (
    ARITHMETIC,
    SINGLE,
    accuracy_bound,
    coarsest_dtype,
    difference_bound,
    eps_of,
    own_noise_bound,
    rebuilt_bound,
    usual_accuracy_bound,
)
from kerasfold.equivalence.compare import Comparison
from kerasfold.equivalence.culprit import Miscomputed, is_its_copy, miscomputed, undescribed
from kerasfold.equivalence.report import EquivalenceReport, OutputReport, Verdict
from kerasfold.equivalence.runs import Walk
from kerasfold.equivalence.tally import Lines, Tally
from kerasfold.read.model import is_layer, sublayers

UNTOLD = 0.5  # of a line's spread, that its bound may be


def judged(found: Comparison) -> EquivalenceReport:
    """The verdict on a comparison that has run."""
    report = _reported(found).noted(_unseen(found), _in_training(found), overflowing(found))
    if found.drawn and len(found.shapes) > 1:
        report = replace(report, shapes=tuple(found.shapes))
    if isinstance(found.a64, Walk):
        report = replace(report, unreached=found.a64.units.share)
    if found.other_shape:
        return replace(report, verdict="different", reason=found.other_shape)
    said = _undescribed(found)
    if said:
        return replace(report, verdict="different", reason=said)
    return report if report.verdict == "inconclusive" else _unlike_its_copy(found, report)


def _in_training(found: Comparison) -> str:
    """Which layers `predict` does not run as `model(x)` does, or ""."""
    walks = (x for x in (found.a64, found.b64) if isinstance(x, Walk))
    names = dict.fromkeys(
        made.name
        for walk in walks
        for made in walk.inside.calls
        if made.kwargs.get("training") is True
    )
    return "; ".join(
        f"layer '{name}' is called with training=True, which model(x) obeys and predict does not: "
        "compared as predict runs it"
        for name in names
    )


def _unseen(found: Comparison) -> str:
    """Of which outputs nothing but answers was compared, of few values, or ""."""
    steps = [*found.a64.steps, *([] if found.b64 is None else found.b64.steps)]
    words = {i: step.words for step in reversed(steps) for i in step.answers}
    seen = {i for each in found.within if not each.other for i in each.step.answers}
    return "; ".join(
        f"of output '{found.tallies[i].name}' only the {found.tallies[i].numbers} answers were "
        f"compared that {words[i]} gives, and not what goes into it"
        for i in sorted(words.keys() - seen)
    )


def overflowing(found: Comparison) -> str:
    """Which outputs of the second model overflow where those of the first do not, or ""."""
    return "; ".join(
        f"on large inputs, output '{tally.name}' of the second model is not finite where that of "
        "the first is"
        for tally in found.tallies
        if tally.overflowed
    )


def _reported(found: Comparison) -> EquivalenceReport:
    """The verdict on what was kept of two models' outputs."""
    outputs = tuple(_output(found, i) for i in range(len(found.tallies)))
    worst = max(outputs, key=lambda r: r.max_abs_error / (r.spread or r.scale or 1.0))
    rounding = found.unit > eps_of(found.dtype)
    report = EquivalenceReport(
        verdict="equivalent",
        max_abs_error=max(r.max_abs_error for r in outputs),
        max_rel_error=worst.max_abs_error / (worst.spread or worst.scale or 1.0),
        dtype=found.dtype + (", with operations that round to float32" if rounding else ""),
        device=device(found.places),
        inputs=max(tally.number for tally in found.tallies),
        outputs=outputs,
    )
    return _of_outputs(report)


def _output(found: Comparison, index: int) -> OutputReport:
    tally = found.tallies[index]
    own_unit, tolerance = found.own_unit, found.tolerance
    bound = difference_bound(tally, found.unit)
    line = _closest(tally.error, bound)
    accuracy = accuracy_bound(tally, own_unit)
    late = _closest(tally.other_error, accuracy)
    original, folded, allowed = (
        _at(x, late) for x in (tally.own_error, tally.other_error, accuracy)
    )
    if tolerance is not None:
        folded, allowed = tally.beyond, tolerance.atol
    largest = tally.error if tally.errors is None else tally.other_error
    most = np.max(np.atleast_2d(bound), axis=0)  # of all kinds
    untold = 0.0 if found.b64 is None else _untold(tally.spread, most)
    return OutputReport(
        name=tally.name,
        max_abs_error=float(np.max(largest)),
        max_border_error=tally.border_error,
        max_inside_error=tally.inside_error,
        spread=tally.whole_spread,
        scale=tally.whole_scale,
        error=_at(tally.error, line),
        bound=_at(bound, line),
        line=tally.place(line % tally.spread.size),
        original_error=original,
        folded_error=folded,
        accuracy_bound=allowed,
        accuracy_line=tally.place(late),
        absolute=None if tally.errors is None else tally.errors.absolute,
        relative=None if tally.errors is None else tally.errors.relative,
        tolerance=tolerance,
        untold=untold,
        doubt=next(_doubts(found, index, untold), ""),
        ending=found.endings[index].partition(" ")[0],
    )


def _doubts(found: Comparison, index: int, untold: float) -> Iterator[str]:
    """Why nothing can be told of an output, each reason there is."""
    tally = found.tallies[index]
    if tally.finite < tally.numbers and not tally.whole_scale:
        zeros = " but where it is 0" if tally.finite else ""
        advice = ": give inputs of its own range as data=" if found.drawn else ""
        yield (
            f"output '{tally.name}' is nowhere finite{zeros}, so nothing can be told of it{advice}"
        )
    if untold == 1.0:
        yield _why_untold(found, tally)
    if tally.lost > tally.finite / 2:
        yield (
            f"output '{tally.name}' of the first model overflows its dtype on most inputs: its "
            "accuracy cannot be told; give inputs of its own range as data="
        )
    if tally.astray:
        yield (
            f"on inputs that overflow on the way, output '{tally.name}' of the second model is not "
            "finite where that of the first is: give inputs of its own range as data="
        )
    if _unsure(tally, found.own_unit):
        yield (
            f"rounding in the model's own dtype moves output '{tally.name}' by as much as its "
            "size: its accuracy cannot be told"
        )
    for each in found.within:  # where both give it alike, but by something else
        bound = difference_bound(each.tally, found.unit)
        line = _closest(each.tally.error, bound)
        error, most = _at(each.tally.error, line), _at(bound, line)
        if not each.agrees or index not in each.step.outputs:
            continue
        what = "answers" if index in each.step.answers else "numbers"
        agree = f"all {tally.numbers} {what} of output '{tally.name}' agree, but"
        words = each.step.words
        if each.other and error <= most:
            yield f"{agree} {words} of the first model is {each.other} in the second, of the same"
        if not each.other and error > most:
            yield f"{agree} what goes into {words} differs by {error:.3g}, more than {most:.3g}"


def _why_untold(found: Comparison, tally: Tally) -> str:
    """Why the bound of an output reaches its size."""
    name, rounding = tally.name, ARITHMETIC * found.dtype_unit * tally.line_scale
    if _untold(tally.spread, rounding) < 1.0:
        return f"rounding noise of the weights moves output '{name}' as far as other inputs do"
    calls = found.a64.inside.calls if isinstance(found.a64, Walk) else ()
    held = [x.operation for x in calls if is_layer(x.operation)]
    names = [x.name for x in held if found.dtype in {y.compute_dtype for y in sublayers(x)}]
    why = f", in which layer '{names[0]}' computes always," if 0 < len(names) < len(held) else ""
    return (
        f"output '{name}' is compared in {found.dtype}{why} rounded as far as other inputs move it"
    )


def _untold(size: Lines, bound: Lines) -> float:
    """The share of lines whose bound reaches their size; those that are all zeros say nothing."""
    size, bound = np.broadcast_arrays(size, bound)
    some = size > 0
    return float(np.mean(bound[some] >= UNTOLD * size[some])) if some.any() else 0.0


def _unsure(tally: Tally, unit: float) -> bool:
    """Whether the second model is as accurate by nothing but noise as large as the output."""
    late = tally.other_error > usual_accuracy_bound(tally, unit)
    size, noise, late = np.broadcast_arrays(tally.output_scale, own_noise_bound(tally), late)
    return bool(np.any(late & (noise >= UNTOLD * size)))


def _closest(error: Lines, bound: Lines) -> int:
    """The line that comes closest to its bound, or is farthest beyond."""
    error, bound = np.broadcast_arrays(error, bound)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        ratio = np.where(error > 0, error / bound, 0.0)
    return int(np.argmax(ratio))


def _at(lines: Lines, line: int) -> float:
    return float(lines.flat[line] if lines.size > 1 else lines.flat[0])


def _of_outputs(report: EquivalenceReport) -> EquivalenceReport:
    """The report with the verdict on its outputs."""
    verdicts: list[Verdict] = ["different", "inconclusive"]
    for verdict in verdicts:
        out = next((out for out in report.outputs if out.verdict == verdict), None)
        if out is not None:
            return replace(report, verdict=verdict, reason=out.reason)
    return report


def off_copies(found: Comparison) -> list[int]:
    """The outputs, by number, that the first model gives otherwise than its copy in float64."""
    eps = found.own_eps
    tallies = enumerate(found.tallies)
    return [i for i, t in tallies if np.any(t.own_error > rebuilt_bound(t, eps))]


def _undescribed(found: Comparison) -> str:
    """Which layer gives something else than its copy, where rounding may hide it; or "".

    In float32 it does not: see `_unlike_its_copy`.
    """
    batches = {id(x.batch): x.batch for x in found.shows_own if x.batch is not None}
    coarse = (x for x in found.described if eps_of(coarsest_dtype([x])) > SINGLE)
    pairs = itertools.product(coarse, batches.values())
    return next(filter(None, (_otherwise(model, batch) for model, batch in pairs)), "")


def _otherwise(model: keras.Model, batch: Any) -> str:
    """Which layer of a model gives something else than its copy, in words; or ""."""
    culprit = undescribed(model, batch)
    if culprit is None:
        return ""
    layer, error = culprit
    return (
        f"layer '{layer}' of model '{model.name}' is {error:.3g} off a copy of it, on the same "
        "inputs: its get_config() or weights do not say all that it computes"
    )


def _unlike_its_copy(found: Comparison, report: EquivalenceReport) -> EquivalenceReport:
    """The report, where the float64 copy that serves as truth is none of this model."""
    model = found.a
    off = off_copies(found)
    if not off or not isinstance(found.a64, Walk):  # no copy, but itself, or what was kept of it
        return report
    tally = found.tallies[off[0]]
    batch = found.shown_own(tally)
    culprit = miscomputed(model, batch)
    if culprit is not None:
        return _miscomputed(found, report, culprit)
    output, error = f"output '{tally.name}'", f"{np.max(tally.own_error):.3g}"
    if is_its_copy(model, batch):
        reason = (
            f"rounding in its own dtype moves {output} of model '{model.name}' by {error}: its "
            "accuracy cannot be told"
        )
        return _inaccurate(report, reason)
    reason = (
        f"model '{model.name}' differs from its own copy by {error} at {output}: a layer's "
        "get_config() or weights do not say all that it computes, or a lift rule of yours says "
        "something else (kerasfold.testing.check_lift compares it with its layer)"
    )
    said = "; ".join(filter(None, (reason, _otherwise(model, batch))))
    return replace(report, verdict="different", reason=said)


def _inaccurate(report: EquivalenceReport, reason: str) -> EquivalenceReport:
    """The report, where nothing can be told but whether it is the same function."""
    if not all(out.same_function for out in report.outputs):
        return report
    return replace(report, verdict="inconclusive", reason=reason)


def _miscomputed(
    found: Comparison, report: EquivalenceReport, culprit: Miscomputed
) -> EquivalenceReport:
    """The report, where it is the backend that computes a layer of the first model wrongly.

    Its copy is the truth, then. That a second model is computed rightly is noted; one that is not
    is not handed out. Of what a layer draws there is no truth.
    """
    layer = f"layer '{culprit.layer}' of model '{found.a.name}'"
    if culprit.draws:
        reason = f"{layer} draws random numbers, others in float64: its accuracy cannot be told"
        return _inaccurate(report, reason)
    said = (
        f"{device()} computes {layer} wrongly: in its own dtype it is {culprit.error:.3g} off what "
        "it gives in float64"
    )
    if all(np.all(t.other_error <= rebuilt_bound(t, found.own_eps)) for t in found.tallies):
        return report.noted(f"{said}; the second model is computed rightly")
    reason = f"{said}: run the model elsewhere, or write that layer otherwise"
    return replace(report, verdict="different", reason=reason)

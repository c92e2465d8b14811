"""The pipeline: read, lift, plan, compose, emit, verify. And nothing but."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import keras
import numpy as np

from kerasfold.algebra.operator import Operator
from kerasfold.backend import random_state_kept
from kerasfold.cost import OBJECTIVES
from kerasfold.emit import emit
from kerasfold.errors import EquivalenceError, FoldError, NonlinearLayerError
from kerasfold.lift.regions import Regions, lift
from kerasfold.measured import Clock, is_no_better, measured_plan
from kerasfold.plan import Plan, original_plan
from kerasfold.plan import plan as make_plan
from kerasfold.read.graph import read
from kerasfold.read.weights import largest, refuse_nonfinite, smallest
from kerasfold.report import FoldReport, report
from kerasfold.runtimes import check_runtime, deploy, random_inputs
from kerasfold.segment import OutOfRange, Segment, weights_of
from kerasfold.verify import verify_fold

LAST = 10.0  # seconds that the whole model may be timed for, whatever its parts took


def fold(
    model: keras.Model,
    objective: str = "latency",
    nonlinear: Literal["keep", "error"] = "keep",
    verify: bool = True,
    runtime: str = "tensorflow",
    budget: float = 60.0,
    progress: bool = False,
) -> keras.Model:
    """Merge everything linear in a model, wherever that is exact and pays.

    The model is read, never touched: no weight, config or node of it changes, and training
    can go on with it afterwards.

    Args:
        model: a built functional or Sequential model, of any dtype policy.
        objective: what to minimise: 'latency' (a roofline), 'macs', 'params', 'layers'
            (merge all that is exact), or 'measured' (seconds on `runtime`, timed now).
        nonlinear: 'keep' leaves other layers as they are; 'error' refuses them.
        verify: whether to compare the result with the original before returning it.
        runtime: for 'measured', where to time: 'tensorflow' (a `tf.function`), 'xla', 'litert',
            'onnxruntime' or 'openvino', at batch 1.
        budget: for 'measured', seconds after which no further part of the model is timed;
            what is left is planned for 'latency'. The whole model is timed on top of it. With
            0, nothing is.
        progress: for 'measured', whether to draw a progress bar on stderr.

    Returns:
        A new, uncompiled functional model of stock Keras layers, with the same inputs and
        outputs (names, order, structure, shapes and dtypes), and a `FoldReport` as its
        attribute `fold_report`.

    Raises:
        UnsupportedModelError: a model that cannot be read or rebuilt.
        NonlinearLayerError: with nonlinear='error', naming every layer that is not linear.
        EquivalenceError: the result does not compute the same; it is not returned.
        RuntimeUnavailableError: `runtime` lacks a package; the message names the extra.
        FoldError: an unknown objective or option, or a runtime that refuses the model.
    """
    if objective == "measured":
        check_runtime(runtime)
        if not (isinstance(budget, (int, float)) and budget >= 0):
            raise FoldError(f"budget={budget!r}: expected a number of seconds, 0 or more")
    elif not isinstance(objective, str) or objective not in OBJECTIVES:
        known = ", ".join(map(repr, (*OBJECTIVES, "measured")))
        raise FoldError(f"unknown objective {objective!r}: choose one of {known}")
    if nonlinear not in ("keep", "error"):
        raise FoldError(f"unknown nonlinear={nonlinear!r}: choose 'keep' or 'error'")
    with random_state_kept():
        measure = _Measure(runtime, Clock(budget), progress)
        return _fold(model, objective, nonlinear, verify, measure)


@dataclass(frozen=True, slots=True)
class _Measure:
    """Where to time, until when, and whether to show it."""

    runtime: str
    clock: Clock
    progress: bool


def _fold(
    model: keras.Model,
    objective: str,
    nonlinear: str,
    verify: bool,
    measure: _Measure,
) -> keras.Model:
    regions = _lifted(model)
    if nonlinear == "error":
        _refuse_nonlinear(model, regions)
    held: dict[int, str] = {}
    while True:
        try:
            plan, folded = _planned(regions, objective, held, measure)
        except OutOfRange as overflow:
            held |= dict.fromkeys(overflow.nodes, "merged, its weights would not fit their dtype")
            continue
        shared = _shared(regions) - held.keys()
        if objective != "params" or folded.count_params() <= model.count_params() or not shared:
            break
        held |= dict.fromkeys(shared, "its weights are shared with another call")
    result = report(model, regions, plan, objective, folded, held)
    if verify:
        equivalence = verify_fold(regions, plan, _exact(regions), model, folded)
        if not equivalence.equivalent:
            raise EquivalenceError(f"the fold of '{model.name}' is not handed out: {equivalence}")
        result = result.verified(equivalence)
    folded.fold_report = result
    return folded


def _planned(
    regions: Regions,
    objective: str,
    held: Mapping[int, str],
    measure: _Measure,
) -> tuple[Plan, keras.Model]:
    """A plan, and the model that it is."""
    compose = _rounded(regions)
    if objective != "measured":
        plan = make_plan(regions, objective, held=held)
        return plan, emit(regions, plan, compose).model
    clock = measure.clock
    plan = measured_plan(regions, compose, measure.runtime, clock, measure.progress, held)
    folded = emit(regions, plan, compose).model
    if not clock.seconds:
        return plan, folded
    unfolded = original_plan(regions)
    same = emit(regions, unfolded, compose).model
    if all(segment.form == "keep" for segment in plan.segments.values()):
        deploy(same, measure.runtime, random_inputs(same))  # which says so if it is refused
    elif is_no_better(folded, same, measure.runtime, max(clock.left, LAST)):
        why = f"merged, the whole model is no faster on {measure.runtime}"
        return replace(unfolded, held=dict.fromkeys(unfolded.segments, why)), same
    return plan, folded


def explain(model: keras.Model, objective: str = "latency") -> FoldReport:
    """The report that `fold(model, objective)` would give, with nothing built.

    But for what only merged weights tell: whether they overflow their dtype, and that the
    biases of border tiles are constants, which Keras does not count as parameters.

    Raises:
        UnsupportedModelError: a model that cannot be read.
        FoldError: an unknown objective.
    """
    regions = _lifted(model)
    return report(model, regions, make_plan(regions, objective), objective, None, {})


def require_linear(model: keras.Model, objective: str = "latency") -> keras.Model:
    """`fold(model, nonlinear="error")`: a linear model, folded, or an error.

    Raises:
        NonlinearLayerError: naming every layer that is not linear, and why.
    """
    return fold(model, objective, nonlinear="error")


def _lifted(model: keras.Model) -> Regions:
    graph = read(model)
    refuse_nonfinite(model)
    return lift(graph)


def _refuse_nonlinear(model: keras.Model, regions: Regions) -> None:
    offenders = [
        f"'{call.name}' ({regions.barriers[call.index]})"
        for call in regions.graph.calls
        if call.index in regions.barriers
    ]
    offenders += [
        f"'{lifted.call.name}' (its activation is not linear)"
        for lifted in regions.lifted.values()
        if lifted.activation is not None
    ]
    if offenders:
        raise NonlinearLayerError(f"model '{model.name}' is not linear: {', '.join(offenders)}")


def _shared(regions: Regions) -> set[int]:
    """Nodes that calls of layers called more than once end in, and what reads those."""
    twice = {n for n, x in regions.lifted.items() if regions.uses[id(x.call.operation)] > 1}
    return twice | {
        o for n in twice for o in regions.program.nodes[n].operands if o in regions.lifted
    }


def _exact(regions: Regions) -> Any:
    """Composes segments, in float64."""
    return lambda segment: weights_of(regions.program.nodes, segment)


def _rounded(regions: Regions) -> Any:
    """Composes segments whose weights are about to be rounded; refuses what a dtype cannot hold.

    That is an overflow, and kernels all of whose numbers are too small to keep their digits.
    """
    nodes = regions.program.nodes

    def compose(segment: Segment) -> Mapping[Any, Operator | None]:
        with np.errstate(over="ignore", invalid="ignore"):
            operators = weights_of(nodes, segment)
        dtype = regions.lifted[segment.node].call.outputs[0].dtype
        for operator in operators.values():
            if operator is None:
                continue
            arrays = [operator.kernel, operator.bias, operator.ones]
            tops = [0.0 if a is None else float(np.max(np.abs(a), initial=0.0)) for a in arrays]
            overflows = any(not top <= largest(dtype) for top in tops)
            if overflows or 0.0 < tops[0] < smallest(dtype):
                merged = {i for i in segment.visited if i in regions.lifted and i != segment.node}
                raise OutOfRange(merged or {segment.node})
        return operators

    return compose


def attach_fold(fold: Callable[..., keras.Model]) -> None:
    """Give every `keras.Model` a `fold` method."""
    keras.Model.fold = fold


attach_fold(fold)


__all__ = ["explain", "fold", "require_linear"]

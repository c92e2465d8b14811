"""The pipeline: read, lift, plan, compose, emit, verify. And nothing but.

A fold reads a Keras model into calls, *lifts* the affine ones into a program, *plans* which of
its tensors to materialise and in which *form*, *composes* their weights, *emits* Keras layers,
and *verifies* the result. Each step is a room; a module imports only from those below it
(`tests/test_house.py`).

    cli.py  callbacks.py  pytest_plugin.py  the command line; FoldCheckpoint; fixtures for tests
    commands/    fold explain verify bench what each command takes, does and prints
    pipeline.py                            fold, explain: from a model to its fold, step by step
    target.py                              where a fold will run, as it is told
    golden.py  keeping.py  report.py       outputs, and reports, kept in files; of a fold
    testing.py  junit.py                   check_lift; what is said of a comparison, for CI
    reports/     record text page ...      a report as values, and its views: text, JSON, pages
    plots/       figure flow effective     pictures of a fold, and of a linear part as one kernel
    equivalence/                           two models: the same function, as accurate?
    measure/                               plans timed on a runtime
    plan/        search methods choose     which tensors to materialise
    emit.py                                chosen forms -> a Keras model; a copy of the original
    compose.py                             weights in float64, and whether a dtype holds them
    forms/       form known ways kept ...  the ways to compute one tensor, a file each
    cost.py  rooflines.py                  what a step costs; the objectives; what runtimes take
    inverse/     deconvolve into chain ... convolutions taken apart, on the algebra
    lift/        program signal rules ...  calls -> affine program, one rule a layer
    files.py                               model files: nothing in them is run
    replacing.py  unpacking.py             files written whole or not at all, and read in bounds
    paths.py                               names of files, judged before anything loads
    layers/      spelling limits build ... what one stock layer can say, and how it is made
    read/        graph inside model ...    Keras model -> calls; the only room, with backend.py,
                                           that touches Keras's insides
    algebra/     axis geometry chain ...   the operator and its laws, on NumPy alone
    options.py  bar.py  quiet.py           options refused where not of their kind; stages, drawn;
                                           what converters say, kept away
    backend.py  errors.py  startup.py
    stopping.py  choices.py  stages.py     stopped by a signal; names to choose from; what goes on
    reasons.py                             why a layer stays, by its code
    legible.py                             names as they can be shown, whatever is in them
    wide.py                                Keras's constants, where float64 is computed
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

import keras

from kerasfold.algebra.axis import Refused
from kerasfold.backend import held, own_seeds
from kerasfold.bar import bar
from kerasfold.choices import NonlinearName, ObjectiveName, RuntimeName, UntimedName
from kerasfold.compose import Compose, Once, OutOfRange, fitting
from kerasfold.cost import Prices, objective_of
from kerasfold.emit import emit
from kerasfold.equivalence.models import verify as compare_models
from kerasfold.equivalence.models import verify_fold
from kerasfold.equivalence.report import EquivalenceReport
from kerasfold.errors import EquivalenceError, NonlinearLayerError, only_fold_errors
from kerasfold.forms.form import AnyForm
from kerasfold.forms.kept import Kept
from kerasfold.lift.activations import name_of
from kerasfold.lift.regions import Regions, as_read, lifted
from kerasfold.measure.measured import Make, measured_plan, timed_whole
from kerasfold.measure.runtimes import deploy, random_inputs
from kerasfold.measure.tried import Tried
from kerasfold.options import require_alone, require_choice, require_flags
from kerasfold.plan.cheapest import cheapest, of_fewer_channels
from kerasfold.plan.choose import Plan, original_plan
from kerasfold.plan.choose import plan as make_plan
from kerasfold.plan.numbers import by_numbers
from kerasfold.quiet import unsaid
from kerasfold.read.masks import makes_masks
from kerasfold.read.model import own_predictions, variables_of
from kerasfold.read.parts import made_of, parts_of
from kerasfold.read.states import copy_policy
from kerasfold.read.told import Told
from kerasfold.read.weights import digest, refuse_nonfinite, require_values
from kerasfold.report import plain_model, report
from kerasfold.reports.record import Pace
from kerasfold.reports.views import FoldReport
from kerasfold.stages import at
from kerasfold.target import Target, prices_of, refuse_other_batch, target_of

COMPARING = "comparing with the original"  # a stage
LAST = 10.0  # seconds that the whole model may be timed for, whatever its parts took
# Keras warns of layers that hand on no mask: those that are read do arrive.
MASKS_DROPPED = "Layer .* does not support masking"


def fold(
    model: keras.Model,
    objective: ObjectiveName = "latency",
    nonlinear: NonlinearName = "keep",
    verify: bool = True,
    runtime: RuntimeName | None = None,
    budget: float | None = None,
    progress: bool = False,
    *,
    batch_size: int | None = None,
    open_layers: bool = True,
    exact_numbers: bool = False,
    keep_channels: bool = False,
    data: Any = None,
    input_shape: Any = None,
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
        runtime: where the fold will run: 'tensorflow' (a `tf.function`), 'xla', 'litert',
            'onnxruntime' or 'openvino'. For 'latency', by whose roofline to plan; where none is
            given, whatever is merged must be no slower on TensorFlow graphs or under XLA. For
            'measured', where to time ('tensorflow').
        batch_size: images at once (1), for 'latency' and 'measured'.
        budget: for 'measured', seconds (60) after which no further part of the model is timed;
            what is left is planned for 'latency'. The whole model is timed on top of it. With
            0, nothing is.
        progress: whether to draw on stderr what goes on: each stage, and how much of it is done.
        open_layers: whether to look into layers that are made of others: the result then holds
            the layers inside them.
        exact_numbers: whether no kernel is taken for the product of two that it is as stored,
            each number to one unit in its last place, and not bit for bit.
        keep_channels: whether channels stay that nobody reads or that are constant: filters of
            zeros, a gamma of zero, a ReLU of what is never positive. They go by default, as
            weights of zeros that are to be trained further should not.
        data: to compare on instead of random inputs, as for `kerasfold.verify`.
        input_shape: to compare at where sizes are free, as for `kerasfold.verify`.

    Returns:
        A new, uncompiled functional model of stock Keras layers, with the same inputs and
        outputs (names, order, structure, shapes and dtypes), and a `FoldReport` as its
        attribute `fold_report`. A model whose class predicts in its own way, such as a keras-hub
        task, comes back in that class, its backbone folded, where the class takes it; elsewhere
        the report and a `UserWarning` say that it does not.

    Raises:
        UnsupportedModelError: a model that cannot be read or rebuilt.
        NonlinearLayerError: with nonlinear='error', naming every layer that is not linear.
        EquivalenceError: the result does not compute the same; it is not returned.
        RuntimeUnavailableError: `runtime` lacks a package; the message names the extra.
        FoldError: an unknown objective or option, one that would be for nothing, or a runtime that
            refuses the model.

    Example:
        >>> image = keras.Input((32, 32, 3))
        >>> conv = keras.layers.Conv2D(8, 3, name="conv")(image)
        >>> model = keras.Model(image, keras.layers.BatchNormalization(name="norm")(conv))
        >>> folded = kerasfold.fold(model)
        >>> [type(layer).__name__ for layer in folded.layers]
        ['InputLayer', 'Conv2D']
        >>> folded.fold_report.merged[0].layers
        ('conv', 'norm')
        >>> folded.fold_report.equivalence.verdict
        'equivalent'
    """
    require_flags(verify=verify, progress=progress, open_layers=open_layers)
    require_flags(exact_numbers=exact_numbers, keep_channels=keep_channels)
    require_choice("nonlinear", nonlinear, get_args(NonlinearName))
    if not verify:
        require_alone("for comparing, which verify=False skips", data=data, input_shape=input_shape)
    if data is not None:
        require_alone("for random inputs, not with data=", input_shape=input_shape)
    target = target_of(objective, runtime, batch_size, budget)
    require_values("fold()")
    options = _Options(
        objective, nonlinear, verify, target, open_layers, exact_numbers, keep_channels
    )
    weights = variables_of(model) if isinstance(model, keras.Model) else ()
    with (
        bar(progress),
        only_fold_errors("fold()"),
        own_seeds(),
        unsaid(MASKS_DROPPED),
        held(weights),
    ):
        refuse_other_batch(model, batch_size)
        if not isinstance(model, keras.Model) or not own_predictions(model):
            return _fold(model, options, data, input_shape)
        try:
            return _of_its_class(model, options, data, input_shape)
        except Refused as refusal:
            folded = _fold(model, options, data, input_shape)
            note = plain_model(model, refusal.reason)
    folded.fold_report = replace(folded.fold_report, note=note)
    warnings.warn(note, stacklevel=2)
    return folded


@dataclass(frozen=True, slots=True)
class _Options:
    """What a fold is asked for: see `fold`."""

    objective: str
    nonlinear: str
    verify: bool
    target: Target
    open_layers: bool
    exact_numbers: bool
    keep_channels: bool


def _fold(
    model: keras.Model, options: _Options, data: Any, input_shape: Any, told: Told | None = None
) -> keras.Model:
    """A plain functional model that computes the same."""
    at("reading the layers")
    regions = _lifted(model, options.open_layers, told)
    if options.nonlinear == "error":
        _refuse_nonlinear(model, regions)
    objective, given = options.objective, regions
    pinned: dict[int, str] = {}
    first: Plan | None = None
    if not objective_of(objective).is_timed:
        at("planning")
        regions, first = cheapest(given, objective, options.target.prices, options.keep_channels)
    elif not options.keep_channels:
        regions = of_fewer_channels(given, options.target.prices)
    while True:
        once = Once(fitting(regions))
        compose = once if options.verify else once.handed_over
        try:
            built = _planned(regions, first, options, pinned, compose)
        except OutOfRange as overflow:
            nodes, why = set(overflow.nodes), "merged, its weights would not fit their dtype"
        else:
            nodes = _shared(regions) - pinned.keys()
            why = "its weights are shared with another call"
            counts = objective == "params" and nodes
            if not counts or built.model.count_params() <= model.count_params():
                break
        if regions is given:
            pinned |= dict.fromkeys(nodes, why)
        regions, first = given, None
    plan, folded = built.plan, built.model
    copy_policy(model, folded)
    result = report(model, regions, plan, objective, folded, pinned)
    result = replace(result, measured=built.pace, tried=built.tried)
    if options.verify:
        at(COMPARING)
        weights = once.handed_over
        found = verify_fold(regions, plan.forms, weights, model, folded, data, input_shape)
        result = _verified(model, folded, result, found)
    folded.fold_report = result
    return folded


@dataclass(frozen=True, slots=True)
class _Built:
    """A plan, the model that it is, what that was timed to take, if it was, and what was tried."""

    plan: Plan
    model: keras.Model
    pace: Pace | None = None
    tried: tuple[Tried, ...] = ()


def _of_its_class(
    model: keras.Model, options: _Options, data: Any, input_shape: Any
) -> keras.Model:
    """A model of the same class, of folded parts. Raises `Refused` where there is none."""
    told, parts = Told(), parts_of(model)
    folds = {name: _fold(part, options, None, None, told) for name, part in parts.items()}
    folded = made_of(model, folds)
    regions = _lifted(model, options.open_layers, told)
    unfolded = original_plan(regions, options.target.prices)
    whole = report(model, regions, unfolded, options.objective, None, {})
    reports = {argument: part.fold_report for argument, part in folds.items()}
    result = replace(
        whole.with_parts(type(model).__name__, reports),
        params_after=folded.count_params(),
        keras_layers_after=len(folded.layers),
    )
    if options.verify:
        at(COMPARING)
        found = compare_models(model, folded, data, input_shape)
        result = _verified(model, folded, result, found)
    folded.fold_report = result
    return folded


def _verified(
    model: keras.Model, folded: keras.Model, result: FoldReport, found: EquivalenceReport
) -> FoldReport:
    if found.verdict == "different" or not found.same_function:
        raise EquivalenceError(f"the fold of '{result.model}' is not handed out: {found}")
    return replace(result.verified(found), original=digest(model), folded=digest(folded))


def _planned(
    regions: Regions,
    first: Plan | None,
    options: _Options,
    pinned: Mapping[int, str],
    compose: Compose,
) -> _Built:
    """A plan, if none was found before, and the model that it is."""
    objective, target = options.objective, options.target
    if not objective_of(objective).is_timed:
        at("planning")
        plan = first or make_plan(regions, objective, pinned=pinned, prices=target.prices)
        plan = by_numbers(regions, plan, objective, pinned, options.exact_numbers)
        at("building")
        return _Built(plan, emit(regions, plan.forms, compose).model)
    clock, runtime, prices = target.clock, target.runtime, target.prices
    plan, tried = measured_plan(regions, fitting(regions), runtime, clock, pinned, prices)
    at("building")
    folded = emit(regions, plan.forms, compose).model
    if not clock.seconds:
        return _Built(plan, folded, tried=tried)
    at("timing the whole model")
    before = _unmerged(as_read(regions), prices)
    same = before()
    inputs = random_inputs(same, prices.batch)
    if regions.graph.original is None and all(type(f) is Kept for f in plan.forms.values()):
        deploy(same, runtime, inputs)  # which says so if it is refused
        return _Built(plan, folded, tried=tried)
    again = _made(regions, plan.forms, Once(fitting(regions)))
    whole = timed_whole(again, before, inputs, runtime, max(clock.left, LAST))
    tried += (whole.tried,)
    if not whole.is_better:
        why = f"merged, the whole model is no faster on {runtime}"
        unfolded = original_plan(regions, prices)
        apart = replace(unfolded, apart=dict.fromkeys(unfolded.forms, why))
        return _Built(apart, emit(regions, apart.forms, compose).model, tried=tried)
    return _Built(plan, folded, Pace(runtime, *whole.milliseconds), tried)


def _unmerged(regions: Regions, prices: Prices) -> Make:
    """Makes a model of all calls as they are, each time anew."""
    return _made(regions, original_plan(regions, prices).forms, Once(fitting(regions)))


def _made(regions: Regions, forms: Mapping[int, AnyForm], compose: Compose) -> Make:
    """Makes a model of chosen forms, with weights of its own each time."""
    return lambda: emit(regions, forms, compose).model


def explain(
    model: keras.Model,
    objective: UntimedName = "latency",
    open_layers: bool = True,
    keep_channels: bool = False,
    *,
    exact_numbers: bool = False,
    runtime: RuntimeName | None = None,
    batch_size: int | None = None,
) -> FoldReport:
    """The report that `fold(model, objective)` would give, with nothing built.

    But for what only merged weights tell: whether they overflow their dtype, and that the
    biases of border tiles are constants, which Keras does not count as parameters.

    Args:
        model: as for `fold`.
        objective: as for `fold`, but for 'measured'.
        open_layers: as for `fold`.
        exact_numbers: as for `fold`.
        keep_channels: as for `fold`.
        runtime: as for `fold`.
        batch_size: as for `fold`.

    Raises:
        UnsupportedModelError: a model that cannot be read.
        FoldError: an unknown objective or runtime, or a batch that is none.

    Example:
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
        >>> model.add(keras.layers.Rescaling(2.0))
        >>> report = kerasfold.explain(model, objective="layers")
        >>> report.layers_before, report.layers_after
        (2, 1)
    """
    require_flags(open_layers=open_layers, exact_numbers=exact_numbers)
    require_flags(keep_channels=keep_channels)
    prices = prices_of(objective, runtime, batch_size)
    require_values("explain()")
    with only_fold_errors("explain()"), own_seeds():
        refuse_other_batch(model, batch_size)
        at("reading the layers")
        regions = _lifted(model, open_layers)
        at("planning")
        regions, plan = cheapest(regions, objective, prices, keep_channels)
        plan = by_numbers(regions, plan, objective, exactly=exact_numbers)
        return report(model, regions, plan, objective, None, {})


def require_linear(model: keras.Model, objective: ObjectiveName = "latency") -> keras.Model:
    """`fold(model, nonlinear="error")`: a linear model, folded, or an error.

    Raises:
        NonlinearLayerError: naming every layer that is not linear, and why.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "relu", name="a")])
        >>> kerasfold.require_linear(model)  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        kerasfold.errors.NonlinearLayerError: model 'sequential' is not linear: 'a' (...)
    """
    return fold(model, objective, nonlinear="error")


def _lifted(model: keras.Model, open_layers: bool, told: Told | None = None) -> Regions:
    regions = lifted(model, open_layers, told)
    refuse_nonfinite(model)
    return regions


def _refuse_nonlinear(model: keras.Model, regions: Regions) -> None:
    masks = makes_masks(regions.graph)
    offenders = [
        f"'{call.name}' ({regions.barriers[call.index]})"
        for call in regions.graph.calls
        if call.index in regions.barriers and call.index not in masks
    ]
    offenders += [
        f"'{lifted.call.name}' (its activation '{name_of(lifted.activation)}' is not linear)"
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


def attach_fold(fold: Callable[..., keras.Model]) -> None:
    """Give every `keras.Model` a `fold` method."""
    keras.Model.fold = fold


attach_fold(fold)


__all__ = ["explain", "fold", "require_linear"]

"""A lifted model and its plan -> what is said of the fold: one record per call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import keras
from keras import tree

import kerasfold
from kerasfold.cost import Cost, Prices, objective_of
from kerasfold.forms.kept import Kept as Original
from kerasfold.layers.limits import is_free
from kerasfold.lift.absorbed import unabsorbed
from kerasfold.lift.demand import pixel_axes
from kerasfold.lift.gains import stays
from kerasfold.lift.regions import Lifted, Regions, as_read
from kerasfold.plan.choose import Plan, original_plan
from kerasfold.plots.flow import flow_of
from kerasfold.read.graph import Call, Graph, Tensor
from kerasfold.read.masks import makes_masks
from kerasfold.read.model import is_random_unasked, own_predictions
from kerasfold.read.weights import added_numbers, count_params
from kerasfold.reports.record import Channels, Kept, Merged, Pace
from kerasfold.reports.views import FoldReport

NAMING = "an output has its name of it"


def plain_model(model: keras.Model, reason: str) -> str:
    """What is to be known where a class with predictions of its own did not come back.

    Args:
        model: the original.
        reason: why not.
    """
    methods = ", ".join(f"{name}()" for name in own_predictions(model))
    return (
        f"'{model.name}' is a {type(model).__name__}, with its own {methods}; the folded model is "
        "a plain one, whose predictions are of what the layers take, without preprocessing or the "
        f"like: {reason}"
    )


def report(
    model: keras.Model,
    regions: Regions,
    plan: Plan,
    objective: str,
    folded: keras.Model | None,
    pinned: Mapping[int, str],
) -> FoldReport:
    """The report of a plan.

    Args:
        model: the original.
        regions: what was lifted of it.
        plan: the plan.
        objective: what it was made for.
        folded: the model that it became, for its true parameter count; None if it is not built.
        pinned: nodes that the plan had to materialise, and why.
    """
    owner = regions.owner
    given = as_read(regions)
    kinds_of = {call.name: _kind(call) for call in given.graph.calls}
    masks = makes_masks(regions.graph)
    barriers = [
        c for c in regions.graph.calls if c.index in regions.barriers and c.index not in masks
    ]
    merged: list[Merged] = []
    apart: list[Kept] = []
    kept = [Kept.because(call.name, regions.barriers[call.index], _kind(call)) for call in barriers]
    tried = not objective_of(objective).is_timed
    beside = stays(regions) | unabsorbed(regions, tried)
    for node, form in plan.forms.items():
        lifted = owner[node]
        why = plan.apart.get(node)
        if isinstance(form, Original):
            reason = pinned.get(node) or why or beside.get(lifted.call.index)
            reason = reason or _why(lifted, form, regions, plan)
            reason += _rewritten(lifted, form.words(regions))
            kept.append(Kept.because(lifted.call.name, reason, _kind(lifted.call)))
            continue
        if why is not None:
            apart.append(Kept.because(lifted.call.name, why, form.words(regions)))
        visited = {owner[i].call.index: owner[i].call for i in form.visited}.values()
        parts = [x for call in visited for x in call.parts if x.name in kinds_of]
        parts.sort(key=lambda call: call.outputs[0].index)
        names = tuple(call.name for call in parts)
        kinds = tuple(kinds_of[call.name] for call in parts)
        words, grown = form.words(regions), plan.grown.get(node, form.aside)
        merged.append(Merged(lifted.call.name, words, names, kinds, grown))
    naming = {call.index for call in _naming(given)}
    identities = [x.call for x in given.identities if x.call.index not in naming]
    kept += [Kept.because(c.name, NAMING, _kind(c)) for c in _naming(given)]
    composed = [form for form in plan.forms.values() if not isinstance(form, Original)]
    calls = [*identities, *(owner[i].call for form in composed for i in form.visited)]
    gone = sorted(dict.fromkeys(calls), key=lambda call: call.index)
    passing = {x.tensor.index for x in given.identities}
    lost = Counter(c.name for c in given.graph.calls if c.outputs[0].index not in passing)
    lost -= Counter(call.name for call in regions.graph.calls)
    merged += [
        Merged(*one, kinds=tuple(kinds_of[name] for name in one.names))
        for one in regions.graph.together
    ]
    done = {name for one in regions.graph.together for name in one.names}
    done |= {part.name for call in regions.graph.calls for part in call.parts[1:]}
    done |= set(regions.graph.dropped)
    repeated = [name for name in lost.elements() if name not in done]
    original = plan.original if given is regions else original_plan(given, plan.prices).cost
    removed = _counted(x.call for x in given.identities)
    masks = makes_masks(given.graph)
    barred = _counted(
        c for c in given.graph.calls if c.index in given.barriers and c.index not in masks
    )
    before = model.count_params()
    constants = sum(form.constants for form in plan.forms.values())
    grown_by = round(plan.cost.params - plan.original.params) - constants
    grown_by += _added(lifted.call for lifted in regions.lifted.values())
    after = before + grown_by + _weights(regions.graph) - _weights(given.graph)
    return FoldReport(
        model.name,
        objective,
        tuple(merged),
        (*(call.name for call in identities), *regions.graph.dropped),
        tuple(c.name for c in gone if c.training is None and is_random_unasked(c.operation)),
        tuple(dict.fromkeys(kept)),
        tuple(apart),
        round(original.macs),
        round(plan.cost.macs),
        before,
        after if folded is None else folded.count_params(),
        original.layers + barred + removed,
        plan.cost.layers + _counted(barriers),
        opened=regions.graph.opened,
        repeated=tuple(repeated),
        flows=(flow_of(regions, plan.forms),),
        models=(model if folded is None else folded,),
        keras_layers_before=len(model.layers),
        keras_layers_after=None if folded is None else len(folded.layers),
        predicted=_paces(plan.prices, original, plan.cost),
        is_linear=not barriers and all(x.activation is None for x in regions.lifted.values()),
        narrowed=_narrowed(regions, given),
        channels=tuple(Channels(*each) for each in regions.graph.left),
        uncounted=tuple(dict.fromkeys(c.name for c in barriers if _multiplies(c))),
        version=kerasfold.__version__,
        batch_size=plan.prices.batch,
        constants=constants + _added(barriers),
    )


def _added(calls: Iterable[Call]) -> int:
    """Numbers that calls are given, no weights to Keras, and that no call was in what was read."""
    return sum(added_numbers(call.constants) for call in {c.index: c for c in calls}.values())


def _naming(regions: Regions) -> list[Call]:
    """Identity layers that an output, of what another tensor is too, has its name of."""
    outputs = {x.index for x in tree.flatten(regions.graph.outputs)}
    named = {c.index for c in regions.graph.calls if any(x.index in outputs for x in c.outputs)}
    owners = ((x.call, regions.owner.get(x.node)) for x in regions.identities)
    return [
        call
        for call, owner in owners
        if type(call.operation) is keras.layers.Identity
        and call.index in named
        and (owner is None or owner.call.index in named)
    ]


def _narrowed(regions: Regions, given: Regions) -> tuple[str, ...]:
    """Calls that compute fewer pixels than they did."""
    before = {x.index: x.shape for call in given.graph.calls for x in call.outputs}
    return tuple(
        call.name
        for call in regions.graph.calls
        for x in call.outputs
        if any(
            n is not None and m is not None and n < m
            for n, m in _sizes(x, before.get(x.index, x.shape), regions)
        )
    )


def _sizes(
    tensor: Tensor, before: tuple[int | None, ...], regions: Regions
) -> Iterator[tuple[int | None, int | None]]:
    """Its pixels along each axis, and those of a shape."""
    axes = pixel_axes(regions.graph, tensor)
    return ((tensor.shape[i], before[i]) for i in axes if len(before) == len(tensor.shape))


def _kind(call: Call) -> str:
    return type(call.operation).__name__


def _paces(prices: Prices, before: Cost, after: Cost) -> tuple[Pace, ...]:
    """What the rooflines say of all linear calls, in milliseconds."""
    each = prices.each(before, after)
    return tuple(Pace(roofline.name, 1e3 * had, 1e3 * has) for roofline, had, has in each)


# Layers whose weights multiply each number once, or are looked up.
_LIGHT = (
    keras.layers.Embedding,
    keras.layers.PReLU,
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.UnitNormalization,
)


def _multiplies(call: Call) -> bool:
    """Whether a call that is kept has products with weights in it, which no rule counts."""
    return count_params(call.operation) > 0 and not isinstance(call.operation, _LIGHT)


def _counted(calls: Iterable[Call]) -> int:
    """Of calls, those that count under "layers"."""
    return sum(0 if is_free(call.operation) else 1 for call in calls)


def _weights(graph: Graph) -> int:
    """Weights of all that is called."""
    return sum(map(count_params, {id(c.operation): c.operation for c in graph.calls}.values()))


def _why(lifted: Lifted, form: Original, regions: Regions, plan: Plan) -> str:
    """Why a call is kept: for what keeps from it what it reads, or as there is nothing to merge."""
    apart = next((plan.apart[read] for read in form.reads if read in plan.apart), "")
    if apart:
        return f"of what it reads, {apart}"
    made = {x.dtype for x in lifted.call.inputs if x.index in regions.tensors}
    cast = sorted(made - {lifted.tensor.dtype})
    if cast:
        return f"it casts {cast[0]} to {lifted.tensor.dtype}, and nothing before it merges into it"
    if lifted.activation is not None:
        return "its activation is not linear, and nothing before it merges into it"
    return "nothing before it merges into it"


def _rewritten(lifted: Lifted, kind: str) -> str:
    """What a reason ends in where a kept call becomes a layer of another class."""
    same = kind == type(lifted.call.operation).__name__
    return "" if same else f"; it is written as the {kind} layer that it equals"

"""What the numbers of a plan's kernels show, where that is cheaper.

Sizes choose a plan; its weights are looked at once, when it is found, by the laws of
`kerasfold.inverse.numbers` and `kerasfold.inverse.products`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.operator import Operator
from kerasfold.cost import Objective, objective_of
from kerasfold.forms.evaluate import operator_of
from kerasfold.forms.form import AnyForm
from kerasfold.forms.known import Known
from kerasfold.forms.sharing import shared_layers
from kerasfold.forms.simplified import Simplified, Stage
from kerasfold.inverse.numbers import EXACT, Steps
from kerasfold.inverse.products import STORED, difference, distance, merged
from kerasfold.lift.regions import Regions
from kerasfold.plan.choose import Plan
from kerasfold.plan.search import total

T = TypeVar("T")
Ways: TypeAlias = Callable[[Operator, str], Iterator[Steps]]  # of an operator stored in a dtype


def by_numbers(
    regions: Regions,
    plan: Plan,
    objective: str,
    pinned: Collection[int] = (),
    exactly: bool = False,
) -> Plan:
    """The plan with convolutions as the steps that their numbers show them to be, where it pays.

    Args:
        regions: the lifted model.
        plan: the plan.
        objective: as for `kerasfold.plan.choose.plan`.
        pinned: nodes that stay as they are.
        exactly: whether nothing is taken for a product that is one as stored alone.
    """
    known, aim = Known(regions, pinned, plan.prices), objective_of(objective)
    found = {
        node: better
        for node, form in plan.forms.items()
        if node not in pinned and (better := _simplified(known, aim, form, exactly)) is not None
    }
    for node, form in plan.forms.items():  # calls of a layer all alike, or none
        if node not in found:
            layers = shared_layers(regions, form)
            found = {n: x for n, x in found.items() if not layers & shared_layers(regions, x)}
    if not found:
        return plan
    forms = {**plan.forms, **found}
    return replace(plan, forms=forms, cost=total(forms.values()))


def _simplified(known: Known, aim: Objective, form: AnyForm, exactly: bool) -> AnyForm | None:
    """The form in cheaper steps, or None."""
    try:
        given = Simplified.standing_for(known, form)
    except Refused:
        return None
    if given is None:
        return None
    best = given
    for place in range(len(given.stages)):
        best = _descended(known, aim, best, place, _exact)
        if not exactly:
            best = _as_stored(known, aim, best, place)
    return best if best is not given and _is_better(known, aim, form, best) else None


def _as_stored(known: Known, aim: Objective, exact: Simplified, place: int) -> Simplified:
    """The form with one of its stages in cheaper steps that it is as stored, if there are.

    What is stored is a kernel; what is merged with it goes with the first or the last of its steps.
    """
    nodes = exact.stages[place].nodes
    cores = [i for i in nodes if known.nodes[i].multiplies]
    if len(cores) != 1:
        return exact
    at = nodes.index(cores[0])
    whole, core = operator_of(known.nodes, nodes), operator_of(known.nodes, cores)
    given = exact.taking(known, _with(exact.stages, place, [Stage(nodes, (core,))]))
    found = _descended(known, aim, given, place, _any)
    if found is given:
        return exact
    steps = list(found.stages[place].steps)
    try:
        units = distance((core,), tuple(steps), exact.stored_as(known))
        if nodes[:at]:
            steps[0] = merged(operator_of(known.nodes, nodes[:at]), steps[0])
        if nodes[at + 1 :]:
            steps[-1] = merged(steps[-1], operator_of(known.nodes, nodes[at + 1 :]))
        stage = Stage(nodes, tuple(steps), difference((whole,), tuple(steps)), units)
        best = exact.taking(known, _with(exact.stages, place, [stage]))
    except Refused:
        return exact
    return best if units <= 1 and _is_better(known, aim, exact, best) else exact


def _descended(
    known: Known, aim: Objective, given: Simplified, place: int, ways: Ways
) -> Simplified:
    """The form with one of its stages in other steps, one taken apart after another."""
    dtype, best = given.stored_as(known), given
    while True:
        stage, others = best.stages[place], []
        for at, step in enumerate(stage.steps):
            for instead in ways(step, dtype) if isinstance(step, Operator) else ():
                other = replace(stage, steps=tuple(_with(stage.steps, at, instead)))
                with contextlib.suppress(Refused):
                    others.append(best.taking(known, _with(best.stages, place, [other])))
        better = [other for other in others if _is_better(known, aim, best, other)]
        if not better:
            return best
        best = min(better, key=lambda form: aim.key(form.cost))


def _exact(operator: Operator, dtype: str) -> Iterator[Steps]:
    """What an operator equals bit for bit."""
    for law in EXACT:
        with contextlib.suppress(Refused):
            yield law(operator)


def _any(operator: Operator, dtype: str) -> Iterator[Steps]:
    """What it equals bit for bit, or as stored."""
    yield from _exact(operator, dtype)
    for law in STORED:
        with contextlib.suppress(Refused):
            yield from law(operator, dtype)


def _with(items: Sequence[T], place: int, instead: Sequence[T]) -> list[T]:
    """The items with others in the place of one."""
    return [*items[:place], *instead, *items[place + 1 :]]


def _is_better(known: Known, aim: Objective, before: AnyForm, after: AnyForm) -> bool:
    """Whether a form is cheaper, and where the objective is careful, slower on no runtime."""
    if aim.careful and known.prices.slower(before.cost, after.cost):
        return False
    return aim.key(after.cost) < aim.key(before.cost)

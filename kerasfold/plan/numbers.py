"""What the numbers of a plan's kernels show, where that is cheaper.

Sizes choose a plan; its weights are looked at once, when it is found, by the laws of
`kerasfold.inverse.numbers` and `kerasfold.inverse.products`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.operator import Operator
from kerasfold.cost import Objective, objective_of
from kerasfold.forms.convolved import Convolved
from kerasfold.forms.evaluate import operator_of
from kerasfold.forms.form import AnyForm
from kerasfold.forms.kept import Kept
from kerasfold.forms.known import Known
from kerasfold.forms.sharing import shared_layers
from kerasfold.forms.simplified import Simplified, Stage, stored_as
from kerasfold.inverse.numbers import EXACT, Law, Steps, within
from kerasfold.inverse.products import STORED, difference, distance, merged
from kerasfold.lift.regions import Regions
from kerasfold.plan.choose import Plan
from kerasfold.plan.search import total
from kerasfold.read.model import is_restrained

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
    ways = _ways(known, form, exactly)
    if not _may_be_simplified(known, form, ways[0]):
        return None
    try:
        given = Simplified.standing_for(known, form)
    except Refused:
        return None
    if given is None:
        return None
    best = given
    for place in range(len(given.stages)):
        best = _shown(known, aim, best, place, ways)
    return best if best is not given and _is_better(known, aim, form, best) else None


def _ways(known: Known, form: AnyForm, exactly: bool) -> Sequence[Ways]:
    """The ways to take the kernels of a form apart, the last of them exact.

    One that others are calls of, maybe on images of other sizes, is not cut to the size of its own.
    """
    laws = EXACT if shared_layers(known.regions, form) else (within, *EXACT)
    exact = functools.partial(_exact, laws=laws)
    return (exact,) if exactly else (functools.partial(_any, laws=laws), exact)


def _may_be_simplified(known: Known, form: AnyForm, ways: Ways) -> bool:
    """Whether not all laws refuse the kernels of a form as they are stored.

    Of most they do at a glance, and then nothing is read in float64. A layer that is kept, with
    more to it than weights, is kept as it is.
    """
    nodes = [known.nodes[i] for i in form.visited]
    kernels = [node for node in nodes if node.multiplies]
    if not (type(form) is Convolved or isinstance(form, Kept)) or not kernels:
        return False
    if isinstance(form, Kept) and is_restrained(known.owner[form.node].call.operation):
        return False
    if len(kernels) > 1 if type(form) is Convolved else kernels != nodes:
        return True  # what is composed is stored nowhere
    dtype = stored_as(known, form)
    return any(
        node.geometry.ones or next(ways(node.as_stored(), dtype), None) is not None
        for node in kernels
        if node.geometry is not None
    )


def _shown(
    known: Known, aim: Objective, given: Simplified, place: int, each: Sequence[Ways]
) -> Simplified:
    """The form with one of its stages in the cheapest steps that are found.

    As stored there is one kernel alone: what several are together is stored nowhere.
    """
    composed = len(given.stages[place].core) > 1
    for ways in each[-1:] if composed else each:
        found = _descended(known, aim, given, place, ways)
        if found is given:
            break
        with contextlib.suppress(Refused):
            stage = _whole(known, found, place, is_exact=ways is each[-1])
            return given.taking(known, _with(given.stages, place, [stage]))
    return given


def _whole(known: Known, form: Simplified, place: int, is_exact: bool) -> Stage:
    """A stage with all that is merged into it: into its first step, or its last, or beside them.

    Raises:
        Refused: it does not merge, or is not what is stored.
    """
    stage, nodes = form.stages[place], known.nodes
    steps, units = list(stage.steps), 0.0
    if not is_exact:
        units = distance((operator_of(nodes, stage.core),), stage.steps, stored_as(known, form))
        if units > 1:
            raise Refused("steps that are not what is stored, together")
    first, last = (stage.nodes.index(stage.core[at]) for at in (0, -1))
    if before := stage.nodes[:first]:
        steps[:1] = merged(operator_of(nodes, before), steps[0])
    if behind := stage.nodes[last + 1 :]:
        steps[-1:] = merged(steps[-1], operator_of(nodes, behind))
    missing = difference((operator_of(nodes, stage.nodes),), tuple(steps)) if units else None
    return replace(stage, steps=tuple(steps), missing=missing, units=units)


def _descended(
    known: Known, aim: Objective, given: Simplified, place: int, ways: Ways
) -> Simplified:
    """The form with one of its stages in other steps, one taken apart after another."""
    dtype, best = stored_as(known, given), given
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


def _exact(operator: Operator, dtype: str, laws: Sequence[Law]) -> Iterator[Steps]:
    """What an operator equals bit for bit."""
    for law in laws:
        with contextlib.suppress(Refused):
            yield law(operator)


def _any(operator: Operator, dtype: str, laws: Sequence[Law]) -> Iterator[Steps]:
    """What it equals bit for bit, or as stored."""
    yield from _exact(operator, dtype, laws)
    for law in STORED:
        with contextlib.suppress(Refused):
            yield from law(operator, dtype)


def _with(items: Sequence[T], place: int, instead: Sequence[T]) -> list[T]:
    """The items with others in the place of one."""
    return [*items[:place], *instead, *items[place + 1 :]]


def _is_better(known: Known, aim: Objective, before: AnyForm, after: AnyForm) -> bool:
    """Whether a form is cheaper, and where the objective is careful, slower on no runtime.

    Of an objective the last number decides between plans that are alike; a kernel stays for that.
    """
    if aim.careful and known.prices.slower(before.cost, after.cost):
        return False
    return aim.key(after.cost)[:-1] < aim.key(before.cost)[:-1]

"""Affine program -> the tensors to materialise, each in a form. Sizes only, but for forms that ask.

A plan is a set of materialised nodes. Materialising every call's output is the original model;
materialising the sinks alone collapses everything. `plan` looks for the cheapest set under an
objective, by one of the `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kerasfold.algebra.axis import Refused
from kerasfold.cost import UNTIMED, Cost, Prices, objective_of
from kerasfold.errors import FoldError
from kerasfold.forms.concatenated import Concatenated
from kerasfold.forms.form import AnyForm
from kerasfold.forms.joined import Joined, Sibling, siblings_of
from kerasfold.forms.kept import Kept
from kerasfold.forms.known import Known
from kerasfold.forms.ways import as_it_is
from kerasfold.forms.worth import GAIN, Unshared, growth, replaced, unshared
from kerasfold.lift.program import Node
from kerasfold.lift.regions import Regions
from kerasfold.plan.alike import Chosen, Planned, alike
from kerasfold.plan.methods import METHODS
from kerasfold.plan.search import Forms, Search, With, Without, total
from kerasfold.plan.shared import taken_in


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """A form for each materialised node, in the order of the program.

    Attributes:
        forms: by node.
        apart: for each materialised node that no one outside the affine part needs, why it is
            not merged into what reads it.
        cost: of all forms.
        original: cost of the same calls, kept as they are.
        grown: what forms have much more of than the calls they stand for, and for what gain;
            where the objective is careful about it.
        prices: what costs are priced at.
    """

    forms: Mapping[int, AnyForm]
    apart: Mapping[int, str]
    cost: Cost
    original: Cost
    grown: Mapping[int, str] = field(default_factory=dict)
    prices: Prices = field(default_factory=Prices)


def plan(
    regions: Regions,
    objective: str = "latency",
    materialise: Collection[int] | None = None,
    pinned: Collection[int] = (),
    method: str = "auto",
    prices: Prices | None = None,
    planned: Planned | None = None,
) -> Plan:
    """Choose the tensors to materialise.

    Args:
        regions: the lifted model.
        objective: a key of `OBJECTIVES`, of those that need no stopwatch.
        materialise: exactly these nodes, besides the sinks, instead of a search.
        pinned: nodes that must be materialised, and where they are one call, by that call.
        method: a key of `METHODS`.
        prices: of steps, where the plan is to run; by default where no runtime is told.
        planned: what was planned before for the same objective, method and prices, of this model
            or of another way to write it.

    Raises:
        FoldError: an unknown objective or method, or a set in `materialise` that has no exact
            plan.
    """
    aim = objective_of(objective)
    if aim.is_timed:
        raise FoldError(
            f"objective {objective!r} times ways to compute a model on a runtime, and needs them "
            f"built: call fold(model, objective={objective!r}, runtime=...), or choose one of "
            f"{', '.join(map(repr, UNTIMED))}"
        )
    if materialise is not None:
        aim = replace(aim, careful=False)
    search = Search(regions, aim, frozenset(pinned), prices)
    if method not in METHODS:
        raise FoldError(f"unknown method {method!r}: choose one of {', '.join(map(repr, METHODS))}")
    if materialise is not None:
        wanted = frozenset(materialise)
        return assembled(search, lambda part: search.forced(part, wanted))
    planned = Planned() if planned is None else planned

    def choose(part: Sequence[Node]) -> Chosen:
        return _explained(search, part, loosened(search, METHODS[method](search, part)))

    found = _put_together(search, alike(search, choose, planned))
    found = joined(search, found, aim.embeds)
    found = _of(found, taken_in(search, dict(found.forms)))
    if not aim.careful:
        return found
    parted = [own for own in unshared(search.known, found.forms.values()) if own.growth]
    apart = _alike(search, [own for own in parted if own.gain < GAIN])
    if apart:
        also = {*pinned, *apart}
        again = plan(regions, objective, None, also, method, prices, planned)
        return replace(again, apart={**apart, **again.apart})
    return replace(found, grown=_grown(search, found.forms, parted))


def original_plan(regions: Regions, prices: Prices | None = None) -> Plan:
    """The plan that keeps every call as it is."""
    known = Known(regions, prices=prices)
    forms: Forms = {
        index: as_it_is(known, Kept.of(known, index)) for index in sorted(regions.lifted)
    }
    cost = total(forms.values())
    return Plan(forms, {}, cost, cost, prices=known.prices)


def assembled(search: Search, choose: Callable[[Sequence[Node]], Forms]) -> Plan:
    """The plan of the forms chosen for each component."""
    return _put_together(search, lambda part: _explained(search, part, choose(part)))


def _explained(search: Search, component: Sequence[Node], forms: Forms) -> Chosen:
    """The forms of a component, why they are several, and what it costs as it is."""
    original = total(search.original(component).values())
    return Chosen(forms, _why_apart(search, component, forms), original)


def _put_together(search: Search, choose: Callable[[Sequence[Node]], Chosen]) -> Plan:
    forms: Forms = {}
    apart: dict[int, str] = {}
    original = Cost()
    for component in search.regions.components():
        chosen = choose(component)
        original += chosen.original
        forms |= chosen.forms
        apart |= chosen.apart
    return Plan(
        dict(sorted(forms.items())),
        apart,
        total(forms.values()),
        original,
        prices=search.known.prices,
    )


def loosened(search: Search, forms: Forms) -> Forms:
    """The forms, with what the last call of one reads by itself, where merging it saves nothing."""
    result, tried = dict(forms), list(forms.values())
    while tried:
        form = tried.pop()
        as_read = _as_read(search, form)
        if search.total(as_read) <= search.total({form.node: form}):
            result |= as_read
            continue
        last = set(search.known.owner[form.node].added)
        read = {o for i in last for o in search.nodes[i].operands}
        parts = sorted(read & set(form.visited) - last)
        if not parts:
            continue
        cut, most, apart = With(result, parts), search.total({form.node: form}), Forms()
        for index in (form.node, *parts):  # no further than to the first that costs too much
            part = search.form(index, cut)
            if isinstance(part, Refused):
                break
            apart[index] = part
            if search.total(apart) > most:
                break
        else:
            result |= apart
            tried += apart.values()
    return dict(sorted(result.items()))


def _as_read(search: Search, form: AnyForm) -> Forms:
    """The calls that a form stands for, as they are."""
    ends = [i for i in form.visited if i in search.regions.lifted]
    return {i: as_it_is(search.known, Kept.of(search.known, i)) for i in ends}


def joined(search: Search, plan: Plan, embeds: bool = False) -> Plan:
    """The plan with siblings that read one tensor as one convolution, where that is cheaper.

    Args:
        search: the run of the planner.
        plan: the plan with all siblings apart.
        embeds: whether those of different windows may be one.
    """
    groups: dict[Hashable, dict[Hashable, list[Sibling]]] = {}
    for form in plan.forms.values():
        for place, window, sibling in siblings_of(search.known, form):
            groups.setdefault(place, {}).setdefault(window, []).append(sibling)
    forms = dict(plan.forms)
    for first, *others in (list(group.values()) for group in groups.values()):
        for siblings in (first, *others):
            _join(search, forms, siblings)
        for siblings in others if embeds else ():
            if _join(search, forms, [*first, *siblings]):
                first = [*first, *siblings]
    return _of(plan, forms)


def _of(plan: Plan, forms: Forms) -> Plan:
    """The plan of other forms, of the nodes that it materialises or of some of them."""
    apart = {index: why for index, why in plan.apart.items() if index in forms}
    return replace(plan, forms=forms, apart=apart, cost=total(forms.values()))


def joined_nodes(plan: Plan) -> list[list[int]]:
    """The nodes that are slices of one convolution each, group by group."""
    forms = (form for form in plan.forms.values() if isinstance(form, Joined))
    groups = dict.fromkeys(group for form in forms for group in form.siblings.values())
    return [[x.node for x in group if len(x.form.reads) == 1] for group in groups]


def stacked_nodes(plan: Plan) -> list[list[int]]:
    """The nodes that are put side by side for one convolution, group by group."""
    return [list(form.reads) for form in plan.forms.values() if isinstance(form, Concatenated)]


def _join(search: Search, forms: Forms, siblings: Sequence[Sibling]) -> bool:
    """Make siblings one convolution, if that is cheaper; whether it is."""
    slices = Joined.together(search.known, siblings, forms) if len(siblings) > 1 else None
    if slices is None:
        return False
    apart = {form.node: forms[form.node] for form in slices}
    together: Forms = {form.node: form for form in slices}
    before, after = total(apart.values()), total(together.values())
    if not search.aim.prefers(after, before, search.known.prices):
        return False
    forms |= together
    return True


def _alike(search: Search, parted: Sequence[Unshared]) -> dict[int, str]:
    """What to materialise so that all calls of a layer are merged alike, and why.

    That is what they read; where it is materialised, what they return. Of layers that are merged
    with each other, only for the first: nothing may be left to do for the others.
    """
    apart: dict[int, str] = {}
    seen: set[int] = set()
    for own in parted:
        nodes = {form.node for form in own.forms}
        if not nodes & seen:
            added = (i for call in own.calls for i in search.known.owner[call].added)
            reads = {
                o for i in added for o in search.nodes[i].operands
            } & search.regions.lifted.keys()
            why = f"for some calls of a layer and not for all, merging it would take {own.growth}"
            apart |= dict.fromkeys(sorted(reads - search.fixed or own.calls), why)
        seen |= nodes
    return apart


def _grown(
    search: Search, forms: Mapping[int, AnyForm], parted: Iterable[Unshared]
) -> dict[int, str]:
    """Of forms that grew, what they have more of; the first of those that share no longer."""
    merged = [form for form in forms.values() if not isinstance(form, (Kept, Joined))]
    grown = {f.node: growth(replaced(search.known, f.visited), f.cost) for f in merged}
    for own in parted:
        grown[next(f.node for f in own.forms if f in merged)] = own.growth
    return {node: words for node, words in grown.items() if words}


def _why_apart(
    search: Search, component: Sequence[Node], chosen: Mapping[int, AnyForm]
) -> dict[int, str]:
    """For each optional node that stays: the refusal, or that merging it does not pay."""
    reasons: dict[int, str] = {}
    required = search.required(component)
    for form in chosen.values():
        for read in form.reads:
            if read not in chosen or read in reasons or read in required:
                continue
            reasons[read] = _reason(search.form(form.node, Without(chosen, {read})))
    return reasons


def _reason(merged: AnyForm | Refused) -> str:
    """Why two steps stay two, given what merging them would be."""
    if isinstance(merged, Refused):
        return merged.reason
    if merged.refusal:
        return f"{merged.refusal} (what is exact there does not pay under this objective)"
    return "merging it into what follows does not pay under this objective"

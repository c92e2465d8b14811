"""Components that are alike are planned once: a network repeats its blocks, and is planned anew.

Where a component is, node by node, what one before it was, and weights answer whatever forms asked
of them there in the same way, the tensors that were materialised there are so here too. Their forms
are worked out anew, so they are exact whatever this takes for alike; and if they come to another
price, so is the rest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

from kerasfold.algebra.axis import Refused
from kerasfold.cost import Cost
from kerasfold.forms.form import AnyForm
from kerasfold.forms.kept import Kept
from kerasfold.forms.known import Answers
from kerasfold.lift.program import Node
from kerasfold.lift.regions import Regions
from kerasfold.plan.search import Forms, Search

LEAST = 8  # nodes of a component from which on this takes less time than to plan it


class Chosen(NamedTuple):
    """A form for each node of a component that is materialised.

    Attributes:
        forms: by node.
        apart: for those that no one outside needs, why they are.
        original: what its calls cost as they are.
    """

    forms: Forms
    apart: dict[int, str]
    original: Cost


class _Planned(NamedTuple):
    """What was planned of a component; nodes by their place in it.

    Attributes:
        cut: the nodes that are materialised; with each goes in which form, and its refusal.
        apart: see `Chosen`.
        original: see `Chosen`.
        answers: what forms asked of weights meanwhile.
        price: of all forms, under the objective.
    """

    cut: dict[int, tuple[type[AnyForm], str]]
    apart: dict[int, str]
    original: Cost
    answers: Answers
    price: tuple[float, ...]

    def of(self, search: Search, members: Sequence[int]) -> Chosen | None:
        """The same of other nodes; None where they cost something else."""
        cut, forms = {members[place] for place in self.cut}, Forms()
        for place, (way, refusal) in self.cut.items():
            index = members[place]
            try:
                form = way.propose(search.known, index, tuple(search.visit(index, cut)))
            except Refused:
                return None
            if form is None:
                return None
            forms[index] = replace(form, refusal=refusal) if refusal else form
        if search.total(forms) != self.price:
            return None
        return Chosen(forms, {members[i]: why for i, why in self.apart.items()}, self.original)


@dataclass(frozen=True, slots=True)
class Planned:
    """What was planned under one objective, by one method, for the same prices.

    Attributes:
        same: by the very steps of a component, which other ways to write the model have, too.
        alike: by all but weights that a plan depends on.
        alive: what was planned, so that no identity is given out twice.
    """

    same: dict[Hashable, _Planned] = field(default_factory=dict)
    alike: dict[Hashable, list[_Planned]] = field(default_factory=lambda: defaultdict(list))
    alive: list[Regions] = field(default_factory=list)


def alike(
    search: Search, choose: Callable[[Sequence[Node]], Chosen], planned: Planned
) -> Callable[[Sequence[Node]], Chosen]:
    """What `choose` gives for each component, found once for those that are alike.

    Args:
        search: the run of the planner.
        choose: a form for each node of a component that is materialised.
        planned: what was found before, by the same ways of choosing; there is more of it after.
    """
    planned.alive.append(search.regions)

    def chosen(component: Sequence[Node]) -> Chosen:
        members = [node.index for node in component]
        key = _shape(search, component, _itself)
        before = planned.same.get(key)
        again = None if before is None else before.of(search, members)
        if again is not None:
            return again
        similar = planned.alike[_shape(search, component, _like)] if len(members) >= LEAST else []
        for before in similar:
            if _answered_alike(search, members, before.answers):
                again = before.of(search, members)
                if again is not None:
                    planned.same[key] = before
                    return again
        with search.known.asked() as answers:
            found = choose(component)
        place = {index: i for i, index in enumerate(members)}
        asked = {(form, tuple(place[i] for i in nodes)): x for (form, nodes), x in answers.items()}
        cut = {place[index]: (type(form), form.refusal) for index, form in found.forms.items()}
        apart = {place[index]: why for index, why in found.apart.items()}
        price = search.total(found.forms)
        planned.same[key] = _Planned(cut, apart, found.original, asked, price)
        similar.append(planned.same[key])
        return found

    return chosen


def _answered_alike(search: Search, members: Sequence[int], answers: Answers) -> bool:
    """Whether weights answer all that was asked of others in the same way."""
    for (form, places), before in answers.items():
        try:
            answer = search.known.told(form, tuple(members[place] for place in places))
        except Refused as refusal:
            answer = refusal.reason
        if answer != before:
            return False
    return True


Naming: TypeAlias = Callable[[Search, Node, dict[int, int]], Hashable]


def _itself(search: Search, node: Node, layers: dict[int, int]) -> Hashable:
    """The layer that a node is of, and its weights."""
    return id(search.known.owner[node.index].call.operation), id(node.load)


def _like(search: Search, node: Node, layers: dict[int, int]) -> Hashable:
    """What else a plan depends on of the layer that a node is of; `layers` are numbered."""
    layer = id(search.known.owner[node.index].call.operation)
    is_last = node.index in search.regions.lifted
    cost = Kept.of(search.known, node.index).cost if is_last else None
    return layers.setdefault(layer, len(layers)), cost


def _shape(search: Search, component: Sequence[Node], naming: Naming) -> Hashable:
    """What a plan of a component depends on, its layers named in a way."""
    known, place = search.known, {node.index: i for i, node in enumerate(component)}
    outside: dict[int, int] = {}
    layers: dict[int, int] = {}

    def read(index: int) -> Hashable:
        if index in place:
            return place[index]
        node = search.nodes[index]
        number = outside.setdefault(index, len(outside))
        return number, node.op, node.work, node.geometry, node.sizes, node.channels

    def call(index: int) -> Hashable:
        owner = known.owner[index]
        uses = search.regions.uses[id(owner.call.operation)]
        return naming(search, search.nodes[index], layers), uses, index - owner.start

    return tuple(
        (
            *(node.op, node.work, node.geometry, node.rearrangement, node.factors, node.selected),
            *(node.sizes, node.channels, node.mean, tuple(map(read, node.operands))),
            *(call(node.index), known.readers[node.index]),
            *(node.index in search.fixed, node.index in search.pinned),
        )
        for node in component
    )

"""Components that are alike are planned once: a network repeats its blocks.

Where a component is, node by node, what one before it was, and weights answer whatever forms asked
of them there in the same way, the tensors that were materialised there are so here too. Their forms
are worked out anew, so they are exact whatever this takes for alike; and if they come to another
price, so is the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from kerasfold.algebra.axis import Refused
from kerasfold.forms.kept import Kept
from kerasfold.forms.known import Answers
from kerasfold.lift.program import Node
from kerasfold.plan.search import Forms, Search

LEAST = 8  # nodes of a component from which on this takes less time than to plan it


class _Planned(NamedTuple):
    """What was planned of a component; nodes by their place in it.

    Attributes:
        cut: the nodes that are materialised.
        answers: what forms asked of weights meanwhile.
        price: of all forms, under the objective.
    """

    cut: frozenset[int]
    answers: Answers
    price: tuple[float, ...]


def alike(
    search: Search, choose: Callable[[Sequence[Node]], Forms]
) -> Callable[[Sequence[Node]], Forms]:
    """What `choose` gives for each component, found once for those that are alike.

    Args:
        search: the run of the planner.
        choose: a form for each node of a component that is materialised.
    """
    planned: dict[Hashable, list[_Planned]] = {}

    def chosen(component: Sequence[Node]) -> Forms:
        if len(component) < LEAST:
            return choose(component)
        members = [node.index for node in component]
        shape = _shape(search, component)
        for before in planned.setdefault(shape, []):
            if not _answered_alike(search, members, before.answers):
                continue
            again = search.forms(component, frozenset(members[place] for place in before.cut))
            if again is not None and search.total(again) == before.price:
                return again
        with search.known.asked() as answers:
            forms = choose(component)
        place = {index: i for i, index in enumerate(members)}
        asked = {(form, tuple(place[i] for i in nodes)): x for (form, nodes), x in answers.items()}
        cut = frozenset(place[index] for index in forms)
        planned[shape].append(_Planned(cut, asked, search.total(forms)))
        return forms

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


def _shape(search: Search, component: Sequence[Node]) -> Hashable:
    """What a plan of a component depends on, but for what weights say."""
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
        layer = id(owner.call.operation)
        number = layers.setdefault(layer, len(layers))
        cost = Kept.of(known, index).cost if index in search.regions.lifted else None
        return number, search.regions.uses[layer], index - owner.start, cost

    return tuple(
        (
            *(node.op, node.work, node.geometry, node.rearrangement, node.factors, node.selected),
            *(node.sizes, node.channels, node.mean, tuple(map(read, node.operands))),
            *(call(node.index), known.readers[node.index]),
            *(node.index in search.fixed, node.index in search.pinned),
        )
        for node in component
    )

"""A convolution that several steps read, as slices of one that does their work too.

g1(C x) and g2(C x) are slices of [g1 C; g2 C] x: where the steps select channels, that is no more
work than C x is, and nothing is left of them. What is needed itself is one of the slices.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from kerasfold.algebra.axis import Refused
from kerasfold.forms.convolved import Convolved
from kerasfold.forms.form import AnyForm
from kerasfold.forms.joined import Joined, Sibling, siblings_of
from kerasfold.forms.worth import GAIN, gain, growth
from kerasfold.plan.search import Forms, Search, Without, total


def taken_in(search: Search, forms: Forms) -> Forms:
    """Forms with steps taken into the convolution that they read, where that is cheaper.

    Args:
        search: the run of the planner.
        forms: those with that convolution by itself.
    """
    result, readers = dict(forms), _readers(forms)
    for index in forms:
        if index in result and _multiplies(search, result[index]):
            behind = [_behind(search, result, readers, reader) for reader in readers[index]]
            slices = _slices(search, result, index, behind)
            before = {i: result[i] for i in (index, *itertools.chain(*behind))} if slices else {}
            if slices and _is_cheaper(search, before, slices):
                result = {i: form for i, form in result.items() if i not in before} | slices
    return dict(sorted(result.items()))


def _readers(forms: Forms) -> Mapping[int, Sequence[int]]:
    """The nodes whose forms read each."""
    readers: dict[int, list[int]] = defaultdict(list)
    for index, form in forms.items():
        for read in form.reads:
            readers[read].append(index)
    return readers


def _multiplies(search: Search, form: AnyForm) -> bool:
    return any(search.nodes[i].multiplies for i in form.visited)


def _behind(
    search: Search, forms: Forms, readers: Mapping[int, Sequence[int]], index: int
) -> list[int]:
    """Nodes one after another, each of the one before it alone, that multiply by no matrix."""
    found: list[int] = []
    while not (_multiplies(search, forms[index]) or (found and len(forms[index].reads) > 1)):
        found.append(index)
        if index in search.fixed or len(readers[index]) != 1:
            break
        (index,) = readers[index]
    return found


def _slices(search: Search, forms: Forms, index: int, behind: Sequence[Sequence[int]]) -> Forms:
    """The forms of what is behind a node that take it in, and its own if it is needed; or none."""
    own, needed = forms[index], index in search.fixed
    gone = {index, *itertools.chain(*behind)}
    joined = any(isinstance(forms[i], Joined) for i in gone)
    if joined or not all(behind) or index in search.pinned or len(behind) + needed < 2:
        return {}
    taking, cut = [own] if needed else [], Without(forms, gone)
    for *_, end in behind:
        try:
            form = Convolved.propose(search.known, end, search.visit(end, cut, through=index))
        except Refused:
            return {}
        if form is None:
            return {}
        taking.append(form)
    siblings = _siblings(search, taking)
    if not siblings:
        return {}
    slices = Joined.together(search.known, siblings, _by_node(taking), sliced="cut")
    return _by_node(slices or ())


def _siblings(search: Search, taking: Sequence[AnyForm]) -> list[Sibling]:
    """One of each form, all of which may be one convolution; or none."""
    places: dict[object, list[Sibling]] = defaultdict(list)
    for form in taking:
        for place, window, sibling in siblings_of(search.known, form):
            places[place, window].append(sibling)
    found = [x for x in places.values() if {s.node for s in x} == {f.node for f in taking}]
    return found[0] if found and len(found[0]) == len(taking) else []


def _by_node(forms: Collection[AnyForm]) -> Forms:
    return {form.node: form for form in forms}


def _is_cheaper(search: Search, before: Forms, after: Forms) -> bool:
    """Whether forms cost less than others, and are worth it."""
    had, now = total(before.values()), total(after.values())
    if not search.aim.prefers(now, had, search.known.prices):
        return False
    return not (search.aim.careful and growth(had, now) and gain(had, now) < GAIN)

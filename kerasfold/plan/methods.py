"""The ways to look for the tensors to materialise, from sizes alone.

- 'chain': the shortest path over its tensors where a component is a chain;
- 'beam': a beam search over decisions, and 'exact', the same with no way left out;
- 'descent': drops one tensor, or all operands of a sum, at a time;
- 'auto': whichever of them suits the size of the component.

Each starts from the original, so that none does worse. A method is a function of a `Search` and
a component, and a row of `METHODS`.
"""

from __future__ import annotations

import functools
import heapq
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from kerasfold.algebra.axis import Refused
from kerasfold.cost import Cost
from kerasfold.errors import FoldError
from kerasfold.forms.form import AnyForm
from kerasfold.lift.program import Node
from kerasfold.plan.search import Forms, Search, Without, total

EXHAUSTED = 14  # undecided tensors up to which every way to decide is kept
BEAMED = 64  # undecided tensors up to which some ways are; of more, first what is sure is merged
WAYS = 2048  # ways kept, of all undecided tensors together
LOOKBACK = 16  # links of a chain merged at once; merged links may merge again

_key = attrgetter("key")


class _Pending(NamedTuple):
    """A node that is not materialised and will be read, with all that a reader of it composes."""

    node: int
    composed: frozenset[int]


class _Way(NamedTuple):
    """One way to have decided on the nodes so far; a search makes many of them.

    Attributes:
        key: what `cost` is compared by.
        cost: of the forms it has.
        before: the way it goes on from.
        form: the form of the last node, if that is materialised.
        pending: what is not materialised and will be read.
    """

    key: tuple[float, ...]
    cost: Cost
    before: _Way | None
    form: AnyForm | None
    pending: tuple[_Pending, ...]


def auto(search: Search, component: Sequence[Node]) -> Forms:
    """The cheapest forms found, by what suits the size of the component."""
    optional = search.optional(component)
    if not optional:
        return search.materialised(component)
    if _is_chain(component, search.required(component)):
        return chain(search, component)
    if len(optional) <= EXHAUSTED:
        return exact(search, component)
    start = None if len(optional) <= BEAMED else descent(search, component, _is_sure)
    ways = (descent(search, component), beam(search, component, start=start))
    return min(ways, key=search.total)


def exact(search: Search, component: Sequence[Node]) -> Forms:
    """The cheapest forms there are, in exponential time."""
    return beam(search, component, 2 ** len(search.optional(component)))


def beam(
    search: Search,
    component: Sequence[Node],
    width: int | None = None,
    start: Forms | None = None,
) -> Forms:
    """Decide on one node after another, with the `width` best ways to have decided so far.

    What is still to come depends on the undecided past only through the nodes that it
    would have to compose: of all ways that leave the same nodes, the cheapest is kept.
    So this is exact as long as there are no more than `width` ways; by default as many as `WAYS`
    allows for each undecided tensor. Costs only grow: a way that costs more than a whole plan that
    is known already, of every tensor or of none that need not be there, is not gone on from.

    Args:
        search: the run of the planner.
        component: nodes of the program.
        width: ways that are kept.
        start: the tensors that are undecided or needed; by default what calls return.
    """
    start = start or search.materialised(component)
    undecided = len(start) - len(search.required(component))
    width = width or max(2, WAYS // max(1, undecided))
    merged = search.forms(search.required(component))
    plans = [start] if merged is None else [start, merged]
    most = min(map(search.total, plans))
    last_read = {o: node.index for node in component for o in node.operands}

    @functools.cache
    def cheapest(index: int, composed: frozenset[int]) -> AnyForm | None:
        form = search.cheapest_form(index, sorted(composed)) if index in start else None
        return None if isinstance(form, Refused) else form

    @functools.cache
    def now(pending: _Pending) -> Cost:
        """What it costs to compute it now."""
        form = cheapest(*pending)
        return form.cost if form else total(start[i] for i in pending.composed if i in start)

    def estimate(way: _Way) -> tuple[float, ...]:
        """Cost if whatever is pending were computed now."""
        return search.key(Cost.sum((way.cost, *map(now, way.pending)))) if way.pending else way.key

    ways = [_Way(search.key(Cost()), Cost(), None, None, ())]
    for node in component:
        index = node.index
        decided: dict[tuple[_Pending, ...], _Way] = {}
        for way in ways:
            pending = dict(way.pending)
            here = frozenset({index}).union(*(pending.get(o, ()) for o in node.operands))
            still = tuple([p for p in way.pending if last_read.get(p.node, index) > index])
            options = []
            if index not in search.fixed:
                later = (*still, _Pending(index, here))
                options.append(_Way(way.key, way.cost, way, None, later))
            form = cheapest(index, here)
            if form is not None:
                cost = way.cost + form.cost
                options.append(_Way(search.key(cost), cost, way, form, still))
            for option in options:
                rival = decided.get(option.pending)
                if option.key <= most and (rival is None or option.key < rival.key):
                    decided[option.pending] = option
        ways = list(decided.values())
        if len(ways) > width:  # some for what they will cost at most, some for what they cost
            careful = heapq.nsmallest(width // 2, ways, key=estimate)
            hopeful = heapq.nsmallest(width // 2, ways, key=_key)
            # One in which only the insides of calls are pending can always be gone on from.
            settled = [w for w in ways if all(i not in start for i, _ in w.pending)]
            settled = heapq.nsmallest(1, settled, key=_key)
            ways = list({id(way): way for way in (*careful, *hopeful, *settled)}.values())
    if not ways:  # by a rounding of the sums
        return min(plans, key=search.total)
    best = min(ways, key=_key)
    chosen: Forms = {}
    step: _Way | None = best
    while step is not None:
        if step.form is not None:
            chosen[step.form.node] = step.form
        step = step.before
    return chosen


def chain(search: Search, component: Sequence[Node]) -> Forms:
    """Shortest path over the cut points of a chain, repeated on its own result."""
    if not _is_chain(component, search.required(component)):
        raise FoldError("method 'chain' plans chains: choose 'auto' for a graph that branches")
    chosen = search.materialised(component)
    while True:
        path = _shortest(search, sorted(chosen), chosen)
        if len(path) in (1, len(chosen)):
            return path
        chosen = path


def _shortest(search: Search, cuts: Sequence[int], known: Mapping[int, AnyForm]) -> Forms:
    """The cheapest way along a chain that materialises some of `cuts`, the last included.

    Args:
        search: the run of the planner.
        cuts: nodes that may be materialised, in order.
        known: for each of them, its form when all of them are.
    """
    # cost, cut before, form: the best way to each prefix of the cuts
    ways: list[tuple[Cost, int, AnyForm] | None] = [None]
    for j, end in enumerate(cuts):
        best: tuple[Cost, int, AnyForm] | None = None
        for i in range(j, max(-1, j - LOOKBACK), -1):
            so_far = ways[i]
            if i and so_far is None:
                continue
            step = known[end] if i == j else search.form(end, cuts[max(i - 1, 0) : i])
            if isinstance(step, Refused):
                continue  # a longer step may undo what refuses: a cropping, a padding
            total = step.cost if so_far is None else so_far[0] + step.cost
            if best is None or search.key(total) < search.key(best[0]):
                best = (total, i, step)
        ways.append(best)
    path: Forms = {}
    j = len(cuts)
    while j:
        way = ways[j]
        assert way is not None
        path[way[2].node], j = way[2], way[1]
    return path


def descent(
    search: Search,
    component: Sequence[Node],
    helps: Callable[[Search, Forms, Forms], bool] | None = None,
) -> Forms:
    """Drop tensors while that helps: single ones, and all operands of a sum together.

    Args:
        search: the run of the planner.
        component: nodes of the program.
        helps: whether forms are better than those before; by default where they cost less.
    """
    helps = helps or _costs_less
    chosen = search.materialised(component)
    everything, optional = search.candidates(component), search.optional(component)
    moves = [frozenset({i}) for i in sorted(optional)]
    for node in component:
        if len(node.operands) > 1:
            group = frozenset(_last_cut(search, o, everything) for o in node.operands) & optional
            moves.append(group)
            if node.index in optional:
                moves.append(group | {node.index})
    readers: dict[int, set[int]] = {}
    for index, form in chosen.items():
        for read in form.reads:
            readers.setdefault(read, set()).add(index)
    improved = True
    while improved:
        improved = False
        for move in moves:
            dropped = move & chosen.keys()
            if not dropped or dropped != move:
                continue
            trial = _trial(search, dropped, chosen, readers)
            if trial is None:
                continue
            old = {i: chosen[i] for i in trial.keys() | dropped}
            if helps(search, trial, old):
                for index in old:
                    for read in chosen[index].reads:
                        readers[read].discard(index)
                for index in dropped:
                    del chosen[index]
                chosen |= trial
                for index, better in trial.items():
                    for read in better.reads:
                        readers.setdefault(read, set()).add(index)
                improved = True
    return chosen


def _costs_less(search: Search, now: Forms, had: Forms) -> bool:
    return search.total(now) < search.total(had)


def _is_sure(search: Search, now: Forms, had: Forms) -> bool:
    """Whether forms cost less, and more in no respect: what a plan gains by, whatever is merged."""
    if not _costs_less(search, now, had):
        return False
    after, before = total(now.values()), total(had.values())
    has_more = after.macs > before.macs or after.params > before.params
    return not (has_more or search.known.prices.slower(before, after))


def _trial(
    search: Search,
    dropped: Collection[int],
    chosen: Forms,
    readers: Mapping[int, Collection[int]],
) -> Forms | None:
    """The forms of the nodes' readers without them; None where that is no better.

    A node may have many readers, and what each of them composes of it is done once for each: this
    looks no further than to where that costs as much as the nodes did.

    Args:
        search: the run of the planner.
        dropped: the nodes.
        chosen: the forms so far.
        readers: for each node, those whose forms read it.
    """
    cut, cost = Without(chosen, dropped), Cost()
    before = total(chosen[index] for index in dropped)
    trial: Forms = {}
    for reader in itertools.chain.from_iterable(readers.get(i, ()) for i in dropped):
        if reader in dropped or reader in trial:
            continue
        form = search.form(reader, cut)
        if isinstance(form, Refused):
            return None
        trial[reader] = form
        cost += form.cost
        before += chosen[reader].cost
        if search.key(cost) >= search.key(before):
            return None
    return trial


def _last_cut(search: Search, index: int, everything: frozenset[int]) -> int:
    while index not in everything and search.nodes[index].operands:
        index = search.nodes[index].operands[0]
    return index


def _is_chain(component: Sequence[Node], required: frozenset[int]) -> bool:
    """Whether every node reads one tensor and is read by at most one node."""
    if any(len(n.operands) != 1 for n in component):
        return False
    members = {n.index for n in component}
    inner = [n.operands[0] for n in component if n.operands[0] in members]
    return len(inner) == len(set(inner)) == len(component) - 1 and len(required) == 1


METHODS: dict[str, Callable[[Search, Sequence[Node]], Forms]] = {
    "auto": auto,
    "exact": exact,
    "chain": chain,
    "beam": beam,
    "descent": descent,
}

"""Affine program -> the tensors to materialise. Sizes only: no weight is read here.

A plan is a set of materialised nodes. Each of them becomes a `Segment`: the operators from
the materialised nodes or roots it reads, composed. Materialising every call's output is the
original model; materialising the sinks alone collapses everything. `plan` looks for the
cheapest set under an objective, starting from the original, so it never does worse, by one of
the `METHODS`:

- 'chain': the shortest path over its tensors where a component is a chain;
- 'beam': a beam search over decisions, and 'exact', the same with no way left out;
- 'descent': drops one tensor, or all operands of a sum, at a time;
- 'auto': whichever of them suits the size of the component.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kerasfold.algebra.axis import Refused
from kerasfold.cost import OBJECTIVES, Cost
from kerasfold.errors import FoldError
from kerasfold.forms import Forms
from kerasfold.lift.program import Node
from kerasfold.lift.regions import Regions
from kerasfold.segment import Segment

EXACT = 14  # undecided tensors up to which every way to decide is kept
BEAMED = 64  # undecided tensors up to which some ways are
WIDTH = 256  # ways kept
JOINING = {"latency"}  # objectives under which siblings may become one convolution
LOOKBACK = 16  # links of a chain merged at once; merged links may merge again


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """Segments by node, in the order of the program, and the objective they were chosen for.

    Attributes:
        segments: the materialised nodes.
        held: for each materialised node that no one outside the affine part needs, why.
        cost: of all segments.
        original: cost of the same calls, kept as they are.
    """

    segments: Mapping[int, Segment]
    held: Mapping[int, str]
    cost: Cost
    original: Cost


def plan(
    regions: Regions,
    objective: str = "latency",
    materialise: Collection[int] | None = None,
    held: Collection[int] = (),
    method: str = "auto",
) -> Plan:
    """Choose the tensors to materialise.

    Args:
        regions: the lifted model.
        objective: a key of `OBJECTIVES`.
        materialise: exactly these nodes, besides the sinks, instead of a search.
        held: nodes that must be materialised, and where they are one call, by that call.
        method: a key of `METHODS`.

    Raises:
        FoldError: an unknown objective or method, or a set in `materialise` that has no exact
            plan.
    """
    search = Search(regions, key_of(objective), frozenset(held))
    if method not in METHODS:
        raise FoldError(f"unknown method {method!r}: choose one of {', '.join(map(repr, METHODS))}")
    if materialise is None:
        found = search.plan(lambda component: METHODS[method](search, component))
        return search.joined(found) if objective in JOINING else found
    return search.plan(lambda component: search.forced(component, frozenset(materialise)))


def key_of(objective: Any) -> Callable[[Cost], tuple[float, ...]]:
    """What an objective compares costs by. Raises `FoldError` where there is no such objective."""
    if not isinstance(objective, str) or objective not in OBJECTIVES:
        raise FoldError(
            f"unknown objective {objective!r}: choose one of {', '.join(map(repr, OBJECTIVES))}"
        )
    return OBJECTIVES[objective]


def original_plan(regions: Regions) -> Plan:
    """The plan that keeps every call as it is."""
    forms = Forms(regions)
    segments = {index: forms.kept(index) for index in sorted(regions.lifted)}
    cost = sum((s.cost for s in segments.values()), Cost())
    return Plan(segments, {}, cost, cost)


@dataclass(frozen=True, eq=False, slots=True)
class _Way:
    """One way to have decided on the nodes so far.

    Attributes:
        cost: of the segments it has.
        before: the way it goes on from.
        segment: the segment of the last node, if that is materialised.
        pending: nodes that are not materialised and will be read, with all nodes that a
            reader of them composes.
    """

    cost: Cost
    before: _Way | None
    segment: Segment | None
    pending: tuple[tuple[int, frozenset[int]], ...]


class Search:
    """One run of the planner: the program, the objective, and costs already worked out."""

    def __init__(
        self, regions: Regions, key: Callable[[Cost], tuple], held: frozenset[int]
    ) -> None:
        self.regions = regions
        self.nodes = regions.program.nodes
        self.forms = Forms(regions, held)
        self.key = key
        self.held = held
        self.fixed = regions.sinks | held

    def candidates(self, component: Sequence[Node]) -> frozenset[int]:
        """Nodes that may be materialised: what calls return."""
        return frozenset(n.index for n in component if n.index in self.regions.lifted)

    def required(self, component: Sequence[Node]) -> frozenset[int]:
        """Nodes that must be materialised."""
        return frozenset(n.index for n in component if n.index in self.fixed)

    def total(self, segments: Mapping[int, Segment]) -> tuple[float, ...]:
        """The objective of a set of segments."""
        return self.key(sum((s.cost for s in segments.values()), Cost()))

    def segments(self, component: Sequence[Node], cut: frozenset[int]) -> dict[int, Segment] | None:
        """A segment for each node of `cut`, or None where one has no exact form."""
        result = {}
        for index in sorted(cut):
            segment = self.segment(index, cut)
            if isinstance(segment, Refused):
                return None
            result[index] = segment
        return result

    def visit(self, target: int, cut: Container[int]) -> list[int]:
        """Nodes to compose for `target`, in order: those between it and `cut` or the roots."""
        seen, stack = {target}, [target]
        while stack:
            for operand in self.nodes[stack.pop()].operands:
                if operand in seen or operand in cut or operand in self.fixed:
                    continue
                if self.nodes[operand].form != "root":
                    seen.add(operand)
                    stack.append(operand)
        return sorted(seen)

    def segment(self, index: int, cut: Container[int]) -> Segment | Refused:
        """The cheapest form of one node, given what is materialised before it."""
        return self.cheapest_form(index, self.visit(index, cut))

    def cheapest_form(self, index: int, visited: Sequence[int]) -> Segment | Refused:
        """The cheapest way to compute `visited`, of which `index` is the last."""
        best, refusal = None, Refused("")
        for form in self.forms.of(index, visited):
            if isinstance(form, Refused):
                refusal = form
            elif best is None or self.key(form.cost) < self.key(best.cost):
                best = form  # the first, where equal
        if best is None:
            return refusal
        return replace(best, refusal=refusal.reason) if refusal.reason else best

    def plan(self, choose: Callable[[Sequence[Node]], dict[int, Segment]]) -> Plan:
        """The plan of the segments chosen for each component."""
        segments: dict[int, Segment] = {}
        reasons: dict[int, str] = {}
        original = Cost()
        for component in self.regions.components():
            original = sum((s.cost for s in self.original(component).values()), original)
            chosen = choose(component)
            segments |= chosen
            reasons |= self.why_held(component, chosen)
        cost = sum((s.cost for s in segments.values()), Cost())
        return Plan(dict(sorted(segments.items())), reasons, cost, original)

    def joined(self, plan: Plan) -> Plan:
        """The plan with siblings that read one tensor as one convolution, where that is cheaper."""
        groups: dict[Any, list[Segment]] = {}
        for segment in plan.segments.values():
            found = self.forms.sibling(segment)
            if found is not None:
                groups.setdefault(found[0], []).append(found[1])
        segments = dict(plan.segments)
        for siblings in (group for group in groups.values() if len(group) > 1):
            apart = {s.node: plan.segments[s.node] for s in siblings}
            together = {s.node: s for s in self.forms.joined(siblings)}
            if self.total(together) < self.total(apart):
                segments |= together
        cost = sum((s.cost for s in segments.values()), Cost())
        return replace(plan, segments=segments, cost=cost)

    def original(self, component: Sequence[Node]) -> dict[int, Segment]:
        """Every call of a component as it is."""
        return {index: self.forms.kept(index) for index in sorted(self.candidates(component))}

    def materialised(self, component: Sequence[Node]) -> dict[int, Segment]:
        """Every call's output materialised: where a search starts."""
        start = self.segments(component, self.candidates(component))
        assert start is not None, "every call may be kept"
        return start

    def forced(self, component: Sequence[Node], materialise: frozenset[int]) -> dict[int, Segment]:
        """Segments that materialise, besides the sinks, only given nodes. Raises `FoldError`."""
        wanted = self.required(component) | self.candidates(component) & materialise
        segments = self.segments(component, wanted)
        if segments is None:
            raise FoldError(f"no exact plan materialises only nodes {sorted(wanted)}")
        return segments

    def optional(self, component: Sequence[Node]) -> frozenset[int]:
        """Nodes that may be materialised or not."""
        return self.candidates(component) - self.required(component)

    def every(self, component: Sequence[Node], most: int) -> Iterator[dict[int, Segment]]:
        """Every way to compute a component: each set to materialise, in each of its forms.

        Args:
            component: nodes of the program.
            most: sets, and ways, that are looked at.
        """
        required, optional = self.required(component), sorted(self.optional(component))
        subsets = itertools.islice(
            itertools.chain.from_iterable(
                itertools.combinations(optional, count) for count in range(len(optional) + 1)
            ),
            most,
        )
        ways = (
            dict(zip(sorted(cut), segments, strict=True))
            for cut in (required.union(subset) for subset in subsets)
            for segments in itertools.product(
                *(
                    [f for f in self.forms.of(i, self.visit(i, cut)) if isinstance(f, Segment)]
                    for i in sorted(cut)
                )
            )
        )
        return itertools.islice(ways, most)

    def auto(self, component: Sequence[Node]) -> dict[int, Segment]:
        """The cheapest segments found, by what suits the size of the component."""
        optional = self.optional(component)
        if not optional:
            return self.materialised(component)
        if _is_chain(component, self.required(component)):
            return self.chain(component)
        if len(optional) <= EXACT:
            return self.exact(component)
        ways = [self.descent(component)]
        if len(optional) <= BEAMED:
            ways.append(self.beam(component))
        return min(ways, key=self.total)

    def exact(self, component: Sequence[Node]) -> dict[int, Segment]:
        """The cheapest segments there are, in exponential time."""
        return self.beam(component, 2 ** len(self.optional(component)))

    def beam(self, component: Sequence[Node], width: int = WIDTH) -> dict[int, Segment]:
        """Decide on one node after another, with the `width` best ways to have decided so far.

        What is still to come depends on the undecided past only through the nodes that it
        would have to compose: of all ways that leave the same nodes, the cheapest is kept.
        So this is exact as long as there are no more than `width` ways.
        """
        start = self.materialised(component)
        last_read = {o: node.index for node in component for o in node.operands}
        known: dict[tuple[int, frozenset[int]], Segment | Refused] = {}

        def form(index: int, pending: frozenset[int]) -> Segment | Refused:
            if (index, pending) not in known:
                known[index, pending] = self.cheapest_form(index, sorted(pending))
            return known[index, pending]

        def estimate(way: _Way) -> tuple[float, ...]:
            """Cost if whatever is pending were computed now."""
            total = way.cost
            for index, pending in way.pending:
                segment = form(index, pending) if index in start else Refused("")
                if isinstance(segment, Refused):
                    total = sum((start[i].cost for i in pending if i in start), total)
                else:
                    total += segment.cost
            return self.key(total)

        ways = [_Way(Cost(), None, None, ())]
        for node in component:
            index = node.index
            decided: dict[tuple[tuple[int, frozenset[int]], ...], _Way] = {}
            for way in ways:
                pending = dict(way.pending)
                here = frozenset({index}).union(*(pending.get(o, ()) for o in node.operands))
                still = [(o, p) for o, p in way.pending if last_read.get(o, index) > index]
                options = []
                if index not in self.fixed:
                    options.append(_Way(way.cost, way, None, (*still, (index, here))))
                if index in start:
                    segment = form(index, here)
                    if not isinstance(segment, Refused):
                        options.append(_Way(way.cost + segment.cost, way, segment, (*still,)))
                for option in options:
                    rival = decided.get(option.pending)
                    if rival is None or self.key(option.cost) < self.key(rival.cost):
                        decided[option.pending] = option
            ways = list(decided.values())
            if len(ways) > width:  # some for what they will cost at most, some for what they cost
                careful = heapq.nsmallest(width // 2, ways, key=estimate)
                hopeful = heapq.nsmallest(width // 2, ways, key=lambda way: self.key(way.cost))
                # One in which only the insides of calls are pending can always be gone on from.
                settled = [w for w in ways if all(i not in start for i, _ in w.pending)]
                settled = heapq.nsmallest(1, settled, key=lambda way: self.key(way.cost))
                ways = list({id(way): way for way in (*careful, *hopeful, *settled)}.values())
        best = min(ways, key=lambda way: self.key(way.cost))
        chosen: dict[int, Segment] = {}
        step: _Way | None = best
        while step is not None:
            if step.segment is not None:
                chosen[step.segment.node] = step.segment
            step = step.before
        return chosen

    def chain(self, component: Sequence[Node]) -> dict[int, Segment]:
        """Shortest path over the cut points of a chain, repeated on its own result."""
        if not _is_chain(component, self.required(component)):
            raise FoldError("method 'chain' plans chains: choose 'auto' for a graph that branches")
        chosen = self.materialised(component)
        while True:
            path = self._shortest(sorted(chosen), chosen)
            if len(path) in (1, len(chosen)):
                return path
            chosen = path

    def _shortest(self, cuts: Sequence[int], known: Mapping[int, Segment]) -> dict[int, Segment]:
        """The cheapest way along a chain that materialises some of `cuts`, the last included.

        Args:
            cuts: nodes that may be materialised, in order.
            known: for each of them, its segment when all of them are.
        """
        # cost, cut before, segment: the best way to each prefix of the cuts
        ways: list[tuple[Cost, int, Segment] | None] = [None]
        for j, end in enumerate(cuts):
            best: tuple[Cost, int, Segment] | None = None
            for i in range(j, max(-1, j - LOOKBACK), -1):
                so_far = ways[i]
                if i and so_far is None:
                    continue
                step = known[end] if i == j else self.segment(end, cuts[max(i - 1, 0) : i])
                if isinstance(step, Refused):
                    continue  # a longer step may undo what refuses: a cropping, a padding
                total = step.cost if so_far is None else so_far[0] + step.cost
                if best is None or self.key(total) < self.key(best[0]):
                    best = (total, i, step)
            ways.append(best)
        path: dict[int, Segment] = {}
        j = len(cuts)
        while j:
            way = ways[j]
            assert way is not None
            path[way[2].node], j = way[2], way[1]
        return path

    def descent(self, component: Sequence[Node]) -> dict[int, Segment]:
        """Drop tensors while that helps: single ones, and all operands of a sum together."""
        chosen = self.materialised(component)
        everything, optional = self.candidates(component), self.optional(component)
        moves = [frozenset({i}) for i in sorted(optional)]
        for node in component:
            if len(node.operands) > 1:
                group = frozenset(self._last_cut(o, everything) for o in node.operands) & optional
                moves.append(group)
                if node.index in optional:
                    moves.append(group | {node.index})
        readers: dict[int, set[int]] = {}
        for index, segment in chosen.items():
            for read in segment.terms:
                readers.setdefault(read, set()).add(index)
        improved = True
        while improved:
            improved = False
            for move in moves:
                dropped = move & chosen.keys()
                if not dropped or dropped != move:
                    continue
                affected, stack = set(), list(dropped)
                while stack:
                    for reader in readers.get(stack.pop(), ()):
                        if reader in dropped:
                            stack.append(reader)
                        else:
                            affected.add(reader)
                cut = _Without(chosen, dropped)
                trial = {i: self.segment(i, cut) for i in affected}
                if any(isinstance(s, Refused) for s in trial.values()):
                    continue
                old = {i: chosen[i] for i in affected | dropped}
                if self.total(trial) < self.total(old):  # type: ignore[arg-type]
                    for index in old:
                        for read in chosen[index].terms:
                            readers[read].discard(index)
                    for index in dropped:
                        del chosen[index]
                    for index, better in trial.items():
                        assert isinstance(better, Segment)
                        chosen[index] = better
                        for read in better.terms:
                            readers.setdefault(read, set()).add(index)
                    improved = True
        return chosen

    def _last_cut(self, index: int, everything: frozenset[int]) -> int:
        while index not in everything and self.nodes[index].operands:
            index = self.nodes[index].operands[0]
        return index

    def why_held(self, component: Sequence[Node], chosen: Mapping[int, Segment]) -> dict[int, str]:
        """For each optional node that stays: the refusal, or that merging it does not pay."""
        reasons: dict[int, str] = {}
        required = self.required(component)
        for segment in chosen.values():
            for read in segment.terms:
                if read not in chosen or read in reasons or read in required:
                    continue
                trial = self.segment(segment.node, _Without(chosen, {read}))
                reasons[read] = _reason(trial)
        return reasons


METHODS: dict[str, Callable[[Search, Sequence[Node]], dict[int, Segment]]] = {
    "auto": Search.auto,
    "exact": Search.exact,
    "chain": Search.chain,
    "beam": Search.beam,
    "descent": Search.descent,
}


def _reason(merged: Segment | Refused) -> str:
    """Why two steps stay two, given what merging them would be."""
    if isinstance(merged, Refused):
        return merged.reason
    if merged.refusal:
        return f"{merged.refusal} (what is exact there does not pay under this objective)"
    return "merging it into what follows does not pay under this objective"


class _Without:
    """Membership in a large set less a few, at no copy."""

    def __init__(self, members: Collection[int], dropped: Collection[int]) -> None:
        self.members, self.dropped = members, dropped

    def __contains__(self, index: object) -> bool:
        return index in self.members and index not in self.dropped


def _is_chain(component: Sequence[Node], required: frozenset[int]) -> bool:
    """Whether every node reads one tensor and is read by at most one node."""
    if any(len(n.operands) != 1 for n in component):
        return False
    members = {n.index for n in component}
    inner = [n.operands[0] for n in component if n.operands[0] in members]
    return len(inner) == len(set(inner)) == len(component) - 1 and len(required) == 1

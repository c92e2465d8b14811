"""Affine program -> the tensors to materialise. Sizes only: no weight is read here.

A plan is a set of materialised nodes. Each of them becomes a `Segment`: the operators from
the materialised nodes or roots it reads, composed. Materialising every call's output is the
original model; materialising the sinks alone collapses everything. `plan` looks for the
cheapest set under an objective, starting from the original, so it never does worse:

- exact dynamic programming where a component is a chain;
- every subset where a component has few tensors;
- otherwise a descent that drops one tensor, or all operands of a sum, at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, replace

from kerasfold.affine import Node
from kerasfold.conv import Refused
from kerasfold.cost import OBJECTIVES, Cost
from kerasfold.errors import FoldError
from kerasfold.forms import Forms
from kerasfold.region import Regions
from kerasfold.segment import Segment

EXHAUSTIVE = 9  # tensors up to which every subset is tried
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
) -> Plan:
    """Choose the tensors to materialise.

    Args:
        regions: the lifted model.
        objective: a key of `OBJECTIVES`.
        materialise: exactly these nodes, besides the sinks, instead of a search.
        held: nodes that must be materialised.

    Raises:
        FoldError: an unknown objective, or a set in `materialise` that has no exact plan.
    """
    if not isinstance(objective, str) or objective not in OBJECTIVES:
        raise FoldError(
            f"unknown objective {objective!r}: choose one of {', '.join(map(repr, OBJECTIVES))}"
        )
    search = _Search(regions, OBJECTIVES[objective], frozenset(held))
    segments: dict[int, Segment] = {}
    reasons: dict[int, str] = {}
    original = Cost()
    for component in regions.components():
        everything = search.candidates(component)
        original = sum((search.forms.kept(index).cost for index in everything), original)
        start = search.segments(component, everything)
        assert start is not None, "every call may be kept"
        if materialise is None:
            chosen = search.cheapest(component, everything, start)
        else:
            wanted = search.required(component) | everything & frozenset(materialise)
            forced = search.segments(component, wanted)
            if forced is None:
                raise FoldError(f"no exact plan materialises only nodes {sorted(wanted)}")
            chosen = forced
        segments |= chosen
        reasons |= search.why_held(component, chosen)
    cost = sum((s.cost for s in segments.values()), Cost())
    return Plan(dict(sorted(segments.items())), reasons, cost, original)


def original_plan(regions: Regions) -> Plan:
    """The plan that keeps every call as it is."""
    forms = Forms(regions)
    segments = {index: forms.kept(index) for index in sorted(regions.lifted)}
    cost = sum((s.cost for s in segments.values()), Cost())
    return Plan(segments, {}, cost, cost)


class _Search:
    """One run of the planner: the program, the objective, and costs already worked out."""

    def __init__(
        self, regions: Regions, key: Callable[[Cost], tuple], held: frozenset[int]
    ) -> None:
        self.regions = regions
        self.nodes = regions.program.nodes
        self.forms = Forms(regions)
        self.key = key
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
        best, refusal = None, Refused("")
        for form in self.forms.of(index, self.visit(index, cut)):
            if isinstance(form, Refused):
                refusal = form
            elif best is None or self.key(form.cost) < self.key(best.cost):
                best = form  # the first, where equal
        if best is None:
            return refusal
        return replace(best, refusal=refusal.reason) if refusal.reason else best

    def cheapest(
        self, component: Sequence[Node], everything: frozenset[int], start: dict[int, Segment]
    ) -> dict[int, Segment]:
        """The cheapest segments found for one component; `start` are the original calls."""
        required = self.required(component)
        optional = everything - required
        if not optional:
            return start
        if _is_chain(component, required):
            return self._chain(everything, start)
        if len(optional) <= EXHAUSTIVE:
            return self._exhaustive(component, required, sorted(optional), start)
        return self._descent(component, everything, required, start)

    def _exhaustive(
        self,
        component: Sequence[Node],
        required: frozenset[int],
        optional: Sequence[int],
        start: dict[int, Segment],
    ) -> dict[int, Segment]:
        best, best_key = start, self.total(start)
        known: dict[tuple[int, frozenset[int]], Segment | Refused] = {}
        before = {i: frozenset(self.visit(i, ())) for i in (*required, *optional)}
        for size in range(len(optional) - 1, -1, -1):
            for subset in itertools.combinations(optional, size):
                cut = required | frozenset(subset)
                trial: dict[int, Segment] = {}
                for index in cut:
                    place = (index, cut & before[index])
                    if place not in known:
                        known[place] = self.segment(index, cut)
                    segment = known[place]
                    if isinstance(segment, Refused):
                        break
                    trial[index] = segment
                else:
                    key = self.total(trial)
                    if key < best_key:
                        best, best_key = trial, key
        return best

    def _chain(self, everything: frozenset[int], start: dict[int, Segment]) -> dict[int, Segment]:
        """Shortest path over the cut points of a chain, repeated on its own result."""
        chosen = start
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
                    break  # a longer step contains the same refused composition
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

    def _descent(
        self,
        component: Sequence[Node],
        everything: frozenset[int],
        required: frozenset[int],
        start: dict[int, Segment],
    ) -> dict[int, Segment]:
        """Drop tensors while that helps: single ones, and all operands of a sum together."""
        chosen = dict(start)
        optional = everything - required
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

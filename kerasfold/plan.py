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
from collections import Counter
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from kerasfold.affine import Node
from kerasfold.conv import Geometry, Refused, compose_geometry
from kerasfold.cost import BYTES, OBJECTIVES, PER_CALL, Cost, moved_bytes, operator_cost
from kerasfold.errors import FoldError
from kerasfold.express import check_emittable, is_free, is_separable
from kerasfold.region import Lifted, Regions
from kerasfold.segment import (
    Flattened,
    Segment,
    Sizes,
    apply,
    at_sizes,
    evaluate,
    framed_geometries,
    sizes_without,
)

EXHAUSTIVE = 9  # tensors up to which every subset is tried
MOST_BRANCHED = 256  # steps composed at once where they branch
MOST_STAGES = 4  # steps a border may take
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
        original = sum((search.kept(index).cost for index in everything), original)
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
    search = _Search(regions, OBJECTIVES["latency"], frozenset())
    segments = {index: search.kept(index) for index in sorted(regions.lifted)}
    cost = sum((s.cost for s in segments.values()), Cost())
    return Plan(segments, {}, cost, cost)


class _Search:
    """One run of the planner: the program, the objective, and costs already worked out."""

    def __init__(
        self, regions: Regions, key: Callable[[Cost], tuple], held: frozenset[int]
    ) -> None:
        self.regions = regions
        self.nodes = regions.program.nodes
        self.key = key
        self.fixed = regions.sinks | held
        self.calls_of = Counter(id(call.operation) for call in regions.graph.calls)
        self.owner = {i: lifted for lifted in regions.lifted.values() for i in lifted.added}
        self.keep_costs: dict[int, Cost] = {}
        self.paths: dict[tuple[int, int], dict[int, Any] | Refused | None] = {}

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
        visited = self.visit(index, cut)
        forms: list[Segment] = []
        if all(i in self.owner[index].added for i in visited):
            forms.append(self.kept(index))
            if len(visited) == 1 and not self._is_pool(index):
                return forms[0]
        refusal = Refused("")
        try:
            terms = self._terms(visited)
            self._check_emission(terms)
            forms.append(self._operator_form(index, terms, visited))
        except Refused as reason:
            refusal = reason
            framed = self._framed_form(index, visited)
            if framed is not None:
                forms.append(framed)
        separable = self._separable_form(index, visited)
        if separable is not None:
            forms.append(separable)
        forms.extend(self._pooled_forms(index, visited))
        if not forms:
            return refusal
        best = min(forms, key=lambda form: self.key(form.cost))  # the first, where equal
        return replace(best, refusal=refusal.reason) if refusal.reason else best

    def _terms(self, visited: Sequence[int]) -> dict[int, Any]:
        """What `evaluate` gives; along a path, from what is known of its beginning."""
        if not self._is_path(visited):
            if len(visited) > MOST_BRANCHED:
                raise Refused(f"more than {MOST_BRANCHED} steps at once in branches")
            return evaluate(self.nodes, visited, Sizes)
        first = visited[0]
        known = next(
            (k for k in range(len(visited), 0, -1) if (first, visited[k - 1]) in self.paths), 0
        )
        terms = self.paths[first, visited[known - 1]] if known else None
        for index in visited[known:]:
            if not isinstance(terms, Refused):
                try:
                    inner = {self.nodes[index].operands[0]: None} if terms is None else terms
                    terms = apply(self.nodes[index], [inner], self.nodes, Sizes)
                except Refused as refusal:
                    terms = refusal
            self.paths[first, index] = terms
        if isinstance(terms, Refused):
            raise terms
        assert terms is not None
        return terms

    def kept(self, index: int) -> Segment:
        """The call that ends in a node, as it is."""
        lifted = self.owner[index]
        inner = tuple(lifted.added)
        reads = {o for i in inner for o in self.nodes[i].operands} - set(inner)
        return Segment(index, "keep", dict.fromkeys(sorted(reads)), inner, self.keep_cost(lifted))

    def _is_pool(self, index: int) -> bool:
        geometry = self.nodes[index].geometry
        return (
            self.nodes[index].weightless
            and geometry is not None
            and max(geometry.taps, default=1) > 1
        )

    def _operator_form(
        self, index: int, terms: dict[int, Geometry | None], visited: Sequence[int]
    ) -> Segment:
        shared = self._shared(visited)
        costs = [operator_cost(g, shared) for g in terms.values() if g is not None]
        if len(terms) > 1:
            node = self.nodes[index]
            moved = (len(terms) + 1) * moved_bytes(node.sizes, node.channels)
            costs.append(Cost(layers=1, seconds=moved / BYTES + PER_CALL))
        return Segment(index, "operator", terms, tuple(visited), sum(costs, Cost()))

    def _shared(self, visited: Sequence[int]) -> int:
        """Calls that can share the weights of a segment of these nodes."""
        calls = {self.owner[i].call.index: id(self.owner[i].call.operation) for i in visited}
        used = Counter(calls.values())
        return min(self.calls_of[operation] // count for operation, count in used.items())

    def _separable_form(self, index: int, visited: Sequence[int]) -> Segment | None:
        """Depthwise up to the inside of a SeparableConv, pointwise after it."""
        if not self._is_path(visited):
            return None
        hidden = [i for i in visited[:-1] if i not in self.regions.lifted and i in self.owner]
        for middle in hidden:
            before = [i for i in visited if i <= middle]
            after = [i for i in visited if i > middle]
            try:
                ((root, first),) = evaluate(self.nodes, before, Sizes).items()
                ((_, last),) = evaluate(self.nodes, after, Sizes).items()
            except Refused:
                continue
            if not is_separable(first, last):
                continue
            shared = self._shared(visited)
            one, two = operator_cost(first, shared), operator_cost(last, shared)
            cost = replace(one + two, layers=1)
            return Segment(index, "separable", {root: first}, tuple(visited), cost, middle)
        return None

    def _pooled_forms(self, index: int, visited: Sequence[int]) -> list[Segment]:
        """An average or an interpolation keeps constants: it commutes with pointwise operators."""
        pools = [i for i in visited if self._is_pool(i)]
        if len(pools) != 1 or len(visited) < 2 or not self._is_path(visited):
            return []
        (pool,) = pools
        geometry = self.nodes[pool].geometry
        assert geometry is not None
        plain = self.nodes[pool].form in ("pool", "resize") or (
            geometry.is_steady
            and not geometry.vector
            and not any(axis.crop[0] for axis in geometry.axes)
        )
        if not plain or pool not in self.regions.lifted:
            return []
        root = self.nodes[visited[0]].operands[0]
        forms = []
        for pool_first in (False, True):
            sizes = sizes_without(self.nodes, visited, pool, pool_first)
            links = []
            for i, size in zip((i for i in visited if i != pool), sizes, strict=True):
                link = self.nodes[i].geometry
                assert link is not None
                if size is not None and not (link.axes and link.is_pointwise):
                    break
                links.append(at_sizes(link, size))
            else:
                try:
                    whole = links[0]
                    for link in links[1:]:
                        whole = compose_geometry(link, whole)
                    check_emittable(whole)
                except Refused:
                    continue
                if whole.ones or whole.vector:
                    continue
                channels = self.nodes[root if pool_first else visited[-1]].channels
                read = operator_cost(
                    replace(geometry, channels=(channels,) * 2, groups=channels), weightless=True
                )
                pooling = Cost(layers=1, unconvolved=1, macs=read.macs, seconds=read.seconds)
                cost = (
                    operator_cost(whole, self._shared([i for i in visited if i != pool])) + pooling
                )
                forms.append(
                    Segment(
                        index,
                        "pooled",
                        {root: whole},
                        tuple(visited),
                        cost,
                        pool,
                        pool_first=pool_first,
                    )
                )
        return forms

    def _is_path(self, visited: Sequence[int]) -> bool:
        """Whether the nodes are operators or pools, each reading the one before it."""
        return all(self.nodes[i].form in ("operator", "pool", "resize") for i in visited) and all(
            self.nodes[after].operands[0] == before for before, after in itertools.pairwise(visited)
        )

    def _framed_form(self, index: int, visited: Sequence[int]) -> Segment | None:
        """The interior in one step, the border in as few exact steps as there are."""
        if not self._is_path(visited) or any(self.nodes[i].form != "operator" for i in visited):
            return None
        stages: list[list[int]] = []
        steps: list[Geometry] = []
        for i in visited:
            geometry = self.nodes[i].geometry
            assert geometry is not None
            if steps:
                try:
                    joined = compose_geometry(geometry, steps[-1])
                except Refused:
                    joined = None
                if joined is not None and not joined.ones:
                    stages[-1].append(i)
                    steps[-1] = joined
                    continue
            if len(stages) == MOST_STAGES:
                return None
            stages.append([i])
            steps.append(geometry)
        try:
            inner, strips = framed_geometries(steps)
            whole = inner[0]
            for geometry in inner[1:]:
                whole = compose_geometry(geometry, whole)
            for geometry in (whole, *steps):
                check_emittable(geometry)
        except Refused:
            return None
        if whole.ones or whole.vector:
            return None
        shared = self._shared(visited)
        cost = operator_cost(whole, shared)
        for position, geometry in enumerate(steps):
            cost += Cost(params=geometry.params / shared)
            for _, _, strip in strips:
                cost += replace(operator_cost(strip[position]), params=0.0)
        node = self.nodes[index]
        # Cutting the strips out and joining them with the interior.
        joins = (len(strips) * len(steps) + 2 * len(strips)) * PER_CALL
        moved = 2 * len(node.sizes) * moved_bytes(node.sizes, node.channels) / BYTES
        cost += Cost(seconds=joins + moved)
        root = self.nodes[visited[0]].operands[0]
        return Segment(
            index, "framed", {root: whole}, tuple(visited), cost, stages=tuple(map(tuple, stages))
        )

    def _check_emission(self, terms: Mapping[int, Any]) -> None:
        for geometry in terms.values():
            if isinstance(geometry, Flattened):
                raise Refused("a flattened image is not a convolution's output")
            if geometry is not None:
                check_emittable(geometry)

    def keep_cost(self, lifted: Lifted) -> Cost:
        """Cost of an original call."""
        cost = self.keep_costs.get(lifted.call.index)
        if cost is None:
            cost = self.keep_costs[lifted.call.index] = self._keep_cost(lifted)
        return cost

    def _keep_cost(self, lifted: Lifted) -> Cost:
        layer = lifted.call.operation
        params = (
            layer.count_params() / self.calls_of[id(layer)] if isinstance(layer, keras.Layer) else 0
        )
        macs, seconds, unconvolved = 0.0, 0.0, 0
        for index in lifted.added:
            node = self.nodes[index]
            if node.geometry is not None:
                step = operator_cost(node.geometry, weightless=node.weightless)
                pool = self._is_pool(index)
                if not node.weightless or pool:
                    macs += step.macs
                    unconvolved += pool
                seconds += step.seconds - PER_CALL
            else:
                reads = sum(self.nodes[o].channels for o in node.operands)
                seconds += moved_bytes(node.sizes, reads + node.channels) / BYTES
        free = is_free(layer)
        return Cost(macs, params, 0 if free else 1, unconvolved, seconds + PER_CALL)

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

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
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import keras

from kerasfold.affine import Node
from kerasfold.conv import (
    Axis,
    Geometry,
    Operator,
    Refused,
    add,
    add_geometry,
    chain,
    compose,
    compose_geometry,
    concatenate,
    concatenate_geometry,
    flattened_input,
    flattened_operator,
    frame_boxes,
    frame_of,
    identity,
    identity_geometry,
    restricted,
)
from kerasfold.errors import FoldError
from kerasfold.region import Lifted, Regions

EXHAUSTIVE = 9  # tensors up to which every subset is tried
LOOKBACK = 24  # links of a chain merged at once; merged links may merge again
NOMINAL_SIZE = 64  # samples assumed along an axis of unknown size


# ------------------------------------------------------------------------------ cost


@dataclass(frozen=True, slots=True)
class Cost:
    """What a plan costs, per image.

    Attributes:
        macs: multiply-accumulates.
        params: weights.
        layers: emitted calls; padding, cropping, concatenation, reshaping and activations
            count 0.
        unconvolved: spatial operators that are not written as convolutions.
        seconds: roofline of MACs and bytes moved, plus a constant per call.
    """

    macs: float = 0.0
    params: float = 0.0
    layers: int = 0
    unconvolved: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.macs + other.macs,
            self.params + other.params,
            self.layers + other.layers,
            self.unconvolved + other.unconvolved,
            self.seconds + other.seconds,
        )


OBJECTIVES: dict[str, Callable[[Cost], tuple[float, ...]]] = {
    "latency": lambda c: (c.seconds, c.layers),
    "macs": lambda c: (c.macs, c.seconds),
    "params": lambda c: (c.params, c.seconds),
    "layers": lambda c: (c.layers, c.unconvolved, c.seconds),
}

# Roofline of a small CPU, float32, per second: see benchmarks/roofline.py.
DENSE_MACS = 6e10
DEPTHWISE_MACS = 6e9
BYTES = 8e9
PER_CALL = 8e-6


def _pixels(sizes: Iterable[int | None]) -> int:
    return math.prod(NOMINAL_SIZE if n is None else n for n in sizes)


def macs_of(geometry: Geometry) -> int:
    """Multiply-accumulates of one application of an operator."""
    ones = math.prod(geometry.taps) * geometry.channels[1] if geometry.ones else 0
    phases = math.prod(axis.upsampling for axis in geometry.axes)
    return _pixels(geometry.sizes) * (math.prod(geometry.kernel_shape) + ones) // phases


def _moved(sizes: Iterable[int | None], channels: int) -> int:
    return 4 * _pixels(sizes) * channels


def _read(geometry: Geometry) -> int:
    return _moved((axis.size for axis in geometry.axes), geometry.channels[0])


def _operator_cost(geometry: Geometry, shared: int = 1) -> Cost:
    """One emitted convolution; `shared` calls share its weights."""
    macs = macs_of(geometry)
    rate = DEPTHWISE_MACS if geometry.groups > 1 else DENSE_MACS
    moved = _read(geometry) + _moved(geometry.sizes, geometry.channels[1]) + 4 * geometry.params
    seconds = max(macs / rate, moved / BYTES) + PER_CALL
    if geometry.ones or not fits_keras_padding(geometry):
        seconds += 2 * _read(geometry) / BYTES + PER_CALL
    return Cost(macs, geometry.params / shared, 1, 0, seconds)


def keras_padding(geometry: Geometry) -> Literal["valid", "same"] | None:
    """The Keras `padding=` that expresses the geometry, or None where it takes a layer."""
    if all(_is_valid(axis) for axis in geometry.axes):
        return "valid"
    return "same" if all(_is_same(axis) for axis in geometry.axes) else None


def fits_keras_padding(geometry: Geometry) -> bool:
    """Whether no separate padding or cropping layer is needed."""
    return keras_padding(geometry) is not None


def _is_valid(axis: Any) -> bool:
    if axis.upsampling > 1:
        return False
    if axis.same or axis.crop[0] or any(axis.pad):
        return False
    if axis.size is None:
        return not axis.crop[1]
    return (axis.size - axis.span) // axis.stride + 1 == axis.out


def _is_same(axis: Any) -> bool:
    if axis.upsampling > 1:
        return False
    if axis.same:
        return True
    if axis.crop[0] or axis.crop[1] and axis.pad[1]:
        return False
    if axis.size is None:
        low = (axis.span - 1) // 2
        return axis.stride == 1 and not axis.crop[1] and axis.pad == (low, axis.span - 1 - low)
    out = -(-axis.size // axis.stride)
    total = max((out - 1) * axis.stride + axis.span - axis.size, 0)
    return out == axis.out and axis.pad[0] == total // 2


# -------------------------------------------------------------------------- segments


@dataclass(frozen=True, eq=False, slots=True)
class Segment:
    """How one materialised node is computed.

    Attributes:
        node: the node.
        form: 'keep', the original call; 'operator', one convolution per term, added up;
            'separable', a depthwise convolution and a pointwise one in one layer; 'framed',
            one convolution for the interior, and `stages` on thin strips for the border;
            'pooled', an average pool after or before everything else.
        terms: operator by materialised node or root that is read; None is the identity.
        visited: nodes composed into it, `node` the last.
        cost: its cost.
        middle: for 'separable', the node between its two parts; for 'pooled', the pool.
        stages: for 'framed', the nodes of each step that the border takes.
        pool_first: for 'pooled', whether the pool comes before the rest.
    """

    node: int
    form: Literal["keep", "operator", "separable", "framed", "pooled"]
    terms: Mapping[int, Geometry | None]
    visited: tuple[int, ...]
    cost: Cost
    middle: int | None = None
    stages: tuple[tuple[int, ...], ...] = ()
    pool_first: bool = False


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


class _Sizes:
    """Composition of geometries."""

    compose = staticmethod(compose_geometry)
    add = staticmethod(add_geometry)
    concatenate = staticmethod(concatenate_geometry)
    identity = staticmethod(identity_geometry)
    unflatten = staticmethod(flattened_input)

    @staticmethod
    def load(node: Node) -> Geometry:
        assert node.geometry is not None
        return node.geometry

    @staticmethod
    def scaled(value: Geometry, factor: float) -> Geometry:
        return value

    @staticmethod
    def linear(value: Geometry) -> Geometry:
        if not (value.biased or value.ones):
            return value
        return replace(value, biased=False, ones=False)


class _Values:
    """Composition of operators."""

    compose = staticmethod(compose)
    add = staticmethod(add)
    concatenate = staticmethod(concatenate)
    identity = staticmethod(identity)
    unflatten = staticmethod(flattened_operator)

    @staticmethod
    def load(node: Node) -> Operator:
        assert node.load is not None
        return node.load()

    @staticmethod
    def scaled(value: Operator, factor: float) -> Operator:
        return value.scaled(factor)

    @staticmethod
    def linear(value: Operator) -> Operator:
        return Operator(_Sizes.linear(value.geometry), value.kernel, 0 * value.bias)


@dataclass(frozen=True, slots=True)
class _Flattened:
    """A flattened image: no operator itself, but a matrix applied to it is one."""

    value: Any
    sizes: tuple[int | None, ...]
    channels: int


def _apply(node: Node, values: Sequence[dict[int, Any]], nodes: Sequence[Node], domain: Any) -> dict[int, Any]:
    """A node's operators by root, from those of its operands."""

    def solid(root: int, value: Any) -> Any:
        if isinstance(value, _Flattened):
            raise Refused("a flattened image is combined with others before a matrix reads it")
        return domain.identity(nodes[root].sizes, nodes[root].channels) if value is None else value

    if node.form == "operator":
        own, (inner,) = domain.load(node), values
        result = {}
        for position, (root, value) in enumerate(inner.items()):
            step = own if position == 0 else domain.linear(own)
            if isinstance(value, _Flattened):
                step, value = domain.unflatten(step, value.sizes, value.channels), value.value
            result[root] = step if value is None else domain.compose(step, value)
        return result
    if node.form == "pool":
        raise Refused(
            "average pooling 'same' divides by the pixels really there, so its weights change "
            "at the border"
        )
    if node.form == "flatten":
        image = nodes[node.operands[0]]
        return {
            root: _Flattened(value, image.sizes, image.channels) for root, value in values[0].items()
        }
    if node.form == "concatenate":
        roots = {root for value in values for root in value}
        if len(roots) > 1:
            raise Refused("a concatenation of several sources")
        (root,) = roots
        return {root: domain.concatenate([solid(root, value[root]) for value in values])}
    by_root: dict[int, list[Any]] = {}
    for value, factor in zip(values, node.factors, strict=True):
        for root, term in value.items():
            if factor != 1.0:
                term = domain.scaled(solid(root, term), factor)
            by_root.setdefault(root, []).append(term)
    return {
        root: terms[0] if len(terms) == 1 else domain.add([solid(root, t) for t in terms])
        for root, terms in by_root.items()
    }


def _evaluate(nodes: Sequence[Node], visited: Sequence[int], domain: Any) -> dict[int, Any]:
    values: dict[int, dict[int, Any]] = {}
    for index in visited:
        operands = [values.get(o, {o: None}) for o in nodes[index].operands]
        values[index] = _apply(nodes[index], operands, nodes, domain)
    return values[visited[-1]]


def weights_of(nodes: Sequence[Node], segment: Segment) -> dict[Any, Operator | None]:
    """The composed weights of a segment, by the node it reads; None is the identity.

    Of a 'separable' segment, its two operators, by 'depthwise' and 'pointwise'; of a
    'framed' one, the operator of the interior by 'interior', and its stages by number.
    """
    if segment.stages:
        stages = [_single(_evaluate(nodes, stage, _Values)) for stage in segment.stages]
        inner, _ = framed_geometries([stage.geometry for stage in stages])
        interior = chain([
            Operator(geometry, stage.kernel, stage.bias)
            for geometry, stage in zip(inner, stages, strict=True)
        ])
        return {"interior": interior, **dict(enumerate(stages))}
    if segment.form == "pooled":
        (target,) = (g for g in segment.terms.values() if g is not None)
        others = [i for i in segment.visited if i != segment.middle]
        links = [_at_sizes(_Values.load(nodes[i]), sizes) for i, sizes in
                 zip(others, _sizes_without(nodes, segment.visited, segment.middle, segment.pool_first),
                     strict=True)]
        operator = chain(links)
        assert operator.geometry == target
        return {"operator": operator}
    if segment.middle is None:
        return _evaluate(nodes, segment.visited, _Values)
    before = [i for i in segment.visited if i <= segment.middle]
    after = [i for i in segment.visited if i > segment.middle]
    (depthwise,) = _evaluate(nodes, before, _Values).values()
    (pointwise,) = _evaluate(nodes, after, _Values).values()
    return {"depthwise": depthwise, "pointwise": pointwise}


def _single(values: Mapping[int, Any]) -> Any:
    (value,) = values.values()
    return value


def _sizes_without(
    nodes: Sequence[Node], visited: Sequence[int], pool: int | None, pool_first: bool
) -> list[Sequence[int | None] | None]:
    """Image sizes for the pointwise nodes of a chain that move past its pool, else None."""
    assert pool is not None
    before = nodes[nodes[pool].operands[0]].sizes
    moved = [i < pool if pool_first else i > pool for i in visited if i != pool]
    return [(nodes[pool].sizes if pool_first else before) if m else None for m in moved]


def _at_sizes(value: Any, sizes: Sequence[int | None] | None) -> Any:
    """A pointwise geometry or operator, on images of other sizes."""
    if sizes is None:
        return value
    axes = tuple(map(Axis, sizes))
    if isinstance(value, Operator):
        return Operator(replace(value.geometry, axes=axes), value.kernel, value.bias)
    return replace(value, axes=axes)


def framed_geometries(
    stages: Sequence[Geometry],
) -> tuple[list[Geometry], list[tuple[int, int, list[Geometry]]]]:
    """The stages restricted to the interior, and, as (axis, side, stages), to each strip.

    Raises:
        Refused: no interior, or a strip that reads nothing but padding.
    """
    sizes = [n for n in stages[-1].sizes if n is not None]
    interior, strips = frame_boxes(sizes, frame_of(stages))
    return (
        restricted(stages, interior),
        [(axis, side, restricted(stages, box)) for axis, side, box in strips],
    )


# ---------------------------------------------------------------------------- search


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
    if objective not in OBJECTIVES:
        raise FoldError(
            f"unknown objective {objective!r}: choose one of {', '.join(map(repr, OBJECTIVES))}"
        )
    search = _Search(regions, OBJECTIVES[objective], frozenset(held))
    segments: dict[int, Segment] = {}
    reasons: dict[int, str] = {}
    original = Cost()
    for component in regions.components():
        everything = search.candidates(component)
        start = {index: search.kept(index) for index in sorted(everything)}
        original = sum((s.cost for s in start.values()), original)
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

    def __init__(self, regions: Regions, key: Callable[[Cost], tuple], held: frozenset[int]) -> None:
        self.regions = regions
        self.nodes = regions.program.nodes
        self.key = key
        self.fixed = regions.sinks | held
        self.calls_of = Counter(id(call.operation) for call in regions.graph.calls)
        self.owner = {i: lifted for lifted in regions.lifted.values() for i in lifted.added}
        self.keep_costs: dict[int, Cost] = {}

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
        for index in cut:
            segment = self.segment(index, cut)
            if isinstance(segment, Refused):
                return None
            result[index] = segment
        return result

    def visit(self, target: int, cut: Collection[int]) -> list[int]:
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

    def segment(self, index: int, cut: Collection[int]) -> Segment | Refused:
        """The cheapest form of one node, given what is materialised before it."""
        visited = self.visit(index, cut)
        forms: list[Segment] = []
        if all(i in self.owner[index].added for i in visited):
            forms.append(self.kept(index))
            if len(visited) == 1 and not self._is_pool(index):
                return forms[0]
        refusal = Refused("")
        try:
            terms = _evaluate(self.nodes, visited, _Sizes)
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
        return min(forms, key=lambda form: self.key(form.cost))  # the first, where equal

    def kept(self, index: int) -> Segment:
        """The call that ends in a node, as it is."""
        lifted = self.owner[index]
        inner = tuple(lifted.added)
        reads = {o for i in inner for o in self.nodes[i].operands} - set(inner)
        return Segment(index, "keep", dict.fromkeys(sorted(reads)), inner, self.keep_cost(lifted))

    def _is_pool(self, index: int) -> bool:
        geometry = self.nodes[index].geometry
        return self.nodes[index].weightless and geometry is not None and max(geometry.taps, default=1) > 1

    def _operator_form(self, index: int, terms: dict[int, Geometry | None], visited: Sequence[int]) -> Segment:
        shared = self._shared(visited)
        costs = [_operator_cost(g, shared) for g in terms.values() if g is not None]
        if len(terms) > 1:
            node = self.nodes[index]
            moved = (len(terms) + 1) * _moved(node.sizes, node.channels)
            costs.append(Cost(layers=1, seconds=moved / BYTES + PER_CALL))
        return Segment(index, "operator", terms, tuple(visited), sum(costs, Cost()))

    def _shared(self, visited: Sequence[int]) -> int:
        """Calls that can share the weights of a segment of these nodes."""
        owners = (self.owner[i].call.operation for i in visited)
        return min(self.calls_of[id(operation)] for operation in owners)

    def _separable_form(self, index: int, visited: Sequence[int]) -> Segment | None:
        """Depthwise up to the inside of a SeparableConv, pointwise after it."""
        if any(len(self.nodes[i].operands) != 1 for i in visited):
            return None
        hidden = [i for i in visited[:-1] if i not in self.regions.lifted and i in self.owner]
        for middle in hidden:
            before = [i for i in visited if i <= middle]
            after = [i for i in visited if i > middle]
            try:
                ((root, first),) = _evaluate(self.nodes, before, _Sizes).items()
                ((_, last),) = _evaluate(self.nodes, after, _Sizes).items()
            except Refused:
                continue
            if not is_separable(first, last):
                continue
            shared = self._shared(visited)
            one, two = _operator_cost(first, shared), _operator_cost(last, shared)
            cost = replace(one + two, layers=1)
            return Segment(index, "separable", {root: first}, tuple(visited), cost, middle)
        return None

    def _pooled_forms(self, index: int, visited: Sequence[int]) -> list[Segment]:
        """An average keeps constants, so it commutes with every pointwise operator."""
        pools = [i for i in visited if self._is_pool(i)]
        if len(pools) != 1 or len(visited) < 2 or not self._is_path(visited):
            return []
        (pool,) = pools
        geometry = self.nodes[pool].geometry
        assert geometry is not None
        plain = self.nodes[pool].form == "pool" or not any(
            any(axis.pad) or axis.crop[0] or geometry.vector for axis in geometry.axes
        )
        if not plain or pool not in self.regions.lifted:
            return []
        root = self.nodes[visited[0]].operands[0]
        forms = []
        for pool_first in (False, True):
            sizes = _sizes_without(self.nodes, visited, pool, pool_first)
            links = []
            for i, size in zip((i for i in visited if i != pool), sizes, strict=True):
                link = self.nodes[i].geometry
                assert link is not None
                if size is not None and not (link.axes and link.is_pointwise):
                    break
                links.append(_at_sizes(link, size))
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
                read = _operator_cost(replace(geometry, channels=(channels,) * 2, groups=channels))
                pooling = Cost(layers=1, unconvolved=1, macs=read.macs, seconds=read.seconds)
                cost = _operator_cost(whole, self._shared([i for i in visited if i != pool])) + pooling
                forms.append(Segment(index, "pooled", {root: whole}, tuple(visited), cost, pool,
                                     pool_first=pool_first))
        return forms

    def _is_path(self, visited: Sequence[int]) -> bool:
        """Whether the nodes are operators or pools, each reading the one before it."""
        return all(self.nodes[i].form in ("operator", "pool") for i in visited) and all(
            self.nodes[after].operands[0] == before
            for before, after in itertools.pairwise(visited)
        )

    def _framed_form(self, index: int, visited: Sequence[int]) -> Segment | None:
        """The interior in one step, the border in as few exact steps as there are."""
        if not self._is_path(visited) or any(self.nodes[i].form == "pool" for i in visited):
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
        cost = _operator_cost(whole, shared)
        for position, geometry in enumerate(steps):
            cost += Cost(params=geometry.params / shared)
            for _, _, strip in strips:
                cost += replace(_operator_cost(strip[position]), params=0.0)
        node = self.nodes[index]
        # Cutting the strips out and joining them with the interior.
        joins = (len(strips) * len(steps) + 2 * len(strips)) * PER_CALL
        moved = 2 * len(node.sizes) * _moved(node.sizes, node.channels) / BYTES
        cost += Cost(seconds=joins + moved)
        root = self.nodes[visited[0]].operands[0]
        return Segment(index, "framed", {root: whole}, tuple(visited), cost,
                       stages=tuple(map(tuple, stages)))

    def _check_emission(self, terms: Mapping[int, Any]) -> None:
        for geometry in terms.values():
            if isinstance(geometry, _Flattened):
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
        params = layer.count_params() / self.calls_of[id(layer)] if isinstance(layer, keras.Layer) else 0
        macs, seconds, unconvolved = 0.0, 0.0, 0
        for index in lifted.added:
            node = self.nodes[index]
            if node.geometry is not None:
                step = _operator_cost(node.geometry)
                pool = self._is_pool(index)
                if not node.weightless or pool:
                    macs += step.macs
                    unconvolved += pool
                seconds += step.seconds - PER_CALL
            else:
                reads = sum(self.nodes[o].channels for o in node.operands)
                seconds += _moved(node.sizes, reads + node.channels) / BYTES
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
            return self._chain(component, everything, required, start)
        if len(optional) <= EXHAUSTIVE:
            return self._exhaustive(component, required, sorted(optional), start)
        return self._descent(component, everything, required, start)

    def _exhaustive(
        self, component: Sequence[Node], required: frozenset[int], optional: Sequence[int],
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

    def _chain(
        self, component: Sequence[Node], everything: frozenset[int], required: frozenset[int],
        start: dict[int, Segment],
    ) -> dict[int, Segment]:
        """Shortest path over the cut points of a chain, repeated on its own result."""
        cuts = sorted(everything)
        chosen = start
        while True:
            best: list[tuple[tuple[float, ...], list[Segment]] | None] = [((), [])]
            scores: list[Cost | None] = [Cost()]
            back: list[tuple[int, Segment] | None] = [None]
            for j, end in enumerate(cuts):
                found: tuple[tuple[float, ...], Cost, int, Segment] | None = None
                for i in range(j, max(-1, j - LOOKBACK), -1):
                    # Segment from cut i-1 (or the root) to cut j.
                    before = frozenset(cuts[:i][-1:])
                    score = scores[i]
                    if score is None:
                        continue
                    if i == j and end in chosen and cuts[:i][-1:] == _reads_cut(chosen[end], cuts):
                        segment: Segment | Refused = chosen[end]
                    else:
                        segment = self.segment(end, before)
                    if isinstance(segment, Refused):
                        if i < j:
                            break  # a longer chain contains the same step
                        continue
                    total = score + segment.cost
                    key = self.key(total)
                    if found is None or key < found[0]:
                        found = (key, total, i, segment)
                scores.append(None if found is None else found[1])
                back.append(None if found is None else (found[2], found[3]))
            path: dict[int, Segment] = {}
            j = len(cuts)
            while j > 0:
                step = back[j]
                assert step is not None
                path[step[1].node] = step[1]
                j = step[0]
            if len(path) == len(chosen) or len(path) == 1:
                return path
            chosen, cuts = path, sorted(path)
            del best

    def _descent(
        self, component: Sequence[Node], everything: frozenset[int], required: frozenset[int],
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
                cut = chosen.keys() - dropped
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
                    for index, segment in trial.items():
                        assert isinstance(segment, Segment)
                        chosen[index] = segment
                        for read in segment.terms:
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
                trial = self.segment(segment.node, chosen.keys() - {read})
                reasons[read] = (
                    trial.reason if isinstance(trial, Refused) and trial.reason
                    else "merging it into what follows does not pay under this objective"
                )
        return reasons


def _reads_cut(segment: Segment, cuts: Sequence[int]) -> list[int]:
    known = set(cuts)
    return [i for i in segment.terms if i in known]


def _is_chain(component: Sequence[Node], required: frozenset[int]) -> bool:
    """Whether every node reads one tensor and is read by at most one node."""
    if any(len(n.operands) != 1 for n in component):
        return False
    members = {n.index for n in component}
    inner = [n.operands[0] for n in component if n.operands[0] in members]
    return len(inner) == len(set(inner)) == len(component) - 1 and len(required) == 1


_FREE = (
    keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D,
    keras.layers.Cropping1D, keras.layers.Cropping2D, keras.layers.Cropping3D,
    keras.layers.Concatenate, keras.layers.Reshape, keras.layers.Flatten, keras.layers.Permute,
    keras.layers.Activation, keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.PReLU,
    keras.layers.ELU, keras.layers.Softmax, keras.layers.Identity, keras.layers.InputLayer,
)


def is_free(operation: keras.Operation) -> bool:
    """Whether a layer counts 0 under "layers": padding, reshaping, activations and the like."""
    return isinstance(operation, _FREE)


def is_separable(first: Geometry | None, last: Geometry | None) -> bool:
    """Whether a SeparableConv layer computes `last o first`."""
    return (
        first is not None
        and last is not None
        and len(first.axes) in (1, 2)
        and first.is_depthwise
        and not (first.biased or first.ones or last.ones)
        and all(axis.upsampling == 1 for axis in first.axes)
        and len({axis.stride for axis in first.axes}) == 1
        and not (max(a.stride for a in first.axes) > 1 and max(a.dilation for a in first.axes) > 1)
        and last.is_pointwise
        and last.groups == 1
    )


def check_emittable(geometry: Geometry) -> None:
    """Refuse an operator that no single Keras layer expresses."""
    if any(axis.upsampling > 1 for axis in geometry.axes):
        if any(axis.stride > 1 for axis in geometry.axes):
            raise Refused("upsampling and stride in one operator, which no Keras layer expresses")
        if geometry.groups > 1:
            raise Refused("a transposed convolution in groups, which no Keras layer expresses")
    if not geometry.axes and geometry.groups > 1:
        raise Refused("a scale per channel of a vector, which no Keras layer but itself expresses")

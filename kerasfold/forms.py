"""The ways to compute one node from the materialised ones before it, each with its cost.

Every way is a method of `Forms` that gives a `Segment`, gives None where it does not apply,
or raises `Refused` where it would not be exact. Sizes only: no weight is read here.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import keras

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.chain import collapsed, one_of, shifted
from kerasfold.algebra.geometry import (
    Geometry,
    require_plain,
)
from kerasfold.algebra.tiles import Parts, mirrored_geometry, products, tile_geometry
from kerasfold.cost import BYTES, PER_CALL, Cost, moved_bytes, operator_cost
from kerasfold.layers.limits import check_emittable, is_depthwise_layer, is_free, is_separable
from kerasfold.lift.regions import Regions
from kerasfold.segment import (
    Flattened,
    Segment,
    at_sizes,
    evaluate_node,
    framed_geometries,
    is_path,
    sizes_without,
    tilings,
)

MOST_BRANCHED = 256  # steps composed at once where they branch
MOST_STAGES = 4  # steps a border may take
MOST_TILES = 49  # convolutions an image may be put together from: a frame of 3 at each side


class _Frame(NamedTuple):
    """What is known of a chain with a border, wherever it stands."""

    whole: Geometry  # of the interior
    cost: Cost
    cuts: tuple[int, ...]  # where stages begin and end
    parts: Parts = ()  # of the tiles


class Forms:
    """The segments that compute a node, and what is already known of them."""

    def __init__(self, regions: Regions, held: Collection[int] = ()) -> None:
        self.regions = regions
        self.held = held
        self.nodes = regions.program.nodes
        self.owner = regions.owner
        self.keep_costs: dict[int, Cost] = {}
        self.branches: dict[tuple[int, frozenset[int]], dict[int, Any] | Refused] = {}
        self.numbers: dict[Geometry, int] = {}
        self.kinds: dict[int, int] = {}
        self.frames: dict[tuple[int, tuple[int, ...]], _Frame | None] = {}
        self.tiles: dict[tuple[int, tuple[int, ...]], _Frame | None] = {}
        self.paths: dict[tuple[int, int], tuple[Geometry, ...]] = {}

    def of(self, index: int, visited: Sequence[int]) -> Iterator[Segment | Refused]:
        """Every form of a node; among them why the whole of it is not one operator, if so.

        Args:
            index: the node.
            visited: the nodes to compose for it, in order, itself the last.
        """
        if all(i in self.owner[index].added for i in visited):
            yield self.kept(index)
            if index in self.held or (len(visited) == 1 and not self._is_pool(index)):
                return  # no form but itself
        if self._misplaces_bias(visited):
            yield Refused(
                "a bias on images as wide as they have channels, channels first, which Keras adds "
                "along the width on TensorFlow"
            )
            return
        forms = [self._separable, self._pool_last, self._pool_first]
        try:
            yield self._operator(index, visited)
        except Refused as refusal:
            yield refusal
            forms = [self._framed, self._tiled, *forms]
        if not self._is_path(visited):
            return
        for form in forms:
            try:
                segment = form(index, visited)
            except Refused:
                continue
            if segment is not None:
                yield segment

    # ----------------------------------------------------------------- the original call

    def kept(self, index: int) -> Segment:
        """The call that ends in a node, as it is."""
        inner = tuple(self.owner[index].added)
        reads = {o for i in inner for o in self.nodes[i].operands} - set(inner)
        if index not in self.keep_costs:
            self.keep_costs[index] = self._keep_cost(index)
        return Segment(index, "keep", dict.fromkeys(sorted(reads)), inner, self.keep_costs[index])

    def _keep_cost(self, index: int) -> Cost:
        lifted = self.owner[index]
        layer = lifted.call.operation
        params = (
            layer.count_params() / self.regions.uses[id(layer)]
            if isinstance(layer, keras.Layer)
            else 0
        )
        macs, seconds, unconvolved = 0.0, 0.0, 0
        for i in lifted.added:
            node = self.nodes[i]
            if node.geometry is not None:
                step = operator_cost(node.geometry, weightless=node.weightless)
                pool = self._is_pool(i)
                if not node.weightless or pool:
                    macs += step.macs
                    unconvolved += pool
                seconds += step.seconds - PER_CALL
            else:
                reads = sum(self.nodes[o].channels for o in node.operands)
                seconds += moved_bytes(node.sizes, reads + node.channels) / BYTES
        return Cost(macs, params, 0 if is_free(layer) else 1, unconvolved, seconds + PER_CALL)

    # ------------------------------------------------------------------ one convolution

    def _operator(self, index: int, visited: Sequence[int]) -> Segment:
        """One convolution for each tensor that is read, added up."""
        if len(visited) > 1 and all(self._is_shift(i) for i in visited):
            raise Refused("nothing but padding and cropping, which is no convolution")
        terms = self._terms(visited)
        for geometry in terms.values():
            if isinstance(geometry, Flattened):
                raise Refused("a flattened image is not a convolution's output")
            if geometry is not None:
                require_plain(geometry)
                check_emittable(geometry)
        shared = self._shared(visited)
        costs = [operator_cost(g, shared) for g in terms.values() if g is not None]
        if len(terms) > 1:
            node = self.nodes[index]
            moved = (len(terms) + 1) * moved_bytes(node.sizes, node.channels)
            costs.append(Cost(layers=1, seconds=moved / BYTES + PER_CALL))
        return Segment(index, "operator", terms, tuple(visited), sum(costs, Cost()))

    def _terms(self, visited: Sequence[int]) -> Mapping[int, Any]:
        """What `evaluate` gives, of sizes alone; of a path, from what is known of its start."""
        if not self._is_path(visited):
            if len(visited) > MOST_BRANCHED:
                raise Refused(f"more than {MOST_BRANCHED} steps at once in branches")
            return self._branched(visited)
        first = visited[0]
        known = next(
            (k for k in range(len(visited), 0, -1) if (first, visited[k - 1]) in self.paths), 0
        )
        stack = self.paths[first, visited[known - 1]] if known else ()
        for index in visited[known:]:
            stack = shifted(stack, self._geometry(index))
            self.paths[first, index] = stack
        return self._reads(visited, one_of(stack))

    def _branched(self, visited: Sequence[int]) -> Mapping[int, Any]:
        """The same in branches, from what is known of the same nodes before."""
        cones: dict[int, frozenset[int]] = {}
        values: dict[int, dict[int, Any]] = {}
        for index in visited:
            operands = self.nodes[index].operands
            cones[index] = frozenset({index}).union(*(cones.get(o, ()) for o in operands))
            key = index, cones[index]
            if key not in self.branches:
                inner = [values.get(o, {o: None}) for o in operands]
                try:
                    self.branches[key] = evaluate_node(
                        self.nodes[index], inner, self.nodes, Geometry
                    )
                except Refused as refusal:
                    self.branches[key] = refusal
            value = self.branches[key]
            if isinstance(value, Refused):
                raise value
            values[index] = value
        return values[visited[-1]]

    # ------------------------------------------------------- forms of a path of operators

    def _separable(self, index: int, visited: Sequence[int]) -> Segment | None:
        """Depthwise up to the inside of a SeparableConv, pointwise after it."""
        hidden = [i for i in visited[:-1] if i not in self.regions.lifted and i in self.owner]
        for middle in hidden:
            try:
                first = self._whole(visited[: visited.index(middle) + 1])
                last = self._whole(visited[visited.index(middle) + 1 :])
            except Refused:
                continue
            if is_separable(first, last):
                check_emittable(first)
                check_emittable(last)
                shared = self._shared(visited)
                cost = replace(operator_cost(first, shared) + operator_cost(last, shared), layers=1)
                return Segment(
                    index, "separable", self._reads(visited, first), tuple(visited), cost, middle
                )
        return None

    def _pool_last(self, index: int, visited: Sequence[int]) -> Segment | None:
        return self._pooled(index, visited, pool_first=False)

    def _pool_first(self, index: int, visited: Sequence[int]) -> Segment | None:
        return self._pooled(index, visited, pool_first=True)

    def _pooled(self, index: int, visited: Sequence[int], pool_first: bool) -> Segment | None:
        """One convolution, and a pool or an upsampling moved before or behind it.

        What keeps constants commutes with pointwise operators.
        """
        pools = [i for i in visited if self.nodes[i].mean]
        if len(pools) != 1 or len(visited) < 2 or not self._is_layer(pools[0]):
            return None
        (pool,) = pools
        geometry = self._geometry(pool)
        if not geometry.steady or geometry.vector or any(a.crop[0] for a in geometry.axes):
            return None
        others = [i for i in visited if i != pool]
        links = []
        for i, size in zip(
            others, sizes_without(self.nodes, visited, pool, pool_first), strict=True
        ):
            link = self._geometry(i)
            if size is not None and not (link.axes and link.is_pointwise):
                return None
            links.append(at_sizes(link, size))
        whole = _composed(links)
        if whole is None:
            return None
        reads = self._reads(visited, whole)
        channels = self.nodes[next(iter(reads)) if pool_first else index].channels
        moved = replace(geometry, channels=(channels,) * 2, groups=channels)
        pooling = replace(operator_cost(moved, weightless=True), params=0.0, unconvolved=1)
        cost = operator_cost(whole, self._shared(others)) + pooling
        return Segment(index, "pooled", reads, tuple(visited), cost, pool, pool_first=pool_first)

    def _framed(self, index: int, visited: Sequence[int]) -> Segment | None:
        """The interior in one step, the border in as few exact steps as there are."""
        if any(self._geometry(i).normalised and not self._is_layer(i) for i in visited):
            return None
        return self._bordered("framed", self.frames, _frame, index, visited)

    def _tiled(self, index: int, visited: Sequence[int]) -> Segment | None:
        """The interior and each row, column and corner of the border, in one step each."""
        return self._bordered("tiled", self.tiles, _tiles, index, visited)

    def _bordered(
        self,
        form: Literal["framed", "tiled"],
        known: dict[tuple[int, tuple[int, ...]], _Frame | None],
        cost_of: Callable[[Sequence[Geometry], int], _Frame | None],
        index: int,
        visited: Sequence[int],
    ) -> Segment | None:
        # Nets repeat their blocks, and the same sizes have the same frame.
        key = self._shared(visited), tuple(self._kind(i) for i in visited)
        if key not in known:
            try:
                known[key] = cost_of([self._geometry(i) for i in visited], key[0])
            except Refused:
                known[key] = None
        frame = known[key]
        if frame is None:
            return None
        stages = tuple(tuple(visited[i:j]) for i, j in itertools.pairwise(frame.cuts))
        return Segment(
            index,
            form,
            self._reads(visited, frame.whole),
            tuple(visited),
            frame.cost,
            stages=stages,
            parts=frame.parts,
        )

    # ------------------------------------------------------------- several nodes at once

    def sibling(self, segment: Segment) -> tuple[Any, Segment] | None:
        """The segment as one dense convolution, and what it shares with those it may join.

        None where it is anything else, is held, or shares its weights with another call.
        """
        if segment.node in self.held:
            return None
        if segment.form == "keep" and segment.cost.layers == 1:
            try:
                segment = self._operator(segment.node, segment.visited)
            except Refused:
                return None
        layers = [self.owner[i].call.operation for i in segment.visited]
        if (
            segment.form != "operator"
            or len(segment.terms) != 1
            or any(not isinstance(layer, keras.Layer) for layer in layers)
            or all(self.nodes[i].weightless for i in segment.visited)
            or any(self.regions.uses[id(layer)] > 1 for layer in layers)
        ):
            return None
        ((read, geometry),) = segment.terms.items()
        if geometry is None or geometry.groups > 1 or geometry.ones or geometry.normalised:
            return None
        weighty = [layer for layer in layers if layer.weights] or layers
        kind = weighty[-1].dtype_policy.name, any(layer.trainable for layer in weighty)
        return (read, geometry.axes, geometry.vector, kind), segment

    def joined(self, segments: Sequence[Segment]) -> list[Segment]:
        """Siblings as slices of one wider convolution; the first carries its cost.

        A slice counts as a call: runtimes may run siblings side by side, so that fewer calls
        alone save nothing. Where they cannot be joined, they are returned as they are.
        """
        nodes = tuple(segment.node for segment in segments)
        channels = sum(self.nodes[index].channels for index in nodes)
        if any(self._misplaces_bias(segment.visited, channels) for segment in segments):
            return list(segments)
        geometries = [g for segment in segments for g in segment.terms.values() if g is not None]
        cost = operator_cost(Geometry.concatenation(geometries))
        result = []
        for segment in segments:
            node = self.nodes[segment.node]
            cut = 2 * moved_bytes(node.sizes, node.channels) / BYTES + PER_CALL
            cost += Cost(seconds=cut)
            result.append(replace(segment, form="joined", siblings=nodes, cost=cost))
            cost = Cost()
        return result

    # ------------------------------------------------------------------------- questions

    def _kind(self, index: int) -> int:
        """A number for the node's geometry, to compare by."""
        if index not in self.kinds:
            self.kinds[index] = self.numbers.setdefault(self._geometry(index), len(self.numbers))
        return self.kinds[index]

    def _geometry(self, index: int) -> Geometry:
        geometry = self.nodes[index].geometry
        assert geometry is not None
        return geometry

    def _whole(self, path: Sequence[int]) -> Geometry:
        """The composition of a path of operators."""
        return collapsed(map(self._geometry, path))

    def _reads(self, path: Sequence[int], geometry: Geometry) -> dict[int, Geometry | None]:
        """The terms of a form of a path: what its first operator reads."""
        return {self.nodes[path[0]].operands[0]: geometry}

    def _is_path(self, visited: Sequence[int]) -> bool:
        """Whether the nodes are operators, each reading the one before it."""
        return is_path(self.nodes, visited)

    def _is_pool(self, index: int) -> bool:
        """Whether a node is a pool or an upsampling: no weights, but a window."""
        node = self.nodes[index]
        return (
            node.weightless and node.geometry is not None and max(node.geometry.taps, default=1) > 1
        )

    def _is_shift(self, index: int) -> bool:
        """Whether a node only pads or crops."""
        node = self.nodes[index]
        return (
            node.weightless
            and node.geometry is not None
            and all(a.taps == a.stride == a.upsampling == 1 for a in node.geometry.axes)
        )

    def _misplaces_bias(self, visited: Sequence[int], channels: int | None = None) -> bool:
        """Whether Keras may add a bias of one of the nodes along the wrong axis.

        On TensorFlow `keras.ops.add` takes what has as many numbers as the last axis is long for
        a bias of that axis, as of Keras 3.15; a convolution with channels first adds its own so.

        Args:
            visited: the nodes.
            channels: of the convolution that theirs are some of; None for their own.
        """
        graph = self.regions.graph
        if graph.layout != "channels_first" or keras.backend.backend() != "tensorflow":
            return False
        nodes = [self.nodes[i] for i in visited]
        if not any(n.geometry and (n.geometry.biased or n.geometry.ones) for n in nodes):
            return False
        return any(n.sizes and n.sizes[-1] in (None, channels or n.channels) for n in nodes)

    def _is_layer(self, index: int) -> bool:
        """Whether a node is all that a call computes, so that a copy of the call computes it."""
        return index in self.regions.lifted and len(self.owner[index].added) == 1

    def _shared(self, visited: Sequence[int]) -> int:
        """Calls that can share the weights of a segment of these nodes."""
        calls = {self.owner[i].call.index: id(self.owner[i].call.operation) for i in visited}
        used = Counter(calls.values())
        return min(self.regions.uses[operation] // count for operation, count in used.items())


def _frame(links: Sequence[Geometry], shared: int) -> _Frame | None:
    """A chain as one convolution for the interior, and stages on strips for the border."""
    cuts, steps = _stages(links)
    if not steps:
        return None
    for step in steps:
        if not step.normalised:
            check_emittable(step)
    inner, strips = framed_geometries(steps)
    whole = _composed(inner)
    if whole is None:
        return None
    cost = operator_cost(whole, shared)
    for position, step in enumerate(steps):
        if not step.normalised:
            cost += Cost(params=step.params / shared)
        for _, _, strip in strips:
            once = operator_cost(strip[position], weightless=step.normalised)
            cost += replace(once, params=0.0)
    # Cutting the strips out and joining them with the interior.
    sizes, (_, channels) = links[-1].sizes, links[-1].channels
    joins = (len(strips) * len(steps) + 2 * len(strips)) * PER_CALL
    moved = 2 * len(sizes) * moved_bytes(sizes, channels) / BYTES
    return _Frame(whole, cost + Cost(seconds=joins + moved), cuts)


def _tiles(links: Sequence[Geometry], shared: int) -> _Frame | None:
    """A chain as one convolution for each tile of its output."""
    cuts, steps = _stages(links)
    if not steps:
        return None
    tiled = (_tiled(steps, parts, cuts, shared) for parts in tilings(steps))
    return next((frame for frame in tiled if frame), None)


def _tiled(
    steps: Sequence[Geometry], parts: Parts, cuts: tuple[int, ...], shared: int
) -> _Frame | None:
    """The tiles of such parts, those of one group of each axis by one convolution."""
    if math.prod(map(len, parts)) > MOST_TILES:
        return None
    cost, pictures = Cost(), []
    try:
        for group in itertools.product(*parts):
            tiles = {p: tile_geometry(steps, box) for p, box in products(group).items()}
            one = mirrored_geometry(tiles)
            check_emittable(one)
            if one.vector or _loses_depthwise(one, tiles.values()):
                return None
            cost += operator_cost(one, shared)
            if one.biased and len(tiles) > 1:  # each tile has its own
                extra = (len(tiles) - 1) * one.channels[1]
                cost += Cost(params=extra / shared, layers=1, seconds=PER_CALL)
            pictures.append(one)
    except Refused:
        return None
    whole = max(pictures, key=lambda one: math.prod(n or 0 for n in one.sizes))
    sizes, (_, channels) = steps[-1].sizes, steps[-1].channels
    rows = 1
    for groups in parts:
        splits = sum(len(group) > 1 for group in groups)
        if len(groups) > 1:  # splits, and a concatenation of the whole image in rows
            cost += Cost(seconds=rows * (splits + 1) * PER_CALL)
            cost += Cost(seconds=2 * moved_bytes(sizes, channels) / BYTES)
        rows *= len(groups)
    return _Frame(whole, cost, cuts, parts)


def _loses_depthwise(one: Geometry, tiles: Iterable[Geometry]) -> bool:
    """Whether depthwise layers, in one, would be a convolution of so many groups."""
    return not is_depthwise_layer(one) and any(map(is_depthwise_layer, tiles))


def _stages(links: Sequence[Geometry]) -> tuple[tuple[int, ...], list[Geometry]]:
    """Where a chain is cut, its ends included: only where its links do not compose; its stages.

    There are none where they would be one, or more than `MOST_STAGES`.
    """
    cuts = [0]
    so_far = links[0]
    for position, link in enumerate(links[1:], 1):
        try:
            joined = link @ so_far
        except Refused:
            joined = None
        if joined is None or joined.ones:
            cuts.append(position)
            so_far = link
        else:
            so_far = joined
        if len(cuts) > MOST_STAGES:
            return (), []
    if len(cuts) == 1:
        return (), []
    ends = (*cuts, len(links))
    return ends, [collapsed(links[i:j]) for i, j in itertools.pairwise(ends)]


def _composed(links: Sequence[Geometry]) -> Geometry | None:
    """A chain as one plain convolution that gives an image, or None. Raises `Refused`."""
    whole = collapsed(links)
    require_plain(whole)
    check_emittable(whole)
    return None if whole.ones or whole.vector else whole

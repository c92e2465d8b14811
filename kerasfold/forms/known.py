"""What is known of a program while its plan is sought: sizes, and weights for those that ask."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from kerasfold import backend
from kerasfold.algebra.axis import Refused
from kerasfold.algebra.chain import collapsed, one_of, shifted
from kerasfold.algebra.geometry import Geometry, require_plain
from kerasfold.algebra.operator import Operator
from kerasfold.cost import Prices, kind_of, seen_of
from kerasfold.forms.evaluate import (
    Part,
    Parts,
    evaluate_node,
    from_behind,
    identity,
    is_path,
    operator_of,
    whole,
)
from kerasfold.layers.limits import check_emittable, depthwise_kind
from kerasfold.lift.program import Trait
from kerasfold.lift.regions import Regions
from kerasfold.read.weights import count_params
from kerasfold.rooflines import Kind

MOST_BRANCHED = 256  # steps composed at once where they branch

T = TypeVar("T")
A_co = TypeVar("A_co", bound=Hashable, covariant=True)


class Asking(Protocol[A_co]):
    """A form whose proposal depends on what weights say."""

    @staticmethod
    def ask(known: Known, visited: Sequence[int]) -> A_co:
        """All that it depends on, of the weights of steps. Raises `Refused`."""


# What weights said, or why they refused, by the form that asked and the nodes that it asked of.
Answers: TypeAlias = dict[tuple[Asking[Hashable], tuple[int, ...]], Hashable]


class Known:
    """A lifted program, the nodes that must be materialised, and what was worked out before.

    `careful` is whether no form is chosen that is slower, as predicted, than what it replaces.
    """

    def __init__(
        self,
        regions: Regions,
        pinned: Collection[int] = (),
        prices: Prices | None = None,
        careful: bool = False,
    ) -> None:
        self.regions = regions
        self.pinned = pinned
        self.prices = prices or Prices()
        self.careful = careful
        self.nodes = regions.program.nodes
        first = regions.graph.layout == "channels_first"
        self._shares = max(regions.uses.values(), default=1) > 1
        self._misplaces = first and backend.name() == "tensorflow"
        self.owner = regions.owner
        self.readers = Counter(o for node in self.nodes for o in node.operands)
        self.reading: dict[int, list[int]] = defaultdict(list)
        for node in self.nodes:
            for operand in node.operands:
                self.reading[operand].append(node.index)
        self._cones: dict[tuple[int, ...], int] = {}
        self._branches: dict[int, Parts | Refused] = {}
        self._branch: tuple[Sequence[int], Parts | Refused] = ((), ())
        self._paths: dict[tuple[int, int], tuple[Geometry, ...]] = {}
        self._numbers: dict[Geometry, int] = {}
        self._kinds: dict[int, int] = {}
        self._path: tuple[Sequence[int], bool] = ((), False)
        self._traits: dict[int, frozenset[Trait]] = {}
        self._found: dict[Hashable, Any] = {}
        self._answers: Answers = {}

    def once(self, key: Hashable, find: Callable[[], T]) -> T:
        """What `find` gives, worked out once for each key; a refusal is raised again."""
        if key not in self._found:
            try:
                self._found[key] = find()
            except Refused as refusal:
                self._found[key] = refusal.anew()
        found = self._found[key]
        if isinstance(found, Refused):
            raise found.anew()
        return found

    def geometry(self, index: int) -> Geometry:
        """What an operator node applies."""
        geometry = self.nodes[index].geometry
        assert geometry is not None
        return geometry

    def weights(self, visited: Sequence[int]) -> Operator:
        """What `operator_of` gives, the weights read when first asked for. Raises `Refused`."""
        return self.once(("weights", *visited), lambda: operator_of(self.nodes, visited))

    def told(self, form: Asking[A_co], visited: Sequence[int]) -> A_co:
        """What weights say to a form that asks. Raises `Refused`."""
        key = form, tuple(visited)
        try:
            answer = self.once(key, lambda: form.ask(self, visited))
        except Refused as refusal:
            self._answers[key] = refusal.reason
            raise
        self._answers[key] = answer
        return answer

    @contextlib.contextmanager
    def asked(self) -> Iterator[Answers]:
        """What forms ask of weights meanwhile, with the answers."""
        self._answers = {}
        yield self._answers

    def kind(self, index: int) -> int:
        """A number for the node's geometry, to compare by."""
        if index not in self._kinds:
            self._kinds[index] = self._numbers.setdefault(self.geometry(index), len(self._numbers))
        return self._kinds[index]

    def whole(self, path: Sequence[int]) -> Geometry:
        """The composition of a path of operators."""
        return collapsed(map(self.geometry, path))

    def reads(self, path: Sequence[int], geometry: Geometry) -> dict[int, Geometry | None]:
        """What the first operator of a path reads, with what is applied to it."""
        return {self.nodes[path[0]].operands[0]: geometry}

    def terms(self, visited: Sequence[int]) -> Mapping[int, Any]:
        """The last of the nodes as one operator per node or root that is read, of sizes alone.

        Raises:
            Refused: no exact composition.
        """
        return whole(self.parts(visited), self.nodes, Geometry)

    def parts(self, visited: Sequence[int]) -> Parts:
        """What `evaluate` gives, of sizes alone; of a path, from what is known of its start."""
        if not self.is_path(visited):
            if len(visited) > MOST_BRANCHED:
                raise Refused(f"more than {MOST_BRANCHED} steps at once in branches")
            return self._branched(visited)
        first = visited[0]
        known = next(
            (k for k in range(len(visited), 0, -1) if (first, visited[k - 1]) in self._paths), 0
        )
        stack = self._paths[first, visited[known - 1]] if known else ()
        for index in visited[known:]:
            stack = shifted(stack, self.geometry(index))
            self._paths[first, index] = stack
        geometry = one_of(stack)
        return (Part(geometry.channels[1], self.reads(visited, geometry)),)

    def _branched(self, visited: Sequence[int]) -> Parts:
        """The same in branches, worked out once for all forms of a node that ask."""
        if visited is not self._branch[0]:
            try:
                found: Parts | Refused = self._composed(visited)
            except Refused as refusal:
                behind = from_behind(self.nodes, visited, Geometry, collapsed, self.parts)
                found = refusal.anew() if behind is None else behind
            self._branch = visited, found
        found = self._branch[1]
        if isinstance(found, Refused):
            raise found.anew()
        return found

    def _composed(self, visited: Sequence[int]) -> Parts:
        """The same, from what is known of the nodes before the last. Raises `Refused`."""
        cones: dict[int, int] = {}  # a number for all that a node composes, to compare by
        values: dict[int, Parts] = {}

        def evaluated(index: int) -> Parts:
            inner = [values.get(o) or identity(self.nodes[o]) for o in self.nodes[index].operands]
            return evaluate_node(self.nodes[index], inner, self.nodes, Geometry)

        *before, last = visited
        for index in before:
            cone = index, *(cones.get(o, -1) for o in self.nodes[index].operands)
            key = cones[index] = self._cones.setdefault(cone, len(self._cones))
            if key not in self._branches:
                try:
                    self._branches[key] = evaluated(index)
                except Refused as refusal:
                    self._branches[key] = refusal.anew()
            value = self._branches[key]
            if isinstance(value, Refused):
                raise value.anew()
            values[index] = value
        return evaluated(last)

    def is_path(self, visited: Sequence[int]) -> bool:
        """Whether the nodes are operators, each reading the one before it."""
        if not isinstance(visited, tuple):
            return is_path(self.nodes, visited)
        if visited is not self._path[0]:  # which every form of one node asks
            self._path = visited, is_path(self.nodes, visited)
        return self._path[1]

    def traits(self, visited: Sequence[int]) -> frozenset[Trait]:
        """Those of any of the nodes."""
        for index in visited:
            if index not in self._traits:
                inner: set[Trait] = set() if index in self.regions.lifted else {"inner"}
                self._traits[index] = self.nodes[index].traits | inner
        return frozenset().union(*map(self._traits.__getitem__, visited))

    def is_pool(self, index: int) -> bool:
        """Whether a node is a pool or an upsampling: no weights, but a window."""
        node = self.nodes[index]
        return (
            node.weightless and node.geometry is not None and max(node.geometry.taps, default=1) > 1
        )

    def is_copy(self, index: int) -> bool:
        """Whether a node only pads, crops or selects."""
        return self.nodes[index].work == "copy" and not self.is_pool(index)

    def selecting(self, added: Sequence[int]) -> Kind | None:
        """The kind of work that nodes of one call do which select, along one axis or several.

        With channels of zeros around what is selected or not.
        """
        nodes = [self.nodes[i] for i in added]
        pads = len(nodes) > 1 and nodes[-1].op == "concatenate"
        if pads:
            nodes = [n for n in nodes[:-1] if n.op != "sum" or any(n.factors)]
        if not added or any(n.op != "operator" or not self.is_copy(n.index) for n in nodes):
            return None
        axes = [axis for n in nodes for axis in self.geometry(n.index).axes]
        if any(any(axis.pad) for axis in axes):
            return "cut" if pads else None
        return "strided" if any(axis.stride > 1 for axis in axes) else "cut"

    def layer_kind(self, index: int) -> Kind:
        """The kind of work that the layer of a node does for it."""
        node, geometry = self.nodes[index], self.geometry(index)
        match node.work:
            case "matrix":
                return "matrix"
            case "pool":
                whole = all(a.taps in (1, a.size) for a in geometry.axes)
                return "reduction" if whole else "pool"
            case "copy":
                return "copy" if self.is_pool(index) else "cut"
            case "scale" | "shift":
                trains = count_params(self.owner[index].call.operation)
                return "normalisation" if trains else "elementwise"
            case _:
                layer = self.owner[index].call.operation
                if depthwise_kind(layer, geometry):
                    return "grouped depthwise"
                return self.kind_reading(node.operands[0], geometry)

    def kind_reading(self, read: int, geometry: Geometry) -> Kind:
        """The kind of layer that an operator is written as that is applied to a node.

        XLA makes a convolution of its input and of the zeros around that, and then no scale and
        no matrix product.
        """
        kind = kind_of(geometry)
        if not (geometry.is_pointwise and self.pads(read)):
            return kind
        behind_zeros: dict[Kind, Kind] = {"scale": "depthwise", "convolution": "padded"}
        return behind_zeros.get(kind, kind)

    def ends_layer(self, index: int) -> bool:
        """Whether a node is a layer of weights, or scales or shifts one, that is read but once."""
        node = self.nodes[index]
        if self.readers[index] > 1 or index in self.regions.sinks:
            return False
        if node.work in ("scale", "shift"):
            return self.ends_layer(node.operands[0])
        return node.multiplies

    def seen(self, read: int, geometry: Geometry) -> float:
        """Of what an operator reads of a node, the share that is no zero, by whatever padding."""
        between = len(geometry.axes) != len(self.nodes[read].sizes)  # a mean of all of it
        if between or not self.pads(read):
            return seen_of(geometry)
        try:
            return seen_of(collapsed((self.geometry(read), geometry)))
        except Refused:
            return seen_of(geometry)

    def begins_layer(self, index: int) -> bool:
        """Whether a node is zeros around what a layer of weights reads, and nothing else does."""
        readers = self.reading[index]
        if len(readers) != 1 or index in self.regions.sinks:
            return False
        return self.pads(index) and self.nodes[readers[0]].multiplies

    def pads(self, index: int) -> bool:
        """Whether a node pads with zeros."""
        if self.nodes[index].op != "operator" or not self.is_copy(index):
            return False
        return any(max(axis.pad) > 0 for axis in self.geometry(index).axes)

    def layering(self, visited: Sequence[int]) -> tuple[int, bool]:
        """See `shared` and `is_matrix_alone`."""
        return self.shared(visited), is_matrix_alone(self.regions, visited)

    def is_layer(self, index: int) -> bool:
        """Whether a node is all that a call computes, so that a copy of the call computes it."""
        return index in self.regions.lifted and len(self.owner[index].added) == 1

    def shared(self, visited: Sequence[int]) -> int:
        """Calls that can share the weights of a form of these nodes."""
        if not self._shares:
            return 1
        calls = {self.owner[i].call.index: id(self.owner[i].call.operation) for i in visited}
        used = Counter(calls.values())
        return min(self.regions.uses[operation] // count for operation, count in used.items())

    def misplaces_bias(self, visited: Sequence[int], channels: int | None = None) -> bool:
        """Whether Keras may add a bias of one of the nodes along the wrong axis.

        On TensorFlow `keras.ops.add` takes what has as many numbers as the last axis is long for
        a bias of that axis, as of Keras 3.15; a convolution with channels first adds its own so.

        Args:
            visited: the nodes.
            channels: of the convolution that theirs are some of; None for their own.
        """
        if not self._misplaces:
            return False
        nodes = [self.nodes[i] for i in visited]
        if not any(n.geometry and (n.geometry.biased or n.geometry.ones) for n in nodes):
            return False
        return any(self._looks_like_bias(n.sizes, channels or n.channels) for n in nodes)

    def misplaces_bias_of(self, geometry: Geometry) -> bool:
        """The same of a convolution that no node is."""
        sizes = () if geometry.vector else geometry.sizes
        biased = geometry.biased or geometry.ones
        return biased and self._looks_like_bias(sizes, geometry.channels[1])

    def _looks_like_bias(self, sizes: Sequence[int | None], channels: int) -> bool:
        """Whether one number for each channel may be taken for one along the last axis."""
        return self._misplaces and bool(sizes) and sizes[-1] in (None, channels)


def plain_image(links: Sequence[Geometry]) -> Geometry | None:
    """A chain as one plain convolution that gives an image, or None. Raises `Refused`."""
    whole = collapsed(links)
    require_plain(whole)
    check_emittable(whole)
    return None if whole.ones or whole.vector else whole


def is_matrix_alone(regions: Regions, visited: Sequence[int]) -> bool:
    """Whether all nodes that multiply by weights do so by matrices, and channels come last."""
    works = {regions.program.nodes[i].work for i in visited}
    last = regions.graph.layout == "channels_last"
    return last and "matrix" in works and "product" not in works

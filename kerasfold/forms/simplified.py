"""A convolution as the steps that its numbers show it to be: see `kerasfold.inverse.numbers`.

It reads weights, so it is no row of `kerasfold.forms.ways.FORMS`, of which every set of nodes is
asked: `kerasfold.plan.numbers` asks those alone that a plan computes.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from kerasfold.algebra.axis import Axis
from kerasfold.algebra.geometry import Geometry, require_plain
from kerasfold.algebra.operator import Operator
from kerasfold.algebra.rearrange import Rearrangement
from kerasfold.cost import Cost, moved_bytes, pixels
from kerasfold.forms.convolved import Convolved, term_cost
from kerasfold.forms.evaluate import operator_of
from kerasfold.forms.form import AnyForm, Composed, Form
from kerasfold.forms.kept import Kept
from kerasfold.forms.known import Known, is_matrix_alone
from kerasfold.inverse.numbers import Mean, Selection, Step, Steps, Turned
from kerasfold.layers.limits import check_emittable, is_pointwise_matrix
from kerasfold.layers.select import run_of, selected
from kerasfold.layers.spelling import keras_padding
from kerasfold.layers.words import described, window
from kerasfold.lift.program import Node
from kerasfold.read.weights import count_params, rounded

if TYPE_CHECKING:
    from kerasfold.layers.build import Activation, Builder, Value
    from kerasfold.lift.regions import Regions


@dataclass(frozen=True, eq=False, slots=True)
class Stage:
    """What became of one convolution, with all that is merged into it.

    Attributes:
        nodes: of the program, that it stands for.
        core: those that the steps stand for: the one that multiplies, whose kernel is stored as
            it is, or all where there are several.
        steps: with their weights.
        missing: what they leave out of it, if they are it as stored; else None.
        units: how far their product is from the kernel, in its last places, at the worst tap.
    """

    nodes: tuple[int, ...]
    core: tuple[int, ...]
    steps: Steps
    missing: Operator | None = None
    units: float = 0.0


@dataclass(frozen=True, eq=False, slots=True)
class Chain(Composed):
    """Stages one after another."""

    stages: Sequence[Stage]

    @property
    def operators(self) -> Iterable[Operator]:
        """Those of the steps that are convolutions."""
        steps = itertools.chain.from_iterable(stage.steps for stage in self.stages)
        return (
            step if isinstance(step, Operator) else step.inner
            for step in steps
            if isinstance(step, (Operator, Turned))
        )


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Simplified(Form[Chain]):
    """Convolutions one after another, each in the steps that it turned out to be.

    Attributes:
        stages: one for each convolution.
        whole: whether what a stage leaves out is added to it.
    """

    name: ClassVar[str] = "simplified"

    stages: Sequence[Stage]
    whole: bool = False

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Simplified | None:
        """The steps of a path as they are, all of them composed into one."""
        return cls._of(known, index, visited, [visited])

    @classmethod
    def standing_for(cls, known: Known, form: AnyForm) -> Simplified | None:
        """The steps that a form takes, if those are convolutions one after another.

        Raises:
            Refused: the weights do not compose.
        """
        if type(form) is Convolved:
            return cls.propose(known, form.node, form.visited)
        if isinstance(form, Kept):
            return cls._of(known, form.node, form.visited, [[i] for i in form.visited])
        return None

    @classmethod
    def _of(
        cls, known: Known, index: int, visited: Sequence[int], parts: Sequence[Sequence[int]]
    ) -> Simplified | None:
        nodes = [known.nodes[i] for i in visited]
        if not known.is_path(tuple(visited)) or not any(node.multiplies for node in nodes):
            return None
        (read,) = nodes[0].operands
        form = cls(
            node=index,
            reads={read: None},
            visited=tuple(visited),
            cost=Cost(),
            stages=[_stage(known, tuple(part)) for part in parts],
        )
        return form.taking(known, form.stages)

    def taking(self, known: Known, stages: Sequence[Stage]) -> Simplified:
        """The same by other steps, with what they cost. Raises `Refused` where Keras has none."""
        is_matrix = is_matrix_alone(known.regions, self.visited)
        dtype, shared = known.owner[self.node].tensor.dtype, known.shared(self.visited)
        steps = itertools.chain.from_iterable(stage.steps for stage in stages)
        costs = [
            _cost(known, None if place else self.source, step, shared, is_matrix, dtype)
            for place, step in enumerate(steps)
        ]
        return replace(self, stages=stages, cost=Cost.sum([Cost(), *costs]))

    def complete(self) -> Simplified:
        """The same, and what its stages leave out."""
        return replace(self, whole=True) if any(x.missing for x in self.stages) else self

    def compose(self, nodes: Sequence[Node]) -> Chain:
        """What was found."""
        return Chain(self.stages)

    def emit(self, build: Builder, composed: Chain, xs: Mapping[int, Value]) -> Value:
        """A layer for each step."""
        name, activation = build.result()
        x, last = xs[self.source], len(self.stages) - 1
        for place, stage in enumerate(composed.stages):
            ends = place == last
            label = name if ends else build.names.reserve(f"{name}_stage_{place + 1}")
            x = self._emitted(build, x, stage, label, activation if ends else None, place)
        return x

    def _emitted(
        self, build: Builder, x: Value, stage: Stage, name: str, activation: Activation, place: int
    ) -> Value:
        """A stage on a tensor, with what it leaves out, if that is added."""
        if not self.whole or stage.missing is None:
            return _taken(build, x, stage.steps, name, activation, place)
        label = build.names.reserve(f"{name}_product")
        product = _taken(build, x, stage.steps, label, None, place)
        label = build.names.reserve(f"{name}_missing")
        missing = build.convolution(x, stage.missing, label, None, (self.name, place, "missing"))
        if activation is None:
            return build.sum([product, missing], name)
        added = build.sum([product, missing], build.names.reserve(f"{name}_sum"))
        return build.activated(added, activation, name)

    def words(self, regions: Regions) -> str:
        """The steps, in order."""
        is_matrix = is_matrix_alone(regions, self.visited)
        steps = itertools.chain.from_iterable(stage.steps for stage in self.stages)
        return " + ".join(_said(step, is_matrix) for step in steps)

    @property
    def aside(self) -> str:
        """How far the steps are from a kernel that they are as stored."""
        units = max(stage.units for stage in self.stages)
        return f"at most {units:.2f} units in the last place from the kernel" if units else ""


def stored_as(known: Known, form: AnyForm) -> str:
    """The dtype that the weights of a form are stored in."""
    layers = [known.owner[i].call.operation for i in form.visited]
    dtypes = [layer.variable_dtype for layer in layers if count_params(layer)]
    return dtypes[-1] if dtypes else known.owner[form.node].tensor.dtype


def _stage(known: Known, nodes: tuple[int, ...]) -> Stage:
    """Of the kernel that there is among nodes, or of all together."""
    kernels = tuple(i for i in nodes if known.nodes[i].multiplies)
    core = kernels if len(kernels) == 1 else nodes
    return Stage(nodes, core, (operator_of(known.nodes, core),))


def _taken(
    build: Builder, x: Value, steps: Steps, name: str, activation: Activation, place: int
) -> Value:
    """Steps on a tensor, one after another."""
    *before, last = steps
    for number, step in enumerate(before, 1):
        label = build.names.reserve(f"{name}_{number}")
        x = _emitted(build, x, step, label, None, (Simplified.name, place, number))
    return _emitted(build, x, last, name, activation, (Simplified.name, place))


def _cost(
    known: Known, read: int | None, step: Step, shared: int, is_matrix: bool, dtype: str
) -> Cost:
    """What a step costs that reads a node, or the step before it. Raises `Refused`."""
    match step:
        case Operator(geometry=geometry):
            if read is not None:
                return term_cost(known, read, geometry, shared, is_matrix)
            require_plain(geometry)
            check_emittable(geometry)
            is_dense = is_matrix and is_pointwise_matrix(geometry)
            return known.prices.operator(geometry, shared, "matrix" if is_dense else None)
        case Mean(geometry=geometry):
            samples = pixels(geometry.sizes) * geometry.channels[1]
            scales, shifts = _scales(step, dtype), bool(np.any(step.bias))
            cost = known.prices.operator(_padded(geometry), kind="pool")
            cost = cost._replace(params=0.0, unconvolved=1)
            for pairs in ([a.crop for a in geometry.axes], [a.pad for a in geometry.axes]):
                if any(map(any, pairs)) and keras_padding(geometry) != "valid":
                    moved = moved_bytes(_padded(geometry).sizes, geometry.channels[0])
                    cost += known.prices.step("elementwise", 2 * moved)
            return cost + known.prices.elementwise(samples, 0, scales, shifts)
        case Selection():
            if step.is_identity:
                return Cost()
            moved = 2 * moved_bytes(step.sizes, len(step.channels))
            cost = known.prices.step("elementwise", moved)
            return cost if run_of(step.channels) else cost._replace(layers=1)
        case Turned(Operator(geometry=geometry)):
            inner = step.inner.geometry
            require_plain(inner)
            check_emittable(inner)
            seen = None if read is None else known.seen(read, geometry)
            cost = known.prices.operator(inner, shared, seen=seen)
            layout = known.regions.graph.layout
            return cost + Cost.sum(known.prices.rearrangement(r, layout) for r in _turns(step))


def _turns(step: Turned) -> tuple[Rearrangement, Rearrangement]:
    """The transpositions of the image before a convolution, and of the one behind it."""
    geometry = step.inner.geometry
    read = *(axis.size for axis in step.operator.geometry.axes), geometry.channels[0]
    given = *geometry.sizes, geometry.channels[1]
    before, behind = (Rearrangement.permutation(shape, (1, 0, 2)) for shape in (read, given))
    return before, behind


def _padded(geometry: Geometry) -> Geometry:
    """Of the windows of an image that is cropped and padded already."""
    if keras_padding(geometry) == "valid":
        return geometry
    sizes = (None if a.extent is None else a.extent + sum(a.pad) for a in geometry.axes)
    axes = (Axis(n, a.taps, a.stride) for n, a in zip(sizes, geometry.axes, strict=True))
    return replace(geometry, axes=tuple(axes))


def _scales(mean: Mean, dtype: str) -> bool:
    """Whether a mean is multiplied by anything but what its dtype rounds to 1."""
    return bool(np.any(rounded(mean.gain, dtype) != 1))


def _emitted(
    build: Builder, x: Value, step: Step, name: str, activation: Activation, role: Hashable
) -> Value:
    """A step on a tensor, and the activation behind it."""
    if isinstance(step, Operator):
        return build.convolution(x, step, name, activation, role)
    label = name if activation is None else build.names.reserve(f"{name}_linear")
    match step:
        case Mean():
            x = _averaged(build, x, step, label, role)
        case Selection():
            x = _selected(build, x, step, label)
        case Turned():
            x = _turned(build, x, step, label, role)
    return x if activation is None else build.activated(x, activation, name)


def _averaged(build: Builder, x: Value, step: Mean, name: str, role: Hashable) -> Value:
    """Pooling, and what the means are multiplied by and shifted by, if they are."""
    geometry, rank = step.geometry, len(step.geometry.axes)
    if keras_padding(geometry) != "valid":
        pairs = [a.crop for a in geometry.axes], [a.pad for a in geometry.axes]
        x = build.pad_and_crop(x, *pairs, name)
    gain = step.gain if _scales(step, build.compute_dtype) else None
    shift = step.bias if np.any(step.bias) else None
    ends = gain is None and shift is None
    pool = build.layer(
        build.kind("AveragePooling", rank),
        role,
        name=name if ends else build.names.reserve(f"{name}_mean"),
        pool_size=geometry.taps,
        strides=tuple(axis.stride for axis in geometry.axes),
        data_format=build.layout,
    )
    return pool(x) if ends else build.scaled(pool(x), gain, shift, name)


def _turned(build: Builder, x: Value, step: Turned, name: str, role: Hashable) -> Value:
    """A transposition, the convolution, and the transposition back."""
    before, behind = _turns(step)
    x = build.rearranged(x, before, build.names.reserve(f"{name}_transposed"), role)
    x = build.convolution(x, step.inner, build.names.reserve(f"{name}_rows"), None, role)
    return build.rearranged(x, behind, name, (role, "back"))


def _selected(build: Builder, x: Value, step: Selection, name: str) -> Value:
    """The channels: as they are, in one slice, or one by one."""
    if step.is_identity:
        return build.same(x, name)
    return build.names.give_exactly(selected(x, step.channels, build.layout), name)


def _said(step: Step, is_matrix: bool) -> str:
    """A step in words."""
    match step:
        case Operator(geometry=geometry):
            return described(geometry, is_matrix)
        case Mean(geometry=geometry):
            kind = f"AveragePooling{len(geometry.axes)}D"
            return f"{kind} {window(replace(geometry, groups=1))}"
        case Selection():
            return "identity" if step.is_identity else "a selection of channels"
        case Turned():
            return f"Permute + {described(step.inner.geometry, is_matrix)} + Permute"

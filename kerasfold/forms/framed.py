"""One convolution for the interior, and the original steps on thin strips for the border."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from kerasfold.algebra.axis import Axis, Refused
from kerasfold.algebra.border import frame_boxes, frame_of, restricted
from kerasfold.algebra.chain import chain
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.cost import Cost, Prices, moved_bytes
from kerasfold.forms.bordered import Bordered, Frame, cut_in_stages, frame_found
from kerasfold.forms.form import Composed
from kerasfold.forms.known import Known, plain_image
from kerasfold.layers.limits import check_emittable
from kerasfold.layers.words import described
from kerasfold.lift.program import Node, Trait

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions


@dataclass(frozen=True, eq=False, slots=True)
class Framing(Composed):
    """The interior in one step, and the stages of the border."""

    interior: Operator
    stages: Sequence[Operator]

    @property
    def operators(self) -> Iterable[Operator]:
        """All of them."""
        return self.interior, *self.stages


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Framed(Bordered[Framing]):
    """The interior in one step, the border in as few exact steps as there are."""

    name: ClassVar[str] = "framed"
    bars: ClassVar[frozenset[Trait]] = frozenset({"sum", "concatenate", "rearranged"})
    is_last_resort: ClassVar[bool] = True

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Framed | None:
        """A path with an interior, at a known image size."""
        if not known.is_path(visited):
            return None
        if any(known.geometry(i).normalised and not known.is_layer(i) for i in visited):
            return None
        return cls.of(known, index, visited, frame_found(known, cls, visited, _frame))

    def compose(self, nodes: Sequence[Node]) -> Framing:
        """The stages, and in the interior their composition."""
        steps = self.operators_of(nodes)
        inner, _ = framed_geometries([step.geometry for step in steps])
        interior = chain(
            [
                Operator(geometry, step.kernel, step.bias)
                for geometry, step in zip(inner, steps, strict=True)
            ]
        )
        return Framing(interior, steps)

    def emit(self, build: Builder, composed: Framing, xs: Mapping[int, Value]) -> Value:
        """The interior by one convolution, the border by the stages on thin strips."""
        name, activation = build.result()
        x, interior = xs[self.source], composed.interior
        _, strips = framed_geometries([stage.geometry for stage in composed.stages])
        label = build.names.reserve(f"{name}_interior")
        image = build.convolution(x, interior, label, None, "interior")
        for axis in reversed(range(len(interior.geometry.axes))):
            pieces = {1: image}  # low strip, interior, high strip
            for number, (strip_axis, side, geometries) in enumerate(strips):
                if strip_axis == axis:
                    pieces[2 * side] = self._strip(
                        build, x, composed.stages, geometries, f"{name}_border_{number}", name
                    )
            if len(pieces) > 1:
                done = activation is None and axis == strips[0][0]
                ordered = [pieces[position] for position in sorted(pieces)]
                image = build.concatenated(ordered, axis, name, done)
        if activation is not None or not strips:
            image = build.activated(image, activation or "linear", name)
        return image

    def _strip(
        self,
        build: Builder,
        x: Value,
        steps: Sequence[Operator],
        geometries: Sequence[Geometry],
        name: str,
        shared: str,
    ) -> Value:
        """One strip of the border: every stage on the pixels that the next one reads."""
        for position, (step, geometry) in enumerate(zip(steps, geometries, strict=True)):
            label = f"{name}_{position}"
            if step.geometry.normalised:
                x = self._cut_out(build, x, position, step.geometry, geometry, label)
                continue
            role = ("stage", position)
            own = build.names.reserve(f"{shared}_stage_{position}")
            operator = Operator(geometry, step.kernel, step.bias)
            if any(axis.upsampling > 1 for axis in geometry.axes):
                common = {"name": own, "activation": None, "use_bias": geometry.biased}
                x = build.transposed_whole(x, operator, common, role)
                continue
            crops, pads = [a.crop for a in geometry.axes], [a.pad for a in geometry.axes]
            x = build.pad_and_crop(x, crops, pads, label)
            # Of unknown size, so that strips share a layer; but for an axis with a single window,
            # where a stride would do nothing.
            bare = tuple(
                Axis(None, a.taps, 1 if a.out == 1 else a.stride, a.dilation) for a in geometry.axes
            )
            operator = replace(operator, geometry=replace(geometry, axes=bare))
            x = build.convolution(x, operator, own, None, role)
        return x

    def _cut_out(
        self, build: Builder, x: Value, position: int, whole: Geometry, cut: Geometry, name: str
    ) -> Value:
        """Some outputs of a normalised operator, by its own layer on what they read.

        The layer runs on a cut of the image, with zeros at the cut edges so that its windows
        fall where they did, and its outputs that see a cut edge are dropped.
        """
        pads, drops = [], []
        for axis, full in zip(cut.axes, whole.axes, strict=True):
            assert axis.size is not None
            assert axis.out is not None
            assert full.size is not None
            seen, step = axis.size - sum(axis.crop), axis.stride
            # A 'same' layer pads by the remainder of the size.
            low = (axis.pad[0] - full.pad[0]) % step
            high = (full.size - low - seen) % step
            given = -(-(low + seen + high) * axis.upsampling // step)
            first = (low * axis.upsampling - axis.pad[0] + full.pad[0]) // step
            pads.append((low, high))
            drops.append((first, given - first - axis.out))
        x = build.pad_and_crop(x, [a.crop for a in cut.axes], pads, name)
        (node,) = self.stages[position]
        x = build.copied(node, x, build.names.reserve(f"{name}_pool"))
        return build.pad_and_crop(x, drops, [(0, 0)] * len(drops), f"{name}_cut")

    def words(self, regions: Regions) -> str:
        """The interior, and the number of stages."""
        (geometry,) = self.reads.values()
        return f"{described(geometry)}, and the border in {len(self.stages)} steps"


def framed_geometries(
    links: Sequence[Geometry],
) -> tuple[list[Geometry], list[tuple[int, int, list[Geometry]]]]:
    """The links restricted to the interior, and, as (axis, side, links), to each strip.

    Raises:
        Refused: no interior, or a strip that reads nothing but padding.
    """
    sizes = [n for n in links[-1].sizes if n is not None]
    if len(links) < 2 or len(sizes) < len(links[-1].axes):
        raise Refused("the border of an image of unknown size")
    interior, strips = frame_boxes(sizes, frame_of(links))
    return (
        restricted(links, interior),
        [(axis, side, restricted(links, box)) for axis, side, box in strips],
    )


def _frame(
    links: Sequence[Geometry], shared: int, prices: Prices, too_slow: Callable[[Cost], bool]
) -> Frame | None:
    """A chain as one convolution for the interior, and stages on strips for the border."""
    cuts, steps = cut_in_stages(links)
    if not steps:
        return None
    for step in steps:
        if not step.normalised:
            check_emittable(step)
    inner, strips = framed_geometries(steps)
    whole = plain_image(inner)
    if whole is None:
        return None
    cost = prices.operator(whole, shared)
    if too_slow(cost):
        return Frame(whole, cost, cuts)
    for position, step in enumerate(steps):
        if not step.normalised:
            cost += Cost(params=step.params / shared)
        for _, _, strip in strips:
            once = prices.operator(strip[position], kind="pool" if step.normalised else None)
            cost += once._replace(params=0.0)
    # Cutting the strips out and joining them with the interior.
    sizes, (_, channels) = links[-1].sizes, links[-1].channels
    moved = 2 * len(sizes) * moved_bytes(sizes, channels)
    calls = len(strips) * len(steps) + 2 * len(strips)
    return Frame(whole, cost + prices.step("copy", moved, calls), cuts)

"""What a step costs: pure functions of geometry, and the table of objectives."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from operator import add
from typing import Any, NamedTuple

import numpy as np

from kerasfold.algebra.axis import Axis
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.rearrange import Rearrangement
from kerasfold.errors import FoldError
from kerasfold.layers.limits import is_depthwise_layer
from kerasfold.layers.reorder import in_tensors, steps
from kerasfold.layers.rewrite import input_padding
from kerasfold.layers.spelling import (
    computed_sizes,
    is_one_layer,
    without_idle_strides,
    written,
)
from kerasfold.options import require_choice, whole_number
from kerasfold.rooflines import ROOFLINES, UNTOLD, Kind, Load, Roofline

TIE = 1 + 1e-9  # sums in another order are no slower
NOMINAL_SIZE = 64  # samples assumed along an axis of unknown size


class Cost(NamedTuple):
    """What a plan costs; a search adds up many of them.

    Attributes:
        macs: multiply-accumulates per image; the additions of a pool count, copies do not.
        params: weights.
        layers: emitted calls; padding, cropping, concatenation, reshaping and activations
            count 0.
        unconvolved: spatial operators that are not written as convolutions.
        seconds: on each of the runtimes that it is priced for; none of what takes none on any.
    """

    macs: float = 0.0
    params: float = 0.0
    layers: int = 0
    unconvolved: int = 0
    seconds: tuple[float, ...] = ()

    def __add__(self, other: Cost) -> Cost:  # type: ignore[override]  # of numbers, not of tuples
        return Cost(
            self.macs + other.macs,
            self.params + other.params,
            self.layers + other.layers,
            self.unconvolved + other.unconvolved,
            tuple(map(add, self.seconds, other.seconds))
            if self.seconds and other.seconds
            else self.seconds or other.seconds,
        )

    @staticmethod
    def sum(costs: Iterable[Cost]) -> Cost:
        """Of all together."""
        costs = list(costs)
        if len(costs) == 2:  # as most often; at half the time
            return costs[0] + costs[1]
        if len(costs) < 2:
            return costs[0] if costs else Cost()
        macs, params, layers, unconvolved, seconds = zip(*costs, strict=True)
        each = tuple(map(sum, zip(*filter(None, seconds), strict=True)))
        return Cost(sum(macs), sum(params), sum(layers), sum(unconvolved), each)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            self.macs - other.macs,
            self.params - other.params,
            self.layers - other.layers,
            self.unconvolved - other.unconvolved,
            tuple(before - after for before, after in self.beside(other)),
        )

    def times(self, share: float) -> Cost:
        """The cost of a share of the work, in as many calls."""
        return self._replace(
            macs=self.macs * share,
            params=self.params * share,
            seconds=tuple(s * share for s in self.seconds),
        )

    def beside(self, other: Cost) -> Iterator[tuple[float, float]]:
        """Seconds of both on each runtime."""
        return itertools.zip_longest(self.seconds, other.seconds, fillvalue=0.0)

    @property
    def total_seconds(self) -> float:
        """On all of the runtimes together."""
        return sum(self.seconds)


def _seconds(cost: Cost) -> float:
    """To the picosecond: sums in another order are no better."""
    return round(cost.total_seconds, 12)


@dataclass(frozen=True, slots=True)
class Objective:
    """What to minimise.

    Attributes:
        key: what costs are compared by.
        embeds: whether siblings of different windows may become one convolution, whose kernel has
            zeros where some of them have no taps.
        careful: whether seconds are what counts: a merge must be no slower on any runtime, and
            grow for much alone.
        is_timed: whether plans are chosen by timing them on a runtime; then `key` says which are
            worth it.
    """

    key: Callable[[Cost], tuple[float, ...]]
    embeds: bool = False
    careful: bool = False
    is_timed: bool = False

    def prefers(self, now: Cost, had: Cost, prices: Prices) -> bool:
        """Whether something costs less than it did, and where seconds count, more nowhere."""
        if self.key(now) >= self.key(had):
            return False
        return not (self.careful and prices.slower(had, now))


def _latency(cost: Cost) -> tuple[float, ...]:
    return _seconds(cost), cost.layers


OBJECTIVES: dict[str, Objective] = {
    "latency": Objective(_latency, careful=True),
    "macs": Objective(lambda c: (c.macs, c.params, _seconds(c))),
    "params": Objective(lambda c: (c.params, _seconds(c))),
    "layers": Objective(lambda c: (c.layers, c.unconvolved, _seconds(c)), embeds=True),
    "measured": Objective(_latency, careful=True, is_timed=True),
}

UNTIMED = tuple(name for name, objective in OBJECTIVES.items() if not objective.is_timed)


def objective_of(name: Any) -> Objective:
    """An objective by its name. Raises `FoldError` where there is none of it."""
    if not isinstance(name, str) or name not in OBJECTIVES:
        raise FoldError(
            f"unknown objective {name!r}: choose one of {', '.join(map(repr, OBJECTIVES))}"
        )
    return OBJECTIVES[name]


LANES, ROWS = 16, 48  # output channels and pixels that are computed at a time
FEWEST = 4  # pieces of a group that take as long as the product of what one of its pixels reads
WEIGHTLESS: tuple[Kind, ...] = ("pool", "reduction", "copy")
DEPTHWISE: tuple[Kind, ...] = ("depthwise", "row", "grouped depthwise", "scale")
RESHAPED = 3  # a depthwise layer's sequence, kernel and result: it computes images


def pixels(sizes: Iterable[int | None]) -> int:
    """Pixels of an image; an unknown size counts as `NOMINAL_SIZE`."""
    return math.prod(NOMINAL_SIZE if n is None else n for n in sizes)


def macs_of(geometry: Geometry) -> int:
    """Multiply-accumulates of one application of an operator."""
    ones = math.prod(geometry.taps) * geometry.channels[1] if geometry.ones else 0
    phases = math.prod(axis.upsampling for axis in geometry.axes)
    computed = pixels(computed_sizes(geometry))
    return computed * (math.prod(geometry.kernel_shape) + ones) // phases


def vectorised_macs(geometry: Geometry, batch: int = 1) -> float:
    """Multiply-accumulates of a matrix product in whole blocks of output pixels and channels."""
    macs = batch * macs_of(geometry)
    rows, columns = batch * pixels(computed_sizes(geometry)), geometry.channels[1]
    if geometry.groups > 1 or rows <= 1:
        return macs
    return macs * (-(-rows // ROWS) * ROWS / rows) * (-(-columns // LANES) * LANES / columns)


@functools.lru_cache(maxsize=4096)
def seen_share(axis: Axis) -> float:
    """Of what windows along an axis read, the share that is no zero around the image."""
    if axis.size is None or axis.out is None or not any(axis.pad):
        return 1.0
    first, taps = np.arange(axis.out) * axis.stride, np.arange(axis.taps) * axis.dilation
    places = np.add.outer(first, taps) - axis.pad[0]
    last = (axis.size - sum(axis.crop) - 1) * axis.upsampling
    return float(np.mean((places >= 0) & (places <= last)))


def seen_of(geometry: Geometry) -> float:
    """Of what all windows read, the share that is no zero around the image."""
    return math.prod(map(seen_share, geometry.axes))


def im2col(geometry: Geometry) -> tuple[int, int]:
    """Inputs gathered for a matrix product, and the pieces they are in: none where it is one.

    In groups it is many products, but where each channel is multiplied by a number of its own.
    """
    taps, groups = math.prod(geometry.taps), geometry.groups
    if geometry.vector or (geometry.is_pointwise and (groups == 1 or geometry.keeps_channels)):
        return 0, 0
    windows = pixels(computed_sizes(geometry))
    phases = math.prod(axis.upsampling for axis in geometry.axes)
    pieces = taps if groups == 1 else max(taps, FEWEST)
    return taps * windows * geometry.channels[0] // phases, pieces * windows * groups // phases


def moved_bytes(sizes: Iterable[int | None], channels: int) -> int:
    """Bytes of one float32 image."""
    return 4 * pixels(sizes) * channels


def moved_by(r: Rearrangement, layout: str) -> int:
    """Bytes that go elsewhere in the tensors of images that are rearranged: none in a reshape."""
    if in_tensors(r, layout).keeps_order:
        return 0
    return 2 * moved_bytes(r.target, 1)


def load_of(geometry: Geometry, batch: int = 1, seen: float | None = None) -> Load:
    """What a layer does that is written so, on so many images at once.

    Of what it reads, a share of `seen` is no zero: by default all but those that it pads with.
    """
    outputs = geometry.channels[1]
    inputs = geometry.channels[0] + (geometry.groups if geometry.ones else 0)
    sizes = (None if a.size is None else a.size - sum(a.crop) for a in geometry.axes)
    weights = 4 * (geometry.params - geometry.biased * outputs)  # a bias is added on the way
    read = batch * moved_bytes(sizes, inputs)
    given = batch * moved_bytes(computed_sizes(geometry), outputs)
    gathered, pieces = im2col(geometry)
    return Load(
        moved=read + given + weights,
        image=max(read, given),
        macs=vectorised_macs(geometry, batch),
        gathered=batch * gathered,
        pieces=batch * pieces * (seen_of(geometry) if seen is None else seen),
        weights=weights,
        pads=any(axis.same or any(axis.pad) for axis in geometry.axes),
        window=math.prod(geometry.taps) * geometry.channels[0] / geometry.groups,
    )


def kind_of(geometry: Geometry) -> Kind:
    """The kind of layer that an operator is written as."""
    geometry = written(without_idle_strides(geometry))
    if not geometry.axes or (geometry.vector and all(a.taps == a.size for a in geometry.axes)):
        return "matrix"
    is_volume = len(geometry.axes) == 3 and not geometry.is_pointwise
    if any(axis.upsampling > 1 for axis in geometry.axes):
        return "transposed volume" if is_volume else "transposed"
    if is_depthwise_layer(geometry):
        if geometry.is_pointwise and geometry.keeps_channels:
            return "scale"
        is_row = len(geometry.axes) == 2 and geometry.taps[0] == 1 < geometry.taps[1]
        return "row" if is_row else "depthwise"
    if is_volume:
        return "grouped volume" if geometry.groups > 1 else "volume"
    if geometry.groups > 1:
        return "grouped"
    of_pixels = all(axis.taps == 1 for axis in geometry.axes)
    is_matrix = all(axis.stride == 1 and not any(axis.pad) for axis in geometry.axes)
    return "padded" if of_pixels and not is_matrix else "convolution"


@dataclass(frozen=True, slots=True)
class Prices:
    """What steps cost where a plan is to run.

    Attributes:
        rooflines: of each runtime that the plan must suit.
        batch: images at once.
        known: what layers and steps cost that were asked for before.
    """

    rooflines: tuple[Roofline, ...] = field(
        default_factory=lambda: tuple(ROOFLINES[name] for name in UNTOLD)
    )
    batch: int = 1
    known: dict[Hashable, Cost] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, runtime: Any = None, batch_size: Any = None) -> Prices:
        """Where a plan is told to run.

        Args:
            runtime: a key of `ROOFLINES`, or None for what suits each of `UNTOLD`.
            batch_size: images at once; None for one.

        Raises:
            FoldError: there is no such runtime, or no such batch.
        """
        batch = 1 if batch_size is None else whole_number("batch_size", batch_size)
        if runtime is None:
            return cls(batch=batch)
        require_choice("runtime", runtime, tuple(ROOFLINES))
        return cls((ROOFLINES[runtime],), batch)

    @property
    def channels(self) -> int:
        """What a number of channels is to be a multiple of, so that no runtime is slower for it."""
        return math.lcm(*(roofline.channels for roofline in self.rooflines))

    def each(self, had: Cost, now: Cost) -> Iterator[tuple[Roofline, float, float]]:
        """Seconds of both on each runtime."""
        none = itertools.repeat(0.0)
        return zip(self.rooflines, had.seconds or none, now.seconds or none, strict=False)

    def slower(self, had: Cost, now: Cost) -> str:
        """The runtimes on which something takes longer than it did, in words."""
        each = self.each(had, now)
        return " and ".join(r.where for r, before, after in each if after > before * TIE)

    def step(
        self,
        kind: Kind,
        moved: float,
        calls: int = 1,
        behind: bool = False,
        ahead: bool = False,
    ) -> Cost:
        """Calls that multiply nothing, and move so many bytes of an image between them.

        They may stand behind a layer of weights, or be zeros ahead of one: some runtimes make one
        call of both.
        """
        key = kind, moved, calls, behind, ahead
        if key not in self.known:
            load, more = Load(self.batch * moved), calls - 1
            seconds = (
                0.0
                if (behind and r.fuses) or (ahead and r.padding is not None)
                else r.seconds(kind, load) + more * r.rates[kind].start
                for r in self.rooflines
            )
            self.known[key] = Cost(seconds=tuple(seconds))
        return self.known[key]

    def elementwise(
        self, samples: int, constants: int, scales: int, shifts: int, behind: bool = False
    ) -> Cost:
        """Calls that multiply samples of an image by constants, and such that add them."""
        calls = scales + shifts
        cost = self.step("elementwise", calls * 2 * 4 * samples, calls, behind)
        return cost._replace(macs=scales * samples, params=calls * constants, layers=calls)

    def rearrangement(self, r: Rearrangement, layout: str) -> Cost:
        """Reshape and Permute layers. Raises `Refused` where there are none that say it."""
        return self.step("copy", moved_by(r, layout), len(steps(in_tensors(r, layout))))

    def operator(
        self,
        geometry: Geometry,
        shared: int = 1,
        kind: Kind | None = None,
        seen: float | None = None,
    ) -> Cost:
        """One emitted layer; `shared` calls share its weights.

        Its kind is that of the convolution that it is, if nothing else is said. For `seen` see
        `load_of`.
        """
        key = geometry, shared, kind, seen
        if key not in self.known:
            self.known[key] = self._operator(written(geometry), shared, kind, seen)
        return self.known[key]

    def _operator(
        self, geometry: Geometry, shared: int, kind: Kind | None, seen: float | None
    ) -> Cost:
        kind = kind_of(geometry) if kind is None else kind
        macs = 0 if kind == "copy" else macs_of(geometry)
        load = load_of(geometry, self.batch, seen)
        if kind in WEIGHTLESS:
            load = load._replace(weights=0.0, pads=False)
        seconds = tuple(roofline.seconds(kind, load) for roofline in self.rooflines)
        cost = Cost(macs, geometry.params / shared, 1, 0, seconds)
        if kind in DEPTHWISE and len(geometry.axes) == 1:
            cost += self.step("copy", 0.0, RESHAPED)
        if geometry.vector and kind != "reduction":
            cost += self.step("copy", 0.0)  # what it gives or reads is flattened
        sizes = (None if a.size is None else a.size - sum(a.crop) for a in geometry.axes)
        read = moved_bytes(sizes, geometry.channels[0])
        if geometry.ones:  # one more channel for each group, beside each group
            return cost + self.step("copy", 2 * read, 2 + geometry.groups)
        return cost if is_one_layer(geometry) else cost + self._edges(geometry)

    def _edges(self, geometry: Geometry) -> Cost:
        """The paddings and croppings of their own that an operator needs around its layer."""
        axes, (inputs, outputs) = geometry.axes, geometry.channels
        transposed = any(axis.upsampling > 1 for axis in axes)
        pads = [(input_padding(a, 0), input_padding(a, 1)) if transposed else a.pad for a in axes]
        seen = [None if a.size is None else a.size - sum(a.crop) for a in axes]
        padded = [None if n is None else n + sum(p) for n, p in zip(seen, pads, strict=True)]
        moved = [moved_bytes(seen, inputs)] * any(any(a.crop) for a in axes)
        moved += [moved_bytes(padded, inputs)] * any(map(any, pads))
        moved += [moved_bytes(geometry.sizes, outputs)] * transposed
        return self.step("cut", 2 * sum(moved), len(moved))

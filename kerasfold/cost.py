"""What a step costs: pure functions of geometry, and the table of objectives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.rearrange import Rearrangement
from kerasfold.errors import FoldError
from kerasfold.layers.limits import is_depthwise_layer
from kerasfold.layers.reorder import in_tensors, steps
from kerasfold.layers.spelling import computed_sizes, is_one_layer, written

NOMINAL_SIZE = 64  # samples assumed along an axis of unknown size


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


def _seconds(cost: Cost) -> float:
    """To the picosecond: sums in another order are no better."""
    return round(cost.seconds, 12)


@dataclass(frozen=True, slots=True)
class Objective:
    """What to minimise.

    Attributes:
        key: what costs are compared by.
        embeds: whether siblings of different windows may become one convolution, whose kernel has
            zeros where some of them have no taps.
        is_timed: whether plans are chosen by timing them on a runtime; then `key` says which are
            worth it.
    """

    key: Callable[[Cost], tuple[float, ...]]
    embeds: bool = False
    is_timed: bool = False


def _latency(cost: Cost) -> tuple[float, ...]:
    return _seconds(cost), cost.layers


OBJECTIVES: dict[str, Objective] = {
    "latency": Objective(_latency),
    "macs": Objective(lambda c: (c.macs, _seconds(c))),
    "params": Objective(lambda c: (c.params, _seconds(c))),
    "layers": Objective(lambda c: (c.layers, c.unconvolved, _seconds(c)), embeds=True),
    "measured": Objective(_latency, is_timed=True),
}

UNTIMED = tuple(name for name, objective in OBJECTIVES.items() if not objective.is_timed)


def objective_of(name: Any) -> Objective:
    """An objective by its name. Raises `FoldError` where there is none of it."""
    if not isinstance(name, str) or name not in OBJECTIVES:
        raise FoldError(
            f"unknown objective {name!r}: choose one of {', '.join(map(repr, OBJECTIVES))}"
        )
    return OBJECTIVES[name]


# The roofline of float32 on two cores of an Intel Xeon, batch 1, per second. Fitted on 2026-11-22
# by benchmarks/roofline.py, on TensorFlow 2.21 graphs | under XLA:
DENSE_MACS = 8.5e10  # 1.2e11 | 8.5e10
DEPTHWISE_MACS = 1.8e10  # 1.8e10 | 3.4e8
POOL_ADDS = 1.7e11  # 1.7e11 | as fast as memory
BYTES = 1.25e10  # 1.25e10 | 1.25e10
IM2COL = 3.2e9  # 1.5e10 | 3.2e9; inputs gathered for a product, one for each tap and output pixel
PER_CALL = 7e-6  # 3.2e-5 | 7e-6
DISPATCH = 3.2e-5  # 3.2e-5 | 1.7e-5; to share the work of a call among cores
# In use is that of the runtime by which a merge gains less, but for depthwise layers, which XLA
# runs so slowly that it would have them all made dense.
SPLIT = 1.25e-5  # seconds of work from which on a call is shared; read off chains under XLA
LANES, ROWS = 16, 48  # output channels and pixels that are computed at a time


def pixels(sizes: Iterable[int | None]) -> int:
    """Pixels of an image; an unknown size counts as `NOMINAL_SIZE`."""
    return math.prod(NOMINAL_SIZE if n is None else n for n in sizes)


def macs_of(geometry: Geometry) -> int:
    """Multiply-accumulates of one application of an operator."""
    ones = math.prod(geometry.taps) * geometry.channels[1] if geometry.ones else 0
    phases = math.prod(axis.upsampling for axis in geometry.axes)
    computed = pixels(computed_sizes(geometry))
    return computed * (math.prod(geometry.kernel_shape) + ones) // phases


def vectorised_macs(geometry: Geometry) -> float:
    """Multiply-accumulates of a matrix product in whole blocks of output pixels and channels."""
    macs = macs_of(geometry)
    rows, columns = pixels(computed_sizes(geometry)), geometry.channels[1]
    if geometry.groups > 1 or rows <= 1:
        return macs
    return macs * (-(-rows // ROWS) * ROWS / rows) * (-(-columns // LANES) * LANES / columns)


def im2col(geometry: Geometry) -> float:
    """Inputs gathered for a matrix product, by im2col: none for 1x1, whole and grouped kernels."""
    if geometry.groups > 1 or geometry.vector or math.prod(geometry.taps) == 1:
        return 0.0
    return macs_of(geometry) / geometry.channels[1]


def moved_bytes(sizes: Iterable[int | None], channels: int) -> int:
    """Bytes of one float32 image."""
    return 4 * pixels(sizes) * channels


def seconds_of(moved: float, calls: float) -> float:
    """Seconds of calls that compute nothing, and move so many bytes between them."""
    return moved / BYTES + calls * PER_CALL


def moved_by(r: Rearrangement, layout: str) -> int:
    """Bytes that go elsewhere in the tensors of images that are rearranged: none in a reshape."""
    if in_tensors(r, layout).keeps_order:
        return 0
    return 2 * moved_bytes(r.target, 1)


def elementwise_cost(samples: int, constants: int, scales: int, shifts: int) -> Cost:
    """Calls that multiply samples by constants, and such that add them."""
    calls = scales + shifts
    moved = calls * 2 * 4 * samples
    return Cost(scales * samples, calls * constants, calls, 0, seconds_of(moved, calls))


def rearrangement_cost(r: Rearrangement, layout: str) -> Cost:
    """Reshape and Permute layers. Raises `Refused` where there are none that say it."""
    taken = steps(in_tensors(r, layout))
    return Cost(seconds=seconds_of(moved_by(r, layout), len(taken)))


def operator_cost(geometry: Geometry, shared: int = 1, weightless: bool = False) -> Cost:
    """One emitted convolution; `shared` calls share its weights.

    A `weightless` one is a pool or the like, which adds and does not multiply.
    """
    geometry = written(geometry)
    macs = macs_of(geometry)
    inputs = geometry.channels[0] + (geometry.groups if geometry.ones else 0)
    seen = (None if a.size is None else a.size - sum(a.crop) for a in geometry.axes)
    read = moved_bytes(seen, inputs)
    write = moved_bytes(computed_sizes(geometry), geometry.channels[1])
    grouped = geometry.groups > 1
    rate = POOL_ADDS if weightless else DEPTHWISE_MACS if grouped else DENSE_MACS
    work = vectorised_macs(geometry) / rate + im2col(geometry) / IM2COL
    weights = replace(geometry, biased=False).params  # a bias is added on the way
    work = max(work, (read + write + 4 * weights) / BYTES)
    seconds = work + PER_CALL + (DISPATCH if work > SPLIT else 0.0)
    if geometry.groups > 1 and not (weightless or is_depthwise_layer(geometry)):
        # Group by group, each with a copy of its part of the input and the output.
        seconds += geometry.groups * (PER_CALL + (read + write) / BYTES)
    if geometry.ones:  # one more channel for each group, beside each group
        seconds += 2 * read / BYTES + (2 + geometry.groups) * PER_CALL
    elif not is_one_layer(geometry):
        seconds += 2 * read / BYTES + PER_CALL
    return Cost(macs, geometry.params / shared, 1, 0, seconds)

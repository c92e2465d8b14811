"""What a step costs: pure functions of geometry, and the table of objectives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kerasfold.conv import Geometry
from kerasfold.express import computed_sizes, is_depthwise_layer, is_one_layer, written

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


OBJECTIVES: dict[str, Callable[[Cost], tuple[float, ...]]] = {
    "latency": lambda c: (_seconds(c), c.layers),
    "macs": lambda c: (c.macs, _seconds(c)),
    "params": lambda c: (c.params, _seconds(c)),
    "layers": lambda c: (c.layers, c.unconvolved, _seconds(c)),
}

# The roofline of float32 on two cores of an Intel Xeon (TensorFlow 2.21 graph, batch 1), per
# second: fitted by benchmarks/roofline.py on 2026-11-22. Under XLA the same
# fit gave 4.0e10, 3.4e8, 3.6e11, 5.0e9 and 5.4e-6.
DENSE_MACS = 8.4e10
DEPTHWISE_MACS = 1.8e10
POOL_ADDS = 4e11
BYTES = 1.3e10
PER_CALL = 6e-5
LANES = 16  # float32 of a vector register: output channels are computed so many at a time


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
    """Multiply-accumulates with the idle lanes of the last vector of output channels."""
    outputs = geometry.channels[1]
    lanes = -(-outputs // LANES) * LANES if geometry.groups == 1 else outputs
    return macs_of(geometry) * lanes / outputs


def moved_bytes(sizes: Iterable[int | None], channels: int) -> int:
    """Bytes of one float32 image."""
    return 4 * pixels(sizes) * channels


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
    work = vectorised_macs(geometry) / rate
    seconds = max(work, (read + write + 4 * geometry.params) / BYTES) + PER_CALL
    if geometry.groups > 1 and not (weightless or is_depthwise_layer(geometry)):
        # Group by group, each with a copy of its part of the input and the output.
        seconds += geometry.groups * (PER_CALL + (read + write) / BYTES)
    if geometry.ones:  # one more channel for each group, beside each group
        seconds += 2 * read / BYTES + (2 + geometry.groups) * PER_CALL
    elif not is_one_layer(geometry):
        seconds += 2 * read / BYTES + PER_CALL
    return Cost(macs, geometry.params / shared, 1, 0, seconds)

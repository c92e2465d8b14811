"""What runtimes take for a call: a roofline each, of few constants for each kind of work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal[
    "convolution",
    "padded",
    "transposed",
    "depthwise",
    "row",  # a depthwise layer of windows of an image along its last axis alone
    "scale",
    "grouped",
    "grouped depthwise",  # what a depthwise layer computes, as a convolution in groups
    "volume",
    "grouped volume",
    "transposed volume",
    "matrix",
    "pool",
    "reduction",
    "normalisation",
    "elementwise",
    "cut",  # padding, cropping and selecting
    "strided",  # selecting every so many samples of an image; a cut and a reshape at the least
    "blocks",  # the same as a reshape and a cut of neighbours
    "copy",
]


class Rate(NamedTuple):
    """How fast a runtime does one kind of work, in float32 at batch 1.

    Attributes:
        start: seconds to begin a call.
        macs: multiply-accumulates, or additions, per second.
        bytes: per second.
        gathered: inputs copied together for a matrix product (im2col), per second.
        pieces: runs of neighbours that those are copied in, per second.
        shared: seconds more to begin a call that is shared among cores.
        long: seconds more for windows of more numbers than `Roofline.window`.
    """

    start: float
    macs: float = math.inf
    bytes: float = 1.25e10
    gathered: float = math.inf
    pieces: float = math.inf
    shared: float = 0.0
    long: float = 0.0


class Load(NamedTuple):
    """What one call does; see `Rate`.

    Attributes:
        moved: bytes read and written.
        image: bytes of the larger of what is read and what is written.
        weights: bytes of weights, among those that are moved.
        pads: whether zeros are put around what is read.
        window: numbers that one output is a sum of.
        macs: multiply-accumulates, or additions.
        gathered: inputs copied together.
        pieces: runs that they are in.
    """

    moved: float
    image: float = 0.0
    macs: float = 0.0
    gathered: float = 0.0
    pieces: float = 0.0
    weights: float = 0.0
    pads: bool = False
    window: float = 0.0


@dataclass(frozen=True, slots=True)
class Roofline:
    """What a runtime takes.

    Attributes:
        name: of the runtime.
        rates: of each kind of work.
        sharing: bytes of an image from which on a call is shared among cores.
        fuses: whether it computes a scale, a shift or a normalisation with the layer of weights
            that it is read from, at no cost.
        weights: bytes of weights that are read per second, where that is slower than what else is
            moved, which is in the caches.
        padding: seconds more that a layer of weights takes which puts zeros around what it reads,
            where those of a layer before it cost nothing; None where they do.
        channels: of what a layer of weights makes, a number of which a multiple is computed faster
            than one or some less.
        window: numbers in a window above which its product is summed up in parts.
        preposition: what runs is there, or so.
    """

    name: str
    rates: Mapping[Kind, Rate]
    sharing: float
    fuses: bool = False
    weights: float = math.inf
    padding: float | None = None
    channels: int = 1
    window: float = math.inf
    preposition: str = "on"

    @property
    def where(self) -> str:
        """The runtime, as the end of a sentence says it."""
        return f"{self.preposition} {self.name}"

    def seconds(self, kind: Kind, load: Load) -> float:
        """Of one call."""
        rate = self.rates[kind]
        work = load.macs / rate.macs + load.gathered / rate.gathered + load.pieces / rate.pieces
        start = rate.start + (rate.shared if load.image > self.sharing else 0.0)
        start += rate.long if load.window > self.window else 0.0
        own = (self.padding or 0.0) if load.pads else 0.0
        moving = load.moved / rate.bytes + load.weights / self.weights
        return start + own + max(work, moving)


# Fitted by benchmarks/roofline.py to two cores of an AMD EPYC, on 2026-11-26. TensorFlow runs
# convolutions in groups through XLA, which makes one of depthwise layers, too; XLA fuses what is
# elementwise with what it stands beside, and gathers the inputs of a convolution piece by piece,
# for each group by itself.
# What would be a matrix product if there were no zeros around its input is a convolution to XLA.
# Threads share the parts of a long window there: to wake them behind calls that need none took 60
# to 130 microseconds, in a chain 8.
# Light steps count as half of what they take in a chain of their like: a depthwise layer in their
# place would wake threads, which no such chain shows.
TENSORFLOW = Roofline(
    "TensorFlow",
    {
        "convolution": Rate(1.3e-5, 7.9e10, 1.5e10, gathered=2.7e10, shared=5e-5),
        "padded": Rate(1.3e-5, 7.9e10, 1.5e10, gathered=2.7e10, shared=5e-5),
        "transposed": Rate(1.6e-4, 6.5e10),
        "depthwise": Rate(8.1e-5, 2.9e10),
        "row": Rate(8.1e-5, 2.9e10),
        "scale": Rate(6.4e-5, bytes=6.25e9),
        "grouped": Rate(7.4e-5, 4.4e10, gathered=4.9e9, pieces=1.4e8),
        "grouped depthwise": Rate(7.4e-5, 4.4e10, gathered=4.9e9, pieces=1.4e8),
        "volume": Rate(1e-4, 2.2e11, gathered=3.2e9),
        "grouped volume": Rate(7.4e-5, 2.1e10, gathered=1.7e9, pieces=4.3e7),
        "transposed volume": Rate(2.3e-4, 1.6e10),
        "matrix": Rate(5.7e-6, 2.2e11, 4.6e9),
        "pool": Rate(4e-5, 1.7e11),
        "reduction": Rate(2e-6, 1.7e11),
        "normalisation": Rate(3e-6),
        "elementwise": Rate(1.5e-6),
        "cut": Rate(1.5e-6),
        "strided": Rate(1.5e-6, bytes=7.6e8),
        "blocks": Rate(3e-6),
        "copy": Rate(1.5e-6),
    },
    sharing=8e3,
)
XLA = Roofline(
    "XLA",
    {
        "convolution": Rate(7.9e-6, 6.7e10, 9.3e9, gathered=4.2e10, pieces=2.4e8, long=2e-5),
        "padded": Rate(4.5e-5, 6.7e10, 9.3e9, gathered=4.2e10, pieces=2.4e8),
        "transposed": Rate(6.3e-6, 5.5e10, gathered=2.1e9),
        "depthwise": Rate(4.5e-5, 3.9e10, pieces=1.7e8),
        "row": Rate(4.5e-5, 3.9e10, 2.7e8, pieces=5e8),
        "scale": Rate(5e-6, bytes=2e11),
        "grouped": Rate(2.3e-5, 4.3e10, gathered=7.8e9, pieces=1.2e8),
        "grouped depthwise": Rate(4.5e-5, 3.9e10, pieces=1.7e8),
        "volume": Rate(4.2e-5, 1.7e10, pieces=4.7e7),
        "grouped volume": Rate(4.2e-5, 4.3e10, gathered=9.6e8, pieces=4.6e7),
        "transposed volume": Rate(4.4e-5, 2.2e8),
        "matrix": Rate(5.1e-6, 2.2e11, 6.1e9),
        "pool": Rate(1e-6, 2.5e9),
        "reduction": Rate(1e-6),
        "normalisation": Rate(5e-6, bytes=2e11),
        "elementwise": Rate(5e-7, bytes=2e11),
        "cut": Rate(5e-7, bytes=2e11),
        "strided": Rate(1.5e-6, bytes=2e11),
        "blocks": Rate(1.5e-6, bytes=2e11),
        "copy": Rate(1e-6),
    },
    sharing=1e5,
    window=256,
    preposition="under",
)
# The runtimes that are brought a model as a file make one call of a layer, its scale and shift and
# its activation. ONNX Runtime gets no convolution in groups from its converter, nor LiteRT one of
# volumes: those are priced as one without, but what a depthwise layer says as twice that layer.
# OpenVINO takes zeros before a layer into it; of what a layer reads that pads by itself, it may
# change the layout first.
# Light steps count as a fifth or so of what they take in a chain: some are computed with the layer
# that they stand beside, and a layer in their place would need its input in another layout. ONNX
# Runtime brings an image that is sliced with strides into another layout, before it is reshaped
# for that once more; a pool takes it as it is. It computes convolutions in a layout of blocks of
# channels, which it brings images into where these are a multiple of four, and takes the mean of
# what a convolution makes as fast as it pools. OpenVINO reshapes images no faster: by slices
# ResNet50 ran at 0.87 of its speed there, by layers of single pixels at 1.01.
_LIGHT: Mapping[Kind, Rate] = {
    "normalisation": Rate(3e-7, bytes=3e11),
    "elementwise": Rate(3e-7, bytes=3e11),
    "cut": Rate(5e-7, bytes=1e11),
    "strided": Rate(1.5e-6, bytes=1e11),
    "blocks": Rate(1.5e-6, bytes=1e11),
    "copy": Rate(1e-6, bytes=1e11),
}
LITERT = Roofline(
    "LiteRT",
    {
        "convolution": Rate(1e-6, 9.8e10, 2.3e10),
        "padded": Rate(1e-6, 9.8e10, 2.3e10),
        "transposed": Rate(2.4e-6, 7.3e10, 4.3e9),
        "depthwise": Rate(3.4e-6, 3.4e10, 3.1e10),
        "row": Rate(3.4e-6, 3.4e10, 3.1e10),
        "scale": Rate(5e-6, bytes=4.5e10),
        "grouped": Rate(4.3e-5, 1.2e11),
        "grouped depthwise": Rate(4.3e-5, 1.2e11),
        "volume": Rate(1.8e-4, 5.5e10),
        "grouped volume": Rate(1.8e-4, 5.5e10),
        "transposed volume": Rate(1.9e-4, 1.4e11),
        "matrix": Rate(7.5e-6, 1.6e11, 6.4e11),
        "pool": Rate(1e-6, bytes=3.7e10),
        "reduction": Rate(1.1e-6, bytes=4e10),
        **_LIGHT,
        "strided": Rate(3.4e-6, bytes=9.6e8),
    },
    sharing=math.inf,
    fuses=True,
    weights=1.2e10,
)
ONNXRUNTIME = Roofline(
    "ONNX Runtime",
    {
        "convolution": Rate(2.4e-6, 1e11, 5e10),
        "padded": Rate(2.4e-6, 1e11, 5e10),
        "transposed": Rate(4.5e-5, 6.2e10, 1.7e10),
        "depthwise": Rate(6.6e-6, 1e11, 7e10),
        "row": Rate(6.6e-6, 1e11, 7e10),
        "scale": Rate(1.2e-5, bytes=2.5e10),
        "grouped": Rate(2.4e-6, 1e11, 5e10),
        "grouped depthwise": Rate(1.3e-5, 1e11, 7e10),
        "volume": Rate(2.9e-5, 5.8e10),
        "grouped volume": Rate(2.9e-5, 5.8e10),
        "transposed volume": Rate(7.3e-6, 6.3e9),
        "matrix": Rate(3.4e-6, 9.6e10, 1.1e11),
        "pool": Rate(3e-6, bytes=4e10),
        "reduction": Rate(1e-6, bytes=4e10),
        **_LIGHT,
        "strided": Rate(1.5e-6, bytes=1.7e9),
        "blocks": Rate(1.5e-6, bytes=1.1e9),
    },
    sharing=math.inf,
    fuses=True,
    weights=1.2e10,
    padding=0.0,
    channels=4,
)
OPENVINO = Roofline(
    "OpenVINO",
    {
        "convolution": Rate(4e-6, 1.9e11, 9.3e10),
        "padded": Rate(4e-6, 1.9e11, 9.3e10),
        "transposed": Rate(2.9e-5, 1.5e11, 4.8e9),
        "depthwise": Rate(2.4e-6, 1e11, 5.1e10),
        "row": Rate(2.4e-6, 1e11, 5.1e10),
        "scale": Rate(8e-6, bytes=2.5e10),
        "grouped": Rate(6.3e-6, 1.7e11),
        "grouped depthwise": Rate(6.3e-6, 1.7e11),
        "volume": Rate(9.3e-6, 1.6e11),
        "grouped volume": Rate(1.1e-5, 2.7e11),
        "transposed volume": Rate(1.9e-6, 1.5e10),
        "matrix": Rate(1.3e-6, 1.3e11, 1.2e11),
        "pool": Rate(1.6e-5, bytes=1.8e10),
        "reduction": Rate(2.6e-6, bytes=2e10),
        **_LIGHT,
        "strided": Rate(1.5e-6, bytes=1.7e9),
        "blocks": Rate(1.5e-6, bytes=1.1e9),
    },
    sharing=math.inf,
    fuses=True,
    weights=1e10,
    padding=2e-6,
)
ROOFLINES: dict[str, Roofline] = {
    "tensorflow": TENSORFLOW,
    "xla": XLA,
    "litert": LITERT,
    "onnxruntime": ONNXRUNTIME,
    "openvino": OPENVINO,
}
UNTOLD = ("tensorflow", "xla")  # what a plan must suit where it is not told where it runs

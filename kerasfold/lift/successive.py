"""Nonlinear calls one after another that are one call: max pools, clamps, what is idempotent.

A maximum of maxima is that of all that they see, however often they do: windows of k1 samples,
s1 apart, and then of k2, s2 apart, are windows of k1 + (k2 - 1) s1 samples, s1 s2 apart, if no
samples lie between them; what they see at the border must be what one window sees there. A clamp
of a clamp is a clamp:

    min(max(min(max(x, a), b), c), d) = min(max(x, a'), b')
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import keras

from kerasfold.algebra.axis import Axis, Refused
from kerasfold.layers.spelling import padded_axis
from kerasfold.lift.activations import laws_of
from kerasfold.lift.numbering import compute_alike
from kerasfold.lift.program import Sizes
from kerasfold.lift.rules import RULES
from kerasfold.lift.wrapper_rules import inline_activation
from kerasfold.lift.writing import rewritten
from kerasfold.read.anew import Together
from kerasfold.read.graph import Call, Graph, Tensor, given_others, read_counts
from kerasfold.read.model import is_layer, is_of_keras


def in_one(graph: Graph) -> Graph:
    """The graph with such calls in one; itself where there are none."""
    readers = read_counts(graph)
    makers: dict[int, Call] = {}  # by tensor, of those that are left
    before: dict[int, Tensor] = {}  # of a tensor that is made no more, the one that it equals
    together: dict[int, Together] = {}  # by tensor

    def first(tensor: Tensor) -> Tensor:
        return before.get(tensor.index, tensor)

    for given in graph.calls:
        call = given_others(given, first)
        inner = makers.get(call.inputs[0].index) if _is_plain(call) else None
        one = _one_of(call, inner) if inner is not None and _is_plain(inner) else None
        if inner is None or one is None:
            makers |= {x.index: call for x in call.outputs}
            continue
        (made,), (read,) = call.outputs, inner.outputs
        if one is inner:
            before[made.index] = read
            readers[read.index] += readers[made.index] - 1
        elif readers[read.index] == 1:
            del makers[read.index]
            makers[made.index] = one
        else:
            makers[made.index] = call
            continue
        names = together.pop(read.index, Together("", "", (inner.name,))).names
        key = read.index if one is inner else made.index
        together[key] = Together(one.name, type(one.operation).__name__, (*names, call.name))
    if not together:
        return graph
    left = list(dict.fromkeys(makers.values()))
    return rewritten(graph, left, before, tuple(together.values()))


def _is_plain(call: Call) -> bool:
    """Whether a call gives one tensor of one of its dtype, and no masks go along."""
    tensors = (*call.inputs, *call.outputs)
    same = len({x.dtype for x in tensors}) == 1
    return len(tensors) == 2 and same and not (call.training or any(x.masked for x in tensors))


def _one_of(call: Call, inner: Call) -> Call | None:
    """What computes a call and the one that it reads: that one, where it changes nothing.

    It is another where nothing else reads that one. None where no one call does.
    """
    return _once(call, inner) or _clamps(call, inner) or _max_pools(call, inner)


def _once(call: Call, inner: Call) -> Call | None:
    """The call that is read, where another of the same idempotent activation changes nothing."""
    activation = getattr(call.operation, "activation", None)
    if not laws_of(call.operation).idempotent:
        return None
    if is_layer(inner.operation) and call.kind is keras.layers.Activation:
        same = getattr(inner.operation, "activation", None) is activation
        acts = inner.kind is keras.layers.Activation or inner.rule in RULES
        return inner if same and acts else None
    return inner if compute_alike(call, inner) else None


_POOLS = (keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D)
_WHOLE = (
    *(keras.layers.GlobalMaxPooling1D, keras.layers.GlobalMaxPooling2D),
    keras.layers.GlobalMaxPooling3D,
)
_POOL_OF = dict(zip((*_POOLS, *_WHOLE), _POOLS * 2, strict=True))


def _max_pools(call: Call, inner: Call) -> Call | None:
    """A max pool of a max pool, where it compares no more often than they do."""
    last, first = call.operation, inner.operation
    kind = type(first)
    if kind not in _POOLS or _POOL_OF.get(type(last)) is not kind:
        return None
    if last.data_format != first.data_format:
        return None
    sizes = [_pixels(x, first.data_format) for x in (*inner.inputs, *call.inputs)]
    try:
        if type(last) in _WHOLE:
            seen = _through([[range(n or 0)] for n in sizes[1]], samples_seen(first, sizes[0]))
            whole = seen == [[range(n or 0)] for n in sizes[0]]
            return replace(call, args=inner.args, kwargs=inner.kwargs) if whole else None
        config = window_of_windows(last, first, sizes)
    except Refused:
        return None
    made = kind(**config, data_format=last.data_format, dtype=last.dtype_policy, name=last.name)
    return replace(call, operation=made, args=inner.args, kwargs=inner.kwargs)


def window_of_windows(last: Any, first: Any, sizes: Sequence[Sizes]) -> dict[str, Any]:
    """The window that sees what windows of windows see. Raises `Refused` where there is none."""
    steps = list(zip(first.pool_size, first.strides, last.pool_size, last.strides, strict=True))
    pool = tuple(k1 + (k2 - 1) * s1 for k1, s1, k2, _ in steps)
    strides = tuple(s1 * s2 for _, s1, _, s2 in steps)
    apart = math.prod(first.pool_size) * math.prod(last.strides) + math.prod(last.pool_size)
    if math.prod(pool) > apart:
        raise Refused("a window that compares more often than two")
    config = {"pool_size": pool, "strides": strides}
    if None in sizes[0]:
        if {first.padding, last.padding} != {"valid"} or any(s1 > k1 for k1, s1, _, _ in steps):
            raise Refused("windows at the border of an image of unknown size")
        return config | {"padding": "valid"}
    seen = _through(samples_seen(last, sizes[1]), samples_seen(first, sizes[0]))
    for padding in ("valid", "same"):
        if seen == _places(pool, strides, padding, sizes[0]):
            return config | {"padding": padding}
    raise Refused("windows that see at the border what none sees")


def samples_seen(layer: Any, sizes: Sizes) -> list[list[range]]:
    """The samples that each output of a pool sees, along each axis. Raises `Refused`."""
    return _places(layer.pool_size, layer.strides, layer.padding, sizes)


def _places(
    pool: Sequence[int], strides: Sequence[int], padding: str, sizes: Sizes
) -> list[list[range]]:
    found = []
    for size, taps, stride in zip(sizes, pool, strides, strict=True):
        if size is None:
            raise Refused("an image of unknown size")
        axis = padded_axis(Axis(size, taps, stride), padding)
        starts = [axis.crop[0] - axis.pad[0] + stride * p for p in range(axis.out or 0)]
        found.append([range(max(at, 0), min(at + taps, size)) for at in starts])
    return found


def _through(last: list[list[range]], first: list[list[range]]) -> list[list[range]]:
    """What is seen through windows. Raises `Refused` where samples are left out between them."""
    for windows in first:
        if any(after.start > before.stop for before, after in itertools.pairwise(windows)):
            raise Refused("windows that leave samples out between them")
    return [
        [range(inner[seen.start].start, inner[seen.stop - 1].stop) for seen in outer]
        for outer, inner in zip(last, first, strict=True)
    ]


def _pixels(x: Tensor, data_format: str) -> Sizes:
    return x.shape[2:] if data_format == "channels_first" else x.shape[1:-1]


class Clamp(NamedTuple):
    """What is cut off below and above: min(max(x, low), high)."""

    low: float
    high: float

    def of(self, inner: Clamp) -> Clamp:
        """Both as one, `inner` first."""
        return Clamp(*(min(max(x, self.low), self.high) for x in inner))


CLAMPS = {
    keras.activations.relu: Clamp(0.0, math.inf),
    keras.activations.relu6: Clamp(0.0, 6.0),
}


def _clamps(call: Call, inner: Call) -> Call | None:
    """A clamp of what is clamped."""
    last, first = clamp_of(call), clamp_of(inner)
    limits = _limits_of(inner) if first is None else first
    if last is None or limits is None:
        return None
    both = last.of(limits)
    if both == limits:
        return inner
    if first is None or both != last:
        return None
    (x,) = inner.inputs
    return given_others(call, lambda _: x)


def clamp_of(call: Call) -> Clamp | None:
    """What a call does to its input, if it is a clamp."""
    operation = call.operation
    match call.kind:
        case keras.layers.ReLU if not (operation.negative_slope or operation.threshold):
            high = math.inf if operation.max_value is None else float(operation.max_value)
            return Clamp(0.0, high)
        case keras.layers.Activation:
            return CLAMPS.get(operation.activation)
        case keras.ops.relu:
            return CLAMPS[keras.activations.relu]
        case keras.ops.relu6:
            return CLAMPS[keras.activations.relu6]
        case keras.ops.clip:
            low, high = operation.x_min, operation.x_max
            numbers = all(isinstance(x, (int, float)) for x in (low, high))
            return Clamp(float(low), float(high)) if numbers and low <= high else None
    return None


def _limits_of(call: Call) -> Clamp | None:
    """What the activation within a layer leaves of its result, if it is a clamp."""
    operation = call.operation
    if call.rule not in RULES or not (is_layer(operation) and is_of_keras(operation)):
        return None
    return CLAMPS.get(inline_activation(operation))

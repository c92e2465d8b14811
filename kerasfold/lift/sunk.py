"""A graph in which axes are permuted behind calls that work along axes, or on each sample.

`f(P x, P y, ...) = P g(x, y, ...)`, where `g` does what `f` does along the axes that `P` takes to
those: `P` meets its inverse behind it, or is done once and not to each tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from keras import layers, ops, tree

from kerasfold.lift.pointwise import (
    PERMUTING,
    Order,
    joins_samples,
    order_of_axes,
    works_by_sample,
)
from kerasfold.lift.regions import Regions, Rewritings, lift
from kerasfold.lift.writing import Writer, rewritten
from kerasfold.read.graph import Call, Graph, Tensor, given_others, read_counts

# Writes a call on the sources of what is permuted.
_Moved: TypeAlias = Callable[[Writer, Sequence[Tensor]], Tensor]


def sunk(regions: Regions) -> Rewritings:
    """The same model with permutations behind what they stood before, if some can stand there."""
    graph = _Sinking(regions.graph).run()
    if graph is not None:
        yield lift(graph, regions)


class _Permuted(NamedTuple):
    """What a tensor is, that is not written yet.

    Attributes:
        source: what its axes were of.
        order: of its axes.
        call: that permutes them.
    """

    source: Tensor
    order: Order
    call: Call


class _Sinking:
    def __init__(self, graph: Graph) -> None:
        self.graph, self.readers = graph, read_counts(graph)
        self.writer = Writer(graph)
        self.waiting: dict[int, _Permuted] = {}  # by tensor
        self.now: dict[int, Tensor] = {}  # what stands for one

    def run(self) -> Graph | None:
        """The new graph, or None where no permutation passes anything."""
        if not any(call.kind in PERMUTING for call in self.graph.calls):
            return None
        passed = sum(map(self._passes, self.graph.calls))
        for x in tree.flatten(self.graph.outputs):
            self._write(x)
        return rewritten(self.graph, self.writer.calls, self.now) if passed else None

    def _passes(self, call: Call) -> bool:
        """Write a call; whether permutations pass it, and it is no function of one sample."""
        order = order_of_axes(call)
        if order is not None:
            (x,), (output,) = call.inputs, call.outputs
            if self._waits(x):
                before = self.waiting.pop(x.index)
                order = tuple(before.order[axis] for axis in order)
                self.waiting[output.index] = before._replace(order=order, call=call)
            else:
                self._write(x)
                self.waiting[output.index] = _Permuted(self.now.get(x.index, x), order, call)
            return False
        step = self._moved(call)
        if step is None:
            for x in call.inputs:
                self._write(x)
            self.writer.calls.append(given_others(call, lambda x: self.now.get(x.index, x)))
            return False
        first, *_ = given = [self.waiting.pop(x.index) for x in call.inputs]
        made = step(self.writer, [one.source for one in given])
        self.waiting[call.outputs[0].index] = _Permuted(made, first.order, first.call)
        return len(given) > 1 or not works_by_sample(call)

    def _waits(self, x: Tensor) -> bool:
        """Whether a tensor is permuted, and read but once."""
        return x.index in self.waiting and self.readers[x.index] == 1

    def _moved(self, call: Call) -> _Moved | None:
        """What does the same on the sources of what is permuted; None where not all is, alike."""
        tensors = (*call.inputs, *call.outputs)
        if call.training or call.gain is not None or call.cut is not None:
            return None
        if len(call.outputs) != 1 or not all(map(self._waits, call.inputs)):
            return None
        orders = {self.waiting[x.index].order for x in call.inputs}
        alike = len({x.dtype for x in tensors}) == 1 and not any(x.masked for x in tensors)
        if len(orders) != 1 or not alike or len({x.index for x in tensors}) < len(tensors):
            return None
        return _along(call, orders.pop())

    def _write(self, x: Any) -> None:
        """Permute what is not yet, where it is read."""
        permuted = self.waiting.pop(x.index, None) if isinstance(x, Tensor) else None
        if permuted is None:
            return
        axes, (read, *_) = permuted.order[1:], permuted.call.inputs
        if (read, x) == (permuted.source, permuted.call.outputs[0]):
            self.writer.calls.append(permuted.call)
        elif axes == tuple(range(1, len(axes) + 1)):
            self.now[x.index] = permuted.source
        else:
            permute = layers.Permute(axes, dtype=x.dtype)
            self.writer.called(permuted.call.name, permute, permuted.source, made=x)


def _along(call: Call, order: Order) -> _Moved | None:
    """What does what a call does, along the axes that its own are of."""
    if works_by_sample(call) or joins_samples(call):
        return lambda writer, xs: _again(writer, call, xs, order)
    find = _ALONG.get(call.kind)
    return None if find is None else find(call, order)


def _again(writer: Writer, call: Call, xs: Sequence[Tensor], order: Order) -> Tensor:
    """The call on other tensors, each sample by itself."""
    (output,), given = call.outputs, zip(call.inputs, xs, strict=True)
    shape = tuple(output.shape[order.index(axis)] for axis in range(len(order)))
    return writer.again(call, {x.index: y for x, y in given}, shape, once=False)


def _joined(call: Call, order: Order) -> _Moved:
    axis = order[call.operation.axis % len(order)]
    join = layers.Concatenate(axis, dtype=call.outputs[0].dtype)
    return lambda writer, xs: writer.called(call.name, lambda *x: join(x), list(xs))


def _padded(call: Call, order: Order) -> _Moved | None:
    """Zeros around an image."""
    operation: Any = call.operation
    if operation.mode != "constant" or any(x is not None for x in call.constants):
        return None
    return _with_margins(call, np.broadcast_to(operation.pad_width, (len(order), 2)), order)


def _zero_padded(call: Call, order: Order) -> _Moved | None:
    margins = _margins(call, call.operation.padding)
    return None if margins is None else _with_margins(call, margins, order)


def _with_margins(call: Call, margins: np.ndarray, order: Order) -> _Moved:
    width = [margins[order.index(axis)].tolist() for axis in range(len(order))]
    return lambda writer, xs: writer.called(call.name, lambda x: ops.pad(x, width), *xs)


def _cropped(call: Call, order: Order) -> _Moved | None:
    margins = _margins(call, call.operation.cropping)
    if margins is None:
        return None
    return _with_slices(call, [slice(lo, -hi or None) for lo, hi in margins.tolist()], order)


def _margins(call: Call, pairs: Any) -> np.ndarray | None:
    """What a layer adds or drops at both ends of each axis, the pixels' behind the batch."""
    if getattr(call.operation, "data_format", "channels_last") != "channels_last":
        return None
    pixels = np.reshape(pairs, (-1, 2))
    return np.concatenate([np.zeros((1, 2), "int64"), pixels, np.zeros((1, 2), "int64")])


def _sliced(call: Call, order: Order) -> _Moved | None:
    """Slices of any axes, but no number of one, which is an axis less."""
    _, given = call.args
    keys = list(given) if isinstance(given, tuple) else [given]
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys[at : at + 1] = [slice(None)] * (len(order) + 1 - len(keys))
    keys += [slice(None)] * (len(order) - len(keys))
    slices = len(keys) == len(order) and all(isinstance(key, slice) for key in keys)
    return _with_slices(call, keys, order) if slices else None


def _with_slices(call: Call, keys: Sequence[slice], order: Order) -> _Moved:
    key = tuple(keys[order.index(axis)] for axis in range(len(order)))
    return lambda writer, xs: writer.called(call.name, lambda x: x[key], *xs, key)


# By kind, what does along other axes what a call does along its own.
_ALONG: dict[Any, Callable[[Call, Order], _Moved | None]] = {
    **dict.fromkeys((layers.Concatenate, ops.concatenate), _joined),
    **dict.fromkeys(
        (layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D), _zero_padded
    ),
    **dict.fromkeys((layers.Cropping1D, layers.Cropping2D, layers.Cropping3D), _cropped),
    ops.pad: _padded,
    ops.get_item: _sliced,
}

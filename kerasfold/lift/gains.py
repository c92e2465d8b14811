"""A graph in which gains stand where they cost nothing, past what lets them pass.

For an activation `f` that is positively homogeneous, gains `g > 0` and shifts `b` of channels:

- `g f(x) + b = f(g x) + b`: the gain merges into the convolution that makes `x`, the shift stays;
- `f(g x + b) = g f(x + b / g)`: it merges into the convolutions that read the activation.

And for a product, of matrices or of samples, `g (x y) = (g x) y`, where `g` is one number, or one
for each channel of both `x` and the product, of either sign: it merges into what makes `x`. Of
matrices those are the channels of the second, `(x y) g = x (y g)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from keras import layers, ops

from kerasfold.layers.absorbing import Steps
from kerasfold.lift.activations import laws_of
from kerasfold.lift.commuted import is_extreme
from kerasfold.lift.demand import pixel_axes
from kerasfold.lift.pointwise import gives_maxima_of_pixels, reshapes_pixels
from kerasfold.lift.program import Node
from kerasfold.lift.regions import Lifted, Regions, Rewritings, lift
from kerasfold.lift.scales import (
    Run,
    Scales,
    along_channels,
    is_plain,
    may_be_apart,
    runs_of,
)
from kerasfold.lift.writing import Writer, rewritten
from kerasfold.read.graph import Call, Gain, Graph, Tensor, given_others
from kerasfold.read.weights import smallest

_BY_SAMPLE = (layers.Multiply, ops.multiply)
# By kind, whether a call is the product of what it reads, of two tensors.
_PRODUCTS: dict[Any, Callable[[Call], bool]] = {
    **dict.fromkeys((*_BY_SAMPLE, ops.matmul, ops.dot, ops.tensordot, ops.einsum), lambda _: True),
    layers.Dot: lambda call: not call.operation.normalize,
}


def carried(regions: Regions) -> Rewritings:
    """The same model with gains moved, where there are some to move."""
    moves = _Moves(regions)
    moves.find()
    if moves.left:
        yield lift(moves.written(), regions)


def stays(regions: Regions) -> dict[int, str]:
    """Why gains did not pass what is before them, where it is their signs; by call."""
    moves, found = _Moves(regions), dict[int, str]()
    for run in moves.runs.values():
        steps = moves.left_of(run)
        if steps is None or np.all(steps.gain > 0):
            continue
        place = moves.before(run, np.where(steps.gain > 0, steps.gain, 1.0))
        passed = (*place.passed, place.into.name) if place else moves.extremes_before(run)
        for call, own in zip(run.calls, run.each, strict=True):
            count = int(np.sum(own.gain <= 0))
            if passed and count:
                found[call.index] = (
                    f"{count} of its {own.gain.size} gains are not positive, and only positive "
                    f"ones pass '{passed[0]}'"
                )
    return found


class Found(NamedTuple):
    """Where gains can go.

    Attributes:
        into: the call that they merge into.
        gain: what its channels are multiplied by.
        passed: names of the calls that they pass.
    """

    into: Call
    gain: np.ndarray
    passed: tuple[str, ...]


class _Moves(Scales):
    """What gains may pass in a lifted model.

    Attributes:
        gains: what the output of calls is to be multiplied by, by their index.
        left: the shift that is left of calls whose gains went elsewhere, by their index.
        behind: by the index of tensors, the calls whose gains go behind each, and their gains.
        runs: the calls that do nothing but multiply and shift, by the index of the last.
    """

    def __init__(self, regions: Regions) -> None:
        super().__init__(regions)
        self.roots = regions.root_nodes()
        self.gains: dict[int, Gain] = {}
        self.left: dict[int, np.ndarray] = {}
        self.behind: dict[int, tuple[Run, list[np.ndarray]]] = {}
        self.runs = runs_of(regions)

    def find(self) -> None:
        """Find the moves, those of later calls first: what they leave elsewhere moves on."""
        for run in reversed(self.runs.values()):
            steps, (output,) = self.left_of(run), run.last.outputs
            if steps is None or not may_be_apart(steps, output.dtype):
                continue
            found = self.before(run, steps.gain)
            if found is not None:
                self._give(found.into, found.gain, run)
                self._leave(run, steps.shift)
                continue
            if not np.all(steps.gain > 0):
                continue
            last = self._after(run, steps.gain) if _divides(steps, output.dtype) else None
            if last is not None:
                self.behind[last.index] = run, self._gains_of(run)
                self._leave(run, steps.shift / steps.gain)

    def _give(self, into: Call, gain: np.ndarray, run: Run) -> None:
        """Let a call do what others did."""
        had, more = self.gains.get(into.index, into.gain), self.gains.get(run.last.index)
        of = (*run.calls, *(more.of if more else ()), *(had.of if had else ()))
        self.gains[into.index] = Gain(gain * had.values if had else gain, of)

    def _leave(self, run: Run, shift: np.ndarray) -> None:
        self.gains.pop(run.last.index, None)
        self.left |= {call.index: np.zeros_like(shift) for call in run.calls}
        self.left[run.last.index] = shift

    def left_of(self, run: Run) -> Steps | None:
        """The gains, other than 1, and shifts of calls that do nothing else."""
        gain, shift = run.steps
        more = self.gains.get(run.last.index)
        if more is not None:
            gain, shift = more.values * gain, more.values * shift
        return None if np.all(gain == 1) else Steps(gain, shift)

    def _gains_of(self, run: Run) -> list[np.ndarray]:
        """The gains of each of its calls."""
        *gains, last = (steps.gain for steps in run.each)
        more = self.gains.get(run.last.index)
        return [*gains, last if more is None else more.values * last]

    def before(self, run: Run, gain: np.ndarray) -> Found | None:
        """What gains merge into before calls, past activations or a product at least."""
        (tensor,) = run.calls[0].inputs
        return self._before(tensor, gain, ())

    def extremes_before(self, run: Run) -> tuple[str, ...]:
        """The name of the maximum or minimum that calls alone read: see `lift.commuted`."""
        alone = len(self.readers[run.source.index]) == 1
        maker = self.makers.get(run.source.index) if alone else None
        return (maker.name,) if maker is not None and is_extreme(self.regions, maker) else ()

    def _before(self, tensor: Tensor, gain: np.ndarray, passed: tuple[str, ...]) -> Found | None:
        while len(self.readers[tensor.index]) == 1 and tensor.index in self.makers:
            maker = self.makers[tensor.index]
            records = self.records.get(maker.index, [])
            if not records:
                passed = (*passed, maker.name)
                if not self._lets_pass(maker, gain):
                    factors = self._factors(maker, gain)
                    found = (self._before(x, self._on(x, gain), passed) for x in factors)
                    return next(filter(None, found), None)
            elif len(records) > 1 or tensor.masked:
                return None
            elif records[0].activation is not None:
                if not np.all(laws_of(records[0].activation).passes(gain)):
                    return None
                return self._found(maker, gain, (*passed, maker.name))
            elif not self._passes_along(records[0], gain):
                on = passed or self._moves_on(maker, gain)
                return self._found(maker, gain, passed) if on else None
            (tensor,) = maker.inputs
            gain = self._on(tensor, gain)
        return None

    def _lets_pass(self, call: Call, gain: np.ndarray) -> bool:
        """Whether gains may stand before a call or behind it."""
        if not is_plain(self.regions, call):
            return False
        if self.graph.layout != "channels_first":
            if reshapes_pixels(call):
                return True
            if gives_maxima_of_pixels(call, pixel_axes(self.graph, call.inputs[0])):
                return bool(np.all(gain > 0))
        passes = bool(np.all(laws_of(call.operation).passes(gain)))
        return passes and (not call.foreign or _is_one(gain))

    def _factors(self, call: Call, gain: np.ndarray) -> Sequence[Tensor]:
        """What gains may go on to, of the tensors that a call multiplies with each other."""
        tensors, multiplies = (*call.inputs, *call.outputs), _PRODUCTS.get(call.kind)
        if multiplies is None or not multiplies(call) or call.training:
            return ()
        distinct = len({x.index for x in tensors})  # fewer than there are, of the square of one
        if distinct < max(3, len(tensors)) or len({x.dtype for x in tensors}) > 1:
            return ()
        if any(x.masked for x in tensors):
            return ()
        if _is_one(gain):
            return call.inputs
        if call.kind is ops.matmul:
            _, second = call.inputs
            of_second = self.graph.layout != "channels_first" and len(second.shape) > 1
            return (second,) if of_second and self._channels(second) == gain.size else ()
        rank = len(call.outputs[0].shape)
        alike = [x for x in call.inputs if (len(x.shape), self._channels(x)) == (rank, gain.size)]
        return alike if call.kind in _BY_SAMPLE else ()

    def _channels(self, x: Tensor) -> int | None:
        return x.shape[1 if self.graph.layout == "channels_first" else -1]

    def _on(self, x: Tensor, gain: np.ndarray) -> np.ndarray:
        """Gains of a tensor, which may have other channels where all gains are one number."""
        return np.full(self._channels(x) or 1, gain[0]) if _is_one(gain) else gain

    def _moves_on(self, call: Call, gain: np.ndarray) -> bool:
        """Whether gains that a call takes over go on from there, with its own."""
        run = self.runs.get(call.index)
        steps = None if run is None else self.left_of(run)
        return run is not None and steps is not None and bool(self.before(run, steps.gain * gain))

    def _found(self, maker: Call, gain: np.ndarray, passed: tuple[str, ...]) -> Found | None:
        (record,) = self.records[maker.index]
        once = self.regions.uses[id(maker.operation)] == 1
        absorbs = once and self.absorbs(record.node, _is_one(gain))
        return Found(maker, gain, passed) if absorbs else None

    def _passes_along(self, record: Lifted, gain: np.ndarray) -> bool:
        """Whether a call does to each channel alike what it does, by no weights.

        Of gains that are one number, whether it only puts samples elsewhere, or adds them up.
        """
        if [x.dtype for x in record.call.inputs] != [record.tensor.dtype]:
            return False
        nodes = [self.nodes[i] for i in record.added]
        if _is_one(gain):
            return all(node.weightless or node.op == "rearrange" for node in nodes)
        return all(map(self.is_alike, nodes))

    def _after(self, run: Run, gain: np.ndarray) -> Tensor | None:
        """The tensor behind activations whose readers all take gains of what they read."""
        first, *_ = run.nodes[0]
        if all(map(self.merges, first.operands)):
            return None
        ((tensor,), passed) = run.last.outputs, 0
        while True:
            readers = [x for x in self.readers[tensor.index] if x is not None]
            if len(readers) < len(self.readers[tensor.index]) or not readers:
                return None
            reader = readers[0]
            if reader.index not in self.regions.barriers:
                break
            if len(readers) > 1 or not self._lets_pass(reader, gain):
                return None
            (tensor,), passed = reader.outputs, passed + 1
        roots = self.roots[tensor.index]
        lifted = not any(x.index in self.regions.barriers for x in readers)
        return tensor if passed and lifted and all(self._taken[i] for i in roots) else None

    @cached_property
    def _taken(self) -> dict[int, bool]:
        """Whether all that reads each node multiplies by weights, which no other call has."""
        uses, owner, found = self.regions.uses, self.regions.owner, dict[int, bool]()

        def takes(node: Node) -> bool:
            own = node.multiplies or node.work in ("scale", "shift")
            if own and uses[id(owner[node.index].call.operation)] > 1:
                return False
            return node.multiplies or ((own or self.is_alike(node)) and found[node.index])

        for index in reversed(range(len(self.nodes))):
            found[index] = index not in self.regions.sinks and all(map(takes, self.reading[index]))
        return found

    def written(self) -> Graph:
        """The graph with the gains in their new places."""
        writer, now = Writer(self.graph), dict[int, Tensor]()
        self.scales = {run.last.index for run, _ in self.behind.values()}
        for given in self.graph.calls:
            call = given_others(given, lambda x: now.get(x.index, x))
            if call.index in self.left:
                self._write_shift(writer, call, now)
            else:
                writer.calls.append(replace(call, gain=self.gains.get(call.index, call.gain)))
            for x in call.outputs:
                if x.index in self.behind:
                    now[x.index] = self._write_gains(writer, *self.behind[x.index], x)
        return rewritten(self.graph, writer.calls, now)

    def _write_gains(
        self, writer: Writer, run: Run, gains: Sequence[np.ndarray], x: Tensor
    ) -> Tensor:
        """What calls multiply by, behind a tensor that is made of theirs."""
        for call, gain in zip(run.calls, gains, strict=True):
            made = replace(call.outputs[0], shape=x.shape)  # what it gives is made here now
            values = along_channels(gain, x, self.graph.layout)
            x = writer.called(call.name, lambda x: x * 1.0, x, values, made=made)
        return x

    def _write_shift(self, writer: Writer, call: Call, now: dict[int, Tensor]) -> None:
        """What a call does but for its gains."""
        (x,), (output,), shift = call.inputs, call.outputs, self.left[call.index]
        now[output.index] = x
        if not np.any(shift):
            return
        moved = call.index in self.scales
        name, made = (f"{call.name}_shift", None) if moved else (call.name, output)
        shifts = along_channels(shift, x, self.graph.layout)
        now[output.index] = writer.shifted(name, x, shifts, made)


def _is_one(gain: np.ndarray) -> bool:
    """Whether gains are one number."""
    return bool(np.all(gain == gain[0]))


def _divides(steps: Steps, dtype: str) -> bool:
    """Whether shifts divided by their gains, and weights times those, keep their digits."""
    least = np.sqrt(smallest(dtype))
    return bool(not np.any(steps.shift) or np.all(steps.gain >= least))

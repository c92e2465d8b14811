"""A graph in which layers that stay closed do what stands beside them to channels.

Such a layer has no lift rule, or reads integers. Where it starts or ends with a linear map of the
channels (an LSTM, attention, an Embedding), gains and shifts that it alone reads, or that alone
read it, go into the weights of that map: see `layers.absorbing`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from kerasfold.algebra.axis import Refused
from kerasfold.layers.absorbing import (
    ATTENTION,
    FIRST,
    Steps,
    axis_given,
    axis_read,
    is_larger,
    takes_before,
    takes_behind,
    with_before,
    with_behind,
)
from kerasfold.lift.activations import LINEAR, laws_of
from kerasfold.lift.regions import Regions, Rewritings, lift
from kerasfold.lift.scales import CANCELS, Scales, is_plain, loses_digits, may_be_apart
from kerasfold.lift.writing import rewritten
from kerasfold.read.anew import Together
from kerasfold.read.graph import Call, Graph, Tensor, given_others
from kerasfold.read.model import call_parameters

_NOTHING = Steps(np.ones(1), np.zeros(1))


def absorbed(regions: Regions) -> Rewritings:
    """The same model with gains and shifts in the weights of closed layers, where there are such.

    With all of those, and else with those for which no layer has more weights than it had.
    """
    found = _Absorbing(regions).found
    same = {i: taken for i, taken in found.items() if not taken.adds}
    for taken in (found, same if len(same) < len(found) else {}):
        if taken and (yield lift(_written(regions.graph, taken), regions)):
            return


def unabsorbed(regions: Regions, tried: bool = True) -> dict[int, str]:
    """Why gains and shifts beside closed layers are not in their weights; by call.

    Args:
        regions: the lifted model.
        tried: whether those that could be there were, and cost more.
    """
    absorbing = _Absorbing(regions)
    if not tried:
        return absorbing.why
    adding = {
        i: f"'{taken.call.name}' could take it with a bias, which it has not, and that does not pay"
        for taken in absorbing.found.values()
        if taken.adds
        for chain in taken.chains
        for i in chain.indices
    }
    return absorbing.why | adding


@dataclass(frozen=True, eq=False, slots=True)
class _Chain:
    """Calls one after another that multiply channels and shift them.

    Attributes:
        calls: those, and others among them that do nothing.
        steps: what they do together.
        first: the tensor that they read.
        last: the tensor that they make.
        places: where a closed layer reads that; none where they read what it gives.
    """

    calls: tuple[Call, ...]
    steps: Steps
    first: Tensor
    last: Tensor
    places: Collection[str] = ()

    @property
    def indices(self) -> set[int]:
        """Of the calls."""
        return {call.index for call in self.calls}

    def into(self, layer: Any, layout: str) -> keras.Layer:
        """A layer that does what they do, beside it. Raises `Refused` where there is none."""
        tensor = self.last if self.places else self.first
        axis = (axis_read if self.places else axis_given)(layer, len(tensor.shape))
        steps = self._along(axis, 1 if layout == "channels_first" else len(tensor.shape) - 1)
        if tensor.dtype != layer.compute_dtype:
            raise Refused(f"'{layer.name}' casts {tensor.dtype} to {layer.compute_dtype}")
        if not may_be_apart(steps, tensor.dtype):
            raise Refused(f"in {tensor.dtype} its shift would lose digits in '{layer.name}'")
        if self.places:
            if loses_digits(steps.shift, tensor.dtype):
                raise Refused(CANCELS)
            return with_before(layer, self.places, steps)
        _refuse_activation(layer, steps)
        return with_behind(layer, steps)

    def _along(self, axis: int, own: int) -> Steps:
        """The steps along another axis than their own, where they are the same for all of it."""
        if axis == own:
            return self.steps
        if any(np.any(x != x[0]) for x in self.steps):
            raise Refused("it works along another axis than the layer beside it")
        size = self.first.shape[axis]
        assert size is not None  # a layer has weights for each
        return Steps(*(np.full(size, x[0]) for x in self.steps))


def _refuse_activation(layer: Any, steps: Steps) -> None:
    """Refuse steps that do not pass the activation that a layer ends with. Raises `Refused`."""
    laws = laws_of(getattr(layer, "activation", None))
    if laws is LINEAR:
        return
    if np.any(steps.shift) or not np.all(laws.passes(np.abs(steps.gain) + (steps.gain == 0))):
        raise Refused(f"the activation of '{layer.name}' is not linear")
    count = int(np.sum(~laws.passes(steps.gain)))
    if count:
        raise Refused(
            f"{count} of its {steps.gain.size} gains are not positive, and only positive ones pass "
            f"'{layer.name}'"
        )


@dataclass(frozen=True, eq=False, slots=True)
class _Taken:
    """What a closed layer can take.

    Attributes:
        call: its call.
        layer: one that does that, too.
        chains: what it takes.
    """

    call: Call
    layer: keras.Layer
    chains: tuple[_Chain, ...]

    @property
    def adds(self) -> bool:
        """Whether it has more weights then."""
        operation: Any = self.call.operation
        return is_larger(self.layer, operation)

    def written(self) -> Call:
        """The call of the layer that does all of it."""
        now = {chain.last.index: chain.first for chain in self.chains if chain.places}
        last = [chain.last for chain in self.chains if not chain.places]
        call = given_others(self.call, lambda x: now.get(x.index, x))
        return replace(call, operation=self.layer, outputs=tuple(last) or call.outputs)

    def together(self, names: Collection[str]) -> Together:
        """What it does the work of; `names` are those of calls that were read."""
        before = [call for chain in self.chains if chain.places for call in chain.calls]
        behind = [call for chain in self.chains if not chain.places for call in chain.calls]
        parts = (part.name for call in (*before, self.call, *behind) for part in call.parts)
        done = tuple(name for name in parts if name in names)
        return Together(self.call.name, type(self.layer).__name__, done)


class _Absorbing:
    """Finds what closed layers can take.

    Attributes:
        found: that, by the index of their calls.
        why: why calls beside them stay, by their index.
    """

    def __init__(self, regions: Regions) -> None:
        self.regions, self.graph = regions, regions.graph
        self.found: dict[int, _Taken] = {}
        self.why: dict[int, str] = {}
        self.gone: set[int] = set()
        closed = (call for call in self.graph.calls if call.index in regions.barriers)
        takers = [x for x in closed if takes_before(x.operation) or takes_behind(x.operation)]
        if takers:
            self.scales = Scales(regions)
            for call in takers:
                self._take(call)
            self.why = {i: why for i, why in self.why.items() if i not in self.gone}

    def _take(self, call: Call) -> None:
        layer, taken = call.operation, list[_Chain]()
        for chain in (*self._behind(call), *self._before(call)):
            try:
                self._refuse(call)
                layer = chain.into(layer, self.graph.layout)
            except Refused as refusal:
                self.why |= dict.fromkeys(chain.indices, refusal.reason)
                continue
            taken.append(chain)
            self.gone |= chain.indices
        if taken:
            assert isinstance(layer, keras.Layer)
            self.found[call.index] = _Taken(call, layer, tuple(taken))

    def _refuse(self, call: Call) -> None:
        """Refuse a call whose layer cannot be another. Raises `Refused`."""
        name = call.name
        if self.regions.uses[id(call.operation)] > 1:
            raise Refused(f"'{name}' could take it, but its weights are shared with other calls")
        if call.training:
            raise Refused(f"'{name}' could take it, but is called with training=True")
        if any(x.masked for x in (*call.inputs, *call.outputs)):
            raise Refused(f"'{name}' could take it, but reads a mask, or hands one on")

    def _behind(self, call: Call) -> Iterator[_Chain]:
        """What alone reads the one thing that a call gives."""
        if not takes_behind(call.operation) or len(call.outputs) > 1 or not _is_whole(call):
            return
        (first,) = call.outputs
        calls, steps, last = list[Call](), _NOTHING, first
        while len(readers := self.scales.readers[last.index]) == 1 and readers[0] is not None:
            own = self._steps(readers[0])
            if own is None:
                break
            calls.append(readers[0])
            steps = _then(steps, own)
            (last,) = readers[0].outputs
        if steps is not _NOTHING:
            yield _Chain(tuple(calls), steps, first, last)

    def _before(self, call: Call) -> Iterator[_Chain]:
        """What a call alone reads, and what merges into nothing that is before it."""
        if not takes_before(call.operation) or not _is_whole(call):
            return
        places, tensors = defaultdict[int, list[str]](list), dict[int, Tensor]()
        for place, tensor in _read_at(call).items():
            places[tensor.index].append(place)
            tensors[tensor.index] = tensor
        for index, last in tensors.items():
            chain = self._back(call, last)
            if chain is not None:
                yield replace(chain, places=places[index])

    def _back(self, call: Call, last: Tensor) -> _Chain | None:
        calls, steps, first, reader = list[Call](), _NOTHING, last, call
        while all(x is reader for x in self.scales.readers[first.index]):
            maker = self.scales.makers.get(first.index)
            own = None if maker is None else self._steps(maker)
            if maker is None or own is None:
                break
            calls.insert(0, maker)
            steps = _then(own, steps)
            (first,), reader = maker.inputs, maker
        node = self.regions.tensors.get(first.index)
        if steps is _NOTHING or (node is not None and self.scales.merges(node)):
            return None
        return _Chain(tuple(calls), steps, first, last)

    def _steps(self, call: Call) -> Steps | None:
        """What a call does to channels that is not done elsewhere yet, maybe nothing."""
        if call.index in self.gone:
            return None
        records = self.scales.records.get(call.index, [])
        if len(records) == 1 and not records[0].added and is_plain(self.regions, call):
            return _NOTHING
        return self.scales.steps_of(call)


def _then(first: Steps, then: Steps) -> Steps:
    """Steps one after another."""
    if then is _NOTHING:
        return first
    return Steps(then.gain * first.gain, then.gain * first.shift + then.shift)


def _is_whole(call: Call) -> bool:
    """Whether a call gives what its layer does, and all of it."""
    return call.cut is None and call.gain is None


def _read_at(call: Call) -> Mapping[str, Tensor]:
    """What a layer maps of what it is called on, by the places where alone it reads that.

    Attention reads values for keys where it is given none.
    """
    names = [name for name in call_parameters(call.operation) if name != "self"]
    given = {**dict(zip(names, call.args, strict=False)), **call.kwargs}
    attends = type(call.operation) in ATTENTION
    places = {x: given.get(x) for x in ("query", "value", "key")} if attends else {}
    found = {
        place: x
        for place, x in (places or {FIRST: given.get(names[0])}).items()
        if isinstance(x, Tensor)
    }
    mapped, read = (Counter(x.index for x in xs) for xs in (found.values(), call.inputs))
    found = {place: x for place, x in found.items() if mapped[x.index] == read[x.index]}
    if attends and given.get("key") is None and "value" in found:
        found["key"] = found["value"]
    return found


def _written(graph: Graph, found: Mapping[int, _Taken]) -> Graph:
    """The graph in which closed layers do what they can take."""
    gone = {i for taken in found.values() for chain in taken.chains for i in chain.indices}
    left = [call for call in graph.calls if call.index not in gone]
    calls = [found[call.index].written() if call.index in found else call for call in left]
    names = {call.name for call in (graph.original or graph).calls}
    return rewritten(graph, calls, together=[taken.together(names) for taken in found.values()])

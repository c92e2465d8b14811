"""Which channels of its tensors a model has to compute: those that are read, and not constant.

What is read goes backwards, from the outputs: a channel that every reader multiplies by zeros is
not. Where calls take each channel by itself, what one of their tensors has to have, all have: of
addends that differ, what is constant in some of them alone stays. But one pixel made of many, as
of the squeeze before a gate, has what is read of it alone.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from keras import tree

from kerasfold.algebra.product import Array
from kerasfold.lift.channels import Aligned, Flow, Known, Mixed, Need
from kerasfold.read.graph import Call, Tensor
from kerasfold.read.weights import count_params


def needed(known: Known, through: Sequence[Flow], multiple: int = 1, least: float = 0.0) -> Need:
    """The channels that each tensor must have.

    Args:
        known: what is known of the model.
        through: how channels go through its calls.
        multiple: of what layers of weights read and make, a multiple of so many stay where there
            were one.
        least: of what is one pixel made of many, the share of the channels from which on some are
            left out: to select the others is one call more.
    """
    graph, ranges = known.graph, known.ranges
    need: Need = {index: np.zeros(len(x.fixed), bool) for index, x in ranges.items()}
    for tensor in tree.flatten((graph.inputs, graph.outputs)):
        if isinstance(tensor, Tensor) and tensor.index in need:
            need[tensor.index][:] = True
    shared = list(_shared(known, need))
    _settle(need, known, through, shared)
    if sum([_made_whole(flow, need, least) for flow in through]):
        _settle(need, known, through, shared)
    weighed = [flow.call for flow in through if _weighs(flow)]
    tensors = {x.index for call in weighed for x in (*call.inputs, *call.outputs)}
    while sum([_filled_up(need[index], multiple) for index in tensors]):
        _settle(need, known, through, shared)
    return need


def _made_whole(flow: Flow, need: Need, least: float) -> bool:
    """Let one pixel of many have all of their channels, if it lacks few; whether it does now."""
    if not (isinstance(flow, Aligned) and flow.parts):
        return False
    (x,), (y,) = flow.call.inputs, flow.call.outputs
    there, given = need[x.index], need[y.index]
    if not given.any() or not 0 < np.sum(there & ~given) < least * there.sum():
        return False
    given |= there
    return True


def _weighs(flow: Flow) -> bool:
    """Whether channels go through a layer of weights."""
    return isinstance(flow, Mixed) or (
        isinstance(flow, Aligned) and count_params(flow.call.operation) > 0
    )


def _filled_up(given: Array, multiple: int) -> bool:
    """Let a multiple of some number stay, of as many channels as are one; whether more do now."""
    missing = -int(given.sum()) % multiple
    if not missing or len(given) % multiple or not given.any():
        return False
    given[np.flatnonzero(~given)[:missing]] = True
    return True


def _settle(
    need: Need, known: Known, through: Sequence[Flow], shared: Sequence[Sequence[int]]
) -> None:
    """Let all tensors have what they need, given what others do."""
    before, ways = -1, itertools.cycle((through[::-1], through))  # what is read goes either way
    while before != (before := sum(int(x.sum()) for x in need.values())):
        for flow in next(ways):
            flow.settle(need, known.ranges)
        for alike in shared:
            together = np.logical_or.reduce([need[i] for i in alike])
            for index in alike:
                need[index][:] = together


def _shared(known: Known, need: Need) -> Iterator[list[int]]:
    """Tensors that calls of one layer are given, and those that they give."""
    calls: dict[int, list[Call]] = defaultdict(list)
    for call in known.graph.calls:
        if getattr(call.operation, "weights", ()):
            calls[id(call.operation)].append(call)
    for same in calls.values():
        if len(same) > 1:
            for place in ("inputs", "outputs"):
                found = [x.index for call in same for x in getattr(call, place)]
                widths = {len(need[i]) if i in need else 0 for i in found}
                if len(widths) == 1 and widths != {0}:
                    yield found

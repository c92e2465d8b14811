"""A graph written anew, call by call, where tensors of it are read no more or others are added."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from graphlib import TopologicalSorter
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import tree

from kerasfold.read.anew import Together
from kerasfold.read.graph import Call, Graph, Tensor, calls_read, given_others
from kerasfold.read.model import made_by

Step: TypeAlias = Callable[..., Any]  # a layer, or what an operation does to tensors
Shape: TypeAlias = tuple[int | None, ...]


class Writer:
    """The calls of a new graph, as they are written.

    Attributes:
        calls: those so far, in topological order.
    """

    def __init__(self, graph: Graph) -> None:
        self.calls: list[Call] = []
        tensors = [x for call in graph.calls for x in (*call.inputs, *call.outputs)]
        self._numbers = itertools.count(1 + max((x.index for x in tensors), default=0))

    def tensor(self, shape: Sequence[int | None], dtype: str) -> Tensor:
        """A tensor that the graph has not."""
        return Tensor(next(self._numbers), tuple(shape), dtype)

    def called(self, name: str, step: Step, *given: Any, made: Tensor | None = None) -> Tensor:
        """What a layer or an operation makes of tensors of one dtype.

        Args:
            name: of the call.
            step: makes it of the tensors alone.
            *given: what the call is given: tensors, and constants, those in float64.
            made: the tensor that it makes, where that is none of its own.
        """
        tensors = [x for x in tree.flatten(given) if isinstance(x, Tensor)]
        result = step(*(keras.KerasTensor(x.shape, x.dtype) for x in tensors))
        made = made or self.tensor(result.shape, tensors[0].dtype)
        self.calls.append(Call(0, made_by(result), name, given, {}, (made,), None, exact=True))
        return made

    def shifted(
        self, name: str, x: Tensor, shifts: np.ndarray, made: Tensor | None = None
    ) -> Tensor:
        """A tensor and constants; see `called`."""
        # In this order: Keras may take a second summand of one axis for a bias, of another axis.
        return self.called(name, lambda x: 1.0 + x, shifts, x, made=made)

    def again(
        self, call: Call, given: Mapping[int, Tensor], shape: Shape, once: bool = True
    ) -> Tensor:
        """What a call of the graph makes of other tensors than it read there.

        Args:
            call: the call.
            given: by their index, what stands for those that it read.
            shape: of what it makes now.
            once: whether nothing else is written of the call: it makes its own tensor then.
        """
        (own,) = call.outputs
        made = replace(own, index=own.index if once else next(self._numbers), shape=shape)
        self.calls.append(replace(given_others(call, lambda x: given[x.index]), outputs=(made,)))
        return made


def in_order(calls: Sequence[Call]) -> Iterator[Call]:
    """The calls in topological order, and otherwise as they stand."""
    makers = {x.index: place for place, call in enumerate(calls) for x in call.outputs}
    sorter = TopologicalSorter(
        {i: {makers[x.index] for x in c.inputs if x.index in makers} for i, c in enumerate(calls)}
    )
    sorter.prepare()
    ready = list[int]()
    while sorter.is_active():
        for place in sorter.get_ready():
            heapq.heappush(ready, place)
        place = heapq.heappop(ready)
        sorter.done(place)
        yield calls[place]


def rewritten(
    graph: Graph,
    calls: Iterable[Call],
    now: Mapping[int, Tensor] | None = None,
    together: Sequence[Together] = (),
) -> Graph:
    """The graph of other calls.

    Args:
        graph: the graph as it was.
        calls: in topological order; those that nothing reads are left out.
        now: by their index, what stands for tensors that were outputs.
        together: calls that others do the work of now, besides those that they did before.
    """
    instead = now or {}
    outputs = tree.map_structure(
        lambda x: instead.get(x.index, x) if isinstance(x, Tensor) else x, graph.outputs
    )
    return replace(
        graph,
        calls=calls_read(tuple(calls), [x for x in tree.flatten(outputs) if isinstance(x, Tensor)]),
        outputs=outputs,
        original=graph.original or graph,
        together=(*graph.together, *together),
    )

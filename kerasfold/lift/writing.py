"""A graph written anew, call by call, where tensors of it are read no more or others are added."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import keras
from keras import tree

from kerasfold.read.graph import Call, Graph, Tensor, Together, calls_read, given_others
from kerasfold.read.model import made_by

Step: TypeAlias = Callable[[Any], Any]  # a layer, or what an operation does to a tensor
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

    def called(self, name: str, step: Step, *given: Any, made: Tensor | None = None) -> Tensor:
        """What a layer or an operation makes of a tensor.

        Args:
            name: of the call.
            step: makes it of the tensor alone.
            *given: what the call is given: the tensor, and constants, those in float64.
            made: the tensor that it makes, where that is none of its own.
        """
        (tensor,) = (x for x in given if isinstance(x, Tensor))
        result = step(keras.KerasTensor(tensor.shape, tensor.dtype))
        made = made or Tensor(next(self._numbers), tuple(result.shape), tensor.dtype)
        self.calls.append(Call(0, made_by(result), name, given, {}, (made,), None, exact=True))
        return made

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


def rewritten(
    graph: Graph,
    calls: Sequence[Call],
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
        calls=calls_read(calls, [x for x in tree.flatten(outputs) if isinstance(x, Tensor)]),
        outputs=outputs,
        original=graph.original or graph,
        together=(*graph.together, *together),
    )

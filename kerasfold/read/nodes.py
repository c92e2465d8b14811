"""The nodes that Keras keeps of calls on symbolic tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
from keras import tree

from kerasfold.algebra.axis import Refused


def symbolic(value: Any) -> list[keras.KerasTensor]:
    """The symbolic tensors of arguments, or of what a call gives."""
    return [x for x in tree.flatten(value) if isinstance(x, keras.KerasTensor)]


def topological(inputs: Iterable[Any], outputs: Iterable[Any]) -> list[Any]:
    """Nodes between tensors, producers first, without recursion.

    Raises:
        Refused: an output that depends on other tensors than the inputs.
    """
    entries = {id(x) for x in inputs}
    done: set[int] = set()
    order: list[Any] = []
    for output in outputs:
        stack = [] if id(output) in entries else [(node_of(output), False)]
        while stack:
            node, expanded = stack.pop()
            if expanded:
                order.append(node)
            elif id(node) not in done:
                done.add(id(node))
                stack.append((node, True))
                reads = (x for x in reversed(node.input_tensors) if id(x) not in entries)
                stack.extend((node_of(x), False) for x in reads)
    return order


def node_of(tensor: Any) -> Any:
    """The call whose result a symbolic tensor is. Raises `Refused` if it is an input."""
    operation = maker(tensor)
    node = None if operation is None else operation._inbound_nodes[tensor._keras_history.node_index]
    if node is None or node.is_input:
        raise Refused("reads a tensor from elsewhere")
    return node


def maker(tensor: Any) -> Any:
    """The operation whose call a symbolic tensor is the result of, or None."""
    history = getattr(tensor, "_keras_history", None)
    return history and history.operation

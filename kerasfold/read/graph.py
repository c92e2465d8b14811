"""Keras model -> calls and tensors.

A layer used twice is two calls; nested models are walked through, to any depth, so that
the calls of a `Graph` are all calls of plain layers and operations, in topological order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import tree

from kerasfold.errors import UnsupportedModelError
from kerasfold.read.model import (
    functional_graph,
    layout_of,
    public_op,
    refuse_quantised,
    trains_unasked,
)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A symbolic tensor of the model; `index` is its identity."""

    index: int
    shape: tuple[int | None, ...]
    dtype: str
    masked: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Call:
    """One call of one layer or operation.

    Attributes:
        index: position in `Graph.calls`.
        operation: the `keras.Layer` or `keras.Operation` that is called.
        name: its name, with the names of the nested models around it in front.
        args: positional arguments as the model's author passed them, `Tensor` for tensors.
        kwargs: the same for keyword arguments.
        outputs: the tensors it makes.
        training: the `training` flag this call was made with, or None, also where that is True
            as it is by default.
    """

    index: int
    operation: keras.Operation
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Tensor, ...]
    training: bool | None

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The tensors it reads, in order of appearance."""
        return tuple(x for x in tree.flatten((self.args, self.kwargs)) if isinstance(x, Tensor))

    @property
    def kind(self) -> Any:
        """The key of the lift rules: the exact class of a layer, or the `keras.ops` function."""
        operation = self.operation
        if isinstance(operation, keras.Layer):
            return type(operation)
        return public_op(type(operation))


@dataclass(frozen=True, eq=False, slots=True)
class Graph:
    """A model as a list of calls.

    Attributes:
        name: the model's name.
        inputs: the model's input structure, with `Tensor` at the leaves.
        input_layers: the `keras.layers.InputLayer` of each input, in flat order.
        outputs: the model's output structure, with `Tensor` at the leaves.
        output_names: the model's name for each output, in flat order.
        calls: every call, in topological order.
        layout: 'channels_last' or 'channels_first', as most of the calls that have one.
    """

    name: str
    inputs: Any
    input_layers: tuple[keras.layers.InputLayer, ...]
    outputs: Any
    output_names: tuple[str, ...]
    calls: tuple[Call, ...]
    layout: str


def read(model: keras.Model) -> Graph:
    """Read a built functional or Sequential model.

    Raises:
        UnsupportedModelError: not a Keras model, a subclassed model, or one not built yet.
    """
    if not isinstance(model, keras.Model):
        raise UnsupportedModelError(
            f"kerasfold folds a keras.Model. Received: {type(model).__module__}."
            f"{type(model).__name__}"
        )
    functional = functional_graph(model)
    if functional is None:
        if isinstance(model, keras.Sequential) and type(model).call is keras.Sequential.call:
            raise UnsupportedModelError(
                f"Sequential model '{model.name}' is not built, so its sizes are unknown: call "
                "model.build(input_shape) or add a keras.Input first"
            )
        raise UnsupportedModelError(
            f"model '{model.name}' of class {type(model).__name__} is subclassed: its call() is "
            "Python code, not a graph of layers. Write it as keras.Model(inputs, outputs), or "
            "fold the functional models inside it"
        )
    refuse_quantised(model)
    reader = _Reader()
    inputs = tree.map_structure(reader.tensor, functional._inputs_struct)
    for source in functional._inputs:
        reader.known[id(source)] = reader.tensor(source)
    outputs = reader.walk(functional, prefix="", training=None)
    calls = tuple(reader.calls)
    return Graph(
        name=model.name,
        inputs=inputs,
        input_layers=tuple(x._keras_history.operation for x in functional._inputs),
        outputs=tree.pack_sequence_as(functional._outputs_struct, outputs),
        output_names=tuple(x._keras_history.operation.name for x in functional._outputs),
        calls=calls,
        layout=layout_of(call.operation for call in calls),
    )


def part_of(graph: Graph, calls: Sequence[Call], outputs: Sequence[Tensor]) -> Graph:
    """Some calls of a graph as a graph of their own.

    Args:
        graph: the whole.
        calls: in its order.
        outputs: tensors they make.
    """
    made = {tensor.index for call in calls for tensor in call.outputs}
    read = {x.index: x for call in calls for x in call.inputs if x.index not in made}
    layers = [
        keras.layers.InputLayer(batch_shape=x.shape, dtype=x.dtype, name=f"part_input_{i}")
        for i, x in enumerate(read.values())
    ]
    names = [f"part_output_{i}" for i in range(len(outputs))]
    return replace(
        graph,
        name=f"{graph.name}_part",
        inputs=list(read.values()),
        input_layers=tuple(layers),
        outputs=list(outputs),
        output_names=tuple(names),
        calls=tuple(calls),
    )


class _Reader:
    """Walks functional graphs, iteratively within a graph, and numbers what it meets."""

    def __init__(self) -> None:
        self.known: dict[int, Tensor] = {}
        self.calls: list[Call] = []
        self.count = 0
        self._alive: list[Any] = []  # so that no id() is given out twice

    def tensor(self, source: Any) -> Tensor:
        """The `Tensor` of a KerasTensor."""
        if id(source) not in self.known:
            self._alive.append(source)
            self.known[id(source)] = self._new(source)
        return self.known[id(source)]

    def _new(self, source: Any) -> Tensor:
        self.count += 1
        return Tensor(self.count - 1, tuple(source.shape), source.dtype, is_masked(source))

    def walk(
        self, functional: Any, prefix: str, training: bool | None, resized: bool = False
    ) -> list[Tensor]:
        """Read every call of a functional graph whose inputs are known; its outputs.

        Args:
            functional: the graph.
            prefix: of the names of its calls.
            training: the flag that Keras gives them all.
            resized: whether its inputs have other shapes than it was built with.
        """
        for node in _topological(functional):
            if node.is_input:
                continue
            operation = node.operation
            args = tree.map_structure(self._argument, node.arguments.args)
            kwargs = tree.map_structure(self._argument, node.arguments.kwargs)
            if training is not None and getattr(operation, "_call_has_training_arg", False):
                kwargs = {**kwargs, "training": training}  # Keras: the outer flag wins
            flag = kwargs.get("training")
            if flag and training is None and trains_unasked(operation):
                flag = None  # Keras writes the default of the layer's `call` into its node
            inner = functional_graph(operation)
            if inner is not None and self._walk_nested(
                inner, operation, node, args, kwargs, prefix
            ):
                continue
            if resized:
                self._resize(node, args, kwargs)
            outputs = tuple(self.tensor(x) for x in node.outputs)
            self.calls.append(
                Call(
                    len(self.calls), operation, prefix + operation.name, args, kwargs, outputs, flag
                )
            )
        return [self.tensor(x) for x in functional._outputs]

    def _argument(self, value: Any) -> Any:
        return self.tensor(value) if isinstance(value, keras.KerasTensor) else value

    def _resize(self, node: Any, args: tuple, kwargs: dict) -> None:
        """Number the outputs of a call, with the shapes that these arguments give."""
        args, kwargs = tree.map_structure(
            lambda x: keras.KerasTensor(x.shape, x.dtype) if isinstance(x, Tensor) else x,
            (args, kwargs),
        )
        specs = tree.flatten(node.operation.compute_output_spec(*args, **kwargs))
        for source, spec in zip(node.outputs, specs, strict=True):
            self._alive.append(source)
            self.known[id(source)] = replace(self._new(source), shape=tuple(spec.shape))

    def _walk_nested(
        self,
        inner: Any,
        operation: keras.Operation,
        node: Any,
        args: tuple,
        kwargs: dict,
        prefix: str,
    ) -> bool:
        """Read the calls inside a nested model; False if only Keras can run this call."""
        rest = [v for k, v in kwargs.items() if k != "training" for v in tree.flatten(v)]
        if (
            len(args) != 1
            or any(v is not None for v in rest)
            or not _same_structure(args[0], inner._inputs_struct)
        ):
            return False
        given = tree.flatten(args[0])
        for have, want in zip(given, inner._inputs, strict=True):
            if (
                not isinstance(have, Tensor)
                or have.masked
                or len(have.shape) != len(want.shape)
                or have.dtype != want.dtype
            ):
                return False
        resized = any(x.shape != tuple(y.shape) for x, y in zip(given, inner._inputs, strict=True))
        outside, self.known = self.known, dict(zip(map(id, inner._inputs), given, strict=True))
        outputs = self.walk(inner, f"{prefix}{operation.name}_", kwargs.get("training"), resized)
        self.known = outside
        for source, tensor in zip(node.outputs, outputs, strict=True):
            self._alive.append(source)
            self.known[id(source)] = tensor
        return True


def is_masked(source: keras.KerasTensor) -> bool:
    """Whether Keras hands a mask along with a symbolic tensor."""
    return getattr(source, "_keras_mask", None) is not None


def _same_structure(a: Any, b: Any) -> bool:
    try:
        tree.assert_same_structure(tree.lists_to_tuples(a), tree.lists_to_tuples(b))
    except (ValueError, TypeError):
        return False
    return True


def _topological(functional: Any) -> list[Any]:
    """Nodes of a functional graph, producers first, without recursion."""
    done: set[int] = {id(_node_of(x)) for x in functional._inputs}
    order: list[Any] = []
    for output in functional._outputs:
        stack = [(_node_of(output), False)]
        while stack:
            node, expanded = stack.pop()
            if expanded:
                order.append(node)
            elif id(node) not in done:
                done.add(id(node))
                stack.append((node, True))
                stack.extend((_node_of(x), False) for x in reversed(node.input_tensors))
    return order


def _node_of(tensor: Any) -> Any:
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]

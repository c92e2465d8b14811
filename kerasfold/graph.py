"""Keras model -> calls and tensors. The only file that touches Keras internals.

A layer used twice is two calls; nested models are walked through, to any depth, so that
the calls of a `Graph` are all calls of plain layers and operations, in topological order.
"""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import tree

from kerasfold.errors import UnsupportedModelError, words_of


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
        training: the `training` flag this call was made with, or None.
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


_OPS: dict[type, Any] = {}


def public_op(operation: type) -> Any:
    """The `keras.ops` function whose calls an operation class records, or None."""
    if operation not in _OPS:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", operation.__name__).lower()
        own = operation.__module__.startswith("keras.src.ops.")
        _OPS[operation] = getattr(keras.ops, name, None) if own else None
    return _OPS[operation]


def _functional_graph(operation: keras.Operation) -> Any:
    """The functional graph of a model whose `call` is Keras's own, else None."""
    if isinstance(operation, keras.Sequential):
        if type(operation).call is not keras.Sequential.call:
            return None
        return getattr(operation, "_functional", None)
    if isinstance(operation, keras.Model) and hasattr(operation, "_nodes_by_depth"):
        functional = keras.src.models.functional.Functional
        return operation if type(operation).call is functional.call else None
    return None


def input_structure(model: keras.Model) -> Any:
    """The KerasTensors a model takes, structured as it takes them."""
    functional = _functional_graph(model)
    return model.input if functional is None else functional._inputs_struct


def operations(model: keras.Model) -> list[keras.Operation]:
    """The layers and operations of a model's graph; nothing of a subclassed model."""
    functional = _functional_graph(model)
    return [] if functional is None else list(functional.operations)


def computed_dtypes(model: keras.Model) -> set[str]:
    """Dtypes of every tensor of a model and of every layer in it."""
    tensors = {x.dtype for op in operations(model) for x in tree.flatten(op.output)}
    idle = (keras.Model, keras.layers.InputLayer)  # they compute nothing themselves
    layers = [layer for layer in model._flatten_layers() if not isinstance(layer, idle)]
    return tensors | {layer.compute_dtype for layer in layers} - {None}


def interpolates(operation: keras.Operation) -> bool:
    """Whether an operation resizes images, which TensorFlow does in float32 in any dtype."""
    if isinstance(operation, keras.layers.UpSampling2D):
        return operation.interpolation != "nearest"
    return "Resiz" in type(operation).__name__


def output_names(model: keras.Model) -> list[str]:
    """The name of each output of a model, in flat order."""
    return list(
        _functional_graph(model).output_names
        if isinstance(model, keras.Sequential)
        else model.output_names
    )


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
    functional = _functional_graph(model)
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
    _refuse_quantised(model)
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
        layout=_layout(calls),
    )


def _layout(calls: Sequence[Call]) -> str:
    formats = [getattr(call.operation, "data_format", None) for call in calls]
    return max(("channels_last", "channels_first"), key=formats.count)


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


def _refuse_quantised(model: keras.Model) -> None:
    for layer in model._flatten_layers():
        mode = getattr(layer, "quantization_mode", None)
        if mode is not None:
            raise UnsupportedModelError(
                f"layer '{layer.name}' has quantised ({mode}) weights: its rounding is not "
                "affine. Fold the float model first, then quantise the result"
            )


def refuse_nonfinite(model: keras.Model) -> None:
    """Refuse weights that are not finite in the dtype their layer computes in.

    Raises:
        UnsupportedModelError: naming the weight.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization) and layer.built:
            variance = keras.ops.convert_to_numpy(layer.moving_variance)
            if -np.inf < np.min(variance, initial=np.inf) + layer.epsilon <= 0:
                raise UnsupportedModelError(
                    f"layer '{layer.name}' divides by the root of a moving variance of "
                    f"{np.min(variance)} plus {layer.epsilon}, which is not positive: repair or "
                    "retrain the model first"
                )
        for variable in layer._trainable_variables + layer._non_trainable_variables:
            if "float" not in variable.dtype:
                continue
            cast = getattr(variable, "_autocast", True)
            limit = largest(layer.compute_dtype if cast else variable.dtype)
            values = keras.ops.convert_to_numpy(variable)
            if not (np.max(values, initial=0.0) <= limit and np.min(values, initial=0.0) >= -limit):
                raise UnsupportedModelError(
                    f"weight '{variable.name}' of layer '{layer.name}' holds a value that is not "
                    f"finite in {layer.compute_dtype}: repair or retrain the model first"
                )


def smallest(dtype: str) -> float:
    """The smallest number that a Keras float dtype holds with all its digits."""
    return float(np.finfo("float32" if dtype == "bfloat16" else dtype).tiny)


def largest(dtype: str) -> float:
    """The largest finite value of a Keras float dtype."""
    # np.finfo knows no bfloat16; its exponent is that of float32, its fraction 7 bits.
    return 3.3895313892515355e38 if dtype == "bfloat16" else float(np.finfo(dtype).max)


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
        masked = getattr(source, "_keras_mask", None) is not None
        return Tensor(self.count - 1, tuple(source.shape), source.dtype, masked)

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
            inner = _functional_graph(operation)
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


# ----------------------------------------------------------------- copies of operations


def _at_dtype(config: Any, dtype: str) -> Any:
    """A layer config with every floating dtype in it replaced by `dtype`."""
    if isinstance(config, dict):
        return {
            key: dtype if key == "dtype" and _is_float_policy(value) else _at_dtype(value, dtype)
            for key, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return type(config)(_at_dtype(value, dtype) for value in config)
    return config


def _is_float_policy(value: Any) -> bool:
    if isinstance(value, dict):
        value = value.get("config", {}).get("name", "")
    return isinstance(value, str) and "float" in value


def copy_operation(operation: keras.Operation, name: str, dtype: str | None) -> keras.Operation:
    """A fresh, unbuilt copy of a layer or operation, under another name.

    Args:
        operation: the original; it is not touched.
        name: name of the copy.
        dtype: dtype policy of the copy, or None for the original's.

    Raises:
        UnsupportedModelError: the config does not rebuild the layer.
    """
    try:
        if type(operation) is keras.layers.Lambda:
            fresh: Any = keras.layers.Lambda(
                operation.function,
                operation._output_shape,
                operation.mask,
                operation.arguments,
                dtype=dtype or operation.dtype_policy,
                trainable=operation.trainable,
            )
        else:
            config = operation.get_config()
            if dtype is not None:
                config = _at_dtype(config, dtype)
            if "name" in config:
                config = {**config, "name": name}
            fresh = type(operation).from_config(config)
    except Exception as error:
        raise UnsupportedModelError(
            f"layer '{operation.name}' of class {type(operation).__name__} cannot be rebuilt from "
            f"its config ({words_of(error)}): "
            "give it a get_config() that returns every argument of its __init__"
        ) from error
    fresh.name = name
    return fresh


@contextlib.contextmanager
def blank_weights(operation: keras.Operation) -> Iterator[None]:
    """Let a copy build its weights as zeros: they are replaced at once, and drawing costs time."""
    usual = {
        name: value
        for name, value in vars(operation).items()
        if name.endswith("_initializer") and isinstance(value, keras.initializers.Initializer)
    }
    zeros = keras.initializers.Zeros()
    for name in usual:
        setattr(operation, name, zeros)
    try:
        yield
    finally:
        for name, value in usual.items():
            setattr(operation, name, value)


def copy_state(source: keras.Operation, target: keras.Operation) -> None:
    """Give a built copy the weights and other state of its original.

    Raises:
        UnsupportedModelError: the copy's weights differ in number or shape.
    """
    if not isinstance(source, keras.Layer):
        return
    pairs = list(zip(_layers(source), _layers(target), strict=False))
    shapes = [[tuple(v.shape) for v in layer.weights] for layer in (source, target)]
    if shapes[0] != shapes[1] or len(pairs) != len(list(_layers(source))):
        raise UnsupportedModelError(
            f"layer '{source.name}' of class {type(source).__name__} cannot be rebuilt from its "
            f"config: its weights have shapes {shapes[0]}, those of its copy {shapes[1]}"
        )
    for old, new in zip(source.variables, target.variables, strict=False):
        if tuple(old.shape) == tuple(new.shape):
            new.assign(old.value if old.dtype == new.dtype else as_array(old))
    for old, new in pairs:  # what a layer is made of may be frozen by itself
        if new.trainable != old.trainable:
            new.trainable = old.trainable
        finalize = getattr(new, "finalize_state", None)
        if finalize is not None:
            finalize()
        if type(old) is keras.layers.Normalization and old.mean is not None:
            # It computes with these and not with its weights, which set_weights may change.
            new.mean = keras.ops.cast(old.mean, new.compute_dtype)
            new.variance = keras.ops.cast(old.variance, new.compute_dtype)


def _layers(layer: keras.Layer) -> Iterator[keras.Layer]:
    return layer._flatten_layers(include_self=True, recursive=True)


def as_array(value: Any) -> np.ndarray:
    """A Keras variable, tensor or array as NumPy float64, whatever float it is stored in."""
    if isinstance(value, (int, float, list, tuple, np.ndarray, np.generic)):
        return np.asarray(value, dtype="float64")  # never through the backend's default dtype
    return np.asarray(keras.ops.convert_to_numpy(value), dtype="float64")


def kernel_of(layer: Any) -> Any:
    """The kernel a convolution or Dense layer computes with, its LoRA update included.

    LoRA's own matrices are float32 under every policy, and so is their product; it is added
    to the kernel in float64, as a float64 copy of the layer would add it.
    """
    if not getattr(layer, "lora_enabled", False):
        return layer.kernel
    update = (layer.lora_alpha / layer.lora_rank) * keras.ops.matmul(
        layer.lora_kernel_a, layer.lora_kernel_b
    )
    return as_array(layer._kernel) + as_array(update)


def as_dtype(value: Any, dtype: str) -> np.ndarray:
    """An array as a model's input rounds it."""
    return keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(value, dtype=dtype))


def as_constant(value: Any) -> np.ndarray:
    """A number or list in a layer's config, as Keras reads it: floats are rounded to float32."""
    return as_array(keras.ops.convert_to_tensor(value))


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Leave the global random generators where they are: building layers draws from them."""
    generator = keras.src.backend.common.global_state.get_global_attribute("global_seed_generator")
    state = None if generator is None else keras.ops.convert_to_numpy(generator.state)
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        if generator is not None:
            generator.state.assign(state)


def attach_fold(fold: Callable[..., keras.Model]) -> None:
    """Give every `keras.Model` a `fold` method."""
    keras.Model.fold = fold

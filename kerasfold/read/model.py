"""What a Keras model says of itself: its graph, its inputs and outputs, and what it computes in."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import tree

from kerasfold.errors import UnsupportedModelError

_OPS: dict[type, Any] = {}
_SHORTENED = {"batch_norm": "batch_normalization"}  # by what the operation's class says

# Layers that Keras's applications, and its layers, are made of, and that have no public name.
LayerScale = keras.src.applications.convnext.LayerScale
StochasticDepth = keras.src.applications.convnext.StochasticDepth
CustomScaleLayer = keras.src.applications.inception_resnet_v2.CustomScaleLayer
ConvLSTMCell = keras.src.layers.rnn.conv_lstm.ConvLSTMCell
_AUGMENTATION = keras.layers.RandomFlip.__base__
# What leaves out what is masked, by the masks that its tensors have when it runs.
_BY_MASKS = (keras.layers.Maximum, keras.layers.Minimum, keras.layers.Multiply)
# What gives back the very tensor that it is called on, where it has nothing to do.
_GIVING_BACK = (
    *(keras.ops.cast, keras.ops.convert_to_tensor, keras.ops.real),
    *(keras.ops.swapaxes, keras.ops.moveaxis),
)


def function_name(operation: type) -> str:
    """What the function is called whose calls an operation class records: 'get_item'."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", operation.__name__).lower()
    return _SHORTENED.get(name, name)


def op_named(name: str) -> Any:
    """The function of `keras.ops`, or of `keras.ops.image`, of a name, or None."""
    return getattr(keras.ops, name, None) or getattr(keras.ops.image, name, None)


def public_op(operation: type) -> Any:
    """The `keras.ops` function whose calls an operation class records, or None."""
    if operation not in _OPS:
        own = operation.__module__.startswith("keras.src.ops.")
        _OPS[operation] = op_named(function_name(operation)) if own else None
    return _OPS[operation]


def functional_graph(operation: keras.Operation) -> Any:
    """The functional graph of a model whose `call` is Keras's own, else None."""
    if isinstance(operation, keras.Sequential):
        if type(operation).call is not keras.Sequential.call:
            return None
        return getattr(operation, "_functional", None)
    if isinstance(operation, keras.Model) and hasattr(operation, "_nodes_by_depth"):
        functional = keras.src.models.functional.Functional
        return operation if type(operation).call is functional.call else None
    return None


_PREDICTS = ("__call__", "predict", "predict_on_batch", "predict_step", "make_predict_function")


def own_predictions(model: keras.Model) -> list[str]:
    """Which of Keras's methods that predict a model's class has in a way of its own."""
    usual = keras.Sequential if isinstance(model, keras.Sequential) else keras.Model
    return [name for name in _PREDICTS if getattr(type(model), name) is not getattr(usual, name)]


def input_structure(model: keras.Model) -> Any:
    """The KerasTensors a model takes, structured as it takes them."""
    functional = functional_graph(model)
    return model.input if functional is None else functional._inputs_struct


def output_structure(model: keras.Model) -> Any:
    """The KerasTensors a model gives, structured as it gives them."""
    functional = functional_graph(model)
    return model.output if functional is None else functional.output


def operations(model: keras.Model) -> list[keras.Operation]:
    """The layers and operations of a model's graph; nothing of a subclassed model."""
    functional = functional_graph(model)
    return [] if functional is None else list(functional.operations)


def computed_dtypes(model: keras.Model) -> set[str]:
    """Dtypes of every tensor of a model, of every layer, and of the inputs of models in it."""
    tensors = {x.dtype for op in operations(model) for x in tree.flatten(op.output)}
    layers = [layer for layer in model._flatten_layers() if not isinstance(layer, keras.Model)]
    inputs = {layer.dtype for layer in layers if isinstance(layer, keras.layers.InputLayer)}
    computing = [layer for layer in layers if not isinstance(layer, keras.layers.InputLayer)]
    return tensors | inputs | {layer.compute_dtype for layer in computing} - {None}


def interpolates(operation: keras.Operation) -> bool:
    """Whether an operation resizes images, which TensorFlow does in float32 in any dtype.

    Not so where it copies the nearest pixels.
    """
    resizes = isinstance(operation, keras.layers.UpSampling2D) or (
        is_of_keras(operation) and "Resiz" in type(operation).__name__
    )
    return resizes and getattr(operation, "interpolation", "") != "nearest"


def output_names(model: keras.Model) -> list[str]:
    """The name of each output of a model, in flat order."""
    return list(
        functional_graph(model).output_names
        if isinstance(model, keras.Sequential)
        else model.output_names
    )


def output_labels(model: keras.Model) -> list[str]:
    """What a user calls each output of a model: by its keys, where it has any, else its name."""
    places = tree.flatten_with_path(output_structure(model))
    return [
        _label(path) if any(isinstance(key, str) for key in path) else name
        for (path, _), name in zip(places, output_names(model), strict=True)
    ]


def _label(path: Sequence[Any]) -> str:
    """Keys and positions, as in `boxes[0]`."""
    first, *rest = path
    return str(first) + "".join(f"[{key}]" for key in rest)


def refuse_quantised(model: keras.Model) -> None:
    """Refuse layers whose rounding is not affine. Raises `UnsupportedModelError`."""
    for layer in model._flatten_layers():
        mode = getattr(layer, "quantization_mode", None)
        if mode is not None:
            raise UnsupportedModelError(
                f"layer '{layer.name}' has quantised ({mode}) weights: its rounding is not "
                "affine. Fold the float model first, then quantise the result"
            )


def made_by(value: keras.KerasTensor) -> keras.Operation:
    """The layer or operation whose call a symbolic tensor is the result of."""
    return value._keras_history.operation


def inputs_of(value: keras.KerasTensor) -> list[keras.KerasTensor]:
    """The symbolic tensors that the call was given whose result a symbolic tensor is."""
    return list(made_by(value)._inbound_nodes[value._keras_history.node_index].input_tensors)


def sublayers(layer: keras.Layer) -> Iterator[keras.Layer]:
    """A layer, and every layer in it to any depth, each once."""
    return layer._flatten_layers(include_self=True, recursive=True)


def variables_of(layer: keras.Layer) -> list[keras.Variable]:
    """The variables of a layer, and those that it holds and does not list: an RNN's states."""
    found = {id(variable): variable for variable in layer.variables}
    found |= {id(v): v for inner in sublayers(layer) for v in held_by(inner)}
    return list(found.values())


def held_by(layer: keras.Layer) -> list[keras.Variable]:
    """The variables that are a layer's own attributes, by themselves or in lists, and its seeds."""
    found, values = [], [x for x in vars(layer).values() if isinstance(x, _HOLDING)]
    for value in values:  # which grows meanwhile
        if isinstance(value, (list, tuple)):
            values.extend(x for x in value if isinstance(x, _HOLDING))
        else:
            found.append(value if isinstance(value, keras.Variable) else value.state)
    return found


_HOLDING = (list, tuple, keras.Variable, keras.random.SeedGenerator)


def recurrent_states(model: keras.Model) -> list[list[keras.Variable]]:
    """Of each recurrent layer that goes on from batch to batch, where it goes on from."""
    return [
        tree.flatten(layer.states)
        for layer in sublayers(model)
        if getattr(layer, "stateful", False) and getattr(layer, "states", None) is not None
    ]


def call_parameters(operation: keras.Operation) -> Mapping[str, inspect.Parameter]:
    """What the `call` of a layer or an operation takes, by name; `self` too, of a method."""
    return _parameters(getattr(operation.call, "__func__", operation.call))


@functools.lru_cache(256)  # a model has many layers of few classes
def _parameters(call: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(call).parameters


def takes_training(operation: keras.Operation) -> bool:
    """Whether a layer is called with the flag `training`."""
    return bool(getattr(operation, "_call_has_training_arg", False))


def is_layer(operation: keras.Operation) -> bool:
    """Whether an operation is a layer, with a dtype policy and maybe weights."""
    return isinstance(operation, keras.Layer)


def is_of_keras(operation: keras.Operation) -> bool:
    """Whether a layer or operation is one of Keras's own."""
    return type(operation).__module__.split(".")[0] == "keras"


def is_keras_own(value: Any) -> bool:
    """Whether what a layer is made with is Keras's own: an activation, or a regularizer."""
    return getattr(value, "__module__", "").partition(".")[0] == "keras"


# Layers of Keras that run what others wrote.
_RUNNING_OTHERS = (
    *(keras.Model, keras.layers.Lambda, keras.layers.TFSMLayer, keras.layers.JaxLayer),
    *(keras.layers.FlaxLayer, keras.layers.TorchModuleWrapper),
)


def is_pure(operation: keras.Operation) -> bool:
    """Whether an operation of Keras's gives what its inputs and weights say, and nothing else.

    At inference. What is random then or in training, or may keep more than weights, is not.
    """
    if not is_layer(operation):
        return public_op(type(operation)) is not None
    return len(operation.variables) == len(operation.weights) and not any(
        isinstance(layer, _RUNNING_OTHERS)
        or not is_of_keras(layer)
        or hasattr(layer, "adapt")
        or getattr(layer, "stateful", False)
        or has_own_activation(layer)
        for layer in sublayers(operation)
    )


def is_masked(source: keras.KerasTensor) -> bool:
    """Whether Keras hands a mask along with a symbolic tensor."""
    return getattr(source, "_keras_mask", None) is not None


def trains_unasked(operation: keras.Operation) -> bool:
    """Whether a layer takes a call that says nothing of `training` for one of training."""
    flag = call_parameters(operation).get("training")
    return flag is not None and flag.default is True


def is_random_unasked(operation: keras.Operation) -> bool:
    """Whether such a call may be random; of a pipeline, that of a layer in it."""
    if isinstance(operation, keras.layers.Pipeline):
        return any(map(is_random_unasked, operation.layers))
    return trains_unasked(operation)


def passes_masks(operation: keras.Operation) -> bool:
    """Whether masks of a call's inputs are handed on to its outputs."""
    return isinstance(operation, keras.Layer) and operation.supports_masking


def keeps_masks(operation: keras.Operation, same_shape: bool) -> bool:
    """Whether a call may give back what it, or a layer inside it, was given, and so its mask.

    Keras's symbolic tensors do not show that one.

    Args:
        operation: what is called.
        same_shape: whether it gives a tensor of the shape of one that is masked.
    """
    if isinstance(operation, (keras.layers.SpectralNormalization, keras.layers.Pipeline)):
        return True
    identity = isinstance(operation, (_AUGMENTATION, StochasticDepth))
    identity = identity or public_op(type(operation)) in _GIVING_BACK
    return same_shape and (identity or not is_of_keras(operation))


def is_mask_name(name: str) -> bool:
    """Whether an argument of that name is a mask, as Keras names them."""
    return f"_{name}".endswith("_mask")


def reads_masks(operation: keras.Operation) -> bool:
    """Whether masks of a call's inputs may change its result at inference."""
    if not isinstance(operation, keras.Layer):
        return False
    if type(operation) in (keras.layers.TimeDistributed, keras.layers.SpectralNormalization):
        return reads_masks(operation.layer)
    if type(operation) is keras.layers.BatchNormalization:
        return False  # its moments, in training, are all that it reads one for
    if isinstance(operation, _BY_MASKS):
        return True
    names = call_parameters(operation)
    # Others may hold any layers inside.
    return not is_of_keras(operation) or any(map(is_mask_name, names))


def has_own_activation(layer: keras.Layer) -> bool:
    """Whether a layer applies a function that Keras does not know: it may do anything."""
    function = getattr(layer, "activation", None)
    name = getattr(function, "__name__", "")
    return function is not None and getattr(keras.activations, name, None) is not function


def is_restrained(operation: keras.Operation) -> bool:
    """Whether a layer has more to it than its weights: a regularizer, a constraint or LoRA."""
    own = vars(operation).items()
    kinds = (keras.regularizers.Regularizer, keras.constraints.Constraint)
    return getattr(operation, "lora_enabled", False) or any(isinstance(v, kinds) for _, v in own)


def layout_of(operations: Iterable[keras.Operation]) -> str:
    """'channels_last' or 'channels_first', as most of the operations that have one."""
    formats = [getattr(operation, "data_format", None) for operation in operations]
    return max(("channels_last", "channels_first"), key=formats.count)


def takes_other_layout(operation: keras.Operation, layout: str) -> bool:
    """Whether an operation takes channels to be elsewhere than a model of a layout has them.

    Of those that have no `data_format`, two layers of sequences take them to be last.
    """
    last = (keras.layers.UpSampling1D, keras.layers.Cropping1D)
    usual = "channels_last" if isinstance(operation, last) else layout
    own = getattr(operation, "data_format", usual)
    return (keras.config.image_data_format() if own is None else own) != layout

"""Running models, looking into them, and holding one against another."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

FLOAT64 = 1e-11
FLOAT32 = None  # the tolerance that `assert_same` finds out on the machine at hand
ONLY_FLOAT32 = 2e-5  # where there is no float64 to say what is right
LOSS = 8  # times the original's own error
UNITS = 64  # of float32 rounding, of an output's size


def structure(model: keras.Model) -> tuple[Any, Any]:
    """Inputs and outputs in the structure the model was made with, which a Sequential has not."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0], model.outputs[0]
    return model.input, model.output


def inputs_of(model: keras.Model, batch: int = 2, size: int = 9, seed: int = 1) -> Any:
    """Random inputs in the structure of the model's; `size` where the shape is unknown."""
    rng = np.random.default_rng(seed)

    def one(tensor: Any) -> np.ndarray:
        shape = [batch if tensor.shape[0] is None else tensor.shape[0]]
        shape += [size if n is None else n for n in tensor.shape[1:]]
        if tensor.dtype == "bool":
            return rng.normal(size=shape) > 0
        if str(tensor.dtype).startswith("int"):
            return rng.integers(0, 5, shape).astype(tensor.dtype)
        return rng.normal(size=shape).astype("float64" if tensor.dtype == "float64" else "float32")

    return keras.tree.map_structure(one, structure(model)[0])


def run(model: keras.Model, inputs: Any) -> list[np.ndarray]:
    """Outputs at inference, flat, in float64."""
    outputs = keras.tree.flatten(model(inputs, training=False))
    return [np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(y, "float64"))) for y in outputs]


def run_under_xla(model: keras.Model, inputs: np.ndarray) -> list[np.ndarray]:
    """Outputs as XLA computes them, flat: channels_first has no kernels on the CPU but there."""
    model.compile(jit_compile=True)
    return keras.tree.flatten(model.predict(inputs, verbose=0))


def in_float64(model: keras.Model) -> keras.Model:
    """What a float32 model approximates: rebuilt by Keras in float64, with the same weights."""
    config = json.dumps(keras.saving.serialize_keras_object(model))
    copy = keras.saving.deserialize_keras_object(
        json.loads(config.replace('"float32"', '"float64"')), safe_mode=False
    )
    copy.set_weights(model.get_weights())
    for layer, given in zip(copy._flatten_layers(), model._flatten_layers(), strict=True):
        if isinstance(layer, layers.Normalization):  # computes with copies of its weights
            layer.mean, layer.variance = given.mean, given.variance
    return copy


def float32_bound(truth: np.ndarray, expected: np.ndarray) -> float:
    """What a fold may be off the float64 truth where its original gave `expected`.

    Processors differ in the order of sums and in what they fuse, so that it is a multiple of the
    original's own error on the machine at hand, and a few roundings.
    """
    own, scale = np.abs(expected - truth).max(), np.abs(truth).max()
    bound = float(LOSS * own + UNITS * 2.0**-23 * scale)
    assert bound <= 1e-3 * scale, f"own error {own:.2e}: a fault of a thousandth would pass"
    return bound


def assert_same(
    model: keras.Model,
    folded: keras.Model,
    tolerance: float | None,
    inputs: Any = None,
    run: Callable[[keras.Model, Any], list[np.ndarray]] = run,
    **kwargs: Any,
) -> None:
    """Both models give the same outputs, to a tolerance relative to each output's size.

    FLOAT32 compares with the model in float64, where TensorFlow has that: see `float32_bound`.
    """
    inputs = inputs_of(model, **kwargs) if inputs is None else inputs
    wanted, outputs = run(model, inputs), run(folded, inputs)
    truths = wanted
    if tolerance is FLOAT32:
        try:
            truths = run(in_float64(model), inputs)
        except (
            tf.errors.NotFoundError,
            tf.errors.InvalidArgumentError,
        ):  # such as 3-D pooling on the CPU
            tolerance = ONLY_FLOAT32
    for k, (truth, expected, got) in enumerate(zip(truths, wanted, outputs, strict=True)):
        assert expected.shape == got.shape, f"output {k}: {expected.shape} became {got.shape}"
        assert np.isfinite(expected).all()
        scale = max(float(np.abs(truth).max()), 1e-30)
        bound = float32_bound(truth, expected) if tolerance is FLOAT32 else tolerance * scale
        error = float(np.abs(truth - got).max())
        assert error <= bound, f"output {k}: differs by {error / scale:.2e} of its size"


def layers_of(model: keras.Model) -> list[Any]:
    """Every layer at any depth, models themselves left out, each once."""
    found = []
    for layer in model.layers:
        found += layers_of(layer) if isinstance(layer, keras.Model) else [layer]
    return list({id(layer): layer for layer in found}.values())


def kinds(model: keras.Model) -> list[str]:
    """Class names of the layers that compute, in order."""
    return [
        type(layer).__name__ for layer in layers_of(model) if type(layer) is not layers.InputLayer
    ]


def signature(model: keras.Model) -> Any:
    """Names, structure, shapes and dtypes of inputs and outputs."""

    def of(tensor: Any) -> Any:
        return tuple(tensor.shape), tensor.dtype

    inputs, outputs = structure(model)
    function = model._functional if isinstance(model, keras.Sequential) else model
    return (
        [tensor._keras_history.operation.name for tensor in model.inputs],
        function.output_names,
        repr(keras.tree.map_structure(of, inputs)),
        repr(keras.tree.map_structure(of, outputs)),
    )


def fingerprint(model: keras.Model) -> Any:
    """All that a fold could touch."""
    everything = [model, *model._flatten_layers(include_self=False)]
    return {
        "configs": [
            repr(layer.get_config()) for layer in everything if type(layer) is not layers.Lambda
        ],
        "weights": [w.numpy().tobytes() for w in model.weights],
        "ids": [id(w) for w in model.weights],
        "inbound": [len(layer._inbound_nodes) for layer in everything],
        "outbound": [len(layer._outbound_nodes) for layer in everything],
        "trainable": [layer.trainable for layer in everything],
        "names": [layer.name for layer in everything],
        "losses": len(model.losses),
    }

"""Running models, looking into them, and holding one against another."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

FLOAT64 = 1e-11
FLOAT32 = 2e-5


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


def assert_same(
    model: keras.Model, folded: keras.Model, tolerance: float, inputs: Any = None, **kwargs: Any
) -> None:
    """Both models give the same outputs, to a tolerance relative to each output's size."""
    inputs = inputs_of(model, **kwargs) if inputs is None else inputs
    for k, (expected, got) in enumerate(zip(run(model, inputs), run(folded, inputs), strict=True)):
        assert expected.shape == got.shape, f"output {k}: {expected.shape} became {got.shape}"
        assert np.isfinite(expected).all()
        scale = max(float(np.abs(expected).max()), 1e-30)
        error = float(np.abs(expected - got).max()) / scale
        assert error <= tolerance, f"output {k}: differs by {error:.2e} of its size"


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

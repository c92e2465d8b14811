"""What layers compute with, in float64, and what a dtype can hold."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from kerasfold import backend
from kerasfold.backend import in_memory
from kerasfold.errors import FoldError, UnsupportedModelError


def added_numbers(given: Iterable[Any]) -> int:
    """Of what a call is given beside tensors, how many numbers are of a rewriting's making."""
    return sum(x.size for x in given if isinstance(x, Constant))


class Constant(np.ndarray):
    """What a call is given beside tensors, in float64 for as long as it is to be merged.

    Attributes:
        written: the dtype that it is rounded to, where it is not.
    """

    written: str

    @staticmethod
    def of(values: np.ndarray, written: str) -> Constant:
        """Values, rounded at the end alone."""
        made = np.asarray(values, dtype="float64").view(Constant)
        made.written = written
        return made


def require_values(what: str) -> None:
    """Refuse to go on where weights have no values. Raises `FoldError`."""
    if backend.is_traced():
        raise FoldError(
            f"{what} is called inside a function that is being traced ('tf.function', 'jax.jit'), "
            "where weights have no values: call it outside"
        )


def require_double(what: str) -> None:
    """Refuse to compare where nothing can be proved. Raises `FoldError`."""
    if not backend.has_double():
        raise FoldError(
            f"{what} compares in float64, which Keras's backend {backend.name()} computes in "
            "float32: pass verify=False, and compare the saved models on another backend "
            "(KERAS_BACKEND=numpy)"
        )


def refuse_nonfinite(model: keras.Model) -> None:
    """Refuse weights that are not finite in the dtype their layer computes in.

    Raises:
        UnsupportedModelError: naming the weight.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization) and layer.built:
            variance = in_memory(layer.moving_variance)
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
            values = in_memory(variable)
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


def as_array(value: Any) -> np.ndarray:
    """A Keras variable, tensor or array as NumPy float64, whatever float it is stored in."""
    return np.asarray(as_stored(value), dtype="float64")


def as_stored(value: Any) -> np.ndarray:
    """A Keras variable, tensor or array as NumPy, to read only, of the float it is stored in."""
    if isinstance(value, (int, float, list, tuple, np.ndarray, np.generic)):
        return np.asarray(value)  # never through the backend's default dtype
    return in_memory(value)


def is_float_array(value: Any) -> bool:
    """Whether a value is an array, a variable or a tensor of floats."""
    dtype = getattr(value, "dtype", None)
    return dtype is not None and keras.backend.is_float_dtype(
        keras.backend.standardize_dtype(dtype)
    )


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


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """What a variable of a dtype holds of float64 values, in float64."""
    return values.astype(dtype).astype("float64")


def as_constant(value: Any) -> np.ndarray:
    """A number or list in a layer's config, as Keras reads it: floats are rounded to float32."""
    return as_array(keras.ops.convert_to_tensor(value))


def digest(model: keras.Model) -> str:
    """SHA-256 of the weights of a model, with their paths, shapes and dtypes, in hexadecimal."""
    found = hashlib.sha256()
    for variable in model.weights:
        found.update(f"{variable.path} {tuple(variable.shape)} {variable.dtype}\n".encode())
        found.update(np.ascontiguousarray(in_memory(variable)).view("uint8").data)
    return found.hexdigest()


def shape_of(weight: Any) -> tuple[int, ...]:
    """The shape of a variable, a tensor or an array."""
    # TensorFlow's variables make an object of it each time that they are asked.
    return tuple(weight._shape if isinstance(weight, keras.Variable) else map(int, weight.shape))


def count_params(operation: keras.Operation) -> int:
    """Weights of a layer, of those that it is built with; none of an operation that is no layer."""
    return sum(math.prod(shape_of(w)) for w in getattr(operation, "weights", ()))


@contextlib.contextmanager
def starting_as(layer: keras.Layer, weights: Mapping[str, np.ndarray]) -> Iterator[None]:
    """Let a layer build its variables as values, at no second copy.

    Args:
        layer: a layer to be built meanwhile.
        weights: the values of its variables, by the attribute that each will be.
    """
    starts = {_initializer_of(layer, name): start_as(values) for name, values in weights.items()}
    usual = {attribute: getattr(layer, attribute) for attribute in starts}
    for attribute, start in starts.items():
        setattr(layer, attribute, start)
    try:
        yield
    finally:
        for attribute, initializer in usual.items():
            setattr(layer, attribute, initializer)


def _initializer_of(layer: keras.Layer, weight: str) -> str:
    """The attribute with the initializer of a weight; of a depthwise kernel it says so."""
    own = f"{weight.removesuffix('_kernel')}_initializer"
    return own if hasattr(layer, own) else "depthwise_initializer"


def start_as(values: np.ndarray) -> Any:
    """An initializer that gives a new variable its values."""

    @functools.cache
    def initializer(shape: tuple[int, ...], dtype: Any = None) -> Any:
        assert shape == values.shape, f"variable {shape}, weights {values.shape}"
        return backend.rounded(values, keras.backend.standardize_dtype(dtype or values.dtype))

    return initializer


def start_exactly_as(values: np.ndarray) -> Any:
    """An initializer that gives a new variable float64, also while that is not computed with."""
    with backend.double_precision():
        exact = backend.rounded(values, "float64")
    return lambda shape, dtype=None: exact

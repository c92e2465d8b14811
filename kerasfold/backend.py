"""What is the backend's own: its precision, its devices, its random state."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np


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


@contextlib.contextmanager
def masks_dropped_quietly() -> Iterator[None]:
    """Without Keras's warning that a layer hands on no mask: those that are read do arrive."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s)Layer .* does not support masking")
        yield


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """No TF32 and no other shortcut in float32 products while models are compared."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        switch = tf.config.experimental
        before = switch.tensor_float_32_execution_enabled()
        switch.enable_tensor_float_32_execution(False)
        try:
            yield
        finally:
            switch.enable_tensor_float_32_execution(before)
    elif backend == "jax":
        import jax

        with jax.default_matmul_precision("highest"):
            yield
    elif backend == "torch":
        import torch

        flags = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = flags
    else:
        yield


def is_traced() -> bool:
    """Whether this runs inside a function that is being traced, where variables have no values."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return not tf.executing_eagerly()
    if backend == "jax":
        import jax

        return isinstance(jax.numpy.add(0, 0), jax.core.Tracer)
    return False


def in_memory(value: Any) -> np.ndarray:
    """A variable or tensor as NumPy, to read only: where it lies, if NumPy can look there.

    TensorFlow's own way to NumPy copies, which takes longer than what is done with most weights.
    """
    if name() == "tensorflow":
        tensor = tensor_of(value) if isinstance(value, keras.Variable) else value
        with contextlib.suppress(Exception):  # on another device, or of a dtype NumPy lacks
            array = np.from_dlpack(tensor)
            array.flags.writeable = False
            return array
    return keras.ops.convert_to_numpy(value)


def tensor_of(variable: keras.Variable) -> Any:
    """The values that a variable has now, which no later change of it reaches."""
    if name() == "tensorflow":
        return variable.value.value()  # the same memory: TensorFlow copies what it writes to
    return keras.ops.copy(variable.value)


def name() -> str:
    """Keras's backend: 'tensorflow', 'jax' or 'torch'."""
    return keras.backend.backend()


def device() -> str:
    """The backend, and where it computes."""
    backend = keras.backend.backend()
    if backend == "torch":  # for which Keras lists no devices
        return f"{backend} on {keras.ops.zeros(()).device}"
    devices = keras.distribution.list_devices()
    return f"{backend} on {devices[0] if devices else 'cpu'}"

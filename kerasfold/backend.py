"""What is the backend's own: its precision, its devices, its random state."""

from __future__ import annotations

import contextlib
import random
import re
import threading
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np

_SEEDS: ContextVar[random.Random | None] = ContextVar("_SEEDS", default=None)


class _Seeds:
    """Where Keras takes the seeds that nobody gave: Python's `random`, but for `own_seeds`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_SEEDS.get() or random, name)


keras.src.random.seed_generator.python_random = _Seeds()


@contextlib.contextmanager
def own_seeds() -> Iterator[None]:
    """Draw the seeds of layers that are built meanwhile, here, from a generator of their own.

    Every initializer and every dropout layer takes one. The process has one generator for all its
    threads: what is drawn from it, or put back, others would miss, or see twice. What a layer of
    the user's own draws when it is built, from whatever it likes, it draws.
    """
    state, key = keras.src.backend.common.global_state, "global_seed_generator"  # a thread's own
    theirs = state.get_global_attribute(key)
    state.set_global_attribute(key, None)
    token = _SEEDS.set(random.Random(0))
    try:
        yield
    finally:
        _SEEDS.reset(token)
        state.set_global_attribute(key, theirs)


class _Unsaid:
    """What `warnings` takes for the pattern of a message: one that is that of a thread alone."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.thread = re.compile(pattern, re.DOTALL), threading.get_ident()

    def match(self, message: str) -> bool:
        return threading.get_ident() == self.thread and bool(self.pattern.match(message))


@contextlib.contextmanager
def unsaid(pattern: str = "") -> Iterator[None]:
    """Without the warnings of this thread that begin with a pattern.

    `warnings.catch_warnings` changes what all threads warn of, and of two that overlap, the one
    that ends last puts back what the other had put there.
    """
    entry: Any = ("ignore", _Unsaid(pattern), Warning, None, 0)
    filters: Any = warnings.filters
    filters.insert(0, entry)
    try:
        yield
    finally:
        now: Any = warnings.filters  # others, where another thread catches warnings
        for each in (filters, now):
            with contextlib.suppress(ValueError):
                each.remove(entry)


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

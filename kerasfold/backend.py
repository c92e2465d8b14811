"""What is the backend's own: its precision, its devices, its random state."""

from __future__ import annotations

import contextlib
import functools
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from kerasfold.wide import WIDE

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


_UNFILLED: ContextVar[bool] = ContextVar("_UNFILLED", default=False)
_DRAWS = ("normal", "truncated_normal", "uniform")


class _Draws:
    """What initializers draw with: Keras's own functions, but for `unfilled`."""

    def __getattr__(self, name: str) -> Any:
        is_draw = _UNFILLED.get() and name in _DRAWS
        return _no_draw if is_draw else getattr(keras.src.backend.random, name)


def _no_draw(shape: Any, *_: Any, dtype: Any = None, **__: Any) -> Any:
    return keras.ops.zeros(shape, dtype=dtype or keras.config.floatx())


keras.src.initializers.random_initializers.random = _Draws()


@contextlib.contextmanager
def unfilled() -> Iterator[None]:
    """Weights that are built meanwhile, here, start as zeros: for those that get others' values.

    To draw them takes longer than all else that a large kernel needs.
    """
    token = _UNFILLED.set(True)
    try:
        yield
    finally:
        _UNFILLED.reset(token)


@contextlib.contextmanager
def unstored() -> Iterator[None]:
    """Variables that are built meanwhile, here, have what their initializer gives when it is read.

    For layers that are only looked at: a variable of the backend takes longer than all else.
    """
    state, key = keras.src.backend.common.global_state, "uninitialized_variables"
    theirs = state.get_global_attribute(key)
    try:
        with keras.StatelessScope(initialize_variables=False):
            state.set_global_attribute(key, None)
            yield
    finally:
        state.set_global_attribute(key, theirs)  # else the next such scope would store them


class _Switch:
    """A setting of the whole process, held at a value while anyone in any thread needs that."""

    def __init__(
        self, needed: Any, read: Callable[[], Any], write: Callable[[Any], object]
    ) -> None:
        self.needed, self.read, self.write = needed, read, write
        self.lock, self.users, self.before = threading.Lock(), 0, needed

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The first to come turns it, the last to leave puts back what was there."""
        with self.lock:
            if not self.users:
                self.before = self.read()
                if self.before != self.needed:
                    self.write(self.needed)
            self.users += 1
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                if not self.users and self.before != self.needed == self.read():
                    self.write(self.before)


@functools.cache
def _switches() -> list[_Switch]:
    """What rounds products of float32 to less, of this backend.

    TensorFlow's oneDNN is told by environment variables, before it starts.
    """
    if name() == "tensorflow":
        import tensorflow as tf

        config = tf.config.experimental
        read = config.tensor_float_32_execution_enabled
        return [_Switch(False, read, config.enable_tensor_float_32_execution)]
    if name() != "torch":
        return []
    import torch

    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    kinds: list[Any] = [cuda.matmul, cudnn.conv, cudnn.rnn]
    kinds += [mkldnn.matmul, mkldnn.conv, mkldnn.rnn]
    return [
        _Switch(
            "ieee",
            functools.partial(getattr, kind, "fp32_precision"),
            functools.partial(setattr, kind, "fp32_precision"),
        )
        for kind in kinds
    ]


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """No TF32 and no other shortcut in float32 products while models are compared."""
    with contextlib.ExitStack() as scopes:
        for switch in _switches():
            scopes.enter_context(switch.held())
        if name() == "jax":
            import jax

            scopes.enter_context(jax.default_matmul_precision("highest"))
        yield


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Meanwhile, here, float64 is computed as such, on the CPU, and what `wide` says with it.

    JAX, with which NumPy's backend convolves, has none unless told.
    """
    token = WIDE.set(True)
    try:
        with contextlib.ExitStack() as scopes:
            scopes.enter_context(on(_CPU))
            if name() in ("jax", "numpy"):
                import jax

                scopes.enter_context(jax.enable_x64(True))
            yield
    finally:
        WIDE.reset(token)


@contextlib.contextmanager
def by_default(dtype: str) -> Iterator[None]:
    """Meanwhile, in this thread, layers that are told no dtype have this one.

    Those are what a layer of other makers holds: no config of it says theirs.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@functools.cache
def has_double() -> bool:
    """Whether float64 is computed as such: OpenVINO says float64 of what it computes in float32."""
    x = np.full((1, 1), 1 + 2.0**-40)
    with double_precision():
        tensor = keras.ops.convert_to_tensor(x, dtype="float64")
        return bool(keras.ops.convert_to_numpy(keras.ops.matmul(tensor, tensor)) > x)


def computed(dtype: str) -> str:
    """What a dtype is computed in, outside of `double_precision`, at least in part."""
    return "float32" if dtype == "float64" and name() != "tensorflow" else dtype


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


@dataclass(slots=True)
class _Held:
    """A variable, the value that it has meanwhile, and NumPy's view of that, once there is one."""

    variable: keras.Variable
    value: Any
    seen: np.ndarray | None = None


_HELD: ContextVar[Mapping[int, _Held]] = ContextVar("_HELD", default=MappingProxyType({}))


@contextlib.contextmanager
def held(
    variables: Iterable[keras.Variable], values: Iterable[Any] | None = None
) -> Iterator[None]:
    """A scope of this thread, in which variables have the values of its start, or some others.

    Whatever another thread writes to them: for `tensor_of`, `in_memory` and `placed`.
    """
    variables = list(variables)
    pairs = zip(variables, map(tensor_of, variables) if values is None else values, strict=True)
    token = _HELD.set({**_HELD.get(), **{id(v): _Held(v, value) for v, value in pairs}})
    try:
        yield
    finally:
        _HELD.reset(token)


def _value_of(variable: keras.Variable) -> Any:
    found = _HELD.get().get(id(variable))
    return variable.value if found is None else found.value


def in_memory(value: Any) -> np.ndarray:
    """A variable or tensor as NumPy, to read only: where it lies, if NumPy can look there.

    TensorFlow's own way to NumPy copies, which takes longer than what is done with most weights.
    """
    held = _HELD.get().get(id(value))
    if held is not None and held.seen is not None:
        return held.seen
    if name() == "tensorflow":
        tensor = tensor_of(value) if isinstance(value, keras.Variable) else value
        with contextlib.suppress(Exception):  # on another device, or of a dtype NumPy lacks
            array = np.from_dlpack(tensor)
            array.flags.writeable = False
            if held is not None:
                held.seen = array
            return array
    stored = _value_of(value) if isinstance(value, keras.Variable) else value
    if len(stored.shape):
        return keras.ops.convert_to_numpy(stored)
    one = keras.ops.reshape(stored, (1,))  # TensorFlow makes no array of one number in bfloat16
    return keras.ops.convert_to_numpy(one).reshape(())


def tensor_of(variable: keras.Variable) -> Any:
    """The values that a variable has now, which no later change of it reaches."""
    value = _value_of(variable)
    if name() == "tensorflow":  # the same memory: TensorFlow copies what it writes to
        import tensorflow as tf

        return value.value() if isinstance(value, tf.Variable) else value
    return keras.ops.copy(value)


_ALIGNED = 64  # bytes: where TensorFlow's kernels take an array to begin


def rounded(values: np.ndarray, dtype: str) -> Any:
    """An array as a tensor of a float dtype, which nothing else holds."""
    if name() != "tensorflow" or dtype not in ("float32", "float64") or not values.size:
        return keras.ops.convert_to_tensor(values.astype(dtype), dtype=dtype)
    import tensorflow as tf

    size = values.size * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNED, "uint8")
    start = -memory.ctypes.data % _ALIGNED
    array = memory[start : start + size].view(dtype).reshape(values.shape)
    np.copyto(array, values, casting="same_kind")
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())  # at no second copy


def name() -> str:
    """Keras's backend: 'tensorflow', 'jax', 'torch', 'numpy' or 'openvino'."""
    return keras.backend.backend()


_CPU = "cpu:0"


def devices() -> list[str]:
    """Where models can run here, as `on` takes it, first where they do unless told otherwise.

    That is the CPU, once, and every accelerator.
    """
    accelerators: list[str] = []
    if name() == "tensorflow":
        import tensorflow as tf

        accelerators = [f"gpu:{i}" for i in range(len(tf.config.list_logical_devices("GPU")))]
    elif name() == "jax":
        import jax

        local = jax.local_devices()
        accelerators = [f"{d.platform}:{d.id}" for d in local if d.platform != "cpu"]
    elif name() == "torch":
        import torch

        accelerators = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        usual = keras.ops.zeros(()).device.type
        if usual == "cpu":  # as KERAS_TORCH_DEVICE may say
            return [_CPU, *accelerators]
        if usual != "cuda":
            accelerators.append(f"{usual}:0")
    return [*accelerators, _CPU]


_PLACE: ContextVar[str] = ContextVar("_PLACE", default="")


@contextlib.contextmanager
def on(device: str) -> Iterator[None]:
    """A scope of this thread, in which `device` is where the backend computes."""
    token = _PLACE.set(device)
    try:
        with _scope(device):
            yield
    finally:
        _PLACE.reset(token)


def _scope(device: str) -> contextlib.AbstractContextManager[Any]:
    if name() == "jax":
        import jax

        return jax.default_device(_jax_device(device))
    if name() == "torch":
        return keras.device(_torch_device(device))
    if name() == "tensorflow":
        return keras.device(device)
    return contextlib.nullcontext()


def _torch_device(device: str) -> str:
    """As torch's own tensors say it: moved to 'cpu:0' they are copied, and no weights any more."""
    return "cpu" if device == _CPU else device


def _jax_device(device: str) -> Any:
    import jax

    platform, _, number = device.partition(":")
    return next(d for d in jax.local_devices(backend=platform) if d.id == int(number))


def place() -> str:
    """The device of the scope that this is in, or ""."""
    return _PLACE.get()


def placed(variables: Iterable[keras.Variable]) -> list[tuple[keras.Variable, Any]]:
    """Variables, each with its value on the device of `on`, as `keras.StatelessScope` takes them.

    None but those `held` where they are there: TensorFlow brings values to where they are computed
    with by itself.
    """
    device = _PLACE.get()
    if device and name() == "jax":
        import jax

        where = _jax_device(device)
        return [(v, jax.device_put(_value_of(v), where)) for v in variables]
    if device and name() == "torch":
        return [(v, _value_of(v).to(_torch_device(device))) for v in variables]
    return [(v, _HELD.get()[id(v)].value) for v in variables if id(v) in _HELD.get()]


def device(places: Sequence[str] = ()) -> str:
    """The backend, and where it computes: there, or at some `places`."""
    return f"{name()} on {', '.join(places or devices()[:1])}"


def in_graph(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of tensors, run as `predict` runs a model: on TensorFlow, as one graph."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, autograph=False, reduce_retracing=True)

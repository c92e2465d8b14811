"""Keras models on the runtimes people deploy to, ready to run.

Each runtime optimises as it does by default, on every core of the machine unless `on_threads`
says otherwise. A model is handed
to it with images of one size and one batch; weights are constants there, except under
"tensorflow" and "xla", where they are the variables of the model.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from kerasfold.cost import NOMINAL_SIZE
from kerasfold.errors import FoldError, RuntimeUnavailableError, words_of
from kerasfold.quiet import quiet, unsaid
from kerasfold.read.model import input_structure

WRONG = 0.1  # of the largest output: beyond what any runtime's arithmetic rounds away
MANY = 10**6  # weights of a model whose conversion is worth cleaning up after

Arrays = Sequence[np.ndarray]
Run = Callable[[], list[np.ndarray]]
Deploy = Callable[[], Run]

_THREADS: ContextVar[int | None] = ContextVar("_THREADS", default=None)  # as many as it likes


def random_inputs(model: keras.Model, batch: int = 1) -> list[np.ndarray]:
    """One random array for each input of a model; 64 samples along axes of unknown size."""
    rng = np.random.default_rng(0)
    arrays = []
    for spec in tree.flatten(input_structure(model)):
        shape = [n or (NOMINAL_SIZE if axis else batch) for axis, n in enumerate(spec.shape)]
        if "float" in spec.dtype:
            dtype = "float32" if spec.dtype == "bfloat16" else spec.dtype
            arrays.append(rng.normal(size=shape).astype(dtype))
        else:
            try:
                arrays.append(rng.integers(0, 2, size=shape).astype(spec.dtype))
            except TypeError as error:
                raise FoldError(
                    f"input '{spec.name}' of model '{model.name}' is {spec.dtype}: random inputs "
                    "to time it with are numbers"
                ) from error
    return arrays


def deploy(model: keras.Model, runtime: str, inputs: Arrays) -> Run:
    """Bring a model to a runtime.

    Args:
        model: a built model.
        runtime: a key of `RUNTIMES`.
        inputs: an array for each of the model's inputs, in their order; the model is
            specialised to their shapes.

    Returns:
        A function that runs the model once on those inputs and returns its outputs, in the
        model's order.

    Raises:
        RuntimeUnavailableError: what the runtime needs is not installed.
        FoldError: an unknown runtime, or one that refuses the model.
    """
    return deployer(lambda: model, runtime, inputs)()


def deployer(make: Callable[[], keras.Model], runtime: str, inputs: Arrays) -> Deploy:
    """Bring a model to a runtime as often as is wanted, each time anew.

    What it was converted to is kept from one deployment to the next, where the runtime converts
    models; elsewhere each deployment is of a model of its own.

    Args:
        make: gives the model, with weights that lie elsewhere each time.
        runtime: as for `deploy`.
        inputs: as for `deploy`.

    Returns:
        A function that deploys the model once more, as `deploy` does, with its errors.

    Raises:
        RuntimeUnavailableError: what the runtime needs is not installed.
        FoldError: an unknown runtime.
    """
    check_runtime(runtime)
    bring, convert = RUNTIMES[runtime].bring, RUNTIMES[runtime].convert

    def converted() -> tuple[str, Any]:
        model = make()
        if convert is None:
            return model.name, model
        with told_if_refused(runtime, model.name):
            return model.name, convert(model, inputs)

    given = converted if convert is None else functools.cache(converted)

    def once_more() -> Run:
        name, own = given()
        with told_if_refused(runtime, name):
            run = bring(own, inputs)
            run()
        return run

    return once_more


@contextlib.contextmanager
def on_threads(runtime: str, threads: int | None) -> Iterator[None]:
    """Have what is brought to a runtime meanwhile run on so many threads; if None, on its own.

    Raises:
        FoldError: of TensorFlow and XLA, whose threads are those of the process, where it has begun
            to compute on others.
    """
    if threads is not None:
        RUNTIMES[runtime].begin(threads)
    token = _THREADS.set(threads)
    try:
        yield
    finally:
        _THREADS.reset(token)


@contextlib.contextmanager
def told_if_refused(runtime: str, name: str) -> Iterator[None]:
    """What a runtime says of a model, said once, and in one line."""
    with silent():
        try:
            yield
        except Exception as error:
            raise FoldError(f"{runtime} does not take model '{name}': {words_of(error)}") from error


def difference(expected: Arrays, actual: Arrays) -> float:
    """The largest difference of two models' outputs, against the largest finite output.

    It is NaN where one is NaN and the other is not. What is infinite in both, or NaN in both,
    does not differ.
    """
    pairs = zip(expected, actual, strict=True)
    return float(np.max([_difference(np.asarray(x), np.asarray(y)) for x, y in pairs], initial=0.0))


def _difference(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    with np.errstate(invalid="ignore"):
        off = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
    largest = np.max(np.abs(x), initial=0.0, where=np.isfinite(x))
    return np.max(off, initial=0.0) / max(largest, np.finfo(np.float32).tiny)


def check_runtime(runtime: Any) -> None:
    """Refuse a runtime that is unknown, or that lacks a package.

    Raises:
        RuntimeUnavailableError: what the runtime needs is not installed.
        FoldError: an unknown runtime.
    """
    if not isinstance(runtime, str) or runtime not in RUNTIMES:
        raise FoldError(
            f"unknown runtime {runtime!r}: choose one of {', '.join(map(repr, RUNTIMES))}"
        )
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise RuntimeUnavailableError(
            f"runtime {runtime!r} takes models from Keras's TensorFlow backend, and this process "
            f"runs on {backend}: set KERAS_BACKEND=tensorflow"
        )
    for package in RUNTIMES[runtime].packages:
        require(package, f"runtime {runtime!r}", extra=runtime)


def require(package: str, what: str, extra: str) -> None:
    """Import a package that an extra installs.

    Args:
        package: a module of it.
        what: needs it, for the message.
        extra: of kerasfold's.

    Raises:
        RuntimeUnavailableError: it is not installed.
    """
    try:
        with silent():
            importlib.import_module(package)
    except Exception as error:  # also of packages that do not fit each other
        raise RuntimeUnavailableError(
            f'{what} needs the package {package} ({error}): pip install "kerasfold[{extra}]"'
        ) from error


def _function(model: keras.Model, inputs: Arrays, **options: Any) -> Any:
    """A `tf.function` of the flat inputs, specialised to their shapes."""
    import tensorflow as tf

    specs = tree.flatten(input_structure(model))
    signature = [
        tf.TensorSpec(array.shape, spec.dtype, name=f"input_{i}")
        for i, (array, spec) in enumerate(zip(inputs, specs, strict=True))
    ]

    def call(*tensors: Any) -> list[Any]:
        packed = tree.pack_sequence_as(input_structure(model), list(tensors))
        return tree.flatten(model(packed, training=False))

    return tf.function(call, input_signature=signature, autograph=False, **options)


def _tensorflow(model: keras.Model, inputs: Arrays, compiled: bool = False) -> Run:
    function = _function(model, inputs, jit_compile=compiled)
    specs = tree.flatten(input_structure(model))
    tensors = [
        keras.ops.convert_to_tensor(array, spec.dtype)
        for array, spec in zip(inputs, specs, strict=True)
    ]
    function = function.get_concrete_function()

    def run() -> list[np.ndarray]:
        return [keras.ops.convert_to_numpy(y) for y in function(*tensors)]

    return run


def _begin_tensorflow(threads: int) -> None:
    import tensorflow as tf

    own = tf.config.threading
    try:
        own.set_intra_op_parallelism_threads(threads)
        own.set_inter_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise FoldError(
            f"{threads} threads: TensorFlow has begun to compute in this process, and keeps the "
            f"{own.get_intra_op_parallelism_threads() or cores()} that it has: ask in a new process"
        ) from error


def _to_litert(model: keras.Model, inputs: Arrays) -> bytes:
    import tensorflow as tf

    function = _function(model, inputs)
    with tempfile.TemporaryDirectory() as folder:
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serve", function.python_function, function.input_signature)
        archive.write_out(folder, verbose=False)
        content: bytes = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    return content


def _litert(content: bytes, inputs: Arrays) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=_THREADS.get() or cores())
    interpreter.allocate_tensors()
    signature = interpreter.get_signature_runner()
    takes, gives = signature.get_input_details(), signature.get_output_details()
    places = [takes[f"input_{i}"]["index"] for i in range(len(inputs))]
    results = [gives[f"output_{i}"]["index"] for i in range(len(gives))]

    def run() -> list[np.ndarray]:
        for place, array in zip(places, inputs, strict=True):
            interpreter.set_tensor(place, array)
        interpreter.invoke()
        return [interpreter.get_tensor(place) for place in results]

    return run


def _to_onnx(model: keras.Model, inputs: Arrays) -> bytes:
    import onnx
    import tf2onnx

    function = _function(model, inputs)
    proto, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=18)
    # Constants that are no variables, such as the mean of a Normalization, it makes inputs.
    constants = {
        inner.name.partition(":")[0]: outer
        for outer, inner in function.get_concrete_function().graph.captures
    }
    for given in list(proto.graph.input):
        if (value := constants.get(given.name.partition(":")[0])) is not None:
            proto.graph.input.remove(given)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(value.numpy(), given.name))
    content: bytes = proto.SerializeToString()
    if model.count_params() > MANY:  # of which the converter leaves some 40 copies in cycles
        gc.collect()
    return content


def onnx_session(content: bytes, inputs: Arrays, **settings: Any) -> tuple[Any, dict[str, Any]]:
    """A session of ONNX Runtime, with some settings, and what it is fed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    for name, value in settings.items():
        setattr(options, name, value)
    # Its idle threads would spin on the cores that the model it is compared with runs on.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.intra_op_num_threads = _THREADS.get() or 0  # as it likes
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    feed = {f"input_{i}": array for i, array in enumerate(inputs)}
    return session, {x.name: feed[x.name.partition(":")[0]] for x in session.get_inputs()}


def _onnxruntime(content: bytes, inputs: Arrays) -> Run:
    session, feed = onnx_session(content, inputs)
    return functools.partial(session.run, None, feed)


def _to_openvino(model: keras.Model, inputs: Arrays) -> tuple[Any, list[str]]:
    import openvino

    function = _function(model, inputs)
    with _environment(CI="true"):  # else it reports home, from processes beside what is timed
        converted = openvino.convert_model(function)
    return converted, [y.name for y in function.get_concrete_function().outputs]


def openvino_request(
    converted: tuple[Any, list[str]], inputs: Arrays, **settings: Any
) -> tuple[Any, dict[str, Any]]:
    """A request of OpenVINO's, with some settings, and what it is fed."""
    import openvino

    threads = _THREADS.get()
    options = settings if threads is None else {**settings, "INFERENCE_NUM_THREADS": threads}
    request = openvino.compile_model(converted[0], "CPU", options).create_infer_request()
    return request, {f"input_{i}": array for i, array in enumerate(inputs)}


def _openvino(converted: tuple[Any, list[str]], inputs: Arrays) -> Run:
    request, feed = openvino_request(converted, inputs)
    names = converted[1]
    # It sorts outputs by name, as words: the eleventh comes before the third. An input that is
    # an output too has no other name than the input's.
    found = {name: i for i, y in enumerate(request.model_outputs) for name in y.get_names()}
    places = [found.get(name, sorted(names).index(name)) for name in names]

    def run() -> list[np.ndarray]:
        result = request.infer(feed, share_inputs=True)
        return [result[place] for place in places]

    return run


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where models are brought to.

    Attributes:
        bring: gives a function that runs what a model was converted to on inputs, of the shapes it
            is specialised to.
        packages: what it imports beside TensorFlow; the extra of the runtime's name installs them.
        convert: gives what can be brought there as often as is wanted, of a model and such inputs;
            None where models are brought as they are.
        begin: told how many threads it may have, where those are of the process and no model's.
    """

    bring: Callable[[Any, Arrays], Run]
    packages: tuple[str, ...] = ()
    convert: Callable[[keras.Model, Arrays], Any] | None = None
    begin: Callable[[int], object] = lambda threads: None


RUNTIMES: dict[str, Runtime] = {
    "tensorflow": Runtime(_tensorflow, begin=_begin_tensorflow),
    "xla": Runtime(functools.partial(_tensorflow, compiled=True), begin=_begin_tensorflow),
    "litert": Runtime(_litert, ("ai_edge_litert.interpreter",), _to_litert),
    "onnxruntime": Runtime(_onnxruntime, ("onnxruntime", "tf2onnx"), _to_onnx),
    "openvino": Runtime(_openvino, ("openvino",), _to_openvino),
}


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set variables of the environment for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep the chatter of converters away."""
    with unsaid(), quiet():
        yield

"""Deployed models, opened: a table of their kinds, and nothing in a file is run but its graph.

Each runs as it does by default on the processors of this machine, but that OpenVINO computes in
float32 where it would choose bfloat16.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kerasfold.equivalence.runs import Arrays
from kerasfold.equivalence.savedmodel import served
from kerasfold.errors import FoldError, words_of
from kerasfold.measure.runtimes import cores, require, silent
from kerasfold.paths import SAVED_MODEL


@dataclass(frozen=True, eq=False, slots=True)
class Port:
    """An input or output of a deployed model.

    Attributes:
        names: what it is called, most telling first.
        shape: with the batch; None where it is free.
        dtype: as NumPy calls it.
        scale: of an array of integers that stand for `scale * (integer - zero)`; else 0.0.
        zero: the integer that stands for 0.
    """

    names: tuple[str, ...]
    shape: tuple[int | None, ...]
    dtype: str
    scale: float = 0.0
    zero: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class Opened:
    """A deployed model, ready to run.

    Attributes:
        inputs: in the order in which `run` takes them.
        outputs: in the order in which `run` gives them.
        run: from an array for each input to one for each output.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    run: Callable[[Arrays], Arrays]


def _litert(path: str) -> Opened:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=cores())
    signatures = interpreter.get_signature_list()
    if not signatures:
        return _without_signature(interpreter)
    key = "serving_default" if "serving_default" in signatures else min(signatures)
    if key != "serving_default" and len(signatures) > 1:
        raise FoldError(f"its signatures are {sorted(signatures)}, none of them 'serving_default'")
    runner = interpreter.get_signature_runner(key)
    inputs, outputs = runner.get_input_details(), runner.get_output_details()

    def run(arrays: Arrays) -> Arrays:
        found = runner(**dict(zip(inputs, arrays, strict=True)))
        return [found[name] for name in outputs]

    return Opened(_tensors(inputs), _tensors(outputs), run)


def _without_signature(interpreter: Any) -> Opened:
    """A LiteRT model that names its tensors alone."""
    inputs, outputs = (
        {x["name"]: x for x in details}
        for details in (interpreter.get_input_details(), interpreter.get_output_details())
    )

    def run(arrays: Arrays) -> Arrays:
        places = [x["index"] for x in inputs.values()]
        for place, array in zip(places, arrays, strict=True):
            interpreter.resize_tensor_input(place, array.shape)
        interpreter.allocate_tensors()
        for place, array in zip(places, arrays, strict=True):
            interpreter.set_tensor(place, array)
        interpreter.invoke()
        return [interpreter.get_tensor(x["index"]) for x in outputs.values()]

    return Opened(_tensors(inputs), _tensors(outputs), run)


def _tensors(details: dict[str, Any]) -> tuple[Port, ...]:
    ports = []
    for name, tensor in details.items():
        shape = tensor["shape_signature"] if len(tensor["shape_signature"]) else tensor["shape"]
        sizes = tuple(int(n) if n >= 0 else None for n in shape)
        steps = tensor["quantization_parameters"]
        scales, zeros = steps["scales"].tolist(), steps["zero_points"].tolist()
        one = (scales[0], zeros[0]) if len(scales) == 1 else ()
        ports.append(Port((name, tensor["name"]), sizes, np.dtype(tensor["dtype"]).name, *one))
    return tuple(ports)


def _onnx(path: str) -> Opened:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it refuses, it raises
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_inputs()]

    def run(arrays: Arrays) -> Arrays:
        return session.run(None, dict(zip(names, arrays, strict=True)))

    return Opened(
        tuple(map(_value, session.get_inputs())), tuple(map(_value, session.get_outputs())), run
    )


_ONNX = {"tensor(float)": "float32", "tensor(double)": "float64"}  # others are called alike


def _value(value: Any) -> Port:
    dtype = _ONNX.get(value.type, value.type.removeprefix("tensor(").removesuffix(")"))
    shape = tuple(n if isinstance(n, int) else None for n in value.shape)
    return Port((value.name,), shape, dtype)


def _openvino(path: str) -> Opened:
    import openvino

    model = openvino.Core().read_model(path)
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(arrays: Arrays) -> Arrays:
        found = compiled(dict(enumerate(arrays)))
        return [found[place] for place in range(len(compiled.outputs))]

    return Opened(tuple(map(_node, model.inputs)), tuple(map(_node, model.outputs)), run)


def _node(node: Any) -> Port:
    friendly = node.get_node().get_friendly_name()
    shape = tuple(n.get_length() if n.is_static else None for n in node.get_partial_shape())
    return Port(
        (*sorted(node.get_names(), key=lambda name: (name != friendly, name)), friendly),
        shape,
        np.dtype(node.get_element_type().to_dtype()).name,
    )


def _saved_model(path: str) -> Opened:
    import tensorflow as tf

    function, owner = served(path)
    _, specs = function.structured_input_signature
    outputs = function.structured_outputs

    def run(arrays: Arrays, owner: Any = owner) -> Arrays:
        given = zip(sorted(specs), arrays, strict=True)
        found = function(**{name: tf.constant(x) for name, x in given})
        return [found[name].numpy() for name in sorted(outputs)]

    def ports(tensors: dict[str, Any]) -> tuple[Port, ...]:
        return tuple(Port((n,), tuple(x.shape), x.dtype.name) for n, x in sorted(tensors.items()))

    return Opened(ports(specs), ports(outputs), run)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of deployed model.

    Attributes:
        words: what it is, for messages.
        open: makes one of a path. Raises anything.
        packages: what runs it, beside TensorFlow.
        extra: of kerasfold's, that installs these.
    """

    words: str
    open: Callable[[str], Opened]
    packages: tuple[str, ...] = ()
    extra: str = ""


FOLDER = Kind("SavedModel", _saved_model)
KINDS: dict[str, Kind] = {
    ".tflite": Kind("LiteRT model", _litert, ("ai_edge_litert.interpreter",), "litert"),
    ".onnx": Kind("ONNX model", _onnx, ("onnxruntime",), "onnxruntime"),
    ".xml": Kind("OpenVINO model", _openvino, ("openvino",), "openvino"),
}


def kind_of(path: str | os.PathLike[str]) -> Kind | None:
    """What kind of deployed model a path names; None for what names none."""
    name = Path(path)
    return FOLDER if Path(name, SAVED_MODEL).exists() else KINDS.get(name.suffix.lower())


def opened(path: str | os.PathLike[str]) -> Opened:
    """Open a deployed model.

    Args:
        path: a `.tflite`, `.onnx` or OpenVINO `.xml` file, or the folder of a SavedModel.

    Raises:
        RuntimeUnavailableError: what runs it is not installed; the message names the extra.
        FoldError: there is none, or it cannot be read.
    """
    kind = kind_of(path)
    if not Path(path).exists():
        raise FoldError(f"{path} does not exist")
    if kind is None:
        raise FoldError(
            f"{path} is no deployed model: expected a file ending in {', '.join(KINDS)}, or the "
            f"folder of a SavedModel, with {SAVED_MODEL} in it (keras.saving.load_model() reads "
            "those of Keras)"
        )
    for package in kind.packages:
        require(package, f"the {kind.words} {path}", kind.extra)
    try:
        with silent():
            found = kind.open(str(path))
    except FoldError as refusal:
        raise FoldError(f"{path}: {refusal}") from refusal
    except Exception as error:
        raise FoldError(f"{path} cannot be read as {kind.words} ({words_of(error)})") from error
    return replace(found, run=_silent_at_first(found.run))


def _silent_at_first(run: Callable[[Arrays], Arrays]) -> Callable[[Arrays], Arrays]:
    """The same, and what a runtime says when it begins is kept away."""
    later = itertools.repeat(contextlib.nullcontext())
    how: Iterator[AbstractContextManager[None]] = itertools.chain([silent()], later)

    def ran(arrays: Arrays) -> Arrays:
        with next(how):
            return run(arrays)

    return ran

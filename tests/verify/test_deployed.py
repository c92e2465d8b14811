"""Deployed models run beside the Keras models that they were made of."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.python.framework import op_def_registry

import kerasfold
from kerasfold.equivalence import formats
from kerasfold.equivalence.deployed import deployed
from kerasfold.equivalence.formats import Kind, Opened, opened
from kerasfold.equivalence.savedmodel import reaches_outside
from zoo.exports import (
    EXPORTED,
    exported,
    in_batches_of_two,
    many_ended,
    quantised,
    small_net,
)
from zoo.same import inputs_of, run

KINDS = pytest.mark.parametrize("name", EXPORTED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model, as every kind of file, and its quantised build."""
    folder, model = tmp_path_factory.mktemp("deployed"), small_net()
    for name in EXPORTED:
        exported(model, folder, name)
    quantised(folder / "folder", folder / "int8.tflite")
    return folder


def assert_runs_alike(path: Path, model: keras.Model, batch: int = 3, **sizes: int) -> None:
    given = inputs_of(model, batch, **sizes)
    outputs = deployed(path, model)(given)
    for y, expected in zip(outputs, run(model, given), strict=True):
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@KINDS
def test_it_runs_as_its_original(folder: Path, name: str) -> None:
    for batch in (3, 5):
        assert_runs_alike(folder / name, small_net(), batch)


def test_what_a_runtime_says_when_it_begins_is_kept_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(arrays: list[np.ndarray]) -> list[np.ndarray]:
        os.write(2, b"made a delegate\n")  # as C++ code does
        return arrays

    kind = Kind("file", lambda path: Opened((), (), run))
    monkeypatch.setitem(formats.KINDS, ".tflite", kind)
    found = opened(folder / "model.tflite")
    found.run([])
    assert capfd.readouterr().err == ""
    found.run([])
    assert capfd.readouterr().err == "made a delegate\n"  # by what is not a start


@KINDS
def test_inputs_by_name_and_twelve_outputs_in_order(tmp_path: Path, name: str) -> None:
    model = many_ended()
    assert_runs_alike(exported(model, tmp_path, name), model)


@KINDS
def test_images_of_free_size_and_outputs_by_their_keys(tmp_path: Path, name: str) -> None:
    image = keras.Input((None, None, 3), name="image")
    outputs = {key: layers.Conv2D(2, 3, name=layer)(image) for key, layer in ("bp", "aq")}
    model = keras.Model(image, outputs)
    path = exported(model, tmp_path, name)
    assert_runs_alike(path, model, size=9)
    opened = deployed(path, model)
    assert (opened.note, opened.input_shape) == ("", None)


def test_a_batch_that_is_fixed_is_filled(tmp_path: Path) -> None:
    model = small_net()
    folder = in_batches_of_two(model, tmp_path / "folder")
    converted = tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert()
    (tmp_path / "model.tflite").write_bytes(converted)
    for path in (folder, tmp_path / "model.tflite"):
        (image,) = deployed(path, model).inputs
        assert image.port.shape == (2, 8, 8, 3)
        assert_runs_alike(path, model, batch=5)
        assert kerasfold.verify(model, path).equivalent


def test_integers_are_scaled_both_ways(folder: Path) -> None:
    model = small_net()
    given = inputs_of(model, 64)
    (expected,) = run(model, given)
    opened = deployed(folder / "int8.tflite", model)
    (found,), (scores,) = opened(given), opened.outputs
    assert scores.port.zero != 0
    assert 0 < np.median(np.abs(found - expected)) < scores.port.scale
    assert abs(np.mean(found - expected)) < 1.5 * scores.port.scale


def test_integers_are_integers_where_the_original_has_them(tmp_path: Path) -> None:
    words = keras.Input((5,), dtype="int32", name="words")
    table = layers.Embedding(7, 3)
    model = keras.Model(words, layers.GlobalAveragePooling1D()(table(words)))
    assert_runs_alike(exported(model, tmp_path, "model.onnx"), model)
    floats = keras.Input((5,), name="words")
    other = keras.Model(floats, layers.GlobalAveragePooling1D()(table(floats)))
    with pytest.raises(kerasfold.FoldError, match=r"input 'words' as int32, .* hold the float32"):
        deployed(tmp_path / "model.onnx", other)(np.full((1, 5), 0.5, "float32"))


def test_other_sizes_are_refused(folder: Path) -> None:
    larger = small_net(shape=(9, 9, 3))
    with pytest.raises(
        kerasfold.FoldError,
        match=r"model\.onnx has inputs of \(None, 8, 8, 3\), .* of \(None, 9, 9, 3\)",
    ):
        deployed(folder / "model.onnx", larger)
    free = small_net(shape=(None, None, 3))
    opened = deployed(folder / "model.tflite", free)
    assert opened.input_shape == [(8, 8, 3)]
    with pytest.raises(kerasfold.FoldError, match=r"of \(None, 8, 8, 3\), and not \(1, 9, 9, 3\)"):
        opened(np.zeros((1, 9, 9, 3), "float32"))


def test_another_number_of_outputs_is_refused(folder: Path) -> None:
    net = small_net()
    twice = keras.Model(net.inputs, [net.output, net.output])
    with pytest.raises(kerasfold.FoldError, match=r"outputs of \(None, 3\), .* and \(None, 3\)"):
        deployed(folder / "folder", twice)


def test_an_order_without_names_is_noted(tmp_path: Path) -> None:
    x = keras.Input((4,), name="x")
    model = keras.Model(x, [layers.Dense(2)(x), layers.Dense(2)(x)])
    note = deployed(exported(model, tmp_path, "model.onnx"), model).note
    assert (
        note
        == "outputs of model.onnx are taken in this order, by no names: Identity:0, Identity_1:0"
    )


@pytest.mark.parametrize("name", ["model.tflite", "model.onnx", "model.xml", "folder"])
@pytest.mark.parametrize("content", [b"", b"garbage" * 100], ids=["empty", "garbage"])
def test_what_is_no_model_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    (path / "saved_model.pb" if name == "folder" else path).write_bytes(content)
    with pytest.raises(kerasfold.FoldError, match=name):
        deployed(path, small_net())


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(kerasfold.FoldError, match=r"none\.onnx does not exist"):
        deployed(tmp_path / "none.onnx", small_net())
    with pytest.raises(kerasfold.FoldError, match="is no deployed model: expected a file ending"):
        deployed(tmp_path, small_net())


@pytest.mark.parametrize(
    ("name", "package"),
    [("model.tflite", "litert"), ("model.onnx", "onnxruntime"), ("model.xml", "openvino")],
)
def test_a_missing_package_is_named_with_its_extra(
    folder: Path, name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = {"litert": "ai_edge_litert.interpreter"}.get(package, package)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        kerasfold.RuntimeUnavailableError, match=rf'pip install "kerasfold\[{package}\]"'
    ):
        deployed(folder / name, small_net())


def effect(path: Path, function: Any) -> None:
    """A SavedModel that does something beside computing scores."""
    module = tf.Module()
    module.serve = tf.function(
        lambda image: {"scores": tf.zeros((tf.shape(image)[0], 3)) + function(image)},
        input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32, "image")],
    )
    tf.saved_model.save(module, str(path), signatures=module.serve)


def nested(image: tf.Tensor) -> tf.Tensor:
    read = tf.function(lambda: tf.strings.length(tf.io.read_file("/etc/hostname")))
    return tf.cond(
        tf.reduce_sum(image) > 0, lambda: tf.cast(read(), "float32"), lambda: tf.constant(0.0)
    )


@pytest.mark.parametrize(
    ("operation", "function"),
    [
        ("EagerPyFunc", lambda _: tf.py_function(lambda: 0.0, [], "float32")),
        ("PyFunc", lambda _: tf.numpy_function(lambda: np.float32(0), [], "float32")),
        (
            "PyFuncStateless",
            lambda _: tf.numpy_function(lambda: 0.0, [], "float32", stateful=False),
        ),
        ("ReadFile", nested),
        (
            "GenerateVocabRemapping",
            lambda x: tf.cast(
                tf.raw_ops.GenerateVocabRemapping(
                    new_vocab_file="/x", old_vocab_file="/y", new_vocab_offset=0, num_new_vocab=1
                ).num_present,
                "float32",
            ),
        ),
        (
            "SaveV2",
            lambda x: len(
                tf.raw_ops.SaveV2(
                    prefix="x", tensor_names=["x"], shape_and_slices=[""], tensors=[x]
                ).inputs
            ),
        ),
    ],
)
def test_a_saved_model_that_reaches_outside_is_not_loaded(
    tmp_path: Path, operation: str, function: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    effect(tmp_path / "folder", function)
    monkeypatch.setattr(tf.saved_model, "load", None)
    with pytest.raises(kerasfold.FoldError, match=rf"operation {operation} .* nothing of it"):
        deployed(tmp_path / "folder", small_net())


def test_every_operation_that_is_told_of_a_file_or_a_host_reaches_outside() -> None:
    """Of all that this TensorFlow has: the next may bring another."""
    place = re.compile(r"(^|_)(file_?(name|path|pattern)?|path(name)?|dir|host(name)?|address)s?$")
    kinds = filter(None, map(op_def_registry.get, dir(tf.raw_ops)))
    told = [
        kind
        for kind in kinds
        if any(place.search(x.name) for x in kind.input_arg if x.type == tf.string.as_datatype_enum)
        or any(place.search(x.name) for x in kind.attr if x.type == "string")
    ]
    assert len(told) > 20
    assert [x.name for x in told if not reaches_outside(x.name, x.is_stateful)] == []


def test_a_saved_model_with_state_is_loaded(tmp_path: Path) -> None:
    """Recurrence, and random numbers that are not drawn."""
    x = keras.Input((5, 4), name="x")
    y = layers.LSTM(3)(layers.Dropout(0.5)(x))
    model = keras.Model(x, y)
    assert_runs_alike(exported(model, tmp_path, "folder"), model)


# Compared with their originals.


@KINDS
def test_a_right_build_is_equivalent(folder: Path, name: str) -> None:
    report = kerasfold.verify(small_net(), folder / name)
    assert report.equivalent, str(report)
    assert 0 < report.outputs[0].folded_error < 1e-5
    kerasfold.assert_equivalent(small_net(), str(folder / name))


@KINDS
def test_a_wrong_weight_is_seen(folder: Path, name: str) -> None:
    model = small_net()
    kernel = model.get_layer("conv").kernel
    kernel.assign(kernel.numpy() * (1 + 1e-3 * (np.arange(4) == 2)))
    report = kerasfold.verify(model, folder / name)
    assert report.verdict == "different"
    assert "output 'scores' is less accurate: at index " in report.reason


def test_a_build_of_integers_within_a_tolerance(folder: Path) -> None:
    model, path = small_net(), folder / "int8.tflite"
    assert kerasfold.verify(model, path).verdict == "different"
    report = kerasfold.verify(model, path, atol=0.1)
    assert report.equivalent
    assert str(report).startswith("equivalent within atol 0.1, rtol 0 (")
    (out,) = report.outputs
    assert out.absolute is not None
    assert out.absolute.p50 <= out.absolute.p90 <= out.absolute.largest == report.max_abs_error
    assert f"absolute {out.absolute}" in str(report)
    beyond = kerasfold.verify(model, path, atol=out.absolute.largest * 0.99)
    assert beyond.verdict == "different"
    assert "'scores' has errors beyond atol 0.0" in beyond.reason
    assert kerasfold.verify(model, path, atol=out.absolute.largest).equivalent


def test_data_and_images_of_a_fixed_size(folder: Path) -> None:
    free = small_net(shape=(None, None, 3))
    assert kerasfold.verify(free, folder / "model.tflite").equivalent
    data = np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype("float32")
    report = kerasfold.verify(free, folder / "model.onnx", data)
    assert (report.verdict, report.inputs) == ("equivalent", 40)
    assert report.agreement is not None
    assert report.agreement.top1 == 1.0


def test_an_order_without_names_is_noted_in_the_report(tmp_path: Path) -> None:
    x = keras.Input((4,), name="x")
    model = keras.Model(x, [layers.Dense(2)(x), layers.Dense(2)(x)])
    report = kerasfold.verify(model, exported(model, tmp_path, "model.onnx"))
    assert report.equivalent
    assert "taken in this order" in report.note


def test_what_is_neither_a_model_nor_a_path() -> None:
    with pytest.raises(kerasfold.FoldError, match=r"the path of a deployed one\. Received: .*int"):
        kerasfold.verify(small_net(), 3)

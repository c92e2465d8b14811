"""Other backends of Keras than TensorFlow's, and other devices than the usual one."""

from __future__ import annotations

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold import backend
from kerasfold.equivalence import compare
from zoo.making import chain

ON_OPENVINO = """
import keras, kerasfold
layers = keras.layers
model = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(3, 3), layers.BatchNormalization()])
folded = model.fold(verify=False)
print(folded.fold_report.layers_after)
for ask in (model.fold, lambda: kerasfold.verify(model, folded)):
    try:
        ask()
    except kerasfold.FoldError as error:
        print(error)
"""


def net() -> keras.Model:
    return chain((6, 6, 2), layers.Conv2D(3, 3), layers.BatchNormalization(), layers.ReLU())


def test_a_backend_without_float64_is_said_to_prove_nothing() -> None:
    pytest.importorskip("openvino")
    environment = {**os.environ, "KERAS_BACKEND": "openvino", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-W", "ignore", "-c", ON_OPENVINO]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    told = "{} compares in float64, which Keras's backend openvino computes in float32: "
    lines = result.stdout.splitlines()
    assert lines[:1] == ["1"], result.stderr
    assert [
        line.startswith(told.format(what))
        for what, line in zip(("fold()", "verify()"), lines[1:], strict=True)
    ] == [True, True]


def test_both_models_run_as_they_are_on_every_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the reference does not run on is left out."""
    places: list[str] = []
    run = compare.outputs

    def here(runner: object, batch: object) -> list[np.ndarray]:
        places.append(backend.place())
        if backend.place() == "gpu:7":
            raise kerasfold.FoldError("there is none")
        return run(runner, batch)

    monkeypatch.setattr(compare, "devices", lambda: ["cpu:0", "cpu:00", "gpu:7"])
    monkeypatch.setattr(compare, "outputs", here)
    report = kerasfold.verify(net(), net(), np.ones((2, 6, 6, 2), "float32"))
    assert report.equivalent
    assert report.device == "tensorflow on cpu:0, cpu:00"
    assert places == ["", "", "cpu:00", "cpu:00", "gpu:7"]


def test_a_fault_on_another_device_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = net(), net()
    run = compare.outputs

    def faulty(runner: object, batch: object) -> list[np.ndarray]:
        wrong = backend.place() and getattr(runner, "model", None) is other
        return [y + 1.0 if wrong else y for y in run(runner, batch)]

    assert kerasfold.verify(model, other).equivalent
    monkeypatch.setattr(compare, "devices", lambda: ["cpu:0", "cpu:00"])
    monkeypatch.setattr(compare, "outputs", faulty)
    assert not kerasfold.verify(model, other).equivalent


def test_keras_promotes_to_float64_in_its_scope_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the backends where it makes float32 of float64."""
    widest = keras.src.backend.common.dtypes.BIT64_TO_BIT32_DTYPE
    monkeypatch.setitem(widest, "float64", "float32")
    assert keras.backend.result_type("float64", "float32") == "float32"
    with backend.double_precision():
        assert keras.backend.result_type("float64", "float32") == "float64"
        assert keras.backend.result_type("uint64", "uint64") == "uint32"
    assert keras.backend.result_type("float64", "float32") == "float32"

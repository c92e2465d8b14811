"""Every runtime computes what Keras computes, and says what it lacks or refuses."""

from __future__ import annotations

import importlib
import os
import tomllib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kerasfold.errors import FoldError, RuntimeUnavailableError
from kerasfold.measure import runtimes
from kerasfold.measure.runtimes import (
    RUNTIMES,
    Runtime,
    check_runtime,
    deploy,
    deployer,
    difference,
    random_inputs,
)
from kerasfold.read.model import input_structure

L = keras.layers

# OpenVINO multiplies in bfloat16 on processors that have instructions for it.
TOLERANCE = dict.fromkeys(RUNTIMES, 1e-4) | {"openvino": 2e-2}


def convnet(size: int | None = 16) -> keras.Model:
    """Convolutions, a pooling, a BatchNormalization, a Dense layer."""
    image = keras.Input((size, size, 3), name="image")
    x = L.Conv2D(8, 3, padding="same", activation="relu")(image)
    x = L.BatchNormalization()(L.DepthwiseConv2D(3)(L.AveragePooling2D(2)(x)))
    return keras.Model(image, L.Dense(5)(L.GlobalAveragePooling2D()(x)), name="convnet")


def two_inputs() -> keras.Model:
    """Inputs of one shape, so that nothing but their order tells them apart; named outputs."""
    inputs = {name: keras.Input((8, 8, 2), name=name) for name in ("right", "left")}
    y = L.Conv2D(3, 3)(inputs["left"])
    z = L.Concatenate()([inputs["right"], 2 * inputs["left"]])
    return keras.Model(inputs, {"sum": y, "parts": L.Conv2D(2, 1)(z), "also": L.ReLU()(y)})


def words() -> keras.Model:
    """Integers to vectors."""
    tokens = keras.Input((6,), dtype="int32")
    return keras.Model(tokens, L.Dense(3)(L.Embedding(10, 4)(tokens)))


def names_in_another_order() -> keras.Model:
    """Names that sort otherwise than the inputs they belong to."""
    inputs = [keras.Input((4,), name=name) for name in ("zebra", "input_1", "ant", "input_0")]
    scaled = [(i + 1) * x for i, x in enumerate(inputs)]
    return keras.Model(inputs, [L.Add()(scaled), scaled[2], scaled[0]])


def many() -> keras.Model:
    """Twelve inputs and outputs: as words, 10 sorts before 2."""
    inputs = [keras.Input((3,)) for _ in range(12)]
    return keras.Model(inputs, [(i + 1.0) * x for i, x in enumerate(inputs)])


def nested_inputs() -> keras.Model:
    """A pair in a dictionary."""
    a, b, c = (keras.Input((5,), name=name) for name in ("first", "second", "alone"))
    return keras.Model({"pair": [a, b], "alone": c}, L.Concatenate()([a, 2 * b, 3 * c]))


def normalised() -> keras.Model:
    """Constants that are no variables: before the first layer, and before the last."""
    image = keras.Input((8, 8, 3))
    x = L.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])(image)
    x = L.ReLU()(L.Conv2D(4, 3)(L.Rescaling(0.5)(x)))
    return keras.Model(image, L.Normalization(mean=0.2, variance=0.5)(x))


def passed_through() -> keras.Model:
    """An output twice, and an input that is an output."""
    x = keras.Input((4, 4, 2))
    y = L.Conv2D(2, 3)(x)
    return keras.Model(x, [y, x, y])


MODELS = {
    f.__name__: f for f in (convnet, two_inputs, words, names_in_another_order, many, nested_inputs)
} | {"unknown size": lambda: convnet(None), "passed through": passed_through}


def expected(model: keras.Model, inputs: list[np.ndarray]) -> list[np.ndarray]:
    packed = keras.tree.pack_sequence_as(input_structure(model), inputs)
    return [np.asarray(y) for y in keras.tree.flatten(model(packed, training=False))]


def assert_close(actual: Any, wanted: list[np.ndarray], tolerance: float) -> None:
    assert [y.shape for y in actual] == [y.shape for y in wanted]
    for y, z in zip(actual, wanted, strict=True):
        assert y.dtype == z.dtype
        np.testing.assert_allclose(y, z, rtol=0, atol=tolerance * max(np.abs(z).max(), 1e-3))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_computes_what_keras_does(runtime, name):
    keras.utils.set_random_seed(1)
    model = MODELS[name]()
    inputs = random_inputs(model)
    assert {len(x) for x in inputs} == {1}
    run = deploy(model, runtime, inputs)
    for _ in range(2):  # a call leaves nothing behind
        assert_close(run(), expected(model, inputs), TOLERANCE[runtime])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_batches(runtime):
    model = convnet()
    inputs = random_inputs(model, batch=3)
    actual = deploy(model, runtime, inputs)()
    assert actual[0].shape == (3, 5)
    assert_close(actual, expected(model, inputs), TOLERANCE[runtime])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_two_models_are_deployed_side_by_side(runtime):
    models = [convnet(), convnet()]
    inputs = random_inputs(models[0])
    runs = [deploy(model, runtime, inputs) for model in models]
    for model, run in zip(models, runs, strict=True):
        assert_close(run(), expected(model, inputs), TOLERANCE[runtime])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_each_deployment_is_one_of_its_own(runtime):
    """Of a model that was made anew, but where it is converted: that is done once."""
    made: list[keras.Model] = []

    def make() -> keras.Model:
        made.append(keras.models.clone_model(model))
        made[-1].set_weights(model.get_weights())
        return made[-1]

    model = convnet()
    inputs = random_inputs(model)
    deploy_again = deployer(make, runtime, inputs)
    runs = [deploy_again(), deploy_again()]
    for run in runs:
        assert_close(run(), expected(model, inputs), TOLERANCE[runtime])
    assert len(made) == (1 if RUNTIMES[runtime].convert else 2)
    assert runs[0] is not runs[1]


def test_random_inputs_fit_the_model():
    assert [x.shape for x in random_inputs(two_inputs(), 2)] == [(2, 8, 8, 2)] * 2
    (image,) = random_inputs(convnet(None))
    assert (image.shape, image.dtype) == ((1, 64, 64, 3), np.float32)
    (tokens,) = random_inputs(words(), 4)
    assert (tokens.shape, tokens.dtype) == ((4, 6), np.int32)
    brain = keras.Input((2,), dtype="bfloat16")
    (array,) = random_inputs(keras.Model(brain, L.ReLU(dtype="bfloat16")(brain)))
    assert array.dtype == np.float32


@pytest.mark.parametrize("runtime", ["tpu", None, 3, ["xla"], ""])
def test_an_unknown_runtime_is_refused_with_those_there_are(runtime):
    with pytest.raises(FoldError, match=r"unknown runtime .*: choose one of 'tensorflow', 'xla', "):
        check_runtime(runtime)


@pytest.mark.parametrize(
    ("runtime", "package"),
    [(r, package) for r, row in RUNTIMES.items() for package in row.packages],
)
def test_a_missing_package_is_named_with_its_extra(runtime, package, monkeypatch):
    real = importlib.import_module

    def without(name: str, *args: Any) -> Any:
        if name == package:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", without)
    message = rf'{runtime}.* needs the package {package} .*pip install "kerasfold\[{runtime}\]"'
    with pytest.raises(RuntimeUnavailableError, match=message):
        deploy(words(), runtime, [])


def test_every_extra_is_there_and_brings_what_is_imported():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for runtime, row in ((name, row) for name, row in RUNTIMES.items() if row.packages):
        brought = [line.partition(">")[0].replace("-", "_") for line in extras[runtime]]
        assert brought == [package.partition(".")[0] for package in row.packages]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_other_backends_are_told_which_one_it_takes(runtime, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeUnavailableError, match=r"on jax: set KERAS_BACKEND=tensorflow"):
        check_runtime(runtime)


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_a_model_that_a_runtime_refuses_is_named(runtime):
    x = keras.Input((3, 3))
    model = keras.Model(x, keras.ops.linalg.inv(x), name="inverse")
    with pytest.raises(FoldError, match=rf"^{runtime} does not take model 'inverse': \w+"):
        deploy(model, runtime, random_inputs(model))


def test_a_refusal_is_one_line(monkeypatch):
    def refuses(model: keras.Model, inputs: Any) -> Any:
        raise RuntimeError("no such kernel\nand a long story")

    monkeypatch.setitem(runtimes.RUNTIMES, "xla", Runtime(refuses))
    with pytest.raises(FoldError) as caught:
        deploy(words(), "xla", [])
    assert str(caught.value).endswith("': RuntimeError: no such kernel")


def test_nothing_is_printed(capfd):
    for runtime in RUNTIMES:
        for model in (convnet(), normalised()):
            deploy(model, runtime, random_inputs(model))()
    assert capfd.readouterr() == ("", "")


def test_differences_are_relative_to_the_largest_output():
    ones = [np.ones(3), np.full(2, 4.0)]
    assert difference(ones, [np.array([1, 1.5, 1]), np.full(2, 5.0)]) == 0.5
    assert np.isnan(difference(ones, [np.ones(3), np.array([np.nan, 4.0])]))


def test_what_is_not_finite_in_both_does_not_differ():
    values = [np.array([np.nan, np.inf, -np.inf, 4.0], "float16"), np.zeros(0), np.array([True])]
    assert difference(values, values) == 0.0
    assert difference(values[:1], [np.array([np.nan, np.inf, -np.inf, 5.0])]) == 0.25
    assert difference(values[:1], [np.array([np.nan, -np.inf, -np.inf, 4.0])]) == np.inf
    assert np.isnan(difference(values[:1], [np.array([0.0, np.inf, -np.inf, 4.0])]))


@pytest.mark.parametrize("before", [None, "0"])
def test_openvino_reports_nothing_home(monkeypatch, before):
    pytest.importorskip("openvino")
    backend = pytest.importorskip("openvino_telemetry.backend.backend_ga4").GA4Backend
    telemetry = importlib.import_module("openvino_telemetry").Telemetry
    # As at the first conversion of a process.
    monkeypatch.setattr(telemetry, "_SingletonMetaClass__single_instance", None)
    sent = []
    monkeypatch.setattr(backend, "send", lambda self, message: sent.append(message))
    monkeypatch.delenv("CI", raising=False)
    if before is not None:
        monkeypatch.setenv("CI", before)
    model = keras.Sequential([keras.Input((4,)), L.Dense(2)])
    deploy(model, "openvino", random_inputs(model))
    assert not sent
    assert os.environ.get("CI") == before

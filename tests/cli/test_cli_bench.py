"""`kerasfold bench`: what it times, and where."""

from __future__ import annotations

import json
import re
import sys

import keras
import numpy as np
import pytest

from kerasfold.measure.runtimes import RUNTIMES
from zoo.commands import assert_fails


def test_bench_prints_medians_and_their_ratio(files, run):
    code, stdout, stderr = run(
        "bench", files["linear.keras"], files["other.keras"], "--runs", 3, "--batch", 2
    )
    assert (code, stderr) == (0, "")
    assert len(re.findall(r"\.keras +\d+\.\d{3} ms\n", stdout)) == 2
    assert re.search(
        r"^A takes \d+\.\d\d times as long as B on tensorflow "
        r"\(range \d+\.\d\d to \d+\.\d\d; median of 3 pairs, batch 2\)$",
        stdout,
        re.MULTILINE,
    )
    _, stdout, _ = run("bench", files["linear.keras"], files["other.keras"], "--runs", 6)
    assert re.search(
        r"on tensorflow \(95 % interval .* to .*; median of 6 pairs, batch 1\)", stdout
    )


@pytest.mark.parametrize("runtime", [None, *RUNTIMES])
def test_bench_prints_json(files, run, runtime):
    options = () if runtime is None else ("--runtime", runtime)
    code, stdout, stderr = run(
        "bench", files["two.keras"], files["two.keras"], "--runs", 2, "--json", *options
    )
    result = json.loads(stdout)
    assert (code, stderr) == (0, "")
    assert list(result) == [
        "a",
        "b",
        "runtime",
        "batch",
        "runs",
        "a_seconds",
        "b_seconds",
        "ratio",
        "ratio_low",
        "ratio_high",
    ]
    assert result["runtime"] == (runtime or "tensorflow")
    assert min(result["a_seconds"], result["b_seconds"], result["ratio_low"]) > 0
    assert result["ratio_low"] <= result["ratio"] <= result["ratio_high"]


def test_bench_runs_both_models_on_the_runtime_in_batches(files, run, monkeypatch):
    deployed = []

    def deploy(model: keras.Model, runtime: str, inputs: list[np.ndarray]):
        deployed.append((model.name, runtime, [x.shape for x in inputs]))
        return lambda: None

    monkeypatch.setattr("kerasfold.commands.bench.deploy", deploy)
    command = ("bench", files["linear.keras"], files["linear.keras"], "--runtime", "litert")
    assert run(*command, "--batch", 4, "--runs", 2)[0] == 0
    assert deployed == [("small", "litert", [(4, 8, 8, 3)])] * 2


def test_bench_runs_keras_itself_on_its_other_backends(files, run, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    command = ("bench", files["two.keras"], files["two.keras"], "--runs", 2)
    code, stdout, stderr = run(*command, "--json")
    assert (code, stderr) == (0, "")
    assert json.loads(stdout)["runtime"] == "jax"
    assert "as long as B on jax (" in run(*command)[1]
    assert_fails(
        run(*command, "--runtime", "litert"),
        2,
        "runtime 'litert' takes models from .* on jax: set KERAS_BACKEND=tensorflow",
    )


def test_bench_refuses_models_of_other_inputs(files, run, tmp_path):
    result = run("bench", files["linear.keras"], files["two.keras"])
    assert_fails(
        result, 2, r"\S+linear\.keras and \S+two\.keras take inputs of different shapes: .*"
    )
    for dtype in ("int32", "float32"):
        x = keras.Input((4,), dtype=dtype)
        keras.Model(x, keras.layers.ReLU()(x)).save(tmp_path / f"{dtype}.keras")
    result = run("bench", tmp_path / "int32.keras", tmp_path / "float32.keras")
    assert_fails(
        result,
        2,
        r"\S+ and \S+ take inputs of different dtypes: \['int32'\] and \['float32'\]",
    )


@pytest.mark.parametrize(
    ("runtime", "module"),
    [
        ("litert", "ai_edge_litert.interpreter"),
        ("onnxruntime", "tf2onnx"),
        ("openvino", "openvino"),
    ],
)
def test_bench_names_the_extra_that_a_runtime_lacks(files, run, monkeypatch, runtime, module):
    monkeypatch.setitem(sys.modules, module, None)  # an import of it raises
    assert_fails(
        run("bench", files["linear.keras"], files["linear.keras"], "--runtime", runtime),
        2,
        rf'runtime \'{runtime}\' needs the package {module} .*pip install "kerasfold\[{runtime}\]"',
    )


def test_bench_says_what_a_runtime_refuses(run, tmp_path):
    x = keras.Input((3, 3))
    keras.Model(x, keras.ops.linalg.inv(x), name="inverse").save(tmp_path / "inverse.keras")
    result = run("bench", *[tmp_path / "inverse.keras"] * 2, "--runtime", "litert")
    assert_fails(result, 2, "litert does not take model 'inverse': .*")

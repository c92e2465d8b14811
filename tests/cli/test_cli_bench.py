"""`kerasfold bench`: what it times, and where."""

from __future__ import annotations

import importlib
import json
import re
import sys
from typing import Any

import keras
import numpy as np
import pytest

from kerasfold.commands.parser import TELLING
from kerasfold.measure.layerwise import STEPS
from kerasfold.measure.runtimes import RUNTIMES
from kerasfold.measure.stopwatch import Times
from zoo.commands import assert_fails

FEW = ("--deployments", 2, "--runs", 2)


def watched(monkeypatch: pytest.MonkeyPatch, *factors: float) -> list[dict[str, Any]]:
    """A stopwatch of made-up times, the control's last; what it was asked."""
    asked: list[dict[str, Any]] = []

    def timed(deploys: Any, trials: int, rounds: int, warm_up: int, told: Any) -> Times:
        asked.append({"trials": trials, "rounds": rounds, "warm_up": warm_up})
        spread = np.linspace(0.99, 1.01, trials)
        return Times(
            [[np.full((rounds, 2), 1e-3 * factor * off) for factor in factors] for off in spread]
        )

    monkeypatch.setattr("kerasfold.commands.bench.timed", timed)
    return asked


def test_bench_prints_latencies_and_their_ratio_over_deployments(files, run, monkeypatch):
    asked = watched(monkeypatch, 3.0, 2.0, 3.0)
    command = ("bench", files["linear.keras"], files["other.keras"], "--batch", 2)
    code, stdout, stderr = run(*command, "--deployments", 6, "--runs", 4, "--warmup", 5)
    assert (code, stderr) == (0, "")
    assert asked == [{"trials": 6, "rounds": 4, "warm_up": 5}]
    a, b, ratio, control = stdout.splitlines()
    assert re.search(
        r"^A  .*linear\.keras +3\.000 ms  p90 3\.0\d\d  p99 3\.030  667 inputs a second$", a
    )
    assert re.search(
        r"^B  .*other\.keras +2\.000 ms  p90 2\.0\d\d  p99 2\.020  1,000 inputs a second$", b
    )
    assert ratio == (
        "A takes 1.50 times as long as B on tensorflow (95 % interval 1.50 to 1.50; 6 deployments "
        "of each, 4 pairs in each, batch 2)"
    )
    assert control == "control: A takes 1.00 times as long as itself (95 % interval 1.00 to 1.00)"


def test_bench_warns_where_the_control_is_not_1(files, run, monkeypatch):
    watched(monkeypatch, 3.0, 2.0, 3.3)
    command = ("bench", files["linear.keras"], files["other.keras"], "--deployments", 6)
    *_, ratio, control = run(*command)[1].splitlines()
    assert "1.50 times as long as B on tensorflow (95 % interval 1.36 to 1.65;" in ratio
    assert control.startswith("warning: A takes 0.91 times as long as itself (95 % interval 0.91 ")
    result = json.loads(run(*command, "--json")[1])
    assert not result["steady"]
    assert result["control"] == pytest.approx(1 / 1.1)
    assert result["ratio_low"] == pytest.approx(1.5 / 1.1)


def test_bench_warns_where_the_control_tells_nothing(files, run, monkeypatch):
    watched(monkeypatch, 3.0, 2.0, 3.0)
    command = ("bench", files["linear.keras"], files["other.keras"], "--deployments", 1)
    *_, control = run(*command)[1].splitlines()
    assert control == (
        "warning: A takes 1.00 times as long as itself (one deployment has no interval): that "
        "tells little, more --deployments or a quiet machine more"
    )
    assert not json.loads(run(*command, "--json")[1])["steady"]


def test_one_deployment_has_no_interval(files, run, monkeypatch):
    watched(monkeypatch, 3.0, 2.0, 3.0)
    command = ("bench", files["linear.keras"], files["other.keras"], "--deployments", 1)
    assert "on tensorflow (one deployment has no interval; 1 deployment of" in run(*command)[1]
    result = json.loads(run(*command, "--json")[1])
    assert (result["ratio_low"], result["ratio_high"]) == (0.0, None)


@pytest.mark.parametrize("runtime", [None, *RUNTIMES])
def test_bench_prints_json(files, run, runtime):
    options = () if runtime is None else ("--runtime", runtime)
    code, stdout, stderr = run(
        "bench", files["two.keras"], files["two.keras"], *FEW, "--json", *options
    )
    result = json.loads(stdout)
    assert (code, stderr) == (0, "")
    assert list(result) == [
        *("a", "b", "runtime", "batch", "threads", "warmup", "deployments", "runs"),
        *("a_seconds", "b_seconds", "a_percentiles", "b_percentiles"),
        *("a_per_second", "b_per_second"),
        *("ratio", "ratio_low", "ratio_high", "control", "control_low", "control_high", "steady"),
    ]
    assert result["runtime"] == (runtime or "tensorflow")
    assert min(result["a_seconds"], result["b_seconds"], result["ratio_low"]) > 0
    assert result["ratio_low"] <= result["ratio"] <= result["ratio_high"]
    assert list(result["a_percentiles"]) == ["50", "90", "99"]


def test_bench_deploys_both_models_on_the_runtime_in_batches(files, run, monkeypatch):
    deployed = []

    def deployer(make: Any, runtime: str, inputs: list[np.ndarray]) -> Any:
        def deploy() -> Any:
            deployed.append((make().name, runtime, [x.shape for x in inputs]))
            return lambda: None

        return deploy

    monkeypatch.setattr("kerasfold.commands.bench.deployer", deployer)
    command = ("bench", files["linear.keras"], files["linear.keras"], "--runtime", "litert")
    assert run(*command, "--batch", 4, *FEW)[0] == 0
    assert deployed == [("small", "litert", [(4, 8, 8, 3)])] * (2 * 3)  # and the control


def test_bench_has_the_runtime_use_so_many_threads(files, run, monkeypatch):
    pytest.importorskip("ai_edge_litert.interpreter")
    real = importlib.import_module("ai_edge_litert.interpreter").Interpreter
    asked = []

    def interpreter(**options: Any) -> Any:
        asked.append(options["num_threads"])
        return real(**options)

    monkeypatch.setattr("ai_edge_litert.interpreter.Interpreter", interpreter)
    command = ("bench", files["linear.keras"], files["linear.keras"], "--runtime", "litert", *FEW)
    assert ", batch 1, 1 thread)" in run(*command, "--threads", 1)[1]
    assert asked == [1] * 6


@pytest.mark.parametrize("runtime", STEPS)
def test_bench_says_what_each_layer_takes(files, run, runtime, monkeypatch):
    watched(monkeypatch, 3.0, 2.0, 3.0)
    command = ("bench", files["linear.keras"], files["linear.keras"], "--runtime", runtime, *FEW)
    code, stdout, stderr = run(*command, "--layers", "--json")
    assert (code, stderr) == (0, "")
    result = json.loads(stdout)
    assert result["a_layers"]
    assert min(result["a_layers"].values()) >= 0
    assert any("onv" in name for name in result["b_layers"])
    lines = run(*command, "--layers")[1].splitlines()
    (start,) = [i for i, line in enumerate(lines) if line.startswith(f"layers of A on {runtime}, ")]
    times = [float(line.split()[0]) for line in lines[start + 1 :] if line.startswith(" ")]
    assert times[0] == max(times[: len(result["a_layers"])])


def test_layers_are_asked_of_runtimes_that_tell(files, run):
    assert set(STEPS) == set(TELLING)
    message = "argument --layers: only with --runtime onnxruntime or openvino"
    command = ("bench", files["linear.keras"], files["linear.keras"], "--layers")
    assert_fails(run(*command), 2, message)
    assert_fails(run(*command, "--runtime", "litert"), 2, message)


def test_tensorflow_has_its_threads_once_in_a_process(files, run):
    command = ("bench", files["linear.keras"], files["linear.keras"], "--threads", 61)
    assert_fails(run(*command), 2, r"61 threads: TensorFlow has begun to compute .* new process")


def test_bench_runs_keras_itself_on_its_other_backends(files, run, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    command = ("bench", files["two.keras"], files["two.keras"], *FEW)
    code, stdout, stderr = run(*command, "--json")
    assert (code, stderr) == (0, "")
    assert json.loads(stdout)["runtime"] == "jax"
    assert "as long as B on jax (" in run(*command)[1]
    assert_fails(
        run(*command, "--runtime", "litert"),
        2,
        "runtime 'litert' takes models from .* on jax: set KERAS_BACKEND=tensorflow",
    )
    message = "argument --threads: jax takes no number of threads from here"
    assert_fails(run(*command, "--threads", 2), 2, message)


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

"""`kerasfold fold` and `explain`: what they print, and what they leave on disk."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kerasfold
from kerasfold.equivalence.report import EquivalenceReport
from zoo.commands import assert_fails, predictions


@pytest.mark.parametrize("extension", [".keras", ".h5"])
def test_the_state_of_an_optimizer_is_no_gain_of_a_fold(run, tmp_path, extension):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.ReLU()])
    model.compile("adam", "mse")
    model.fit(np.zeros((2, 8)), np.zeros((2, 16)), verbose=0)
    model.save(path := tmp_path / f"trained{extension}")
    code, stdout, _ = run("fold", path, "--json")
    state = sum(np.asarray(value).nbytes for value in model.optimizer.variables)
    assert (code, json.loads(stdout)["files"]["training"]) == (0, state)
    keras.Sequential([keras.Input((8,)), keras.layers.Dense(16)]).save(path)
    code, stdout, _ = run("fold", path, "--json")
    assert (code, json.loads(stdout)["files"]["training"]) == (0, 0)


def test_an_hdf5_file_cannot_hold_keras_ops(run, tmp_path):
    given = keras.Input((8, 8, 3))
    y = keras.ops.abs(keras.layers.Conv2D(4, 3)(given))
    keras.Model(given, y).save(path := tmp_path / "abs.keras")
    result = run("fold", path, "-o", tmp_path / "abs.h5")
    assert_fails(
        result,
        2,
        r"the folded model cannot be stored as \.h5 \(it calls keras\.ops, as 'abs\w*'\): "
        r"write a \.keras file instead",
    )


@pytest.mark.parametrize("source", ["linear.keras", "legacy.h5"])
@pytest.mark.parametrize("extension", [".keras", ".h5"])
def test_fold_writes_the_folded_model_and_prints_the_report(
    files, run, tmp_path, source, extension
):
    out = tmp_path / f"out{extension}"
    code, stdout, stderr = run("fold", files[source], "-o", out)
    assert (code, stderr) == (0, "")
    first, second, *_ = re.sub(r"\n {4,}", " ", stdout).splitlines()
    assert first.startswith("small: predicted ")
    assert "; layers that compute 2 -> 1 (in Keras 3 -> 2); file " in first
    assert first.endswith(f"; equivalent; written to {out}")
    assert second == "objective latency"
    assert "  1 x Conv2D + BatchNormalization -> Conv2D 3x3 (bn)\n" in stdout
    assert re.search(r"^equivalent \(\d+ inputs, float64", stdout, re.MULTILINE)
    assert [p.name for p in tmp_path.iterdir()] == [out.name]
    folded = keras.saving.load_model(out, compile=False)
    assert [type(layer).__name__ for layer in folded.layers] == ["InputLayer", "Conv2D"]
    np.testing.assert_allclose(predictions(out), predictions(files[source]), rtol=1e-4, atol=1e-4)


def test_fold_prints_json(files, run, tmp_path):
    code, stdout, stderr = run(
        "fold", files["linear.keras"], "-o", tmp_path / "out.keras", "--json"
    )
    report = json.loads(stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (code, stderr) == (0, "")
    assert report["equivalence"]["equivalent"] is True
    assert (report["layers_before"], report["layers_after"]) == (2, 1)
    assert report["merged"] == [
        {
            "into": "bn",
            "kind": "Conv2D 3x3",
            "layers": ["conv", "bn"],
            "kinds": ["Conv2D", "BatchNormalization"],
            "grown": "",
        }
    ]


def test_json_has_no_infinities(files, run, monkeypatch):
    failed = EquivalenceReport(
        "different", np.inf, np.nan, "float64", "cpu", 4, (), reason="not finite"
    )
    monkeypatch.setattr("kerasfold.commands.verify.verify", lambda *args, **options: failed)
    code, stdout, _ = run("verify", files["linear.keras"], files["linear.keras"], "--json")
    assert code == 1
    assert json.loads(stdout)["max_abs_error"] is None


def test_fold_may_skip_verification(files, run, tmp_path):
    out = tmp_path / "out.keras"
    code, stdout, _ = run("fold", files["linear.keras"], "-o", out, "--no-verify")
    assert code == 0
    assert "equivalent" not in stdout
    assert out.exists()


def test_the_output_is_named_after_the_input(files, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("linear.keras", "legacy.h5"):
        (tmp_path / name).write_bytes(Path(files[name]).read_bytes())
        assert run("fold", name)[0] == 0
    found = {path.name for path in tmp_path.iterdir()} - {"linear.keras", "legacy.h5"}
    assert found == {"linear-folded.keras", "legacy-folded.keras"}


def test_strict_accepts_a_linear_model(files, run, tmp_path):
    assert run("fold", files["linear.keras"], "-o", tmp_path / "out.keras", "--strict")[0] == 0


def test_strict_refuses_a_model_that_is_not_linear(files, run, tmp_path):
    out = tmp_path / "out.keras"
    result = run("fold", files["relu.keras"], "-o", out, "--strict")
    message = r"model 'small' is not linear: 'conv' \(its activation 'relu' is not linear\)"
    assert_fails(result, 1, message)
    assert not list(tmp_path.iterdir())


def test_a_fold_that_verification_refuses_is_not_written(files, run, tmp_path, monkeypatch):
    out = tmp_path / "out.keras"
    out.write_bytes(b"as it was")
    failed = EquivalenceReport(
        "different", 1.0, 1.0, "float64", "cpu", 4, (), reason="wrong\nkernel"
    )
    monkeypatch.setattr("kerasfold.pipeline.verify_fold", lambda *args: failed)
    result = run("fold", files["linear.keras"], "-o", out)
    assert_fails(
        result, 1, r"the fold of 'small' is not handed out: NOT equivalent: wrong\\nkernel .*"
    )
    assert out.read_bytes() == b"as it was"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("fails", ["save", "replace"])
def test_a_failed_write_leaves_the_output_and_its_folder_alone(
    files, run, tmp_path, monkeypatch, fails
):
    def full(*args: object, **kwargs: object) -> None:
        if fails == "save":
            Path(str(args[1])).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    owner, name = (keras.Model, "save") if fails == "save" else (sys.modules["os"], "replace")
    monkeypatch.setattr(owner, name, full)
    out = tmp_path / "out.keras"
    out.write_bytes(b"as it was")
    result = run("fold", files["linear.keras"], "-o", out)
    assert_fails(
        result, 2, r"cannot write \S+out\.keras \(OSError: \[Errno 28\] No space left on device\)"
    )
    assert out.read_bytes() == b"as it was"
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_that_is_written_again_keeps_its_permissions(files, run, tmp_path):
    out = tmp_path / "out.keras"
    out.touch(0o600)
    assert run("fold", files["linear.keras"], "-o", out)[0] == 0
    assert out.stat().st_mode & 0o777 == 0o600


def test_a_full_standard_output_is_no_defect(files, run, monkeypatch):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kerasfold.commands.explain.explain", full)
    assert_fails(run("explain", files["linear.keras"]), 2, r"OSError: \[Errno 28\] No space left.*")


def test_a_model_that_its_format_cannot_hold_is_not_written(run, tmp_path):
    x = keras.Input((8, 8, 3))
    keras.Model(x, keras.ops.exp(keras.layers.Conv2D(2, 3)(x))).save(tmp_path / "ops.keras")
    result = run("fold", tmp_path / "ops.keras", "-o", tmp_path / "out.h5")
    assert_fails(
        result, 2, r"the folded model cannot be stored as \.h5 \(.*\): write a \.keras file instead"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["ops.keras"]
    assert run("fold", tmp_path / "ops.keras", "-o", tmp_path / "out.keras")[0] == 0


def test_a_file_with_other_weights_is_not_put_in_place(files, run, tmp_path, monkeypatch):
    def save(model: keras.Model, path: Path) -> None:
        Path(path).write_bytes(Path(files["folded.keras"]).read_bytes())

    monkeypatch.setattr(keras.Model, "save", save)
    result = run("fold", files["linear.keras"], "-o", tmp_path / "out.keras")
    assert_fails(
        result, 2, r"cannot write \S+ \(ValueError: the stored weights are not those of .*\)"
    )
    assert not list(tmp_path.iterdir())


def test_a_defect_is_one_line_too(files, run, tmp_path, monkeypatch):
    def broken(*args: object, **kwargs: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr("kerasfold.commands.fold.fold", broken)
    result = run("fold", files["linear.keras"], "-o", tmp_path / "out.keras")
    assert_fails(result, 2, r"unexpected KeyError: 'lost': a defect of kerasfold .*")


def test_the_folded_file_needs_no_kerasfold(files, run, tmp_path):
    out = tmp_path / "out.keras"
    assert run("fold", files["relu.keras"], "-o", out)[0] == 0
    image = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype("float32")
    np.save(tmp_path / "image.npy", image)
    script = (
        "import sys, keras, numpy as np\n"
        "model = keras.saving.load_model('out.keras', compile=False)\n"
        "np.save('result.npy', model.predict_on_batch(np.load('image.npy')))\n"
        "assert not [name for name in sys.modules if name.startswith('kerasfold')]\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        np.load(tmp_path / "result.npy"), predictions(files["relu.keras"]), rtol=1e-4, atol=1e-4
    )


@pytest.fixture
def told(monkeypatch):
    """What `fold` was called with; it folds for latency instead."""
    real = kerasfold.fold
    calls = []

    def fold(model: keras.Model, *args: object, **options: object) -> keras.Model:
        calls.append((*args, options))
        return real(model)

    monkeypatch.setattr("kerasfold.commands.fold.fold", fold)
    return calls


def test_fold_is_told_where_and_how_to_measure(files, run, tmp_path, told):
    command = ("fold", files["linear.keras"], "-o", tmp_path / "out.keras")
    assert run(*command, "--objective", "measured")[0] == 0
    chosen = ("--runtime", "litert", "--budget", "2.5", "--strict", "--no-verify")
    assert run(*command, "--objective", "measured", *chosen)[0] == 0
    assert run(*command, "--objective", "macs", "--keep-channels")[0] == 0
    assert run(*command, "--runtime", "xla", "--batch", "8")[0] == 0
    assert run(*command, "--exact-numbers")[0] == 0
    assert told == [
        ("measured", "keep", True, {"budget": 60.0}),
        ("measured", "error", False, {"runtime": "litert", "budget": 2.5}),
        ("macs", "keep", True, {"keep_channels": True}),
        ("latency", "keep", True, {"runtime": "xla", "batch_size": 8}),
        ("latency", "keep", True, {"exact_numbers": True}),
    ]


# explain


def test_explain_prints_the_report_and_builds_nothing(files, run):
    code, stdout, stderr = run("explain", files["linear.keras"], "--objective", "layers")
    assert (code, stderr) == (0, "")
    assert stdout.startswith("small: predicted ")
    assert "\nobjective layers\n" in stdout
    assert "equivalent" not in stdout


def test_explain_prints_json(files, run):
    code, stdout, _ = run("explain", files["legacy.h5"], "--json")
    assert code == 0
    assert json.loads(stdout)["equivalence"] is None

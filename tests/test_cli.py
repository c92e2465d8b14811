"""Every command of the command line: its output, its exit code, its one line on stderr."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import kerasfold
from kerasfold.cli import main
from kerasfold.equivalence.report import EquivalenceReport
from kerasfold.measure.runtimes import RUNTIMES

MODULE = """
import keras

class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x

@keras.saving.register_keras_serializable("cli_tests")
class Halved(keras.layers.Layer):
    def call(self, x):
        return x / 2

@keras.saving.register_keras_serializable("cli_tests")
def bent(x):
    return keras.ops.where(x > 0, x, 0.1 * x)
"""


def conv_bn(last_scale: float = 1.0, activation: str | None = None) -> keras.Model:
    """A convolution and a BatchNormalization with statistics; the same weights each time."""
    keras.utils.set_random_seed(3)
    x = keras.Input((8, 8, 3), name="image")
    y = keras.layers.Conv2D(4, 3, padding="same", activation=activation, name="conv")(x)
    y = keras.layers.BatchNormalization(name="bn")(y)
    model = keras.Model(x, y, name="small")
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    gamma = model.get_layer("bn").gamma
    gamma.assign(last_scale * gamma.value)
    return model


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Stored models, by what they are."""
    folder = tmp_path_factory.mktemp("models")
    models = {
        "linear.keras": conv_bn(),
        "legacy.h5": conv_bn(),
        "relu.keras": conv_bn(activation="relu"),
        "other.keras": conv_bn(last_scale=1.2),
    }
    a, b = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    image = keras.Input((8, 8, 3))
    models["folded.keras"] = keras.Model(image, keras.layers.Conv2D(4, 3, padding="same")(image))
    models["two.keras"] = keras.Model([a, b], keras.layers.Dense(2)(keras.layers.Add()([a, b])))
    for name, model in models.items():
        model.save(folder / name)
    return {name: str(folder / name) for name in models}


@pytest.fixture
def run(capsys):
    """Runs the command line; its exit code, standard output and standard error."""

    def call(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        return (code, *capsys.readouterr())

    return call


def assert_fails(result: tuple[int, str, str], code: int, message: str) -> None:
    assert result[0] == code, result
    assert result[1] == ""
    assert re.fullmatch(rf"kerasfold: error: {message}\n", result[2]), result[2]


def predictions(path: str | Path) -> np.ndarray:
    image = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype("float32")
    return np.asarray(keras.saving.load_model(path, compile=False).predict_on_batch(image))


# fold


@pytest.mark.parametrize("source", ["linear.keras", "legacy.h5"])
@pytest.mark.parametrize("extension", [".keras", ".h5"])
def test_fold_writes_the_folded_model_and_prints_the_report(
    files, run, tmp_path, source, extension
):
    out = tmp_path / f"out{extension}"
    code, stdout, stderr = run("fold", files[source], "-o", out)
    assert (code, stderr) == (0, "")
    assert re.search(r"small, objective latency", stdout)
    assert re.search(r"│ layers +│ +2 +│ +1 │", stdout)
    assert re.search(r"│ bn +│ 3x3/1 +│ conv \+ bn +│", stdout)
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
    assert report["merged"] == [{"into": "bn", "kind": "3x3/1", "layers": ["conv", "bn"]}]


def test_json_has_no_infinities(files, run, monkeypatch):
    failed = EquivalenceReport(False, np.inf, np.nan, "float64", "cpu", 4, (), reason="not finite")
    monkeypatch.setattr("kerasfold.cli.verify", lambda a, b, data: failed)
    code, stdout, _ = run("verify", files["linear.keras"], files["linear.keras"], "--json")
    assert code == 1
    assert json.loads(stdout)["max_abs_error"] is None


def test_fold_may_skip_verification(files, run, tmp_path):
    out = tmp_path / "out.keras"
    code, stdout, _ = run("fold", files["linear.keras"], "-o", out, "--no-verify")
    assert code == 0
    assert "equivalent" not in stdout
    assert out.exists()


def test_fold_may_replace_its_input_and_follows_links(files, run, tmp_path):
    model, link = tmp_path / "model.keras", tmp_path / "link.keras"
    model.write_bytes(Path(files["linear.keras"]).read_bytes())
    link.symlink_to(model)
    assert run("fold", link, "-o", link)[0] == 0
    assert link.is_symlink()
    assert len(keras.saving.load_model(model, compile=False).layers) == 2


def test_strict_accepts_a_linear_model(files, run, tmp_path):
    assert run("fold", files["linear.keras"], "-o", tmp_path / "out.keras", "--strict")[0] == 0


def test_strict_refuses_a_model_that_is_not_linear(files, run, tmp_path):
    out = tmp_path / "out.keras"
    result = run("fold", files["relu.keras"], "-o", out, "--strict")
    assert_fails(result, 1, r"model 'small' is not linear: 'conv' \(its activation is not linear\)")
    assert not list(tmp_path.iterdir())


def test_a_fold_that_verification_refuses_is_not_written(files, run, tmp_path, monkeypatch):
    out = tmp_path / "out.keras"
    out.write_bytes(b"as it was")
    failed = EquivalenceReport(False, 1.0, 1.0, "float64", "cpu", 4, (), reason="wrong\nkernel")
    monkeypatch.setattr("kerasfold.pipeline.verify_fold", lambda *args: failed)
    result = run("fold", files["linear.keras"], "-o", out)
    assert_fails(
        result, 1, r"the fold of 'small' is not handed out: NOT equivalent: wrong kernel .*"
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

    monkeypatch.setattr("kerasfold.cli.explain", full)
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

    monkeypatch.setattr("kerasfold.cli.fold", broken)
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

    monkeypatch.setattr("kerasfold.cli.fold", fold)
    return calls


def test_fold_measures_where_and_as_long_as_it_is_told(files, run, tmp_path, told, monkeypatch):
    command = ("fold", files["linear.keras"], "-o", tmp_path / "out.keras")
    assert run(*command, "--objective", "measured")[0] == 0
    chosen = ("--runtime", "litert", "--budget", "2.5", "--strict", "--no-verify")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run(*command, "--objective", "measured", *chosen)[0] == 0
    assert run(*command, "--objective", "macs")[0] == 0
    measured = {"runtime": "tensorflow", "budget": 60.0, "progress": False}
    assert told == [
        ("measured", "keep", True, measured),
        ("measured", "error", False, {"runtime": "litert", "budget": 2.5, "progress": True}),
        ("macs", "keep", True, {}),
    ]


# explain


def test_explain_prints_the_report_and_builds_nothing(files, run):
    code, stdout, stderr = run("explain", files["linear.keras"], "--objective", "layers")
    assert (code, stderr) == (0, "")
    assert "small, objective layers" in stdout
    assert "equivalent" not in stdout


def test_explain_prints_json(files, run):
    code, stdout, _ = run("explain", files["legacy.h5"], "--json")
    assert code == 0
    assert json.loads(stdout)["equivalence"] is None


# verify


def test_verify_tells_equivalent_from_not(files, run, tmp_path):
    out = tmp_path / "out.keras"
    run("fold", files["linear.keras"], "-o", out)
    code, stdout, stderr = run("verify", files["linear.keras"], out)
    assert (code, stderr) == (0, "")
    assert stdout.startswith("equivalent (")
    code, stdout, stderr = run("verify", files["linear.keras"], files["other.keras"])
    assert (code, stderr) == (1, "")
    assert stdout.startswith("NOT equivalent: output ")


def test_verify_prints_json(files, run):
    code, stdout, _ = run("verify", files["linear.keras"], files["other.keras"], "--json")
    assert code == 1
    assert json.loads(stdout)["equivalent"] is False


def test_verify_takes_one_array_of_any_name(files, run, tmp_path):
    data = tmp_path / "x.npz"
    np.savez(data, np.random.default_rng(0).normal(size=(5, 8, 8, 3)))
    code, stdout, _ = run("verify", files["linear.keras"], files["legacy.h5"], "--data", data)
    assert code == 0
    assert "5 inputs" in stdout


def test_verify_takes_arrays_named_as_the_inputs(files, run, tmp_path):
    data = tmp_path / "x.npz"
    np.savez(data, right=np.ones((6, 4)), left=np.arange(24.0).reshape(6, 4))
    code, stdout, _ = run(
        "verify", files["two.keras"], files["two.keras"], "--data", data, "--json"
    )
    assert code == 0
    assert json.loads(stdout)["inputs"] == 6


def test_verify_refuses_models_of_other_shapes(files, run):
    result = run("verify", files["linear.keras"], files["two.keras"])
    assert_fails(result, 2, r"models 'small' and '\w+' have inputs of different shapes: .*")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"left": np.ones((2, 4))},
            r"holds arrays \['left'\]: expected one for each input, \['left', 'right'\]",
        ),
        (
            {"left": np.ones((2, 4)), "right": np.ones((3, 4))},
            "needs the same number of samples in each array, at least one",
        ),
        (
            {"left": np.ones((0, 4)), "right": np.ones((0, 4))},
            "needs the same number of samples in each array, at least one",
        ),
        (
            {"left": np.ones((2, 4)), "right": np.ones((2, 5))},
            r": input 'right' takes float32 of shape \(None, 4\)\. "
            r"Received: float64 of shape \(2, 5\)",
        ),
        (
            {"left": np.ones((2, 4)), "right": np.full((2, 4), "a")},
            r": input 'right' takes float32 of shape \(None, 4\)\. Received: <U1 of shape \(2, 4\)",
        ),
        (
            {"left": np.array([print, None], dtype=object), "right": np.ones((2, 4))},
            r"cannot be read as an \.npz file \(ValueError: Object arrays cannot be loaded .*\)",
        ),
        ({}, r"holds arrays \[\]: expected .*"),
    ],
)
def test_verify_refuses_data_that_does_not_fit(files, run, tmp_path, arrays, message):
    data = tmp_path / "x.npz"
    np.savez(data, **arrays)
    result = run("verify", files["two.keras"], files["two.keras"], "--data", data)
    assert_fails(result, 2, rf"\S+x\.npz ?{message}")


def test_verify_refuses_data_that_is_no_archive(files, run, tmp_path):
    data = tmp_path / "x.npz"
    data.write_bytes(b"nonsense")
    result = run("verify", files["two.keras"], files["two.keras"], "--data", data)
    assert_fails(result, 2, r"\S+x\.npz cannot be read as an \.npz file \(.*\)")
    assert_fails(
        run("verify", files["two.keras"], files["two.keras"], "--data", tmp_path / "y.npy"),
        2,
        r"\S+y\.npy does not exist",
    )
    assert_fails(
        run("verify", files["two.keras"], files["two.keras"], "--data", files["two.keras"]),
        2,
        r"\S+two\.keras has an unknown extension: expected \.npz",
    )


# bench


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

    monkeypatch.setattr("kerasfold.cli.deploy", deploy)
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


# arguments


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["melt"], "argument COMMAND: invalid choice: 'melt' .*"),
        (["fold", "in.keras"], "the following arguments are required: -o/--output"),
        (
            ["explain", "in.keras", "--objective", "beauty"],
            "argument --objective: invalid choice: .*",
        ),
        (["verify", "a.keras"], "the following arguments are required: B"),
        (
            ["bench", "a.keras", "b.keras", "--runs", "0"],
            "argument --runs: expected a whole number .*'0'",
        ),
        (
            ["bench", "a.keras", "b.keras", "--batch", "x"],
            "argument --batch: expected a whole number .*'x'",
        ),
        (
            ["explain", "in.keras", "--objective", "measured"],
            "argument --objective: invalid choice: 'measured' .*",
        ),
        (
            ["fold", "in.keras", "-o", "out.keras", "--runtime", "xla"],
            "argument --runtime: only with --objective measured",
        ),
        (
            ["fold", "in.keras", "-o", "out.keras", "--objective", "macs", "--budget", "5"],
            "argument --budget: only with --objective measured",
        ),
        (
            ["fold", "in.keras", "-o", "o.keras", "--objective", "measured", "--budget", "0"],
            "argument --budget: expected a number above 0.*'0'",
        ),
        (
            ["fold", "in.keras", "-o", "o.keras", "--objective", "measured", "--budget", "inf"],
            "argument --budget: expected a number above 0.*'inf'",
        ),
        (
            ["fold", "in.keras", "-o", "o.keras", "--objective", "measured", "--budget", "long"],
            "argument --budget: expected a number above 0.*'long'",
        ),
        (
            ["bench", "a.keras", "b.keras", "--runtime", "abacus"],
            "argument --runtime: invalid choice: 'abacus' .*",
        ),
        (["explain", "in.keras", "--runtime", "xla"], "unrecognized arguments: --runtime xla"),
        (["explain", "in.keras", "--strict"], "unrecognized arguments: --strict"),
    ],
)
def test_wrong_arguments(run, args, message):
    assert_fails(run(*args), 2, rf"{message} \(see kerasfold.* --help\)")


def test_help_and_version_print_and_succeed(run):
    for args in (["--help"], ["fold", "--help"]):
        code, stdout, stderr = run(*args)
        assert (code, stderr) == (0, "")
        assert stdout.startswith("usage: kerasfold")
    code, stdout, stderr = run("--version")
    assert (code, stderr) == (0, "")
    assert re.fullmatch(r"kerasfold \S.*\n", stdout)


def test_arguments_are_judged_before_keras_is_imported(run, monkeypatch, tmp_path):
    for name in ("keras", "tensorflow", "kerasfold.pipeline", "kerasfold.equivalence.models"):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it raises
    assert run("--version")[0] == 0
    assert_fails(run("explain"), 2, "the following arguments are required: IN .*")
    assert_fails(run("explain", tmp_path / "no.keras"), 2, r"\S+no\.keras does not exist")


# files


def test_inputs_that_are_no_models(files, run, tmp_path):
    def refused(name: str, message: str) -> None:
        result = run("fold", tmp_path / name, "-o", tmp_path / "out.keras")
        assert_fails(result, 2, rf"\S+{re.escape(name)} {message}")
        assert not (tmp_path / "out.keras").exists()
        assert not [p for p in tmp_path.iterdir() if p.name.startswith(".kerasfold")]

    def write(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        return name

    (tmp_path / "folder.keras").mkdir()
    refused("missing.keras", "does not exist")
    refused("folder.keras", "is a directory, not a file")
    refused(write("m.onnx", b"x"), r"has an unknown extension: expected \.keras or \.h5 or \.hdf5")
    refused(write("empty.keras", b""), "is empty")
    refused(write("empty.h5", b""), "is empty")
    refused(
        write("text.keras", b"hello"), r"is damaged, or not a \.keras file: it is no zip archive"
    )
    refused(write("text.h5", b"hello"), "is damaged, or not an HDF5 file")
    whole = Path(files["linear.keras"]).read_bytes()
    refused(write("cut.keras", whole[: len(whole) // 2]), r"is damaged, or not a \.keras file: .*")
    whole = Path(files["legacy.h5"]).read_bytes()
    refused(write("cut.h5", whole[: len(whole) // 2]), r"cannot be read \(OSError: .*truncated.*\)")

    with zipfile.ZipFile(tmp_path / "zip.keras", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused("zip.keras", r"is no Keras model: the archive has no config\.json")
    for name, config in (("json", "{"), ("odd", '{"a": 1}'), ("list", "[]"), ("deep", "[" * 10**5)):
        with zipfile.ZipFile(tmp_path / f"{name}.keras", "w") as archive:
            archive.writestr("config.json", config)
    refused("json.keras", "is damaged: its configuration is not JSON")
    refused("deep.keras", "is damaged: its configuration is not JSON")
    refused("odd.keras", r"cannot be loaded \(.*\)")
    refused("list.keras", r"cannot be loaded \(.*\)")
    with (
        zipfile.ZipFile(files["linear.keras"]) as source,
        zipfile.ZipFile(tmp_path / "weightless.keras", "w") as archive,
    ):
        archive.writestr("config.json", source.read("config.json"))
    refused(
        "weightless.keras", r"cannot be loaded \(ValueError: Expected a model\.weights\.h5 .*\)"
    )

    conv_bn().save_weights(tmp_path / "only.weights.h5")
    refused(
        "only.weights.h5", r"holds no model, only weights or other data: save the whole model .*"
    )
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        file.attrs["model_config"] = '{"class_name": "Sequential"}'
    refused("odd.h5", r"cannot be loaded \(.*\)")


def test_a_layer_is_not_a_model(run, tmp_path):
    config = keras.saving.serialize_keras_object(keras.layers.ReLU())
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.create_group("vars")
    with zipfile.ZipFile(tmp_path / "layer.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.write(tmp_path / "weights.h5", "model.weights.h5")
    assert_fails(
        run("explain", tmp_path / "layer.keras"), 2, r"\S+layer\.keras holds a ReLU, not a model"
    )


def test_outputs_that_cannot_be_written(files, run, tmp_path):
    def refused(name: str, message: str) -> None:
        before = sorted(tmp_path.iterdir())
        assert_fails(run("fold", files["linear.keras"], "-o", tmp_path / name), 2, message)
        assert sorted(tmp_path.iterdir()) == before

    (tmp_path / "folder.keras").mkdir()
    refused("folder.keras", r"output \S+folder\.keras is a directory, not a file")
    refused("nowhere/out.keras", r"output folder \S+nowhere does not exist")
    refused(
        "out.onnx", r"\S+out\.onnx has an unknown extension: expected \.keras or \.h5 or \.hdf5"
    )
    refused("out", r"\S+out has an unknown extension: .*")


def test_a_subclassed_model_is_refused(run, tmp_path, monkeypatch):
    source = (
        "import keras\n"
        "class Sub(keras.Model):\n"
        "    def __init__(self, **kw):\n"
        "        super().__init__(**kw)\n"
        "        self.dense = keras.layers.Dense(2)\n"
        "    def call(self, x):\n"
        "        return self.dense(x)\n"
    )
    (tmp_path / "cli_subclassed.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    model = __import__("cli_subclassed").Sub()
    model(np.ones((1, 3), "float32"))
    model.save(tmp_path / "sub.keras")
    path, known = tmp_path / "sub.keras", ("--import", "cli_subclassed")
    result = run("explain", path, *known)
    assert_fails(result, 2, r"model '\w+' of class Sub is subclassed: .*")
    result = run("bench", path, path, *known)
    assert_fails(result, 2, r"\S+sub\.keras holds a Sub without symbolic inputs: bench takes .*")


# code in files


def armed(marker: Path) -> keras.Model:
    """A model with a Lambda that creates a file when it runs."""
    payload = eval(f"lambda x: (open({str(marker)!r}, 'w').close(), x)[1]")
    x = keras.Input((4,))
    return keras.Model(x, keras.layers.Lambda(payload, name="trap")(x))


def in_the_style_of_keras_2(path: Path) -> None:
    """Rewrite the Lambda of an HDF5 file as Keras 2 stored it: code, defaults, closure."""
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        layer = next(x for x in config["config"]["layers"] if x["class_name"] == "Lambda")
        function = layer["config"]["function"]["config"]
        layer["config"] |= {
            "function": [function["code"], function["defaults"], function["closure"]],
            "function_type": "lambda",
            "module": "__main__",
        }
        file.attrs["model_config"] = json.dumps(config)


@pytest.mark.parametrize("kind", ["keras", "h5", "keras 2 h5", "nested h5", "nested keras"])
@pytest.mark.parametrize("command", ["fold", "explain", "verify", "bench"])
def test_code_in_a_file_is_refused_and_never_run(files, run, tmp_path, kind, command):
    marker, path = tmp_path / "ran", tmp_path / f"trap.{kind.split()[-1]}"
    model = armed(marker)
    if kind.startswith("nested"):
        x = keras.Input((4,))
        model = keras.Model(x, model(x))
    model.save(path)
    if kind.startswith("keras 2"):
        in_the_style_of_keras_2(path)
    if command == "fold":  # the trap does go off where it is let
        marker.unlink(missing_ok=True)
        keras.saving.load_model(path, compile=False, safe_mode=False)
        assert marker.exists()
    marker.unlink(missing_ok=True)
    args = {
        "fold": ["-o", tmp_path / "out.keras"],
        "explain": [],
        "verify": [files["linear.keras"]],
        "bench": [files["linear.keras"]],
    }[command]
    result = run(command, path, *args)
    assert_fails(
        result, 2, r"\S+trap\.\w+ holds code in (layer 'trap'|a Lambda layer), which is not run: .*"
    )
    assert not marker.exists()
    assert not (tmp_path / "out.keras").exists()


@pytest.mark.parametrize("kind", ["keras", "h5", "keras 2 h5"])
def test_safe_mode_holds_where_the_search_for_code_fails(run, tmp_path, monkeypatch, kind):
    marker, path = tmp_path / "ran", tmp_path / f"trap.{kind.split()[-1]}"
    armed(marker).save(path)
    if kind.startswith("keras 2"):
        in_the_style_of_keras_2(path)
    marker.unlink(missing_ok=True)
    monkeypatch.setattr("kerasfold.files._refuse_code", lambda name, config: None)
    assert_fails(
        run("explain", path), 2, r"\S+ cannot be loaded \(ValueError: Requested .*Lambda.*\)"
    )
    assert not marker.exists()


# classes of the user's own


@pytest.fixture
def custom(tmp_path, monkeypatch):
    """A folder with a module, from which Keras then forgets what the module registered."""
    registry = keras.saving.get_custom_objects()
    known = dict(registry)
    name = f"cli_layers_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        module = __import__(name)
    yield (
        tmp_path,
        module,
        lambda: (registry.clear(), registry.update(known), sys.modules.pop(name, None)),
    )
    registry.clear()
    registry.update(known)
    sys.modules.pop(name, None)


@pytest.mark.parametrize("extension", [".keras", ".h5"])
@pytest.mark.parametrize("name", ["Doubled", "Halved", "bent"])
def test_a_custom_object_needs_its_module(custom, run, monkeypatch, extension, name):
    folder, module, forget = custom
    x = keras.Input((4,))
    own = getattr(module, name)
    layer = keras.layers.Dense(3, activation=own) if name == "bent" else own()
    path, out = folder / f"m{extension}", folder / f"out{extension}"
    keras.Model(x, layer(x)).save(path)
    forget()
    assert_fails(
        run("fold", path, "-o", out),
        2,
        rf"\S+m\{extension} uses '(cli_tests>)?{name}', which Keras does not know: "
        "pass --import MODULE, "
        "the module that defines it",
    )
    assert not out.exists()
    monkeypatch.chdir(folder)
    before = list(sys.path)
    code, _, stderr = run("fold", path, "-o", out, "--import", module.__name__)
    assert (code, stderr) == (0, "")
    assert out.exists()
    assert sys.path == before


def test_modules_that_cannot_be_imported(files, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cli_broken.py").write_text("raise RuntimeError('boom\\nand more')")
    (tmp_path / "cli_quits.py").write_text("raise SystemExit(0)")
    for name, why in (
        ("cli_absent", "ModuleNotFoundError: No module named 'cli_absent'"),
        ("cli_broken", "RuntimeError: boom"),
        ("cli_quits", "SystemExit: 0"),
    ):
        result = run("explain", files["linear.keras"], "--import", name)
        assert_fails(result, 2, rf"cannot import {name} \({why}\)")

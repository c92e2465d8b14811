"""Code in files is never run, and classes of the user's own are known by their module."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import h5py
import keras
import pytest

from zoo.commands import assert_fails

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
    unknown = rf"\S+m\{extension} uses '(cli_tests>)?{name}', which Keras does not know"
    told = extension == ".keras" and name != "bent"  # HDF5 files and functions have no module
    by_file = (
        rf": pass --import {module.__name__ if told else 'MODULE'}, the module that defines it"
    )
    assert_fails(run("fold", path, "-o", out), 2, unknown + by_file)
    assert_fails(run("fold", path, "-o", out, "--import", "json"), 2, unknown + by_file)
    assert not out.exists()
    monkeypatch.chdir(folder)
    before = list(sys.path)
    code, _, stderr = run("fold", path, "-o", out, "--import", module.__name__)
    assert (code, stderr) == (0, "")
    assert out.exists()
    assert sys.path == before


def test_a_package_that_has_the_class_within_is_told_where(run, tmp_path, monkeypatch):
    package = tmp_path / f"cli_package_{tmp_path.name}"
    package.mkdir()
    (package / "__init__.py").write_text("from . import inner")
    (package / "inner.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    inner = importlib.import_module(f"{package.name}.inner")
    x, path = keras.Input((4,)), tmp_path / "m.keras"
    keras.Model(x, inner.Doubled()(x)).save(path)
    there = rf"\S+ uses 'Doubled', which .*: pass --import {inner.__name__} as well: it is there"
    assert_fails(run("explain", path, "--import", package.name), 2, there)
    assert run("explain", path, "--import", package.name, "--import", inner.__name__)[0] == 0


def test_a_class_of_the_same_name_that_is_no_layer_is_not_meant(run, tmp_path):
    importlib.import_module("multiprocessing.pool")  # which has a Pool, too
    kind = type("Pool", (keras.layers.Layer,), {"__module__": "pools", "call": lambda self, x: x})
    x, path = keras.Input((4,)), tmp_path / "m.keras"
    keras.Model(x, kind()(x)).save(path)
    told = r"\S+ uses 'Pool', which .*: pass --import pools, the module that defines it"
    assert_fails(run("explain", path), 2, told)


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

"""Files that hold no model, and files that cannot be written."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from zoo.commands import assert_fails, conv_bn


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


def of_keras_2(path: Path, version: str | None = "2.15.0") -> None:
    """Make a file one of Keras 2, with a layer that Keras 3 has not."""
    old = '"class_name": "BatchNormalization"', '"class_name": "TFOpLambda"'
    if path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            if version is None:
                del file.attrs["keras_version"]
            else:
                file.attrs["keras_version"] = version
            file.attrs["model_config"] = file.attrs["model_config"].replace(*old)
        return
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents["metadata.json"] = json.dumps({"keras_version": version} if version else {}).encode()
    contents["config.json"] = contents["config.json"].decode().replace(*old).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_of_keras_2_is_said_to_be_one(run, tmp_path, suffix):
    path = tmp_path / f"old{suffix}"
    conv_bn().save(path)
    of_keras_2(path)
    result = run("explain", path)
    assert_fails(result, 2, r"\S+old\.\w+ was written by Keras 2\.15\.0, .*save_weights.*")
    assert "--import" not in result[2]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_layers_of_keras_2_tell_a_file_of_no_version(run, tmp_path, suffix):
    path = tmp_path / f"old{suffix}"
    conv_bn().save(path)
    of_keras_2(path, None)
    assert_fails(run("explain", path), 2, r"\S+old\.\w+ was written by Keras 2, .*save_weights.*")

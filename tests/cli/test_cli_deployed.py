"""`kerasfold verify`: a stored model, and what was deployed of it."""

from __future__ import annotations

import json

import keras
import pytest

from zoo.commands import assert_fails, conv_bn
from zoo.exports import exported


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return exported(conv_bn(), tmp_path_factory.mktemp("built"), "model.onnx")


def test_verify_takes_what_is_deployed(files, run, built):
    code, stdout, stderr = run("verify", files["linear.keras"], built)
    assert (code, stderr) == (0, "")
    assert stdout.startswith("equivalent (")
    code, stdout, _ = run("verify", files["other.keras"], built)
    assert code == 1
    assert stdout.startswith("NOT equivalent: output ")


def test_verify_takes_a_tolerance(files, run, built):
    code, stdout, _ = run("verify", files["other.keras"], built, "--rtol", 0.5, "--atol", "2")
    assert code == 0
    assert stdout.startswith("equivalent within atol 2, rtol 0.5 (")
    code, stdout, _ = run("verify", files["other.keras"], built, "--atol", "1e-3", "--json")
    assert code == 1
    (out,) = json.loads(stdout)["outputs"]
    assert out["tolerance"] == {"atol": 1e-3, "rtol": 0.0}
    assert 0 < out["absolute"]["p50"] <= out["absolute"]["largest"]


def test_verify_refuses_what_is_no_deployed_model(files, run, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"broken")
    result = run("verify", files["linear.keras"], tmp_path / "broken.onnx")
    assert_fails(result, 2, r".*broken\.onnx cannot be read as ONNX model \(InvalidProtobuf: .*\)")
    result = run("verify", files["linear.keras"], tmp_path / "none.tflite")
    assert_fails(result, 2, r".*none\.tflite does not exist")


def test_verify_lets_another_signature_pass_if_told(files, run, tmp_path):
    picture = keras.Input((8, 8, 3), name="picture")
    keras.Model(picture, conv_bn()(picture)).save(tmp_path / "renamed.keras")
    pair = files["linear.keras"], tmp_path / "renamed.keras"
    code, stdout, _ = run("verify", *pair)
    assert code == 1
    assert stdout.startswith("NOT equivalent: input 'image' is named 'image' in the first and 'pic")
    code, stdout, _ = run("verify", *pair, "--loose-signature")
    assert code == 0
    assert "'picture' in the second" in stdout

"""`kerasfold verify`: models, and data of the user's own."""

from __future__ import annotations

import json

import numpy as np
import pytest

from zoo.commands import assert_fails


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
            r": input 'right' takes float32 of shape \(None, 4\)\. "
            r"Received: str32 of shape \(2, 4\)",
        ),
        (
            {"left": np.array([print, None], dtype=object), "right": np.ones((2, 4))},
            r"cannot be read \(ValueError: .* Python objects, which are not unpickled\)",
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
    assert_fails(result, 2, r"\S+x\.npz cannot be read \(.*\)")
    assert_fails(
        run("verify", files["two.keras"], files["two.keras"], "--data", tmp_path / "y.npy"),
        2,
        r"\S+y\.npy does not exist",
    )
    assert_fails(
        run("verify", files["two.keras"], files["two.keras"], "--data", files["two.keras"]),
        2,
        r"\S+two\.keras has an unknown extension: expected \.npy or \.npz",
    )

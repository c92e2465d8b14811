"""Numbers near a large one: what subtracts that first keeps their digits, merged it would not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from zoo.making import policy, randomise
from zoo.same import float32_bound, kinds, run

Step = Callable[[Any], Any]

FAR = [(2015.0, 4.0), (48.2, 0.05), (101325.0, 300.0), (1.7e9, 3e6)]  # a year, a latitude, Pa, s
NEAR = [(0.0, 1.0), (288.0, 8.0), (0.45, 0.22)]  # K; a colour


def normalised(mean: float, std: float) -> Step:
    numbers = {"mean": [mean] * 3, "variance": [std**2] * 3}
    return lambda x: layers.Normalization(name="first", **numbers)(x)


def calculated(mean: float, std: float) -> Step:
    return lambda x: (x - np.full(3, mean, "float32")) * np.full(3, 1 / std, "float32")


def behind(first: Step, *, image: bool = False, ahead: Step | None = None) -> keras.Model:
    keras.utils.set_random_seed(3)
    x = keras.Input((5, 5, 3) if image else (3,))
    y = first(ahead(x) if ahead else x)
    y = layers.Conv2D(8, 3, name="w")(y) if image else layers.Dense(8, name="w")(y)
    return randomise(keras.Model(x, layers.Dense(2)(layers.ReLU()(y))))


MOVED: dict[str, tuple[Any, Step]] = {
    "flatten": ((2, 2), lambda x: layers.Flatten()(x)),
    "slice": ((5,), lambda x: x[:, 1:4]),
    "concatenate": ((2,), lambda x: layers.Concatenate()([x, layers.ReLU()(x)])),
    "half of it": ((3,), lambda x: layers.Rescaling(0.5)(x)),
}


def drawn(model: keras.Model, mean: float, std: float) -> np.ndarray:
    shape = (64, *model.input.shape[1:])
    return np.random.default_rng(0).normal(mean, std, shape).astype("float32")


def is_exact(model: keras.Model, folded: keras.Model, mean: float, std: float) -> bool:
    """Whether a fold is as accurate as its original near the mean, against NumPy's float64."""
    x = drawn(model, mean, std)
    dense, last = (w.get_weights() for w in model.layers if w.get_weights() and w.name != "first")
    z = (x.astype("float64") - np.float32(mean)) / np.sqrt(np.float32(std**2), dtype="float64")
    truth = np.maximum(z @ np.float64(dense[0]) + dense[1], 0) @ np.float64(last[0]) + last[1]
    (given,), (now,) = run(model, x), run(folded, x)
    return bool(np.abs(now - truth).max() <= float32_bound(truth, given))


@pytest.mark.parametrize(("mean", "std"), FAR)
@pytest.mark.parametrize("objective", ["latency", "layers"])
def test_what_is_far_from_zero_is_subtracted_first(mean: float, std: float, objective: Any) -> None:
    model = behind(normalised(mean, std))
    folded = model.fold(objective=objective)
    report = folded.fold_report
    (kept,) = (row for row in (*report.kept, *report.apart) if row.layer == "first")
    assert "could be lost" in kept.reason
    assert kept.code == "KF501"
    assert is_exact(model, folded, mean, std)
    assert kerasfold.verify(model, folded, data=drawn(model, mean, std)).equivalent


@pytest.mark.parametrize(("mean", "std"), NEAR)
def test_what_is_near_merges(mean: float, std: float) -> None:
    model = behind(normalised(mean, std))
    folded = model.fold()
    assert kinds(folded) == ["Dense", "ReLU", "Dense"]
    assert is_exact(model, folded, mean, std)
    conv = behind(normalised(mean, std), image=True).fold()
    assert kinds(conv) == ["Conv2D", "ReLU", "Dense"]


@pytest.mark.parametrize("how", MOVED)
def test_what_is_moved_first(how: str) -> None:
    shape, move = MOVED[how]
    mean, std = (1e6, 100.0) if how != "half of it" else (5e5, 50.0)
    x = keras.Input(shape)
    y = layers.Normalization(mean=mean, variance=std**2)(move(x))
    model = randomise(keras.Model(x, layers.Dense(2)(layers.ReLU()(layers.Dense(8)(y)))))
    folded = model.fold()
    assert "Normalization" in kinds(folded)
    assert kerasfold.verify(model, folded, data=drawn(model, 1e6, 100.0)).equivalent


def test_a_subtraction_of_what_is_scaled_by_a_power_of_two() -> None:
    model = behind(lambda x: layers.Rescaling(0.25, -503.75)(x))
    assert "Rescaling" in kinds(model.fold())
    assert "Rescaling" not in kinds(behind(lambda x: layers.Rescaling(1 / 128, -1.0)(x)).fold())


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_has_less_to_lose(dtype: str) -> None:
    with policy(dtype):
        kept, merged = (behind(normalised(mean, 1.0)) for mean in (100.0, 2.0))
    assert "Normalization" in kinds(kept.fold())
    assert "Normalization" not in kinds(merged.fold())


@pytest.mark.parametrize(("mean", "std"), FAR[:2])
def test_operations_that_subtract(mean: float, std: float) -> None:
    model = behind(calculated(mean, std))
    folded = model.fold()
    assert "Subtract" in [type(operation).__name__ for operation in folded.operations]
    assert kerasfold.verify(model, folded, data=drawn(model, mean, std)).equivalent


def test_what_weights_made_merges_with_them() -> None:
    model = behind(normalised(2015.0, 4.0), ahead=layers.Dense(3, name="ahead"))
    assert "first" not in [layer.name for layer in model.fold().layers]


@pytest.mark.parametrize(("mean", "std", "left"), [(*FAR[0], True), (*NEAR[1], False)])
def test_closed_layers(mean: float, std: float, left: bool) -> None:
    x = keras.Input((4, 3))
    y = layers.LSTM(5)(normalised(mean, std)(x))
    model = randomise(keras.Model(x, y))
    folded = model.fold()
    assert ("Normalization" in kinds(folded)) is left
    assert kerasfold.verify(model, folded, data=drawn(model, mean, std)).equivalent


def test_a_merge_would_be_seen() -> None:
    """The comparison of `fold` finds what a merge there would lose."""
    mean, std = 1e6, 100.0
    model = behind(normalised(mean, std))
    merged = behind(lambda x: layers.Identity()(x))
    kernel, bias = (np.float64(w) for w in model.get_layer("w").get_weights())
    merged.get_layer("w").set_weights([kernel / std, bias - mean / std * kernel.sum(axis=0)])
    merged.layers[-1].set_weights(model.layers[-1].get_weights())
    assert not is_exact(model, merged, mean, std)
    assert not kerasfold.verify(model, merged).equivalent

"""Images are resized in float64, where TensorFlow has float32: small faults show all the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from kerasfold.equivalence.bounds import SINGLE, interpolation_unit
from kerasfold.equivalence.interpolation import resized
from kerasfold.equivalence.noise import moves_in_steps
from kerasfold.equivalence.runs import Walk
from zoo.making import policy, randomise

pytestmark = pytest.mark.usefixtures("fresh")


@pytest.mark.parametrize(("n", "m"), [(5, 10), (7, 21), (6, 17), (24, 7), (1, 4), (9, 9)])
def test_pixels_are_those_between_which_a_position_lies(n: int, m: int) -> None:
    x = np.random.default_rng(0).normal(size=(1, n, 1, 2))
    for i, row in enumerate(ops.convert_to_numpy(resized(x, (-3,), (m,)))[0]):
        at = min(max((i + 0.5) * n / m - 0.5, 0.0), n - 1.0)
        low, high = math.floor(at), math.ceil(at)
        expected = x[0, low] * (1 - (at - low)) + x[0, high] * (at - low)
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-14)


def upsampled(x: Any) -> Any:
    return layers.UpSampling2D((2, 3), interpolation="bilinear")(x)


def resized_by_a_layer(x: Any) -> Any:
    return layers.Resizing(13, 5)(x)


def resized_by_an_operation(x: Any) -> Any:
    return ops.image.resize(x, (11, 20))


def channels_first(x: Any) -> Any:
    return layers.UpSampling2D(2, interpolation="bilinear", data_format="channels_first")(x)


WAYS = [upsampled, resized_by_a_layer, resized_by_an_operation, channels_first]


@pytest.mark.parametrize("way", WAYS, ids=lambda f: f.__name__)
def test_what_keras_gives_but_for_rounding(way: Callable[[Any], Any]) -> None:
    x = keras.Input((8, 6, 4), dtype="float64")
    with policy("float64"):
        model = keras.Model(x, way(x))
    batch = np.random.default_rng(0).normal(size=(2, 8, 6, 4))
    (exact,) = Walk(model)(batch)
    assert exact.dtype == "float64"
    assert Walk(model).exact
    np.testing.assert_allclose(exact, model(batch), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("way", "unit"),
    [
        (layers.UpSampling2D(4, interpolation="bilinear"), SINGLE),
        (layers.UpSampling2D(3, interpolation="bilinear"), 24 * SINGLE),
        (layers.Resizing(48, 12), SINGLE),
        (layers.Resizing(30, 24), 24 * SINGLE),
        (layers.UpSampling2D(3), 0.0),
        (layers.Resizing(30, 14, interpolation="nearest"), 0.0),
        (lambda x: ops.image.resize(x, (30, 14), interpolation="nearest"), 0.0),
    ],
)
def test_positions_that_float32_has_are_not_rounded(way: Callable[[Any], Any], unit: float) -> None:
    x = keras.Input((24, 24, 1))
    assert interpolation_unit(keras.Model(x, way(x)).operations) == unit


def net(way: Callable[[Any], Any], dtype: str, error: float = 0.0) -> keras.Model:
    with policy(dtype):
        x = keras.Input((8, 8, 3))
        y = way(layers.ReLU()(layers.Conv2D(4, 3, name="first")(x)))
        y = layers.BatchNormalization()(layers.Conv2D(2, 3)(y))
        model = randomise(keras.Model(x, layers.ReLU()(y)))
    bias = model.get_layer("first").bias
    bias.assign(bias + error)
    return model


@pytest.mark.parametrize("way", WAYS[:3], ids=lambda f: f.__name__)
def test_a_small_fault_before_it_shows(way: Callable[[Any], Any]) -> None:
    model = net(way, "float64")
    assert kerasfold.verify(model, net(way, "float64")).verdict == "equivalent"
    assert kerasfold.verify(model, kerasfold.fold(model)).verdict == "equivalent"
    assert kerasfold.verify(model, net(way, "float64", 1e-7)).verdict == "different"


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_a_fold_around_it_agrees_in_float64(dtype: str) -> None:
    report = kerasfold.fold(net(upsampled, dtype), "layers").fold_report.equivalence
    assert report.verdict == "equivalent"
    assert report.dtype == "float64"
    assert max(out.bound / out.scale for out in report.outputs) < 1e-9


def test_of_what_is_not_bilinear_the_report_says_that_it_rounds() -> None:
    def bicubic(x: Any) -> Any:
        return layers.UpSampling2D(2, interpolation="bicubic")(x)

    report = kerasfold.fold(net(bicubic, "float64"), "layers").fold_report.equivalence
    assert report.verdict == "equivalent"
    assert report.dtype == "float64, with operations that round to float32"


@pytest.mark.parametrize("gain", [1.0, 1e4, 1e8, 1e9, 1e10])
def test_what_saturates_does_not_move_in_steps(gain: float) -> None:
    assert not moves_in_steps(lambda eps: [math.tanh(gain * eps), eps], [1.0, 1.0])


@pytest.mark.parametrize("gain", [1.0, 2.0**8, 2.0**16])
@pytest.mark.parametrize("crossed", [2.0**-30, 2.0**-40, 2.0**-50])
def test_what_is_rounded_to_float32_does(gain: float, crossed: float) -> None:
    """Whose steps such small noise still crosses."""
    steps = [0.0, 0.0]

    def moved(eps: float) -> list[float]:
        steps[1] = gain * (eps if eps > 2.0**-24 else 2.0**-24 * (eps >= crossed))
        return steps[:]

    assert moves_in_steps(moved, [1.0, 1.0])


def test_noise_that_float32_takes_in_part_is_no_saturation() -> None:
    assert moves_in_steps(lambda eps: [eps / 8 if eps > 2.0**-24 else eps], [1.0])


def test_a_net_that_amplifies_rounding_rounds_to_no_float32() -> None:
    x = inputs = keras.Input((16,))
    for _ in range(38):
        wide = keras.initializers.RandomNormal(stddev=1.2)
        x = layers.Dense(16, kernel_initializer=wide)(x)
        x = layers.Activation("tanh")(layers.BatchNormalization()(x))
    model = keras.Model(inputs, layers.Dense(2)(x))
    rng = np.random.default_rng(0)
    for v in model.weights:
        if v.name in ("gamma", "moving_variance"):
            v.assign(rng.uniform(0.7, 1.5, v.shape))
    report = kerasfold.fold(model).fold_report.equivalence
    assert report.dtype == "float64"
    assert "its accuracy cannot be told" in report.reason


@keras.saving.register_keras_serializable()
class ResizeOfMine(layers.Layer):
    """Every second pixel, times a number that is of Keras's float of the moment."""

    def call(self, x: Any) -> Any:
        return x[:, ::2, ::2] * ops.convert_to_tensor(0.5)


@pytest.mark.parametrize("size", [24, None])
def test_a_layer_of_ones_own_is_not_asked_for_sizes(size: int | None) -> None:
    """It may not run symbolically in float64, where its float is still that of the process."""
    x = image = keras.Input((size, size, 3))
    y = ResizeOfMine()(layers.BatchNormalization()(layers.Conv2D(2, 3)(x)))
    report = kerasfold.fold(randomise(keras.Model(image, y))).fold_report.equivalence
    assert report.verdict == "equivalent"


@keras.saving.register_keras_serializable()
class ResizeBoth(layers.Layer):
    """Of two images, the mean of every second pixel of each."""

    def call(self, xs: Any) -> Any:
        return [ops.mean(x[:, ::2, ::2], axis=(1, 2)) for x in xs]


def test_what_it_takes_and_gives_is_its_own() -> None:
    x = image = keras.Input((12, 12, 3))
    x = layers.BatchNormalization()(layers.Conv2D(2, 3)(x))
    model = randomise(keras.Model(image, ResizeBoth()([x, ops.sin(x)])))
    assert kerasfold.fold(model).fold_report.equivalence.verdict == "equivalent"

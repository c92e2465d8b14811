"""Calls compute the pixels that are read: strides, crops and slices move up past nonlinearities."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from kerasfold.algebra.axis import Axis
from kerasfold.algebra.places import places_read, progression
from kerasfold.lift import narrowed
from kerasfold.lift.demand import demands
from zoo.making import chain, policy, randomise
from zoo.same import FLOAT64, assert_same

BY_PIXEL: dict[str, Callable[[], Any]] = {
    **{name: lambda name=name: layers.Activation(name) for name in
       ("relu", "relu6", "elu", "selu", "gelu", "silu", "sigmoid", "tanh", "softplus", "mish",
        "hard_sigmoid", "leaky_relu", "exponential")},
    "ReLU": lambda: layers.ReLU(max_value=0.7, negative_slope=0.1, threshold=0.2),
    "LeakyReLU": layers.LeakyReLU,
    "PReLU": lambda: layers.PReLU(shared_axes=[1, 2]),
    "ELU": layers.ELU,
    "ops.abs": lambda: ops.abs,
    "ops.square": lambda: ops.square,
    "ops.where": lambda: lambda x: ops.where(x > 0.1, x, 0.2),
    "clip": lambda: lambda x: ops.clip(x, -0.3, 0.4),
    "maximum": lambda: lambda x: ops.maximum(x, 0.1),
    "product": lambda: lambda x: x * ops.sigmoid(x),
    "a layer inside": lambda: lambda x: layers.Conv2D(4, 1, activation=layers.LeakyReLU(0.2))(x),
    "join": lambda: lambda x: layers.Concatenate()([ops.tanh(x), ops.relu(x)]),
}  # fmt: skip
NOT_BY_PIXEL: dict[str, Callable[[], Any]] = {
    "PReLU": layers.PReLU,
    "Softmax": lambda: layers.Softmax(axis=2),
    "LayerNormalization": lambda: layers.LayerNormalization(axis=(1, 2, 3)),
    "MaxPooling": lambda: layers.MaxPooling2D(3, 1, "same"),
    "own": lambda: layers.Activation(lambda x: x - ops.mean(x, axis=(1, 2), keepdims=True)),
    "cumsum": lambda: lambda x: ops.cumsum(x, axis=1),
    "per pixel": lambda: lambda x: ops.maximum(x, np.linspace(0, 1, 9).reshape(1, 9, 1, 1)),
    "along rows": lambda: lambda x: layers.Concatenate(axis=1)([ops.tanh(x), x]),
}  # fmt: skip
READERS: dict[str, tuple[Callable[[Any], Any], int]] = {  # what reads, and the pixels it needs
    "strided": (lambda x: layers.Conv2D(2, 1, strides=2)(x), 25),
    "unequal": (lambda x: layers.Conv2D(2, 1, strides=(3, 2))(x), 15),
    "slice": (lambda x: x[:, 1::3, ::2], 15),
    "crop": (lambda x: layers.Cropping2D(((2, 1), (0, 4)))(x), 30),
    "row": (lambda x: x[:, 4], 9),
    "pool": (lambda x: layers.AveragePooling2D(1, 4)(x), 9),
    "two": (lambda x: (layers.Conv2D(2, 1, strides=2)(x), x[:, ::4, ::4]), 25),
    "unread rest": (lambda x: layers.AveragePooling2D(4)(x), 64),
}


def built(body: Callable[[Any], Any], shape: tuple = (9, 9, 3)) -> keras.Model:
    """What is made of a convolution of images, in float64."""
    with policy("float64"):
        inputs = keras.Input(shape)
        return randomise(keras.Model(inputs, body(layers.Conv2D(4, 3, padding="same")(inputs))))


def computed(model: keras.Model, objective: str = "macs") -> int:
    """Pixels that the first convolution gives after a fold, every answer of which is right."""
    folded = kerasfold.fold(model, objective=objective, verify=False)
    assert_same(model, folded, FLOAT64)
    (conv,) = (layer for layer in folded.layers if getattr(layer, "kernel_size", 0) == (3, 3))
    return int(np.prod(conv.output.shape[1:-1]))


@pytest.mark.parametrize("name", BY_PIXEL)
def test_what_works_by_pixel_lets_a_stride_pass(name: str) -> None:
    assert computed(built(lambda x: layers.Conv2D(2, 1, strides=2)(BY_PIXEL[name]()(x)))) == 25


@pytest.mark.parametrize("name", NOT_BY_PIXEL)
def test_what_looks_at_other_pixels_reads_all(name: str) -> None:
    assert computed(built(lambda x: layers.Conv2D(2, 1, strides=2)(NOT_BY_PIXEL[name]()(x)))) == 81


@pytest.mark.parametrize("name", READERS)
def test_what_is_read_is_computed(name: str) -> None:
    reads, pixels = READERS[name]
    assert computed(built(lambda x: reads(layers.ReLU()(x)))) == pixels


def test_a_gate_reads_all_that_it_is_made_of() -> None:
    def body(x: Any) -> Any:
        gate = ops.mean(ops.sigmoid(x), axis=(1, 2), keepdims=True)
        return layers.Conv2D(2, 1, strides=2)(ops.tanh(x) * gate)

    assert computed(built(body)) == 81


def residual(inline: bool, size: int) -> keras.Model:
    """A block whose output strided convolutions alone read."""

    def body(x: Any) -> Any:
        y = x = layers.ReLU()(x)
        y = layers.Conv2D(4, 3, padding="same", activation="relu" if inline else None)(y)
        y = y if inline else layers.ReLU()(layers.BatchNormalization()(y))
        x = layers.ReLU()(x + layers.BatchNormalization()(layers.Conv2D(4, 1)(y)))
        return [layers.Conv2D(3, 1, strides=2)(x), layers.Conv2D(5, 1, strides=2)(x)]

    return built(body, (size, size, 3))


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("size", [8, 9])
def test_a_residual_block_before_strided_ones(inline: bool, size: int) -> None:
    model = residual(inline, size)
    folded = kerasfold.fold(model, objective="macs", verify=False)
    assert_same(model, folded, FLOAT64)
    report = folded.fold_report
    every, needed = size**2, (-(-size // 2)) ** 2
    # The first convolution, the second and the 1x1 of the block, and the two that read it.
    after = 108 * every + (144 + 16 + 12 + 20) * needed
    assert report.macs_after <= after + 4 * every  # a scale
    again = kerasfold.fold(folded, objective="macs", verify=False).fold_report
    assert again.macs_after == report.macs_after


@pytest.mark.parametrize("objective", ["latency", "params", "layers"])
def test_what_is_narrowed_is_right_under_every_objective(objective: str) -> None:
    for inline, size in itertools.product((False, True), (8, 9, 40)):
        model = residual(inline, size)
        assert_same(model, kerasfold.fold(model, objective=objective, verify=False), FLOAT64)


def test_the_report_names_what_computes_less() -> None:
    with policy("float64"):
        inputs = keras.Input((9, 9, 3))
        x = layers.Conv2D(4, 3, activation="tanh", name="first")(inputs)
        x = layers.ReLU(name="second")(layers.Conv2D(4, 1, name="linear")(x))
        model = keras.Model(inputs, layers.Conv2D(2, 1, strides=2, name="last")(x))
    report = kerasfold.fold(model, objective="macs").fold_report
    assert report.narrowed == ("first", "second")
    assert "read alone: first, second" in str(report)
    assert report.to_dict()["narrowed"] == ["first", "second"]


def test_resnet50_by_count() -> None:
    model = keras.applications.ResNet50(weights=None)
    report = kerasfold.explain(model)
    assert report.macs_before - report.macs_after >= 375_700_000


@pytest.mark.parametrize("rank", [1, 3])
def test_of_any_rank(rank: int) -> None:
    conv = getattr(layers, f"Conv{rank}D")
    with policy("float64"):
        model = chain(
            (9,) * rank + (2,), conv(3, 3, padding="same"), layers.ReLU(), conv(2, 1, strides=2)
        )
    folded = kerasfold.fold(model, objective="macs", verify=False)
    assert_same(model, folded, FLOAT64)
    (relu,) = (layer for layer in folded.layers if isinstance(layer, layers.ReLU))
    assert relu.output.shape[1:-1] == (5,) * rank


def test_what_the_model_returns_is_whole() -> None:
    def body(x: Any) -> Any:
        x = layers.ReLU()(x)
        return x, layers.Conv2D(2, 1, strides=2)(x)

    assert computed(built(body)) == 81


def test_readers_that_need_all_together() -> None:
    def body(x: Any) -> Any:
        x = layers.ReLU()(x)
        return layers.Conv2D(2, 1, strides=2)(x), layers.Conv2D(2, 1, strides=2)(x[:, 1:, 1:])

    assert computed(built(body)) == 81


def test_a_dropout_that_stays_random_reads_all() -> None:
    def body(x: Any) -> Any:
        return layers.Conv2D(2, 1, strides=2)(layers.Dropout(0.5)(x, training=True))

    with policy("float64"):
        inputs = keras.Input((9, 9, 3))
        model = keras.Model(inputs, body(layers.Conv2D(4, 3, padding="same")(inputs)))
    folded = kerasfold.fold(model, objective="macs", verify=False)
    assert folded.layers[1].output.shape[1] == 9


def axes() -> list[Axis]:
    """Of every kind, as far as they give an output."""
    found = []
    for size, taps, stride, dilation, upsampling in itertools.product(
        (1, 5, 8), (1, 2, 3), (1, 2, 3), (1, 2), (1, 2)
    ):
        for crop, pad in itertools.product(((0, 0), (1, 0), (0, 2)), ((0, 0), (1, 1), (0, 2))):
            axis = Axis(size, taps, stride, dilation, upsampling, crop, pad)
            if size > sum(crop) and axis.out is not None and axis.out > 0:
                found.append(axis)
    return found


def test_places_read_against_what_a_change_of_them_changes() -> None:
    rng = np.random.default_rng(0)
    for axis in axes():
        assert axis.size is not None
        assert axis.out is not None
        wanted = rng.random(axis.out) < 0.4
        low, high = axis.crop
        seen = []
        for place in range(axis.size):
            x = np.zeros(axis.size)
            x[place] = 1.0
            x = x[low : axis.size - high]
            spread = np.zeros(axis.upsampling * (x.size - 1) + 1)
            spread[:: axis.upsampling] = x
            padded = np.pad(spread, axis.pad)
            reads = [
                padded[p * axis.stride : p * axis.stride + axis.span : axis.dilation].any()
                for p in np.flatnonzero(wanted)
            ]
            seen.append(any(reads))
        places = places_read(axis, wanted)
        for_all, told = places_read(axis, None), places_read(axis, np.ones(axis.out, bool))
        assert (for_all is None) is (told is None), axis
        assert np.array_equal(for_all, told), axis
        assert (np.ones(axis.size, bool) if places is None else places).tolist() == seen, axis


@pytest.mark.parametrize("places", ["1010101", "0100100", "0011100", "0000010", "1111111"])
def test_a_progression_holds_all_places(places: str) -> None:
    wanted = np.array([c == "1" for c in places])
    cut = progression(wanted)
    assert np.arange(7)[cut].tolist() == np.flatnonzero(wanted).tolist()


def test_a_layer_that_is_kept_before_a_cut_gives_all_of_its_pixels() -> None:
    with policy("float64"):
        inputs = keras.Input((8, 8, 4), dtype="float64")
        padded = layers.ZeroPadding2D(((0, 2), (1, 0)))(inputs)
        dense = layers.Dense(5, activation="tanh")(padded)
        flat = layers.Flatten()(layers.AveragePooling2D((1, 3), strides=2)(dense))
        model = randomise(keras.Model(inputs, [flat, layers.MaxPooling2D(3, 1, "same")(padded)]))
    folded = kerasfold.fold(model, "layers", verify=False)
    assert [y.shape for y in folded.outputs] == [y.shape for y in model.outputs]
    assert_same(model, folded, FLOAT64)


def test_demand_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []

    def counted(regions: Any) -> Any:
        found.append(regions)
        return demands(regions)

    monkeypatch.setattr(narrowed, "demands", counted)
    kerasfold.explain(built(lambda x: layers.Conv2D(2, 3)(layers.ReLU()(x))))
    assert len(found) == 1

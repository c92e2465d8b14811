"""No axis with a single window keeps a stride: some runtimes compute such convolutions wrongly."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from zoo.making import chain, randomise
from zoo.same import in_float64, run

WINDOWS = ((1, 3), (3, 1), (5, 7), (2, 2), (3, 3))
CALLS = [
    (kind, {"kernel_size": window, "strides": strides, "padding": padding})
    for kind, strided in (
        (layers.Conv2D, ((1, 2), (2, 1), (2, 3), 2)),
        (layers.DepthwiseConv2D, (2, 3)),
        (layers.SeparableConv2D, (2, 3)),
    )
    for window, strides, padding in itertools.product(WINDOWS, strided, ("valid", "same"))
]


def idle(model: keras.Model) -> list[str]:
    """Layers that have a stride along an axis with a single window, where they need not."""
    found = []
    for layer in model.layers:
        strides = getattr(layer, "strides", None)
        if strides is None or not layer.weights:
            continue
        sizes = layer.output.shape[1:-1]
        kept = [s for s, n in zip(strides, sizes, strict=True) if s > 1 and n == 1]
        needed = [s for s, n in zip(strides, sizes, strict=True) if s > 1 and n != 1]
        depthwise = isinstance(layer, (layers.DepthwiseConv2D, layers.SeparableConv2D))
        if kept and not (depthwise and needed):
            found.append(layer.name)
    return found


def assert_right(model: keras.Model, folded: keras.Model, x: np.ndarray) -> None:
    """The fold is right, whatever the backend makes of the original in float32."""
    (truth,), (got,) = run(in_float64(model), x), run(folded, x)
    scale = np.abs(truth).max()
    assert np.abs(got - truth).max() <= 1e-5 * scale


@pytest.mark.parametrize(("kind", "options"), CALLS, ids=str)
def test_a_call_that_is_kept(kind: Any, options: dict[str, Any]) -> None:
    filters = {} if kind is layers.DepthwiseConv2D else {"filters": 2}
    for channels, width in itertools.product((1, 3), (2, 7, 8)):
        if options["padding"] == "valid" and width < options["kernel_size"][1]:
            continue
        model = chain((7, width, channels), kind(**filters, **options))
        folded = kerasfold.fold(model, verify=False)
        assert idle(folded) == []
        x = np.random.default_rng(0).normal(size=(3, 7, width, channels)).astype("float32")
        assert_right(model, folded, x)


@pytest.mark.parametrize(
    ("shape", "stack"),
    [
        ((18, 7, 1), lambda: [layers.Conv2D(2, 3, strides=(1, 2)), layers.DepthwiseConv2D(3)]),
        (
            (18, 9, 1),
            lambda: [layers.Conv2D(2, 3, strides=(1, 2)), layers.DepthwiseConv2D((3, 4))],
        ),
        (
            (6, 18, 7, 1),
            lambda: [layers.Conv3D(2, 3, strides=(1, 1, 2)), layers.Conv3D(1, (1, 2, 3))],
        ),
        ((9, 1), lambda: [layers.Conv1D(2, 5, strides=2), layers.Conv1D(2, 3)]),
        ((7, 7, 2), lambda: [layers.DepthwiseConv2D(3, strides=2), layers.DepthwiseConv2D(3)]),
    ],
)
def test_what_is_merged(shape: tuple[int, ...], stack: Any) -> None:
    model = chain(shape, *stack())
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert folded.fold_report.layers_after == 1
    assert idle(folded) == []
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")
    assert_right(model, folded, x)


def test_a_stride_that_is_needed_stays() -> None:
    model = chain((9, 9, 1), layers.Conv2D(2, 3, strides=2, padding="same"))
    assert kerasfold.fold(model).layers[-1].strides == (2, 2)


def test_such_a_call_is_reported_as_kept() -> None:
    model = chain((6, 3, 1), layers.Conv2D(2, (1, 3), strides=(1, 3), padding="same", name="odd"))
    folded = kerasfold.fold(model)
    assert [row.layer for row in folded.fold_report.kept] == ["odd"]
    assert folded.fold_report.merged == ()
    assert [x.strides for x in folded.layers if x.weights] == [(1, 1)]


def test_its_activation_and_its_name_stay() -> None:
    layer = layers.Conv2D(2, (1, 3), strides=(1, 2), padding="same", activation="relu", name="odd")
    folded = kerasfold.fold(randomise(chain((6, 2, 1), layer)))
    assert folded.layers[-1].name == "odd"
    assert folded.layers[-1].activation is keras.activations.relu


def odd(**settings: Any) -> keras.Layer:
    return layers.Conv2D(2, (1, 3), strides=(1, 2), padding="same", name="odd", **settings)


@pytest.mark.parametrize(
    "settings",
    [{"kernel_regularizer": "l2"}, {"bias_constraint": keras.constraints.NonNeg()}],
    ids=["regularizer", "constraint"],
)
def test_a_layer_with_more_to_it_than_weights_is_kept_as_it_is(settings: dict[str, Any]) -> None:
    (name,) = settings
    folded = kerasfold.fold(chain((6, 2, 1), odd(**settings)), verify=False)
    assert getattr(folded.get_layer("odd"), name) is not None


def test_a_layer_that_is_called_at_two_sizes_stays_one() -> None:
    layer = odd()
    inputs = [keras.Input((6, width, 1)) for width in (2, 9)]
    model = randomise(keras.Model(inputs, [layer(x) for x in inputs]))
    folded = kerasfold.fold(model, verify=False)
    assert folded.count_params() == model.count_params()


def test_constants_that_an_operation_is_called_with_become_no_weights() -> None:
    x = keras.Input((4, 1, 2))
    kernel = np.ones((3, 2, 2, 5), "float32")
    model = keras.Model(x, keras.ops.conv(x, kernel, strides=2, padding="same"))
    assert kerasfold.fold(model, objective="params").count_params() == 0


def test_the_original_that_measuring_hands_out_has_none_either() -> None:
    model = chain((6, 2, 1), odd(), layers.ReLU())
    folded = kerasfold.fold(model, "measured", budget=5.0)
    assert idle(folded) == []


def test_strips_of_a_frame_have_none() -> None:
    """One column of a strided image of one channel, beside an interior."""
    same = {"padding": "same", "kernel_size": 3}
    stack = [layers.Conv2D(24, **same), layers.Conv2D(1, strides=2, **same)]
    for objective in ("latency", "macs", "layers"):
        model = chain((24, 24, 1), *(type(x).from_config(x.get_config()) for x in stack))
        folded = kerasfold.fold(model, objective=objective, verify=False)
        assert idle(folded) == []


def test_a_separable_layer_of_one_channel_keeps_equal_strides() -> None:
    separable = layers.SeparableConv2D(8, 3, strides=2)
    model = chain((3, 9, 1), layers.ReLU(), separable, layers.BatchNormalization(), layers.ReLU())
    folded = kerasfold.fold(model, "macs")
    assert [layer.strides for layer in folded.layers if layer.weights] == [(2, 2)]
    assert_right(model, folded, np.random.default_rng(0).normal(size=(2, 3, 9, 1)))

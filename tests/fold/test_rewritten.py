"""A convolution in as many groups as channels becomes the depthwise layer that it equals."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from keras import layers

import kerasfold
from kerasfold.rooflines import ROOFLINES
from zoo.making import chain, randomise
from zoo.same import FLOAT32, FLOAT64, assert_same, kinds


def grouped(**settings: Any) -> keras.Layer:
    return layers.Conv2D(**{"filters": 4, "kernel_size": 3, "groups": 4, "name": "dw"} | settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"filters": 96, "padding": "same"},
        {"strides": 2, "padding": "same", "activation": "relu"},
        {"dilation_rate": 2, "use_bias": False},
    ],
    ids=str,
)
def test_in_two_dimensions(settings: dict[str, Any]) -> None:
    layer = grouped(**{"filters": 32, "groups": 32} | settings)
    model = chain((112, 96, 32), layers.ReLU(), layer, dtype="float64")
    folded = kerasfold.fold(model, verify=False)
    assert kinds(folded) == ["ReLU", "DepthwiseConv2D"]
    assert folded.layers[-1].activation is model.layers[-1].activation
    assert_same(model, folded, FLOAT32)


@pytest.mark.parametrize("padding", ["same", "causal"])
def test_in_one_dimension(padding: str) -> None:
    layer = layers.Conv1D(64, 3, groups=32, padding=padding, dtype="float64")
    model = chain((900, 32), layers.ReLU(dtype="float64"), layer, dtype="float64")
    folded = kerasfold.fold(model, verify=False)
    assert kinds(folded)[-1] == "DepthwiseConv1D"
    assert_same(model, folded, FLOAT64)


def test_the_report_says_so() -> None:
    report = kerasfold.explain(chain((30, 24, 4), layers.ReLU(), grouped()))
    (reason,) = (row.reason for row in report.kept if row.layer == "dw")
    assert "written as the DepthwiseConv2D layer" in reason


def test_what_no_depthwise_layer_says_stays() -> None:
    fewer = chain((30, 24, 4), layers.ReLU(), grouped(groups=2))
    unequal = chain((30, 24, 4), layers.ReLU(), grouped(strides=(1, 2)))
    for model in (fewer, unequal):
        assert kinds(kerasfold.fold(model, verify=False))[-1] == "Conv2D"


def test_a_restrained_layer_is_kept_as_it_is() -> None:
    folded = kerasfold.fold(chain((9, 8, 4), grouped(kernel_regularizer="l2")), verify=False)
    assert folded.get_layer("dw").kernel_regularizer is not None


def test_a_shared_layer_stays_one() -> None:
    layer = grouped()
    inputs = [keras.Input((size, 8, 4)) for size in (7, 9)]
    model = randomise(keras.Model(inputs, [layer(x) for x in inputs]))
    folded = kerasfold.fold(model, verify=False)
    assert type(folded.get_layer("dw")) is layers.Conv2D
    assert folded.count_params() == model.count_params()


@pytest.mark.parametrize(
    "settings",
    [{"filters": 64}, {"filters": 64, "kernel_size": 1, "dilation_rate": 2}],
    ids=str,
)
def test_what_a_runtime_computes_as_the_same_stays(settings: dict[str, Any]) -> None:
    """Under XLA both are one call, which was 0.86 times as fast without a dilation by 2."""
    layer = grouped(groups=32, **settings)
    model = chain((112, 96, 32), layers.ReLU(), layer)
    ends = {r: kinds(model.fold(runtime=r, verify=False))[-1] for r in ("xla", "tensorflow")}
    assert ends == {"xla": "Conv2D", "tensorflow": "DepthwiseConv2D"}


@pytest.mark.parametrize("runtime", ROOFLINES)
@pytest.mark.parametrize(
    "settings", [{}, {"filters": 12}, {"filters": 8, "kernel_size": 1}], ids=str
)
def test_a_normalisation_behind_it_merges_into_it(settings: dict[str, Any], runtime: str) -> None:
    norm = layers.BatchNormalization()
    model = chain((10, 12, 4), layers.ReLU(), grouped(**settings), norm, layers.ReLU())
    folded = model.fold(runtime=runtime)
    assert kinds(folded) == ["ReLU", "DepthwiseConv2D", "ReLU"]

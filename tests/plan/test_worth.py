"""Nothing slower: a step costs what it does, and no merge is slower, or larger for little."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from kerasfold.algebra.axis import Axis
from kerasfold.algebra.geometry import Geometry
from kerasfold.cost import Cost, Prices
from kerasfold.forms import worth
from kerasfold.forms.worth import GAIN, gain, growth
from kerasfold.rooflines import ROOFLINES, Load
from zoo.making import randomise
from zoo.same import FLOAT32, assert_same, kinds

Step = Callable[[Any], Any]


def c(channels: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.5, 2.0, channels).astype("float32")


def between(shape: tuple[int, ...], *steps: Step, end: Step | None = None) -> keras.Model:
    """Steps behind a nonlinearity, and before one unless told."""
    x = inputs = keras.Input(shape)
    for step in (layers.ReLU(), *steps, end or layers.ReLU()):
        x = step(x)
    return randomise(keras.Model(inputs, x))


def of_two(shape: tuple[int, ...], join: Callable[[Any, Any], Any]) -> keras.Model:
    """A function of two nonlinear tensors."""
    x = keras.Input(shape)
    return randomise(keras.Model(x, layers.ReLU()(join(layers.ReLU()(x), layers.ELU()(x)))))


def classifier() -> keras.Model:
    convs = [layers.Conv2D(n, 3, activation="relu") for n in (8, 16)]
    ends = [layers.GlobalAveragePooling2D(), layers.Dense(10)]
    return randomise(keras.Sequential([keras.Input((30, 30, 3)), *convs, *ends]))


# Models that are as fast as they get; and the multiply-accumulates that they do.
KEPT: dict[str, tuple[Callable[[], keras.Model], int]] = {
    "a_slice_and_a_sum": (
        lambda: between((112, 112, 64), lambda x: x[..., :32] + c(32)),
        0,
    ),
    "a_split_and_a_swap": (
        lambda: between((28, 28, 16), lambda x: layers.Concatenate()(ops.split(x, 2, -1)[::-1])),
        0,
    ),
    "a_selection_and_a_sum": (
        lambda: between((28, 28, 16), lambda x: ops.take(x, [3, 1, 9], axis=-1) + c(3)),
        0,
    ),
    "a_padding_and_a_pool": (
        lambda: between((56, 56, 8), layers.ZeroPadding2D(1), layers.AveragePooling2D(3, 2)),
        28 * 28 * 9 * 8,
    ),
    "scaled_terms_of_a_sum": (
        lambda: of_two((28, 28, 16), lambda a, b: a * c(16) + b * 0.5),
        2 * 28 * 28 * 16,
    ),
    "a_mean_of_all_pixels_and_a_matrix": (
        lambda: between(
            (56, 56, 8), layers.GlobalAveragePooling2D(), layers.Dense(1), end=layers.Identity()
        ),
        56 * 56 * 8 + 8,
    ),
    "a_flattened_image_and_a_matrix": (
        lambda: between((7, 7, 8), layers.Flatten(), layers.Dense(16)),
        7 * 7 * 8 * 16,
    ),
    "a_classifier": (classifier, 28 * 28 * 216 + 26 * 26 * 1152 + 26 * 26 * 16 + 160),
}


@pytest.mark.parametrize(("make", "macs"), KEPT.values(), ids=KEPT)
def test_what_is_as_fast_as_it_gets_is_kept(make: Callable[[], keras.Model], macs: int) -> None:
    model = make()
    report = kerasfold.explain(model)
    assert not report.merged, str(report)
    assert report.macs_before == report.macs_after == macs


def test_a_convolution_in_as_many_groups_as_channels_is_depthwise() -> None:
    model = between((14, 14, 8), layers.Conv2D(8, 3, groups=8, padding="same"))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT32)
    assert kinds(folded) == ["ReLU", "DepthwiseConv2D", "ReLU"]


def test_shifted_terms_of_a_sum_are_shifted_once_and_become_no_layers() -> None:
    model = of_two((28, 28, 16), lambda a, b: (a + c(16)) + (b - 1.0))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT32)
    assert not folded.weights
    assert folded.fold_report.layers_after == 2
    assert folded.fold_report.macs_after == 0


def test_a_scale_still_goes_into_the_convolution_beside_it() -> None:
    model = between((28, 28, 8), layers.Conv2D(16, 3), lambda x: x[..., 4:12] * c(8) + 1.0)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT32)
    assert kinds(folded) == ["ReLU", "Conv2D", "ReLU"]
    assert folded.layers[-2].filters == 8


def test_what_grew_is_said() -> None:
    model = between((56, 56, 8), layers.Conv2D(128, 3), layers.Conv2D(8, 3))
    (merged,) = kerasfold.explain(model).merged
    assert merged.kind == "Conv2D 5x5"
    wide = [layers.DepthwiseConv2D(3, use_bias=False), layers.Conv2D(8, 1, use_bias=False)]
    (merged,) = kerasfold.explain(between((28, 28, 2), *wide)).merged
    assert "144 weights in place of 34" in merged.grown
    assert "times the speed as predicted" in merged.grown


def twice_called(steps: int) -> keras.Model:
    """A convolution that is called twice, once behind steps that could merge into it."""
    x, y = inputs = [keras.Input((14, 14, 4)) for _ in range(2)]
    for _ in range(steps):
        x = layers.DepthwiseConv2D(1, use_bias=False)(x)
    conv = layers.Conv2D(4, 3, name="shared", use_bias=False)
    return randomise(keras.Model(inputs, [layers.ReLU()(conv(x)), layers.ReLU()(conv(y))]))


def test_weights_that_are_shared_no_longer_count_for_each_call() -> None:
    model = twice_called(1)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT32)
    assert folded.count_params() == model.count_params()
    assert "288 weights in place of 148" in str(folded.fold_report.kept)


def test_what_is_shared_no_longer_is_said_where_it_is_worth_it() -> None:
    model = twice_called(4)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT32)
    assert folded.count_params() == 2 * 144
    (merged,) = folded.fold_report.merged
    assert "288 weights in place of 160" in merged.grown


def test_what_is_slower_on_one_runtime_is_slower() -> None:
    had, now = Cost(seconds=(2e-5, 1e-5)), Cost(seconds=(1e-5, 1.1e-5))
    assert Prices().slower(had, now) == "under XLA"
    assert Prices().slower(now, had) == "on TensorFlow"
    assert Prices().slower(had, had) == ""
    assert gain(had, now) < 1 < GAIN


@pytest.mark.parametrize(
    ("before", "after", "grows"),
    [
        ((100, 100), (149, 149), ""),
        ((100, 100), (150, 149), "150 weights in place of 100"),
        ((100, 100), (149, 151), "151 multiplications in place of 100"),
        ((0, 100), (1, 100), "1 weights in place of 0"),
    ],
)
def test_growth(before: tuple[int, int], after: tuple[int, int], grows: str) -> None:
    had, now = (Cost(macs=m, params=p, seconds=(1.0, 1.0)) for p, m in (before, after))
    found = growth(had, now)
    assert found.startswith(grows)
    assert bool(found) == bool(grows)


@pytest.mark.parametrize("name", ROOFLINES)
def test_more_work_never_takes_less(name: str) -> None:
    roofline = ROOFLINES[name]
    for kind in roofline.rates:
        times = [
            roofline.seconds(kind, Load(n * 1e4, n * 1e4, n * 1e5, n * 1e4, n * 1e3))
            for n in range(1, 9)
        ]
        assert times == sorted(times)
        assert times[0] > 0


def test_constants_are_weights_that_an_operation_had() -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype("float32")
    model = between((28, 28, 8), lambda x: ops.conv(x, kernel), layers.BatchNormalization())
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT32)
    assert kinds(folded) == ["ReLU", "Conv2D", "ReLU"]


def test_a_matrix_stays_one_whatever_layer_says_it() -> None:
    matrix = np.random.default_rng(0).normal(size=(8, 16)).astype("float32")
    einsum = layers.EinsumDense("abcd,de->abce", (None, 9, 16), bias_axes="e")
    for step in (lambda x: ops.matmul(x, matrix) + c(16), einsum):
        model = between((10, 9, 8), step, layers.BatchNormalization())
        folded = kerasfold.fold(model, verify=False)
        assert_same(model, folded, FLOAT32)
        assert kinds(folded) == ["ReLU", "Dense", "ReLU"]


def test_a_depthwise_layer_that_pads_is_no_scale_under_xla() -> None:
    model = between((28, 14, 16), layers.ZeroPadding2D(1), layers.DepthwiseConv2D(1))
    folded = kerasfold.fold(model)
    assert kinds(folded) == ["ReLU", "ZeroPadding2D", "DepthwiseConv2D", "ReLU"]
    assert not folded.fold_report.merged


def test_a_depthwise_layer_of_what_is_padded_is_no_scale_either() -> None:
    steps = [layers.ZeroPadding2D(1), lambda x: x * c(16), layers.DepthwiseConv2D(1)]
    model = between((28, 14, 16), *steps, lambda x: x * c(16), end=layers.ELU())
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT32)
    (merged,) = folded.fold_report.merged
    assert [name.split("_")[0] for name in merged.layers] == ["depthwise", "multiply"]


def test_a_matrix_product_of_what_is_padded_is_a_convolution_under_xla() -> None:
    """What stands between the zeros and the product stays there, and keeps it one."""
    steps = [layers.ZeroPadding2D(1), lambda x: layers.Add()([x, x]), layers.SeparableConv2D(16, 1)]
    folded = kerasfold.fold(model := between((28, 7, 3), *steps), verify=False)
    assert_same(model, folded, FLOAT32)
    assert kinds(folded) == ["ReLU", "ZeroPadding2D", "Add", "Conv2D", "ReLU"]
    model = between((28, 7, 3), layers.ZeroPadding2D(1), layers.SeparableConv2D(16, 1))
    assert kinds(kerasfold.fold(model, verify=False)) == ["ReLU", "ZeroPadding2D", "Conv2D", "ReLU"]


def test_a_depthwise_layer_of_pixels_and_a_normalisation_are_one() -> None:
    steps = [layers.ZeroPadding2D(1), layers.DepthwiseConv2D(1), layers.BatchNormalization()]
    model = between((28, 14, 16), *steps)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT32)
    assert kinds(folded) == ["ReLU", "ZeroPadding2D", "BatchNormalization", "ReLU"]


def test_few_groups_of_a_small_volume_do_not_become_one() -> None:
    model = between((3, 9, 3, 8), layers.Conv3D(16, 3, groups=2), lambda x: x[..., :1] * 2.0)
    assert kerasfold.fold(model).layers[2].groups == 2


def test_a_volume_repeated_before_a_convolution_is_no_transposed_one() -> None:
    model = between((4, 4, 4, 8), layers.UpSampling3D(2), layers.Conv3D(8, 3, padding="same"))
    assert kinds(kerasfold.fold(model)) == ["ReLU", "UpSampling3D", "Conv3D", "ReLU"]


def test_groups_of_few_pixels_stay_as_they_are() -> None:
    small = between((3, 3, 4), layers.Conv2D(4, 3, groups=4, padding="same"))
    assert kinds(kerasfold.fold(small)) == ["ReLU", "Conv2D", "ReLU"]


def test_a_normalisation_merges_into_groups_of_one_channel_of_small_images() -> None:
    conv = layers.Conv2D(4, 3, groups=4)
    model = between((8, 8, 4), conv, layers.BatchNormalization())
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT32)
    assert kinds(folded) == ["ReLU", "DepthwiseConv2D", "ReLU"]


def test_a_depthwise_layer_of_sequences_costs_its_reshapes() -> None:
    axis = Axis(taps=3, size=64)
    of_images = Geometry((axis, replace(axis, taps=1, size=1)), channels=(8, 8), groups=8)
    of_sequences = replace(of_images, axes=(axis,))
    assert Prices().operator(of_sequences).seconds > Prices().operator(of_images).seconds


def test_no_kernel_is_immense_and_many_times_what_it_is_made_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one of 11 x 11 x 768 x 3072, for which there was no memory."""
    narrow = layers.DepthwiseConv2D(7, name="narrow")
    model = between((12, 13, 4), narrow, layers.Conv2D(16, 1))
    assert kinds(model.fold("layers")) == ["ReLU", "Conv2D", "ReLU"]
    monkeypatch.setattr(worth, "IMMENSE", 3000)
    folded = model.fold("layers")
    assert kinds(folded) == ["ReLU", "DepthwiseConv2D", "Conv2D", "ReLU"]
    (kept,) = (row for row in folded.fold_report.kept if row.layer == "narrow")
    assert kept.code == "KF401"
    assert kept.reason.startswith("3,152 weights in place of 280")


def test_an_immense_kernel_of_much_still_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worth, "IMMENSE", 3000)
    model = between((12, 13, 4), layers.Conv2D(40, 3), layers.Conv2D(4, 1), layers.Conv2D(40, 3))
    assert kinds(model.fold("layers")) == ["ReLU", "Conv2D", "ReLU"]

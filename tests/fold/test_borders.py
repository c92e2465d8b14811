"""Padding between two layers: exact along the borders too, or left alone with the reason.

All models are float64, so Keras's own outputs are the oracle; the image is small, so that most
of it is border.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.forms.evaluate import alike, evaluate
from kerasfold.lift.regions import lifted
from zoo.blocks import conv, same
from zoo.making import chain, policy, randomise
from zoo.same import FLOAT64, ONLY_FLOAT32, assert_same, kinds

OBJECTIVES = ("latency", "macs", "params", "layers")


pytestmark = pytest.mark.usefixtures("float64")


def batchnorm() -> keras.Layer:
    return layers.BatchNormalization(name="bn")


def on_float32(shape: Any, *stack: keras.Layer) -> keras.Model:
    """Of float64 layers, on an input that is float32 as Keras makes it."""
    return chain(shape, *stack, dtype="float32")


Shape = tuple[int | None, ...]
# name: input shape, layers, size of an unknown axis
EXACT: dict[str, tuple[Shape, Callable[[], list[keras.Layer]]]] = {
    "same_same": ((7, 6, 3), lambda: [same(), same()]),
    "same_same_no_bias": ((7, 6, 3), lambda: [same(use_bias=False), same(use_bias=False)]),
    "expand_then_project": ((8, 8, 3), lambda: [same(32), same(2)]),
    "same_5x5_same_3x3": ((6, 9, 2), lambda: [same(4, 5), same(3, 3)]),
    "pool_drops_a_row": ((5, 5, 2), lambda: [layers.AveragePooling2D(2), same()]),
    "pool_drops_nothing": ((6, 6, 2), lambda: [layers.AveragePooling2D(2), same()]),
    "pool_drops_one_side": ((6, 7, 2), lambda: [layers.AveragePooling2D(2), same(), same()]),
    "crop_then_pad": ((8, 7, 2), lambda: [layers.Cropping2D(1), layers.ZeroPadding2D(1), conv()]),
    "crop_then_same": ((8, 7, 2), lambda: [layers.Cropping2D(((2, 0), (0, 1))), same()]),
    "pad_then_crop": ((8, 7, 2), lambda: [layers.ZeroPadding2D(2), layers.Cropping2D(1), conv()]),
    "conv_crop_pad_conv": (
        (9, 8, 2),
        lambda: [conv(use_bias=False), layers.Cropping2D(1), layers.ZeroPadding2D(1), conv()],
    ),
    "pad_crop_pad": (
        (6, 6, 2),
        lambda: [layers.ZeroPadding2D(1), layers.Cropping2D(2), layers.ZeroPadding2D(3), conv()],
    ),
    "crop_to_one_pixel_then_same": ((5, 5, 2), lambda: [layers.Cropping2D(2), same(), same()]),
    "batchnorm_before_same": ((6, 6, 3), lambda: [batchnorm(), same()]),
    "pointwise_bias_before_same": ((6, 6, 3), lambda: [conv(8, 1), same()]),
    "pointwise_no_bias_before_same": ((6, 6, 3), lambda: [conv(8, 1, use_bias=False), same()]),
    "batchnorm_before_padding": ((6, 6, 3), lambda: [batchnorm(), layers.ZeroPadding2D(1), conv()]),
    "padding_then_batchnorm": ((6, 6, 3), lambda: [layers.ZeroPadding2D(1), batchnorm(), conv()]),
    "padding_batchnorm_only": ((6, 6, 3), lambda: [layers.ZeroPadding2D(1), batchnorm()]),
    "padding_then_valid": ((6, 6, 3), lambda: [layers.ZeroPadding2D(((3, 0), (1, 2))), conv()]),
    "padding_wider_than_kernel": ((3, 3, 2), lambda: [layers.ZeroPadding2D(5), conv()]),
    "padding_twice": (
        (4, 4, 2),
        lambda: [layers.ZeroPadding2D(1), layers.ZeroPadding2D(2), conv()],
    ),
    "padding_then_same": ((4, 5, 2), lambda: [layers.ZeroPadding2D(1), same()]),
    "same_then_valid": ((7, 6, 3), lambda: [same(), conv()]),
    "valid_then_same": ((7, 6, 3), lambda: [conv(), same()]),
    "same_valid_same": ((9, 8, 3), lambda: [same(), conv(), same()]),
    "same_then_batchnorm": ((7, 6, 3), lambda: [same(), batchnorm()]),
    "same_then_pointwise": ((7, 6, 3), lambda: [same(), conv(2, 1)]),
    "same_pool_same": ((8, 8, 3), lambda: [same(), layers.AveragePooling2D(2), same()]),
    "pool_same_alone": ((5, 6, 3), lambda: [layers.AveragePooling2D(3, 1, "same")]),
    "pool_same_then_batchnorm": (
        (5, 6, 3),
        lambda: [layers.AveragePooling2D(3, 2, "same"), batchnorm()],
    ),
    "batchnorm_then_pool_same": (
        (5, 6, 3),
        lambda: [batchnorm(), layers.AveragePooling2D(3, 2, "same")],
    ),
    "pool_same_then_conv": ((5, 6, 3), lambda: [layers.AveragePooling2D(3, 1, "same"), conv()]),
    "conv_then_pool_same": ((7, 6, 3), lambda: [conv(), layers.AveragePooling2D(3, 1, "same")]),
    "pointwise_then_pool_same": (
        (7, 6, 3),
        lambda: [conv(2, 1), layers.AveragePooling2D(3, 1, "same")],
    ),
    "pool_same_that_pads_nothing": (
        (6, 8, 3),
        lambda: [layers.AveragePooling2D(2, 2, "same"), conv()],
    ),
    "pool_larger_than_image_same": (
        (3, 2, 3),
        lambda: [layers.AveragePooling2D(5, 1, "same"), conv(2, 1)],
    ),
    "image_under_kernel": ((2, 1, 3), lambda: [same(4, 5), same(4, 3)]),
    "one_pixel": ((1, 1, 3), lambda: [same(), same()]),
    "image_under_composed_kernel": ((3, 3, 3), lambda: [same(4, 5), conv(2, 3)]),
    "strided_same_odd": ((9, 7, 3), lambda: [same(strides=2), same(strides=2)]),
    "strided_same_even": ((8, 12, 3), lambda: [same(strides=2), same(strides=2)]),
    "strided_same_then_valid_odd": ((13, 11, 3), lambda: [same(strides=2), conv()]),
    "strided_same_then_valid_even": ((12, 10, 3), lambda: [same(strides=2), conv()]),
    "strided_same_three": ((12, 12, 3), lambda: [same(4, 2, strides=3), conv(4, 2)]),
    "valid_then_strided_same": ((9, 8, 3), lambda: [conv(use_bias=False), same(strides=2)]),
    "stride_without_padding_needed": (
        (8, 8, 3),
        lambda: [conv(strides=2, k=2), same(2, 2, strides=2)],
    ),
    "even_kernels_same": ((7, 7, 3), lambda: [same(4, 4), same(4, 2)]),
    "dilated_same": ((9, 9, 3), lambda: [same(dilation_rate=2), same(dilation_rate=(1, 2))]),
    "depthwise_same_pointwise": (
        (7, 7, 3),
        lambda: [
            layers.DepthwiseConv2D(3, padding="same"),
            conv(2, 1),
            layers.DepthwiseConv2D(3, padding="same"),
        ],
    ),
    "separable_same_twice": (
        (7, 7, 3),
        lambda: [
            layers.SeparableConv2D(4, 3, padding="same"),
            layers.SeparableConv2D(4, 3, padding="same"),
        ],
    ),
    "same_batchnorm_twice": (
        (7, 7, 3),
        lambda: [same(), layers.BatchNormalization(), same(), layers.BatchNormalization()],
    ),
    "dropped_tail_then_crop_then_same": (
        (8, 8, 2),
        lambda: [layers.AveragePooling2D(3), layers.Cropping2D(((0, 1), (0, 0))), same()],
    ),
    "strided_valid_drops_tail_then_same": (
        (8, 9, 2),
        lambda: [conv(strides=3, use_bias=False), same()],
    ),
}
UNKNOWN = {"dims": (None, None), "one": (None, 8)}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", EXACT)
def test_equal_borders_included(name: str, objective: str) -> None:
    shape, stack = EXACT[name]
    model = on_float32(shape, *stack())
    folded = kerasfold.fold(model, objective=objective, verify=False)
    assert_same(model, folded, FLOAT64)
    report = folded.fold_report
    for what in OBJECTIVES[1:]:
        if what == objective:
            assert getattr(report, f"{what}_after") <= getattr(report, f"{what}_before"), str(
                report
            )


@pytest.mark.parametrize("unknown", UNKNOWN)
@pytest.mark.parametrize("name", [n for n in EXACT if "image" not in n and "one_pixel" not in n])
def test_unknown_sizes_equal_at_every_size(name: str, unknown: str) -> None:
    """One fold, tried at several sizes: odd, even, and smaller than the composed kernel."""
    shape, stack = EXACT[name]
    model = on_float32((UNKNOWN[unknown][0], UNKNOWN[unknown][1], shape[2]), *stack())
    folded = kerasfold.fold(model, objective="layers", verify=False)
    tried = 0
    for height, width in ((5, 8), (6, 8), (9, 8), (12, 8), (13, 8), (14, 8)):
        size = np.random.default_rng(height).normal(size=(2, height, width, shape[2]))
        try:
            expected = model(size, training=False)
        except Exception:
            continue
        if 0 in expected.shape:
            continue
        assert_same(model, folded, FLOAT64, inputs=size)
        tried += 1
    assert tried >= 2


@pytest.mark.parametrize(
    "name", ["same_same", "expand_then_project", "strided_same_odd", "valid_then_same"]
)
def test_verified_folds_of_same_models(name: str) -> None:
    shape, stack = EXACT[name]
    assert kerasfold.fold(on_float32(shape, *stack())).fold_report.equivalence.equivalent


# What must merge: nothing padded in between, an extension that is zero, or the pad moved.
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("padding_then_valid", 1),
        ("padding_wider_than_kernel", 1),
        ("padding_twice", 1),
        ("padding_then_same", 1),
        ("same_then_valid", 1),
        ("same_then_batchnorm", 1),
        ("same_then_pointwise", 1),
        ("strided_same_then_valid_odd", 1),
        ("strided_same_then_valid_even", 1),
        ("pointwise_no_bias_before_same", 1),
        ("pool_same_that_pads_nothing", 1),
        ("stride_without_padding_needed", 1),
        ("image_under_composed_kernel", 1),
        ("pad_then_crop", 1),
    ],
)
def test_merges_where_it_is_exact(name: str, count: int) -> None:
    shape, stack = EXACT[name]
    folded = kerasfold.fold(on_float32(shape, *stack()), objective="layers", verify=False)
    computing = [k for k in kinds(folded) if k not in ("ZeroPadding2D", "Cropping2D")]
    assert len(computing) == count, str(folded.fold_report)
    assert folded.fold_report.layers_after == count


@pytest.mark.parametrize("name", EXACT)
def test_what_stays_apart_says_why(name: str) -> None:
    """Affine from end to end: more than one layer is left only for a reason, in the report."""
    shape, stack = EXACT[name]
    folded = kerasfold.fold(on_float32(shape, *stack()), objective="layers", verify=False)
    report = folded.fold_report
    reasons = " ".join(row.reason for row in (*report.kept, *report.apart))
    pooled = any("Pooling" in row.kind for row in report.merged)
    assert report.layers_after <= 1 or pooled or "pad" in reasons or "border" in reasons, str(
        report
    )


@pytest.mark.parametrize(
    "name",
    [
        "same_same",
        "same_same_no_bias",
        "valid_then_same",
        "even_kernels_same",
        "dilated_same",
    ],
)
def test_refused(name: str) -> None:
    """No zero-padded kernel equals these; without a frame they stay two layers."""
    shape, stack = EXACT[name]
    folded = kerasfold.fold(on_float32(shape, *stack()), objective="layers", verify=False)
    assert kinds(folded) == ["Conv2D", "Conv2D"]
    assert any("pad" in row.reason for row in folded.fold_report.kept), str(folded.fold_report)


def test_naive_collapse_would_have_been_wrong() -> None:
    """The oracle can tell: one zero-padded 5x5 in place of two 3x3 differs at the borders only."""
    model = on_float32((9, 9, 1), same(1, use_bias=False), same(1, use_bias=False))
    a, b = (layer.kernel.numpy()[:, :, 0, 0] for layer in model.layers[1:])
    kernel = np.zeros((5, 5))
    for i in range(3):
        for j in range(3):
            kernel[i : i + 3, j : j + 3] += b[i, j] * a
    naive = on_float32((9, 9, 1), same(1, 5, use_bias=False))
    naive.layers[1].kernel.assign(kernel[:, :, None, None])
    x = np.random.default_rng(0).normal(size=(1, 9, 9, 1))
    difference = np.abs(model(x) - naive(x))[0, :, :, 0]
    assert difference[1:-1, 1:-1].max() < 1e-12 < 0.01 < difference.max()
    assert not kerasfold.verify(model, naive).equivalent


def test_collapsed_valid_stack_keeps_no_frame() -> None:
    model = on_float32((9, 9, 2), same(6), layers.AveragePooling2D(2), conv(3, 2))
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert_same(model, folded, FLOAT64)
    assert folded.fold_report.layers_after == 1


def means(size: int, stride: int | None = None) -> keras.Layer:
    return layers.AveragePooling2D(size, stride, padding="same")


TO_A_MATRIX: dict[str, Callable[[], list[keras.Layer]]] = {
    "paddings": lambda: [same(4), same(3), same(2)],
    "means": lambda: [same(4), means(2)],
    "means of means": lambda: [means(3, 1), means(3, 2)],
    "interpolation": lambda: [same(4), layers.UpSampling2D(2, interpolation="bilinear")],
    "biases before padding": lambda: [conv(4, 1), layers.BatchNormalization(), same(3), same(2)],
}


@pytest.mark.parametrize("end", ["flattened", "averaged"])
@pytest.mark.parametrize("name", TO_A_MATRIX)
def test_what_a_matrix_sees_all_of_is_one_matrix(name: str, end: str) -> None:
    """Borders within a chain that compose with nothing else, as no border is left."""
    with policy("float64"):
        last = (layers.Flatten if end == "flattened" else layers.GlobalAveragePooling2D)()
        model = on_float32((7, 5, 3), *TO_A_MATRIX[name](), last, layers.Dense(2))
    folded = kerasfold.fold(model, objective="layers", verify=False)
    # TensorFlow interpolates in float32.
    assert_same(model, folded, ONLY_FLOAT32 if name == "interpolation" else FLOAT64)
    assert folded.fold_report.layers_after == 1, str(folded.fold_report)
    assert folded.fold_report.macs_after == 7 * 5 * 3 * 2


def test_of_channels_that_are_alike_kernels_are_sums_over_them() -> None:
    inputs = keras.Input((7, 6, 4), dtype="float64")
    x = layers.DepthwiseConv2D(3, padding="same")(layers.Conv2D(6, 1)(inputs))
    x = layers.Add()([layers.Conv2D(6, 1)(x), layers.Conv2D(6, 1)(inputs)])
    nodes = lifted(randomise(keras.Model(inputs, x))).program.nodes
    visited = [node.index for node in nodes if node.op != "root"]
    ((whole,),) = (part.terms.values() for part in evaluate(nodes, visited))
    ((summed,),) = (part.terms.values() for part in evaluate(nodes, visited, alike))
    np.testing.assert_allclose(summed.kernel[..., 0, :], whole.kernel.sum(axis=-2), atol=1e-12)
    np.testing.assert_allclose(summed.ones, whole.ones, atol=1e-12)

"""Every block that is affine from end to end becomes one layer, and computes the same.

Models are built under the float64 policy, so that the folded weights are not rounded and
Keras's own float64 output is the oracle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.cost import OBJECTIVES
from kerasfold.lift.regions import lift
from kerasfold.plan.choose import plan
from kerasfold.read.graph import read
from zoo import blocks
from zoo.blocks import (
    Block,
    acnet,
    chained,
    concatenated,
    dbb,
    diamond,
    mobileone_depthwise,
    mobileone_pointwise,
    repvgg,
    separable_residual,
    sesr,
)
from zoo.making import policy, randomise
from zoo.same import inputs_of, run

FLOAT64 = 1e-10
FLOAT32 = 2e-5


def conv(n: int, k: Any, **settings: Any) -> Callable[[], keras.Layer]:
    return lambda: blocks.conv(n, k, **settings)


def same(n: int, k: Any, **settings: Any) -> Callable[[], keras.Layer]:
    return lambda: blocks.same(n, k, **settings)


@dataclass(frozen=True)
class Item:
    """A block on images of a shape.

    Attributes:
        block: applies it to a tensor.
        shape: of its input, without batch.
        dtype: TensorFlow's CPU has no 3-D pooling of float64, so the chains that pool volumes
            are compared in float32, where the rounding of weights and sums is all that may
            differ.
    """

    block: Block
    shape: tuple[int, ...] = (11, 12, 4)
    dtype: str = "float64"

    @property
    def tolerance(self) -> float:
        return FLOAT64 if self.dtype == "float64" else FLOAT32

    def model(self) -> keras.Model:
        with policy(self.dtype):
            inputs = keras.Input(self.shape, name="image", dtype=self.dtype)
            model = keras.Model(inputs, self.block(inputs))
        randomise(model, seed=7)
        for layer in model.layers:
            if isinstance(layer, layers.BatchNormalization):
                signs = np.resize([1.0, -1.0], layer.gamma.shape)
                layer.gamma.assign(keras.ops.abs(layer.gamma) * signs)
        return model


BN = layers.BatchNormalization
ITEMS: dict[str, Item] = {
    "repvgg": Item(repvgg()),
    "repvgg_bias": Item(repvgg(bias=True)),
    "repvgg_wider": Item(repvgg(7)),
    "repvgg_strided_even": Item(repvgg(6, strides=2), (12, 10, 4)),
    "repvgg_strided_odd": Item(repvgg(6, strides=2), (11, 9, 4)),
    "repvgg_grouped": Item(repvgg(groups=2)),
    "repvgg_grouped_strided": Item(repvgg(8, strides=2, groups=4)),
    "acnet": Item(acnet()),
    "acnet_strided": Item(acnet(2)),
    "dbb_padded_between": Item(dbb("between")),
    "dbb_padded_before": Item(dbb("before")),
    "dbb_grouped": Item(dbb("before", groups=2)),
    "mobileone_depthwise": Item(mobileone_depthwise()),
    "mobileone_depthwise_strided": Item(mobileone_depthwise(2)),
    "mobileone_pointwise": Item(mobileone_pointwise),
    "sesr": Item(sesr),
    "expandnet_1_k_1": Item(chained(conv(9, 1), conv(9, 3), conv(5, 1))),
    "expandnet_1_k_1_same_no_bias": Item(
        chained(conv(9, 1, use_bias=False), same(9, 3), conv(5, 1))
    ),
    "expandnet_1_k_1_same": Item(chained(conv(9, 1), same(9, 3), conv(5, 1))),
    "expandnet_k_k_k": Item(
        chained(lambda: layers.ZeroPadding2D(3), conv(8, 3), conv(8, 3), conv(5, 3))
    ),
    "x_plus_separable": Item(separable_residual),
    "concatenate_then_1x1": Item(concatenated),
    "diamond": Item(diamond),
    "upsampling_pooling_1x1": Item(
        chained(lambda: layers.UpSampling2D(2), lambda: layers.AveragePooling2D(2), conv(3, 1)),
        (5, 6, 4),
    ),
    "transposed_then_conv": Item(
        chained(lambda: layers.Conv2DTranspose(3, 3, strides=2), conv(5, 3)), (6, 5, 4)
    ),
    "transposed_same_then_conv": Item(
        chained(lambda: layers.Conv2DTranspose(3, 4, strides=2, padding="same"), conv(5, 3)),
        (6, 5, 4),
    ),
    "conv_then_transposed": Item(
        chained(conv(5, 3), lambda: layers.Conv2DTranspose(3, 2, strides=2)), (6, 7, 4)
    ),
    "conv_then_transposed_same": Item(
        chained(conv(5, 3), lambda: layers.Conv2DTranspose(3, 2, strides=2, padding="same")),
        (6, 7, 4),
    ),
    "conv_then_transposed_kernel_under_stride": Item(
        chained(conv(5, 3), lambda: layers.Conv2DTranspose(3, (2, 1), strides=3)), (6, 7, 4)
    ),
    "dense_bn_dense": Item(chained(lambda: layers.Dense(8), BN, lambda: layers.Dense(3)), (10,)),
    "dense_bn_dense_on_channels": Item(
        chained(lambda: layers.Dense(8), BN, lambda: layers.Dense(3)), (6, 5, 4)
    ),
    "conv_flatten_dense": Item(
        chained(conv(5, 3), BN, layers.Flatten, lambda: layers.Dense(7)), (6, 7, 4)
    ),
    "conv_same_flatten_dense": Item(
        chained(same(5, 3), layers.Flatten, lambda: layers.Dense(7)), (6, 7, 4)
    ),
    "conv_reshape_dense": Item(
        chained(conv(5, 3), lambda: layers.Reshape((-1,)), lambda: layers.Dense(7)), (6, 7, 4)
    ),
    "conv_global_pooling_dense": Item(
        chained(conv(5, 3), BN, layers.GlobalAveragePooling2D, lambda: layers.Dense(7)), (6, 7, 4)
    ),
    "conv_same_global_pooling_dense": Item(
        chained(same(5, 3), layers.GlobalAveragePooling2D, lambda: layers.Dense(7)), (6, 7, 4)
    ),
    "padding_conv": Item(
        chained(lambda: layers.ZeroPadding2D(((1, 2), (0, 3))), conv(5, 3, strides=2), BN)
    ),
    "cropping_conv": Item(chained(lambda: layers.Cropping2D(((1, 2), (0, 3))), conv(5, 3), BN)),
    "cropping_conv_same": Item(
        chained(lambda: layers.Cropping2D(((1, 2), (0, 3))), same(5, 3), BN)
    ),
    "rescaling_conv": Item(chained(lambda: layers.Rescaling(1 / 127.5, -1.0), conv(5, 3))),
    "rescaling_conv_same": Item(chained(lambda: layers.Rescaling(1 / 127.5, -1.0), same(5, 3))),
    "bn_conv_same": Item(chained(BN, same(5, 3))),
    "bn_depthwise_same": Item(
        chained(BN, lambda: layers.DepthwiseConv2D(3, strides=2, padding="same"))
    ),
    "1d": Item(
        chained(
            lambda: layers.Conv1D(4, 3, strides=2),
            lambda: layers.AveragePooling1D(2),
            BN,
            lambda: layers.Conv1D(4, 3),
        ),
        (30, 3),
    ),
    "1d_causal_transposed": Item(
        chained(
            lambda: layers.Conv1D(4, 3, padding="causal"),
            BN,
            lambda: layers.Conv1DTranspose(3, 2, strides=2),
            lambda: layers.Conv1D(2, 1),
        ),
        (14, 3),
    ),
    "1d_global_pooling": Item(
        chained(
            lambda: layers.Conv1D(4, 3),
            BN,
            layers.GlobalAveragePooling1D,
            lambda: layers.Dense(2),
        ),
        (14, 3),
    ),
    "1d_flatten": Item(
        chained(lambda: layers.Conv1D(4, 3), BN, layers.Flatten, lambda: layers.Dense(2)), (14, 3)
    ),
    "3d": Item(
        chained(
            lambda: layers.ZeroPadding3D(1),
            lambda: layers.Conv3D(3, 2, strides=(1, 2, 1)),
            BN,
            lambda: layers.Conv3D(2, (2, 1, 2)),
            lambda: layers.Cropping3D(((1, 0), (0, 1), (0, 0))),
        ),
        (6, 7, 5, 2),
    ),
    "3d_flatten": Item(
        chained(lambda: layers.Conv3D(3, 2), BN, layers.Flatten, lambda: layers.Dense(2)),
        (4, 5, 3, 2),
    ),
    "3d_global_pooling": Item(
        chained(
            lambda: layers.Conv3D(3, 2), BN, layers.GlobalAveragePooling3D, lambda: layers.Dense(2)
        ),
        (4, 5, 3, 2),
    ),
    "3d_pooling": Item(
        chained(
            lambda: layers.Conv3D(3, 2),
            BN,
            lambda: layers.AveragePooling3D(2),
            lambda: layers.Conv3D(2, 2),
        ),
        (9, 8, 7, 2),
        "float32",
    ),
    "3d_upsampling_pooling": Item(
        chained(
            lambda: layers.UpSampling3D((2, 1, 2)),
            lambda: layers.AveragePooling3D((2, 1, 2)),
            BN,
            lambda: layers.Conv3D(2, 1),
        ),
        (4, 3, 4, 2),
        "float32",
    ),
}
EACH = pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
MODELS: dict[int, keras.Model] = {}


def model_of(item: Item) -> keras.Model:
    """One model per item: folding reads it and never touches it."""
    if id(item) not in MODELS:
        MODELS[id(item)] = item.model()
    return MODELS[id(item)]


def difference(model: keras.Model, folded: keras.Model) -> float:
    """The largest difference on random images, relative to the outputs' size."""
    inputs = inputs_of(model, batch=2, seed=3)
    (expected,), (got,) = run(model, inputs), run(folded, inputs)
    assert expected.shape == got.shape
    assert np.isfinite(expected).all()
    return float(np.abs(expected - got).max() / np.abs(expected).max())


@EACH
def test_batchnorms_are_not_trivial(item: Item) -> None:
    for layer in model_of(item).layers:
        if isinstance(layer, layers.BatchNormalization):
            gamma, beta, mean, variance = map(np.asarray, layer.get_weights())
            assert (gamma > 0).any()
            assert (gamma < 0).any()
            assert np.abs(np.concatenate([beta, mean, variance - 1])).min() > 1e-6
            assert len(np.unique(variance)) == len(variance)


@EACH
def test_one_layer(item: Item) -> None:
    model = model_of(item)
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert folded.fold_report.layers_after == 1, str(folded.fold_report)
    assert {variable.dtype for variable in folded.weights} == {item.dtype}
    error = difference(model, folded)
    assert error < item.tolerance, f"differs by {error:.2e} of its size"
    # The comparison can fail: one entry of one weight off by a thousandth is too much.
    for variable in folded.weights:
        right = np.asarray(variable)
        wrong = right.copy()
        wrong.flat[np.abs(wrong).argmax()] *= 1.001
        variable.assign(wrong)
        assert difference(model, folded) > item.tolerance, variable.path
        variable.assign(right)
    assert difference(model, folded) == error


@pytest.mark.parametrize("objective", ["latency", "macs", "params"])
@EACH
def test_other_objectives(item: Item, objective: str) -> None:
    model = model_of(item)
    folded = kerasfold.fold(model, objective=objective, verify=False)
    error = difference(model, folded)
    assert error < item.tolerance, f"differs by {error:.2e} of its size"
    chosen = plan(lift(read(model)), objective)
    key = OBJECTIVES[objective].key
    # Seconds are added up in another order, which may differ in the last digit.
    worst = key(chosen.original)[0] * (1 + 1e-12)
    assert key(chosen.cost)[0] <= worst, str(folded.fold_report)
    if objective != "latency":
        report = folded.fold_report
        before, after = (getattr(report, f"{objective}_{side}") for side in ("before", "after"))
        assert after <= before, str(report)

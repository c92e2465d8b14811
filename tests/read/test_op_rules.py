"""Every `keras.ops` function that is lifted, between two layers that it must not keep apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from kerasfold.lift.rules import RULES
from zoo.making import randomise
from zoo.same import FLOAT32, FLOAT64, assert_same

pytestmark = pytest.mark.usefixtures("fresh")


def weights(*shape: int, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape).astype(dtype)


def summed(parts: list[Any]) -> Any:
    """Parts of an image brought together, each in a way of its own."""
    return layers.Add()([layers.Conv2D(3, 1)(part) for part in parts])


def heads(x: Any) -> Any:
    """Two parts of three channels for each pixel."""
    return ops.einsum("bhwc,cnk->bhwnk", x, weights(4, 2, 3))


Block = Callable[[Any], Any]
ONES = np.ones(4)
MERGED: dict[str, Block] = {
    "add": lambda x: ops.add(weights(4), x),
    "subtract": lambda x: ops.subtract(weights(1, 1, 4), x),
    "multiply": lambda x: ops.multiply(x, weights(4)),
    "divide": lambda x: ops.divide(x, 4.0),
    "true_divide": lambda x: ops.true_divide(x, weights(4)),
    "cast": lambda x: ops.cast(x, "float64"),
    "convert_to_tensor": lambda x: ops.convert_to_tensor(x, dtype="float64"),
    "stop_gradient": lambda x: ops.stop_gradient(x),
    "negative": lambda x: ops.negative(x),
    "concatenate": lambda x: ops.concatenate([x, 2.0 * x], axis=-1),
    "pad": lambda x: layers.Conv2D(4, 3)(ops.pad(x, [(0, 0), (1, 0), (0, 2), (0, 0)])),
    "reshape": lambda x: ops.reshape(x, (-1, 36, 2, 4)),
    "transpose": lambda x: ops.transpose(x, (0, 2, 1, 3)),
    "swapaxes": lambda x: ops.swapaxes(x, 2, -3),
    "moveaxis": lambda x: ops.moveaxis(ops.moveaxis(x, [2, -1], [-2, 1]), 1, 3),
    "squeeze": lambda x: ops.squeeze(ops.reshape(x, (-1, 1, 9, 8, 4)), 1),
    "expand_dims": lambda x: ops.squeeze(ops.expand_dims(x, (1, -2)), (1, 4)),
    "get_item": lambda x: x[:, 1:, ::2, ::-1],
    "get_item_of_a_row": lambda x: x[:, -1],
    "get_item_of_a_channel": lambda x: x[..., 2],
    "take_one": lambda x: ops.take(x, 2, axis=-1),
    "stack_last": lambda x: ops.mean(ops.stack([x, 2.0 * x, x + 1.0], axis=-1), axis=-1),
    "stack": lambda x: ops.reshape(ops.stack([x, -x], axis=-2), (-1, 9, 8, 8)),
    "take": lambda x: ops.take(x, [3, 0, 0, -2], axis=-1),
    "flip": lambda x: ops.flip(x, axis=3),
    "split": lambda x: summed(ops.split(x, 2, axis=-1)),
    "split_at": lambda x: summed(ops.split(x, [1], axis=-1)),
    "split_one": lambda x: ops.split(x, 1, axis=-1)[0],
    "conv": lambda x: ops.conv(x, weights(3, 2, 4, 5), 2, dilation_rate=1),
    "conv_of_a_variable": lambda x: ops.conv(x, keras.Variable(weights(1, 3, 4, 2))),
    "conv_of_a_tensor": lambda x: ops.conv(x, ops.convert_to_tensor(weights(1, 3, 4, 2))),
    "depthwise_conv": lambda x: ops.depthwise_conv(x, weights(3, 3, 4, 2), dilation_rate=2),
    "separable_conv": lambda x: ops.separable_conv(x, weights(3, 3, 4, 2), weights(1, 1, 8, 3)),
    "average_pool": lambda x: ops.average_pool(x, (2, 3), 2),
    "average_pool_stride": lambda x: ops.average_pool(x, 2),
    "mean": lambda x: ops.mean(x, axis=(1, 2)),
    "mean_keepdims": lambda x: ops.mean(x, axis=(-3, -2), keepdims=True),
    "mean_of_rows": lambda x: ops.mean(x, axis=1, keepdims=True),
    "mean_of_channels": lambda x: ops.mean(x, axis=-1, keepdims=True),
    "mean_of_all": lambda x: ops.mean(x, axis=(1, 2, 3), keepdims=True),
    "mean_that_leaves_columns": lambda x: ops.mean(x, axis=1),
    "mean_without_channels": lambda x: ops.mean(x, axis=-1),
    "sum": lambda x: ops.sum(x, axis=(1, 2)),
    "sum_of_columns_and_channels": lambda x: ops.sum(x, axis=(2, 3), keepdims=True),
    "zeros_like": lambda x: ops.concatenate([x, ops.zeros_like(x)], axis=-1),
    "copy": ops.copy,
    "deg2rad": ops.deg2rad,
    "rad2deg": ops.rad2deg,
    "batch_normalization": lambda x: ops.batch_normalization(
        x, weights(4), weights(4) ** 2, -1, weights(4), weights(4) + 1, 0.1
    ),
    "batch_normalization_plain": lambda x: ops.batch_normalization(x, weights(4), ONES, 3),
    "pad_channels": lambda x: ops.pad(x, [(0, 0), (0, 0), (0, 0), (2, 5)]),
    "pad_all": lambda x: layers.Conv2D(4, 3)(ops.pad(x, [(0, 0), (1, 1), (0, 2), (1, 0)])),
    "roll": lambda x: ops.roll(x, 3, axis=-1),
    "repeat": lambda x: ops.repeat(x, 2, axis=-1),
    "repeat_rows": lambda x: layers.Conv2D(3, 1)(ops.repeat(x, 3, axis=1)),
    "tile": lambda x: ops.tile(x, (1, 1, 1, 3)),
    "tile_one": lambda x: ops.tile(ops.mean(x, axis=(1, 2), keepdims=True), 2),
    "array_split": lambda x: summed(ops.array_split(ops.tile(x, 2), 2, axis=-1)),
    "array_split_rows": lambda x: ops.array_split(x, 4, axis=1)[0],
    "array_split_unequally": lambda x: ops.array_split(x, 3, axis=-1)[2],
    "unstack": lambda x: ops.add(*ops.unstack(ops.reshape(x, (-1, 9, 8, 2, 2)), axis=3)),
    "diff": lambda x: ops.diff(x, axis=1),
    "diff_of_channels": lambda x: ops.diff(x, n=2),
    "inner": lambda x: ops.inner(x, weights(5, 4)),
    "average": lambda x: ops.average(x, axis=-1, weights=weights(4)),
    "average_of_rows": lambda x: ops.average(x, axis=1),
    "resize": lambda x: layers.Conv2D(3, 1)(ops.image.resize(x, (18, 8), "nearest")),
    "resize_to_the_same": lambda x: ops.image.resize(x, (9, 8), "nearest"),
    "extract_patches": lambda x: ops.image.extract_patches(x, (3, 2)),
    "extract_patches_overlapping": lambda x: ops.image.extract_patches(
        x, 2, strides=1, dilation_rate=2, padding="same"
    ),
    "crop_images": lambda x: ops.image.crop_images(x, 1, 2, target_height=5, right_cropping=0),
    "pad_images": lambda x: layers.Conv2D(4, 3)(
        ops.image.pad_images(x, left_padding=1, bottom_padding=2, target_height=12, target_width=9)
    ),
    "depth_to_space": lambda x: ops.depth_to_space(x, 2),
    "space_to_depth": lambda x: ops.depth_to_space(ops.space_to_depth(x[:, 1:], 2), 2),
    "matmul": lambda x: ops.matmul(x, weights(4, 5)),
    "matmul_operator": lambda x: x @ weights(4, 5),
    "dot": lambda x: ops.dot(x, weights(4, 5)),
    "tensordot": lambda x: ops.tensordot(x, weights(5, 4), [[3], [1]]),
    "tensordot_of_all": lambda x: ops.tensordot(x, weights(9, 8, 4, 3), 3),
    "einsum": lambda x: ops.einsum("bhwc,cd->bhwd", x, weights(4, 5)),
    "einsum_other_order": lambda x: ops.einsum("dc,...c->...d", weights(5, 4), x),
    "einsum_scale": lambda x: ops.einsum("bhwc,c->bhwc", x, weights(4)),
    "einsum_to_heads": lambda x: ops.einsum("bhwnk,knd->bhwd", heads(x), weights(3, 2, 4)),
    "einsum_without_channels": lambda x: ops.einsum("bhwc,c->bhw", x, weights(4)),
    "einsum_of_all": lambda x: ops.einsum("bhwc,wchd->bd", x, weights(8, 4, 9, 3)),
}


def test_every_operation_has_a_row() -> None:
    rules = {kind.__name__ for kind in RULES if not isinstance(kind, type)}
    rows = {name for name in MERGED if name in rules}
    assert rules - rows == {"conv_transpose"}  # below


def model_of(block: Block) -> keras.Model:
    x = image = keras.Input((9, 8, 4), name="image")
    y = block(layers.Conv2D(4, 1, name="first")(x))
    last = {2: layers.Dense(3), 3: layers.Conv1D(3, 1), 4: layers.Conv2D(3, 1)}[len(y.shape)]
    return randomise(keras.Model(image, last(y)))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("block", MERGED.values(), ids=MERGED)
def test_merged(block: Block) -> None:
    model = model_of(block)
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert_same(model, folded, FLOAT64)
    assert folded.fold_report.layers_after == 1, str(folded.fold_report)


@pytest.mark.usefixtures("float64")
def test_conv_transpose() -> None:
    """Of a graph it is recorded by Keras, and not run: its arguments are mixed up there."""
    layer = layers.Conv2DTranspose(5, (3, 2), strides=2, padding="same", use_bias=False)
    model = model_of(layer)
    kernel = layer.kernel.numpy()
    called = model_of(lambda x: ops.conv_transpose(x, kernel, 2, padding="same"))
    for mine, its in zip(called.layers[-1].weights, model.layers[-1].weights, strict=True):
        mine.assign(its)
    folded = kerasfold.fold(called, objective="layers", verify=False)
    assert folded.fold_report.layers_after == 1
    assert_same(model, folded, FLOAT64)


REFUSED: dict[str, tuple[Block, str]] = {
    "weights_of_the_model": (
        lambda x: ops.matmul(x, layers.Conv2D(8, (1, 5))(x)),
        "its weights are a tensor of the model",
    ),
    "a_constant_worked_on": (
        lambda x: ops.matmul(weights(9, 8, 8, dtype="float32"), x),
        "its weights are a tensor of the model",
    ),
    "a_matrix_per_pixel": (
        lambda x: ops.einsum("bhwc,wcd->bhwd", x, weights(8, 4, 3, dtype="float32")),
        "'bhwc,wcd->bhwd' is no matrix on axes of the image, nor a scale per channel",
    ),
    "mean_of_everything": (lambda x: ops.mean(x, axis=(1, 2, 3)), "it leaves no channels"),
    "mean_of_the_batch": (lambda x: ops.mean(x, axis=0, keepdims=True), "it works along the batch"),
    "take_of_rows": (
        lambda x: ops.take(x, [0, 2], axis=1),
        "it works along axis 1, which is not the channels",
    ),
    "take_of_a_table": (
        lambda x: ops.take(x, [[0, 1], [2, 3]], axis=-1),
        "it takes other than a list of channels that there are",
    ),
    "resize_by_a_half": (
        lambda x: ops.image.resize(x, (18, 12)),
        "images of (9, 8) are no whole number of times smaller than (18, 12)",
    ),
    "resize_that_pads": (
        lambda x: ops.image.resize(x, (18, 18), pad_to_aspect_ratio=True),
        "it smooths, crops or pads what it resizes",
    ),
    "resize_bicubic": (
        lambda x: ops.image.resize(x, (18, 16), "bicubic"),
        "its interpolation 'bicubic' clamps at the border",
    ),
    "tile_of_rows": (
        lambda x: ops.tile(x, (1, 2, 1, 1)),
        "it tiles an axis of several samples",
    ),
    "tile_of_the_batch": (
        lambda x: ops.tile(x, (2, 1, 1, 1)),
        "it tiles the batch, or adds axes",
    ),
    "repeat_of_the_batch": (lambda x: ops.repeat(x, 2, axis=0), "it works along the batch"),
    "repeat_unequally": (
        lambda x: ops.repeat(x, [1, 2, 3, 4], axis=-1),
        "it repeats some samples more often than others",
    ),
    "roll_by_several": (
        lambda x: ops.roll(x, (1, 2), axis=(1, 3)),
        "it works along other than one axis",
    ),
    "average_over_a_table": (
        lambda x: ops.average(x, axis=1, weights=np.ones((1, 9, 8, 4), "float32")),
        "its weights vary along several axes",
    ),
    "average_of_no_weight": (
        lambda x: ops.average(x, axis=-1, weights=np.array([1, -1, 3, -3], "float32")),
        "its weights add up to zero",
    ),
    "split_into_nothing": (
        lambda x: ops.array_split(x, 5, axis=-1)[0],
        "it makes parts of nothing",
    ),
    "pad_of_the_batch": (
        lambda x: ops.pad(x, [(1, 0), (0, 0), (0, 0), (0, 0)]),
        "it pads the batch",
    ),
    "flip_of_all": (lambda x: ops.flip(x), "it works along other than one axis"),
}


@pytest.mark.parametrize(("block", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(block: Block, reason: str) -> None:
    image = keras.Input((9, 8, 4))
    report = kerasfold.explain(keras.Model(image, block(image)))
    assert reason in [row.reason for row in report.kept]


def test_a_split_whose_parts_are_read_apart_is_made_once() -> None:
    """One part goes on into a BatchNormalization, the others stay parts of the one call."""

    def block(x: Any) -> Any:
        first, *rest = ops.split(layers.Conv2D(6, 3)(x), 3, axis=-1)
        parts = [layers.BatchNormalization()(first), *(layers.ReLU()(part) for part in rest)]
        return layers.Concatenate()(parts)

    model = model_of(block)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT32)
    assert [type(x).__name__ for x in folded.operations].count("Split") == 1
    kept = [row.layer for row in folded.fold_report.kept]
    assert len(kept) == len(set(kept))


def test_constants_of_operations_are_there_in_float64() -> None:
    """Where the backend does not promote: the copy that is the truth needs them in its dtype."""
    kernel = keras.Variable(weights(3, 3, 4, 4, dtype="float32"))
    image = keras.Input((9, 8, 4))
    model = keras.Model(image, ops.conv(ops.relu(ops.conv(image, kernel)), kernel.numpy()))
    equivalence = kerasfold.fold(model).fold_report.equivalence
    assert equivalence is not None
    assert equivalence.equivalent


TWO = np.int64(2)
OF_NUMPYS: dict[str, Block] = {
    "reshape": lambda x: ops.reshape(x, (-1, np.prod((9, 4)), TWO, 4)),
    "roll": lambda x: ops.roll(x, TWO, axis=np.int64(-1)),
    "average_pool": lambda x: ops.average_pool(x, TWO, strides=np.int32(1)),
    "pad": lambda x: layers.Conv2D(4, 3)(ops.pad(x, np.array([(0, 0), (1, 0), (0, 2), (0, 0)]))),
    "tile": lambda x: ops.tile(x, np.array([1, 1, 1, 2])),
    "split": lambda x: summed(ops.split(x, np.array([1]), axis=TWO + 1)),
    "mean": lambda x: ops.mean(x, axis=(np.int64(1), TWO)),
    "max_pool": lambda x: ops.max_pool(x, TWO, np.int64(1)),
}


@pytest.mark.parametrize("open_layers", [True, False])
@pytest.mark.parametrize("block", OF_NUMPYS.values(), ids=OF_NUMPYS)
def test_of_numpys_whole_numbers(block: Block, open_layers: bool) -> None:
    """Keras has no config of those."""
    image = keras.Input((9, 8, 3))
    x = block(layers.Conv2D(4, 1)(image))
    model = randomise(keras.Model(image, layers.Dense(3)(x)))
    with pytest.raises(NotImplementedError):
        keras.models.clone_model(model)
    folded = kerasfold.fold(model, objective="layers", open_layers=open_layers)
    keras.models.clone_model(folded)
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 3))
    np.testing.assert_allclose(folded(x), model(x), rtol=1e-4, atol=1e-5)

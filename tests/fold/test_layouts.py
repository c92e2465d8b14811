"""Reshape, Permute and their like: operators pass them, and several are one or none."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from zoo.making import policy, randomise
from zoo.same import FLOAT32, FLOAT64, assert_same, kinds, run_under_xla

BN = layers.BatchNormalization
IMAGE = (6, 5, 4)
Step = Callable[[Any], Any]


class Row(NamedTuple):
    """Steps on an input, and the layers that are left of them under objective='layers'."""

    shape: tuple[int | None, ...]
    steps: list[Step]
    left: list[str]

    def model(self) -> keras.Model:
        x = inputs = keras.Input(self.shape, dtype=keras.config.dtype_policy().compute_dtype)
        for step in self.steps:
            x = step(x)
        return randomise(keras.Model(inputs, x))


def shuffle(x: Any, groups: int = 2) -> Any:
    *sizes, channels = x.shape[1:]
    x = layers.Reshape((*sizes, groups, channels // groups))(x)
    axes = range(1, len(sizes) + 1)
    x = layers.Permute((*axes, len(sizes) + 2, len(sizes) + 1))(x)
    return layers.Reshape((*sizes, channels))(x)


def reshape(*shape: int) -> Step:
    return lambda x: layers.Reshape(shape)(x)


def permute(*axes: int) -> Step:
    return lambda x: layers.Permute(axes)(x)


def conv(n: int = 6, k: Any = 3, **settings: Any) -> Step:
    return lambda x: layers.Conv2D(n, k, **settings)(x)


def dense(n: int, **settings: Any) -> Step:
    return lambda x: layers.Dense(n, **settings)(x)


def bn(x: Any) -> Any:
    return BN()(x)


def relu(x: Any) -> Any:
    return layers.ReLU()(x)


ROWS = {
    "dense_to_an_image": Row((7,), [dense(96), reshape(4, 4, 6), bn], ["Dense", "Reshape"]),
    "dense_to_a_pointwise_conv": Row(
        (7,), [dense(96), reshape(4, 4, 6), conv(3, 1)], ["Dense", "Reshape"]
    ),
    "dense_to_a_whole_window": Row(
        (7,), [dense(24), reshape(2, 2, 6), conv(5, 1)], ["Dense", "Reshape"]
    ),
    "conv_to_pixels": Row(IMAGE, [conv(), reshape(12, 6), bn], ["Conv2D", "Reshape"]),
    "conv_to_pixels_of_any_size": Row(
        (None, None, 4), [conv(), reshape(-1, 6), bn], ["Conv2D", "Reshape"]
    ),
    "anchors": Row((None, None, 4), [conv(6), reshape(-1, 3), bn], ["Conv2D", "Reshape"]),
    "turned": Row(IMAGE, [conv(), permute(2, 1, 3), bn], ["Conv2D", "Permute"]),
    "turned_between_convs": Row(
        IMAGE, [conv(), permute(2, 1, 3), conv(3, (1, 2))], ["Conv2D", "Permute"]
    ),
    "pixels_and_back": Row(IMAGE, [conv(), reshape(-1, 6), dense(5), reshape(4, 3, 5)], ["Conv2D"]),
    "turned_and_back": Row(
        IMAGE, [conv(), relu, permute(3, 1, 2), permute(2, 3, 1), relu], ["Conv2D", "ReLU", "ReLU"]
    ),
    "reshapes": Row(
        IMAGE,
        [relu, reshape(30, 4), reshape(120), reshape(4, 30), relu],
        ["ReLU", "Reshape", "ReLU"],
    ),
    "shuffle": Row(IMAGE, [conv(8, 1), shuffle, conv(6, 3)], ["Conv2D"]),
    "shuffle_behind_groups": Row(
        IMAGE,
        [relu, lambda x: layers.DepthwiseConv2D(3)(x), shuffle, conv(6, 1)],
        ["ReLU", "Conv2D"],
    ),
    "line_as_an_image": Row(
        (12, 4),
        [
            lambda x: layers.Conv1D(6, 3)(x),
            lambda x: ops.expand_dims(x, 1),
            conv(5, (1, 3)),
            lambda x: ops.squeeze(x, 1),
        ],
        ["Conv1D"],
    ),
    "line_padded_across": Row(
        (12, 4),
        [
            lambda x: ops.expand_dims(x, -2),
            conv(5, 3, padding="same"),
            lambda x: ops.squeeze(x, axis=(2,)),
        ],
        ["Conv1D"],
    ),
    "pixels_pooled": Row(
        IMAGE,
        [conv(), reshape(-1, 6), lambda x: layers.GlobalAveragePooling1D()(x), dense(3)],
        ["Flatten", "Dense"],
    ),
    "squeezed": Row(
        (7,), [dense(6), reshape(1, 1, 6), conv(5, 1), relu], ["Dense", "Reshape", "ReLU"]
    ),
    "stacked_and_added_up": Row(
        IMAGE,
        [lambda x: ops.sum(ops.stack([conv(6, 1)(x), conv(6, 1)(x)], axis=1), axis=1)],
        ["Conv2D"],
    ),
    "stacked_and_a_mean_in_groups": Row(
        IMAGE,
        [conv(8, 1), reshape(6, 5, 2, 4), permute(3, 1, 2, 4), lambda x: ops.mean(x, axis=1)],
        ["Conv2D"],
    ),
    "stacked_and_taken": Row(
        IMAGE,
        [lambda x: ops.stack([conv(6, 1)(x), conv(6, 1)(x)], axis=1)[:, 1], bn],
        ["Conv2D"],
    ),
    "a_head_of_several": Row(
        (7,), [dense(12), reshape(3, 4), lambda x: x[:, 1], bn, dense(2)], ["Dense"]
    ),
    "columns": Row(IMAGE, [conv(), reshape(4, 18), dense(3)], ["Conv2D", "Reshape"]),
    "operations": Row(
        IMAGE,
        [
            conv(),
            lambda x: ops.transpose(x, (0, 3, 1, 2)),
            lambda x: ops.moveaxis(x, 1, -1),
            lambda x: ops.swapaxes(x, 1, 2),
            lambda x: ops.reshape(x, (-1, 12, 6)),
            bn,
        ],
        ["Conv2D", "Permute", "Reshape"],
    ),
    "activation_within": Row(
        IMAGE, [conv(), reshape(-1, 6), dense(5, activation="relu")], ["Conv2D", "Reshape"]
    ),
    "activation_along_channels": Row(
        IMAGE,
        [conv(), reshape(-1, 6), dense(5, activation="softmax")],
        ["Conv2D", "Reshape", "Activation"],
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_what_is_left(row: Row) -> None:
    with policy("float64"):
        model = row.model()
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert_same(model, folded, FLOAT64)
    assert kinds(folded) == row.left, str(folded.fold_report)
    assert folded.output_names == model.output_names


KEPT = {
    "a_scale_of_pixels": ((24,), [reshape(4, 6), relu, permute(2, 1), bn], "nothing before it"),
    "a_window_across_channels": (
        IMAGE,
        [conv(), reshape(4, 18, 1), conv(2, (1, 3))],
        "windows along what is no axis before a rearrangement",
    ),
    "a_matrix_on_half_the_channels": (
        IMAGE,
        [conv(), reshape(2, 2, 3, 6), permute(1, 3, 4, 2), dense(3)],
        "a matrix on pixels and on a part of their channels is no convolution",
    ),
    "the_batch": (
        IMAGE,
        [conv(), lambda x: ops.reshape(x, (-1, 6)), dense(3)],
        r"a reshape to \(-1, 6\) parts the images, or joins those of a batch",
    ),
    "the_batch_moved": (
        IMAGE,
        [conv(), lambda x: ops.transpose(x, (1, 0, 2, 3)), bn],
        "it moves the batch",
    ),
}


@pytest.mark.parametrize(("shape", "steps", "reason"), KEPT.values(), ids=KEPT)
def test_what_is_kept_says_why(shape: Any, steps: list[Step], reason: str) -> None:
    model = Row(shape, steps, []).model()
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert_same(model, folded, FLOAT32)
    report = folded.fold_report
    assert any(re.search(reason, row.reason) for row in (*report.kept, *report.apart)), str(report)


def test_a_shuffle_stays_where_it_would_cost_more() -> None:
    grouped = conv(32, 1, groups=8)
    model = Row((28, 28, 32), [grouped, shuffle, bn, conv(32, 1, groups=8)], []).model()
    folded = kerasfold.fold(model, objective="macs", verify=False)
    assert_same(model, folded, FLOAT32)
    report = folded.fold_report
    assert kinds(folded) == ["Conv2D", "Reshape", "Permute", "Reshape", "Conv2D"], str(report)
    assert report.macs_after < report.macs_before


@pytest.mark.parametrize("objective", ["latency", "macs", "params"])
def test_a_pool_whose_vector_becomes_an_image_stays_a_pool(objective: str) -> None:
    model = Row(IMAGE, [lambda x: layers.GlobalAveragePooling2D()(x), reshape(1, 1, 4)], []).model()
    folded = kerasfold.fold(model, objective=objective)
    assert kinds(folded) == ["GlobalAveragePooling2D"]


def test_nothing_is_merged_with_a_reshape_alone() -> None:
    model = Row(IMAGE, [conv(), reshape(-1, 6), relu], []).model()
    report = kerasfold.fold(model).fold_report
    assert not report.merged, str(report)


def test_shared_layers_stay_shared_before_other_shapes() -> None:
    first, second = keras.Input((6, 5, 4)), keras.Input((3, 7, 4))
    shared, norm = layers.Conv2D(6, 1), BN()
    outputs = [norm(layers.Reshape((-1, 3))(shared(x))) for x in (first, second)]
    model = randomise(keras.Model([first, second], outputs))
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert_same(model, folded, FLOAT32)
    assert kinds(folded).count("Conv2D") == 1, str(folded.fold_report)


def test_layers_that_only_cast_in_the_end_still_cast() -> None:
    inputs = keras.Input((4, 6), dtype="float16")
    model = keras.Model(inputs, layers.Reshape((4, 6))(layers.Reshape((24,))(inputs)))
    folded = kerasfold.fold(model)
    assert folded.output.dtype == model.output.dtype == "float32"


FIRST = {"data_format": "channels_first"}


def test_channels_first() -> None:
    x = inputs = keras.Input((4, 6, 5))
    x = layers.Conv2D(6, 3, **FIRST)(x)
    x = BN(axis=1)(layers.Reshape((6, 12))(x))
    x = layers.Conv1D(5, 1, **FIRST)(layers.Permute((1, 2))(x))
    pixels = layers.Permute((2, 1))(x)
    vector = layers.Dense(3)(layers.Flatten(**FIRST)(layers.Conv2D(2, 3, **FIRST)(inputs)))
    model = randomise(keras.Model(inputs, [pixels, vector]))
    folded = kerasfold.fold(model, objective="layers", verify=False)
    report = folded.fold_report
    assert report.layers_after == 2, str(report)
    assert not {"BatchNormalization", "Conv1D"} & set(kinds(folded)), str(report)
    image = np.random.default_rng(0).normal(size=(2, 4, 6, 5)).astype("float32")
    assert_same(model, folded, FLOAT32, image, run_under_xla)


ROWS_SHUFFLED = [reshape(2, 3, 4), permute(2, 1, 3), reshape(6, 4)]
PARTS_OF_A_SHUFFLE: dict[str, tuple[tuple[int, ...], list[Step]]] = {
    "channels of a vector": ((6,), [shuffle, lambda x: x[:, 1:4]]),
    "every second channel": ((6,), [shuffle, lambda x: x[:, ::2]]),
    "half of the channels": ((4, 4, 8), [shuffle, lambda x: ops.split(x, 2, axis=-1)[1]]),
    "rows": ((6, 4), [*ROWS_SHUFFLED, layers.Cropping1D((1, 2))]),
    "rows of two axes": ((2, 3, 4), [*ROWS_SHUFFLED[1:], lambda x: x[:, 2:5]]),
}


@pytest.mark.parametrize("objective", ["latency", "layers"])
@pytest.mark.parametrize("part", PARTS_OF_A_SHUFFLE)
@pytest.mark.parametrize("ahead", [[], [relu]])
def test_a_part_of_what_is_shuffled_is_the_shuffled_part(
    ahead: list[Step], part: str, objective: Any
) -> None:
    shape, steps = PARTS_OF_A_SHUFFLE[part]
    model = Row(shape, [*ahead, *steps], []).model()
    numbers = np.arange(1.0, 1 + np.prod(shape), dtype="float32").reshape(1, *shape)
    folded = kerasfold.fold(model, objective=objective, verify=False)
    np.testing.assert_array_equal(folded(numbers), model(numbers))

"""Channels selected, multiplied and shifted by constants stay operations, and become as few."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from kerasfold.choices import UntimedName
from kerasfold.cost import UNTIMED
from zoo.making import policy, randomise
from zoo.same import FLOAT32, FLOAT64, assert_same, run_under_xla

Step = Callable[[Any], Any]


def c(channels: int) -> np.ndarray:
    return np.random.default_rng(channels).uniform(0.5, 2.0, channels)


def turned(*axes: int) -> Step:
    return lambda x: layers.Permute(axes)(x)


def reshaped(*shape: int) -> Step:
    return lambda x: layers.Reshape(shape)(x)


def conv_at_a_border(x: Any) -> Any:
    """Of fewest MACs with the sums of constants at the border as constants of their own."""
    x = layers.Conv2D(4, (1, 2), padding="same")(x)
    return layers.SeparableConv2D(2, (2, 3), padding="same")(x)


def model_of(*steps: Step, dtype: str = "float64") -> keras.Model:
    with policy(dtype):
        x = inputs = keras.Input((5, 4, 12), dtype=dtype)
        for step in (layers.ReLU(), *steps):
            x = step(x)
        return randomise(keras.Model(inputs, layers.ReLU(name="end")(x)))


def operations(model: keras.Model) -> list[str]:
    """The classes of what is done between the nonlinearities."""
    names = [type(operation).__name__ for operation in model.operations]
    return [name for name in names if name not in ("InputLayer", "ReLU")]


# Steps, and the operations that are left.
FEWER: dict[str, tuple[list[Step], list[str]]] = {
    "scales": ([lambda x: x * c(12), lambda x: x / 3.0, lambda x: -x], ["Multiply"]),
    "shifts": ([lambda x: x + c(12), lambda x: x - 2.0], ["Add"]),
    "both": ([lambda x: x * c(12) + 1.0, lambda x: 2.0 - x], ["Multiply", "Add"]),
    "slices": ([lambda x: x[..., 2:], lambda x: x[..., 1::3]], ["GetItem"]),
    "slices_of_pixels": ([lambda x: x[:, ::2], lambda x: x[:, 1:, 2:]], ["GetItem"]),
    "slices_of_both": ([lambda x: x[:, 1:4, ::3, 1:], lambda x: x[:, 1:, ..., 1::2]], ["GetItem"]),
    "a_slice_of_a_crop": ([lambda x: layers.Cropping2D(1)(x)[:, 1:, ..., :3]], ["GetItem"]),
    "a_crop_of_nothing": ([lambda x: layers.Cropping2D(0)(layers.ZeroPadding2D(0)(x))], []),
    "a_slice_of_what_is_turned": (
        [turned(2, 1, 3), lambda x: x[:, 1:3, 1:], turned(2, 1, 3)],
        ["GetItem"],
    ),
    "a_slice_of_pixels_that_were_channels": (
        [turned(3, 1, 2), lambda x: x[:, 3:9, ::2], turned(2, 3, 1)],
        ["GetItem"],
    ),
    "a_slice_of_a_line": (
        [reshaped(20, 12), lambda x: x[..., 1:5], reshaped(5, 4, 4)],
        ["GetItem"],
    ),
    "a_slice_of_a_part_of_an_axis": (
        [reshaped(20, 12), lambda x: x[:, 2:6], reshaped(2, 2, 12)],
        ["Reshape", "GetItem", "Reshape"],
    ),
    "channels_in_reverse": (
        [lambda x: x[..., ::-1], turned(2, 1, 3)],
        ["GetItem", "Permute"],
    ),
    "pieces_of_what_is_turned": (
        [
            turned(3, 1, 2),
            lambda x: ops.split(x, [4], axis=1)[1],
            turned(2, 3, 1),
        ],
        ["GetItem"],
    ),
    "a_slice_of_a_sum": ([lambda x: x + c(12), lambda x: x[..., :6] - 1.0], ["GetItem", "Add"]),
    "all": (
        [lambda x: x[..., ::2] * c(6), lambda x: x - c(6), lambda x: x[..., 1:4] * 2.0],
        ["GetItem", "Multiply", "Add"],
    ),
    "half_and_double": ([lambda x: x * 0.5, lambda x: x[..., 3:] / 0.5], ["GetItem"]),
    "a_sum_of_multiples": ([lambda x: x * c(12) + 2.0 * (x - c(12))], ["Multiply", "Add"]),
    "multiples_that_are_all_of_it": ([lambda x: x * 0.25 + x * 0.75], []),
    "halves_put_together": (
        [lambda x: ops.concatenate([x[..., :6] * 2.0, x[..., 6:] + c(6)], axis=-1)],
        ["Multiply", "Add"],
    ),
    "a_stack_that_is_added_up": (
        [lambda x: ops.sum(ops.stack([x, -x, x * c(12)], axis=-1), axis=-1)],
        ["Multiply"],
    ),
    "an_activation_of_its_own": (
        [lambda x: x * c(12), lambda x: layers.Rescaling(2.0, 1.0)(x), layers.Activation("tanh")],
        ["Multiply", "Add", "Activation"],
    ),
}


@pytest.mark.parametrize(("steps", "left"), FEWER.values(), ids=FEWER)
def test_as_few_operations(steps: list[Step], left: list[str]) -> None:
    model = model_of(*steps)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert operations(folded) == left, str(folded.fold_report)


@pytest.mark.parametrize("first", [False, True], ids=["last", "first"])
def test_slices_of_either_layout(first: bool) -> None:
    with policy("float64"):
        x = inputs = keras.Input((6, 10, 11) if first else (10, 11, 6), dtype="float64")
        x = ops.tanh(x)[:, 1:, 2:-1][:, ::2, ::3, 1:]
        conv = layers.Conv2D(2, 1, data_format="channels_first" if first else "channels_last")
        model = randomise(keras.Model(inputs, conv(ops.tanh(x))))
    folded = kerasfold.fold(model, verify=False)
    assert operations(folded) == ["Tanh", "GetItem", "Tanh", "Conv2D"]
    image = np.random.default_rng(0).normal(size=(2, 6, 10, 11) if first else (2, 10, 11, 6))
    assert_same(model, folded, FLOAT64, image, run_under_xla)


def test_what_is_done_is_counted() -> None:
    report = kerasfold.explain(model_of(lambda x: x[..., :6] * c(6), lambda x: x * 2.0 + c(6)))
    (merged,) = report.merged
    assert merged.kind == "elementwise"
    assert (report.macs_before, report.macs_after) == (2 * 5 * 4 * 6, 5 * 4 * 6)
    assert (report.params_before, report.params_after) == (0, 0)


def test_weights_that_train_are_made_no_constants() -> None:
    model = model_of(layers.BatchNormalization(), lambda x: x * c(12), dtype="float32")
    for objective in UNTIMED:
        folded = kerasfold.fold(model, objective=objective, verify=False)
        assert_same(model, folded, FLOAT32)
        assert folded.trainable_weights


def test_channels_that_no_slice_gives_are_taken() -> None:
    model = model_of(lambda x: ops.take(x, [3, 1, 0], axis=-1), lambda x: x + c(3))
    for objective in UNTIMED:
        folded = kerasfold.fold(model, objective=objective, verify=False)
        assert_same(model, folded, FLOAT64)
    assert operations(kerasfold.fold(model)) == ["Take", "Add"]


def test_they_are_in_the_dtype_of_the_model() -> None:
    model = model_of(lambda x: x * c(12).astype("float32"), lambda x: x - 1.5, dtype="float32")
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT32)
    assert {tensor.dtype for o in folded.operations for tensor in [o.output]} == {"float32"}


@pytest.mark.parametrize(
    "steps",
    [
        [lambda x: layers.Add()([layers.Add()([x, x]), x])],
        [lambda x: -layers.Rescaling(1.25)(x)],
        [lambda x: layers.Subtract()([layers.Subtract()([x, x]), x])],
    ],
)
def test_a_float32_input_is_cast_as_the_layers_cast_it(steps: list[Step]) -> None:
    with policy("mixed_bfloat16"):
        x = inputs = keras.Input((5, 4, 12), dtype="float32")
        for step in steps:
            x = step(x)
        model = keras.Model(inputs, x)
    folded = kerasfold.fold(model, "params", verify=False)
    assert [x.dtype for x in folded.outputs] == ["bfloat16"]


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize(
    ("objective", "shape", "steps"),
    [
        ("latency", (5, 4, 12), [turned(3, 1, 2), lambda x: layers.BatchNormalization()(x)]),
        ("macs", (14, 22, 2), [conv_at_a_border]),
        ("params", (5, 4, 12), [lambda x: x * c(12).astype("float16")] * 2),
    ],
)
def test_constants_are_no_coarser_than_stored_weights(
    dtype: str, objective: UntimedName, shape: tuple[int, ...], steps: list[Step]
) -> None:
    with policy(dtype):
        x = inputs = keras.Input(shape)
        for step in (*steps, layers.ReLU()):
            x = step(x)
        model = randomise(keras.Model(inputs, x))
    folded = kerasfold.fold(model, objective, verify=False)
    assert operations(folded) != operations(model)
    assert kerasfold.verify(model, folded).equivalent


def test_they_are_saved_and_loaded(tmp_path: Any) -> None:
    model = model_of(lambda x: x[..., ::2] * c(6), lambda x: x * c(6) + c(6))
    kerasfold.fold(model, verify=False).save(tmp_path / "folded.keras")
    loaded = keras.models.load_model(tmp_path / "folded.keras")
    assert operations(loaded) == ["GetItem", "Multiply", "Add"]
    assert_same(model, loaded, FLOAT64)


def test_an_output_keeps_its_name() -> None:
    x = inputs = keras.Input((5, 4, 12))
    x = layers.Rescaling(3.0, name="answer")(layers.Rescaling(2.0, 1.0)(x))
    model = keras.Model(inputs, x)
    folded = kerasfold.fold(model, verify=False)
    assert folded.output_names == model.output_names
    assert operations(folded) == ["Multiply", "Add"]
    assert_same(model, folded, FLOAT32)


def test_what_is_one_number_for_all_channels_stays_one() -> None:
    model = model_of(layers.Rescaling(2.0, 1.0, dtype="float64"), lambda x: -x)
    folded = kerasfold.fold(model, verify=False)
    assert operations(folded) == ["Multiply", "Add"]
    assert "__numpy__" not in folded.to_json()
    assert "__numpy__" in kerasfold.fold(model_of(lambda x: x * c(12), lambda x: -x)).to_json()
    assert_same(model, folded, FLOAT64)

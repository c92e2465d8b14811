"""Gains and shifts beside layers that stay closed go into the weights of those."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

import kerasfold
from zoo.closed import ABSORBED, BEFORE, BEHIND, IMAGES, INTEGERS, ROWS, STEPS, Body, made, norm
from zoo.making import policy, randomise
from zoo.same import FLOAT32, FLOAT64, assert_same, fingerprint, kinds

pytestmark = pytest.mark.usefixtures("fresh")


@pytest.mark.parametrize("name", ABSORBED)
def test_nothing_is_left_beside_a_closed_layer(name: str) -> None:
    body, shape = ABSORBED[name]
    model = made(body, shape, "int32" if shape in (INTEGERS, ROWS) else None)
    before = fingerprint(model)
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT64)
    assert not {"BatchNormalization", "Rescaling", "Normalization", "Multiply"} & set(kinds(folded))
    assert folded.fold_report.equivalence.equivalent
    assert fingerprint(model) == before
    again = kerasfold.fold(folded, verify=False)
    assert [x.name for x in again.layers] == [x.name for x in folded.layers]


OTHERWISE: dict[str, Body] = {
    "recurrent_dropout": lambda x: L.LSTM(2, recurrent_dropout=0.5, dropout=0.2)(norm(x)),
    "return_state": lambda x: L.LSTM(2, return_state=True, return_sequences=True)(norm(x)),
    "initial_state": lambda x: L.GRU(2)(norm(x), initial_state=L.Dense(2)(x[:, 0])),
    "stateful": lambda x: L.LSTM(2, stateful=True)(norm(x)),
    "go_backwards": lambda x: L.LSTM(2, go_backwards=True, unroll=True)(norm(x)),
    "frozen": lambda x: L.LSTM(2, trainable=False, use_bias=False)(norm(x)),
    "regularised": lambda x: L.GRU(2, kernel_regularizer="l2", kernel_constraint="max_norm")(
        norm(x)
    ),
    "a mask given": lambda x: L.LSTM(2)(norm(x), mask=x[..., 0] > 0),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_layer_keeps_all_else_that_it_has(name: str) -> None:
    with policy("float64"):
        x = keras.Input(batch_shape=(2, *STEPS), dtype="float64")
        model = randomise(keras.Model(x, OTHERWISE[name](x)))
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT64)
    (given,), (kept,) = ([x for x in m.layers if isinstance(x, L.RNN)] for m in (model, folded))
    same = given.get_config()
    if name == "frozen":
        same["use_bias"] = True
    assert kept.get_config() == same
    assert kept.trainable == given.trainable
    assert "BatchNormalization" not in kinds(folded)


@keras.saving.register_keras_serializable()
def summed(weight: Any) -> Any:
    """A regularizer that is not Keras's own."""
    return ops.sum(weight)


class Mine(L.LSTM):
    """Not Keras's own."""


@keras.saving.register_keras_serializable()
class Cell(L.LSTMCell):
    """Not Keras's own."""


def shared(x: Any) -> Any:
    lstm = L.LSTM(2)
    return [lstm(norm(x)), lstm(x)]


def read_twice(x: Any) -> Any:
    y = norm(x)
    return [L.LSTM(2)(y), ops.tanh(y)]


def read_as_state_too(x: Any) -> Any:
    y = norm(L.Flatten()(x))
    return L.LSTM(12)(L.Reshape((4, 3))(y), initial_state=[y, y])


STAYS: dict[str, tuple[Body, Any, str]] = {
    "read twice": (read_twice, STEPS, "KF601"),
    "also by who calls": (lambda x: (lambda y: [L.LSTM(2)(y), y])(norm(x)), STEPS, "KF601"),
    "shared": (shared, STEPS, "KF404"),
    "subclass": (lambda x: Mine(2)(norm(x)), STEPS, "KF601"),
    "a cell of others": (lambda x: L.RNN(Cell(2))(norm(x)), STEPS, "KF601"),
    "masked": (lambda x: L.LSTM(2)(norm(L.Masking()(x))), STEPS, "KF601"),
    "training": (lambda x: L.LSTM(2, dropout=0.5)(norm(x), training=True), STEPS, "KF104"),
    "a border": (lambda x: L.ConvLSTM2D(2, 3, padding="same")(norm(x)), IMAGES[2], "KF202"),
    "along the steps": (
        lambda x: L.LSTM(2)(L.BatchNormalization(axis=1, name="norm")(x)),
        STEPS,
        "KF601",
    ),
    "scores": (
        lambda x: (lambda y: [norm(y[0]), y[1]])(
            L.MultiHeadAttention(2, 3)(x, x, return_attention_scores=True)
        ),
        STEPS,
        "KF601",
    ),
    "a mask that an Embedding makes": (
        lambda x: norm(L.Embedding(7, 3, mask_zero=True)(x)),
        INTEGERS,
        "KF105",
    ),
    "an activation": (lambda x: norm(L.Dense(3, "relu")(x)), INTEGERS, "KF102"),
    "gains that do not pass one": (
        lambda x: L.Rescaling([-0.5, 1.0, 0.0], name="norm")(L.Dense(3, "relu")(x)),
        INTEGERS,
        "KF110",
    ),
    "no matrix": (lambda x: norm(L.EinsumDense("abc,bd->adc", (4, 3))(x)), ROWS, "KF108"),
    "a regularizer of others": (
        lambda x: L.LSTM(2, kernel_regularizer=summed)(norm(x)),
        STEPS,
        "KF601",
    ),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_must_stay(name: str) -> None:
    body, shape, code = STAYS[name]
    model = made(body, shape, "int32" if shape in (INTEGERS, ROWS) else None)
    folded = kerasfold.fold(model, verify=False)
    if name != "training":
        assert_same(model, folded, FLOAT64)
    (row,) = (x for x in folded.fold_report.kept if x.layer == "norm")
    assert row.code == code, row.reason
    folded.get_layer("norm")


@pytest.mark.parametrize("half", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_in_half_precision_a_shift_stays(half: str) -> None:
    model = made(lambda x: L.LSTM(2)(norm(x)), STEPS, like=half)
    folded = kerasfold.fold(model)
    assert "BatchNormalization" in kinds(folded)
    (row,) = (x for x in folded.fold_report.kept if x.layer == "norm")
    assert row.code == "KF501"
    gains = made(lambda x: L.LSTM(2)(L.Rescaling(0.5)(x)), STEPS, like=half)
    assert kinds(kerasfold.fold(gains)) == ["LSTM"]


@pytest.mark.parametrize("scale", [1e38, 1e-45])
def test_weights_that_their_dtype_does_not_hold(scale: float) -> None:
    model = made(
        lambda x: L.LSTM(2)(x * np.float32(scale) * np.float32(7.0)), STEPS, like="float32"
    )
    model.layers[-1].cell.kernel.assign(np.full((3, 8), 20.0))
    folded = kerasfold.fold(model, verify=False)
    assert np.isfinite(folded.layers[-1].cell.kernel).all()
    assert len(folded.operations) > 2
    assert "KF501" in {x.code for x in folded.fold_report.kept}


@pytest.mark.parametrize(
    "name", ["before LSTM without a bias", "both sides before", "Embedding before"]
)
def test_what_is_saved_is_the_same(name: str, tmp_path: Path) -> None:
    body, shape = ABSORBED[name]
    model = made(body, shape, "int32" if shape is INTEGERS else None, like="float32")
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT32)
    folded.save(tmp_path / "folded.keras")
    loaded = keras.models.load_model(tmp_path / "folded.keras")
    assert_same(folded, loaded, 0.0)
    assert {w.dtype for w in loaded.weights} == {"float32"}


def test_weights_are_rounded_once() -> None:
    model = made(lambda x: L.LSTM(2)(norm(x)), STEPS, like="float32")
    folded = kerasfold.fold(model)
    gamma, _, _, variance = (
        np.asarray(w, "float64") for w in model.get_layer("norm").get_weights()
    )
    gain = gamma / np.sqrt(variance + 1e-3)
    kernel = np.asarray(model.layers[-1].cell.kernel, "float64")
    np.testing.assert_array_equal(folded.layers[-1].cell.kernel, np.float32(gain[:, None] * kernel))


def test_layers_that_are_not_opened_take_it_too() -> None:
    body, shape = BEFORE["attention"]
    model = made(body, shape)
    folded = kerasfold.fold(model, open_layers=False)
    assert kinds(folded) == ["MultiHeadAttention"]


@pytest.mark.parametrize("objective", ["latency", "macs", "params", "layers"])
def test_under_each_objective_nothing_costs_more(objective: str) -> None:
    def body(x: Any) -> Any:
        x = L.LSTM(2, use_bias=False, return_sequences=True)(L.Rescaling(2.0, 1.0, name="norm")(x))
        return L.GRU(2)(L.Rescaling([3.0, 2.0])(x))

    model = made(body, STEPS)
    report = kerasfold.fold(model, objective).fold_report
    adds = objective != "params"
    assert report.params_after - report.params_before == (8 if adds else 0)
    assert report.layers_after == (2 if adds else 3)
    assert report.macs_after <= report.macs_before
    assert {x.layer: x.code for x in report.kept}.get("norm") == (None if adds else "KF401")
    said = kerasfold.explain(model, objective)
    assert (said.params_after, said.layers_after) == (report.params_after, report.layers_after)


def test_what_takes_less_is_taken_where_a_bias_is_fewer_weights() -> None:
    model = made(lambda x: L.SimpleRNN(2, use_bias=False)(norm(x)), STEPS)
    report = kerasfold.fold(model, "params").fold_report
    assert report.params_after == report.params_before - 4 * 3 + 2


def test_the_report_says_what_merged_into_what() -> None:
    body, shape = BEHIND["both sides"]
    report = kerasfold.fold(made(body, shape)).fold_report
    (row,) = report.merged
    assert row.layers[0::2] == ("norm", "behind")
    assert row.kinds == ("BatchNormalization", "MultiHeadAttention", "BatchNormalization")
    assert row.into == row.layers[1]
    assert (report.repeated, report.removed) == ((), ())
    assert [x.layer for x in report.kept] == [row.into]


def test_a_convolution_before_takes_it_first() -> None:
    model = made(lambda x: L.LSTM(2)(norm(L.Conv1D(3, 2)(x))), STEPS)
    before = model.layers[-1].cell.get_weights()
    folded = kerasfold.fold(model)
    assert kinds(folded) == ["Conv1D", "LSTM"]
    for had, has in zip(before, folded.layers[-1].cell.get_weights(), strict=True):
        np.testing.assert_array_equal(had, has)


def test_an_output_keeps_its_name() -> None:
    model = made(lambda x: norm(L.Embedding(7, 3)(x)), INTEGERS, "int32")
    assert kerasfold.fold(model).output_names == model.output_names


@pytest.mark.parametrize(("axis", "taken"), [(None, True), (2, False), (-1, False), (1, False)])
def test_channels_first(axis: int | None, taken: bool) -> None:
    """Where no kernels run on the processor: by weights alone."""

    def body(x: Any) -> Any:
        y = L.Rescaling(0.5)(x) if axis is None else norm(x, axis=axis, center=False)
        return L.ConvLSTM2D(2, 1, data_format="channels_first")(y)

    model = made(body, (2, 3, 4, 5))
    folded = kerasfold.fold(model, verify=False)
    assert (kinds(folded) == ["ConvLSTM2D"]) == taken
    kernel, now = (m.layers[-1].cell.kernel for m in (model, folded))
    np.testing.assert_array_equal(now, np.multiply(kernel, 0.5 if taken else 1.0))


@pytest.mark.parametrize("axis", [None, 1, 2])
def test_sequences_in_a_model_with_channels_first(axis: int | None) -> None:
    """There the channels of a sequence are its steps, to what is lifted."""

    def body(x: Any) -> Any:
        x = ops.tanh(L.Reshape((3, 4))(L.MaxPooling2D(2, data_format="channels_first")(x)))
        return L.LSTM(2)(norm(x, axis=axis) if axis else L.Rescaling(0.5)(x))

    model = made(body, (3, 4, 4))
    kernel, now = (x.layers[-1].cell.kernel for x in (model, kerasfold.fold(model, verify=False)))
    np.testing.assert_array_equal(now, np.multiply(kernel, 1.0 if axis else 0.5))

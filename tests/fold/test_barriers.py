"""What must stay: layers that are not affine, are alive, or are masked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from zoo.graphs import BN, Conv, LoudConv, Scale, SquaredNorm, built, image
from zoo.making import randomise
from zoo.same import FLOAT32, assert_same, inputs_of, kinds, run

pytestmark = pytest.mark.usefixtures("fresh")


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("subclassed_layers", {"loud": LoudConv, "squared": SquaredNorm, "scale": Scale}),
        ("training_true", {"live": BN}),
        ("in_memory_lambda", {"square": layers.Lambda}),
        ("wrappers", {"both": layers.Bidirectional}),
        ("multi_head_attention", {"mha": layers.MultiHeadAttention}),
        ("batchnorm_not_on_channels", {"rows": BN, "cols": BN}),
        ("masked_text", {"embed": layers.Embedding, "lstm": layers.LSTM}),
        ("conv_lstm", {"r": layers.ConvLSTM2D}),
    ],
)
def test_kept_with_a_reason(name: str, kept: dict[str, type]) -> None:
    folded = kerasfold.fold(built(name), objective="layers", verify=False)
    reasons = {row.layer: row.reason for row in folded.fold_report.kept}
    for layer, kind in kept.items():
        assert type(folded.get_layer(layer)) is kind
        assert reasons[layer]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: Scale(2.5, name="layer"), (4, 4, 3)),
        (lambda: layers.PReLU(name="layer"), (4, 4, 3)),
        (lambda: layers.Dense(3, name="layer", activation="gelu"), (4, 4, 3)),
        (lambda: layers.LayerNormalization(name="layer"), (4, 4, 3)),
        (lambda: layers.Conv2DTranspose(3, 3, name="layer"), (4, 4, 3)),
        (lambda: layers.UpSampling2D(2, name="layer"), (4, 4, 3)),
        (lambda: layers.Rescaling(0.1, 3.0, name="layer"), (4, 4, 3)),
        (lambda: layers.SpectralNormalization(layers.Dense(3), name="layer"), (4, 4, 3)),
        (lambda: layers.GroupNormalization(1, name="layer"), (4, 4, 3)),
        (
            lambda: layers.LocallyConnected if False else layers.Permute((2, 1, 3), name="layer"),
            (4, 4, 3),
        ),
        (lambda: layers.EinsumDense("bhwc,cd->bhwd", (4, 4, 5), name="layer"), (4, 4, 3)),
        (lambda: layers.Resizing(7, 9, name="layer"), (4, 4, 3)),
        (lambda: layers.Maximum(name="layer"), (4, 4, 3)),
        (lambda: layers.Multiply(name="layer"), (4, 4, 3)),
        (lambda: layers.RandomFlip(name="layer"), (4, 4, 3)),
        (lambda: layers.UnitNormalization(name="layer"), (4, 4, 3)),
    ],
    ids=lambda value: "" if callable(value) else "layer",
)
def test_a_barrier_between_two_regions(layer: Callable[[], Any], shape: Any) -> None:
    i = image(shape)
    barrier = layer()
    x = BN(name="n1")(Conv(3, 2, padding="same", name="c1")(i))
    x = barrier([x, i]) if isinstance(barrier, (layers.Maximum, layers.Multiply)) else barrier(x)
    model = randomise(keras.Model(i, BN(name="n2")(Conv(3, 2, name="c2")(x))))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT32)
    assert "BatchNormalization" not in kinds(folded)


def test_dropout_with_training_true_stays_random() -> None:
    i = image()
    x = layers.Dropout(0.5, name="live")(Conv(4, 3, name="c")(i), training=True)
    model = randomise(keras.Model(i, BN(name="n")(x)))
    folded = kerasfold.fold(model, verify=False)
    assert type(folded.get_layer("live")) is layers.Dropout
    given = inputs_of(model)
    # Without `training=`: a `training=False` of the whole model overrules the one of the call.
    assert np.abs(np.asarray(folded(given)) - np.asarray(folded(given))).max() > 0.1
    assert any(row.layer == "live" and "training" in row.reason for row in folded.fold_report.kept)


def test_dropout_with_training_true_verifies() -> None:
    """Random on purpose: verification must neither fail it nor wave it through unsaid."""
    i = image()
    x = layers.Dropout(0.5, name="live")(Conv(4, 3, name="c")(i), training=True)
    model = randomise(keras.Model(i, BN(name="n")(x)))
    assert kerasfold.fold(model).fold_report.equivalence.equivalent


def test_noise_with_training_true_stays() -> None:
    i = image()
    model = keras.Model(i, layers.GaussianNoise(1.0, name="live")(i, training=True))
    folded = kerasfold.fold(model, verify=False)
    given = inputs_of(model)
    assert np.abs(np.asarray(folded(given)) - given).max() > 0.1


def test_training_argument_of_a_nested_call() -> None:
    i = keras.Input((8, 8, 3))
    inner = keras.Model(i, BN(name="n")(Conv(4, 3, name="c")(i)), name="inner")
    x = image()
    model = randomise(keras.Model(x, inner(x, training=True)))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT32)
    assert "BatchNormalization" in kinds(folded)


def test_moving_statistics_are_not_moved_by_a_live_batchnorm() -> None:
    model = built("training_true")
    before = [w.numpy() for w in model.weights]
    kerasfold.fold(model)
    for a, b in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(a, b.numpy())


# Masks.


@pytest.mark.parametrize(
    "name", ["masked_text", "masked_through_operators", "masked_batchnorm_and_conv"]
)
def test_a_mask_arrives_through_what_is_removed(name: str) -> None:
    model = built(name)
    folded = kerasfold.fold(model, objective="layers", verify=False)
    words = np.array([[1, 2, 3, 0, 0, 0], [4, 0, 0, 0, 0, 0], [0, 1, 0, 2, 0, 3]], "int32")
    other = words.copy()
    assert_same(model, folded, FLOAT32, inputs=words)
    assert len(run(folded, other)) == len(run(model, words))


def test_mask_of_padded_steps_is_used() -> None:
    model = built("masking_layer")
    folded = kerasfold.fold(model, verify=False)
    x = inputs_of(model)
    x[:, 3:] = 0
    assert_same(model, folded, FLOAT32, inputs=x)


def test_nested_subclassed_model_is_a_barrier() -> None:
    model = randomise(_with_subclassed_inside())
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT32)
    assert "BatchNormalization" not in [type(layer).__name__ for layer in folded.layers]


@keras.saving.register_keras_serializable("test_graphs")
class Inside(keras.Model):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conv = Conv(3, 3, padding="same")

    def build(self, shape: Any) -> None:
        self.conv.build(shape)
        self.built = True

    def call(self, x: Any) -> Any:
        return ops.tanh(self.conv(x))


def _with_subclassed_inside() -> keras.Model:
    i = image()
    x = Inside(name="inside")(BN(name="n1")(Conv(3, 3, name="c1")(i)))
    return keras.Model(i, BN(name="n2")(Conv(3, 3, name="c2")(x)))


@keras.saving.register_keras_serializable("test_graphs")
class Formatted(layers.Layer):
    """Has a `data_format` of its own kind."""

    def __init__(self, data_format: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format

    def call(self, x: Any) -> Any:
        return ops.sin(x)


@pytest.mark.parametrize("data_format", [None, "NHWC", "channels_first"])
def test_the_layout_is_that_of_most_layers(data_format: Any) -> None:
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), Formatted(data_format), Conv(4, 1), Conv(5, 3)]
    )
    randomise(model)
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert_same(model, folded, FLOAT32)
    assert kinds(folded) == ["Formatted", "Conv2D"]


# What makes float64 of float32, and back.
CASTS: dict[str, Callable[[Any], Any]] = {
    "a number of NumPy's": lambda x: x / np.sqrt(7.0),
    "an array": lambda x: x * np.full(4, 0.4),
    "added": lambda x: ops.add(x, np.float64(0.4)),
    "a layer": lambda x: layers.Rescaling(0.4, dtype="float64")(x),
}


@pytest.mark.parametrize("name", CASTS)
def test_what_casts_stays_for_that(name: str) -> None:
    inputs = keras.Input((6, 6, 3))
    wide = CASTS[name](layers.Conv2D(4, 3)(inputs))
    assert wide.dtype == "float64"
    norm = layers.BatchNormalization(name="norm")(wide)
    model = randomise(keras.Model(inputs, layers.ReLU()(norm)))
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT32)
    reasons = {row.layer: row.reason for row in folded.fold_report.kept}
    assert reasons[wide._keras_history.operation.name].startswith("it casts float32 to float64")
    assert reasons["norm"].startswith("it casts float64 to float32")
    assert reasons[model.layers[1].name] == "nothing before it merges into it"


def test_a_number_of_the_dtype_merges() -> None:
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3)(inputs) / np.float32(2.6) * 0.3
    model = randomise(keras.Model(inputs, layers.ReLU()(layers.BatchNormalization()(x))))
    folded = kerasfold.fold(model)
    assert kinds(folded) == ["Conv2D", "ReLU"]
    assert not any("casts" in row.reason for row in folded.fold_report.kept)

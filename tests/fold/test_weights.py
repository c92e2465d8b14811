"""Weights and dtypes as the layers compute with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from kerasfold.cost import UNTIMED
from zoo.graphs import BN, Conv, built, image
from zoo.making import randomise
from zoo.same import (
    FLOAT32,
    assert_same,
    fingerprint,
    kinds,
    signature,
)

pytestmark = pytest.mark.usefixtures("fresh")


@pytest.mark.parametrize("kind", ["conv", "dense"])
def test_lora(kind: str) -> None:
    i = image((6, 6, 3))
    layer = Conv(4, 3, name="lora") if kind == "conv" else layers.Dense(4, name="lora")
    model = randomise(keras.Model(i, BN(name="n")(layer(i))))
    layer.enable_lora(2)
    rng = np.random.default_rng(0)
    for part in (layer.lora_kernel_a, layer.lora_kernel_b):
        part.assign(rng.normal(size=part.shape))
    before = fingerprint(model)
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert fingerprint(model) == before
    assert_same(model, folded, FLOAT32)
    if kind == "conv":
        assert kinds(folded) == ["Conv2D"]


def test_lora_barrier_saves(tmp_path: Path) -> None:
    i = image((6,), name="vector")
    layer = layers.Dense(4, name="lora")
    model = randomise(keras.Model(i, layer(i)))
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
    folded = kerasfold.fold(model, verify=False)
    folded.save(tmp_path / "m.keras")
    assert_same(model, keras.saving.load_model(tmp_path / "m.keras"), FLOAT32)


def test_frozen_layers_fold() -> None:
    folded = kerasfold.fold(built("frozen"))
    assert "BatchNormalization" not in kinds(folded)
    assert not folded.get_layer("d").trainable


# Dtypes.


def test_a_different_dtype_per_layer() -> None:
    i = image()
    x = Conv(4, 3, dtype="float64", name="wide")(i)
    x = BN(dtype="float32", name="norm")(x)
    x = Conv(4, 3, dtype="mixed_float16", name="half")(x)
    model = randomise(keras.Model(i, [layers.Dense(3, dtype="bfloat16", name="brain")(x), x]))
    folded = kerasfold.fold(model, verify=False)
    assert signature(folded) == signature(model)
    assert_same(model, folded, 0.01)


def test_mixed_precision_with_a_float32_head() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    i = image()
    x = layers.ReLU()(BN(name="n")(Conv(4, 3, name="c")(i)))
    model = randomise(keras.Model(i, layers.Activation("linear", dtype="float32", name="out")(x)))
    folded = kerasfold.fold(model)
    assert signature(folded) == signature(model)
    assert folded.outputs[0].dtype == "float32"
    assert folded.count_params() == 3 * 3 * 3 * 4 + 4


@pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
def test_no_layer_takes_the_policy_of_the_process(policy: str) -> None:
    i = image()
    model = keras.Model(i, ops.exp(Conv(4, 3)(layers.ZeroPadding2D(1)(i))) + i[..., :1])
    keras.config.set_dtype_policy(policy)
    folded = kerasfold.fold(randomise(model))
    assert folded.dtype_policy.name == "float32"
    assert {layer.dtype_policy.name for layer in folded.layers} == {"float32"}
    assert signature(folded) == signature(model)


def test_a_cast_is_not_an_identity() -> None:
    i = image(dtype="float64")
    model = keras.Model(i, layers.Dropout(0.1, dtype="float16", name="d")(i))
    folded = kerasfold.fold(model)
    assert folded.outputs[0].dtype == model.outputs[0].dtype == "float16"


def test_integer_images() -> None:
    i = image(dtype="uint8")
    model = randomise(
        keras.Model(i, BN(name="n")(Conv(4, 3, name="c")(layers.Rescaling(1 / 255)(i))))
    )
    folded = kerasfold.fold(model, verify=False)
    assert folded.inputs[0].dtype == "uint8"
    given = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3)).astype("uint8")
    assert_same(model, folded, FLOAT32, inputs=given)


def test_what_a_layer_is_made_of_stays_frozen() -> None:
    i = keras.Input((5, 4))
    attention = layers.MultiHeadAttention(2, 4, name="attention")
    model = keras.Model(i, attention(i, i))
    attention._query_dense.trainable = False
    folded = kerasfold.fold(model)
    own, kept = ([w.path for w in m.trainable_weights] for m in (model, folded))
    assert [p.split("/")[-2:] for p in own] == [p.split("/")[-2:] for p in kept]
    assert len(own) == 6


@keras.saving.register_keras_serializable()
class Flipped(layers.Layer):
    """Of the dtype of what it is given, which Keras takes for what the layer before says."""

    def call(self, x: Any) -> Any:
        return ops.flip(x, axis=1)


@pytest.mark.parametrize(
    "keeps",
    [
        lambda i: layers.ZeroPadding2D(1)(i),
        lambda i: layers.UpSampling2D(2)(i),
        lambda i: layers.Add()([i, i]),  # which wraps at 256
        lambda i: layers.Cropping2D(1)(layers.Concatenate()([i, i])),
        lambda i: layers.Permute((2, 1, 3))(layers.MaxPooling2D(2)(i)),
        lambda i: Flipped()(layers.ZeroPadding2D(1)(i)),
    ],
    ids=["padding", "upsampling", "sum", "concatenation", "permutation", "traced on floats"],
)
def test_layers_that_keep_bytes_are_not_merged(keeps: Any) -> None:
    """Keras says that they make floats; a kernel on bytes does not run."""
    i = image(dtype="uint8")
    x = layers.Rescaling(1 / 255)(keeps(i))
    model = randomise(keras.Model(i, Conv(4, 3, name="c")(Conv(4, 1, name="b")(x))))
    given = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype("uint8")
    for objective in UNTIMED:
        folded = kerasfold.fold(model, objective=objective, verify=False)
        assert any(isinstance(layer, layers.Rescaling) for layer in folded.layers)
        assert_same(model, folded, FLOAT32, inputs=given)
    assert len(kerasfold.fold(model, "layers", verify=False).layers) == len(model.layers) - 1
    reasons = [r.reason for r in folded.fold_report.kept if "integers" in r.reason]
    assert len(reasons) >= 1


@keras.saving.register_keras_serializable()
class Magnitude(layers.Layer):
    """Keras traces its call to know what it makes."""

    def call(self, x: Any) -> Any:
        return ops.abs(x)


def test_what_comes_of_complex_numbers_is_merged() -> None:
    i = image((8, 8, 3))
    y = Magnitude()(ops.cast(i, "complex64"))
    model = randomise(keras.Model(i, Conv(4, 1, name="c")(BN(name="n")(y))))
    assert "BatchNormalization" not in kinds(kerasfold.fold(model))

"""Masks: who reads one gets the one that the original gave, and nothing else keeps layers apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from zoo.graphs import BN
from zoo.making import randomise
from zoo.same import FLOAT64, assert_same, kinds

WORDS = np.array([[1, 2, 3, 0, 0, 0], [4, 0, 0, 0, 0, 0], [0, 1, 0, 2, 0, 3]], "int32")

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask"),
]


def embed(words: Any) -> Any:
    return layers.Embedding(5, 4, mask_zero=True)(words)


def model_of(block: Callable[[Any], Any]) -> keras.Model:
    words = keras.Input((6,), dtype="int32", name="words")
    return randomise(keras.Model(words, block(words)))


@keras.saving.register_keras_serializable("test_masks")
class Recurrent(layers.Layer):
    """Finds the mask inside, where no argument tells."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lstm = layers.LSTM(3)

    def build(self, shape: Any) -> None:
        self.lstm.build(shape)
        self.built = True

    def call(self, x: Any) -> Any:
        return self.lstm(x)


MERGED: dict[str, tuple[Callable[[Any], Any], list[str]]] = {
    "a_mask_that_is_dropped": (
        lambda words: layers.LSTM(3)(
            layers.Dense(3)(BN()(layers.Conv1D(4, 3, padding="same")(embed(words))))
        ),
        ["Embedding", "Conv1D", "LSTM"],
    ),
    "a_mask_that_batchnorm_ignores": (
        lambda words: layers.Conv1D(4, 3)(BN()(embed(words))),
        ["Embedding", "Conv1D"],
    ),
    "a_mask_that_is_an_argument": (
        lambda words: layers.LSTM(3)(layers.Dense(4)(BN()(layers.Dropout(0.5)(embed(words))))),
        ["Embedding", "Dense", "LSTM"],
    ),
}


def pooled(between: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What drops a mask, and a mean that would read it."""
    return lambda words: layers.Dense(3)(layers.GlobalAveragePooling1D()(between(embed(words))))


def added(words: Any) -> Any:
    x = embed(words)
    y = layers.Activation("tanh")(x)
    both = layers.Add()([layers.Conv1D(6, 1)(x), layers.Conv1D(6, 1)(y)])
    return layers.Dense(3)(layers.GlobalAveragePooling1D()(both))


# A pool may stand, once folded, before the layer that dropped the mask, or in its place.
POOLED: dict[str, Callable[[Any], Any]] = {
    "a_convolution": pooled(lambda x: layers.Conv1D(6, 1)(x)),
    "a_convolution_and_batchnorm": pooled(lambda x: BN()(layers.Conv1D(6, 1)(x))),
    "a_convolution_in_groups": pooled(lambda x: layers.DepthwiseConv1D(1)(x)),
    "windows": pooled(lambda x: layers.AveragePooling1D(2)(x)),
    "an_upsampling": pooled(lambda x: layers.UpSampling1D(2)(x)),
    "a_crop": pooled(lambda x: layers.Cropping1D((0, 2))(x)),
    "a_pad": pooled(lambda x: layers.ZeroPadding1D((0, 2))(x)),
    "a_sum": added,
}


@pytest.mark.parametrize("objective", ["latency", "macs", "params", "layers"])
@pytest.mark.parametrize("block", POOLED.values(), ids=POOLED)
def test_a_pool_reads_no_mask_that_was_dropped(block: Callable[[Any], Any], objective: str) -> None:
    model = model_of(block)
    folded = kerasfold.fold(model, objective, verify=False)
    assert_same(model, folded, FLOAT64, inputs=WORDS)


@pytest.mark.parametrize(("block", "left"), MERGED.values(), ids=MERGED)
def test_merged(block: Callable[[Any], Any], left: list[str]) -> None:
    model = model_of(block)
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert_same(model, folded, FLOAT64, inputs=WORDS)
    assert kinds(folded) == left, str(folded.fold_report)


KEPT: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "read": (
        lambda words: layers.Dense(3)(layers.GlobalAveragePooling1D(name="mean")(embed(words))),
        "mean",
        "it reads a mask",
    ),
    "read_inside": (
        lambda words: Recurrent(name="own")(layers.Dense(4, name="dense")(BN()(embed(words)))),
        "dense",
        "the mask that it hands on is read by 'own'",
    ),
    "through_a_wrapper": (  # where Keras's symbolic tensors show no mask
        lambda words: layers.LSTM(3, name="lstm")(
            layers.SpectralNormalization(layers.Dense(4), name="dense")(BN()(embed(words)))
        ),
        "dense",
        "the mask that it hands on is read by 'lstm'",
    ),
    "through_a_pipeline": (
        lambda words: layers.LSTM(3)(
            layers.Pipeline([layers.Rescaling(2.0)], name="pipeline")(BN(name="bn")(embed(words)))
        ),
        "pipeline",
        "it reads a mask",
    ),
    "by_attention": (
        lambda words: layers.GlobalMaxPooling1D()(
            layers.MultiHeadAttention(2, 2, name="mha")(
                x := layers.Dense(4, name="dense")(BN()(embed(words))), x
            )
        ),
        "dense",
        "the mask that it hands on is read by 'mha'",
    ),
    **{
        f"by_a_{kind.__name__.lower()}": (
            lambda words, kind=kind: layers.Dense(3)(
                kind(name="both")(
                    [layers.Dense(4, name="dense")(x := BN()(embed(words))), layers.Dense(4)(x)]
                )
            ),
            "dense",
            "the mask that it hands on is read by 'both'",
        )
        for kind in (layers.Maximum, layers.Minimum, layers.Multiply)
    },
    "of_an_output": (
        lambda words: layers.Dense(4, name="dense")(BN()(embed(words))),
        "dense",
        "the mask that it hands on is read by whoever calls the model",
    ),
    "dropped_by_an_identity": (
        lambda words: layers.LSTM(3, name="lstm")(layers.Cropping1D(0, name="crop")(embed(words))),
        "crop",
        "the mask that it drops would be read by 'lstm'",
    ),
}


@pytest.mark.usefixtures("rules_restored")
@pytest.mark.parametrize(("block", "layer", "reason"), KEPT.values(), ids=KEPT)
def test_kept(block: Callable[[Any], Any], layer: str, reason: str) -> None:
    if layer == "crop":
        kerasfold.lifts(layers.Cropping1D, override=True)(lambda _, x: x)
    model = model_of(block)
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert_same(model, folded, FLOAT64, inputs=WORDS)
    assert (layer, reason) in [(row.layer, row.reason) for row in folded.fold_report.kept]


def test_no_mask_arrives_where_the_original_gave_none() -> None:
    """An Add layer in the place of operators hands on the mask that those dropped."""
    model = model_of(
        lambda words: layers.LSTM(3)(ops.add(ops.add(embed(words), embed(words)), embed(words)))
    )
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert "Add" in kinds(folded)
    assert_same(model, folded, FLOAT64, inputs=WORDS)


def test_what_keras_makes_of_masks_are_no_layers_of_the_users() -> None:
    def block(x: Any) -> Any:
        return layers.LSTM(3, name="last")(layers.LSTM(4, return_sequences=True, name="first")(x))

    x = keras.Input((6, 4))
    masked = keras.Model(x, layers.Dense(2, name="d")(block(layers.Masking(name="masking")(x))))
    embedded = model_of(lambda words: layers.Dense(2, name="d")(block(embed(words))))
    own = keras.Model(x, layers.LSTM(3, name="last")(x, mask=ops.any(ops.not_equal(x, 0.0), -1)))
    for model, kept in ((masked, 4), (embedded, 4), (own, 3)):
        report = kerasfold.fold(model, "layers", verify=False).fold_report
        assert (len(report.kept), report.layers_before, report.layers_after) == (kept,) * 3
        assert any(row.kind == "NotEqual" for row in report.kept) == (model is own)
        with pytest.raises(kerasfold.NonlinearLayerError) as refused:
            kerasfold.require_linear(model)
        assert ("NotEqual" in str(refused.value)) == (model is own)


@pytest.mark.parametrize("masking", ["embedding", "layer"])
def test_a_mean_that_reads_a_mask_gives_floats(masking: str) -> None:
    """Its mask is of booleans, which numbers beside it promote."""
    if masking == "embedding":
        inputs = keras.Input((6,), dtype="int32")
        x = layers.Embedding(20, 5, mask_zero=True)(inputs)
    else:
        inputs = keras.Input((6, 5))
        x = layers.Masking()(inputs)
    x = layers.GlobalAveragePooling1D()(x)
    x = layers.BatchNormalization()(layers.Dense(8)(x))
    model = randomise(keras.Model(inputs, layers.ReLU()(x)))
    folded = kerasfold.fold(model)
    assert folded.fold_report.equivalence.equivalent
    assert "BatchNormalization" not in kinds(folded)
    assert not [row for row in folded.fold_report.kept if "integers" in row.reason]

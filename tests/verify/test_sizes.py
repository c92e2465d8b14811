"""Models of free sizes are compared at a size that they run at, or at one that is given."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasfold
from kerasfold.equivalence.probes import probes
from zoo.making import randomise
from zoo.same import FLOAT32, assert_same

pytestmark = pytest.mark.usefixtures("fresh")


def cropped(samples: int = 700) -> keras.Model:
    """As SpliceAI: a sequence of any length, of which what was seen from too near an end goes."""
    x = keras.Input((None, 4), name="sequence")
    y = layers.BatchNormalization()(layers.Conv1D(4, 11, padding="same")(x))
    return randomise(keras.Model(x, layers.Cropping1D(samples)(layers.ReLU()(y)), name="splice"))


def test_a_size_is_looked_for_beyond_the_usual() -> None:
    model = cropped()
    folded = kerasfold.fold(model)
    assert next(iter(probes(model))).shape[1] > 1400
    assert kerasfold.verify(model, folded).equivalent
    assert_same(model, folded, FLOAT32, size=1500)


def test_a_model_that_fails_at_any_size_asks_for_one() -> None:
    x = keras.Input((None, 4))
    y = layers.Lambda(lambda t: 1 / 0 if t.shape[1] else t, output_shape=(None, 4))(x)
    with pytest.raises(kerasfold.FoldError, match="input_shape=, or inputs as data="):
        kerasfold.fold(keras.Model(x, layers.Conv1D(4, 3)(y)))


@pytest.mark.parametrize("told", [{"input_shape": (1500, 4)}, {"data": np.ones((2, 1600, 4))}])
def test_a_size_that_is_given_is_taken(told: dict[str, Any], monkeypatch: Any) -> None:
    model = cropped()
    monkeypatch.setattr("kerasfold.equivalence.sizes.FREE_SIZES", ())  # nothing is looked for
    folded = kerasfold.fold(model, **told)
    assert folded.fold_report.equivalence.equivalent
    kerasfold.assert_equivalent(model, folded, **told)


@keras.saving.register_keras_serializable("kerasfold tests")
class WithHeight(layers.Layer):
    """Gives how high an image is, too: a number, where that is not free."""

    def call(self, x: Any) -> Any:
        """The sine of it, and its height."""
        return keras.ops.sin(x), keras.ops.shape(x)[1]


def test_a_layer_that_gives_a_size_beside_a_tensor() -> None:
    image = keras.Input((None, None, 3))
    x, height = WithHeight()(layers.Conv2D(2, 3, strides=2)(image))
    x = layers.Conv2D(2, 1)(layers.Conv2D(2, 1)(x)) / keras.ops.cast(height, "float32")
    model = randomise(keras.Model(image, x))
    folded = kerasfold.fold(model)
    assert folded.fold_report.equivalence.equivalent
    assert kerasfold.verify(model, folded).equivalent
    assert_same(model, folded, FLOAT32, size=17)


def test_shapes_of_several_inputs() -> None:
    x, y = keras.Input((None, None, 3), name="x"), keras.Input((None, 2), name="y")
    outputs = [layers.Conv2D(2, 3)(x), layers.Conv1D(2, 3)(y)]
    model = randomise(keras.Model([x, y], outputs))
    for batch in probes(model, [(9, 7, 3), (40, 2)]):
        assert [array.shape[1:] for array in batch] == [(9, 7, 3), (40, 2)]
    assert kerasfold.fold(model, input_shape=[(9, 7, 3), (40, 2)]).fold_report.equivalence


@pytest.mark.parametrize("shape", [(1500, 5), (1500,), (0, 4), ("a", 4), [(1500, 4), (3,)]])
def test_a_shape_that_does_not_fit_is_refused(shape: Any) -> None:
    with pytest.raises(kerasfold.FoldError, match=r"'splice'.* \{'sequence': \(None, 4\)\}"):
        kerasfold.fold(cropped(), input_shape=shape)


def test_the_sizes_that_were_compared_are_said() -> None:
    x = keras.Input((None, None, 3))
    model = keras.Model(x, layers.Conv2D(2, 3, padding="same")(x))
    report = kerasfold.verify(model, model)
    assert len(report.shapes) > 2
    assert f"sizes are free: compared at {report.shapes[0][0]}, " in str(report)
    assert {each[0][-1] for each in report.shapes} == {3}


@keras.saving.register_keras_serializable()
class Placed(layers.Layer):
    """As KerasHub's PositionEmbedding: a table of positions, that says it takes any length."""

    def __init__(self, rows: int, lengths: str = "up to them", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows, self.lengths = rows, lengths

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=(self.rows, shape[-1]), name="table")

    def call(self, x: Any) -> Any:
        if self.lengths == "none" or x.shape[1] > self.rows:
            raise ValueError("too long")
        return x + (self.table if self.lengths == "all" else self.table[: x.shape[1]])

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rows": self.rows, "lengths": self.lengths}


def text(*args: Any) -> keras.Model:
    x = inputs = keras.Input((None,), dtype="int32")
    x = Placed(*args)(layers.Embedding(70, 6)(x))
    return randomise(keras.Model(inputs, layers.BatchNormalization()(layers.Dense(3)(x))))


@pytest.mark.parametrize("args", [(20,), (20, "all"), (48, "all"), (6,)])
def test_a_table_of_positions_is_no_longer_than_it_is(args: Any) -> None:
    model = text(*args)
    report = kerasfold.fold(model).fold_report.equivalence
    assert report.equivalent
    assert all(n <= args[0] for ((n,),) in report.shapes)  # of one size none is said
    assert kerasfold.verify(model, model).equivalent


def test_a_refusal_says_what_was_tried() -> None:
    with pytest.raises(kerasfold.FoldError, match=r"of 32, 20, 6, 16, 8, 4 and 70 \(.*too long"):
        kerasfold.fold(text(20, "none"))


@keras.saving.register_keras_serializable("kerasfold tests")
class Choosy(layers.Layer):
    """Takes no image whose numbers are all the same; and words."""

    def call(self, x: Any) -> Any:
        """The sine; of words how long they are."""
        if x.dtype == "string":
            return tf.cast(tf.strings.length(x), "float32")
        tf.debugging.assert_greater(tf.math.reduce_std(x), 0.0)
        return keras.ops.sin(x)

    def compute_output_spec(self, x: Any) -> Any:
        """The same shape."""
        return keras.KerasTensor(x.shape, "float32")


def test_a_model_that_is_choosy_of_numbers_runs() -> None:
    image = keras.Input((None, 3))
    model = randomise(keras.Model(image, layers.Dense(2)(layers.Dense(4)(Choosy()(image)))))
    assert kerasfold.fold(model).fold_report.equivalence.equivalent


def test_words_of_any_number() -> None:
    words = keras.Input((None,), dtype="string")
    x = layers.Reshape((-1, 1))(Choosy()(words))
    model = randomise(keras.Model(words, layers.Dense(2)(layers.Dense(4)(x))))
    assert kerasfold.fold(model).fold_report.equivalence.equivalent

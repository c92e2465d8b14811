"""Units that no input reached are counted, and the report says how many there are."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.equivalence.units import Units, has_flat_part


def test_units_that_vary_in_any_batch_are_reached() -> None:
    units = Units()
    units.saw("relu", np.array([[0.0, 1.0, 0.0, 6.0], [0.0, 2.0, 0.0, 6.0]]))
    assert units.unreached == {"relu": 0.75}
    units.saw("relu", np.array([[0.0, 2.0, 3.0, 6.0]]))
    assert units.unreached == {"relu": 0.5}
    units.saw("other", np.array([[0.0, 0.0, 1.0, 1.0]]))
    assert units.share == (2 + 4) / 8


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_a_channel_that_varies_at_one_pixel_is_reached(layout: str) -> None:
    images = np.zeros((2, 31, 31, 3))
    images[1, 17, 5, 2] = 1.0
    units = Units(layout)
    units.saw("relu", images if layout == "channels_last" else np.moveaxis(images, -1, 1))
    assert units.unreached == {"relu": pytest.approx(2 / 3)}


def test_nothing_is_unreached_where_nothing_was_seen() -> None:
    assert Units().share == 0.0
    assert Units().unreached == {}


@pytest.mark.parametrize(
    ("layer", "flat"),
    [
        (layers.ReLU(), True),
        (layers.ReLU(negative_slope=0.1), False),
        (layers.ReLU(6.0, negative_slope=0.1), True),
        (layers.Activation("hard_sigmoid"), True),
        (layers.Activation("tanh"), False),
        (layers.Dense(2, activation="relu6"), True),
        (layers.Dense(2), False),
    ],
    ids=lambda x: getattr(x, "name", x),
)
def test_which_activations_are_flat_somewhere(layer: keras.Layer, flat: bool) -> None:
    assert has_flat_part(layer) is flat


def test_operations_are_flat_somewhere_too() -> None:
    x = keras.Input((3,))
    model = keras.Model(x, keras.ops.tanh(keras.ops.minimum(keras.ops.relu(x), 1.0)))
    assert [has_flat_part(operation) for operation in model.operations[1:]] == [True, True, False]


@pytest.mark.parametrize(("bias", "share"), [(0.0, 0.0), (-1e6, 0.25)])
def test_the_report_says_how_many_no_input_reached(bias: float, share: float) -> None:
    x = keras.Input((4,))
    dense = layers.Dense(8, "relu")
    model = keras.Model(x, layers.Dense(2)(dense(x)))
    dense.bias.assign(np.r_[bias, bias, np.zeros(6)])
    report = kerasfold.verify(model, model)
    assert report.unreached == report.to_dict()["unreached"] == share
    assert ("no input reached 25 % of the units" in str(report)) == bool(share)

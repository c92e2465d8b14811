"""What is pooled behind a sum of pointwise convolutions is pooled before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.algebra.axis import Axis
from kerasfold.algebra.geometry import Geometry
from kerasfold.cost import Prices
from kerasfold.forms.beside import Beside
from zoo.making import randomise
from zoo.same import FLOAT64, assert_same

pytestmark = pytest.mark.usefixtures("float64")

SIZE, CHANNELS, WIDE = 8, 6, 10
PIXELS = SIZE * SIZE

Step = Callable[[Any], Any]


def model_of(end: Callable[[Any, Any], Any], shape: Any = (SIZE, SIZE, CHANNELS)) -> keras.Model:
    """What `end` makes of an image, and of one of `WIDE` channels, behind nonlinearities."""
    inputs = keras.Input(shape, dtype="float64")
    x = layers.ReLU(name="x")(inputs)
    conv = getattr(layers, f"Conv{len(shape) - 1}D")
    return randomise(keras.Model(inputs, end(x, conv(WIDE, 1, activation="tanh", name="y")(x))))


def folded(model: keras.Model, objective: str = "macs") -> keras.Model:
    found = kerasfold.fold(model, objective=objective, verify=False)
    assert_same(model, found, FLOAT64)
    return found


def kinds(model: keras.Model) -> Counter[str]:
    names = (type(operation).__name__ for operation in model.operations)
    return Counter(name for name in names if name not in ("InputLayer", "ReLU"))


def merged_into(model: keras.Model) -> str:
    """What the last calls that were merged are now."""
    return model.fold_report.merged[-1].kind


def conv(channels: int, **config: Any) -> Step:
    return lambda x: layers.BatchNormalization()(layers.Conv2D(channels, 1, **config)(x))


def mean(**config: Any) -> Step:
    return layers.GlobalAveragePooling2D(**config)


POOLED = PIXELS * (CHANNELS + WIDE)  # what the pools of both add up
BESIDE = PIXELS * CHANNELS * WIDE  # what makes y
HEAD = (CHANNELS + WIDE) * 5


@pytest.mark.parametrize("objective", ["latency", "macs", "params"])
def test_the_head_of_a_residual_is_one_matrix(objective: str) -> None:
    model = model_of(lambda x, y: layers.Dense(5)(mean()(layers.Add()([conv(12)(x), conv(12)(y)]))))
    found = folded(model, objective)
    expected = {"Conv2D": 1, "GlobalAveragePooling2D": 2, "Concatenate": 1, "Dense": 1}
    assert kinds(found) == expected, str(found.fold_report)
    assert found.fold_report.macs_after == BESIDE + POOLED + HEAD
    assert found.count_params() == CHANNELS * WIDE + WIDE + HEAD + 5
    assert merged_into(found) == "2 x GlobalAveragePooling2D + Concatenate + Dense"


def test_a_shortcut_is_added_to_what_is_pooled() -> None:
    model = model_of(lambda x, y: mean()(layers.Add()([x, conv(CHANNELS)(y)])))
    found = folded(model, "latency")
    assert kinds(found) == {"Conv2D": 1, "GlobalAveragePooling2D": 2, "Dense": 1, "Add": 1}
    assert found.fold_report.macs_after == BESIDE + POOLED + WIDE * CHANNELS
    assert merged_into(found) == "2 x GlobalAveragePooling2D + sum of Dense"


def sequences(rank: int) -> Callable[[Any, Any], Any]:
    def end(x: Any, y: Any) -> Any:
        conv = getattr(layers, f"Conv{rank}D")
        added = layers.Add()([conv(12, 1)(x), conv(12, 1)(y)])
        return layers.Dense(3)(getattr(layers, f"GlobalAveragePooling{rank}D")()(added))

    return end


# Ends of a model, the shape of its input, and what the last of what is merged is then.
ENDS: dict[str, tuple[Callable[[Any, Any], Any], tuple[int | None, ...], str]] = {
    "windows": (
        lambda x, y: layers.AveragePooling2D(2)(layers.Add()([conv(12)(x), conv(12)(y)])),
        (SIZE, SIZE, CHANNELS),
        "2 x AveragePooling2D 2x2, stride 2 + Concatenate + Conv2D 1x1",
    ),
    "windows and a kernel": (
        lambda x, y: layers.Conv2D(4, 3, padding="same")(
            layers.AveragePooling2D(2)(layers.Add()([conv(12)(x), conv(12)(y)]))
        ),
        (SIZE, SIZE, CHANNELS),
        "2 x AveragePooling2D 2x2, stride 2 + Concatenate + a channel of ones + Conv2D 3x3",
    ),
    "windows, and a kernel of one": (
        lambda x, y: layers.Conv2D(4, 1)(
            layers.AveragePooling2D(2)(
                layers.Add()([layers.Conv2D(12, 3, padding="same")(x), conv(12)(y)])
            )
        ),
        (SIZE, SIZE, CHANNELS),
        "AveragePooling2D 2x2, stride 2 + sum of Conv2D 4x4, stride 2, Conv2D 1x1",
    ),
    "several pools": (
        lambda x, y: layers.Dense(4)(
            mean()(layers.AveragePooling2D(2)(layers.Add()([conv(12)(x), conv(12)(y)])))
        ),
        (SIZE, SIZE, CHANNELS),
        "2 x GlobalAveragePooling2D + Concatenate + Dense",
    ),
    "an image of one pixel": (
        lambda x, y: layers.Conv2D(4, 1)(
            mean(keepdims=True)(layers.Add()([conv(12)(x), conv(12)(y)]))
        ),
        (SIZE, SIZE, CHANNELS),
        "2 x GlobalAveragePooling2D + Concatenate + Conv2D 1x1",
    ),
    "groups": (
        lambda x, y: layers.AveragePooling2D(4)(
            layers.Add()([conv(12, groups=2)(x), conv(12, groups=2)(y)])
        ),
        (SIZE, SIZE, CHANNELS),
        "2 x AveragePooling2D 4x4, stride 4 + sum of Conv2D 1x1, 2 groups, Conv2D 1x1, 2 groups",
    ),
    "a difference, normalised": (
        lambda x, y: mean()(
            layers.BatchNormalization()(layers.Subtract()([conv(12)(x), conv(12)(y)]))
        ),
        (SIZE, SIZE, CHANNELS),
        "2 x GlobalAveragePooling2D + Concatenate + Dense",
    ),
    "an average of three": (
        lambda x, y: layers.Dense(3, activation="softmax")(
            mean()(layers.Average()([conv(12)(x), conv(12)(y), layers.Dense(12)(keras.ops.abs(x))]))
        ),
        (SIZE, SIZE, CHANNELS),
        "3 x GlobalAveragePooling2D + Concatenate + Dense",
    ),
    "an unknown size": (
        lambda x, y: layers.Dense(3)(mean()(layers.Add()([conv(12)(x), conv(12)(y)]))),
        (None, None, CHANNELS),
        "Concatenate + Conv2D 1x1",
    ),
    "one axis": (sequences(1), (40, CHANNELS), "2 x GlobalAveragePooling1D + Concatenate + Dense"),
    "three axes": (
        sequences(3),
        (4, 5, 3, CHANNELS),
        "2 x GlobalAveragePooling3D + Concatenate + Dense",
    ),
    "a kernel that is no pixel": (
        lambda x, y: layers.Dense(3)(
            mean()(layers.Add()([conv(12)(x), layers.Conv2D(12, 3, padding="same")(y)]))
        ),
        (SIZE, SIZE, CHANNELS),
        "GlobalAveragePooling2D + Flatten + Concatenate + Dense",
    ),
    "windows that see fewer pixels": (
        lambda x, y: layers.AveragePooling2D(3, padding="same")(
            layers.Add()([conv(12)(x), conv(12)(y)])
        ),
        (SIZE, SIZE, CHANNELS),
        "Concatenate + Conv2D 1x1",
    ),
    "a sum that is read again": (
        lambda x, y: [z := layers.Add()([conv(12)(x), conv(12)(y)]), layers.Dense(3)(mean()(z))],
        (SIZE, SIZE, CHANNELS),
        "Concatenate + Conv2D 1x1",
    ),
}


@pytest.mark.parametrize(("end", "shape", "words"), ENDS.values(), ids=ENDS)
def test_what_is_pooled_first(end: Any, shape: tuple[int | None, ...], words: str) -> None:
    found = folded(model_of(end, shape))
    assert merged_into(found) == words, str(found.fold_report)


def test_a_kernel_of_an_image_is_a_matrix_beside_what_is_pooled() -> None:
    model = model_of(
        lambda x, y: layers.Dense(3)(
            mean()(layers.Add()([layers.Conv2D(12, 3, padding="same")(x), conv(12)(y)]))
        )
    )
    found = folded(model)
    matrix = {"GlobalAveragePooling2D": 1, "Flatten": 1, "Concatenate": 1, "Dense": 1}
    assert kinds(found) == matrix | {"Conv2D": 1}, str(found.fold_report)
    assert merged_into(found) == "GlobalAveragePooling2D + Flatten + Concatenate + Dense"


def test_what_stands_side_by_side_is_priced_by_what_is_read() -> None:
    prices = Prices()

    def beside(axis: Axis) -> tuple[float, ...]:
        both = Beside.of([Geometry((axis,), (3, 2))] * 2)
        return (both.cost(prices, 1, is_matrix=False) - prices.operator(both.whole)).seconds

    assert beside(Axis(8, stride=2)) == pytest.approx(beside(Axis(8)))
    assert beside(Axis(8)) > beside(Axis(4))


def test_a_bias_that_is_lost_is_seen() -> None:
    model = model_of(lambda x, y: mean()(layers.Add()([conv(12)(x), conv(12)(y)])))
    found = folded(model)
    *_, bias = found.layers[-1].weights
    assert np.any(bias.numpy())
    bias.assign(0 * bias)
    with pytest.raises(AssertionError):
        assert_same(model, found, FLOAT64)

"""Max pools and clamps one after another, which are one of them, or not."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from kerasfold.algebra import Refused
from kerasfold.lift.successive import window_of_windows
from zoo.making import randomise
from zoo.same import FLOAT64, assert_same

pytestmark = pytest.mark.usefixtures("float64")

Step = Callable[[Any], Any]


def folded(shape: tuple[int | None, ...], make: Step) -> tuple[keras.Model, list[str]]:
    """A fold that is checked, and what it calls, without layers that only name an output."""
    inputs = keras.Input(shape, dtype="float64")
    model = randomise(keras.Model(inputs, make(inputs)))
    fold = kerasfold.fold(model, verify=False)
    assert_same(model, fold, FLOAT64)
    names = (layers.InputLayer, layers.Identity)
    return fold, [type(x).__name__ for x in fold.operations if not isinstance(x, names)]


def chain(*steps: Step) -> Step:
    def call(x: Any) -> Any:
        for step in steps:
            x = step(x)
        return x

    return call


def pool(*args: Any, **options: Any) -> Step:
    return lambda x: layers.MaxPooling2D(*args, **options)(x)


def relu(**options: Any) -> Step:
    return lambda x: layers.ReLU(**options)(x)


def clip(low: float, high: float) -> Step:
    return lambda x: ops.clip(x, low, high)


def conv(activation: Any) -> Step:
    return lambda x: layers.Conv2D(3, 1, activation=activation)(x)


ANY = (None, None, 2)
POOL = ["MaxPooling2D"]
ONE: dict[str, tuple[tuple[int | None, ...], list[Step], list[str]]] = {
    "pools": ((9, 10, 2), [pool(2), pool(2)], POOL),
    "pools of any size": (ANY, [pool(2), pool((2, 3))], POOL),
    "three pools": ((17, 16, 2), [pool(2), pool((2, 1)), pool(2)], POOL),
    "'same' pools": ((12, 8, 2), [pool(2, padding="same"), pool(2, padding="same")], POOL),
    "pools that overlap": ((11, 9, 2), [pool(2, 1), pool(2, 2)], POOL),
    "a pool and the whole": (
        (8, 6, 2),
        [pool(2), lambda x: layers.GlobalMaxPooling2D()(x)],
        ["GlobalMaxPooling2D"],
    ),
    "pools of a line": (
        (12, 2),
        [lambda x: layers.MaxPooling1D(2)(x), lambda x: layers.MaxPooling1D(3)(x)],
        ["MaxPooling1D"],
    ),
    "a pool of one sample": ((6, 5, 2), [relu(), pool(1)], ["ReLU"]),
    "a pool of all and the whole": (
        (3, 3, 2),
        [pool(3), lambda x: layers.GlobalMaxPooling2D(keepdims=True)(x)],
        ["GlobalMaxPooling2D"],
    ),
    "the whole of what is one pixel": (
        (1, 1, 2),
        [relu(), lambda x: layers.GlobalMaxPooling2D(keepdims=True)(x)],
        ["ReLU"],
    ),
    "clamps": ((4, 4, 2), [relu(), relu(max_value=6.0)], ["ReLU"]),
    "clamps of which the first is narrower": (
        (4, 4, 2),
        [relu(max_value=3.0), clip(-1.0, 6.0)],
        ["ReLU"],
    ),
    "clamps by operations": ((4, 4, 2), [ops.relu, ops.relu6, clip(0.0, 4.0)], ["Clip"]),
    "a clamp of an activation": ((4, 4, 2), [conv("relu"), relu()], ["Conv2D"]),
    "a clamp that is an activation": (
        (4, 4, 2),
        [relu(max_value=6.0), lambda x: layers.Activation("relu")(x)],
        ["ReLU"],
    ),
}


@pytest.mark.parametrize("case", ONE)
def test_two_are_one(case: str) -> None:
    shape, steps, expected = ONE[case]
    _, left = folded(shape, chain(*steps))
    assert left == expected


STAY: dict[str, tuple[tuple[int | None, ...], list[Step], list[str]]] = {
    "windows that leave samples out": ((12, 12, 2), [pool(2, 3), pool(2, 1)], POOL * 2),
    "windows that would compare more": (
        (12, 12, 2),
        [pool(3, 1, padding="same"), pool(3, 1, padding="same")],
        POOL * 2,
    ),
    "a border of unknown size": (ANY, [pool(2, padding="same"), pool(2)], POOL * 2),
    "a row that is dropped between": (
        (7, 6, 2),
        [pool(2), lambda x: layers.GlobalMaxPooling2D()(x)],
        ["MaxPooling2D", "GlobalMaxPooling2D"],
    ),
    "a mean between": (
        (8, 8, 2),
        [pool(2), lambda x: layers.AveragePooling2D(2)(x), pool(2)],
        ["MaxPooling2D", "AveragePooling2D", "MaxPooling2D"],
    ),
    "clamps neither of which is both": ((4, 4, 2), [clip(-1.0, 4.0), relu()], ["Clip", "ReLU"]),
    "a leaky one": ((4, 4, 2), [relu(negative_slope=0.1), relu()], ["ReLU", "ReLU"]),
    "a threshold": ((4, 4, 2), [relu(threshold=0.5), relu(max_value=2.0)], ["ReLU", "ReLU"]),
    "another activation": ((4, 4, 2), [conv("tanh"), relu()], ["Conv2D", "ReLU"]),
}


@pytest.mark.parametrize("case", STAY)
def test_what_is_not_one_stays_two(case: str) -> None:
    shape, steps, expected = STAY[case]
    _, left = folded(shape, chain(*steps))
    assert left == expected


def test_a_pool_that_others_read_stays() -> None:
    def make(x: Any) -> Any:
        first = pool(2)(x)
        return [pool(2)(first), ops.tanh(first)]

    _, left = folded((8, 8, 2), make)
    assert left.count("MaxPooling2D") == 2


def test_a_clamp_that_others_read_is_passed_over() -> None:
    def make(x: Any) -> Any:
        first = relu()(x)
        return [relu(max_value=6.0)(first), ops.tanh(first)]

    _, left = folded((4, 4, 2), make)
    assert left.count("ReLU") == 2


def test_the_activation_within_a_recurrent_layer_says_nothing_of_its_result() -> None:
    _, left = folded((5, 3), chain(lambda x: layers.SimpleRNN(3, activation="relu")(x), relu()))
    assert left == ["SimpleRNN", "ReLU"]


def test_the_report_says_what_is_one() -> None:
    fold, _ = folded((8, 8, 2), chain(pool(2), pool(2)))
    (row,) = fold.fold_report.merged
    assert (row.kind, len(row.layers)) == ("MaxPooling2D", 2)
    assert not fold.fold_report.repeated
    assert (fold.fold_report.layers_before, fold.fold_report.layers_after) == (2, 1)


def maxima(image: Sequence[float], taps: int, stride: int, padding: str) -> list[float]:
    """A max pool of a line, as TensorFlow defines it."""
    size = len(image)
    out = -(-size // stride) if padding == "same" else (size - taps) // stride + 1
    short = max((out - 1) * stride + taps - size, 0) if padding == "same" else 0
    starts = [p * stride - short // 2 for p in range(out)]
    return [max(image[max(at, 0) : at + taps]) for at in starts]


class Line:
    """What a max pool of a line is told."""

    def __init__(self, taps: int, stride: int, padding: str) -> None:
        self.pool_size, self.strides, self.padding = (taps,), (stride,), padding
        self.told = taps, stride, padding


def test_one_window_sees_what_windows_of_windows_see() -> None:
    rng, found = np.random.default_rng(0), 0
    kinds = [Line(*told) for told in itertools.product((1, 2, 3), (1, 2, 3), ("valid", "same"))]
    for size, first, last in itertools.product((5, 6, 9, 12), kinds, kinds):
        image = list(rng.normal(size=size))
        between = maxima(image, *first.told)
        try:
            one = window_of_windows(last, first, ((size,), (len(between),)))
        except Refused:
            continue
        found += 1
        (taps,), (stride,) = one["pool_size"], one["strides"]
        assert maxima(between, *last.told) == maxima(image, taps, stride, one["padding"])
    assert found > 200


@pytest.mark.parametrize(
    "activation", [ops.abs, ops.floor, layers.Activation("hard_tanh"), lambda x: ops.hard_shrink(x)]
)
def test_what_is_idempotent_is_done_once(activation: Any) -> None:
    inputs = keras.Input((6, 5, 3))
    x = activation(activation(ops.sin(inputs)))
    model = keras.Model(inputs, ops.tanh(x))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, 1e-6)
    assert len(folded.operations) == 4


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ops.tanh, ops.tanh),
        (ops.abs, ops.floor),
        (lambda x: ops.hard_shrink(x, 0.2), lambda x: ops.hard_shrink(x, 0.6)),
    ],
)
def test_what_is_not_the_same_idempotent_is_done_twice(first: Any, second: Any) -> None:
    inputs = keras.Input((6, 5, 3))
    model = keras.Model(inputs, ops.tanh(second(first(ops.sin(inputs)))))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, 1e-6)
    assert len(folded.operations) == 5


def test_an_inline_activation_is_not_repeated() -> None:
    inputs = keras.Input((6, 5, 3))
    x = layers.Conv2D(4, 3, activation="hard_tanh")(inputs)
    model = keras.Model(inputs, layers.Activation("hard_tanh")(x))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, 1e-6)
    assert len(folded.operations) <= 3

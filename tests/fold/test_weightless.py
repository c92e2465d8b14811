"""Pools, upsamplings, paddings and croppings one after another, which are one of them, or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import kerasfold
from zoo.making import chain
from zoo.same import FLOAT64, assert_same, kinds, signature

pytestmark = pytest.mark.usefixtures("float64")


def between(shape: tuple[int | None, ...], *steps: keras.Layer) -> tuple[keras.Model, list[str]]:
    """The fold of steps between activations, and its layers between those."""
    model = chain(shape, layers.ReLU(), *steps, layers.Softmax())
    folded = kerasfold.fold(model, "params", verify=False)
    assert_same(model, folded, FLOAT64)
    return folded, kinds(folded)[1:-1]


def mean(*args: Any, **kwargs: Any) -> keras.Layer:
    return layers.AveragePooling2D(*args, **kwargs)


def up(*args: Any, **kwargs: Any) -> keras.Layer:
    return layers.UpSampling2D(*args, **kwargs)


def whole(**kwargs: Any) -> keras.Layer:
    return layers.GlobalAveragePooling2D(**kwargs)


def pad(*args: Any) -> keras.Layer:
    return layers.ZeroPadding2D(*args)


def crop(*args: Any) -> keras.Layer:
    return layers.Cropping2D(*args)


ANY = (None, None, 2)
ONE: dict[str, tuple[tuple[int | None, ...], Callable[[], list[keras.Layer]], list[str]]] = {
    "upsamplings": ((5, 4, 2), lambda: [up(2), up((3, 1))], ["UpSampling2D"]),
    "a whole pool that stays an image": (
        (5, 4, 2),
        lambda: [up(2), whole(keepdims=True)],
        ["GlobalAveragePooling2D"],
    ),
    "upsamplings of any size": (ANY, lambda: [up(2), up(3)], ["UpSampling2D"]),
    "upsamplings of a line": (
        (5, 2),
        lambda: [layers.UpSampling1D(2), layers.UpSampling1D(3)],
        ["UpSampling1D"],
    ),
    "pools": ((8, 9, 2), lambda: [mean(2), mean(2)], ["AveragePooling2D"]),
    "pools of any size": (ANY, lambda: [mean(2), mean((2, 1))], ["AveragePooling2D"]),
    "pools that floor": ((11, 13, 2), lambda: [mean(2), mean(3)], ["AveragePooling2D"]),
    "'same' pools of sizes that divide": (
        (8, 12, 2),
        lambda: [mean(2, padding="same"), mean((2, 3), padding="same")],
        ["AveragePooling2D"],
    ),
    "a pool and the whole": ((8, 6, 2), lambda: [mean(2), whole()], ["GlobalAveragePooling2D"]),
    "a pool that floors and the whole": (
        (9, 6, 2),
        lambda: [mean(2), whole()],
        ["GlobalAveragePooling2D"],
    ),
    "an upsampling and the whole": (
        (4, 6, 2),
        lambda: [up(2), whole()],
        ["GlobalAveragePooling2D"],
    ),
    "the whole twice": (
        (4, 6, 2),
        lambda: [whole(keepdims=True), whole()],
        ["GlobalAveragePooling2D"],
    ),
    "an upsampling and its pool": ((4, 6, 2), lambda: [up(2), mean(2)], []),
    "an upsampling and a larger pool": ((4, 6, 2), lambda: [up(2), mean(4)], ["AveragePooling2D"]),
    "paddings": ((5, 4, 2), lambda: [pad(1), pad((2, 0))], ["ZeroPadding2D"]),
    "croppings": ((9, 8, 2), lambda: [crop(1), crop(((2, 0), (0, 1)))], []),
    "a padding and its cropping": ((5, 4, 2), lambda: [pad(1), crop(1)], []),
    "a cropping and a padding": (
        (5, 4, 2),
        lambda: [crop(1), pad(1)],
        ["ZeroPadding2D"],
    ),
}


@pytest.mark.parametrize("name", ONE)
def test_one_layer(name: str) -> None:
    shape, steps, expected = ONE[name]
    _, found = between(shape, *steps())
    assert found == expected


APART: dict[str, tuple[tuple[int | None, ...], Callable[[], list[keras.Layer]]]] = {
    "overlapping pools": ((9, 8, 2), lambda: [mean(3, 1), mean(2, 2)]),
    "pools with gaps": ((9, 9, 2), lambda: [mean(2, 3), mean(2, 1)]),
    "an overlapping pool and the whole": ((8, 8, 2), lambda: [mean(3, 1), whole()]),
    "'same' pools of sizes that do not divide": (
        (9, 9, 2),
        lambda: [mean(2, padding="same") for _ in "ab"],
    ),
    "a 'same' pool and the whole": ((9, 9, 2), lambda: [mean(2, padding="same"), whole()]),
    "a padding and a pool": ((6, 6, 2), lambda: [pad(1), mean(2)]),
    "a pool and an upsampling": ((6, 6, 2), lambda: [mean(2), up(2)]),
    "bilinear ones": ((5, 5, 2), lambda: [up(2, interpolation="bilinear") for _ in "ab"]),
    "a nearest and a bilinear one": ((5, 5, 2), lambda: [up(2), up(2, interpolation="bilinear")]),
    "an upsampling and a padding": ((5, 5, 2), lambda: [up(2), pad(1)]),
}


@pytest.mark.parametrize("name", APART)
def test_what_stays_apart(name: str) -> None:
    shape, steps = APART[name]
    _, found = between(shape, *steps())
    assert len(found) >= 2


STEPS = {
    "mean": lambda n: mean(1 + n % 3, strides=1 + n % 2, padding="same" if n > 6 else "valid"),
    "up": lambda n: up(1 + n % 3),
    "pad": lambda n: pad(((n % 3, 0), (0, n % 2))),
    "crop": lambda n: crop(((n % 2, 0), (0, n % 2))),
}


@given(
    sizes=st.tuples(st.integers(7, 12), st.integers(7, 12)),
    steps=st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 9)), max_size=4),
    ends=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_random_steps(sizes: tuple[int, int], steps: list[tuple[str, int]], ends: bool) -> None:
    made: list[keras.Layer] = []
    smallest = min(sizes)
    for kind, n in steps:
        smallest -= n % 2 if kind == "crop" else 0
        smallest //= 1 + n % 2 if kind == "mean" else 1
        smallest -= 2 if kind == "mean" else 0
        if smallest < 2:
            break
        made.append(STEPS[kind](n))
    between((*sizes, 2), *made, *([whole()] if ends else []))


def test_an_output_that_is_what_was_there_keeps_its_name(tmp_path: Any) -> None:
    model = chain((5, 4, 2), layers.ReLU(), pad(1), layers.Cropping2D(1, name="cut"))
    folded = kerasfold.fold(model)
    assert kinds(folded) == ["ReLU", "Identity"]
    folded.save(tmp_path / "folded.keras")
    assert signature(keras.models.load_model(tmp_path / "folded.keras")) == signature(model)


def test_a_pool_is_no_slower_as_one() -> None:
    """Under the default objective; the report says what it is."""
    model = chain((8, 8, 2), layers.ReLU(), mean(2), mean(2))
    report = kerasfold.fold(model).fold_report
    assert [m.kind for m in report.merged] == ["AveragePooling2D 4x4, stride 4"]
    assert report.layers_after == 1
    assert report.macs_after < report.macs_before

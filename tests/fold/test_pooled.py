"""What is pointwise before a mean over pixels is computed of the mean: of fewer pixels."""

from __future__ import annotations

from collections.abc import Callable

import keras
import pytest
from keras import layers

import kerasfold
from zoo.making import chain
from zoo.same import FLOAT64, assert_same

Stack = Callable[[], list[keras.Layer]]

pytestmark = pytest.mark.usefixtures("float64")

PIXELS, CHANNELS = 14 * 14, 64
SUMS = PIXELS * CHANNELS  # what the pool adds up


def model_of(stack: Stack) -> keras.Model:
    shape = (14, 14, CHANNELS)
    return chain(shape, layers.ReLU(), *stack(), layers.ReLU(name="end"))


def kinds(model: keras.Model) -> list[str]:
    """The classes of what is done between the nonlinearities."""
    names = [type(operation).__name__ for operation in model.operations]
    return [name for name in names if name not in ("InputLayer", "ReLU")]


def mean() -> keras.Layer:
    return layers.GlobalAveragePooling2D()


# Layers; multiplications and additions, before and after.
VECTORS: dict[str, tuple[Stack, int, int]] = {
    "a_convolution": (
        lambda: [layers.Conv2D(48, 1), mean()],
        PIXELS * 48 * (CHANNELS + 1),
        SUMS + CHANNELS * 48,
    ),
    "a_matrix_before_and_behind": (
        lambda: [layers.Dense(48), mean(), layers.Dense(5)],
        PIXELS * 48 * (CHANNELS + 1) + 48 * 5,
        SUMS + CHANNELS * 5,
    ),
    "a_normalisation_before_a_matrix": (
        lambda: [layers.BatchNormalization(), mean(), layers.Dense(5)],
        2 * SUMS + CHANNELS * 5,
        SUMS + CHANNELS * 5,
    ),
}


@pytest.mark.parametrize(("stack", "before", "after"), VECTORS.values(), ids=VECTORS)
def test_it_is_a_matrix_of_the_mean(stack: Stack, before: int, after: int) -> None:
    model = model_of(stack)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert kinds(folded) == ["GlobalAveragePooling2D", "Dense"]
    report = folded.fold_report
    assert (report.macs_before, report.macs_after) == (before, after)

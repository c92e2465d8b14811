"""Components that are alike are planned once, and to the same forms as each by itself."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import pytest
from keras import layers

from kerasfold.cost import objective_of
from kerasfold.lift.regions import lifted
from kerasfold.plan.alike import alike
from kerasfold.plan.methods import auto
from kerasfold.plan.search import Search
from zoo.making import randomise


def scaled_block(x: keras.KerasTensor, factors: Sequence[float], width: int = 4):
    """A sum of multiples of a tensor's three convolutions, and what is not linear behind it."""
    terms = [layers.Conv2D(width, 3, padding="same", activation="relu")(x) for _ in factors]
    scaled = [layers.BatchNormalization()(t * c) for t, c in zip(terms, factors, strict=True)]
    last = layers.Conv2D(width, 1)(layers.Add()(scaled))
    return layers.Activation("tanh")(layers.BatchNormalization()(last))


def chain(*blocks: Sequence[float], width: int = 4) -> keras.Model:
    y = x = keras.Input((6, 5, width))
    for factors in blocks:
        y = scaled_block(y, factors, width)
    return keras.Model(x, y)


def searched(model: keras.Model, objective: str = "latency", once: bool = True):
    """The forms of all components, and how many were planned by themselves."""
    search = Search(lifted(model), objective_of(objective), frozenset())
    sizes: list[int] = []

    def choose(component):
        sizes.append(len(component))
        return auto(search, component)

    chosen = alike(search, choose) if once else choose
    forms = [form for part in search.regions.components() for form in chosen(part).values()]
    return [(type(f), f.visited, f.cost) for f in forms], sizes.count(max(sizes))


def test_blocks_that_repeat_are_planned_once():
    model = randomise(chain((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (7.0, 8.0, 9.0)))
    _, planned = searched(model)
    assert planned == 1
    assert searched(model)[0] == searched(model, once=False)[0]


def factored(*blocks: Sequence[float]) -> keras.Model:
    """Sums of multiples of a tensor's ReLU and sigmoid and so on: where equal, scaled once."""
    y = x = keras.Input((6, 5, 4))
    for factors in blocks:
        kinds = ("relu", "tanh", "sigmoid", "softplus", "elu", "silu", "gelu")
        terms = [layers.Activation(kind)(y) for kind in kinds]
        total = layers.Add()([t * c for t, c in zip(terms, factors, strict=True)])
        y = layers.Softmax()(total)
    return keras.Model(x, y)


@pytest.mark.parametrize("objective", ["latency", "layers"])
def test_what_weights_say_is_asked_of_each(objective):
    """The same sum twice, of equal multiples and of others: one is scaled once, one is not."""
    model = factored((3.0,) * 7, (3.0,) * 6 + (4.0,), (2.0,) * 7)
    forms, planned = searched(model, objective)
    assert forms == searched(model, objective, once=False)[0]
    assert planned == 2

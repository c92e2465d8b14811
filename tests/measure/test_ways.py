"""What is timed of a component: its ways take the same and compute the same."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from kerasfold.cost import OBJECTIVES
from kerasfold.lift.regions import lift
from kerasfold.measure import measured, runtimes
from kerasfold.measure.parts import part, readers_of
from kerasfold.plan.search import Search
from kerasfold.read.graph import read
from laws.random_graphs import build, recipes
from zoo.blocks import conv
from zoo.choices import emitted, stack
from zoo.making import randomise
from zoo.same import assert_same, kinds
from zoo.stopwatch import by_measuring, prices

pytestmark = pytest.mark.usefixtures("nothing_known")


def parts(model: keras.Model) -> list[list[keras.Model]]:
    """Every way of every component, as a model of its own."""
    regions = lift(read(model))
    search = Search(regions, OBJECTIVES["latency"], frozenset())
    return [
        [
            emitted(part(regions, component, readers_of(regions.graph)), way)
            for way in measured.candidates(search, component)
        ]
        for component in regions.components()
    ]


def assert_alike(ways: list[keras.Model]) -> None:
    """They take the same, in the same order, and compute the same."""
    inputs = runtimes.random_inputs(ways[0])
    expected = None
    for way in ways:
        assert [tuple(x.shape[1:]) for x in way.inputs] == [
            tuple(x.shape[1:]) for x in ways[0].inputs
        ]
        outputs = keras.tree.flatten(way(inputs, training=False))
        expected = outputs if expected is None else expected
        assert runtimes.difference(expected, outputs) < 1e-4


def test_a_layer_that_does_nothing_is_no_break():
    model = stack(
        layers.Dropout(0.1),
        conv(6),
        layers.Dropout(0.1),
        layers.Identity(),
        conv(4, 1),
        layers.Dropout(0.1),
        layers.ReLU(),
    )
    ((merged, original),) = parts(model)
    assert kinds(merged) == ["Conv2D", "ReLU"]
    assert kinds(original) == ["Conv2D", "Conv2D", "ReLU"]
    assert len(original.inputs) == len(original.outputs) == 1
    assert_alike([merged, original])


def test_a_tensor_read_through_a_layer_that_does_nothing_is_one_input():
    x = image = keras.Input((8, 8, 4))
    y = layers.Dropout(0.2)(x)
    branches = [conv(4, padding="same")(y), conv(4, 1)(layers.Dropout(0.1)(y)), conv(4, 1)(x), x]
    (ways,) = parts(randomise(keras.Model(image, layers.Add()(branches))))
    assert all(len(way.inputs) == 1 for way in ways)
    assert_alike(ways)


def test_activations_behind_are_run_with_it_and_what_they_alone_read_is_no_output():
    x = image = keras.Input((8, 8, 4))
    x = conv(4)(conv(8, 1)(x))
    y = layers.Activation("tanh")(layers.Dropout(0.1)(layers.ReLU()(x)))
    pooled = layers.MaxPooling2D(2)(y)
    for outputs, count in ((pooled, 1), ([pooled, x], 2), ([pooled, layers.Dropout(0.5)(x)], 2)):
        (ways,) = parts(randomise(keras.Model(image, outputs)))
        for way in ways:
            assert kinds(way)[-2:] == ["ReLU", "Activation"]
            assert len(way.outputs) == count
        assert_alike(ways)


@pytest.fixture
def _alike(monkeypatch):
    """Few ways, none of which may differ from the others."""
    monkeypatch.setattr(measured, "TIMED", 5)
    difference = measured.difference

    def held(expected: Any, actual: Any) -> float:
        found = difference(expected, actual)
        assert found < 1e-4
        return found

    monkeypatch.setattr(measured, "difference", held)


@pytest.mark.usefixtures("_alike")
@given(recipe=recipes(most_steps=8), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_random_graphs(recipe, seed, watch):
    model, price = build(recipe), prices(seed)
    watch(price)
    folded = by_measuring(model, verify=False)
    assert price(folded) <= price(model) + 1e-9
    assert_same(model, folded, 1e-6)


def test_a_long_stack_of_which_nothing_merges_has_few_ways():
    """No more sets are looked at than there may be, though hardly any has a plan."""
    x = y = keras.Input((None, None, 8))
    for _ in range(30):
        y = layers.Conv2D(8, 3, padding="same")(y)
    regions = lift(read(keras.Model(x, y)))
    search = Search(regions, OBJECTIVES["latency"], frozenset())
    (component,) = regions.components()
    assert len(list(search.every(component, 64))) <= 64
    assert len(measured.candidates(search, component)) == 1

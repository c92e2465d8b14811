"""What forms say at a glance of steps hides none of them."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import pytest
from hypothesis import HealthCheck, given, settings
from keras import layers

from kerasfold.algebra.axis import Refused
from kerasfold.cost import objective_of
from kerasfold.forms import ways as table
from kerasfold.forms.normalised import Normalised
from kerasfold.forms.ways import ways
from kerasfold.lift.regions import lifted
from kerasfold.plan.search import Search
from laws.random_graphs import build, recipes
from zoo.graphs import GRAPHS, built
from zoo.making import randomise

MOST = 40  # sets of steps of a component


def proposed(model: keras.Model) -> list[Any]:
    """Every form of every node, for some sets of tensors that are there."""
    search = Search(lifted(model), objective_of("layers"), frozenset())
    found: list[Any] = []
    for component in search.regions.components():
        required, optional = search.required(component), sorted(search.optional(component))
        subsets = itertools.chain.from_iterable(
            itertools.combinations(optional, n) for n in range(len(optional) + 1)
        )
        for subset in itertools.islice(subsets, MOST):
            cut = required.union(subset)
            for index in sorted(cut):
                every = list(ways(search.known, index, search.visit(index, cut)))
                found += [x.reason if isinstance(x, Refused) else (type(x), x.cost) for x in every]
    return found


def asked_at_length(model: keras.Model) -> list[Any]:
    """The same, where all forms are asked about all steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "_possible", lambda traits, forms: forms)
        return proposed(model)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(recipe=recipes())
def test_a_glance_hides_no_form_of_random_graphs(recipe: Any) -> None:
    model = build(recipe)
    assert proposed(model) == asked_at_length(model)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_glance_hides_no_form_of_usual_graphs(name: str) -> None:
    model = built(name)
    assert proposed(model) == asked_at_length(model)


def test_a_glance_that_hides_a_form_is_seen() -> None:
    model = built("residual")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table.Convolved, "bars", frozenset({"window"}))
        patch.setattr(table, "_possible", table._possible.__wrapped__)
        assert proposed(model) != asked_at_length(model)


CHAINS: dict[str, tuple[int, list[Any]]] = {
    "one channel by way of four": (1, [layers.Conv2D(4, 1), layers.Conv2D(1, 1)]),
    "each channel by way of two": (
        3,
        [layers.DepthwiseConv2D(1, depth_multiplier=2), layers.Conv2D(3, 1, groups=3)],
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_glance_is_at_what_steps_are_together(name: str) -> None:
    """Each mixes channels, and both together do not."""
    channels, chain = CHAINS[name]
    steps = [keras.layers.deserialize(keras.layers.serialize(layer)) for layer in chain]
    model = keras.Sequential([keras.Input((8, 8, channels)), *steps, layers.BatchNormalization()])
    kinds = [found[0] for found in proposed(randomise(model)) if isinstance(found, tuple)]
    assert Normalised in kinds
    assert proposed(model) == asked_at_length(model)

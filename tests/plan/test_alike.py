"""Components that are alike are planned once, and to the same forms as each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import keras
import pytest
from keras import layers

from kerasfold.algebra.operator import Operator
from kerasfold.cost import Cost, objective_of
from kerasfold.lift.commuted import commuted
from kerasfold.lift.gains import carried
from kerasfold.lift.narrowed import narrowed
from kerasfold.lift.program import Node
from kerasfold.lift.regions import lift, lifted
from kerasfold.plan.alike import Chosen, Planned, alike
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
        return Chosen(auto(search, component), {}, Cost())

    chosen = alike(search, choose, Planned()) if once else choose
    forms = [form for part in search.regions.components() for form in chosen(part).forms.values()]
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


def test_what_a_rewriting_leaves_as_it_was_is_not_planned_again():
    regions = lifted(randomise(chain((1.0, 2.0, 3.0), (4.0, 5.0))))
    planned, counts, found = Planned(), [], []
    for each in (regions, lift(regions.graph, regions), lift(regions.graph)):
        search, parts = Search(each, objective_of("latency"), frozenset()), []

        def choose(component, search=search, parts=parts):
            parts.append(component)
            return Chosen(auto(search, component), {}, Cost())

        chosen = alike(search, choose, planned)
        forms = [form for part in each.components() for form in chosen(part).forms.values()]
        found.append([(type(f), f.visited, f.cost, f.refusal) for f in forms])
        counts.append(len(parts))
    assert counts[0] > 0
    assert counts[1] == 0
    assert found[0] == found[1] == found[2]


def moving() -> keras.Model:
    """Layers of which rewritings change the sizes, what is kept of their outputs, and gains."""
    x = keras.Input((8, 6, 4))
    y = layers.BatchNormalization()(layers.UpSampling2D(2)(layers.Activation("tanh")(x)))
    y = layers.Conv2D(4, 3, activation="relu", padding="same")(layers.Activation("tanh")(y))
    y = layers.BatchNormalization(gamma_initializer="ones")(layers.ReLU()(layers.Conv2D(4, 1)(y)))
    return keras.Model(x, layers.Activation("tanh")(layers.Conv2D(3, 1, strides=2)(y)))


@pytest.mark.parametrize("rewriting", [commuted, carried, narrowed])
def test_calls_that_are_in_both_are_lifted_as_they_were(rewriting):
    regions = lifted(moving())
    rewritten = next(rewriting(regions))
    anew = lift(rewritten.graph).program.nodes
    assert [said(node) for node in rewritten.program.nodes] == [said(node) for node in anew]
    loads = {node.load for node in regions.program.nodes if node.load is not None}
    assert loads & {node.load for node in rewritten.program.nodes}


def said(node: Node):
    """All of a node, its weights as they are read."""
    weights = None if node.load is None else weights_of(node.load())
    apart = ("load", "kernel", "bias")
    values = (getattr(node, f.name) for f in fields(node) if f.name not in apart)
    return *values, weights, None if node.bias is None else node.bias.tolist()


def weights_of(operator: Operator):
    return operator.kernel.tolist(), operator.bias.tolist()

"""The laws that activations state hold of all numbers, and no others are stated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras import activations, layers, ops

import kerasfold
from kerasfold.lift.activations import _TABLE, UNKNOWN, Laws, laws_of
from kerasfold.testing import check_laws
from zoo.making import chain, policy
from zoo.same import FLOAT64, assert_same

LAWS = ("pointwise", "positively_homogeneous", "monotone", "odd", "idempotent")
FUNCTIONS = [kind for kind, laws in _TABLE.items() if isinstance(laws, Laws) and laws.pointwise]
DOMAINS = {ops.arcsin, ops.arccos, ops.arctanh, ops.arccosh, ops.sqrt, ops.rsqrt, ops.log,
           ops.log1p, ops.log2, ops.log10, ops.cast, ops.logical_not}  # fmt: skip


def layer(kind: Any, *args: Any, **config: Any) -> Callable[[], Any]:
    return lambda: kind(*args, dtype="float64", **config)


def prelu(*slopes: float) -> Callable[[], Any]:
    def made() -> Any:
        start = keras.initializers.Constant(np.array(slopes).reshape(1, 1, 3))
        made = layers.PReLU(start, shared_axes=[1, 2], dtype="float64")
        made.build((None, 5, 4, 3))
        return made

    return made


# With a config that decides: which laws hold, in the order of LAWS.
CONFIGURED: dict[str, tuple[Callable[[], Any], str]] = {
    "relu": (layer(layers.ReLU), "11101"),
    "slope": (layer(layers.ReLU, negative_slope=0.2), "11100"),
    "capped": (layer(layers.ReLU, 6.0), "10101"),
    "from a threshold": (layer(layers.ReLU, threshold=0.5), "10101"),
    "leaky": (layer(layers.LeakyReLU, 0.1), "11100"),
    "prelu": (prelu(0.1, 0.0, 2.0), "01100"),
    "prelu that falls": (prelu(0.1, -1e-6, 2.0), "01000"),
    "elu": (layer(layers.ELU, 1.5), "10100"),
    "activation": (layer(layers.Activation, "hard_tanh"), "10111"),
    "pool": (layer(layers.MaxPooling2D, 2, 1), "01100"),
    "global": (layer(layers.GlobalMaxPooling2D), "01100"),
}


def named(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__name__}"


@pytest.mark.parametrize("function", [f for f in FUNCTIONS if f not in DOMAINS], ids=named)
def test_the_laws_of_a_function_hold(function: Any) -> None:
    check_laws(function)


@pytest.mark.parametrize("name", CONFIGURED)
def test_the_laws_of_a_layer_are_those_of_its_config(name: str) -> None:
    make, laws = CONFIGURED[name]
    stated = laws_of(make())
    assert "".join(str(int(getattr(stated, law))) for law in LAWS) == laws
    check_laws(make())


@pytest.mark.parametrize("function", [f for f in FUNCTIONS if f not in DOMAINS], ids=named)
def test_no_other_law_holds(function: Any) -> None:
    def same(x: Any) -> Any:
        return function(x)

    for law in LAWS:
        if getattr(laws_of(function), law):
            continue
        kerasfold.obeys(pointwise=True, **{law: True})(same)
        with pytest.raises(AssertionError, match=f"is not {law}"):
            check_laws(same)
    _TABLE.pop(same, None)


@pytest.fixture
def own() -> Iterator[Any]:
    """An activation that no law is stated of, forgotten again."""

    def wavy(x: Any) -> Any:
        return ops.maximum(x, 0.25 * x)

    yield wavy
    _TABLE.pop(wavy, None)


def strided(activation: Any, inline: bool) -> keras.Model:
    with policy("float64"):
        if inline:
            steps = [layers.Conv2D(4, 3, activation=activation)]
        else:
            steps = [layers.Conv2D(4, 3), layers.Activation(activation)]
        return chain((9, 9, 3), *steps, layers.Conv2D(2, 1, strides=2))


@pytest.mark.parametrize("inline", [False, True])
def test_what_is_stated_is_used(own: Any, inline: bool) -> None:
    model = strided(own, inline)
    unknown = kerasfold.explain(model, "macs").macs_after
    kerasfold.obeys(positively_homogeneous=True, monotone=True)(own)
    check_laws(own)
    folded = kerasfold.fold(model, "macs", verify=False)
    assert_same(model, folded, FLOAT64)
    assert folded.fold_report.macs_after < unknown


def test_the_laws_of_a_class_of_layers_are_used() -> None:
    @kerasfold.obeys(monotone=True)
    class Own(layers.Layer):
        def call(self, x: Any) -> Any:
            return ops.tanh(x) + x

    check_laws(Own(dtype="float64"))
    with policy("float64"):
        model = chain((9, 9, 3), layers.Conv2D(4, 3), Own(), layers.Conv2D(2, 1, strides=2))
    folded = kerasfold.fold(model, "macs", verify=False)
    assert_same(model, folded, FLOAT64)
    assert folded.layers[2].output.shape[1] == 4
    assert laws_of(type("Derived", (Own,), {})()) == UNKNOWN


def test_a_law_that_is_stated_wrongly_is_found(own: Any) -> None:
    def looks_around(x: Any) -> Any:
        return x - ops.max(x, axis=(1, 2), keepdims=True)

    kerasfold.obeys()(looks_around)
    try:
        with pytest.raises(AssertionError, match=r"is not pointwise: it differs by up to \d"):
            check_laws(looks_around)
        with pytest.raises(kerasfold.EquivalenceError):
            kerasfold.fold(strided(looks_around, inline=False), "macs")
    finally:
        _TABLE.pop(looks_around)


def test_bad_statements_are_refused(own: Any) -> None:
    with pytest.raises(kerasfold.FoldError, match="the laws of relu are known"):
        kerasfold.obeys(odd=True)(activations.relu)
    with pytest.raises(kerasfold.FoldError, match=r"takes a function, or a class of layers.*int"):
        kerasfold.obeys()(int)
    with pytest.raises(kerasfold.FoldError, match="monotone='yes': expected True or False"):
        kerasfold.obeys(monotone="yes")
    with pytest.raises(kerasfold.FoldError, match=r"no law of .* is stated"):
        check_laws(own)

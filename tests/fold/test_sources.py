"""What reads several tensors: concatenations of them, sums of them, and what passes those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

import kerasfold
from zoo.blocks import conv, same
from zoo.making import policy, randomise
from zoo.same import FLOAT64, assert_same, kinds

SHAPE = (9, 8, 4)


def model_of(
    make: Callable[[Any, Any], Any], shapes: tuple[tuple[int | None, ...], ...] = (SHAPE, SHAPE)
) -> keras.Model:
    """A model of two inputs in float64."""
    with policy("float64"):
        inputs = [keras.Input(shape) for shape in shapes]
        return randomise(keras.Model(inputs, make(*inputs), name="sources"))


def folded_exactly(model: keras.Model, objective: str = "macs") -> list[str]:
    """The classes of the layers of a fold that is what the model is."""
    folded = kerasfold.fold(model, objective)
    assert folded.fold_report.equivalence.equivalent
    assert_same(model, folded, FLOAT64)
    return kinds(folded)


def joined(*parts: Any) -> Any:
    return layers.Concatenate()(list(parts))


def normed(x: Any) -> Any:
    return layers.ReLU()(layers.BatchNormalization()(x))


def csp(a: Any, b: Any) -> Any:
    """The end of a CSP block: two convolutions of their own, and one norm for both."""
    return normed(joined(same(4, 1, use_bias=False)(a), same(6, 1, use_bias=False)(b)))


PASSED: dict[str, tuple[Callable[[Any, Any], Any], list[str]]] = {
    "norm": (csp, ["Conv2D", "Conv2D", "Concatenate", "ReLU"]),
    "norm of one twice": (
        lambda a, b: normed(joined(same(4)(a), same(4, 1)(b), same(4, (1, 3))(a))),
        ["Conv2D"] * 3 + ["Concatenate", "ReLU"],
    ),
    "norm of concatenations": (
        lambda a, b: normed(joined(joined(same(4)(a), same(3)(b)), same(2, 1)(b))),
        ["Conv2D"] * 3 + ["Concatenate", "ReLU"],
    ),
    "norm of different kernels of one": (
        lambda a, b: normed(joined(same(32)(a), same(2, (1, 7))(a))),
        ["Conv2D", "Conv2D", "Concatenate", "ReLU"],
    ),
    "norm of a sum": (
        lambda a, b: normed(
            layers.Add()([joined(same(4)(a), same(4)(b)), joined(same(4, 1)(a), same(4, 1)(b))])
        ),
        ["Conv2D", "Conv2D", "Concatenate", "ReLU"],
    ),
    "pointwise of pointwise": (
        lambda a, b: same(4, 1)(joined(same(8, 1)(a), same(8, 1)(b))),
        ["Concatenate", "Conv2D"],
    ),
    "concatenation of concatenations": (
        lambda a, b: layers.ReLU()(joined(joined(a, b), joined(b, a))),
        ["Concatenate", "ReLU"],
    ),
    "matrix of vectors": (
        lambda a, b: layers.Dense(3)(joined(layers.Dense(8)(a), layers.Dense(8)(b))),
        ["Concatenate", "Dense"],
    ),
}


@pytest.mark.parametrize("name", PASSED)
def test_what_passes_a_concatenation(name: str) -> None:
    make, expected = PASSED[name]
    shapes = ((40,), (40,)) if name == "matrix of vectors" else (SHAPE, SHAPE)
    assert folded_exactly(model_of(make, shapes)) == expected


BESIDE: dict[str, tuple[Callable[[Any, Any], Any], int]] = {
    "sum": (lambda a, b: layers.Add()([same(6)(a), same(6)(b)]), 1),
    "difference of windows": (lambda a, b: layers.Subtract()([same(6)(a), same(6, 1)(b)]), 1),
    "sum of matrices of images": (
        lambda a, b: layers.Add()([layers.Dense(3)(layers.Flatten()(x)) for x in (a, b)]),
        1,
    ),
    "concatenation": (lambda a, b: joined(same(6)(a), same(6)(b)), 2),
    "concatenation of sums": (
        lambda a, b: joined(
            layers.Add()([same(6)(a), same(6)(b)]), layers.Add()([same(6)(b), same(6)(a)])
        ),
        2,
    ),
    "concatenation of depthwise": (
        lambda a, b: joined(*(layers.DepthwiseConv2D(3, padding="same")(x) for x in (a, b))),
        8,
    ),
}


@pytest.mark.parametrize("name", BESIDE)
def test_one_convolution_of_tensors_side_by_side(name: str) -> None:
    make, groups = BESIDE[name]
    model = model_of(lambda a, b: layers.ReLU()(make(a, b)))
    folded = kerasfold.fold(model, "layers", verify=False)
    assert folded.fold_report.layers_after == 1
    (layer,) = (layer for layer in folded.layers if layer.weights)
    depthwise = isinstance(layer, layers.DepthwiseConv2D)
    assert groups == (8 if depthwise else getattr(layer, "groups", 1))
    assert_same(model, folded, FLOAT64)


def test_what_is_added_as_it_is_stays_added() -> None:
    model = model_of(lambda a, b: layers.ReLU()(layers.Add()([a, same(4)(b)])))
    assert folded_exactly(model, "layers") == ["Conv2D", "Add", "ReLU"]


def test_skip_connections_of_an_upsampled_image() -> None:
    """The convolution behind a U-Net's concatenation reads the small image at its own size."""

    def make(a: Any, b: Any) -> Any:
        return same(4)(joined(layers.UpSampling2D(2)(a), b))

    model = model_of(make, ((8, 8, 16), (16, 16, 4)))
    assert folded_exactly(model) == ["Conv2DTranspose", "Conv2D", "Add"]


def test_flattened_images_side_by_side() -> None:
    def make(a: Any, b: Any) -> Any:
        return layers.Dense(2)(joined(layers.Flatten()(conv(3)(a)), layers.Flatten()(b)))

    assert folded_exactly(model_of(make)) == ["Concatenate", "Flatten", "Dense"]


def flattened(*parts: Any) -> list[Any]:
    return [layers.Dense(3)(layers.Flatten()(x)) for x in parts]


# What is made of two tensors of some shapes, and how that is done then.
MATRICES: dict[str, tuple[Callable[[Any, Any], Any], tuple[tuple[int, ...], ...], str]] = {
    "images of other sizes": (
        lambda a, b: layers.Add()(flattened(a, b)),
        ((9, 8, 4), (4, 5, 2)),
        "2 x Flatten + Concatenate + Dense",
    ),
    "an image and a vector": (
        lambda a, b: layers.Subtract()([*flattened(a), layers.Dense(3)(b)]),
        ((9, 8, 4), (7,)),
        "Flatten + Concatenate + Dense",
    ),
    "an image and a sequence, padded and not all read": (
        lambda a, b: layers.Add()(
            flattened(layers.Conv2D(2, 3, padding="same")(layers.Conv2D(4, 1)(a)), b[:, 1:])
        ),
        ((9, 8, 4), (12, 3)),
        "2 x Flatten + Concatenate + Dense",
    ),
    "vectors behind them": (
        lambda a, b: layers.Dense(2, activation="tanh")(
            layers.Average()([*flattened(a, b), layers.Dense(3)(layers.Flatten()(ops.abs(b)))])
        ),
        ((4, 3, 2), (5, 3)),
        "3 x Flatten + Concatenate + Dense",
    ),
}


@pytest.mark.parametrize("objective", ["layers", "latency"])
@pytest.mark.parametrize(("make", "shapes", "words"), MATRICES.values(), ids=MATRICES)
def test_a_sum_of_matrices_of_images_is_one(
    make: Callable[[Any, Any], Any],
    shapes: tuple[tuple[int, ...], ...],
    words: str,
    objective: Any,
) -> None:
    model = model_of(make, shapes)
    folded = kerasfold.fold(model, objective)
    assert folded.fold_report.merged[-1].kind == words
    assert_same(model, folded, FLOAT64)
    (layer,) = (layer for layer in folded.layers if layer.weights)
    assert isinstance(layer, layers.Dense), str(folded.fold_report)


def test_groups_that_read_one_part_each() -> None:
    def make(a: Any, b: Any) -> Any:
        return same(8, 1, groups=4)(joined(same(4, 1)(a), same(4, 1)(b)))

    assert folded_exactly(model_of(make), "params").count("Conv2D") == 2


def test_the_report_says_what_the_parts_are() -> None:
    report = kerasfold.fold(model_of(csp)).fold_report
    (merged,) = report.merged
    assert merged.kind == "Concatenate of Conv2D 1x1, Conv2D 1x1"
    assert len(merged.layers) == 4
    assert (report.layers_before, report.layers_after) == (3, 2)
    assert report.params_after == 4 * 4 + 4 + 4 * 6 + 6


def test_what_equals_the_calls_that_were_there_is_not_merged() -> None:
    def make(a: Any, b: Any) -> Any:
        total = layers.Add()([a, same(4, 1)(b)])
        return layers.ReLU()(joined(layers.ReLU()(total), same(4)(b)))

    report = kerasfold.fold(model_of(make)).fold_report
    assert report.merged == ()
    assert len(report.kept) == 6


def steps_of(make: Callable[[Any, Any], Any], objective: str) -> list[str]:
    """What stands between activations, operations too, in a fold that is what the model is."""

    def between(a: Any, b: Any) -> Any:
        return keras.tree.map_structure(layers.Softmax(), make(layers.ReLU()(a), layers.ReLU()(b)))

    model = model_of(between)
    folded = kerasfold.fold(model, objective)
    assert_same(model, folded, FLOAT64)
    names = [type(x).__name__ for x in folded.operations]
    return [name for name in names if name not in ("InputLayer", "ReLU", "Softmax")]


CUT: dict[str, tuple[Callable[[Any, Any], Any], list[str]]] = {
    "back": (lambda a, b: [joined(a, b)[..., :4], joined(a, b)[..., 4:]], []),
    "split back": (lambda a, b: ops.split(joined(a, b), 2, axis=-1), []),
    "a part of one": (lambda a, b: joined(a, b)[..., 5:7], ["GetItem"]),
    "through two": (lambda a, b: joined(joined(a, b), a)[..., 4:8], []),
    "and added to": (lambda a, b: joined(a, b)[..., 4:] + 1.0, ["Add"]),
    "before a convolution": (lambda a, b: same(3)(joined(a, b)[..., 4:]), ["Conv2D"]),
    "and joined again": (
        lambda a, b: joined(*(joined(a, b)[..., p] for p in (slice(0, 4), slice(4, 8)))),
        ["Concatenate"],
    ),
    "of one, joined again": (lambda a, b: joined(a[..., :1], a[..., 1:]) + b, ["Add"]),
    "from both": (lambda a, b: joined(a, b)[..., 3:5], ["Concatenate", "GetItem"]),
    "of one, turned around": (
        lambda a, b: joined(a[..., 2:], a[..., :2]) + b,
        ["GetItem", "GetItem", "Concatenate", "Add"],
    ),
}


@pytest.mark.parametrize("objective", ["latency", "macs"])
@pytest.mark.parametrize("name", CUT)
def test_a_concatenation_that_is_cut(name: str, objective: str) -> None:
    make, expected = CUT[name]
    assert steps_of(make, objective) == expected


@given(chosen=st.lists(st.integers(0, 11), min_size=1, max_size=6))
@settings(max_examples=10, deadline=None)
def test_any_channels_of_a_concatenation(chosen: list[int]) -> None:
    def make(a: Any, b: Any) -> Any:
        return same(2, 1)(ops.take(joined(a, same(4)(b), a), np.array(chosen), axis=-1))

    folded_exactly(model_of(make), "params")


OWN: dict[str, Callable[[int], keras.Layer]] = {
    "norm": lambda width: layers.BatchNormalization(),
    "pointwise": lambda width: conv(4, 1),
    "window": lambda width: same(8),
    "groups": lambda width: conv(width, 1, groups=2),
    "depthwise": lambda width: layers.DepthwiseConv2D(3, padding="same"),
    "pool": lambda width: layers.AveragePooling2D(2, 1),
}
STEPS = (*OWN, "sum", "concatenate")


@given(
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9), st.integers(0, 9))),
    objective=st.sampled_from(("layers", "params", "macs")),
)
@settings(max_examples=12, deadline=None)
def test_random_steps_on_two_tensors(steps: list[tuple[str, int, int]], objective: str) -> None:
    def make(a: Any, b: Any) -> Any:
        tensors = [a, b, joined(a, b)]
        for kind, i, j in steps[:6]:
            x, y = tensors[i % len(tensors)], tensors[j % len(tensors)]
            if kind == "sum" and x.shape == y.shape:
                tensors.append(layers.Subtract()([x, y]))
            elif kind == "concatenate" and x.shape[:-1] == y.shape[:-1] and x.shape[-1] < 32:
                tensors.append(joined(x, y))
            elif kind in OWN:
                tensors.append(OWN[kind](x.shape[-1])(x))
        return tensors[-1]

    folded_exactly(model_of(make), objective)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Concatenate(),
        layers.AveragePooling2D(1),
        layers.AveragePooling2D(1, padding="same"),
        layers.UpSampling2D(1),
    ],
    ids=["concatenation of one", "pool", "padded pool", "upsampling"],
)
def test_what_does_nothing_is_removed(layer: keras.Layer) -> None:
    x = keras.Input(SHAPE)
    y = layer([x]) if isinstance(layer, layers.Concatenate) else layer(x)
    folded = kerasfold.fold(keras.Model(x, layers.ReLU()(y)), verify=False)
    assert kinds(folded) == ["ReLU"]
    assert folded.fold_report.removed == (layer.name,)


BATCHES: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda x, z: conv(4)(same(3)(x) + same(3)(z)),
    "difference": lambda x, z: layers.Dense(4)(x - z),
    "layer": lambda x, z: layers.BatchNormalization()(layers.Add()([same(4)(x), z])),
    "mean of all": lambda x, _: layers.Dense(4)(x - ops.mean(x, axis=0, keepdims=True)),
    "concatenation": lambda x, z: conv(4, 1)(joined(x, z)),
}


@pytest.mark.parametrize("objective", ["latency", "macs", "layers"])
@pytest.mark.parametrize("name", BATCHES)
def test_one_image_for_all_of_a_batch_stays_one(name: str, objective: str) -> None:
    """A sum broadcasts along the batch, where a concatenation of what it adds does not."""
    with policy("float64"):
        x, z = keras.Input(SHAPE), keras.Input((*SHAPE,), batch_size=1)
        model = randomise(keras.Model([x, z], BATCHES[name](x, z)))
    folded = kerasfold.fold(model, objective, verify=False)
    rng = np.random.default_rng(0)
    for count in (1,) if name == "concatenation" else (1, 3):
        given = [rng.normal(size=(count, *SHAPE)), rng.normal(size=(1, *SHAPE))]
        expected = np.asarray(model(given, training=False))
        np.testing.assert_allclose(np.asarray(folded(given, training=False)), expected, atol=1e-12)
    barred = [row.reason for row in kerasfold.explain(model, objective).kept]
    assert "it broadcasts along the batch: ['1', 'None']" in barred

"""Layers shared among calls, and among sizes, stay one layer."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from zoo.graphs import BN, Conv, built, image
from zoo.making import randomise
from zoo.same import FLOAT32, assert_same, kinds

pytestmark = pytest.mark.usefixtures("fresh")


def test_siamese_keeps_its_weights_shared() -> None:
    model = built("siamese")
    folded = kerasfold.fold(model)
    # A conv and the Dense behind it may become one larger Dense, but each one only once.
    assert kinds(folded).count("Conv2D") <= 2
    assert kinds(folded).count("Dense") == 1
    assert folded.count_params() < 1.5 * model.count_params()


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        *(
            (name, objective)
            for name in (
                "shared_conv_twice",
                "shared_conv_thrice",
                "siamese",
                "siamese_nonlinear_inside",
            )
            for objective in ("latency", "params")
            if (name, objective) != ("siamese", "latency")
        ),
        ("shared_with_different_successors", "params"),
    ],
)
def test_sharing_does_not_multiply_parameters(name: str, objective: str) -> None:
    model = built(name)
    assert kerasfold.fold(model, objective=objective).count_params() <= model.count_params()


def test_shared_barrier_stays_one_layer() -> None:
    i, j = image((5,), "i"), image((5,), "j")
    dense, act = layers.Dense(5, name="dense"), layers.PReLU(name="prelu")
    model = randomise(keras.Model([i, j], [act(dense(act(dense(i)))), dense(j)]))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT32)
    assert sorted(kinds(folded)) == ["Dense", "PReLU"]
    assert folded.count_params() == model.count_params()


def test_shared_barrier_inside_a_model_called_twice() -> None:
    twin = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            Conv(4, 3, name="c"),
            layers.PReLU(name="p"),
            BN(name="n"),
            layers.Flatten(),
            layers.Dense(3, name="d"),
        ],
        name="twin",
    )
    a, b, c = (image((6, 6, 3), name) for name in "abc")
    model = randomise(keras.Model([a, b, c], [twin(a), twin(b), twin(c)]))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT32)
    assert kinds(folded).count("PReLU") == kinds(folded).count("Dense") == 1
    assert folded.count_params() <= model.count_params()


def test_shared_batchnorm_shifted_by_no_other_call() -> None:
    """Folding one call's conv must not change what the other call reads."""
    a, b = image(name="a"), image(name="b")
    norm = BN(name="norm")
    model = randomise(keras.Model([a, b], [norm(Conv(3, 3, name="x")(a)), norm(layers.ReLU()(b))]))
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert_same(model, folded, FLOAT32)


# Nested models called at other sizes than they were built with, and layers shared among sizes.


def backbone(size: int | None) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((size, size, 3)),
            Conv(6, 3, strides=2, padding="same", use_bias=False),
            BN(),
            layers.ReLU(),
            Conv(4, 3, padding="same"),
            Conv(5, 3, padding="same"),
            layers.GlobalAveragePooling2D(keepdims=True),
        ],
        name="backbone",
    )


def test_a_nested_model_is_read_at_the_sizes_it_is_called_with() -> None:
    def head() -> list[keras.layers.Layer]:
        return [layers.Flatten(), layers.Dense(2)]

    image_16 = keras.Input((16, 16, 3))
    nested = randomise(keras.Sequential([image_16, backbone(None), *head()]))
    flat = randomise(keras.Sequential([image_16, *backbone(None).layers, *head()]))
    assert kerasfold.explain(nested).macs_before == kerasfold.explain(flat).macs_before
    for objective in ("latency", "macs", "layers"):
        folded, known = (
            kerasfold.fold(m, objective=objective, verify=False) for m in (nested, flat)
        )
        assert_same(nested, folded, FLOAT32)
        assert kinds(folded) == kinds(known)


def test_a_nested_model_of_one_size_runs_at_any_that_it_is_called_with() -> None:
    net = keras.Sequential(
        [
            Conv(4, 3, padding="same"),
            layers.ReLU(),
            Conv(4, 3, padding="same"),
            Conv(3, 3, padding="same"),
            layers.AveragePooling2D(2, padding="same"),
        ],
        name="net",
    )
    net(np.zeros((1, 32, 32, 3), "float32"))
    model = randomise(keras.Model(i := image((None, None, 3), "image"), net(i)))
    for objective in ("latency", "macs", "layers"):
        folded = kerasfold.fold(model, objective=objective, verify=False)
        for size in (9, 32, 33):
            x = np.random.default_rng(size).normal(size=(2, size, size, 3)).astype("float32")
            assert_same(model, folded, FLOAT32, x)


def heads(sizes: tuple[int, ...], **settings: Any) -> keras.Model:
    """One head, of layers that merge, on images of several sizes."""
    conv, norm = Conv(6, 3, padding="same", name="c", **settings), BN(name="n")
    wide, last = Conv(12, 3, name="w"), Conv(2, 1, name="l")
    images = [image((size, size, 3), f"image_{size}") for size in sizes]
    return randomise(keras.Model(images, [last(wide(ops.relu(norm(conv(x))))) for x in images]))


@pytest.mark.parametrize("objective", ["latency", "params", "macs", "layers"])
@pytest.mark.parametrize("strides", [1, 2])
def test_a_layer_stays_shared_among_sizes(objective: str, strides: int) -> None:
    model = heads((16, 10, 9), strides=strides)
    folded = kerasfold.fold(model, objective=objective, verify=False)
    assert_same(model, folded, FLOAT32)
    assert kinds(folded).count("BatchNormalization") == 0
    assert folded.count_params() < model.count_params()
    assert kerasfold.explain(model, objective=objective).params_after == folded.count_params()


def test_equal_settings_do_not_make_weights_shared() -> None:
    """At an even and at an odd size a stride reads other taps of what is merged."""
    conv, pool = Conv(4, 3, strides=2, padding="same", name="c"), layers.AveragePooling2D(2)
    images = [image((size, size, 3), f"image_{size}") for size in (4, 5)]
    model = randomise(keras.Model(images, [layers.Flatten()(pool(conv(x))) for x in images]))
    for objective in ("latency", "params", "macs", "layers"):
        assert_same(model, kerasfold.fold(model, objective=objective, verify=False), FLOAT32)

"""Positive gains pass what is positively homogeneous, and merge into a convolution there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from zoo.making import policy, randomise
from zoo.same import FLOAT32, FLOAT64, assert_same, kinds


def act(name: str) -> Callable[[], Any]:
    return lambda: layers.Activation(name)


PASSED: dict[str, Callable[[], Any]] = {
    "relu": act("relu"),
    "ReLU": lambda: layers.ReLU(negative_slope=0.1),
    "LeakyReLU": layers.LeakyReLU,
    "PReLU of pixels": layers.PReLU,
    "PReLU of channels": lambda: layers.PReLU(shared_axes=[1, 2]),
    "ops.relu": lambda: ops.relu,
    "ops.leaky_relu": lambda: ops.leaky_relu,
    "abs": lambda: ops.abs,
    "two": lambda: lambda x: ops.relu(layers.MaxPooling2D(2, 1)(layers.LeakyReLU()(x))),
    "with a pool": lambda: lambda x: layers.AveragePooling2D(2, 1)(ops.relu(x)),
    "with a dropout": lambda: lambda x: layers.Dropout(0.5)(ops.relu(x)),
}
NOT_PASSED: dict[str, Callable[[], Any]] = {
    "relu6": act("relu6"),
    "max_value": lambda: layers.ReLU(max_value=1.0),
    "threshold": lambda: layers.ReLU(threshold=0.1),
    **{name: act(name) for name in ("tanh", "elu", "gelu", "softplus", "silu", "softmax")},
    "ELU": lambda: layers.ELU(0.5),
    "square": lambda: ops.square,
    "LayerNormalization": layers.LayerNormalization,
}
BEHIND: dict[str, Callable[[], Any]] = {
    "normalisation": lambda: layers.BatchNormalization(name="norm"),
    "gain": lambda: layers.Rescaling(0.3, name="norm"),
    "weights": lambda: layers.BatchNormalization(center=False, name="norm"),
    "two": lambda: lambda x: 2.0 * layers.BatchNormalization(name="norm")(x),
}

# Each activation with one of the scales, and one with all of them.
PAIRS = [*((name, "normalisation") for name in PASSED), *(("relu", scale) for scale in BEHIND)]


def made(body: Callable[[Any], Any], gamma: Any = 1.0, shape: tuple = (9, 9, 3)) -> keras.Model:
    """A model in float64 whose gammas have the signs of `gamma`, or are that where it is small."""
    with policy("float64"):
        inputs = keras.Input(shape, dtype="float64")
        model = randomise(keras.Model(inputs, body(inputs)))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(np.abs(np.asarray(layer.gamma)) * gamma)
    return model


def behind(activation: Any, scale: Any, inline: bool = False) -> Callable[[Any], Any]:
    """A convolution, an activation, a scale, and what is not linear."""
    if inline:
        return lambda x: ops.tanh(scale()(layers.Conv2D(4, 3, activation=activation)(x)))
    return lambda x: ops.tanh(scale()(activation()(layers.Conv2D(4, 3, name="conv")(x))))


def multiplications(model: keras.Model) -> int:
    """Of a fold for the fewest of them, which is right."""
    folded = kerasfold.fold(model, "macs", verify=False)
    assert_same(model, folded, FLOAT64)
    return folded.fold_report.macs_after


CONVOLVED = 7 * 7 * 4 * 27


@pytest.mark.parametrize(("name", "scale"), PAIRS)
def test_a_gain_goes_into_the_convolution_before(name: str, scale: str) -> None:
    model = made(behind(PASSED[name], BEHIND[scale]))
    pooled = 6 * 6 * 4 * 4 if name == "with a pool" else 0
    assert multiplications(model) == CONVOLVED + pooled


@pytest.mark.parametrize(
    "activation", ["relu", "leaky_relu", ops.abs, layers.LeakyReLU(0.2, dtype="float64")]
)
def test_a_gain_passes_an_inline_activation(activation: Any) -> None:
    model = made(behind(activation, BEHIND["normalisation"], inline=True))
    assert multiplications(model) == CONVOLVED


@pytest.mark.parametrize("name", NOT_PASSED)
def test_a_gain_passes_nothing_else(name: str) -> None:
    model = made(behind(NOT_PASSED[name], BEHIND["weights"]))
    assert multiplications(model) == CONVOLVED + 7 * 7 * 4


def before(activation: Any, scale: Any) -> Callable[[Any], Any]:
    """What is not linear, a scale, an activation, and convolutions that read it."""

    def body(x: Any) -> Any:
        x = activation()(scale()(ops.tanh(x)))
        return [layers.Conv2D(4, 3, padding="same")(x), layers.SeparableConv2D(2, 3)(x)]

    return body


@pytest.mark.parametrize(("name", "scale"), PAIRS[:-1])
def test_a_gain_goes_into_the_convolutions_behind(name: str, scale: str) -> None:
    model = made(before(PASSED[name], BEHIND[scale]))
    without = made(before(PASSED[name], lambda: lambda x: x))
    assert multiplications(model) == multiplications(without)


# What is not linear, and what goes to a convolution with all of its gains.
RUNS: dict[str, Callable[[Any], Any]] = {
    "behind a maximum": lambda x: bn()(layers.MaxPooling2D()(bn()(x))),
    "behind a maximum of all": lambda x: bn()(layers.GlobalMaxPooling2D(keepdims=True)(bn()(x))),
    "behind a maximum by hand": lambda x: bn()(ops.max(bn()(x), axis=(1, 2), keepdims=True)),
    "before a maximum": lambda x: layers.MaxPooling2D()(bn()(layers.Dropout(0.5)(2.0 * bn()(x)))),
    "around an activation": lambda x: bn()(ops.relu(bn()(x))),
    "shifts among them": lambda x: ops.relu(bn()(bn()(x) + 1.0) - 0.5) + 1.0,
}


def bn() -> Any:
    return layers.BatchNormalization()


@pytest.mark.parametrize("name", RUNS)
def test_gains_one_after_another_go_as_one(name: str) -> None:
    model = made(lambda x: layers.Conv2D(2, 1)(RUNS[name](ops.tanh(x))))
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT64)
    assert "BatchNormalization" not in kinds(folded), kinds(folded)
    assert "Multiply" not in kinds(folded)
    assert not folded.fold_report.repeated
    assert kinds(kerasfold.fold(folded)) == kinds(folded)


def test_two_negative_gains_are_a_positive_one() -> None:
    model = made(lambda x: ops.tanh(bn()(bn()(layers.Conv2D(4, 3, activation="relu")(x)))), -1.0)
    assert multiplications(model) == CONVOLVED


@pytest.mark.parametrize("name", NOT_PASSED)
def test_a_gain_stays_before_anything_else(name: str) -> None:
    model = made(before(NOT_PASSED[name], BEHIND["gain"]))
    without = made(before(NOT_PASSED[name], lambda: lambda x: x))
    assert multiplications(model) > multiplications(without)


@pytest.mark.parametrize("gamma", [-1.0, [1, 1, -1e-6, 1], [1, 0, 1, 1]])
def test_a_gain_that_is_not_positive_stays(gamma: Any) -> None:
    model = made(behind(lambda: layers.ReLU(name="relu"), BEHIND["normalisation"]), gamma)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert "BatchNormalization" in kinds(folded)
    (row,) = (kept for kept in folded.fold_report.kept if kept.layer == "norm")
    count = int(np.sum(np.broadcast_to(gamma, 4) <= 0))
    assert row.reason.startswith(f"{count} of its 4 gains are not positive")
    assert row.reason.endswith("pass 'relu'")
    assert row.code == "KF110"


@pytest.mark.parametrize("gamma", [-1.0, [1, -1e-6, 1], [1, 0, 1]])
def test_a_gain_that_is_not_positive_stays_before(gamma: Any) -> None:
    model = made(before(lambda: ops.relu, BEHIND["normalisation"]), gamma)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert "BatchNormalization" in kinds(folded)


def test_a_tiny_gain_passes() -> None:
    model = made(behind(lambda: ops.relu, BEHIND["normalisation"]), [1, 1e-6, 1, 1])
    assert multiplications(model) == CONVOLVED


def test_a_gain_that_its_shift_cannot_be_divided_by_stays() -> None:
    """As weight decay leaves some of them."""
    inputs = keras.Input((9, 9, 3))
    model = randomise(
        keras.Model(inputs, before(lambda: ops.relu, BEHIND["normalisation"])(inputs))
    )
    normal = next(x for x in model.layers if x.name == "norm")
    normal.gamma.assign([1e-39, 1.0, 2e-38])
    normal.beta.assign([0.5, 0.1, 3.0])
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT32)


def test_a_maximum_says_which_gains_pass_it() -> None:
    model = made(behind(lambda: layers.MaxPooling2D(name="pool"), BEHIND["normalisation"]), -1.0)
    (row,) = (kept for kept in kerasfold.explain(model).kept if kept.layer == "norm")
    assert row.reason.endswith("pass 'pool'")


def test_a_gain_passes_from_one_scale_to_the_next() -> None:
    def body(x: Any) -> Any:
        x = layers.Conv2D(4, 3, activation="relu")(x)
        x = ops.relu(layers.BatchNormalization()(x))
        return ops.tanh(layers.BatchNormalization()(ops.abs(x)))

    assert multiplications(made(body)) == CONVOLVED


OTHERS: dict[str, Callable[[Any], Any]] = {
    "of the activation": lambda x: (
        lambda y: ops.tanh(layers.BatchNormalization()(y)) * ops.sigmoid(y)
    )(ops.relu(layers.Conv2D(4, 3)(x))),
    "of the convolution": lambda x: (
        lambda y: ops.tanh(layers.BatchNormalization()(ops.relu(y))) * ops.sigmoid(y)
    )(layers.Conv2D(4, 3)(x)),
    "that are no convolutions": lambda x: (
        lambda y: layers.Conv2D(2, 1)(y) * ops.sigmoid(y[..., :2])
    )(ops.relu(layers.BatchNormalization()(ops.tanh(x)))),
    "who call the model": lambda x: (lambda y: [layers.Conv2D(2, 1)(y), y])(
        ops.relu(layers.BatchNormalization()(ops.tanh(x)))
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_gains_stay_where_others_read(name: str) -> None:
    model = made(OTHERS[name])
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert "BatchNormalization" in kinds(folded)


def test_a_convolution_that_is_called_twice_keeps_its_weights() -> None:
    conv = layers.Conv2D(4, 3, padding="same")

    def body(x: Any) -> Any:
        x = layers.Conv2D(4, 1)(x)
        return conv(layers.BatchNormalization()(ops.relu(conv(x))))

    model = made(body)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert folded.count_params() <= model.count_params()


def test_in_half_precision_a_shift_stays_with_its_gain() -> None:
    body = behind(layers.ReLU, layers.BatchNormalization)
    with policy("bfloat16"):
        inputs = keras.Input((9, 9, 3))
        model = keras.Model(inputs, body(inputs))
        folded = kerasfold.fold(randomise(model))
    assert "BatchNormalization" in kinds(folded)


def test_on_vectors() -> None:
    def body(x: Any) -> Any:
        x = layers.Dense(5, activation="relu")(layers.Flatten()(x))
        return ops.tanh(layers.BatchNormalization()(x))

    assert multiplications(made(body)) == 81 * 3 * 5


def test_outputs_keep_their_names_and_nothing_is_left_to_do() -> None:
    def body(x: Any) -> Any:
        x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, activation="relu")(x))
        return {"y": layers.Rescaling(0.5, name="half")(layers.ReLU(name="relu")(x))}

    model = made(body)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert folded.output_names == model.output_names
    again = kerasfold.fold(folded, verify=False)
    assert kinds(again) == kinds(folded)
    assert kinds(folded) == ["Conv2D", "ReLU"]


def test_the_report_names_the_layer_that_takes_the_gain() -> None:
    model = made(behind(layers.ReLU, BEHIND["weights"]))
    report = kerasfold.fold(model).fold_report
    (row,) = report.merged
    assert (row.into, row.layers) == ("conv", ("conv", "norm"))
    assert row.kinds == ("Conv2D", "BatchNormalization")
    assert report.repeated == ()


def heads(x: Any, count: int = 2) -> Any:
    """Rows of channels as rows of each head."""
    x = layers.Reshape((5, count, -1))(layers.Dense(6)(x))
    return layers.Permute((2, 1, 3))(x)


PRODUCTS: dict[str, Callable[[Any], Any]] = {
    "matmul": lambda x: ops.matmul(heads(x), ops.transpose(heads(x), (0, 1, 3, 2))) * 0.25,
    "einsum": lambda x: ops.einsum("bic,bjc->bij", layers.Dense(4)(x), layers.Dense(4)(x)) / 2.8,
    "einsum of heads": lambda x: (
        ops.einsum(
            "bihc,bjhc->bhij",
            layers.EinsumDense("bic,chd->bihd", (5, 2, 3), bias_axes="hd")(x),
            layers.EinsumDense("bic,chd->bihd", (5, 2, 3))(x),
        )
        * 0.6
    ),
    "Dot": lambda x: 0.5 * layers.Dot(2)([layers.Dense(4)(x), layers.Dense(4)(x)]),
    "Multiply": lambda x: (
        layers.Multiply()([layers.Dense(4)(x), ops.sigmoid(x)[..., :4]]) * np.arange(1.0, 5.0)
    ),
    "of one that no weights make": lambda x: (ops.tanh(x) * layers.Dense(6)(x)) * 3.0,
}
NO_PRODUCTS: dict[str, Callable[[Any], Any]] = {
    "square": lambda x: (lambda y: layers.Multiply()([y, y]) * 3.0)(layers.Dense(4)(x)),
    "Dot of directions": lambda x: (
        0.5 * layers.Dot(2, normalize=True)([layers.Dense(4)(x), layers.Dense(4)(x)])
    ),
    "channels of a matrix product": lambda x: (
        ops.matmul(layers.Dense(4)(x), ops.transpose(layers.Dense(4)(x), (0, 2, 1)))
        * np.arange(1.0, 6.0)
    ),
    "a gate of all channels": lambda x: (
        layers.Multiply()([ops.tanh(x), layers.Dense(1)(x)]) * np.arange(1.0, 7.0)
    ),
}


@pytest.mark.parametrize("body", PRODUCTS.values(), ids=PRODUCTS)
def test_a_multiple_of_a_product_merges_into_what_makes_a_factor(body: Any) -> None:
    model = made(lambda x: ops.softmax(body(x)), shape=(5, 6))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert folded.fold_report.layers_after < folded.fold_report.layers_before


@pytest.mark.parametrize("body", NO_PRODUCTS.values(), ids=NO_PRODUCTS)
def test_others_stay(body: Any) -> None:
    model = made(lambda x: ops.softmax(body(x)), shape=(5, 6))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert len(folded.operations) == len(model.operations)


@pytest.mark.parametrize("gamma", [1.0, -1.0, [1, -2, 1, 0, -1]])
@pytest.mark.parametrize("name", ["samples", "layer", "matrices"])
def test_gains_of_any_sign_pass_a_product(name: str, gamma: Any) -> None:
    """Into the factor that has their channels."""
    with policy("float64"):
        x, y = keras.Input((5, 3), dtype="float64"), keras.Input((5, 5), dtype="float64")
        made, weights = layers.Dense(5)(x), ops.softmax(y)
        product = {
            "samples": lambda: made * weights,
            "layer": lambda: layers.Multiply()([weights, made]),
            "matrices": lambda: ops.matmul(weights, made),
        }[name]()
        gains = np.arange(1.0, 6.0) * gamma
        model = randomise(keras.Model([x, y], ops.tanh(product * gains)))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    left = [type(x).__name__ for x in folded.operations]
    assert len(left) == 6, left  # two inputs, the matrix, the product, and what is not linear


def test_gains_pass_no_first_factor_of_matrices() -> None:
    with policy("float64"):
        x, y = keras.Input((5, 3), dtype="float64"), keras.Input((5, 5), dtype="float64")
        product = ops.matmul(layers.Dense(5)(x), ops.softmax(y))
        model = randomise(keras.Model([x, y], ops.tanh(product * np.arange(1.0, 6.0))))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert "Multiply" in [type(x).__name__ for x in folded.operations]

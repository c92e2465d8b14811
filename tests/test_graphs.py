"""Whole graphs: structure, sharing, names, policies and barriers survive a fold."""

from __future__ import annotations

import copy
import keyword
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from kerasfold.cost import UNTIMED
from zoo.making import randomise
from zoo.same import FLOAT32, FLOAT64, assert_same, inputs_of, kinds, layers_of, run, structure

Conv, BN = layers.Conv2D, layers.BatchNormalization


@keras.saving.register_keras_serializable("test_graphs")
class LoudConv(layers.Conv2D):
    """Overrides `call`: not a Conv2D any more."""

    def call(self, inputs: Any) -> Any:
        return ops.tanh(super().call(inputs))


@keras.saving.register_keras_serializable("test_graphs")
class SquaredNorm(layers.BatchNormalization):
    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        return ops.square(super().call(inputs, training=training, mask=mask))


@keras.saving.register_keras_serializable("test_graphs")
class Scale(layers.Layer):
    """A custom layer with weights and a config."""

    def __init__(self, start: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start = start

    def build(self, shape: Any) -> None:
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones", name="factor")

    def call(self, x: Any) -> Any:
        return ops.sin(x * self.factor * self.start)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "start": self.start}


@keras.saving.register_keras_serializable("test_graphs")
class OwnStep(keras.Model):
    """Functional in its call, its own in training."""

    def train_step(self, data: Any) -> Any:
        raise NotImplementedError


def block(name: str, filters: int = 4) -> keras.Model:
    """A nested model with a conv, its BatchNormalization and a nonlinearity."""
    return keras.Sequential(
        [Conv(filters, 3, padding="same", name="conv"), BN(name="bn"), layers.ReLU(name="relu")],
        name=name,
    )


def image(shape: Any = (8, 8, 3), name: str = "image", **kwargs: Any) -> Any:
    return keras.Input(shape, name=name, **kwargs)


def sequential() -> keras.Model:
    return keras.Sequential(
        [
            image(),
            Conv(4, 3, name="a"),
            BN(name="b"),
            layers.ReLU(name="r"),
            Conv(5, 3, name="c"),
            layers.Dropout(0.5, name="d"),
            BN(name="e"),
            layers.GlobalAveragePooling2D(name="g"),
            layers.Dense(3, name="head"),
        ]
    )


def sequential_without_input() -> keras.Model:
    model = keras.Sequential([Conv(4, 3), BN(), layers.ReLU(), Conv(4, 3), BN()])
    model.build((None, 8, 8, 3))
    return model


def residual() -> keras.Model:
    x = i = image((8, 8, 4))
    for k in range(2):
        y = BN(name=f"bn{k}a")(Conv(4, 3, padding="same", name=f"c{k}a")(x))
        y = BN(name=f"bn{k}b")(Conv(4, 3, padding="same", name=f"c{k}b")(layers.ReLU()(y)))
        x = layers.ReLU(name=f"out{k}")(layers.Add(name=f"add{k}")([x, y]))
    return keras.Model(i, x)


def nested_three_deep() -> keras.Model:
    i1 = keras.Input((8, 8, 3))
    inner = keras.Model(i1, BN(name="bn")(Conv(4, 3, name="conv")(i1)), name="inner")
    middle = keras.Sequential(
        [inner, layers.ReLU(name="act"), Conv(4, 3, name="conv")], name="middle"
    )
    i3 = keras.Input((8, 8, 3))
    outer = keras.Model(i3, BN(name="bn")(middle(i3)), name="outer")
    i = image()
    return keras.Model(i, layers.Activation("tanh", name="end")(outer(i)), name="top")


def sequential_in_functional_in_sequential() -> keras.Model:
    i = keras.Input((8, 8, 3))
    functional = keras.Model(i, block("deep")(Conv(3, 1, name="conv")(i)), name="functional")
    return keras.Sequential(
        [image(), functional, Conv(2, 3, name="conv"), BN(name="bn")], name="top"
    )


def nested_many_outputs() -> keras.Model:
    i = keras.Input((8, 8, 3))
    y = Conv(4, 3, name="c")(i)
    inner = keras.Model(i, {"raw": y, "norm": BN(name="n")(y), "same": i}, name="inner")
    x = image()
    got = inner(x)
    return keras.Model(x, [got["norm"], layers.ReLU(name="r")(got["raw"]), got["same"]])


def nested_many_inputs() -> keras.Model:
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    inner = keras.Model(
        [a, b], layers.Subtract(name="minus")([Conv(3, 1, name="c")(a), b]), name="inner"
    )
    x, y = image(name="x"), image(name="y")
    return keras.Model({"x": x, "y": y}, BN(name="bn")(inner([layers.ReLU()(y), x])))


def shared_conv_twice() -> keras.Model:
    a, b = image(name="a"), image(name="b")
    conv, norm = Conv(4, 3, name="conv"), BN(name="norm")
    return keras.Model([a, b], [norm(conv(a)), layers.ReLU()(norm(conv(b)))])


def shared_conv_thrice() -> keras.Model:
    i = image((9, 9, 3))
    conv = Conv(3, 3, padding="same", name="conv")
    x = layers.ReLU(name="r1")(conv(i))
    x = layers.ReLU(name="r2")(conv(x))
    return keras.Model(i, [conv(x), x])


def conv_feeding_two_places() -> keras.Model:
    i = image()
    y = Conv(4, 3, name="conv")(i)
    return keras.Model(i, [BN(name="bn")(y), layers.ReLU(name="r")(y)])


def shared_with_different_successors() -> keras.Model:
    i = image()
    conv = Conv(4, 3, name="conv")
    x, y = conv(i), conv(layers.ReLU()(i))
    return keras.Model(i, [BN(name="n1")(x), BN(name="n2")(y)])


def siamese() -> keras.Model:
    twin = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            Conv(6, 3, name="c1"),
            BN(name="n1"),
            layers.ReLU(),
            Conv(6, 3, name="c2"),
            BN(name="n2"),
            layers.Flatten(),
            layers.Dense(4, name="code"),
        ],
        name="twin",
    )
    a, b = image(name="left"), image(name="right")
    return keras.Model([a, b], layers.Dot(-1, name="score")([twin(a), twin(b)]))


def siamese_nonlinear_inside() -> keras.Model:
    """The first conv of the twin could merge with what is before one of its calls only."""
    twin = block("twin")
    a, b = image((8, 8, 4), name="left"), image((8, 8, 4), name="right")
    return keras.Model([a, b], [twin(BN(name="pre")(a)), twin(b)])


def many_inputs_and_outputs() -> keras.Model:
    a, b = image(name="first"), image((4, 4, 2), name="second")
    x = BN(name="nx")(Conv(4, 3, strides=2, padding="same", name="cx")(a))
    y = layers.ReLU(name="ry")(b)
    z = layers.Concatenate(name="join")([x, y])
    return keras.Model([a, b], [BN(name="nz")(Conv(3, 1, name="cz")(z)), y, x])


def dict_structure() -> keras.Model:
    a, b = image(name="rgb"), image(name="depth")
    x = BN(name="nx")(Conv(4, 3, name="cx")(a))
    y = layers.Dropout(0.2, name="dy")(Conv(4, 3, name="cy")(b))
    return keras.Model(
        {"rgb": a, "depth": b}, {"sum": layers.Add(name="add")([x, y]), "y": y, "b": b}
    )


def list_structure() -> keras.Model:
    a, b, c = (image(name=name) for name in "abc")
    x = layers.Average(name="mean")([a, b])
    return keras.Model([[a, b], {"c": c}], [[BN(name="n")(Conv(2, 2, name="k")(x))], [c, x]])


def output_in_the_middle() -> keras.Model:
    i = image()
    x = Conv(4, 3, name="one")(i)
    y = Conv(5, 3, name="two")(x)
    return keras.Model(i, [Conv(2, 1, name="three")(y), y, x])


def same_tensor_twice() -> keras.Model:
    i = image()
    x = BN(name="n")(Conv(4, 3, name="c")(i))
    return keras.Model(i, [x, x, layers.ReLU()(x)])


def input_as_output() -> keras.Model:
    i = image()
    return keras.Model(i, {"in": i, "out": BN(name="n")(Conv(4, 3, name="c")(i))})


def only_the_input() -> keras.Model:
    i = image()
    return keras.Model(i, i)


def dropout_of_the_input() -> keras.Model:
    i = image()
    return keras.Model(i, [layers.Dropout(0.5, name="d")(i), layers.Identity(name="e")(i), i])


def dropout_as_output() -> keras.Model:
    i = image()
    x = BN(name="n")(Conv(4, 3, name="c")(i))
    return keras.Model(i, [layers.Dropout(0.5, name="d")(x), layers.Identity(name="e")(x), x])


def dropout_after_barrier_as_output() -> keras.Model:
    i = image()
    x = layers.ReLU(name="r")(i)
    return keras.Model(i, [layers.Dropout(0.5, name="d")(x), x])


def unknown_size() -> keras.Model:
    i = image((None, None, 3))
    x = BN(name="n")(Conv(4, 3, strides=2, padding="same", name="c")(i))
    return keras.Model(i, layers.GlobalMaxPooling2D()(Conv(3, 3, name="d")(x)))


def fixed_batch() -> keras.Model:
    i = image(batch_size=3)
    x = BN(name="n")(Conv(4, 3, name="c")(i))
    return keras.Model(i, ops.reshape(x, (3, -1)))


def operators() -> keras.Model:
    i = image()
    x = Conv(4, 3, padding="same", name="a")(i)
    y = Conv(4, 1, name="b")(i)
    z = (x + y) * 2.0 - y / 3
    z = 2.0 - z
    z = -z + 1.0
    return keras.Model(i, [BN(name="n")(z), z[..., :2], 1.0 / (ops.abs(x) + 1.0), 0.5 * x])


def operators_of_constants() -> keras.Model:
    i = image((6, 6, 3), dtype=keras.config.dtype_policy().compute_dtype)
    x = i / 255.0
    x = x - np.array([0.1, -0.2, 0.3], "float32")
    x = x * np.array([[[[1.0, 2.0, -3.0]]]], "float32")
    return keras.Model(i, Conv(4, 3, name="c")(x))


def operators_that_broadcast() -> keras.Model:
    i = image((6, 6, 3))
    x = Conv(4, 3, name="c")(i)
    gate = ops.mean(x, axis=(1, 2), keepdims=True)
    position = np.arange(16, dtype="float32").reshape(1, 4, 4, 1)
    return keras.Model(
        i,
        [
            x * gate,
            x + gate,
            x + position,
            x * x,
            x - x,
            x / (x * x + 1.0),
            2.0 + x,
            ops.add(1.5, x),
            ops.multiply(x, 0.0),
        ],
    )


def operators_on_vectors() -> keras.Model:
    i = image((5,), name="vector")
    x = i * 2.0 + 1.0
    return keras.Model(i, [layers.Dense(3)(x), x, -x, x - i])


def keras_ops_calls() -> keras.Model:
    i = image((6, 6, 3))
    x = ops.add(Conv(4, 3, name="c")(i), 1.0)
    x = ops.relu(ops.subtract(x, ops.mean(x, axis=(1, 2), keepdims=True)))
    a, b = ops.split(x, 2, axis=-1)
    return keras.Model(i, ops.concatenate([a, BN(name="n")(b)], axis=-1))


def multi_head_attention() -> keras.Model:
    i = image((4, 4, 6))
    x = BN(name="n")(Conv(6, 1, name="c")(i))
    t = layers.Reshape((16, 6))(x)
    t = layers.MultiHeadAttention(2, 3, name="mha")(t, t, return_attention_scores=False)
    return keras.Model(i, BN(name="m")(Conv(2, 2, name="d")(layers.Reshape((4, 4, 6))(t))))


def attention_with_keywords() -> keras.Model:
    q, v = keras.Input((5, 4), name="q"), keras.Input((6, 4), name="v")
    out, scores = layers.MultiHeadAttention(2, 3, name="mha")(
        query=q, value=v, key=v, return_attention_scores=True, use_causal_mask=True
    )
    return keras.Model([q, v], [out, scores])


def adapted_normalization() -> keras.Model:
    i = image()
    norm = layers.Normalization(name="norm")
    norm.adapt(np.random.default_rng(0).normal(3, 2, (16, 8, 8, 3)).astype("float32"))
    return keras.Model(i, BN(name="n")(Conv(4, 3, name="c")(norm(i))))


def recurrent() -> keras.Model:
    i = image((7, 5), name="steps")
    x = layers.Conv1D(4, 3, name="c")(i)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both")(BN(name="n")(x))
    x, state = layers.GRU(4, return_state=True, return_sequences=True, name="gru")(x)
    return keras.Model(
        i, [layers.SimpleRNN(2, name="rnn")(x, initial_state=layers.Dense(2)(state)), x]
    )


def wrappers() -> keras.Model:
    i = image((3, 8, 8, 2), name="clip")
    x = layers.TimeDistributed(Conv(4, 3), name="frames")(i)
    x = layers.TimeDistributed(block("inside"), name="blocks")(x)
    return keras.Model(
        i, layers.Bidirectional(layers.GRU(3), name="both")(layers.Reshape((3, -1))(x))
    )


def conv_lstm() -> keras.Model:
    i = image((3, 6, 6, 2), name="clip")
    return keras.Model(i, BN(name="n")(Conv(3, 2, name="c")(layers.ConvLSTM2D(4, 3, name="r")(i))))


def masked_text() -> keras.Model:
    i = keras.Input((6,), dtype="int32", name="words")
    x = layers.Embedding(5, 4, mask_zero=True, name="embed")(i)
    x = layers.Dropout(0.3, name="drop")(x)
    return keras.Model(i, layers.LSTM(3, name="lstm")(x))


def masked_through_operators() -> keras.Model:
    i = keras.Input((6,), dtype="int32", name="words")
    x = layers.Embedding(5, 4, mask_zero=True, name="embed")(i)
    x = layers.Add(name="add")([layers.Identity(name="same")(x), layers.Dropout(0.1)(x)])
    return keras.Model(
        i, [layers.LSTM(3, name="lstm")(x), layers.GlobalAveragePooling1D(name="mean")(x)]
    )


def masked_batchnorm_and_conv() -> keras.Model:
    i = keras.Input((6,), dtype="int32", name="words")
    x = layers.Embedding(5, 4, mask_zero=True, name="embed")(i)
    x = BN(name="n")(x)
    x = layers.Activation("linear", name="lin")(x)
    return keras.Model(i, layers.GRU(3, name="gru")(x))


def masking_layer() -> keras.Model:
    i = image((6, 3), name="steps")
    x = layers.SpatialDropout1D(0.3)(layers.Masking(0.0, name="mask")(i))
    return keras.Model(i, layers.LSTM(3, name="lstm")(x))


def explicit_mask() -> keras.Model:
    i, m = image((6, 3), name="steps"), keras.Input((6,), dtype="bool", name="mask")
    return keras.Model([i, m], layers.LSTM(3, name="lstm")(i, mask=m))


def frozen() -> keras.Model:
    i = image()
    c, n = Conv(4, 3, name="c"), BN(name="n")
    c.trainable = n.trainable = False
    d = layers.Dense(3, name="d", trainable=False)
    return keras.Model(i, d(layers.Flatten()(layers.ReLU()(n(c(i))))))


def training_true() -> keras.Model:
    i = image()
    x = Conv(4, 3, name="c")(i)
    x = BN(name="live")(x, training=True)
    return keras.Model(i, Conv(3, 3, name="d")(x))


def dropout_training_true_zero_rate() -> keras.Model:
    i = image()
    x = Conv(4, 3, name="c")(i)
    x = layers.Dropout(0.0, name="live")(x, training=True)
    return keras.Model(i, BN(name="n")(x))


def subclassed_layers() -> keras.Model:
    i = image()
    x = SquaredNorm(name="squared")(LoudConv(4, 3, name="loud")(i))
    return keras.Model(i, BN(name="n")(Conv(3, 3, name="c")(Scale(1.5, name="scale")(x))))


def in_memory_lambda() -> keras.Model:
    i = image()
    x = BN(name="n")(Conv(4, 3, name="c")(i))
    return keras.Model(i, layers.Lambda(lambda t: t**2, name="square")(x))


def custom_training() -> keras.Model:
    i = image()
    return OwnStep(i, BN(name="n")(Conv(4, 3, name="c")(i)), name="own")


def batchnorm_not_on_channels() -> keras.Model:
    i = image((6, 5, 4))
    return keras.Model(
        i, [BN(axis=1, name="rows")(Conv(4, 1, name="c")(i)), BN(axis=2, name="cols")(i)]
    )


def batchnorm_on_vectors() -> keras.Model:
    i = image((5,), name="vector")
    return keras.Model(i, BN(name="n2")(layers.Dense(3, name="d")(BN(name="n1")(i))))


def concat_not_on_channels() -> keras.Model:
    i = image((6, 5, 4))
    x = layers.Concatenate(axis=1, name="rows")([Conv(4, 1, name="c")(i), i])
    return keras.Model(i, Conv(2, 3, name="d")(x))


def add_that_broadcasts() -> keras.Model:
    i = image((6, 5, 4))
    x = Conv(4, 3, padding="same", name="c")(i)
    y = layers.AveragePooling2D((6, 5), name="p")(i)
    return keras.Model(i, layers.Add(name="a")([x, y]))


def add_of_different_channels() -> keras.Model:
    i = image((6, 5, 4))
    return keras.Model(i, layers.Add(name="a")([Conv(4, 1, name="c")(i), Conv(1, 1, name="d")(i)]))


def add_of_different_roots() -> keras.Model:
    a, b = image(name="a"), image(name="b")
    x = layers.Add(name="add")([Conv(4, 3, name="ca")(a), Conv(4, 3, name="cb")(b)])
    return keras.Model([a, b], BN(name="n")(x))


def add_of_different_strides() -> keras.Model:
    i = image((7, 7, 3))
    x = Conv(4, 3, strides=2, name="c")(i)
    y = Conv(4, 5, name="d")(i)
    return keras.Model(i, BN(name="n")(layers.Add(name="add")([x, y])))


def inception() -> keras.Model:
    i = image((8, 8, 4))
    b1 = BN()(Conv(3, 1, padding="same", use_bias=False)(i))
    b2 = BN()(Conv(3, 3, padding="same", use_bias=False)(layers.ReLU()(BN()(Conv(2, 1)(i)))))
    b3 = Conv(3, 1)(layers.AveragePooling2D(3, 1, padding="same")(i))
    b4 = layers.MaxPooling2D(3, 1, padding="same")(i)
    return keras.Model(i, layers.Concatenate(name="mixed")([b1, layers.ReLU()(b2), b3, b4]))


def unused_branch_and_input() -> keras.Model:
    a, b = image(name="used"), image(name="unused")
    x = Conv(4, 3, name="c")(a)
    layers.ReLU()(x)
    return keras.Model([a, b], BN(name="n")(x))


def name_collisions() -> keras.Model:
    """`a_b` exists at the top, and `a` holds a `b`."""
    i = image()
    inner = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.ReLU(name="b"), Conv(3, 3, name="c")], name="a"
    )
    x = layers.ReLU(name="a_b")(i)
    x = inner(x)
    return keras.Model(i, layers.ReLU(name="a_c")(x))


def softmax_head() -> keras.Model:
    i = image()
    x = layers.ReLU()(BN()(Conv(4, 3, activation="relu")(i)))
    return keras.Model(
        i, layers.Dense(5, activation="softmax", name="probabilities")(layers.Flatten()(x))
    )


def layer_applied_to_its_own_output() -> keras.Model:
    i = image((8, 8, 4))
    n = BN(name="n")
    return keras.Model(i, n(n(n(i))))


GRAPHS: dict[str, Callable[[], keras.Model]] = {
    f.__name__: f
    for f in [
        sequential,
        sequential_without_input,
        residual,
        nested_three_deep,
        sequential_in_functional_in_sequential,
        nested_many_outputs,
        nested_many_inputs,
        shared_conv_twice,
        shared_conv_thrice,
        conv_feeding_two_places,
        shared_with_different_successors,
        siamese,
        siamese_nonlinear_inside,
        many_inputs_and_outputs,
        dict_structure,
        list_structure,
        output_in_the_middle,
        same_tensor_twice,
        input_as_output,
        only_the_input,
        dropout_of_the_input,
        dropout_as_output,
        dropout_after_barrier_as_output,
        unknown_size,
        fixed_batch,
        operators,
        operators_of_constants,
        operators_that_broadcast,
        operators_on_vectors,
        keras_ops_calls,
        multi_head_attention,
        attention_with_keywords,
        adapted_normalization,
        recurrent,
        wrappers,
        conv_lstm,
        masked_text,
        masked_through_operators,
        masked_batchnorm_and_conv,
        masking_layer,
        explicit_mask,
        frozen,
        training_true,
        dropout_training_true_zero_rate,
        subclassed_layers,
        in_memory_lambda,
        custom_training,
        batchnorm_not_on_channels,
        batchnorm_on_vectors,
        concat_not_on_channels,
        add_that_broadcasts,
        add_of_different_channels,
        add_of_different_roots,
        add_of_different_strides,
        inception,
        unused_branch_and_input,
        name_collisions,
        softmax_head,
        layer_applied_to_its_own_output,
    ]
}
EACH = pytest.mark.parametrize("name", GRAPHS)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy(before)


def built(name: str, policy: str = "float32") -> keras.Model:
    keras.config.set_dtype_policy(policy)
    return randomise(GRAPHS[name]())


def data(model: keras.Model) -> Any:
    given = inputs_of(model)
    return keras.tree.map_structure(
        lambda t, x: x > 0 if t.dtype == "bool" else x, structure(model)[0], given
    )


def signature(model: keras.Model) -> Any:
    """Names, structure, shapes and dtypes of inputs and outputs."""

    def of(tensor: Any) -> Any:
        return tuple(tensor.shape), tensor.dtype

    inputs, outputs = structure(model)
    function = model._functional if isinstance(model, keras.Sequential) else model
    return (
        [tensor._keras_history.operation.name for tensor in model.inputs],
        function.output_names,
        repr(keras.tree.map_structure(of, inputs)),
        repr(keras.tree.map_structure(of, outputs)),
    )


def fingerprint(model: keras.Model) -> Any:
    """All that a fold could touch."""
    everything = [model, *model._flatten_layers(include_self=False)]
    return {
        "configs": [
            repr(layer.get_config()) for layer in everything if type(layer) is not layers.Lambda
        ],
        "weights": [w.numpy().tobytes() for w in model.weights],
        "ids": [id(w) for w in model.weights],
        "inbound": [len(layer._inbound_nodes) for layer in everything],
        "outbound": [len(layer._outbound_nodes) for layer in everything],
        "trainable": [layer.trainable for layer in everything],
        "names": [layer.name for layer in everything],
        "losses": len(model.losses),
    }


@EACH
@pytest.mark.parametrize("objective", ["latency", "layers"])
def test_same_outputs_names_structure(name: str, objective: str) -> None:
    model = built(name)
    before = fingerprint(model)
    folded = kerasfold.fold(model, objective=objective)
    assert fingerprint(model) == before
    assert signature(folded) == signature(model)
    assert_same(model, folded, FLOAT32, inputs=data(model))
    inputs = data(model)
    keras.tree.assert_same_structure(model(inputs), folded(inputs))
    assert not folded.compiled
    assert folded is not model
    assert not {id(layer) for layer in layers_of(model)} & {
        id(layer) for layer in layers_of(folded)
    }
    assert folded.fold_report.layers_after <= folded.fold_report.layers_before


@EACH
def test_float64(name: str) -> None:
    model = built(name, "float64")
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert signature(folded) == signature(model)
    # Kernels of keras layers such as Normalization are float32 inside whatever the policy.
    assert_same(model, folded, FLOAT64, inputs=data(model))


@EACH
def test_names_are_unique_and_legal(name: str) -> None:
    model = built(name)
    folded = kerasfold.fold(model, verify=False)
    names = [layer.name for layer in folded.layers]
    assert len(set(names)) == len(names)
    for each in names:
        assert each
        assert "/" not in each
        assert " " not in each
        assert not keyword.iskeyword(each)
    assert folded.name == model.name


@EACH
def test_saves_and_loads(name: str, tmp_path: Path) -> None:
    model = built(name)
    folded = kerasfold.fold(model, objective="layers", verify=False)
    folded.save(tmp_path / "folded.keras")
    loaded = keras.saving.load_model(
        tmp_path / "folded.keras", safe_mode=name != "in_memory_lambda"
    )
    if name != "nested_many_outputs":  # two outputs of one name: no file can say that
        assert signature(loaded) == signature(model)
    for a, b in zip(run(folded, data(model)), run(loaded, data(model)), strict=True):
        np.testing.assert_array_equal(a, b)


@EACH
def test_folding_again_changes_nothing(name: str) -> None:
    model = built(name)
    once = kerasfold.fold(model, objective="layers", verify=False)
    twice = kerasfold.fold(once, objective="layers")
    if name != "add_of_different_strides":  # equal cost, another way
        assert kinds(twice) == kinds(once)
        assert twice.count_params() == once.count_params()
    if name != "nested_many_outputs":  # two outputs of one name: no second fold can know
        assert signature(twice) == signature(model)
    assert_same(once, twice, FLOAT32, inputs=data(model))


@EACH
def test_explain_says_what_fold_does(name: str) -> None:
    model = built(name)
    before = fingerprint(model)
    said, did = kerasfold.explain(model), kerasfold.fold(model, verify=False).fold_report
    assert fingerprint(model) == before
    assert said.to_dict() == did.to_dict()


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        *((name, "mixed_float16") for name in GRAPHS),
        *(
            (name, policy)
            for policy in ("bfloat16", "mixed_bfloat16", "float16")
            for name in (
                "residual",
                "siamese",
                "operators",
                "input_as_output",
                "softmax_head",
                "inception",
            )
        ),
    ],
)
def test_low_precision(name: str, policy: str) -> None:
    model = built(name, policy)
    folded = kerasfold.fold(model)
    assert signature(folded) == signature(model)
    assert {w.dtype for w in folded.weights} <= {w.dtype for w in model.weights}
    inputs = data(model)
    for a, b in zip(run(model, inputs), run(folded, inputs), strict=True):
        assert np.abs(a - b).max() <= (0.02 if "bf" not in policy else 0.15) * max(
            np.abs(a).max(), 1e-3
        )


# Sharing.


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
    folded = kerasfold.fold(model)
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
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT32)
    assert kinds(folded).count("PReLU") == kinds(folded).count("Dense") == 1
    assert folded.count_params() <= model.count_params()


def test_shared_batchnorm_shifted_by_no_other_call() -> None:
    """Folding one call's conv must not change what the other call reads."""
    a, b = image(name="a"), image(name="b")
    norm = BN(name="norm")
    model = randomise(keras.Model([a, b], [norm(Conv(3, 3, name="x")(a)), norm(layers.ReLU()(b))]))
    folded = kerasfold.fold(model, objective="layers")
    assert_same(model, folded, FLOAT32)


# Names.


def test_names_of_layers_lifted_out_of_nested_models() -> None:
    model = built("nested_three_deep")
    names = {layer.name for layer in kerasfold.fold(model, objective="layers").layers}
    assert "image" in names
    assert "end" in names
    assert "outer_middle_act" in names
    assert not any(isinstance(layer, keras.Model) for layer in kerasfold.fold(model).layers)


def test_name_collision_is_resolved() -> None:
    folded = kerasfold.fold(built("name_collisions"))
    names = [layer.name for layer in folded.layers]
    assert {"a_b", "a_c"} <= set(names)
    assert len(set(names)) == len(names) == 5


def test_materialised_tensor_keeps_its_layer_name() -> None:
    folded = kerasfold.fold(built("sequential"))
    assert {"b", "r", "head", "image"} <= {layer.name for layer in folded.layers}


# The original.


def test_optimizer_and_compiled_state_untouched_and_fit_goes_on() -> None:
    model, alone = built("softmax_head"), built("softmax_head")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 8, 8, 3)).astype("float32"), rng.integers(0, 5, 32)
    for each in (model, alone):
        each.compile(
            keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        keras.utils.set_random_seed(1)
        each.fit(x, y, epochs=1, batch_size=16, verbose=0, shuffle=False)
    state = [v.numpy() for v in model.optimizer.variables]
    optimizer, before = model.optimizer, fingerprint(model)
    folded = model.fold()
    assert fingerprint(model) == before
    assert model.compiled
    assert model.optimizer is optimizer
    for kept, now in zip(state, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(kept, now.numpy())
    assert not folded.compiled
    assert_same(model, folded, FLOAT32)
    for each in (model, alone):
        keras.utils.set_random_seed(2)
        each.fit(x, y, epochs=1, batch_size=16, verbose=0, shuffle=False)
    for a, b in zip(model.weights, alone.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    with pytest.raises(AssertionError):
        assert_same(model, folded, FLOAT32)
    assert_same(model, model.fold(), FLOAT32)


def test_fold_trains() -> None:
    folded = kerasfold.fold(built("softmax_head"))
    folded.compile("sgd", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    before = folded.get_weights()
    folded.fit(rng.normal(size=(8, 8, 8, 3)), rng.integers(0, 5, 8), verbose=0)
    assert all(np.abs(a - b).max() > 0 for a, b in zip(before, folded.get_weights(), strict=True))


def test_random_state_untouched() -> None:
    model = built("dropout_as_output")
    keras.utils.set_random_seed(5)
    expected = random.random(), keras.random.uniform((2,)).numpy().tolist()
    keras.utils.set_random_seed(5)
    kerasfold.fold(model)
    assert (random.random(), keras.random.uniform((2,)).numpy().tolist()) == expected


def test_policy_and_backend_settings_untouched() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    model = GRAPHS["residual"]()
    kerasfold.fold(model)
    assert keras.config.dtype_policy().name == "mixed_float16"
    assert keras.config.floatx() == "float32"


def test_config_of_the_original_still_rebuilds_it() -> None:
    model = built("residual")
    config = copy.deepcopy(model.get_config())
    kerasfold.fold(model)
    again = keras.Model.from_config(config)
    again.set_weights(model.get_weights())
    assert_same(model, again, 0.0)


# What must stay.


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("subclassed_layers", {"loud": LoudConv, "squared": SquaredNorm, "scale": Scale}),
        ("training_true", {"live": BN}),
        ("in_memory_lambda", {"square": layers.Lambda}),
        ("wrappers", {"frames": layers.TimeDistributed, "both": layers.Bidirectional}),
        ("multi_head_attention", {"mha": layers.MultiHeadAttention}),
        ("batchnorm_not_on_channels", {"rows": BN, "cols": BN}),
        ("masked_text", {"embed": layers.Embedding, "lstm": layers.LSTM}),
        ("conv_lstm", {"r": layers.ConvLSTM2D}),
    ],
)
def test_kept_with_a_reason(name: str, kept: dict[str, type]) -> None:
    folded = kerasfold.fold(built(name), objective="layers")
    reasons = {row.layer: row.reason for row in folded.fold_report.kept}
    for layer, kind in kept.items():
        assert type(folded.get_layer(layer)) is kind
        assert reasons[layer]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: Scale(2.5, name="layer"), (4, 4, 3)),
        (lambda: layers.PReLU(name="layer"), (4, 4, 3)),
        (lambda: layers.Dense(3, name="layer", activation="gelu"), (4, 4, 3)),
        (lambda: layers.LayerNormalization(name="layer"), (4, 4, 3)),
        (lambda: layers.Conv2DTranspose(3, 3, name="layer"), (4, 4, 3)),
        (lambda: layers.UpSampling2D(2, name="layer"), (4, 4, 3)),
        (lambda: layers.Rescaling(0.1, 3.0, name="layer"), (4, 4, 3)),
        (lambda: layers.SpectralNormalization(layers.Dense(3), name="layer"), (4, 4, 3)),
        (lambda: layers.GroupNormalization(1, name="layer"), (4, 4, 3)),
        (
            lambda: layers.LocallyConnected if False else layers.Permute((2, 1, 3), name="layer"),
            (4, 4, 3),
        ),
        (lambda: layers.EinsumDense("bhwc,cd->bhwd", (4, 4, 5), name="layer"), (4, 4, 3)),
        (lambda: layers.Resizing(7, 9, name="layer"), (4, 4, 3)),
        (lambda: layers.Maximum(name="layer"), (4, 4, 3)),
        (lambda: layers.Multiply(name="layer"), (4, 4, 3)),
        (lambda: layers.RandomFlip(name="layer"), (4, 4, 3)),
        (lambda: layers.UnitNormalization(name="layer"), (4, 4, 3)),
    ],
    ids=lambda value: "" if callable(value) else "layer",
)
def test_a_barrier_between_two_regions(layer: Callable[[], Any], shape: Any) -> None:
    i = image(shape)
    barrier = layer()
    x = BN(name="n1")(Conv(3, 2, padding="same", name="c1")(i))
    x = barrier([x, i]) if isinstance(barrier, (layers.Maximum, layers.Multiply)) else barrier(x)
    model = randomise(keras.Model(i, BN(name="n2")(Conv(3, 2, name="c2")(x))))
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT32)
    assert "BatchNormalization" not in kinds(folded)


def test_dropout_with_training_true_stays_random() -> None:
    i = image()
    x = layers.Dropout(0.5, name="live")(Conv(4, 3, name="c")(i), training=True)
    model = randomise(keras.Model(i, BN(name="n")(x)))
    folded = kerasfold.fold(model, verify=False)
    assert type(folded.get_layer("live")) is layers.Dropout
    given = inputs_of(model)
    # Without `training=`: a `training=False` of the whole model overrules the one of the call.
    assert np.abs(np.asarray(folded(given)) - np.asarray(folded(given))).max() > 0.1
    assert any(row.layer == "live" and "training" in row.reason for row in folded.fold_report.kept)


def test_dropout_with_training_true_verifies() -> None:
    """Random on purpose: verification must neither fail it nor wave it through unsaid."""
    i = image()
    x = layers.Dropout(0.5, name="live")(Conv(4, 3, name="c")(i), training=True)
    model = randomise(keras.Model(i, BN(name="n")(x)))
    assert kerasfold.fold(model).fold_report.equivalence.equivalent


def test_noise_with_training_true_stays() -> None:
    i = image()
    model = keras.Model(i, layers.GaussianNoise(1.0, name="live")(i, training=True))
    folded = kerasfold.fold(model, verify=False)
    given = inputs_of(model)
    assert np.abs(np.asarray(folded(given)) - given).max() > 0.1


def test_training_argument_of_a_nested_call() -> None:
    i = keras.Input((8, 8, 3))
    inner = keras.Model(i, BN(name="n")(Conv(4, 3, name="c")(i)), name="inner")
    x = image()
    model = randomise(keras.Model(x, inner(x, training=True)))
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT32)
    assert "BatchNormalization" in kinds(folded)


def test_moving_statistics_are_not_moved_by_a_live_batchnorm() -> None:
    model = built("training_true")
    before = [w.numpy() for w in model.weights]
    kerasfold.fold(model)
    for a, b in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(a, b.numpy())


# Weights as the layer computes them.


@pytest.mark.parametrize("kind", ["conv", "dense"])
def test_lora(kind: str) -> None:
    i = image((6, 6, 3))
    layer = Conv(4, 3, name="lora") if kind == "conv" else layers.Dense(4, name="lora")
    model = randomise(keras.Model(i, BN(name="n")(layer(i))))
    layer.enable_lora(2)
    rng = np.random.default_rng(0)
    for part in (layer.lora_kernel_a, layer.lora_kernel_b):
        part.assign(rng.normal(size=part.shape))
    before = fingerprint(model)
    folded = kerasfold.fold(model, objective="layers")
    assert fingerprint(model) == before
    assert_same(model, folded, FLOAT32)
    if kind == "conv":
        assert kinds(folded) == ["Conv2D"]


def test_lora_barrier_saves(tmp_path: Path) -> None:
    i = image((6,), name="vector")
    layer = layers.Dense(4, name="lora")
    model = randomise(keras.Model(i, layer(i)))
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
    folded = kerasfold.fold(model)
    folded.save(tmp_path / "m.keras")
    assert_same(model, keras.saving.load_model(tmp_path / "m.keras"), FLOAT32)


def test_frozen_layers_fold() -> None:
    folded = kerasfold.fold(built("frozen"))
    assert "BatchNormalization" not in kinds(folded)
    assert not folded.get_layer("d").trainable


# Dtypes.


def test_a_different_dtype_per_layer() -> None:
    i = image()
    x = Conv(4, 3, dtype="float64", name="wide")(i)
    x = BN(dtype="float32", name="norm")(x)
    x = Conv(4, 3, dtype="mixed_float16", name="half")(x)
    model = randomise(keras.Model(i, [layers.Dense(3, dtype="bfloat16", name="brain")(x), x]))
    folded = kerasfold.fold(model)
    assert signature(folded) == signature(model)
    assert_same(model, folded, 0.01)


def test_mixed_precision_with_a_float32_head() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    i = image()
    x = layers.ReLU()(BN(name="n")(Conv(4, 3, name="c")(i)))
    model = randomise(keras.Model(i, layers.Activation("linear", dtype="float32", name="out")(x)))
    folded = kerasfold.fold(model)
    assert signature(folded) == signature(model)
    assert folded.outputs[0].dtype == "float32"
    assert folded.count_params() == 3 * 3 * 3 * 4 + 4


def test_a_cast_is_not_an_identity() -> None:
    i = image(dtype="float64")
    model = keras.Model(i, layers.Dropout(0.1, dtype="float16", name="d")(i))
    folded = kerasfold.fold(model)
    assert folded.outputs[0].dtype == model.outputs[0].dtype == "float16"


def test_integer_images() -> None:
    i = image(dtype="uint8")
    model = randomise(
        keras.Model(i, BN(name="n")(Conv(4, 3, name="c")(layers.Rescaling(1 / 255)(i))))
    )
    folded = kerasfold.fold(model)
    assert folded.inputs[0].dtype == "uint8"
    given = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3)).astype("uint8")
    assert_same(model, folded, FLOAT32, inputs=given)


def test_what_a_layer_is_made_of_stays_frozen() -> None:
    i = keras.Input((5, 4))
    attention = layers.MultiHeadAttention(2, 4, name="attention")
    model = keras.Model(i, attention(i, i))
    attention._query_dense.trainable = False
    folded = kerasfold.fold(model)
    own, kept = ([w.path for w in m.trainable_weights] for m in (model, folded))
    assert [p.split("/")[-2:] for p in own] == [p.split("/")[-2:] for p in kept]
    assert len(own) == 6


def test_one_number_for_all_inputs() -> None:
    i = keras.Input((7,))
    model = randomise(keras.Model(i, ops.mean(layers.Dense(3)(layers.Dense(4)(i)))))
    folded = kerasfold.fold(model, objective="layers")
    assert len(folded.layers) == len(model.layers) - 1
    x = np.random.default_rng(0).normal(size=(5, 7)).astype("float32")
    np.testing.assert_allclose(np.asarray(folded(x)), np.asarray(model(x)), rtol=1e-4)


@pytest.mark.parametrize(
    "keeps",
    [
        lambda i: layers.ZeroPadding2D(1)(i),
        lambda i: layers.UpSampling2D(2)(i),
        lambda i: layers.Add()([i, i]),  # which wraps at 256
        lambda i: layers.Cropping2D(1)(layers.Concatenate()([i, i])),
        lambda i: layers.Permute((2, 1, 3))(layers.MaxPooling2D(2)(i)),
    ],
    ids=["padding", "upsampling", "sum", "concatenation", "permutation"],
)
def test_layers_that_keep_bytes_are_not_merged(keeps: Any) -> None:
    """Keras says that they make floats; a kernel on bytes does not run."""
    i = image(dtype="uint8")
    x = layers.Rescaling(1 / 255)(keeps(i))
    model = randomise(keras.Model(i, Conv(4, 3, name="c")(Conv(4, 1, name="b")(x))))
    given = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype("uint8")
    for objective in UNTIMED:
        folded = kerasfold.fold(model, objective=objective)
        assert any(isinstance(layer, layers.Rescaling) for layer in folded.layers)
        assert_same(model, folded, FLOAT32, inputs=given)
    assert len(kerasfold.fold(model, "layers").layers) == len(model.layers) - 1
    reasons = [r.reason for r in folded.fold_report.kept if "integers" in r.reason]
    assert len(reasons) >= 1


# Masks.


@pytest.mark.parametrize(
    "name", ["masked_text", "masked_through_operators", "masked_batchnorm_and_conv"]
)
def test_a_mask_arrives_through_what_is_removed(name: str) -> None:
    model = built(name)
    folded = kerasfold.fold(model, objective="layers")
    words = np.array([[1, 2, 3, 0, 0, 0], [4, 0, 0, 0, 0, 0], [0, 1, 0, 2, 0, 3]], "int32")
    other = words.copy()
    assert_same(model, folded, FLOAT32, inputs=words)
    assert len(run(folded, other)) == len(run(model, words))


def test_mask_of_padded_steps_is_used() -> None:
    model = built("masking_layer")
    folded = kerasfold.fold(model)
    x = inputs_of(model)
    x[:, 3:] = 0
    assert_same(model, folded, FLOAT32, inputs=x)


# Other models.


def test_functional_subclass_with_its_own_train_step() -> None:
    folded = kerasfold.fold(built("custom_training"))
    assert kinds(folded) == ["Conv2D"]


def test_subclass_of_functional_with_its_own_call_is_refused_or_kept() -> None:
    class Doubled(keras.Model):
        def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
            return 2 * super().call(inputs, training=training)

    i = image()
    model = randomise(Doubled(i, Conv(4, 3, name="c")(i)))
    with pytest.raises(kerasfold.UnsupportedModelError, match=r"call|subclass"):
        kerasfold.fold(model)


def test_nested_subclassed_model_is_a_barrier() -> None:
    model = randomise(_with_subclassed_inside())
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT32)
    assert "BatchNormalization" not in [type(layer).__name__ for layer in folded.layers]


@keras.saving.register_keras_serializable("test_graphs")
class Inside(keras.Model):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conv = Conv(3, 3, padding="same")

    def build(self, shape: Any) -> None:
        self.conv.build(shape)
        self.built = True

    def call(self, x: Any) -> Any:
        return ops.tanh(self.conv(x))


def _with_subclassed_inside() -> keras.Model:
    i = image()
    x = Inside(name="inside")(BN(name="n1")(Conv(3, 3, name="c1")(i)))
    return keras.Model(i, BN(name="n2")(Conv(3, 3, name="c2")(x)))


def test_deep_chain_of_plain_layers() -> None:
    x = i = image((6, 6, 2))
    for k in range(60):
        x = layers.ReLU()(BN(name=f"n{k}")(Conv(2, 1, name=f"c{k}")(x)))
    model = randomise(keras.Model(i, x))
    folded = kerasfold.fold(model, verify=False)
    assert kinds(folded).count("BatchNormalization") == 0
    assert_same(model, folded, 1e-3)


def test_method_is_the_function() -> None:
    model = built("residual")
    assert kinds(model.fold(objective="layers")) == kinds(kerasfold.fold(model, objective="layers"))
    assert model.fold(verify=False).fold_report.equivalence is None


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
        folded, known = (kerasfold.fold(m, objective=objective) for m in (nested, flat))
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
        folded = kerasfold.fold(model, objective=objective)
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
    folded = kerasfold.fold(model, objective=objective)
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
        assert_same(model, kerasfold.fold(model, objective=objective), FLOAT32)


@keras.saving.register_keras_serializable("test_graphs")
class Formatted(layers.Layer):
    """Has a `data_format` of its own kind."""

    def __init__(self, data_format: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format

    def call(self, x: Any) -> Any:
        return ops.sin(x)


@pytest.mark.parametrize("data_format", [None, "NHWC", "channels_first"])
def test_the_layout_is_that_of_most_layers(data_format: Any) -> None:
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), Formatted(data_format), Conv(4, 1), Conv(5, 3)]
    )
    randomise(model)
    folded = kerasfold.fold(model, objective="layers")
    assert_same(model, folded, FLOAT32)
    assert kinds(folded) == ["Formatted", "Conv2D"]


def test_activations_are_no_layers_however_they_are_written() -> None:
    i = image((8, 8, 3), "image")
    x = ops.softmax(Conv(4, 1)(ops.silu(Conv(4, 1)(ops.relu(Conv(4, 3)(i))))))
    model = keras.Model(i, ops.reshape(x, (-1, 6 * 6 * 4)))
    assert kerasfold.explain(model, objective="layers").layers_before == 3

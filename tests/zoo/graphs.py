"""Whole graphs, by name: structures, sharing, operators, masks, barriers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from zoo.making import randomise

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
        [keras.Input((8, 8, 3)), layers.Activation("tanh", name="b"), Conv(3, 3, name="c")],
        name="a",
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


def built(name: str, policy: str = "float32") -> keras.Model:
    keras.config.set_dtype_policy(policy)
    return randomise(GRAPHS[name]())

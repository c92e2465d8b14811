"""Models of layers that stay closed, beside what multiplies channels and shifts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers as L

from zoo.making import policy, randomise

Body = Callable[[Any], Any]
STEPS = (4, 3)  # steps of a sequence, and channels of each
IMAGES = {1: (3, 6, 3), 2: (3, 6, 5, 3), 3: (2, 4, 5, 3, 3)}  # by the axes of each


def norm(x: Any, name: str = "norm", **settings: Any) -> Any:
    return L.BatchNormalization(name=name, **settings)(x)


def made(body: Body, shape: Any, dtype: str | None = None, like: str = "float64") -> keras.Model:
    """A model with weights as training leaves them; `like` is its policy."""
    with policy(like):
        x = keras.Input(shape, dtype=dtype or keras.config.dtype_policy().compute_dtype)
        return randomise(keras.Model(x, body(x)))


def attention(kind: Any = L.MultiHeadAttention, places: str = "qv", **settings: Any) -> Body:
    """Attention to what is normalised at the places named by their first letters."""
    settings = {**({} if kind is L.MultiHeadAttention else {"num_key_value_heads": 1}), **settings}

    def body(x: Any) -> Any:
        y = norm(x)
        names = ("query", "value", "key") if "k" in places else ("query", "value")
        return kind(2, 3, **settings)(**{n: y if n[0] in places else x for n in names})

    return body


BEFORE: dict[str, tuple[Body, Any]] = {
    "LSTM": (lambda x: L.LSTM(2)(norm(x)), STEPS),
    "LSTM without a bias": (lambda x: L.LSTM(2, use_bias=False)(norm(x)), STEPS),
    "GRU": (lambda x: L.GRU(2)(norm(x)), STEPS),
    "GRU without a bias": (lambda x: L.GRU(2, use_bias=False)(norm(x)), STEPS),
    "GRU, reset before": (lambda x: L.GRU(2, reset_after=False)(norm(x)), STEPS),
    "the same without a bias": (
        lambda x: L.GRU(2, reset_after=False, use_bias=False)(norm(x)),
        STEPS,
    ),
    "SimpleRNN": (lambda x: L.SimpleRNN(2)(norm(x)), STEPS),
    "RNN": (lambda x: L.RNN(L.GRUCell(2), return_sequences=True)(norm(x)), STEPS),
    "RNN of two": (lambda x: L.RNN([L.LSTMCell(2), L.GRUCell(2)])(norm(x)), STEPS),
    "Bidirectional": (lambda x: L.Bidirectional(L.LSTM(2))(norm(x)), STEPS),
    "Bidirectional, otherwise back": (
        lambda x: L.Bidirectional(
            L.GRU(2, use_bias=False),
            backward_layer=L.LSTM(2, go_backwards=True),
            merge_mode="sum",
        )(norm(x)),
        STEPS,
    ),
    "ConvLSTM1D": (lambda x: L.ConvLSTM1D(2, 3)(norm(x)), IMAGES[1]),
    "ConvLSTM2D": (lambda x: L.ConvLSTM2D(2, (3, 1), 2)(norm(x)), IMAGES[2]),
    "ConvLSTM3D": (lambda x: L.ConvLSTM3D(2, 2, use_bias=False)(norm(x)), IMAGES[3]),
    "ConvLSTM2D with a border": (
        lambda x: L.ConvLSTM2D(2, 3, padding="same")(L.Rescaling([0.5, 2.0, -3.0])(x)),
        IMAGES[2],
    ),
    "ConvLSTM2D of pixels": (lambda x: L.ConvLSTM2D(2, 1, padding="same")(norm(x)), IMAGES[2]),
    "attention": (attention(), STEPS),
    "attention of two axes": (attention(attention_axes=(1, 2)), (3, 4, 3)),
    "attention, gated": (attention(use_gate=True), STEPS),
    "attention without biases": (attention(use_bias=False), STEPS),
    "query": (attention(places="q"), STEPS),
    "query without biases": (attention(places="q", use_bias=False), STEPS),
    "value as key": (attention(places="v"), STEPS),
    "key alone": (attention(places="k", output_shape=5), STEPS),
    "all three": (attention(places="qvk"), STEPS),
    "grouped": (attention(L.GroupQueryAttention, use_gate=True), STEPS),
    "grouped without biases": (attention(L.GroupQueryAttention, use_bias=False), STEPS),
    "a chain": (lambda x: L.LSTM(2)(L.Dropout(0.5)(norm(L.Rescaling(0.5, 1.0)(x)))), STEPS),
    "Normalization": (
        lambda x: L.LSTM(2)(L.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 2.0, 4.0])(x)),
        STEPS,
    ),
    "operations": (lambda x: L.LSTM(2)(x * np.array([2.0, -1.0, 0.5]) + 1.0), STEPS),
    "gains of zero": (lambda x: L.LSTM(2)(L.Rescaling([0.0, 1.0, 2.0], 1.0)(x)), STEPS),
    "behind an activation": (lambda x: L.LSTM(2)(norm(L.Dense(3, "tanh")(x))), STEPS),
}
INTEGERS = (5,)
ROWS = (5, 3)  # of integers, too
BEHIND: dict[str, tuple[Body, Any]] = {
    "Embedding": (lambda x: norm(L.Embedding(7, 3)(x)), INTEGERS),
    "Dense": (lambda x: norm(L.Dense(3)(x)), INTEGERS),
    "Dense without a bias": (lambda x: norm(L.Dense(3, use_bias=False)(x)), INTEGERS),
    "Dense that rectifies": (
        lambda x: L.Rescaling([0.5, 2.0, 3.0])(L.Dense(3, "relu")(x)),
        INTEGERS,
    ),
    "EinsumDense": (lambda x: norm(L.EinsumDense("ab,bc->ac", 3)(x)), INTEGERS),
    "EinsumDense with a bias": (
        lambda x: norm(L.EinsumDense("...b,bc->...c", 3, bias_axes="c")(x)),
        INTEGERS,
    ),
    "Dense of words": (
        lambda x: norm(L.Dense(3)(L.CategoryEncoding(5, output_mode="multi_hot")(x))),
        INTEGERS,
    ),
    "attention": (lambda x: norm(L.MultiHeadAttention(2, 3)(x, x)), STEPS),
    "attention to others": (
        lambda x: norm(L.MultiHeadAttention(2, 3, use_bias=False, output_shape=5)(x, x)),
        STEPS,
    ),
    "grouped attention": (lambda x: norm(L.GroupQueryAttention(2, 2, 1)(x, x)), STEPS),
    "between two": (
        lambda x: L.LSTM(2)(norm(L.MultiHeadAttention(2, 3, use_bias=False)(x, x))),
        STEPS,
    ),
    "both sides": (lambda x: norm(attention(use_bias=False)(x), "behind"), STEPS),
    "a chain": (lambda x: norm(L.Embedding(7, 3)(x) * 3.0, center=False) + 1.0, INTEGERS),
}

ABSORBED = {f"before {k}": v for k, v in BEFORE.items()} | {
    f"{k} before": v for k, v in BEHIND.items()
}

"""What closed layers make with others' steps in their weights: as NumPy has it, and each class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasfold
from kerasfold.errors import EquivalenceError
from kerasfold.layers import absorbing
from kerasfold.read.copies import called_copy
from zoo.closed import ABSORBED, IMAGES, INTEGERS, ROWS, STEPS, Body, made, norm
from zoo.same import FLOAT64, inputs_of, kinds, run

pytestmark = pytest.mark.usefixtures("fresh")


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def normalised(x: np.ndarray, model: keras.Model) -> np.ndarray:
    gamma, beta, mean, variance = map(np.asarray, model.get_layer("norm").get_weights())
    return gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta


def by_lstm(x: np.ndarray, kernel: Any, recurrent: Any, bias: Any) -> np.ndarray:
    """In words of the original paper."""
    state = memory = np.zeros((len(x), len(recurrent)))
    for step in np.moveaxis(x, 1, 0):
        i, f, c, o = np.split(step @ kernel + state @ recurrent + bias, 4, axis=-1)
        memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(c)
        state = sigmoid(o) * np.tanh(memory)
    return state


def by_gru(x: np.ndarray, kernel: Any, recurrent: Any, bias: Any) -> np.ndarray:
    """With the reset behind the product where there are two biases, and else before it."""
    state, after = np.zeros((len(x), len(recurrent))), bias.ndim == 2
    read, kept = bias if after else (bias, 0 * bias)
    for step in np.moveaxis(x, 1, 0):
        z, r, h = np.split(step @ kernel + read, 3, axis=-1)
        uz, ur, uh = np.split(state @ recurrent + kept, 3, axis=-1)
        z, r = sigmoid(z + uz), sigmoid(r + ur)
        uh = r * uh if after else (r * state) @ np.split(recurrent, 3, axis=-1)[2]
        state = z * state + (1 - z) * np.tanh(h + uh)
    return state


def by_simple_rnn(x: np.ndarray, kernel: Any, recurrent: Any, bias: Any) -> np.ndarray:
    state = np.zeros((len(x), len(recurrent)))
    for step in np.moveaxis(x, 1, 0):
        state = np.tanh(step @ kernel + state @ recurrent + bias)
    return state


def by_conv_lstm(x: np.ndarray, kernel: Any, recurrent: Any, bias: Any) -> np.ndarray:
    """Of one axis, with three taps."""
    size = x.shape[2] - 2
    state = memory = np.zeros((len(x), size, recurrent.shape[1]))
    for step in np.moveaxis(x, 1, 0):
        around = np.pad(state, ((0, 0), (1, 1), (0, 0)))
        taps = range(3)
        read = sum(step[:, k : k + size] @ kernel[k] for k in taps)
        kept = sum(around[:, k : k + size] @ recurrent[k] for k in taps)
        i, f, c, o = np.split(read + kept + bias, 4, axis=-1)
        memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(c)
        state = sigmoid(o) * np.tanh(memory)
    return state


def by_attention(x: np.ndarray, *weights: Any) -> np.ndarray:
    """Of x to itself; a kernel and a bias of query, key, value and output."""
    q, k, v = (
        np.einsum("btc,chd->bhtd", x, kernel) + bias[:, None]
        for kernel, bias in zip(weights[:6:2], weights[1:6:2], strict=True)
    )
    scale = np.float32(1 / np.sqrt(q.shape[-1]))  # as Keras has it, in float64 too
    scores = np.exp(np.einsum("bhtd,bhsd->bhts", q, k) * scale)
    mean = np.einsum("bhts,bhsd->bhtd", scores / scores.sum(axis=-1, keepdims=True), v)
    return np.einsum("bhtd,hde->bte", mean, weights[6]) + weights[7]


ORACLES: dict[str, tuple[Callable[[], keras.Layer], Any, Callable[..., np.ndarray]]] = {
    "LSTM": (lambda: L.LSTM(2), STEPS, by_lstm),
    "GRU": (lambda: L.GRU(2), STEPS, by_gru),
    "GRU, reset before": (lambda: L.GRU(2, reset_after=False), STEPS, by_gru),
    "SimpleRNN": (lambda: L.SimpleRNN(2), STEPS, by_simple_rnn),
    "ConvLSTM1D": (lambda: L.ConvLSTM1D(2, 3), IMAGES[1], by_conv_lstm),
    "attention": (lambda: Twice(L.MultiHeadAttention(2, 3)), STEPS, by_attention),
}


class Twice:
    """Calls attention on one tensor at all places."""

    def __init__(self, layer: keras.Layer) -> None:
        self.layer = layer

    def __call__(self, x: Any) -> Any:
        return self.layer(x, x)


def off(name: str) -> float:
    """How far a fold is from what NumPy makes of what is normalised, of its size."""
    make, shape, oracle = ORACLES[name]
    model = made(lambda x: make()(norm(x)), shape)
    folded = kerasfold.fold(model, verify=False)
    x = inputs_of(model)
    wanted = oracle(normalised(x, model), *model.layers[-1].get_weights())
    (got,) = run(folded, x)
    assert "BatchNormalization" not in kinds(folded)
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("name", ORACLES)
def test_as_by_hand(name: str) -> None:
    assert off(name) < FLOAT64


def steps_changed(change: Callable[[absorbing.Steps], absorbing.Steps]) -> Any:
    """The rows of the table, given other steps than they should be."""

    def wrong(row: Any) -> Any:
        return lambda layer, places, steps: row(layer, places, change(steps))

    return {
        kind: wrong(row) for kind, row in absorbing._BEFORE.items() if row is not absorbing._around
    }


FAULTS: dict[str, Callable[[absorbing.Steps], absorbing.Steps]] = {
    "no shift": lambda x: x._replace(shift=0 * x.shift),
    "no gain": lambda x: x._replace(gain=1 + 0 * x.gain),
    "gains of other channels": lambda x: x._replace(gain=x.gain[::-1]),
    "shifts multiplied too": lambda x: x._replace(shift=x.gain * x.shift),
    "a gain that is off by little": lambda x: x._replace(gain=x.gain * (1 + 1e-6)),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ORACLES)
def test_a_fault_is_found(name: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, row in steps_changed(FAULTS[fault]).items():
        monkeypatch.setitem(absorbing._BEFORE, kind, row)
    assert off(name) > 1e-8


def test_a_shift_at_the_state_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a GRU, which has a bias for what it reads and one for its state."""
    right = absorbing._cell

    def wrong(layer: Any, places: Any, steps: Any) -> Any:
        other = right(layer, places, steps)
        bias = np.asarray(layer.bias)
        added = other.weights["bias"] - bias
        return other._replace(weights={**other.weights, "bias": bias + added[::-1]})

    monkeypatch.setitem(absorbing._BEFORE, L.GRUCell, wrong)
    assert off("GRU") > 1e-3
    with pytest.raises(EquivalenceError):
        kerasfold.fold(made(lambda x: L.GRU(2)(norm(x)), STEPS))


def test_a_shift_before_a_border_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(layer: Any, places: Any, steps: Any) -> Any:
        layer.padding, before = "valid", layer.padding
        try:
            return absorbing._convolving_cell(layer, places, steps)
        finally:
            layer.padding = before

    monkeypatch.setitem(absorbing._BEFORE, absorbing.ConvLSTMCell, wrong)
    with pytest.raises(EquivalenceError):
        kerasfold.fold(made(lambda x: L.ConvLSTM2D(2, 3, padding="same")(norm(x)), IMAGES[2]))


ENDING: dict[Any, tuple[Callable[..., keras.Layer], Any]] = {
    L.Dense: (lambda: L.Dense(4), (3,)),
    L.EinsumDense: (lambda: L.EinsumDense("abc,cde->abde", (3, 2, 4)), (3, 5)),
    L.Conv1D: (lambda: L.Conv1D(4, 2, use_bias=False), (5, 3)),
    L.Conv2D: (lambda: L.Conv2D(4, 2, groups=2), (5, 4, 2)),
    L.Conv3D: (lambda: L.Conv3D(4, 2), (3, 4, 3, 2)),
    L.SeparableConv1D: (lambda: L.SeparableConv1D(4, 2), (5, 3)),
    L.SeparableConv2D: (lambda: L.SeparableConv2D(4, 2, use_bias=False), (5, 4, 3)),
    L.DepthwiseConv1D: (lambda: L.DepthwiseConv1D(2, depth_multiplier=2), (5, 2)),
    L.DepthwiseConv2D: (lambda: L.DepthwiseConv2D(2, use_bias=False), (5, 4, 4)),
    L.Conv1DTranspose: (lambda: L.Conv1DTranspose(4, 2), (5, 3)),
    L.Conv2DTranspose: (lambda: L.Conv2DTranspose(4, 2, use_bias=False), (5, 4, 3)),
    L.Conv3DTranspose: (lambda: L.Conv3DTranspose(4, 2), (3, 3, 3, 2)),
}
STEPS_BEHIND = absorbing.Steps(np.array([0.5, -2.0, 0.0, 3.0]), np.array([1.0, 0.0, -2.0, 0.25]))


@pytest.mark.parametrize("kind", ENDING)
def test_a_layer_of_each_class_takes_what_is_behind_it(kind: Any) -> None:
    make, shape = ENDING[kind]
    model = made(lambda x: make()(x), shape)
    layer, (x,) = model.layers[-1], model.inputs
    other = absorbing.with_behind(layer, STEPS_BEHIND)
    copied, _ = called_copy(other, "copied", None, (x,), {})
    given = inputs_of(model)
    wanted = STEPS_BEHIND.gain * np.asarray(layer(given)) + STEPS_BEHIND.shift
    np.testing.assert_allclose(copied(given), wanted, rtol=0, atol=1e-12)


def test_all_classes_are_tried() -> None:
    tried = {type(x) for body, shape in ABSORBED.values() for x in parts(body, shape)} | {*ENDING}
    assert {*absorbing._BEFORE, *absorbing._BEHIND} <= tried


def parts(body: Body, shape: Any) -> list[keras.Layer]:
    model = made(body, shape, "int32" if shape in (INTEGERS, ROWS) else None)
    return list(model._flatten_layers())

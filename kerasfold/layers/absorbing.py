"""Layers that do what stands before them, or behind them, to channels: by weights of their own.

A layer that starts with a linear map of the channels, `f(W x + b)`, takes gains `g` and shifts `s`
of what it reads: `f(W (g x + s) + b) = f((W g) x + (b + W s))`. One that ends with such a map takes
those of what it gives: `g (W x + b) + s = (g W) x + (g b + s)`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np

from kerasfold.algebra.axis import Refused
from kerasfold.layers.fewer import is_stock
from kerasfold.read.alike import alike_but
from kerasfold.read.model import ConvLSTMCell, is_keras_own, sublayers
from kerasfold.read.weights import as_array, count_params, largest, smallest

L = keras.layers
Places: TypeAlias = Collection[str]  # what a layer reads, by the names of its arguments

FIRST = ""  # the place of what a layer reads that reads one tensor, beside its state
ATTENTION = (L.MultiHeadAttention, L.GroupQueryAttention)
_RECURRENT = (L.LSTM, L.GRU, L.SimpleRNN, L.RNN, L.ConvLSTM1D, L.ConvLSTM2D, L.ConvLSTM3D)
# The projections that read each argument of attention, and the one that gives, by their names.
_READ_BY = {"query": ("query", "gate"), "key": ("key",), "value": ("value",)}
_GIVES = "attention_output"


class Steps(NamedTuple):
    """What channels are multiplied by, and what is added to them then; in float64."""

    gain: np.ndarray
    shift: np.ndarray


class _Other(NamedTuple):
    """What a layer has otherwise than another: see `alike_but`."""

    settings: Mapping[str, Any]
    weights: Mapping[str, np.ndarray]
    inner: Sequence[tuple[keras.Layer, keras.Layer]] = ()


def _other(layer: Any, bias: np.ndarray, kernel: np.ndarray, name: str = "kernel") -> _Other:
    """A layer of another kernel, and of another bias where there is one to have."""
    if layer.bias is None and not np.any(bias):
        return _Other({}, {name: kernel})
    settings: dict[str, Any] = {"use_bias": True}
    if type(layer) is L.EinsumDense:
        settings = {"bias_axes": layer.equation[-bias.ndim :]}
    return _Other(settings if layer.bias is None else {}, {name: kernel, "bias": bias})


def _bias(layer: Any, shape: Sequence[int]) -> np.ndarray:
    return np.zeros(shape) if layer.bias is None else as_array(layer.bias)


def _cell(layer: Any, _: Places, steps: Steps) -> _Other:
    kernel = as_array(layer.kernel)  # (channels, units of all gates)
    added = steps.shift @ kernel
    if getattr(layer, "reset_after", False):  # what is added to what is read, and to the state
        added = np.stack([added, np.zeros_like(added)])
    return _other(layer, _bias(layer, added.shape) + added, steps.gain[:, None] * kernel)


def _convolving_cell(layer: Any, _: Places, steps: Steps) -> _Other:
    kernel = as_array(layer.kernel)  # (*taps, channels, filters of all gates)
    if np.any(steps.shift) and layer.padding != "valid" and max(layer.kernel_size) > 1:
        raise Refused("what reads it pads with zeros, which are not shifted")
    added = steps.shift @ kernel.sum(axis=tuple(range(kernel.ndim - 2)))
    return _other(layer, _bias(layer, added.shape) + added, steps.gain[:, None] * kernel)


def _around(layer: Any, places: Places, steps: Steps) -> _Other:
    """A layer around others that read what it reads."""
    inner = _HELD[type(layer)](layer)
    return _Other({}, {}, [(x, with_before(x, places, steps)) for x in inner])


def _attention_before(layer: Any, places: Places, steps: Steps) -> _Other:
    inner, names = _projections(layer), {name for place in places for name in _READ_BY[place]}
    found = {}
    for name in inner.keys() & names:
        projection, kernel = inner[name], as_array(inner[name].kernel)  # (channels, ...)
        added = np.tensordot(steps.shift, kernel, 1)
        gain = steps.gain.reshape(-1, *[1] * added.ndim)
        found[name] = _other(projection, _bias(projection, added.shape) + added, gain * kernel)
    return _attending(inner, found)


def _attention_behind(layer: Any, steps: Steps) -> _Other:
    inner = _projections(layer)
    projection, kernel = inner[_GIVES], as_array(inner[_GIVES].kernel)  # (heads, of each, ...)
    bias = steps.gain * _bias(projection, kernel.shape[2:]) + steps.shift
    return _attending(inner, {_GIVES: _other(projection, bias, steps.gain * kernel)})


def _projections(layer: Any) -> dict[str, Any]:
    return {x.name: x for x in sublayers(layer) if type(x) is L.EinsumDense}


def _attending(inner: Mapping[str, Any], found: dict[str, _Other]) -> _Other:
    """Attention of other projections, all of which have a bias where one has another."""
    settings = {}
    if any(inner[name].bias is None and "bias" in x.weights for name, x in found.items()):
        settings["use_bias"] = True
        for name, projection in inner.items():
            had = found.get(name, _Other({}, {}))
            kernel = had.weights.get("kernel", as_array(projection.kernel))
            zeros = np.zeros(kernel.shape[2 if name == _GIVES else 1 :])
            axes = {"bias_axes": projection.equation[-zeros.ndim :]}
            found[name] = _Other(axes, {"kernel": kernel, "bias": zeros, **had.weights})
    alike = [(inner[name], _alike(inner[name], x)) for name, x in found.items()]
    return _Other(settings, {}, alike)


def _table(layer: Any, steps: Steps) -> _Other:
    return _Other({}, {"embeddings": as_array(layer.embeddings) * steps.gain + steps.shift})


def _map(layer: Any, steps: Steps, name: str = "kernel") -> _Other:
    kernel = as_array(getattr(layer, name))  # (..., channels)
    bias = steps.gain * _bias(layer, steps.gain.shape) + steps.shift
    return _other(layer, bias, kernel * steps.gain, name)


def _separable(layer: Any, steps: Steps) -> _Other:
    return _map(layer, steps, "pointwise_kernel")


def _depthwise(layer: Any, steps: Steps) -> _Other:
    kernel = as_array(layer.kernel)  # (*taps, channels, of each)
    bias = steps.gain * _bias(layer, steps.gain.shape) + steps.shift
    return _other(layer, bias, kernel * steps.gain.reshape(kernel.shape[-2:]))


def _transposed(layer: Any, steps: Steps) -> _Other:
    kernel = as_array(layer.kernel)  # (*taps, channels, those that it reads)
    bias = steps.gain * _bias(layer, steps.gain.shape) + steps.shift
    return _other(layer, bias, kernel * steps.gain[:, None])


def _einsum(layer: Any, steps: Steps) -> _Other:
    _, kernel, output = layer.equation.replace("->", ",").replace(" ", "").split(",")
    biased = layer.bias is None or layer.bias_axes == output[-1]
    if kernel[-1] != output[-1] or not biased:
        raise Refused(f"'{layer.name}' is no matrix that gives channels")
    return _map(layer, steps)


# By class: what takes the steps of what it reads, and of what it gives.
_BEFORE: dict[Any, Callable[[Any, Places, Steps], _Other]] = {
    **dict.fromkeys((L.LSTMCell, L.GRUCell, L.SimpleRNNCell), _cell),
    ConvLSTMCell: _convolving_cell,
    **dict.fromkeys((*_RECURRENT, L.StackedRNNCells, L.Bidirectional), _around),
    **dict.fromkeys(ATTENTION, _attention_before),
}
_HELD: dict[Any, Callable[[Any], Sequence[Any]]] = {
    **dict.fromkeys(_RECURRENT, lambda layer: [layer.cell]),
    L.StackedRNNCells: lambda layer: layer.cells[:1],
    L.Bidirectional: lambda layer: [layer.forward_layer, layer.backward_layer],
}
_BEHIND: dict[Any, Callable[[Any, Steps], _Other]] = {
    L.Embedding: _table,
    **dict.fromkeys(ATTENTION, _attention_behind),
    **dict.fromkeys((L.Dense, L.Conv1D, L.Conv2D, L.Conv3D), _map),
    **dict.fromkeys((L.SeparableConv1D, L.SeparableConv2D), _separable),
    **dict.fromkeys((L.DepthwiseConv1D, L.DepthwiseConv2D), _depthwise),
    **dict.fromkeys((L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose), _transposed),
    L.EinsumDense: _einsum,
}


def takes_before(operation: keras.Operation) -> bool:
    """Whether a layer can take gains and shifts of what it reads."""
    kind: Any = type(operation)
    if kind is L.StackedRNNCells and len({id(x) for x in operation.cells}) < len(operation.cells):
        return False
    held = _HELD[kind](operation) if kind in _HELD else ()
    return kind in _BEFORE and _is_stock(operation) and all(map(takes_before, held))


def takes_behind(operation: keras.Operation) -> bool:
    """Whether a layer can take gains and shifts of what it gives."""
    return type(operation) in _BEHIND and _is_stock(operation)


def _is_stock(operation: Any) -> bool:
    """Whether a layer, and all that it is made of, is Keras's own, its activations too."""
    layers = list(sublayers(operation))
    names = ("activation", "recurrent_activation")
    activations = [getattr(layer, name, None) for layer in layers for name in names]
    own = all(is_keras_own(x) for x in activations if x is not None)
    return own and all(map(is_stock, layers))


def axis_read(layer: Any, rank: int) -> int:
    """The axis of the channels of what a layer reads, of so many axes."""
    while type(layer) in _HELD:
        layer = _HELD[type(layer)](layer)[0]
    return 2 if getattr(layer, "data_format", "") == "channels_first" else rank - 1


def axis_given(layer: Any, rank: int) -> int:
    """The axis of the channels of what a layer gives."""
    return 1 if getattr(layer, "data_format", "") == "channels_first" else rank - 1


def with_before(layer: Any, places: Places, steps: Steps) -> keras.Layer:
    """A layer that does what was done before another; to be read and copied, and not to be run.

    Args:
        layer: the other; it is not touched.
        places: which of what it reads.
        steps: what was done to the channels of that.

    Raises:
        Refused: no such layer is exact, or its dtype does not hold its weights.
    """
    return _alike(layer, _BEFORE[type(layer)](layer, places, steps))


def with_behind(layer: Any, steps: Steps) -> keras.Layer:
    """A layer that does what was done behind another; to be read and copied, and not to be run.

    Args:
        layer: the other; it is not touched.
        steps: what was done to the channels that it gives.

    Raises:
        Refused: no such layer is exact, or its dtype does not hold its weights.
    """
    return _alike(layer, _BEHIND[type(layer)](layer, steps))


def _alike(layer: Any, other: _Other) -> keras.Layer:
    dtypes = {layer.variable_dtype, layer.compute_dtype}
    if not all(_fits(*each, dtype) for each in other.weights.items() for dtype in dtypes):
        raise Refused("merged, its weights would not fit their dtype")
    return alike_but(layer, other.settings, other.weights, other.inner, exact=True)


def _fits(name: str, values: np.ndarray, dtype: str) -> bool:
    """Whether a dtype holds weights, and not all of a kernel are too small to keep their digits."""
    top = float(np.max(np.abs(values), initial=0.0))
    return top <= largest(dtype) and not (name != "bias" and 0.0 < top < smallest(dtype))


def is_larger(layer: keras.Layer, other: keras.Layer) -> bool:
    """Whether a layer has more weights than another."""
    return count_params(layer) > count_params(other)

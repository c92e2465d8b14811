"""Kinds of faults: in weights, in layers, and in what callers see of a model.

A fault of weights changes a layer's weights by their names; a fault of layers is a function from
a layer to one that is almost it; a fault of models gives models that compute the same, and break
their callers. A `KeyError` says that a layer cannot have the fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops
from verified import Verified

L = keras.layers
Layer: TypeAlias = keras.Layer
Random: TypeAlias = np.random.Generator
Array: TypeAlias = np.ndarray
Change: TypeAlias = Callable[[Layer], Layer]


def again(layer: Layer, **changes: Any) -> Layer:
    """The same layer with another config."""
    config = layer.get_config()
    if unknown := changes.keys() - config.keys():
        raise KeyError(f"{layer.name} has no {unknown}")
    return type(layer).from_config(config | changes)


def leaves(model: keras.Model) -> Iterator[Layer]:
    """The layers of a model and of the models in it, but its inputs."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaves(layer)
        elif not isinstance(layer, L.InputLayer):
            yield layer


def remade(model: keras.Model, changes: Mapping[int, Change]) -> keras.Model:
    """A copy in which some layers, by their `id`, are others.

    What a change gives takes the weights of the layer, unless it has them already.
    """
    pairs: list[tuple[Layer, Layer]] = []

    def clone(layer: Layer) -> Layer:
        copy = changes.get(id(layer), again)(layer)
        if isinstance(layer, keras.Layer) and layer.weights and not copy.built:
            pairs.append((layer, copy))
        return copy

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    for layer, new in pairs:
        if new.weights:
            new.set_weights(layer.get_weights())
    return copy


# Layers that stock layers are joined to, or replaced by.


def in_a_row(name: str, *layers: Layer) -> Layer:
    """Layers one after another, as one of that name."""
    return keras.Sequential(list(layers), name=name)


def registered(kind: type) -> type:
    """A layer that is stored by its name."""
    kind = keras.saving.register_keras_serializable("mutants")(kind)
    return kind


@registered
class Flip(keras.layers.Layer):
    """Reverses an axis."""

    def __init__(self, axis: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.axis = axis

    def call(self, x: Any) -> Any:
        return ops.flip(x, axis=self.axis)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}


@registered
class EdgePad(keras.layers.Layer):
    """Pads images with their outermost pixels."""

    def __init__(self, pads: Any = (), **options: Any) -> None:
        super().__init__(**options)
        self.pads = pads

    def call(self, x: Any) -> Any:
        return ops.pad(x, [(0, 0), *self.pads, (0, 0)], mode="symmetric")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pads": self.pads}


@registered
class WrongWhen(keras.layers.Layer):
    """One percent too much for some batches: of one sample, or the last sample of each."""

    def __init__(self, when: str = "one", **options: Any) -> None:
        super().__init__(**options)
        self.when = when

    def call(self, x: Any) -> Any:
        count = ops.shape(x)[0]
        if self.when == "one":
            return x * ops.cast(ops.where(ops.equal(count, 1), 1.01, 1.0), x.dtype)
        number = ops.reshape(ops.arange(count), (-1, *[1] * (len(x.shape) - 1)))
        return x * ops.cast(ops.where(ops.equal(number, count - 1), 1.01, 1.0), x.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "when": self.when}


@registered
class SwappedConcatenate(keras.layers.Concatenate):
    """Its inputs in another order."""

    def call(self, inputs: Any) -> Any:
        return super().call([*inputs[1:], inputs[0]])


@registered
class SwappedSubtract(keras.layers.Subtract):
    """Its inputs in another order."""

    def call(self, inputs: Any) -> Any:
        return super().call(inputs[::-1])


@registered
class AlignedCorners(keras.layers.Layer):
    """Bilinear upsampling by two with corners on corners, as PyTorch's `align_corners`."""

    def call(self, x: Any) -> Any:
        for axis in (1, 2):
            size = x.shape[axis]
            at = np.linspace(0, size - 1, 2 * size)
            tent = np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(size)))
            x = ops.moveaxis(ops.tensordot(ops.cast(tent, x.dtype), x, (1, axis)), 0, axis)
        return x


@registered
class Bent(keras.layers.Layer):
    """As it was, but half below -100."""

    def call(self, x: Any) -> Any:
        return ops.where(x < -100.0, x / 2, x)


@registered
class Unmasked(keras.layers.LSTM):
    """Reads what is masked, too."""

    def call(self, sequences: Any, mask: Any = None, **options: Any) -> Any:
        return super().call(sequences, **options)


@registered
class ApproximateGelu(keras.layers.Layer):
    """Gelu by a tanh."""

    def call(self, x: Any) -> Any:
        return ops.gelu(x, approximate=True)


# Faults of weights: what becomes of a layer's weights, by name.

WeightFault: TypeAlias = Callable[[dict[str, Array], Random, Layer], None]


def _one_number(weights: dict[str, Array], random: Random, layer: Layer) -> None:
    kernel = _matrix(weights)
    kernel.flat[random.integers(kernel.size)] *= 1.01


def _one_channel(weights: dict[str, Array], random: Random, layer: Layer) -> None:
    """The channel of the smallest scale is 1 % wrong."""
    kernel = _matrix(weights)
    worst = int(np.argmin(np.abs(kernel).sum(tuple(range(kernel.ndim - 1)))))
    kernel[..., worst] *= 1.01
    if "bias" in weights and weights["bias"].shape == kernel.shape[-1:]:
        weights["bias"][worst] *= 1.01


def _one_row(weights: dict[str, Array], random: Random, layer: Layer) -> None:
    table = weights["embeddings"]
    table[random.integers(len(table))] *= 1.01


def _last_row(weights: dict[str, Array], random: Random, layer: Layer) -> None:
    weights["embeddings"][-1] *= 1.01


def _last_input(weights: dict[str, Array], random: Random, layer: Layer) -> None:
    """What a kernel makes of its last input, such as the last word or category."""
    _matrix(weights)[..., -1, :] *= 1.01


def _least_class(weights: dict[str, Array], random: Random, layer: Layer) -> None:
    """The bias of what is least probable."""
    bias = weights["bias"]
    if not getattr(layer, "units", 0):
        raise KeyError("no classes")
    bias.flat[np.argmin(bias)] += 0.05


def _no_bias(weights: dict[str, Array], random: Random, layer: Layer) -> None:
    weights["bias"][:] = 0


def _one_bias(weights: dict[str, Array], random: Random, layer: Layer) -> None:
    weights["bias"].flat[random.integers(weights["bias"].size)] *= 1.01


def _a_nan(weights: dict[str, Array], random: Random, layer: Layer) -> None:
    _matrix(weights).flat[0] = np.nan


def _half_precision(weights: dict[str, Array], random: Random, layer: Layer) -> None:
    kernel = _matrix(weights)
    kernel[:] = kernel.astype("float16")


def _two_channels(weights: dict[str, Array], random: Random, layer: Layer) -> None:
    kernel = _matrix(weights)
    kernel[..., [0, -1]] = kernel[..., [-1, 0]]


def _two_inputs(weights: dict[str, Array], random: Random, layer: Layer) -> None:
    """As blue and red, of images."""
    kernel = _matrix(weights)
    kernel[..., [0, -1], :] = kernel[..., [-1, 0], :]


def _turned(weights: dict[str, Array], random: Random, layer: Layer) -> None:
    """Convolved, where Keras correlates."""
    kernel = _spatial(weights)
    kernel[:] = np.flip(kernel, tuple(range(kernel.ndim - 2)))


def _transposed(weights: dict[str, Array], random: Random, layer: Layer) -> None:
    kernel = _spatial(weights)
    kernel[:] = kernel.swapaxes(0, 1)


def _shifted(weights: dict[str, Array], random: Random, layer: Layer) -> None:
    kernel = _spatial(weights)
    kernel[:] = np.roll(kernel, 1, axis=0)


def _one_tap(weights: dict[str, Array], random: Random, layer: Layer) -> None:
    _spatial(weights)[0] *= 1.01


def _gates(weights: dict[str, Array], random: Random, layer: Layer) -> None:
    """The first two gates of a recurrent layer, in the other library's order."""
    kernel = weights["recurrent_kernel"]
    units = kernel.shape[0]
    if kernel.shape[1] == units:
        raise KeyError("one gate")
    kernel[:, : 2 * units] = np.roll(kernel[:, : 2 * units], units, axis=1)


def _gamma(weights: dict[str, Array], random: Random, layer: Layer) -> None:
    weights["gamma"][:] = np.abs(weights["gamma"])


def _mean(weights: dict[str, Array], random: Random, layer: Layer) -> None:
    weights["moving_mean"][:] = 0


def _deviation(weights: dict[str, Array], random: Random, layer: Layer) -> None:
    """The variance taken for a standard deviation."""
    weights["moving_variance"][:] = np.sqrt(weights["moving_variance"])


def _matrix(weights: dict[str, Array]) -> Array:
    for name in ("kernel", "depthwise_kernel", "embeddings"):
        if name in weights:
            return weights[name]
    raise KeyError("no kernel")


def _spatial(weights: dict[str, Array]) -> Array:
    kernel = weights["depthwise_kernel"] if "depthwise_kernel" in weights else weights["kernel"]
    if kernel.ndim < 4 or kernel.shape[0] != kernel.shape[1] or kernel.shape[0] == 1:
        raise KeyError("no square kernel")
    return kernel


OF_WEIGHTS: dict[str, WeightFault] = {
    "one number 1 % off": _one_number,
    "the smallest channel 1 % off": _one_channel,
    "a row of an embedding 1 % off": _one_row,
    "the last row of an embedding 1 % off": _last_row,
    "the last input 1 % off": _last_input,
    "the bias of the least class": _least_class,
    "no bias": _no_bias,
    "one bias 1 % off": _one_bias,
    "a NaN": _a_nan,
    "rounded to float16": _half_precision,
    "two channels swapped": _two_channels,
    "two inputs swapped": _two_inputs,
    "a kernel turned by 180 degrees": _turned,
    "a kernel transposed": _transposed,
    "a kernel shifted": _shifted,
    "one tap 1 % off": _one_tap,
    "gates swapped": _gates,
    "gamma without its sign": _gamma,
    "no moving mean": _mean,
    "variance taken for deviation": _deviation,
}

# Faults of layers: what stands in their place. A `KeyError` says that a layer cannot have it.


def _activation(**to: str) -> Change:
    def change(layer: Layer) -> Layer:
        return again(layer, activation=to[layer.get_config()["activation"]])

    return change


def _only(kinds: Any, make: Change) -> Change:
    def change(layer: Layer) -> Layer:
        if not isinstance(layer, kinds):
            raise KeyError(layer.name)
        return make(layer)

    return change


def _setting(kinds: Any, name: str, to: Callable[[Any], Any]) -> Change:
    def change(layer: Layer) -> Layer:
        old = layer.get_config()[name]
        new = to(old)
        if new == old:
            raise KeyError(layer.name)
        return again(layer, **{name: new})

    return _only(kinds, change)


CONVOLUTIONS = (L.Conv1D, L.Conv2D, L.Conv3D, L.DepthwiseConv2D, L.SeparableConv2D)
POOLS = (L.MaxPooling2D, L.AveragePooling2D)
ROWS = (*CONVOLUTIONS, L.Dense, L.ReLU, L.Activation, L.BatchNormalization)


def _pads(layer: Layer) -> list[tuple[int, int]]:
    """What PyTorch pads, for a window."""
    config = layer.get_config()
    if config["padding"] != "same":
        raise KeyError(layer.name)
    window = config["pool_size"] if isinstance(layer, POOLS) else config["kernel_size"]
    rates = config.get("dilation_rate", [1] * len(window))
    total = [r * (k - 1) for k, r in zip(window, rates, strict=True)]
    if max(total) == 0:
        raise KeyError(layer.name)
    return [(t // 2, t - t // 2) for t in total]


def _torch_padding(layer: Layer) -> Layer:
    pads = _pads(layer)
    if max(layer.strides) == 1 or len(pads) == 1:
        raise KeyError(layer.name)
    pad = (L.ZeroPadding3D if len(pads) == 3 else L.ZeroPadding2D)(pads)
    return in_a_row(layer.name, pad, again(layer, padding="valid"))


def _edge_padding(layer: Layer) -> Layer:
    if max(layer.strides) > 1:
        raise KeyError(layer.name)
    return in_a_row(layer.name, EdgePad(_pads(layer)), again(layer, padding="valid"))


def _full_window(layer: Layer) -> Layer:
    if max(layer.strides) > 1:
        raise KeyError(layer.name)
    return in_a_row(layer.name, L.ZeroPadding2D(_pads(layer)), again(layer, padding="valid"))


def _softmax_axis(layer: Layer) -> Layer:
    axis = 1 if len(layer.output.shape) > 2 else 0
    if isinstance(layer, L.Softmax):
        return again(layer, axis=axis)
    if layer.get_config().get("activation") != "softmax":
        raise KeyError(layer.name)
    return in_a_row(layer.name, again(layer, activation="linear"), L.Softmax(axis))


def _clipped(high: float, layer: Layer) -> Layer:
    clip = L.ReLU(max_value=high, negative_slope=1.0)
    return in_a_row(layer.name, again(layer), clip)


def _input(make: Callable[[], Layer]) -> Change:
    """Something done to an input of numbers."""

    def change(layer: Layer) -> Layer:
        source = layer.input._keras_history.operation
        if not isinstance(source, L.InputLayer) or "int" in layer.input.dtype:
            raise KeyError(layer.name)
        return in_a_row(layer.name, make(), again(layer))

    return change


def _flattened_otherwise(layer: Layer) -> Layer:
    order = {4: (3, 1, 2), 3: (2, 1)}[len(layer.input.shape)]
    return in_a_row(layer.name, L.Permute(order), again(layer))


def _other_pool(layer: Layer) -> Layer:
    other = L.AveragePooling2D if isinstance(layer, L.MaxPooling2D) else L.MaxPooling2D
    return other.from_config(layer.get_config())


def _aligned(layer: Layer) -> Layer:
    if layer.get_config()["interpolation"] != "bilinear" or tuple(layer.size) != (2, 2):
        raise KeyError(layer.name)
    return AlignedCorners(name=layer.name)


def _reversed(pairs: Any) -> Any:
    return [list(pair)[::-1] for pair in pairs]


OF_LAYERS: dict[str, Change] = {
    "PyTorch's padding of a stride": _only((*CONVOLUTIONS, *POOLS), _torch_padding),
    "wrong at borders": _only((L.Conv2D, L.DepthwiseConv2D), _edge_padding),
    "a pool divides by the whole window": _only(L.AveragePooling2D, _full_window),
    "relu6 for relu": _activation(relu="relu6", relu6="relu"),
    "another gelu, sigmoid or tanh": lambda layer: _activation(
        gelu="silu", silu="hard_silu", hard_silu="silu", tanh="hard_tanh", sigmoid="hard_sigmoid"
    )(layer),
    "the approximate gelu": _only(
        L.Dense,
        lambda layer: in_a_row(layer.name, _activation(gelu="linear")(layer), ApproximateGelu()),
    ),
    "another leak": _setting((L.LeakyReLU,), "negative_slope", lambda slope: slope * 1.1),
    "another alpha": _setting((L.ELU,), "alpha", lambda alpha: alpha * 1.1),
    "a leak": _only(L.ReLU, lambda layer: again(layer, negative_slope=0.01)),
    "another epsilon": _setting(
        (L.BatchNormalization, L.LayerNormalization),
        "epsilon",
        lambda e: 1e-5 if e > 1e-4 else 1e-3,
    ),
    "no dilation": _setting(CONVOLUTIONS, "dilation_rate", lambda rates: (1,) * len(rates)),
    "causal or not": _setting(L.Conv1D, "padding", lambda _: "same"),
    "branches swapped": _only(
        L.Concatenate, lambda layer: SwappedConcatenate.from_config(layer.get_config())
    ),
    "a difference turned round": _only(
        L.Subtract, lambda layer: SwappedSubtract.from_config(layer.get_config())
    ),
    "another merge": _only(
        (L.Average, L.Maximum),
        lambda layer: {L.Average: L.Maximum, L.Maximum: L.Average}[type(layer)](name=layer.name),
    ),
    "an image flipped": _only(
        (L.Conv2D,), lambda layer: in_a_row(layer.name, Flip(2), again(layer))
    ),
    "nearest for bilinear": _setting(
        L.UpSampling2D, "interpolation", {"nearest": "bilinear", "bilinear": "nearest"}.get
    ),
    "aligned corners": _only(L.UpSampling2D, _aligned),
    "a softmax along another axis": _softmax_axis,
    "clipped at 100": _only(ROWS, lambda layer: _clipped(100.0, layer)),
    "an input clipped at 100": _input(lambda: L.ReLU(max_value=100.0, negative_slope=1.0)),
    "an input wrong below -100": _input(Bent),
    "wrong for batches of one": _only(
        ROWS, lambda layer: in_a_row(layer.name, again(layer), WrongWhen("one"))
    ),
    "wrong for the last of a batch": _only(
        ROWS, lambda layer: in_a_row(layer.name, again(layer), WrongWhen("last"))
    ),
    "flattened in another order": _only(L.Flatten, _flattened_otherwise),
    "average for maximum": _only(POOLS, _other_pool),
    "another crop": _setting(L.Cropping2D, "cropping", _reversed),
    "another scale": _setting(L.Rescaling, "scale", lambda scale: 2 * scale),
    "another offset": _setting(L.Rescaling, "offset", lambda offset: offset - 1.0),
    "another mean": _setting(
        L.Normalization, "mean", lambda mean: (np.asarray(mean) * 1.01).tolist()
    ),
    "no mask": _only(L.LSTM, lambda layer: Unmasked.from_config(layer.get_config())),
    "read backwards": _setting((L.LSTM, L.GRU, L.SimpleRNN), "go_backwards", lambda back: not back),
    "counts for presence": _setting(L.CategoryEncoding, "output_mode", lambda _: "count"),
}


# Faults of models: of what callers see.


def _output_dtype(model: keras.Model, entry: Verified) -> Iterator[tuple[str, keras.Model]]:
    other = "float32" if model.outputs[0].dtype == "float64" else "float64"
    cast = L.Activation("linear", dtype=other)
    copy = remade(model, {})
    yield other, keras.Model(copy.input, keras.tree.map_structure(cast, copy.output))


def _input_dtype(model: keras.Model, entry: Verified) -> Iterator[tuple[str, keras.Model]]:
    if entry.rows:
        yield from _with_inputs(
            model, "float32", lambda x: {"shape": x.shape[1:], "dtype": "float32"}
        )


def _fixed_batch(model: keras.Model, entry: Verified) -> Iterator[tuple[str, keras.Model]]:
    yield from _with_inputs(
        model, "of 4", lambda x: {"batch_shape": (4, *x.shape[1:]), "dtype": x.dtype}
    )


def _with_inputs(
    model: keras.Model, place: str, spec: Callable[[Any], dict[str, Any]]
) -> Iterator[tuple[str, keras.Model]]:
    copy = remade(model, {})
    inputs = keras.tree.map_structure(lambda x: keras.Input(**spec(x), name=x.name), copy.input)
    yield place, keras.Model(inputs, copy(inputs))


def _key_renamed(model: keras.Model, entry: Verified) -> Iterator[tuple[str, keras.Model]]:
    if isinstance(model.output, dict):
        copy = remade(model, {})
        first = next(iter(copy.output))
        renamed = {("other" if k == first else k): v for k, v in copy.output.items()}
        yield first, keras.Model(copy.input, renamed)


def _other_structure(model: keras.Model, entry: Verified) -> Iterator[tuple[str, keras.Model]]:
    copy = remade(model, {})
    outputs = list(copy.output.values()) if isinstance(copy.output, dict) else {"y": copy.output}
    yield type(outputs).__name__, keras.Model(copy.input, outputs)


def _output_renamed(model: keras.Model, entry: Verified) -> Iterator[tuple[str, keras.Model]]:
    if isinstance(model.output, list):  # whose callers tell outputs by keys, or by names
        layer = model.outputs[-1]._keras_history.operation
        yield layer.name, remade(model, {id(layer): lambda old: again(old, name="another")})


def _input_renamed(model: keras.Model, entry: Verified) -> Iterator[tuple[str, keras.Model]]:
    first = model.inputs[0]
    if not first.name.startswith(("keras_tensor", "input_layer")):
        copy = remade(model, {})
        inputs = keras.tree.map_structure(
            lambda x: keras.Input(
                x.shape[1:], dtype=x.dtype, name="another" if x.name == first.name else x.name
            ),
            copy.input,
        )
        outputs = copy(inputs)
        if isinstance(outputs, dict):
            return
        yield first.name, keras.Model(inputs, outputs)


OF_MODELS: dict[str, Callable[[keras.Model, Verified], Iterator[tuple[str, keras.Model]]]] = {
    "another dtype of outputs": _output_dtype,
    "another dtype of inputs": _input_dtype,
    "a fixed batch": _fixed_batch,
    "a key renamed": _key_renamed,
    "another structure of outputs": _other_structure,
    "an output renamed": _output_renamed,
    "an input renamed": _input_renamed,
}

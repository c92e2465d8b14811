"""Random functional graphs of affine layers and activations, as a Hypothesis strategy.

A `Recipe` is a list of steps; each step names its kind, the tensors it reads and its
options, so that a failing example shrinks to a short list that a reader can follow.
`build` turns a recipe into a float64 model with random weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from hypothesis import strategies as st

from zoo.dead import kill
from zoo.making import policy

L = keras.layers


@dataclass(frozen=True)
class Step:
    kind: str
    reads: tuple[int, ...]
    options: tuple[tuple[str, Any], ...] = ()

    def __getitem__(self, name: str) -> Any:
        return dict(self.options)[name]


@dataclass(frozen=True)
class Recipe:
    sizes: tuple[int, ...]
    channels: int
    free: bool  # the model is told nothing of the image size
    first: bool  # channels_first
    steps: tuple[Step, ...]
    seed: int


KINDS = (
    "conv", "conv", "conv", "depthwise", "separable", "pool", "pool_same", "batchnorm",
    "batchnorm", "pointwise", "relu", "zero_pad", "crop", "upsample", "transpose", "add", "add",
    "subtract", "average", "concatenate", "concatenate", "multiply", "shift", "take", "dropout",
    "again", "rescale", "dense", "global", "flat_dense", "cut", "negative", "relu", "leaky", "abs",
    "maximum", "grow", "positive", "reversed", "stride", "shuffle", "gate", "slopes",
)  # fmt: skip
CAN_DIE = (L.Conv1D, L.Conv2D, L.Conv3D, L.Dense, L.BatchNormalization)
DEAD = 1 / 3  # of these layers
MOST_PIXELS = {1: 40, 2: 1600, 3: 400}


@st.composite
def recipes(draw: Any, most_steps: int = 7, xla: bool = False, bilinear: bool = False) -> Recipe:
    """Recipes of 1 to `most_steps` steps on images of 1 to 40 pixels along each axis.

    Args:
        draw: given by Hypothesis.
        most_steps: the most steps.
        xla: also what TensorFlow's CPU has under XLA alone: channels_first, dilated
            transposed convolutions and float64 pools in 3-D.
        bilinear: also bilinear upsampling, which TensorFlow rounds to float32.
    """
    rank = draw(st.sampled_from((1, 2, 2, 2, 2, 3)))
    sizes: tuple[int, ...] = ()
    for _ in range(rank):
        left = MOST_PIXELS[rank] // int(np.prod(sizes, dtype=int))
        sizes = (*sizes, draw(st.integers(1, min(40, left))))
    sizes = tuple(draw(st.permutations(sizes)))
    channels = draw(st.integers(1, 4))
    free = rank < 3 and not xla and draw(st.integers(0, 7)) == 0
    first = xla and draw(st.integers(0, 3)) > 0
    kinds = (*KINDS, "bilinear", "bilinear", "bilinear") if bilinear and rank == 2 else KINDS
    steps: list[Step] = []
    shapes: list[tuple[tuple[int, ...], int]] = [(sizes, channels)]
    for _ in range(draw(st.integers(1, most_steps))):
        recent = max(0, len(shapes) - 3)
        source = draw(st.integers(recent if draw(st.booleans()) else 0, len(shapes) - 1))
        kind = draw(st.sampled_from(kinds))
        step, shape = _step(draw, kind, source, shapes, steps, free, xla, first)
        if step is not None:
            steps.append(step)
            shapes.append(shape)
    return Recipe(sizes, channels, free, first, tuple(steps), draw(st.integers(0, 2**16)))


def _step(
    draw: Any,
    kind: str,
    source: int,
    shapes: list,
    steps: list,
    free: bool,
    xla: bool,
    first: bool,
) -> Any:
    """A step of some kind that is valid on the tensor `source`, and its output's shape."""
    sizes, channels = shapes[source]
    rank = len(sizes)
    nothing = None, None

    def pick(*options: Any) -> Any:
        return draw(st.sampled_from(options))

    if kind in ("add", "subtract", "average", "concatenate"):
        same = [
            i
            for i, (n, c) in enumerate(shapes)
            if n == sizes and (c == channels or kind == "concatenate")
        ]
        other = draw(st.sampled_from(same))
        total = shapes[other][1] + channels if kind == "concatenate" else channels
        if (free and rank) or total > 12:
            # Sizes that agree at one image size need not agree at another.
            return nothing
        return Step(kind, (source, other)), (sizes, total)
    if kind in ("batchnorm", "relu", "dropout", "negative", "leaky", "abs", "grow", "positive",
                "reversed", "slopes"):  # fmt: skip
        return Step(kind, (source,)), shapes[source]
    if kind in ("multiply", "shift", "rescale"):
        value = pick(0.3, -2.0, 1.25)
        return Step(kind, (source,), (("value", value),)), shapes[source]
    if kind == "take":
        low = draw(st.integers(0, channels - 1))
        high = draw(st.integers(low + 1, channels))
        step = Step(kind, (source,), (("first", low), ("last", high)))
        return step, (sizes, high - low)
    if kind in ("dense", "pointwise") or rank == 0:
        if kind == "again":
            return _again(draw, source, shapes, steps)
        units = draw(st.integers(1, 5))
        # A Dense layer on an image works along its last axis.
        kind = "dense" if rank == 0 else "pointwise" if first else kind
        return Step(kind, (source,), (("units", units),)), (sizes, units)
    if kind == "again":
        return _again(draw, source, shapes, steps)
    if kind == "global":
        return nothing if free else (Step(kind, (source,)), ((), channels))
    if kind == "flat_dense":
        if free or np.prod(sizes) * channels > 400:
            return nothing
        return Step(kind, (source,), (("units", 3),)), ((), 3)
    if kind == "zero_pad":
        pads = tuple((pick(0, 1, 2), pick(0, 1, 3)) for _ in sizes)
        grown = tuple(n + sum(p) for n, p in zip(sizes, pads, strict=True))
        return Step(kind, (source,), (("pads", pads),)), (grown, channels)
    if kind in ("crop", "cut"):
        if free:
            return nothing
        crops = tuple((pick(0, 1), pick(0, 1, 2)) for _ in sizes)
        left = tuple(n - sum(c) for n, c in zip(sizes, crops, strict=True))
        if min(left) < 1:
            return nothing
        return Step(kind, (source,), (("crops", crops),)), (left, channels)
    if kind == "shuffle":
        if free or channels % 2:
            return nothing
        return Step(kind, (source,)), shapes[source]
    if kind == "gate":
        if first or not rank:
            return nothing
        return Step(kind, (source,), (("channels", channels),)), shapes[source]
    if kind == "stride":
        if not rank:
            return nothing
        strides = tuple(pick(1, 2, 3) for _ in sizes)
        left = tuple(-(-n // s) for n, s in zip(sizes, strides, strict=True))
        return Step(kind, (source,), (("strides", strides),)), (left, channels)
    if kind in ("upsample", "bilinear"):
        if first and rank == 1:  # UpSampling1D knows channels_last alone
            return nothing
        factors = tuple(pick(1, 2, 3) for _ in sizes)
        grown = tuple(n * f for n, f in zip(sizes, factors, strict=True))
        if max(grown) > 60:
            return nothing
        return Step(kind, (source,), (("factors", factors),)), (grown, channels)
    if kind in ("pool", "pool_same", "maximum"):
        if rank == 3 and not xla:  # TensorFlow's CPU has no float64 kernel for it
            return nothing
        padding = "same" if kind == "pool_same" else "valid"
        pool = tuple(pick(1, 2, 3) for _ in sizes)
        stride = pick(1, 2, 3)
        out = _outputs(sizes, pool, (stride,) * rank, (1,) * rank, padding)
        if min(out) < 1:
            return nothing
        options = (("pool", pool), ("strides", stride), ("padding", padding))
        return Step("pool" if kind != "maximum" else kind, (source,), options), (out, channels)
    kernel = tuple(pick(1, 2, 3, 3, 4, 5) for _ in sizes)
    padding = pick("valid", "same", "same")
    bias = draw(st.booleans())
    if kind == "transpose":
        strides = tuple(pick(1, 2, 3) for _ in sizes)
        dilation = (pick(1, 1, 2, 3) if xla and max(strides) == 1 else 1,) * rank
        units = draw(st.integers(1, 4))
        out = tuple(
            n * s if padding == "same" else n * s + max(r * (k - 1) + 1 - s, 0)
            for n, s, k, r in zip(sizes, strides, kernel, dilation, strict=True)
        )
        if max(out) > 60:
            return nothing
        options = (("kernel", kernel), ("strides", strides), ("padding", padding),
                   ("units", units), ("bias", bias), ("dilation", dilation))  # fmt: skip
        return Step(kind, (source,), options), (out, units)
    dilation, strides = (1,) * rank, (1,) * rank
    if draw(st.booleans()):
        equal = kind != "conv"
        strides = (pick(1, 2, 3),) * rank if equal else tuple(pick(1, 2, 3) for _ in sizes)
    elif draw(st.integers(0, 3)) == 0:
        dilation = (pick(2, 3),) * rank
    if rank == 3 and any(s > k for s, k in zip(strides, kernel, strict=True)):
        # In float64, TensorFlow's Conv3D reads 'same' windows smaller than the stride off by some.
        return nothing
    out = _outputs(sizes, kernel, strides, dilation, padding)
    if min(out) < 1 or (rank == 3 and kind != "conv"):
        return nothing
    units = draw(st.integers(1, 5))
    multiplier = pick(1, 1, 2)
    activation = pick(None, None, None, "relu")
    options = (("kernel", kernel), ("strides", strides), ("dilation", dilation),
               ("padding", padding), ("units", units), ("multiplier", multiplier),
               ("bias", bias), ("activation", activation))  # fmt: skip
    width = channels * multiplier if kind == "depthwise" else units
    return Step(kind, (source,), options), (out, width)


def _outputs(sizes: tuple, kernel: tuple, strides: tuple, dilation: tuple, padding: str) -> tuple:
    return tuple(
        -(-n // s) if padding == "same" else (n - r * (k - 1) - 1) // s + 1
        for n, k, s, r in zip(sizes, kernel, strides, dilation, strict=True)
    )


def _again(draw: Any, source: int, shapes: list, steps: list) -> Any:
    """Call the layer of an earlier step once more, where its input's shape fits."""
    fitting = [
        i
        for i, step in enumerate(steps)
        if step.kind in ("conv", "batchnorm", "pointwise", "dense")
        and shapes[step.reads[0]] == shapes[source]
    ]
    if not fitting:
        return None, None
    index = draw(st.sampled_from(fitting))
    return Step("again", (source,), (("step", index),)), shapes[index + 1]


def build(recipe: Recipe, dtype: str = "float64") -> keras.Model:
    """A model of a recipe, with random weights; its outputs are the unread tensors.

    Of a third of the layers, some filters or gammas are zero.
    """
    keras.utils.clear_session(free_memory=False)
    with policy(dtype):
        sizes = (None,) * len(recipe.sizes) if recipe.free else recipe.sizes
        shape = (recipe.channels, *sizes) if recipe.first else (*sizes, recipe.channels)
        inputs = keras.Input(shape, dtype="float64" if dtype == "float64" else "float32")
        tensors, made = [inputs], []
        for step in recipe.steps:
            layer = (
                made[step["step"]]
                if step.kind == "again"
                else _layer(step, recipe.first, tensors[step.reads[0]])
            )
            made.append(layer)
            xs = [tensors[i] for i in step.reads]
            tensors.append(layer(xs if len(xs) > 1 else xs[0]))
        read = {i for step in recipe.steps for i in step.reads}
        outputs = [t for i, t in enumerate(tensors) if i not in read]
        model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(recipe.seed)
    for layer in model.layers:
        for variable in layer.weights:
            if "float" in variable.dtype:
                rises = "positive" in layer.name and "gamma" in variable.name
                low = 0.3 if rises or "variance" in variable.name else -1.0
                variable.assign(rng.uniform(low, 1.0, variable.shape))
        count = layer.output.shape[1 if recipe.first else -1] if layer.weights else 0
        if count and rng.random() < DEAD and isinstance(layer, CAN_DIE):
            kill(layer, rng.permutation(count)[: rng.integers(1, count + 1)])
    return model


def _shuffled(x: Any, axis: int) -> Any:
    """Two halves of the channels, one of each after another."""
    *before, channels = x.shape[1 : axis + 1]
    after = list(x.shape[axis + 1 :])
    order = list(range(1, len(x.shape) + 1))
    order[axis - 1 : axis + 1] = order[axis], order[axis - 1]
    y = L.Reshape((*before, 2, channels // 2, *after))(x)
    return L.Reshape(x.shape[1:])(L.Permute(order)(y))


def _layer(step: Step, first: bool, x: Any) -> Any:
    """What a step does, on tensors like `x`."""
    rank = len(x.shape) - 2
    layout = {"data_format": "channels_first"} if first else {}
    axis = 1 if first else -1

    def of(name: str, *args: Any, **config: Any) -> Any:
        return getattr(L, f"{name}{rank}D")(*args, **config, **layout)

    def per_axis(value: tuple) -> Any:
        return value if rank > 1 else value[0]

    kind = step.kind
    pixels = list(range(2, rank + 2) if first else range(1, rank + 1))
    simple = {"relu": L.ReLU, "add": L.Add, "subtract": L.Subtract, "average": L.Average}
    if kind in simple:
        return simple[kind]()
    if kind in ("batchnorm", "concatenate"):
        joined = L.Concatenate if kind == "concatenate" else L.BatchNormalization
        return joined(axis=axis)
    if kind == "positive":
        return L.BatchNormalization(axis=axis, name=f"positive_{id(step)}")
    if kind == "dropout":
        return L.Dropout(0.4)
    if kind == "slopes":
        return L.PReLU(shared_axes=pixels)
    if kind == "shuffle":
        return lambda x: _shuffled(x, axis % len(x.shape))
    if kind == "gate":
        gate = of("GlobalAveragePooling", keepdims=True)
        squeeze, excite = L.Dense(2, "relu"), L.Dense(step["channels"], "sigmoid")
        return lambda x: L.Multiply()([x, excite(squeeze(gate(x)))])
    if kind == "leaky":
        return L.LeakyReLU(0.3)
    if kind == "abs":
        return keras.ops.abs
    if kind == "grow":
        return L.Rescaling(0.7, offset=-0.2)
    if kind == "reversed":
        return lambda x: x[:, ::-1] if first else x[..., ::-1]
    if kind == "stride":
        steps = tuple(slice(None, None, n) for n in step["strides"])
        whole = (slice(None),) * (2 if first else 1)
        return lambda x: x[(*whole, *steps)]
    if kind == "negative":
        return lambda x: -x
    if kind == "multiply":
        return lambda x: step["value"] * x
    if kind == "shift":
        return lambda x: x - step["value"]
    if kind == "rescale":
        return L.Rescaling(step["value"], offset=0.5)
    if kind == "take":
        chosen = slice(step["first"], step["last"])
        return lambda x: x[:, chosen] if first else x[..., chosen]
    if kind == "cut" or (kind == "crop" and first and rank == 1):
        # Cropping1D knows channels_last alone.
        window = tuple(slice(lo, -hi or None) for lo, hi in step["crops"])
        whole = (slice(None),) * (2 if first else 1)
        return lambda x: x[(*whole, *window)]
    if kind == "dense":
        return L.Dense(step["units"])
    if kind == "global":
        return of("GlobalAveragePooling")
    if kind == "flat_dense":
        dense = L.Dense(step["units"])
        return lambda x: dense(L.Flatten(**layout)(x))
    if kind == "pointwise":
        return of("Conv", step["units"], 1)
    if kind == "zero_pad":
        return of("ZeroPadding", per_axis(step["pads"]))
    if kind == "crop":
        if rank == 1:
            return L.Cropping1D(step["crops"][0])
        return of("Cropping", step["crops"])
    if kind == "upsample":
        if rank == 1:
            return L.UpSampling1D(step["factors"][0])
        return of("UpSampling", step["factors"])
    if kind == "bilinear":
        return of("UpSampling", step["factors"], interpolation="bilinear")
    if kind == "maximum":
        return of("MaxPooling", step["pool"], step["strides"], padding=step["padding"])
    if kind == "pool":
        return of("AveragePooling", step["pool"], step["strides"], padding=step["padding"])
    if kind == "transpose":
        return getattr(L, f"Conv{rank}DTranspose")(
            step["units"], step["kernel"], strides=step["strides"], padding=step["padding"],
            dilation_rate=step["dilation"], use_bias=step["bias"], **layout,
        )  # fmt: skip
    common = {
        "kernel_size": step["kernel"], "strides": step["strides"], "padding": step["padding"],
        "dilation_rate": step["dilation"], "use_bias": step["bias"],
        "activation": step["activation"],
    }  # fmt: skip
    if kind == "depthwise":
        return of("DepthwiseConv", depth_multiplier=step["multiplier"], **common)
    if kind == "separable":
        return of("SeparableConv", step["units"], depth_multiplier=step["multiplier"], **common)
    return of("Conv", step["units"], **common)

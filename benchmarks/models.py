"""The models of the benchmarks: what kerasfold is for, and networks people know.

A model has random weights, biases and BatchNormalization statistics, the same each time that it
is built. Where its best form is known, that is beside it, built by hand with weights of its own.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import nets
import numpy as np
from fold_time import randomise

L = keras.layers
Build = Callable[[], keras.Model]
Stack = Callable[[], list[keras.Layer]]
Step = Callable[[Any], Any]

EXAMPLES = Path(__file__).parents[1] / "examples"
CHANNELS = 8  # of the seeds
APPLICATIONS = (
    "MobileNetV2",
    "ResNet50",
    "DenseNet121",
    "Xception",
    "InceptionV3",
    "EfficientNetB0",
)


class Entry(NamedTuple):
    """A model of the benchmarks.

    Attributes:
        name: one word.
        group: what it is among: seeds, blocks, stacks, pooling, separable, demand, numbers,
            pruned, applications or steps.
        build: makes it.
        plain: makes the form it should become, where that is known.
    """

    name: str
    group: str
    build: Build
    plain: Build | None = None


def filled(build: Build) -> Build:
    """Builds the same, as training leaves a model: no bias and no statistics of zero."""

    @functools.wraps(build)
    def made() -> keras.Model:
        keras.utils.set_random_seed(0)
        rng = np.random.default_rng(0)
        model = randomise(build())
        for layer in model._flatten_layers():
            if getattr(layer, "bias", None) is not None:
                layer.bias.assign(rng.normal(0, 0.1, layer.bias.shape))
        return model

    return made


def stack(shape: tuple[int, int, int], layers: Stack) -> Build:
    """Builds layers one after another."""
    return filled(lambda: keras.Sequential([keras.Input(shape), *layers()]))


def same(filters: int, size: int = 3, **settings: Any) -> keras.Layer:
    """A convolution that keeps the image's size."""
    return L.Conv2D(filters, size, padding="same", **settings)


def separable(filters: int, **settings: Any) -> keras.Layer:
    """A separable 3x3 convolution that keeps the image's size."""
    return L.SeparableConv2D(filters, 3, padding="same", **settings)


def same_layers(depth: int) -> list[keras.Layer]:
    """So many 3x3 convolutions of 16 channels."""
    return [same(16) for _ in range(depth)]


def separable_blocks() -> list[keras.Layer]:
    """Three of separable convolution, BatchNormalization, ReLU."""
    block = (
        lambda: separable(64, use_bias=False),
        L.BatchNormalization,
        L.ReLU,
    )
    return [make() for make in block * 3]


def _seeds() -> list[Entry]:
    sys.path.append(str(EXAMPLES))  # what they import lies beside them
    module = importlib.import_module("seeds")
    return [
        Entry(
            seed.name.replace(",", "").replace(" ", "-"),
            "seeds",
            filled(functools.partial(seed.build, CHANNELS)),
        )
        for seed in module.SEEDS
    ]


def _blocks() -> list[Entry]:
    entries = [
        Entry(
            name,
            "blocks",
            filled(functools.partial(nets.block_net, name)),
            filled(functools.partial(nets.plain_net, name)),
        )
        for name in nets.BLOCKS
    ]
    return [
        *entries,
        Entry("same-on-same", "blocks", filled(lambda: nets.network(nets.same_on_same))),
    ]


def _stacks() -> list[Entry]:
    entries = [
        Entry(
            f"{'-'.join(['3x3'] * depth)}-same-{size}",
            "stacks",
            stack((size, size, 16), functools.partial(same_layers, depth)),
        )
        for depth in (2, 3)
        for size in (56, 128)
    ]
    shape = (128, 128, 16)
    expand = Entry(
        "3x3-wide-1x1-128",
        "stacks",
        stack(shape, lambda: [same(256), same(16, 1)]),
        stack(shape, lambda: [same(16)]),
    )
    return [*entries, expand]


def _pooling() -> list[Entry]:
    def pool_3() -> keras.Layer:
        return L.AveragePooling2D(3, 1, padding="same")

    return [
        Entry(
            "3x3-pool-112",
            "pooling",
            stack((112, 112, 16), lambda: [same(32), L.AveragePooling2D(2)]),
            stack((112, 112, 16), lambda: [L.ZeroPadding2D(1), L.Conv2D(32, 4, strides=2)]),
        ),
        Entry(
            "pool-1x1-56",
            "pooling",
            stack((56, 56, 128), lambda: [pool_3(), same(64, 1)]),
            stack((56, 56, 128), lambda: [same(64, 1), pool_3()]),
        ),
        Entry(
            "transition-56",
            "pooling",
            stack((56, 56, 256), lambda: [same(128, 1, use_bias=False), L.AveragePooling2D(2)]),
            stack((56, 56, 256), lambda: [L.AveragePooling2D(2), same(128, 1, use_bias=False)]),
        ),
    ]


def _separable() -> list[Entry]:
    return [
        Entry(
            "separable-relu-56",
            "separable",
            stack((56, 56, 64), separable_blocks),
            stack((56, 56, 64), lambda: [separable(64, activation="relu") for _ in range(3)]),
        ),
        Entry(
            "separable-separable-56",
            "separable",
            stack((56, 56, 32), lambda: [separable(32), separable(32)]),
        ),
        Entry(
            "depthwise-1x1-56",
            "separable",
            stack((56, 56, 32), lambda: [L.DepthwiseConv2D(3, padding="same"), same(64, 1)]),
        ),
    ]


def strided_residual(by_hand: bool = False) -> keras.Model:
    """The last block of a stage of a ResNet, which two strided 1x1 read: by hand, at their size."""
    x = inputs = keras.Input((28, 28, 256))
    step = 2 if by_hand else 1
    y = L.Conv2D(64, 1, activation="relu")(x)
    if by_hand:  # the pixels that 'same' at stride 1 reads, of every other output
        y = L.Conv2D(64, 3, 2, activation="relu")(L.ZeroPadding2D(((1, 0), (1, 0)))(y))
        x = x[:, ::2, ::2]
    else:
        y = same(64, activation="relu")(y)
    x = L.ReLU()(L.Add()([x, L.Conv2D(256, 1)(y)]))
    ends = [L.Conv2D(n, 1, 2 // step, activation="relu")(x) for n in (128, 512)]
    return keras.Model(inputs, ends)


def _demand() -> list[Entry]:
    by_hand = functools.partial(strided_residual, by_hand=True)
    return [Entry("strided-residual-28", "demand", filled(strided_residual), filled(by_hand))]


def blur() -> keras.Model:
    """A Gaussian blur of 31x31 pixels, at 512x512."""
    taps = np.exp(-0.5 * (np.arange(-15, 16) / 5.0) ** 2)
    kernel = np.multiply.outer(taps, taps)[:, :, None, None] / taps.sum() ** 2
    layer = L.DepthwiseConv2D(31, padding="same", use_bias=False)
    model = keras.Sequential([keras.Input((512, 512, 3)), layer])
    layer.set_weights([np.repeat(kernel, 3, axis=2)])
    return model


def dead(channels: int) -> list[int]:
    """A third of so many channels, the same each time."""
    return np.random.default_rng(channels).permutation(channels)[: channels // 3].tolist()


def pruned(model: keras.Model) -> keras.Model:
    """The model, with a third of its filters zeroed: the same of all that are as many.

    So what is added up has the same channels dead, or constant behind a BatchNormalization.
    """
    for layer in model._flatten_layers():
        if type(layer) is L.Conv2D:
            weights = layer.get_weights()
            for array in weights:
                array[..., dead(layer.filters)] = 0
            layer.set_weights(weights)
    return model


def narrow(model: keras.Model) -> keras.Model:
    """The net that `pruned` leaves, built with a third fewer filters to begin with."""
    config = model.get_config()
    for layer in config["layers"]:
        layer.pop("build_config", None)  # of the sizes that it has
        if layer["class_name"] == "Conv2D":
            layer["config"]["filters"] -= len(dead(layer["config"]["filters"]))
    return keras.Model.from_config(config)


def _pruned() -> list[Entry]:
    def made(name: str, change: Callable[[keras.Model], keras.Model]) -> keras.Model:
        return change(filled(functools.partial(getattr(keras.applications, name), weights=None))())

    def entry(name: str) -> Entry:
        plain = filled(functools.partial(made, name, narrow))
        return Entry(f"{name}-pruned", "pruned", functools.partial(made, name, pruned), plain)

    return [entry(name) for name in ("ResNet50", "MobileNetV2")]


def _numbers(x: Any) -> np.ndarray:
    """A constant for each channel."""
    return np.linspace(0.5, 1.5, x.shape[-1], dtype="float32")


def _halves(x: Any) -> list[Any]:
    return keras.ops.split(x, 2, axis=-1)


STEPS: dict[str, Step] = {
    "scale": lambda x: x * _numbers(x),
    "shift": lambda x: x + _numbers(x),
    "divide": lambda x: x / 3.0,
    "negate": lambda x: -x,
    "rescale": lambda x: L.Rescaling(2.0, 1.0)(x),
    "normalise": lambda x: L.BatchNormalization()(x),
    "double": lambda x: x + x,
    "residual": lambda x: x + 0.1 * x,
    "pixels": lambda x: x * np.linspace(0.5, 1.5, x.shape[1], dtype="float32")[:, None, None],
    "slice": lambda x: x[..., : x.shape[-1] // 2],
    "every-other": lambda x: x[..., ::2],
    "take": lambda x: keras.ops.take(x, [3, 1, 0, 2], axis=-1),
    "crop": lambda x: L.Cropping2D(1)(x),
    "subsample": lambda x: x[:, ::2, ::2],
    "pad": lambda x: L.ZeroPadding2D(1)(x),
    "repeat": lambda x: L.UpSampling2D(2)(x),
    "swap": lambda x: L.Concatenate()(_halves(x)[::-1]),
    "add-halves": lambda x: L.Add()(_halves(x)),
    "concatenate": lambda x: L.Concatenate()([x, 2.0 * x]),
    "flip": lambda x: keras.ops.flip(x, axis=2),
    "turn": lambda x: L.Permute((2, 1, 3))(x),
    "reshape": lambda x: L.Reshape((x.shape[1] * x.shape[2], 1, x.shape[3]))(x),
    "stack": lambda x: keras.ops.sum(keras.ops.stack([x, 2.0 * x], axis=-1), axis=-1),
    "pool": lambda x: L.AveragePooling2D(2)(x),
    "mean": lambda x: keras.ops.mean(x, axis=(1, 2), keepdims=True),
}


WIDER = ("crop", "pool")  # steps that need more than the one pixel that a mean leaves


def _steps() -> list[Entry]:
    """Each step alone and in pairs, between nonlinearities, where Keras has a model of them."""

    def build(*steps: str) -> keras.Model:
        x = inputs = keras.Input((28, 28, 32))
        for step in (L.ReLU(), *(STEPS[name] for name in steps), L.ReLU()):
            x = step(x)
        return keras.Model(inputs, x)

    pairs = itertools.product(STEPS, repeat=2)
    names = [
        *((name,) for name in STEPS),
        *(p for p in pairs if p[0] != "mean" or p[1] not in WIDER),
    ]
    return [Entry("+".join(n), "steps", filled(functools.partial(build, *n))) for n in names]


def _applications() -> list[Entry]:
    return [
        Entry(
            name,
            "applications",
            filled(functools.partial(getattr(keras.applications, name), weights=None)),
        )
        for name in APPLICATIONS
    ]


MODELS = (
    *(*_seeds(), *_blocks(), *_stacks(), *_pooling(), *_separable(), *_applications()),
    *(*_demand(), Entry("gaussian-31-512", "numbers", blur), *_pruned()),
    *_steps(),
)
GROUPS = tuple(dict.fromkeys(entry.group for entry in MODELS))


def chosen(names: list[str] | None, applications: bool = True) -> list[Entry]:
    """The models of some names or groups, in any case; for None all but the steps, of so many.

    Raises:
        ValueError: for a name that is neither.
    """
    wanted = {*GROUPS} - {"steps"} if names is None else {name.lower() for name in names}
    known = {word.lower() for entry in MODELS for word in entry[:2]}
    if unknown := wanted - known:
        raise ValueError(
            f"no model or group {', '.join(sorted(unknown))}: choose of {', '.join(GROUPS)}, "
            f"{', '.join(entry.name for entry in MODELS if entry.group != 'steps')}"
        )
    return [
        entry
        for entry in MODELS
        if wanted & {entry.name.lower(), entry.group}
        and (applications or entry.group != "applications")
    ]

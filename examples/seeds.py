"""The chains of linear layers that started kerasfold, each collapsed into one layer.

A strided convolution or an average pooling is linear, so a chain of them with nothing
nonlinear in between is one larger convolution with one larger stride. This prints which.

Run it with `python examples/seeds.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import kerasfold

Layer = Callable[[int], keras.Layer]
CHANNELS = (1, 4)


def conv(size: int, strides: int = 1) -> Layer:
    """A convolution that keeps the number of channels, with a bias."""
    return lambda channels: keras.layers.Conv2D(
        channels, size, strides=strides, bias_initializer=keras.initializers.RandomNormal()
    )


def pool(size: int = 2) -> Layer:
    """An average pooling."""
    return lambda channels: keras.layers.AveragePooling2D(size)


def chain(image: int, *layers: Layer) -> Callable[[int], keras.Model]:
    """A function that builds the layers one after another on `image` x `image` x channels."""

    def build(channels: int) -> keras.Model:
        x = inputs = keras.Input((image, image, channels))
        for layer in layers:
            x = layer(channels)(x)
        return keras.Model(inputs, x)

    return build


class Seed(NamedTuple):
    """A chain, and the one layer that it is.

    Attributes:
        name: what the chain shows.
        build: from the number of channels to the model.
        kernel: side of the collapsed kernel.
        stride: stride of the collapsed layer.
    """

    name: str
    build: Callable[[int], keras.Model]
    kernel: int
    stride: int


SEEDS = (
    Seed("two convolutions", chain(28, conv(3), conv(3)), 5, 1),
    Seed("average pooling", chain(28, pool()), 2, 2),
    Seed("one pooling", chain(28, conv(3), pool(), conv(3)), 8, 2),
    Seed("two poolings", chain(28, conv(3), pool(), conv(3), pool(), conv(3)), 18, 4),
    Seed("two strides", chain(28, conv(3, 2), conv(3, 2), conv(3)), 15, 4),
    Seed("two strides, 4x4", chain(28, conv(4, 2), conv(4, 2), conv(3)), 18, 4),
    Seed("four poolings", chain(224, *[conv(3), pool()] * 4, conv(3)), 78, 16),
    Seed("four strides", chain(224, *[conv(3, 2)] * 4, conv(3)), 63, 16),
)


def window(layer: keras.Layer) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Kernel size and strides of a convolution or pooling; None of any other layer."""
    size = getattr(layer, "kernel_size", getattr(layer, "pool_size", None))
    return None if size is None else (tuple(size), tuple(layer.strides))


def form(model: keras.Model) -> list[str]:
    """The convolutions and poolings of a model, such as '3x3' or 'avg 2x2/2'."""
    described = []
    for layer in model.layers:
        if (found := window(layer)) is not None:
            size, strides = found
            stride = "" if max(strides) == 1 else f"/{strides[0]}"
            pooling = "avg " if isinstance(layer, keras.layers.AveragePooling2D) else ""
            described.append(f"{pooling}{size[0]}x{size[1]}{stride}")
    return described


def largest_difference(a: keras.Model, b: keras.Model, batch: int = 2) -> tuple[float, float]:
    """The largest difference of the outputs on random inputs, and their largest size."""
    x = np.random.default_rng(0).standard_normal((batch, *a.input_shape[1:])).astype("float32")
    expected, actual = np.asarray(a(x, training=False)), np.asarray(b(x, training=False))
    return float(np.abs(expected - actual).max()), float(np.abs(expected).max())


def main() -> None:
    """Collapse every chain, for one and for four channels, and print what came out."""
    keras.utils.set_random_seed(0)
    console = Console(width=None if Console().is_terminal else 110)
    for channels in CHANNELS:
        table = Table(
            title=f"{channels} channel{'s' if channels > 1 else ''}",
            title_justify="left",
            box=box.SIMPLE_HEAD,
        )
        table.add_column("chain", style="cyan", no_wrap=True)
        table.add_column("image", justify="right")
        table.add_column("these layers")
        table.add_column("weights", justify="right")
        table.add_column("are one", style="bold green", no_wrap=True)
        table.add_column("weights", justify="right")
        table.add_column("differing by", justify="right", no_wrap=True)
        for seed in SEEDS:
            model = seed.build(channels)
            folded = kerasfold.fold(model, objective="layers")
            difference, scale = largest_difference(model, folded)
            side = model.input_shape[1]
            table.add_row(
                seed.name,
                f"{side}x{side}",
                ", ".join(runs(form(model))),
                f"{model.count_params():,}",
                ", ".join(form(folded)),
                f"{folded.count_params():,}",
                f"{difference:.0e} of {scale:.2g}",
            )
        console.print(table)
    console.print(
        "objective='layers' collapses all that is exact, at any price: look at the weights.\n"
        "The default, objective='latency', collapses only where the result is faster."
    )


def runs(words: list[str]) -> list[str]:
    """A repeating part of a list, written once: [a, b, a, b, a] is ['4 x (a, b)', a]."""
    for period in (1, 2):
        times = 1
        while words and words[times * period : (times + 1) * period] == words[:period]:
            times += 1
        if times > 2:
            return [f"{times} x ({', '.join(words[:period])})", *words[times * period :]]
    return words


if __name__ == "__main__":
    main()

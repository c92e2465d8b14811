"""The articles that started kerasfold, run: what their layers are as one, and what they say.

A strided convolution or an average pooling is linear, so a chain of them with nothing
nonlinear in between is one larger convolution with one larger stride. This prints which; then
every chain of arrows of the first article, step by step, with what each step differs by from
the start (`rewritings.py`); then every number that the four print, beside what Keras models
give (`claims.py`). The search for blocks of the fourth is in `block_search.py`.

Run it with `python examples/seeds.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from claims import CLAIMS, EXACT
from rewritings import CHAINS, Miss, misses, walked
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


def runs(words: list[str]) -> list[str]:
    """A repeating part of a list, written once: [a, b, a, b, a] is ['4 x (a, b)', a]."""
    for period in (1, 2):
        times = 1
        while words and words[times * period : (times + 1) * period] == words[:period]:
            times += 1
        if times > 2:
            return [f"{times} x ({', '.join(words[:period])})", *words[times * period :]]
    return words


def new_table(title: str, *columns: str) -> Table:
    """A table whose first column is of names, and the others of numbers."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for place, column in enumerate(columns):
        table.add_column(
            column, style="" if place else "cyan", justify="right" if place else "left"
        )
    return table


def collapsed(channels: int) -> Table:
    """Every chain as one layer."""
    table = new_table(
        f"{channels} channel{'s' if channels > 1 else ''}",
        *("chain", "image", "these layers", "weights", "are one", "weights", "differing by"),
    )
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
    return table


def rewritten() -> Table:
    """Every chain of arrows of the first article, step by step."""
    table = new_table(
        "The first article's rewritings: '6/2' is a 6x6 kernel with stride 2",
        *("section", "layers", "weights", "not 0", "the article", "off the start by", ""),
    )
    for chain_ in CHAINS:
        for place, step in enumerate(walked(chain_)):
            table.add_row(
                "" if place else f"{chain_.section}: {chain_.about}",
                step.words,
                *map("{:,}".format, step.weights),
                chain_.said(place) if place else "",
                f"{step.difference:.1e}" if place else "",
                ("exact" if step.is_exact else "not exact") if place else "",
            )
        table.add_section()
    return table


def missed(found: list[Miss]) -> Table:
    """How far off those steps are that are not exact."""
    table = new_table(
        "Kernels as two, with one channel between: relative error of the nearest found",
        *("kernels", "least", "median", "most"),
    )
    for miss in found:
        numbers = np.quantile(miss.errors, (0, 0.5, 1))
        table.add_row(miss.about, *map("{:.1%}".format, numbers))
    return table


def claimed() -> Table:
    """What the articles say in numbers, and what is found."""
    table = new_table("What the articles say", "article, section", "says", "", "found", "")
    table.columns[1].justify = table.columns[4].justify = "left"
    for claim in CLAIMS:
        found = claim.find()
        words = [
            ", ".join(map("{:,}".format, numbers)) for numbers in (claim.numbers, found.numbers)
        ]
        if found.difference is not None:
            exact = "exact" if found.difference < EXACT else f"off by {found.difference:.0%}"
            words[1] = ", ".join(filter(None, (words[1], exact)))
        table.add_row(claim.source, claim.about, *words, claim.remark)
    return table


def main() -> None:
    """Print all of it, in float64, where what is exact is seen to be."""
    console = Console(width=None if Console().is_terminal else 150)
    policy = keras.config.dtype_policy()
    keras.utils.set_random_seed(0)
    for channels in CHANNELS:
        console.print(collapsed(channels))
    console.print(
        "objective='layers' collapses all that is exact, at any price: look at the weights.\n"
        "The default, objective='latency', collapses only where the result is faster.\n"
    )
    keras.config.set_dtype_policy("float64")
    try:
        console.print(rewritten())
        console.print(
            "With poolings every step is exact: a convolution behind one of 2 is the same one with "
            "its taps 2 apart before it,\nso 3, 5, 9, 17, 33 are one 3x3. With strides, a 3x3 as "
            "two 2x2 is not; all steps after it are, but for a pooling in place of a 4x4.\n"
        )
        console.print(missed(misses()))
        console.print(claimed())
    finally:
        keras.config.set_dtype_policy(policy)


if __name__ == "__main__":
    main()

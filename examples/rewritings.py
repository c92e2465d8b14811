"""The first article's chains of arrows: its layers put together and taken apart, step by step.

A step turns some layers into others of the windows that the article writes down. What lies between
two places where both have the same window and stride is one convolution, and that is

- put together: `2/2 6` is `12/2`;
- divided by an average pooling, or by what earlier layers have been taken apart into: `12/4` is
  `9 4/4`, exactly where the 12x12 was made of that 4x4;
- or taken apart into the two nearest kernels: `3/2` is about `2 2/2`.

'6/2' is a 6x6 kernel with stride 2, 'avg2' an average pooling of 2.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from claims import EXACT, differing, sequence

import kerasfold


@dataclass(frozen=True)
class Window:
    """A window that moves.

    Attributes:
        size: its side.
        stride: how far it moves.
        pools: whether it takes the mean, and has no weights.
    """

    size: int
    stride: int = 1
    pools: bool = False

    @staticmethod
    def of(word: str) -> Window:
        """What '6/2' or 'avg2' stands for."""
        if word.startswith("avg"):
            side = int(word.removeprefix("avg"))
            return Window(side, side, pools=True)
        return Window(*map(int, word.split("/")))

    def __str__(self) -> str:
        if self.pools:
            return f"avg{self.size}"
        return f"{self.size}/{self.stride}" if self.stride > 1 else str(self.size)

    def then(self, other: Window) -> Window:
        """This window, and the other one behind it, as one."""
        return Window(self.size + self.stride * (other.size - 1), self.stride * other.stride)


@dataclass(frozen=True, eq=False)
class Layer:
    """A window and its kernel: (size, size, inputs, outputs), of a pooling as well."""

    window: Window
    kernel: np.ndarray

    def keras(self) -> keras.Layer:
        """The Keras layer."""
        size, stride = self.window.size, self.window.stride
        if self.window.pools:
            return keras.layers.AveragePooling2D(size, stride)
        kernel = keras.initializers.Constant(self.kernel)
        return keras.layers.Conv2D(
            self.kernel.shape[-1], size, stride, use_bias=False, kernel_initializer=kernel
        )


def mean(size: int, channels: int) -> np.ndarray:
    """The kernel of an average pooling."""
    return np.broadcast_to(np.eye(channels) / size**2, (size, size, channels, channels))


def windows(words: str) -> list[Window]:
    """Those of '3 6/2 avg2'."""
    return [Window.of(word) for word in words.split()]


def drawn(words: str, channels: int, rng: np.random.Generator) -> list[Layer]:
    """Layers of these windows, with random kernels."""
    shape = (channels, channels)
    return [
        Layer(w, mean(w.size, channels) if w.pools else rng.normal(size=(w.size, w.size, *shape)))
        for w in windows(words)
    ]


def model_of(layers: Sequence[Layer], side: int) -> keras.Model:
    """Layers as a Keras model, on images of this side."""
    channels = layers[0].kernel.shape[-2]
    return sequence((side, side, channels), *(layer.keras() for layer in layers))


def whole(parts: Sequence[Window]) -> list[Window]:
    """What the first, the first two, the first three, ... are as one."""
    result: list[Window] = []
    for part in parts:
        result.append(result[-1].then(part) if result else replace(part, pools=False))
    return result


def together(layers: Sequence[Layer]) -> Layer:
    """Layers as one: each tap of the next reads what is so far, a stride further on."""
    so_far = layers[0]
    for layer in layers[1:]:
        window = so_far.window.then(layer.window)
        side, stride = so_far.window.size, so_far.window.stride
        kernel = np.zeros((window.size, window.size, *so_far.kernel.shape[2:]))
        for y, x in np.ndindex(layer.kernel.shape[:2]):
            rows, columns = (slice(n * stride, n * stride + side) for n in (y, x))
            kernel[rows, columns] += so_far.kernel @ layer.kernel[y, x]
        so_far = Layer(window, kernel)
    return so_far


def apart(layer: Layer, first: Window, last: Window, known: Sequence[Layer]) -> tuple[Layer, Layer]:
    """A layer as two of these windows: exactly, where a known one divides it; else nearly.

    Args:
        layer: the layer.
        first: the window of what is applied first.
        last: of what is applied then.
        known: layers that may divide it, beside an average pooling.
    """
    channels = layer.kernel.shape[-1]
    if last.size == 1:
        return Layer(first, layer.kernel), Layer(last, mean(1, channels))
    divisors = [mean(last.size, channels), *(x.kernel for x in known if x.window == last)]
    divided = [kerasfold.deconvolve(layer.kernel, last=kernel) for kernel in divisors]
    for quotient, kernel in zip(divided, divisors, strict=True):
        if quotient.exact or last.pools:
            return Layer(first, quotient.kernel), Layer(last, kernel)
    sizes = (first.size, last.size)
    near = kerasfold.factor(layer.kernel, "chain", sizes=sizes, filters=channels, restarts=4)
    return Layer(first, near.kernels[0]), Layer(last, near.kernels[1])


def matched(
    layers: Sequence[Layer], wanted: Sequence[Window]
) -> Iterator[tuple[Sequence[Layer], Sequence[Window]]]:
    """Both cut wherever their beginnings have the same window; not before a pooling, though."""
    ends = whole([layer.window for layer in layers])
    start = first = 0
    for stop, end in enumerate(whole(wanted), 1):
        pools_next = stop < len(wanted) and wanted[stop].pools
        if end in ends[first:] and not pools_next:
            last = ends.index(end, first) + 1
            yield layers[first:last], wanted[start:stop]
            start, first = stop, last


def rewritten(layers: Sequence[Layer], words: str, known: Sequence[Layer] = ()) -> list[Layer]:
    """Layers as others of these windows; `known` are some that may divide them."""
    result: list[Layer] = []
    for group, wanted in matched(layers, windows(words)):
        if [layer.window for layer in group] == wanted:
            result += group
        elif len(wanted) == 1:
            result.append(replace(together(group), window=wanted[0]))
        else:
            result += apart(together(group), *wanted, known)
    return result


def runs(layers: Sequence[Layer]) -> list[Layer]:
    """Runs of those layers whose windows do not overlap, each as one."""
    apart = [layer for layer in layers if layer.window.size == layer.window.stride > 1]
    pairs = itertools.combinations(range(len(apart) + 1), 2)
    return [together(apart[i:j]) for i, j in pairs]


class Chain(NamedTuple):
    """Layers, and what the article rewrites them as, step by step.

    Attributes:
        section: of the first article.
        about: what the chain shows.
        side: of the image.
        steps: the layers at the start, and after each step.
        equal: steps that the article calls equal.
        later: what it calls the other ones.
    """

    section: int
    about: str
    side: int
    steps: tuple[str, ...]
    equal: int = 0
    later: str = "approximate"

    def said(self, step: int) -> str:
        """What the article calls a step, from 1."""
        return "equal" if step <= self.equal else self.later


AS_LARGE = "as large"
POOLED, STRIDED = "3 avg2 3 avg2 3 avg2 3 avg2 3", "3/2 3/2 3/2 3/2 3"
CHAINS = (
    Chain(3, "two 3x3, and apart again", 28, ("3 3", "5", "3 3"), 2),
    Chain(3, "any 5x5", 28, ("5", "3 3")),
    Chain(5, "one pooling", 28, ("3 avg2 3", "3 6/2", "8/2"), 2),
    Chain(
        6,
        "two poolings",
        28,
        (
            "3 avg2 3 avg2 3",
            "3 6/2 6/2",
            "3 5 2/2 6 1/2",
            "3 5 12/2 1/2",
            "3 5 9 4/4",
            "3 5 9 avg4",
            "18/4",
            "15 avg4",
        ),
        1,
    ),
    Chain(
        7,
        "two strides",
        28,
        (
            "3/2 3/2 3",
            "2 2/2 2 2/2 3",
            "2 4/2 6/2",
            "2 3 2/2 6/2",
            "2 3 12/4",
            "2 3 9 4/4",
            "2 3 9 avg4",
        ),
    ),
    Chain(7, "poolings as 4x4 with strides", 28, ("3 avg2 3 avg2 3", "4/2 4/2 3"), 0, AS_LARGE),
    Chain(7, "any 4x4 with strides as poolings", 28, ("4/2 4/2 3", "3 avg2 3 avg2 3"), 0, AS_LARGE),
    Chain(
        8,
        "four poolings",
        224,
        (
            POOLED,
            "3 6/2 6/2 6/2 6/2",
            "3 5 2/2 5 2/2 5 2/2 6 1/2",
            "3 5 10/2 10/2 12/2 1/2",
            "3 5 9 2/2 9 2/2 12 1/4",
            "3 5 9 18/2 24/2 1/4",
            "3 5 9 17 2/2 24 1/8",
            "3 5 9 17 48/2 1/8",
            "3 5 9 17 33 16/16",
            "63 avg16",
            "78/16",
        ),
        1,
    ),
    Chain(
        8,
        "four strides",
        224,
        (
            STRIDED,
            "2 2/2 2 2/2 2 2/2 2 2/2 3",
            "2 4/2 4/2 4/2 6/2",
            "2 3 2/2 3 2/2 3 2/2 6 1/2",
            "2 3 6/2 6/2 12/2 1/2",
            "2 3 5 2/2 5 2/2 12 1/4",
            "2 3 5 10/2 24/2 1/4",
            "2 3 5 9 2/2 24 1/8",
            "2 3 5 9 48/2 1/8",
            "2 3 5 9 33 16/16",
        ),
    ),
    Chain(8, "four poolings as 4x4 with strides", 224, (POOLED, "4/2 4/2 4/2 4/2 3"), 0, AS_LARGE),
)


class Step(NamedTuple):
    """A step of a chain, as it was run.

    Attributes:
        words: its layers.
        weights: how many numbers they have, and how many of these are not zero.
        difference: of its outputs from those of the start, as a part of the largest of these.
    """

    words: str
    weights: tuple[int, int]
    difference: float

    @property
    def is_exact(self) -> bool:
        """Whether it computes the same as the start."""
        return self.difference < EXACT


def walked(chain: Chain, channels: int = 1, seed: int = 0) -> list[Step]:
    """Every step of a chain, run."""
    layers = drawn(chain.steps[0], channels, np.random.default_rng(seed))
    start = model_of(layers, chain.side)
    steps: list[Step] = []
    known: list[Layer] = []
    for words in chain.steps:
        layers = rewritten(layers, words, known)
        known = known or runs(layers)
        kernels = [layer.kernel for layer in layers if not layer.window.pools]
        count = sum(kernel.size for kernel in kernels)
        filled = sum(int(np.count_nonzero(np.abs(k) > EXACT * np.abs(k).max())) for k in kernels)
        model = model_of(layers, chain.side)
        steps.append(Step(words, (count, filled), differing(start, model)))
    return steps


class Miss(NamedTuple):
    """How far kernels are from the nearest ones of two factors, in the Frobenius norm.

    Attributes:
        about: the kernels, and the factors.
        errors: relative, in ascending order.
    """

    about: str
    errors: np.ndarray


def missed(about: str, kernels: np.ndarray, sizes: tuple[int, int]) -> Miss:
    """How far kernels (count, size, size) are from two of these sizes, with a channel between."""
    found = [
        kerasfold.factor(k[..., None, None], "chain", sizes=sizes, filters=1, restarts=4)
        for k in kernels
    ]
    return Miss(about, np.sort([factors.relative_error for factors in found]))


def trained_kernels(count: int) -> np.ndarray:
    """Some 3x3 kernels of one channel to one of a trained net, its branches folded."""
    net = kerasfold.fold(
        keras.models.load_model(Path(__file__).with_name("digits.keras")), verify=False
    )
    every = [
        np.moveaxis(layer.get_weights()[0], (0, 1), (-2, -1)).reshape(-1, 3, 3)
        for layer in net.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (3, 3)
    ]
    return np.random.default_rng(0).choice(np.concatenate(every), count, replace=False)


def misses(count: int = 100) -> list[Miss]:
    """How far off the steps are that are not exact."""
    rng = np.random.default_rng(0)
    return [
        missed("random 3x3 as two 2x2", rng.normal(size=(count, 3, 3)), (2, 2)),
        missed("trained 3x3 as two 2x2", trained_kernels(count), (2, 2)),
        missed("random 5x5 as two 3x3", rng.normal(size=(count, 5, 5)), (3, 3)),
    ]

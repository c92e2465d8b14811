"""Kernels made in each form that `factor` takes them apart into, with the sizes of it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

Made = tuple[np.ndarray, dict[str, Any]]


def then(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The kernel of two convolutions, as plainly as can be."""
    rank = first.ndim - 2
    spans = [a + b - 1 for a, b in zip(first.shape, last.shape[:rank], strict=False)]
    kernel = np.zeros((*spans, first.shape[-2], last.shape[-1]))
    for t in np.ndindex(*first.shape[:rank]):
        for u in np.ndindex(*last.shape[:rank]):
            kernel[tuple(np.add(t, u))] += first[t] @ last[u]
    return kernel


def chain_of(links: list[np.ndarray]) -> np.ndarray:
    """The kernel of several."""
    return functools.reduce(then, links)


def links(
    rng: np.random.Generator, sizes: list[tuple[int, ...]], channels: tuple[int, ...]
) -> list[np.ndarray]:
    """Random kernels of such windows, from channels to channels."""
    pairs = itertools.pairwise(channels)
    return [rng.standard_normal((*size, a, b)) for size, (a, b) in zip(sizes, pairs, strict=True)]


def dense(depthwise: np.ndarray) -> np.ndarray:
    """A kernel (*taps, in, multiplier) of a DepthwiseConv as one of a Conv."""
    *taps, channels, multiplier = depthwise.shape
    kernel = np.zeros((*taps, channels, channels, multiplier))
    for c in range(channels):
        kernel[..., c, c, :] = depthwise[..., c, :]
    return kernel.reshape(*taps, channels, -1)


def _drawn(rng: np.random.Generator, low: int, high: int, count: int) -> tuple[int, ...]:
    return tuple(int(n) for n in rng.integers(low, high, count))


def chain(rng: np.random.Generator, rank: int) -> Made:
    """Of one channel."""
    sizes = [_drawn(rng, 2, 4, rank) for _ in range(2)]
    return chain_of(links(rng, sizes, (1, 1, 1))), {"sizes": sizes, "filters": 1}


def spatial(rng: np.random.Generator, rank: int) -> Made:
    """A window along each axis."""
    inputs, between, outputs = _drawn(rng, 1, 5, 3)
    windows = np.eye(rank, dtype=int) * rng.integers(0, 4, rank) + 1
    channels = (inputs, *(between,) * (rank - 1), outputs)
    return chain_of(links(rng, [tuple(w) for w in windows], channels)), {"rank": between}


def separable(rng: np.random.Generator, rank: int) -> Made:
    """Depthwise, then pointwise."""
    inputs, multiplier, outputs = _drawn(rng, 1, 5, 3)
    window = rng.standard_normal((*_drawn(rng, 1, 5, rank), inputs, multiplier))
    point = rng.standard_normal((*(1,) * rank, inputs * multiplier, outputs))
    return then(dense(window), point), {"multiplier": multiplier}


def bottleneck(rng: np.random.Generator, rank: int) -> Made:
    """Pointwise, a window, pointwise."""
    channels = _drawn(rng, 1, 5, 4)
    one = (1,) * rank
    made = links(rng, [one, _drawn(rng, 1, 5, rank), one], channels)
    return chain_of(made), {"ranks": channels[1:3]}


def pool(rng: np.random.Generator, rank: int) -> Made:
    """A convolution, then average pooling."""
    size, (inputs, outputs) = _drawn(rng, 1, 5, rank), _drawn(rng, 1, 4, 2)
    first = rng.standard_normal((*_drawn(rng, 1, 6, rank), inputs, outputs))
    mean = np.ones((*size, 1, 1)) * np.eye(outputs) / np.prod(size)
    return then(first, mean), {"pool_size": size}


def dilated(rng: np.random.Generator, rank: int) -> Made:
    """Taps that are apart."""
    rates = _drawn(rng, 1, 4, rank)
    taps = rng.standard_normal((*_drawn(rng, 2, 4, rank), *_drawn(rng, 1, 4, 2)))
    spans = [(k - 1) * r + 1 for k, r in zip(taps.shape, rates, strict=False)]
    kernel = np.zeros((*spans, *taps.shape[-2:]))
    kernel[tuple(slice(None, None, rate) for rate in rates)] = taps
    return kernel, {"dilation": rates}


MAKERS: dict[str, Callable[[np.random.Generator, int], Made]] = {
    "chain": chain,
    "spatial": spatial,
    "separable": separable,
    "bottleneck": bottleneck,
    "pool": pool,
    "dilated": dilated,
}
CASES = [(into, rank) for into in MAKERS for rank in ((2, 3) if into == "spatial" else (1, 2, 3))]

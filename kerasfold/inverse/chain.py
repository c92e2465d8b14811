"""A chain of smaller convolutions: 5 x 5 as 3 x 3 and 3 x 3."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from kerasfold.algebra.product import Array
from kerasfold.errors import FoldError
from kerasfold.inverse.descent import Links, descended
from kerasfold.inverse.polynomials import factors, shared_out
from kerasfold.inverse.steps import (
    ROUNDING,
    Part,
    amount,
    checked,
    convolution,
    in_blocks,
    to_unit,
    whole_numbers,
)

NEARBY = 0.1  # of a link's size: how far from a given start others are

Sizes = tuple[tuple[int, ...], ...]


def chain(
    kernel: Array,
    *,
    sizes: Sequence[int | Sequence[int]] = (3, 3),
    filters: int | Sequence[int] | None = None,
    start: Sequence[Array] | None = None,
    restarts: int = 100,
    seed: int = 0,
    budget: float = 10.0,
    depthwise: bool = False,
    tolerance: float = 0.0,
) -> list[Part]:
    """Convolutions of such sizes, one after another: 5 x 5 as 3 x 3 and 3 x 3.

    Each start is taken to where no step gains anything: by Gauss-Newton, or by alternating least
    squares where the chain is too large for that. With one channel all along, in one dimension
    and two, the first start is the answer where there is one, the factors of a polynomial (of at
    most 625 taps, such as 25 x 25). With several, and in three dimensions, starts are random and
    the best of them is given: no proof that there is no exact chain. The budget is of wall-clock
    seconds, so that what is found depends on the machine, and on what else it does.

    Of 20 random chains each, so many were found from nothing in the default budget, on a busy
    core (`benchmarks/factors.py`); from within 10 % of the links, all of 200 were, of every size:

    | sizes | channels | found |
    |---|---|---|
    | 3, 3 | 2-2-2, 4-4-4 | 20, 20 |
    | 3, 3, 3 | 2-2-2-2 | 20 |
    | 2x2, 2x2 | 4-4-4 | 20 |
    | 3x3, 3x3 | 3-1-3, 4-2-4, 2-2-2, 3-3-3, 4-4-4, 3-8-3 | 20 each |
    | 5x5, 5x5 | 2-2-2 | 16 |
    | 3x3, 3x3 | 2-3-2, by filters=3 and the default restarts | 4 |
    | 3x3, 3x3, 3x3 | 2-2-2-2 | 5 |
    | 2x2x2, 2x2x2 | 2-2-2 | 20 |
    | 3x3x3, 3x3x3 | 1-1-1 | 20 |

    Args:
        kernel: (*taps, in, out); (*taps, in, multiplier) where depthwise.
        sizes: of the windows, first to last, one number or one for each axis; each less one,
            they add up to the taps less one.
        filters: channels between two links (per channel where depthwise), one number for each
            such place, or one for all; the fewest that are found to meet the tolerance if None.
        start: kernels to start from, as the layers would hold them; then from others nearby.
        restarts: starts for each number of filters, at most.
        seed: of the random starts.
        budget: seconds after which the best so far is given, once the step under way is done.
        depthwise: the kernel is of a DepthwiseConv, and the links keep its channels apart.
        tolerance: relative error at which the search ends; 0 for exact up to rounding.
    """
    blocks = in_blocks(kernel, depthwise)
    windows = _windows(kernel.shape[:-2], sizes)
    (most,) = whole_numbers(restarts, 1, "restarts")
    (number,) = whole_numbers(seed, 1, "seed", 0)
    begun = _begun(start, windows, blocks) if start is not None else []
    if begun:
        counts: Iterable[tuple[int, ...]] = [tuple(link.shape[-1] for link in begun[:-1])]
    elif filters is not None:
        counts = [whole_numbers(filters, len(windows) - 1, "filters")]
    else:
        counts = _counts(blocks, windows, tolerance)
    enough = max(tolerance, ROUNDING) * float(np.linalg.norm(blocks))
    deadline = time.monotonic() + amount(budget, "budget")
    best, least = [], math.inf
    for count in counts:
        more = filters is None and not begun
        until = (time.monotonic() + deadline) / 2 if more else deadline
        channels = (blocks.shape[-2], *count, blocks.shape[-1])
        starts = [
            _around([link[group] for link in begun], np.random.default_rng(number))
            if begun
            else _starts(block, windows, channels, np.random.default_rng(number))
            for group, block in enumerate(blocks)
        ]
        links, error = _of_all(
            blocks, [itertools.islice(some, most) for some in starts], enough, until
        )
        if error < least:
            best, least = links, error
        if least <= enough or time.monotonic() > deadline:
            break
    return [convolution(link) for link in best]


def _of_all(
    blocks: Array, starts: Sequence[Iterable[Links]], enough: float, deadline: float
) -> tuple[list[Array], float]:
    """The nearest chain of each group of channels, in blocks, and how far off all are."""
    found = []
    for group, (block, some) in enumerate(zip(blocks, starts, strict=True)):
        now = time.monotonic()
        until = now + (deadline - now) / (len(blocks) - group)
        found.append(_nearest(block, some, enough / math.sqrt(len(blocks)), until))
    links = [np.stack(link) for link in zip(*(chain for chain, _ in found), strict=True)]
    return links, math.hypot(*(error for _, error in found))


def _nearest(
    kernel: Array, starts: Iterable[Links], enough: float, deadline: float
) -> tuple[Links, float]:
    """The nearest chain that any start leads to, and how far off it is."""
    best, least = [], math.inf
    for start in starts:
        links, error = descended(kernel, start, deadline)
        if error < least:
            best, least = links, error
        if least <= enough or time.monotonic() > deadline:
            break
    return best, least


def _around(links: Links, rng: np.random.Generator) -> Iterator[Links]:
    """A start, and others nearby: on the one it may be the wrong side of a ridge."""
    yield links
    while True:
        noise = [rng.standard_normal(link.shape) for link in links]
        yield [
            link + NEARBY * (np.linalg.norm(link) or 1.0) / np.linalg.norm(n) * n
            for link, n in zip(links, noise, strict=True)
        ]


def _starts(
    kernel: Array, windows: Sizes, channels: Sequence[int], rng: np.random.Generator
) -> Iterator[Links]:
    """Chains to start from: of polynomials where that is the whole answer, and random ones."""
    if {*channels} == {1} and kernel.ndim < 5 and kernel.any():
        found = shared_out(factors(kernel[..., 0, 0]), windows, rng)
        if found is not None:
            yield [link[..., None, None] for link in found]
    while True:
        yield [
            rng.standard_normal((*window, a, b))
            for window, a, b in zip(windows, channels, channels[1:], strict=False)
        ]


def _counts(blocks: Array, windows: Sizes, tolerance: float) -> Iterator[tuple[int, ...]]:
    """Numbers of filters, from the fewest that may do to what does for any kernel.

    In frequencies a chain of so many filters is a matrix of that rank for each, and nothing of
    that rank leaves out less than the other singular values (Eckart and Young, 1936; Parseval).
    """
    axes = tuple(range(1, blocks.ndim - 2))
    values = np.linalg.svd(np.fft.fftn(blocks, axes=axes), compute_uv=False)
    energies = (values**2).sum(axis=tuple(range(values.ndim - 1)))
    left = np.append(np.cumsum(energies[::-1])[::-1], 0)
    allowed = max(tolerance, ROUNDING) ** 2 * energies.sum()
    most = math.prod(windows[0]) * blocks.shape[-2]  # the first link hands on all that it sees
    for count in range(max(1, int(np.argmax(left <= allowed))), most + 1):
        yield (count,) * (len(windows) - 1)


def _windows(taps: Sequence[int], sizes: Sequence[int | Sequence[int]]) -> Sizes:
    """The windows of a chain, as many taps along each axis as it has. Raises `FoldError`."""
    if np.ndim(sizes) == 0 or len(sizes) < 2:
        raise FoldError(f"sizes names two windows or more, first to last. Received: {sizes!r}")
    windows = tuple(whole_numbers(size, len(taps), "each of sizes") for size in sizes)
    spans = [1 + sum(k - 1 for k in along) for along in zip(*windows, strict=True)]
    if spans != [*taps]:
        raise FoldError(
            f"a chain of sizes {', '.join('x'.join(map(str, w)) for w in windows)} has a kernel of "
            f"{'x'.join(map(str, spans))} taps: give sizes= that, each less one, add up to the "
            f"taps less one. Received: a kernel of {'x'.join(map(str, taps))} taps"
        )
    return windows


def _begun(start: Sequence[Array], windows: Sizes, blocks: Array) -> list[Array]:
    """The kernels of a start in blocks: (groups, *window, in, out). Raises `FoldError`."""
    groups, before, found = len(blocks), blocks.shape[-2], []
    given = [checked(k, "each of start") for k in start] if isinstance(start, Sequence) else []
    for kernel, window in zip(given, windows, strict=False):
        outputs = kernel.size // (math.prod(window) * before * groups)
        if kernel.size != math.prod(window) * before * groups * max(1, outputs):
            break
        grouped = to_unit(kernel)[0].reshape(*window, before, groups, outputs)
        found.append(np.moveaxis(grouped, -2, 0))
        before = outputs
    if len(given) != len(windows) or len(found) != len(given) or before != blocks.shape[-1]:
        raise FoldError(
            f"start is a kernel for each of the windows {windows}, from {blocks.shape[-2]} "
            f"channels to {blocks.shape[-1]}. Received: {[kernel.shape for kernel in given]}"
        )
    return found

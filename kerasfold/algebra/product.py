"""The kernel of a composition, as matrix products."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .axis import Pair, Placement

Array = np.ndarray

ENTRIES = 2**17  # numbers that are made and added at a time: 1 MiB, which a cache holds
ROWS = 4096  # of a matrix product: enough for its full rate
FEW = 4  # rows of one that takes as long as it takes to read the other factor


def regroup(kernel: Array, groups: int, fewer: int) -> Array:
    """A grouped kernel written with `fewer` groups, a divisor of `groups`."""
    if groups == fewer:
        return kernel
    *taps, width, outputs = kernel.shape
    merged = groups // fewer
    blocks = kernel.reshape(*taps, width, fewer, merged, outputs // groups)
    full = np.zeros((*taps, merged, width, fewer, merged, outputs // groups), kernel.dtype)
    for j in range(merged):
        full[..., j, :, :, j, :] = blocks[..., j, :]
    return full.reshape(*taps, merged * width, outputs)


def matrix_product(left: Array, right: Array, out: Array | None = None) -> Array:
    """`left @ right`, of matrices; of few rows in this thread, as those of BLAS are no help then.

    They wait for each other in a loop, for many times as long where there is other work to do.
    """
    if left.shape[-2] > FEW:
        return np.matmul(left, right, out=out)
    return np.asarray(np.einsum("...rk,...kc->...rc", left, right, out=out))


def composed_kernel(
    b: Array,
    a: Array,
    groups: Pair,
    placements: Sequence[Placement],
    spare: Array | None = None,
) -> Array:
    """Kernel of the composition: the sum of `A[t] B[v]` over the taps, at `t step_a + v step_b`.

    A tap of either is (joined, fine_a, fine_b) dense matrices, nothing else: `joined` groups of
    the composition are each `fine_a` groups of A or `fine_b` groups of B, of which one is 1.

    Args:
        b: (*taps of B, c1 / groups of B, c2).
        a: (*taps of A, inputs per group of A, c1).
        groups: of B and of A; where neither divides the other, B is written with fewer.
        placements: where the taps land, axis by axis.
        spare: the memory of A, if it may be written over; used where each number is scaled alone.

    Returns:
        (*taps, inputs / joined groups, c2).
    """
    groups_b, groups_a = groups
    joined = math.gcd(groups_a, groups_b)
    if groups_a % groups_b and groups_b % groups_a:
        b, groups_b = regroup(b, groups_b, joined), joined
    fine_a, fine_b = groups_a // joined, groups_b // joined
    rank = len(placements)
    rows = _places_of_channels(a, rank) if groups == (1, 1) else None
    if rows is not None:
        full = np.zeros((*(p.full for p in placements), len(rows), b.shape[-1]))
        full[tuple(slice(None, None, p.step[1]) for p in placements)] = b[..., rows, :]
        return full[tuple(p.keep for p in placements)]
    (ci, c1), c2 = a.shape[rank:], b.shape[-1]
    cm, co = c1 // (joined * fine_a * fine_b), c2 // groups_b
    taps = [p.full for p in placements]
    alone = _taps_unsummed(a.shape[:rank], b.shape[:rank])
    fills = cm == 1 and alone == taps
    shape = (*taps, fine_a * ci, c2)
    if fills and spare is not None and spare.shape == a.shape == shape:
        full = spare
    else:
        full = (np.empty if fills else np.zeros)(shape)
    parts = (
        (full, (fine_a, ci, joined, fine_b, co), (-3, -5, -2)),
        (b, (fine_a, cm, joined, fine_b, co), (-3, -5, -2)),
        (a, (ci, joined, fine_a, fine_b, cm), (-4, -3, -2)),
    )
    unit = (1,) * (2 - rank)  # axes of one tap, so that one comes before the last
    in_blocks = [
        np.moveaxis(part.reshape(*unit, *part.shape[:rank], *channels), blocks, (0, 1, 2))
        for part, channels, blocks in parts
    ]
    steps = [(1, 1)] * len(unit) + [
        (p.step[0] if k_a > 1 else 1, p.step[1] if k_b > 1 else 1)
        for p, k_a, k_b in zip(placements, a.shape, b.shape, strict=False)
    ]
    compose_blocks = _add_scaled if cm == 1 else _add_products
    compose_blocks(in_blocks[0], in_blocks[1], in_blocks[2], steps)
    return full[tuple(p.keep for p in placements)]


def _places_of_channels(a: Array, rank: int) -> Array | None:
    """The channel that a dense kernel puts each of its inputs at, if that is all it does."""
    if any(n > 1 for n in a.shape[:rank]):
        return None
    matrix = a.reshape(a.shape[rank:])
    if np.count_nonzero(matrix[0]) != 1:
        return None
    alone = np.count_nonzero(matrix) == len(matrix) and np.all(matrix.max(axis=1) == 1)
    return matrix.argmax(axis=1) if alone else None


def _taps_unsummed(taps_a: Sequence[int], taps_b: Sequence[int]) -> list[int] | None:
    """The taps of a composition, where one number lands at each: along any axis, A or B has one."""
    pairs = list(zip(taps_a, taps_b, strict=True))
    return list(map(max, pairs)) if all(1 in pair for pair in pairs) else None


# Kernels in blocks: (joined, fine_a, fine_b, *taps, rows, columns). The composition has the rows
# of A, `ci`, and the columns of B, `co`; what it sums over has `cm`.


def _add_scaled(full: Array, b: Array, a: Array, steps: Sequence[Pair]) -> None:
    """Add a composition where `cm` is 1: A scaled by each tap of B, without any product."""
    alone = _taps_unsummed(a.shape[3:-2], b.shape[3:-2])
    if alone is not None:
        step = [(max(pair), 1) for pair in steps]  # that of the one of more taps than one
        np.multiply(a, b, out=full[_landing(alone, (0,) * len(alone), step)])
        return
    for part in runs(a.shape[3], ENTRIES * a.shape[3] // (a.size * b.shape[-1])):
        some, place = a[:, :, :, part], full[:, :, :, part.start * steps[0][0] :]
        for tap in np.ndindex(b.shape[3:-2]):
            only: Any = (..., *(slice(t, t + 1) for t in tap), slice(None), slice(None))
            place[_landing(some.shape[3:-2], tap, steps)] += some * b[only]


def _add_products(full: Array, b: Array, a: Array, steps: Sequence[Pair]) -> None:
    """Add a composition, a matrix product for each tap `u` along the last axis.

    Along that axis the product sums: the taps of A that reach `u`, last to first, are side by
    side in `left`, and B's, first to last, below each other in `right`. With `step_b` between
    B's taps they are the taps of one phase, every `step_b`-th of A; and so for B. Phases of as
    many taps are rows of one product. Along the other axes, `lead`, it has a row for each tap of
    A and a column for each of B:

        left: (*blocks, taps of A along lead * phases * rows, taps * cm)
        right: (*blocks, taps * cm, taps of B along lead * co)

    Both factors are read once for each `u`, and few numbers are added outside of a product:
    those that land at one place one after another, so that it stays in a cache.
    """
    *lead, (step_a, step_b) = steps
    blocks, lead_a, lead_b = a.shape[:3], a.shape[3:-3], b.shape[3:-3]
    ci, cm, co = *a.shape[-2:], b.shape[-1]
    places = _places(lead_a, lead_b, lead)
    every = slice(None)
    of_blocks = (every,) * 3
    numbers = math.prod(lead_a) * ci * math.prod(lead_b) * co  # of a product of one phase
    of_a = _phases(a.shape[-3], step_b, ENTRIES // numbers)
    for (first, count, k_a), s in itertools.product(of_a, range(min(step_a, b.shape[-3]))):
        phase_b = b[..., s::step_a, :, :]
        k_b = phase_b.shape[-3]
        right = np.moveaxis(phase_b, (-3, -2), (3, 4)).reshape(*blocks, k_b * cm, -1)
        for rows in runs(ci, ROWS // (math.prod(lead_a) * count)):
            in_phases = [a[..., first + t * step_b :, rows, :] for t in reversed(range(k_a))]
            taps = np.stack([phase[..., :count, :, :] for phase in in_phases], axis=-2)
            left = taps.reshape(*blocks, -1, k_a * cm)
            product = np.empty((*blocks, left.shape[-2], right.shape[-1]))
            in_taps = product.reshape(*blocks, *lead_a, count, -1, *lead_b, co)
            for u in range(k_a + k_b - 1):
                low, high = max(0, u - k_b + 1), min(k_a, u + 1)  # the taps of A that reach u
                matrix_product(
                    left[..., (k_a - high) * cm : (k_a - low) * cm],
                    right[..., (u - high + 1) * cm : (u - low + 1) * cm, :],
                    out=product,
                )
                start = first * step_a + s * step_b + u * step_a * step_b
                phases = slice(start, start + (count - 1) * step_a + 1, step_a)
                for place, pairs in places.items():
                    where: Any = (*of_blocks, *place, phases, rows)
                    target = full[where]
                    for tap_a, tap_b in pairs:
                        what: Any = (*of_blocks, *tap_a, every, every, *tap_b)
                        target += in_taps[what]


def _phases(taps: int, step: int, most: int) -> list[tuple[int, int, int]]:
    """Runs of at most `most` phases, of every `step`-th tap: the first, how many, taps of each."""
    longer = taps % step
    alike = ((0, longer, taps // step + 1), (longer, step - longer, taps // step))
    return [
        (first + run.start, run.stop - run.start, each)
        for first, count, each in alike
        if count and each
        for run in runs(count, most)
    ]


def runs(count: int, most: int) -> Iterable[slice]:
    """So many in runs alike, each of at least one and at most `most`."""
    parts = -(-count // max(1, most))
    return itertools.starmap(
        slice, itertools.pairwise(count * i // parts for i in range(parts + 1))
    )


def _places(
    taps_a: Sequence[int], taps_b: Sequence[int], steps: Sequence[Pair]
) -> dict[tuple[int, ...], list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """The pairs of a tap of A and one of B that land at each place."""
    places = defaultdict(list)
    for tap_a in np.ndindex(*taps_a):
        for tap_b in np.ndindex(*taps_b):
            place = tuple(
                t * s_a + v * s_b for t, v, (s_a, s_b) in zip(tap_a, tap_b, steps, strict=True)
            )
            places[place].append((tap_a, tap_b))
    return places


def _landing(taps: Sequence[int], tap: Sequence[int], steps: Sequence[Pair]) -> tuple[slice, ...]:
    """Where A's taps land with one tap of B, in a kernel in blocks."""
    return (slice(None),) * 3 + tuple(
        slice(t * step_b, t * step_b + (k - 1) * step_a + 1, step_a)
        for k, t, (step_a, step_b) in zip(taps, tap, steps, strict=True)
    )

"""Forms of low rank: spatially separable, depthwise separable, and bottlenecks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from kerasfold.algebra.product import Array
from kerasfold.errors import FoldError
from kerasfold.inverse.steps import ROUNDING, Part, convolution, in_blocks, whole_numbers

SWEEPS = 50  # of higher-order orthogonal iteration, at most
TRIES = 32  # ranks that iteration may be tried with
SETTLED = 1e-6  # of what is left out: an iteration that gains less is the last


def spatial(
    kernel: Array,
    *,
    rank: int | Sequence[int] | None = None,
    depthwise: bool = False,
    tolerance: float = 0.0,
) -> list[Part]:
    """A window along each axis, k x 1, then 1 x k, with `rank` channels between two of them.

    In two dimensions by the singular value decomposition, so that no other of that rank is
    nearer (Eckart and Young, Psychometrika 1, 1936; Jaderberg et al., BMVC 2014, scheme 2); in
    three as a tensor train (Oseledets, SIAM J. Sci. Comput. 33, 2011), at most sqrt(2) times as
    far off as the nearest.

    Args:
        kernel: (*taps, in, out); (*taps, in, multiplier) where depthwise.
        rank: at most so many channels between two windows (per channel where depthwise); one
            number for each such place, or one for all; the fewest that meet the tolerance if
            None.
        depthwise: the kernel is of a DepthwiseConv, and so are the factors (of a convolution
            in groups, where a channel has a rank above 1).
        tolerance: relative error that is met; 0 for exact up to rounding.
    """
    blocks = in_blocks(kernel, depthwise)
    groups, *taps, _, _ = blocks.shape
    if len(taps) < 2:
        raise FoldError(
            "'spatial' takes the axes of a kernel apart, so it has two or three of them. "
            f"Received: a kernel of shape {kernel.shape}"
        )
    ranks = () if rank is None else whole_numbers(rank, len(taps) - 1, "rank")
    rest = np.moveaxis(blocks, -2, 1)  # (groups, inputs, *taps, outputs)
    cores = _balanced_train(_train(rest, len(taps), ranks, _allowed(kernel, tolerance)))
    windows = np.eye(len(taps), dtype=int) * (np.array(taps) - 1) + 1
    return [
        convolution(np.moveaxis(core, 1, 2).reshape(groups, *window, core.shape[1], core.shape[3]))
        for core, window in zip(cores, windows, strict=True)
    ]


def _allowed(kernel: Array, tolerance: float) -> float:
    """The squared error that a tolerance allows."""
    return (max(tolerance, ROUNDING) * float(np.linalg.norm(kernel))) ** 2


def _tails(values: Array) -> Array:
    """For each rank from 0, the squares of the singular values that it leaves out."""
    return np.append(np.cumsum(values[::-1] ** 2)[::-1], 0.0)


def _train(rest: Array, axes: int, ranks: Sequence[int], allowed: float) -> list[Array]:
    """Cores (groups, rank, taps, rank) of the smallest train within a squared error."""
    groups, before, taps, *_ = rest.shape
    if axes == 1:
        return [rest]
    u, s, v = np.linalg.svd(rest.reshape(groups, before * taps, -1), full_matrices=False)
    tails = _tails(np.linalg.norm(s, axis=0))
    choices = [q for q in range(1, s.shape[1] + 1) if ranks or tails[q] <= allowed]
    if ranks:
        choices = choices[: ranks[0]][-1:]
    best: list[Array] = []
    for q in choices:
        core = u[..., :q].reshape(groups, before, taps, q)
        if best and core.size >= sum(map(np.size, best)):
            break
        tail = (s[:, :q, None] * v[:, :q]).reshape(groups, q, *rest.shape[3:])
        cores = [core, *_train(tail, axes - 1, ranks[1:], allowed - tails[q])]
        best = min(best or cores, cores, key=lambda cores: sum(map(np.size, cores)))
    return best


def _balanced_train(cores: list[Array]) -> list[Array]:
    """The same train, with the two sides of each rank alike in size."""
    for i in range(len(cores) - 1):
        first = np.linalg.norm(cores[i], axis=(1, 2))
        last = np.linalg.norm(cores[i + 1], axis=(2, 3))
        gain = np.sqrt(np.where(last > 0, last, 1) / np.where(last > 0, first, 1))
        cores[i] = cores[i] * gain[:, None, None]
        cores[i + 1] = cores[i + 1] / gain[..., None, None]
    return cores


def separable(
    kernel: Array, *, multiplier: int | None = None, tolerance: float = 0.0
) -> list[Part]:
    """Depthwise, then pointwise, by the singular values of each input channel.

    No other of that multiplier is nearer (Eckart and Young, Psychometrika 1, 1936; Guo et al.,
    arXiv:1811.02176).

    Args:
        kernel: (*taps, in, out).
        multiplier: at most so many channels for each of the input; the fewest that meet the
            tolerance if None.
        tolerance: relative error that is met; 0 for exact up to rounding.
    """
    *taps, inputs, outputs = kernel.shape
    each = np.moveaxis(kernel, -2, 0).reshape(inputs, -1, outputs)
    u, s, v = np.linalg.svd(each, full_matrices=False)
    count = s.shape[1]
    if multiplier is None:
        tails = _tails(np.linalg.norm(s, axis=0))
        count = max(1, int(np.argmax(tails <= _allowed(kernel, tolerance))))
    else:
        (most,) = whole_numbers(multiplier, 1, "multiplier")
        count = min(most, count)
    root = np.sqrt(s[:, :count])
    windows = (u[..., :count] * root[:, None]).reshape(inputs, *taps, 1, count)
    points = (root[..., None] * v[:, :count]).reshape(*(1 for _ in taps), -1, outputs)
    return [convolution(windows), convolution(points[None])]


def bottleneck(
    kernel: Array, *, ranks: int | Sequence[int] | None = None, tolerance: float = 0.0
) -> list[Part]:
    """1 x 1, k x k, 1 x 1: the Tucker-2 decomposition of the channels.

    By the higher-order singular value decomposition, refined by orthogonal iteration (De
    Lathauwer, De Moor and Vandewalle, SIAM J. Matrix Anal. Appl. 21, 2000; for convolutions: Kim
    et al., ICLR 2016). The iteration ends where no step gains anything, which need not be the
    nearest of all.

    Args:
        kernel: (*taps, in, out).
        ranks: at most so many channels into the window and out of it; those of the fewest
            weights that are found to meet the tolerance if None.
        tolerance: relative error that is met; 0 for exact up to rounding.
    """
    *taps, inputs, outputs = kernel.shape
    tensor = kernel.reshape(-1, inputs, outputs)
    if ranks is None:
        into, core, out = _smallest_tucker(tensor, _allowed(kernel, tolerance))
    else:
        a, b = whole_numbers(ranks, 2, "ranks")
        into, core, out = _tucker(tensor, min(a, inputs), min(b, outputs))
    ones = (1,) * len(taps)
    return [
        convolution(into.reshape(1, *ones, *into.shape)),
        convolution(core.reshape(1, *taps, *core.shape[1:])),
        convolution(out.T.reshape(1, *ones, *out.T.shape)),
    ]


Tucker = tuple[Array, Array, Array]


def _leading(tensor: Array, axis: int) -> tuple[Array, Array]:
    """Singular vectors along an axis, and singular values."""
    unfolded = np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)
    u, s, _ = np.linalg.svd(unfolded, full_matrices=unfolded.shape[0] > unfolded.shape[1])
    return u, np.pad(s, (0, u.shape[1] - len(s)))


def _tucker(tensor: Array, a: int, b: int) -> Tucker:
    """The matrices (in, a) and (out, b) that leave out little, and the core (taps, a, b)."""
    out, energy, kept = _leading(tensor, 2)[0][:, :b], float(np.vdot(tensor, tensor)), -1.0
    for _ in range(SWEEPS):
        into = _leading(tensor @ out, 1)[0][:, :a]
        out = _leading(into.T @ tensor, 2)[0][:, :b]
        core = into.T @ tensor @ out
        before, kept = kept, float(np.vdot(core, core))
        if kept - before <= max(SETTLED * (energy - kept), ROUNDING * energy):
            break
    return into, core, out


def _left_out(tensor: Array, tucker: Tucker) -> float:
    """The squared error of a decomposition."""
    into, core, out = tucker
    return float(np.linalg.norm(tensor - into @ core @ out.T) ** 2)


def _smallest_tucker(tensor: Array, allowed: float) -> Tucker:
    """The decomposition of the fewest weights that is found within a squared error.

    Ranks that leave out more than that along one axis alone will not do, and those will that
    leave out no more of the core of all ranks. Between the two, iteration is tried: first where
    that core comes nearest, since it gains little.
    """
    taps, inputs, outputs = tensor.shape
    (into, of_in), (out, of_out) = (_leading(tensor, axis) for axis in (1, 2))
    energy = ((into.T @ tensor @ out) ** 2).sum(axis=0)
    columns = np.pad(np.cumsum(energy[:, ::-1], axis=1)[:, ::-1], ((0, 0), (0, 1)))
    above = np.pad(np.cumsum(columns, axis=0), ((1, 0), (0, 0)))
    most = above + np.append(np.cumsum(columns[::-1, 0])[::-1], 0.0)[:, None]
    least = np.maximum(_tails(of_in)[:, None], _tails(of_out))
    a, b = np.ogrid[: inputs + 1, : outputs + 1]
    weights = a * inputs + taps * a * b + b * outputs
    possible = (least <= allowed) & (a > 0) & (b > 0)
    fewest = min(np.argwhere(possible & (most <= allowed)), key=lambda ranks: weights[*ranks])
    best = _tucker(tensor, *fewest)
    nearest = sorted(np.argwhere(possible), key=lambda ranks: most[*ranks])
    fewer = (ranks for ranks in nearest if weights[*ranks] < weights[*fewest])
    for ranks in itertools.islice(fewer, TRIES):
        tried = _tucker(tensor, *ranks)
        if _left_out(tensor, tried) <= allowed:
            best, fewest = tried, ranks
    return best

"""The links of a chain of convolutions by least squares: Gauss-Newton, or alternating.

A kernel here is (*taps, in, out), and a chain of them, first to last, has a kernel that is linear
in each link by itself. So one link is a linear problem where the others are known, and all of
them are a nonlinear one whose derivative is at hand.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence

import numpy as np

from kerasfold.algebra.axis import Axis, composed_axis
from kerasfold.algebra.product import Array, composed_kernel

Links = list[Array]

WORK = 2**32  # multiplications of a step of Gauss-Newton: about a second
GOAL = 1e-14  # relative error at which a way down ends
STEPS = 200  # of Gauss-Newton, at most
STALLED = 0.9  # of the squared error after ten steps: no way down is left
SETTLED = 0.9999  # of the error after a round of alternation: no way down is left


def composed(first: Array, last: Array) -> Array:
    """The kernel of `last o first`."""
    rank, one = first.ndim - 2, (1,) * (first.ndim - 2)
    if one in (first.shape[:rank], last.shape[:rank]):  # each tap of the other by a matrix
        return first @ last
    placements = [
        composed_axis(Axis(None, b), Axis(None, a))
        for a, b in zip(first.shape, last.shape[:rank], strict=False)
    ]
    return composed_kernel(last, first, (1, 1), placements)


def product(links: Sequence[Array]) -> Array:
    """The kernel of a chain."""
    return functools.reduce(composed, links)


def derivative(before: Array, after: Array, taps: Sequence[int]) -> Array:
    """The matrix that takes the numbers of a link to those of `after o link o before`."""
    rank = len(taps)
    (inputs, a), (b, outputs) = before.shape[rank:], after.shape[rank:]
    left = before.reshape(*before.shape[:rank], inputs * a, 1)
    around = composed(left, after.reshape(*after.shape[:rank], 1, b * outputs))
    span = around.shape[:rank]
    around = around.reshape(*span, inputs, a, b, outputs)
    around = np.moveaxis(around, -1, rank + 1)  # (*span, inputs, outputs, a, b)
    full = tuple(n + k - 1 for n, k in zip(span, taps, strict=True))
    matrix = np.zeros((*full, inputs, outputs, *taps, a, b))
    for tap in np.ndindex(*taps):
        window = tuple(slice(t, t + n) for t, n in zip(tap, span, strict=True))
        matrix[(*window, slice(None), slice(None), *tap)] = around
    return matrix.reshape(math.prod(full) * inputs * outputs, -1)


def _around(kernel: Array, links: Links, j: int) -> tuple[Array, Array]:
    """The kernels of what is before a link of a chain and of what is after it."""
    before, after = links[:j], links[j + 1 :]
    eyes = [np.eye(c)[(None,) * (kernel.ndim - 2)] for c in kernel.shape[-2:]]
    return product(before or eyes[:1]), product(after or eyes[1:])


def solved(kernel: Array, links: Links, j: int) -> Array:
    """A link by least squares, the others as they are.

    The first link is a problem for each input channel, and the last for each output channel, all
    with one matrix.
    """
    before, after = _around(kernel, links, j)
    link, one = links[j], np.ones((1,) * kernel.ndim)
    *taps, a, b = link.shape
    if j == 0:
        wanted = np.moveaxis(kernel, -2, -1).reshape(-1, a)
        found = np.linalg.lstsq(derivative(one, after, taps), wanted, rcond=None)[0]
        return np.moveaxis(found.reshape(*taps, b, a), -1, -2)
    if j == len(links) - 1:
        wanted = kernel.reshape(-1, b)
        found = np.linalg.lstsq(derivative(before, one, taps), wanted, rcond=None)[0]
        return found.reshape(link.shape)
    matrix = derivative(before, after, taps)
    found = np.linalg.lstsq(matrix, kernel.ravel(), rcond=None)[0]
    return found.reshape(link.shape)


def scaled(kernel: Array, links: Links) -> Links:
    """Links of one norm, whose chain is the multiple that is nearest to a kernel."""
    made = product(links)
    size = float(np.vdot(made, made))
    gain = float(np.vdot(made, kernel)) / size if size else 0.0
    norms = [float(np.linalg.norm(link)) or 1.0 for link in links]
    norm = (abs(gain) * math.prod(norms)) ** (1 / len(links))
    links = [link * (norm / each) for link, each in zip(links, norms, strict=True)]
    return [*links[:-1], links[-1] * np.sign(gain)]


def descended(kernel: Array, links: Links, deadline: float) -> tuple[Links, float]:
    """The end of the way down from a chain, and the norm of what it misses the kernel by.

    By Gauss-Newton, or by alternation where a step of that takes too long: it goes slowly, and a
    few rounds of it before Gauss-Newton lead away from a chain that is near as often as to one.
    """
    links = scaled(kernel, links)
    if kernel.size * sum(link.size for link in links) ** 2 <= WORK:
        return refined(kernel, links, deadline)
    errors = [math.inf, float(np.linalg.norm(product(links) - kernel))]
    while GOAL * np.linalg.norm(kernel) < errors[-1] <= SETTLED * errors[-2]:
        tried = [*links]
        for j in range(len(links)):
            if time.monotonic() > deadline:
                return links, errors[-1]
            tried[j] = solved(kernel, tried, j)
        links = scaled(kernel, tried)
        errors.append(float(np.linalg.norm(product(links) - kernel)))
    return links, errors[-1]


def refined(kernel: Array, links: Links, deadline: float) -> tuple[Links, float]:
    """By Gauss-Newton, damped as Levenberg and Marquardt do, to where nothing is gained.

    The solutions are no points (a factor that moves from one link to the next changes nothing),
    so the normal equations are singular there, which the damping sees to.

    Source: Nocedal and Wright, Numerical Optimization, section 10.3.

    Args:
        kernel: that the chain is to have.
        links: to start from.
        deadline: of `time.monotonic`.

    Returns:
        the links, and the norm of what they miss the kernel by.
    """
    rest, enough = product(links) - kernel, GOAL * float(np.linalg.norm(kernel))
    error, damping, errors = float(np.vdot(rest, rest)), 1e-2, []
    for _ in range(STEPS):
        errors.append(error)
        stalled = len(errors) > 10 and error > STALLED * errors[-10]
        if math.sqrt(error) <= enough or stalled or time.monotonic() > deadline:
            break
        matrix = np.concatenate(
            [
                derivative(*_around(kernel, links, j), link.shape[: kernel.ndim - 2])
                for j, link in enumerate(links)
            ],
            axis=1,
        )
        normal, slope = matrix.T @ matrix, matrix.T @ rest.ravel()
        scale = np.diag(normal) + 1e-12 * np.trace(normal)
        while slope.any() and damping < 1e8 and time.monotonic() <= deadline:
            step = np.linalg.solve(normal + np.diag(damping * scale), slope)
            tried = _less(links, step)
            missed = product(tried) - kernel
            reached = float(np.vdot(missed, missed))
            if reached < error:
                break
            damping *= 4
        else:
            break
        links, rest, error, damping = tried, missed, reached, max(damping / 5, 1e-14)
    return links, math.sqrt(error)


def _less(links: Links, step: Array) -> Links:
    ends = np.cumsum([link.size for link in links])[:-1]
    parts = np.split(step, ends)
    return [link - part.reshape(link.shape) for link, part in zip(links, parts, strict=True)]

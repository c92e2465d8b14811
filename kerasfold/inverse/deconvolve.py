"""Division of convolutions: one factor of a kernel, the other being known.

With `s` the strides of the factor that is applied first, a composition's kernel is

    kernel[u + s v] = sum over u, v of first[u] last[v]      products of (inputs, outputs) matrices

so that its phase `r`, each s-th tap from `r` on, is the convolution of that of `first` and `last`:
`last` is found from all phases at once, as more rows of one convolution, and `first` one by one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kerasfold.algebra.product import Array, regroup
from kerasfold.errors import FoldError
from kerasfold.inverse.pseudoinverse import pseudoinverse
from kerasfold.inverse.solvers import Pseudoinverse
from kerasfold.inverse.steps import ROUNDING, checked, whole_numbers
from kerasfold.lift.one_layer import operator_of

Steps = tuple[int, ...]
Found = tuple[Array, float, list[Pseudoinverse]]
"""A factor, the norm of what it leaves, and what it was found by."""


@dataclass(frozen=True, eq=False, slots=True)
class Deconvolution:
    """One factor of a kernel.

    Attributes:
        kernel: (*taps, inputs, outputs), float64: the shortest of those that leave the least.
        relative_residual: what it leaves, the composition minus the kernel that was divided, as a
            part of that one, in Frobenius norms.
        condition: of the divisor, as a matrix that makes the kernel of its factor: the largest
            singular value over the smallest, estimated where that matrix is large; inf where it
            has no inverse that float64 can tell, so that other factors leave as little.
        exact: whether it leaves nothing but rounding in float64.

    Example:
        >>> found = kerasfold.deconvolve(np.ones((3, 1, 1)), last=np.ones((2, 1, 1)))
        >>> found.exact, round(found.relative_residual, 3)
        (False, 0.333)
    """

    kernel: Array
    relative_residual: float
    condition: float
    exact: bool

    @property
    def unique(self) -> bool:
        """Whether all other factors leave more."""
        return math.isfinite(self.condition)

    def __str__(self) -> str:
        left = f"relative residual {self.relative_residual:.1e}"
        only = (
            f"unique, by a divisor of condition {self.condition:.1e}"
            if self.unique
            else "not unique, as the divisor cannot be inverted: the shortest of many"
        )
        how = "exact" if self.exact else "not exact, by least squares"
        return f"a factor of shape {self.kernel.shape}: {how} ({left}); {only}"


def deconvolve(
    kernel: Any, *, first: Any = None, last: Any = None, strides: int | Sequence[int] = 1
) -> Deconvolution:
    """The other factor of the kernel of `last` after `first`.

    By least squares where it does not divide, and the shortest where several do as well; in
    float64, whatever the dtypes.

    Args:
        kernel: (*taps, inputs, outputs), along one to three axes.
        first: what is applied first, or None: a kernel (*taps, inputs, channels), or a built Keras
            layer that is one convolution, such as Conv, DepthwiseConv, SeparableConv or
            AveragePooling; its bias and padding play no part.
        last: what is applied last, (*taps, channels, outputs) or a layer, or None.
        strides: of the one applied first, for each axis or one for all; a layer brings its own.

    Returns:
        The factor that was not given, and how well it is known.

    Raises:
        FoldError: both factors or none, sizes that do not fit, values that are not finite, a
            layer that is no convolution.

    Example:
        >>> box = np.ones((2, 2, 1, 1)) / 4
        >>> tent = np.outer([1, 2, 1], [1, 2, 1])[..., None, None] / 16  # the box after itself
        >>> found = kerasfold.deconvolve(tent, first=box)
        >>> found.exact, np.allclose(found.kernel, box)
        (True, True)
    """
    if (first is None) == (last is None):
        raise FoldError(
            "deconvolve() takes one factor and finds the other: give either first= or last=. "
            f"Received: {'none' if first is None else 'both'}"
        )
    whole = checked(kernel, "kernel=")
    rank = whole.ndim - 2
    if last is None:
        divisor, own = _factor(first, "first=", rank, whole.shape[-2])
        steps = whole_numbers(strides, rank, "strides=") if own is None else own
        if own is not None and strides != 1 and whole_numbers(strides, rank, "strides=") != own:
            raise FoldError(f"first= is a layer of strides {own}. Received: strides={strides}")
        _same_channels(whole, divisor, "first=", -2)
        divide: Callable[[Array, Array, Steps], Found] = _last_of
    else:
        divisor, _ = _factor(last, "last=", rank, whole.shape[-1])
        steps = whole_numbers(strides, rank, "strides=")
        _same_channels(whole, divisor, "last=", -1)
        divide = _first_of
    units = [float(np.max(np.abs(array))) or 1.0 for array in (whole, divisor)]
    factor, left, inverses = divide(whole / units[0], divisor / units[1], steps)
    size = float(np.linalg.norm(whole / units[0]))
    residual = left / size if size else 0.0
    largest = max(inverse.largest for inverse in inverses)
    smallest = min(inverse.smallest for inverse in inverses)
    return Deconvolution(
        factor * (units[0] / units[1]),
        residual,
        largest / smallest if smallest else math.inf,
        residual <= ROUNDING,
    )


def _last_of(kernel: Array, first: Array, strides: Steps) -> Found:
    taps = list(zip(kernel.shape, first.shape, strides, strict=False))
    if any(k < own or (k - own) % s for k, own, s in taps):
        raise FoldError(
            "a kernel after first= has its taps and a multiple of its strides more. Received: a "
            f"kernel of {kernel.shape[:-2]} taps, first= of {first.shape[:-2]}, strides {strides}"
        )
    phases = _phases(kernel, strides)
    sizes = [(k - own) // s + 1 for k, own, s in taps]
    inverse = pseudoinverse(_phases(first, strides), sizes)
    factor = inverse.solve(phases)
    return factor, float(np.linalg.norm(phases - inverse.apply(factor))), [inverse]


def _first_of(kernel: Array, last: Array, strides: Steps) -> Found:
    taps = list(zip(kernel.shape, last.shape, strides, strict=False))
    sizes = [k - s * (own - 1) for k, own, s in taps]
    if min(sizes) < 1:
        raise FoldError(
            "last= of k taps after strides s spans 1 + s (k - 1) taps, and the kernel has no fewer."
            f" Received: a kernel of {kernel.shape[:-2]} taps, last= of {last.shape[:-2]}, strides "
            f"{strides}"
        )
    wholes, divisor = np.swapaxes(kernel, -1, -2), np.swapaxes(last, -1, -2)
    factor = np.zeros((*sizes, last.shape[-2], kernel.shape[-2]))
    left = 0.0
    inverses: dict[Steps, Pseudoinverse] = {}
    for phase in itertools.product(*map(range, strides)):
        every = tuple(slice(r, None, s) for r, s in zip(phase, strides, strict=True))
        rest, part = wholes[every], factor[every]
        if part.size:
            shape = part.shape[:-2]
            if shape not in inverses:
                inverses[shape] = pseudoinverse(divisor, shape)
            factor[every] = inverses[shape].solve(rest)
            rest = rest - inverses[shape].apply(factor[every])
        left = math.hypot(left, float(np.linalg.norm(rest)))
    return np.swapaxes(factor, -1, -2), left, list(inverses.values())


def _phases(kernel: Array, strides: Steps) -> Array:
    """(*taps of each, phases * inputs, outputs), of zeros where there is no tap."""
    rank = len(strides)
    counts = [-(-k // s) for k, s in zip(kernel.shape, strides, strict=False)]
    full = np.zeros((*(n * s for n, s in zip(counts, strides, strict=True)), *kernel.shape[rank:]))
    full[tuple(map(slice, kernel.shape))] = kernel
    split = full.reshape(*itertools.chain(*zip(counts, strides, strict=True)), *kernel.shape[rank:])
    order = (*range(0, 2 * rank, 2), *range(1, 2 * rank, 2), 2 * rank, 2 * rank + 1)
    return split.transpose(order).reshape(*counts, -1, kernel.shape[-1])


def _factor(given: Any, name: str, rank: int, channels: int) -> tuple[Array, Steps | None]:
    """The kernel of a factor; the strides, of a layer."""
    if not isinstance(given, keras.Layer):
        array = checked(given, name, "a built Keras layer, or an array")
        if array.ndim != rank + 2:
            raise FoldError(
                f"{name} has as many axes as the kernel, {rank + 2}. Received: {array.shape}"
            )
        return array, None
    operator = operator_of(given, rank, channels)
    axes = operator.geometry.axes
    if operator.geometry.normalised or any(axis.upsampling > 1 for axis in axes):
        raise FoldError(
            f"{name} layer '{given.name}' has not the same kernel at every pixel: an average pool "
            "is to be padding='valid', and a convolution not transposed"
        )
    dense = regroup(operator.window, operator.geometry.groups, 1)
    return checked(dense, name), tuple(axis.stride for axis in axes)


def _same_channels(whole: Array, divisor: Array, name: str, side: int) -> None:
    if whole.shape[side] != divisor.shape[side]:
        which = {-2: "inputs", -1: "outputs"}[side]
        raise FoldError(
            f"the kernel and {name} are to have as many {which}, and are (*taps, inputs, outputs)."
            f" Received: shapes {whole.shape} and {divisor.shape}"
        )

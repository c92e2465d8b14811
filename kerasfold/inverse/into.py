"""`factor`: a convolution taken apart into a form of a named table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import keras
import numpy as np

from kerasfold.algebra.product import Array
from kerasfold.errors import FoldError
from kerasfold.inverse.bound import output_bound
from kerasfold.inverse.chain import chain
from kerasfold.inverse.lowrank import bottleneck, separable, spatial
from kerasfold.inverse.steps import (
    ROUNDING,
    Part,
    Step,
    amount,
    checked,
    composed_kernel,
    in_blocks,
    to_unit,
    whole_numbers,
)
from kerasfold.inverse.windows import dilated, pool
from kerasfold.layers.ready import ready, zeros_around

Way = Callable[..., Sequence[Part]]
W = TypeVar("W", bound=Way)

WAYS: dict[str, Way] = {
    "chain": chain,
    "spatial": spatial,
    "separable": separable,
    "bottleneck": bottleneck,
    "pool": pool,
    "dilated": dilated,
}


def factors_into(name: str) -> Callable[[W], W]:
    """Add a form to the table of `factor`.

    The function is called as `way(kernel, **options)` with a kernel (*taps, in, out) in float64,
    scaled by a power of two to a largest magnitude from 1 to 2 (zeros stay zeros), and returns
    the steps, first to last, each with its kernel or None (not all of them None): see
    `kerasfold.inverse.steps.convolution` and `pool`, which make them. Its options are those of
    `factor(kernel, name, **options)`, and `tolerance` is one of them; what is made of them is
    measured, and scaled back, by `factor`.

    Args:
        name: of the form, which no other has.

    Raises:
        FoldError: a name that the table has.

    Example:
        >>> "spatial" in kerasfold.inverse.into.WAYS  # the table that it adds to
        True
    """
    if name in WAYS:
        raise FoldError(f"there is a form '{name}' already: {', '.join(WAYS)}. Take another name")

    def register(way: W) -> W:
        WAYS[name] = way
        return way

    return register


@dataclass(frozen=True, eq=False, slots=True)
class Factors:
    """A convolution as steps, one after another.

    Attributes:
        into: name of the form.
        kernels: the weights of the steps that have any, in float64, as their layers hold them.
        steps: the layers, first to last; a pool has no kernel.
        relative_error: what the composed kernel misses the given one by, in the Frobenius norm,
            over that of the given one.
        bound: of the norm of the output's error for any input of norm 1; see
            `kerasfold.inverse.bound.output_bound`. Layers of less precision add their rounding.
        exact: whether the error is none but rounding (at most 1e-12).

    Example:
        >>> factors = kerasfold.factor(np.ones((4, 4, 1, 1)), "pool", pool_size=2)
        >>> model = keras.Sequential([keras.Input((9, 9, 1)), *factors.layers()])
        >>> [type(layer).__name__ for layer in model.layers]
        ['Conv2D', 'AveragePooling2D']
    """

    into: str
    kernels: tuple[Array, ...]
    steps: tuple[Step, ...]
    relative_error: float
    bound: float
    exact: bool

    def compose(self) -> Array:
        """The kernel of all steps, as the given one is laid out."""
        return composed_kernel(self._parts())

    def layers(
        self, *, strides: int | Sequence[int] = 1, padding: str = "valid", dtype: Any = None
    ) -> list[keras.Layer]:
        """Keras layers, built and with their weights, for a `keras.Sequential`.

        Args:
            strides: of the whole, beyond those of its pool. Each is that of the last step with a
                window along its axis, since what follows sees one pixel there.
            padding: 'valid', or 'same' for a first layer that pads the image with zeros, so that
                the output has its size, as one convolution would.
            dtype: dtype or policy of the layers, Keras's default if None.

        Raises:
            FoldError: a dtype that is none of floats, strides and dilation in one layer, or 'same'
                with strides, whose padding depends on the image.
        """
        _check_dtype(dtype)
        rank = len(self.steps[0].taps)
        moves = [list(step.strides) for step in self.steps]
        for axis, stride in enumerate(whole_numbers(strides, rank, "strides")):
            wide = [i for i, step in enumerate(self.steps) if step.taps[axis] > 1]
            moves[wide[-1] if wide else 0][axis] *= stride
        made = []
        if padding == "same":
            if np.max(moves) > 1:
                raise FoldError(
                    f"padding='same' with strides {moves} depends on the size of the image: pad "
                    "it by a layer of your own, and take padding='valid'"
                )
            spans = self.compose().shape[:rank]
            made = [zeros_around([((k - 1) // 2, k // 2) for k in spans], dtype)]
        elif padding != "valid":
            raise FoldError(f"padding is 'valid' or 'same'. Received: {padding!r}")
        return made + [
            _layer(step, kernel, tuple(strides), dtype)
            for (step, kernel), strides in zip(self._parts(), moves, strict=True)
        ]

    def _parts(self) -> list[Part]:
        left = iter(self.kernels)
        return [(step, None if step.is_pool else next(left)) for step in self.steps]

    def __str__(self) -> str:
        weights = sum(kernel.size for kernel in self.kernels)
        quality = "exact" if self.exact else f"within {self.bound:.2g} for an input of norm 1"
        return (
            f"{self.into}: {', then '.join(map(str, self.steps))}; {weights} weights for "
            f"{self.compose().size}, relative error {self.relative_error:.2g}, {quality}"
        )


def factor(kernel: Array, into: str, **options: Any) -> Factors:
    """Take a convolution apart into a form: exactly where it has it, else as near as is found.

    | into | steps | options |
    |---|---|---|
    | 'chain' | convolutions of `sizes` | sizes, filters, start, restarts, seed, budget |
    | 'spatial' | a window along each axis | rank |
    | 'separable' | depthwise, pointwise | multiplier |
    | 'bottleneck' | pointwise, a window, pointwise | ranks |
    | 'pool' | a convolution, average pooling | pool_size |
    | 'dilated' | a convolution with taps apart | dilation |

    Each takes `tolerance`, a relative error in the Frobenius norm, 0.0 for exact up to rounding:
    the smallest form that meets it is given ('pool' has one only, given whatever the tolerance).
    Where none is found, or where a size is given, the nearest of that size is, with what it
    misses; nothing is raised for that. 'chain', 'spatial', 'pool' and 'dilated' take
    `depthwise=True` for the kernel of a DepthwiseConv. The options are explained where each form
    is: `kerasfold.inverse.chain.chain` and so on.

    Args:
        kernel: (*taps, in, out) of a Conv1D, Conv2D or Conv3D, or (*taps, in, multiplier) of a
            DepthwiseConv, in Keras's layout. It is worked on in float64.
        into: a row of the table, to which `factors_into` adds.
        **options: of that form.

    Returns:
        the steps and their weights, with the error measured and bounded.

    Raises:
        FoldError: a kernel, a form or an option that is none, or one whose sizes do not fit.

    Example:
        >>> sobel = np.outer([1, 2, 1], [-1, 0, 1])[..., None, None]
        >>> factors = kerasfold.factor(sobel, "spatial")
        >>> factors.exact, [kernel.shape for kernel in factors.kernels]
        (True, [(3, 1, 1, 1), (1, 3, 1, 1)])
    """
    if not isinstance(into, str) or into not in WAYS:
        raise FoldError(
            f"a kernel is taken apart into one of {', '.join(WAYS)}. Received: {into!r}"
        )
    (array, power), way = to_unit(checked(kernel, "a kernel")), WAYS[into]
    _check_options(way, into, options)
    parts = list(way(array, **options))
    made = composed_kernel(parts)
    if made.shape != array.shape:
        raise FoldError(
            f"the form '{into}' makes a kernel of shape {made.shape} of one of shape {array.shape}"
        )
    missed = array - made
    size = float(np.linalg.norm(array))
    error = float(np.linalg.norm(missed)) / (size or 1.0)
    return Factors(
        into,
        _scaled([weights for _, weights in parts if weights is not None], power),
        tuple(step for step, _ in parts),
        error,
        output_bound(in_blocks(missed, bool(options.get("depthwise")))) * 2.0**power,
        error <= ROUNDING,
    )


def _check_options(way: Way, into: str, options: dict[str, Any]) -> None:
    """Raises `FoldError` for what a form does not take, or lacks."""
    known = list(inspect.signature(way).parameters.values())[1:]
    names = [parameter.name for parameter in known]
    for name in options:
        if name not in names:
            raise FoldError(f"'{into}' has no option '{name}', but {', '.join(names)}")
    for parameter in known:
        if parameter.default is parameter.empty and parameter.name not in options:
            raise FoldError(f"'{into}' needs the option '{parameter.name}'")
    amount(options.get("tolerance", 0.0), "tolerance")
    if not isinstance(options.get("depthwise", False), (bool, np.bool_)):
        raise FoldError(f"depthwise is True or False. Received: {options['depthwise']!r}")


def _scaled(kernels: Sequence[Array], power: int) -> tuple[Array, ...]:
    """Kernels whose product is 2**power times as large, alike, so that none leaves float32 first.

    Raises:
        FoldError: a weight that float64 does not hold.
    """
    each, more = divmod(power, len(kernels))
    with np.errstate(over="ignore"):
        made = tuple(np.ldexp(kernel, each + (i < more)) for i, kernel in enumerate(kernels))
    if not all(np.isfinite(kernel).all() for kernel in made):
        raise FoldError("a kernel so large has factors that are not finite: scale it down first")
    return made


def _check_dtype(dtype: Any) -> None:
    """Raises `FoldError` for what no layer can compute in."""
    try:
        known = keras.backend.is_float_dtype(keras.dtype_policies.get(dtype).compute_dtype)
    except (TypeError, ValueError):
        known = False
    if not known:
        raise FoldError(
            "dtype is one of floats, or a policy of such, as 'float32' or 'mixed_float16'. "
            f"Received: {dtype!r}"
        )


def _layer(step: Step, kernel: Array | None, strides: tuple[int, ...], dtype: Any) -> keras.Layer:
    """One stock layer with its weights."""
    if max(strides) > 1 and max(step.dilation) > 1:
        raise FoldError(
            f"no Keras layer has both strides and dilation, as {step} with strides {strides} "
            "would: take the kernel as it is, or strides=1"
        )
    if kernel is None:
        return ready(step.kind, None, step.groups, dtype, pool_size=step.taps, strides=strides)
    rank = len(step.taps)
    config: dict[str, Any] = {
        "kernel_size": step.taps,
        "strides": strides,
        "dilation_rate": step.dilation,
    }
    if step.is_depthwise and len({*strides}) == 1:
        config |= {"depth_multiplier": kernel.shape[-1]}
        return ready(step.kind, kernel, step.groups, dtype, **config)
    if step.is_depthwise:
        kernel = kernel.reshape(*step.taps, 1, -1)
    config |= {"filters": kernel.shape[-1], "groups": step.groups}
    return ready(f"Conv{rank}D", kernel, kernel.shape[-2] * step.groups, dtype, **config)

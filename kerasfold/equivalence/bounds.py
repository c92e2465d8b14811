"""How large an error may be: the constants, and the units of rounding they are multiples of.

Errors are measured against the spread of the outputs over inputs: against their size, the
softmax of a random network would look right with any kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

import keras
import numpy as np

from kerasfold.backend import computed
from kerasfold.equivalence.sizes import FREE_SIZES
from kerasfold.equivalence.tally import Lines, Tally
from kerasfold.equivalence.tolerance import Tolerance
from kerasfold.read.model import computed_dtypes, interpolates, operations

EXACT = 1e-10  # of the spread, in float64
ARITHMETIC = 256.0  # units of float rounding, of the output scale, that any order of sums may make
NOISE = 8.0  # times the measured effect of rounding noise
CHANCE = 3.0  # times the median effect, that the largest of many lines may be by chance
SHARP = 2.0**-16  # of an output's size, that noise may change where it was not measured
LOSS = 8.0  # times the original's own error in its own dtype
REBUILT = 16.0  # times rounding effects that a model may be off its rebuilt float64 copy

SINGLE = 2.0**-23  # unit of float32 rounding
DOUBLE = 2.0**-52
# What may be lost whole: processors flush what is no normal number, but of float16.
LOST = {"float64": 2.0**-1022, "float32": 2.0**-126, "bfloat16": 2.0**-126, "float16": 2.0**-24}
FLOAT_EPS = {"float64": DOUBLE, "float32": SINGLE, "float16": 2.0**-10, "bfloat16": 2.0**-7}
_beyond = np.errstate(over="ignore")  # float64, a bound is infinite: nothing is told by it


def eps_of(dtype: str) -> float:
    """The unit of rounding of a dtype."""
    return float(keras.backend.epsilon()) if "float" not in dtype else FLOAT_EPS.get(dtype, DOUBLE)


@_beyond
def difference_bound(tally: Tally, unit: float) -> Lines:
    """What the float64 copies of two models may differ by, by line.

    Args:
        tally: of the output.
        unit: of rounding, of what the copies compute in.
    """
    if tally.tolerated is not None:
        return np.maximum(NOISE * tally.tolerated * tally.whole_scale, noise_bound(tally))
    if tally.whole:
        return noise_bound(tally)
    exact = EXACT * tally.spread if unit <= DOUBLE else 0.0
    return np.maximum(exact, noise_bound(tally)) + ARITHMETIC * unit * tally.scale


def tolerated_share(tolerance: Tolerance, usual: Tally) -> float:
    """What a user allows, as a share of the largest output on usual inputs; at most 1."""
    scale = float(np.max(usual.output_scale))
    return min(tolerance.rtol + (tolerance.atol / scale if scale else 1.0), 1.0)


def beyond_bound(tally: Tally, unit: float) -> float:
    """The largest difference of an output, as a multiple of its bound; 1.0 of what is within."""
    error, bound = np.broadcast_arrays(tally.error, difference_bound(tally, unit))
    within = error <= bound  # both may be infinite, or 0
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return float(np.max(np.where(within, 1.0, error / bound), initial=1.0))


@_beyond
def noise_bound(tally: Tally) -> Lines:
    """What rounding noise may change, by line."""
    effect = np.maximum(tally.effect, tally.expected * tally.scale)
    return NOISE * _at_least_usual(effect, tally.spread * tally.share)


@_beyond
def noise_share(tally: Tally) -> float:
    """What noise may be expected to change of outputs of another size, of that size.

    That of the median line, and no more than leaves a comparison sharp.
    """
    effect, scale = np.broadcast_arrays(tally.effect, tally.scale)
    return min(_usual_share(effect, scale), SHARP)


@_beyond
def own_noise_bound(tally: Tally) -> Lines:
    """The same, of the noise of the models' own dtype."""
    return NOISE * _at_least_usual(tally.own_effect, tally.output_scale)


@_beyond
def _at_least_usual(effect: Lines, size: Lines) -> Lines:
    """The effect of noise; where it is less by chance, what it may be for a line of its size."""
    effect, size = np.broadcast_arrays(effect, size)
    return np.maximum(effect, CHANCE * (_usual_share(effect, size) * size))


def _usual_share(effect: Lines, size: Lines) -> float:
    """The effect of noise as a share of the size, that of the median line; or 0.0."""
    some = (size > 0) & (effect > 0)
    usual = np.median(effect[some] / size[some]) if some.any() else 0.0
    return float(min(usual, np.finfo("float64").max))  # of 0 it is 0 then


def accuracy_bound(tally: Tally, unit: float) -> Lines:
    """What the error of the second model may be, in its own dtype, by line.

    Args:
        tally: of the output.
        unit: of rounding, of what the truth was computed in, or the models, whatever their dtype.
    """
    return np.maximum(usual_accuracy_bound(tally, unit), own_noise_bound(tally))


@_beyond
def usual_accuracy_bound(tally: Tally, unit: float) -> Lines:
    """The same, from the error of the first model alone."""
    rounding = 0.0 if tally.whole else _rounding(tally, max(eps_of(tally.own_dtype), unit))
    return LOSS * tally.own_error + rounding


@_beyond
def rebuilt_bound(tally: Tally, eps: float) -> Lines:
    """What a model may be off its own float64 copy, by line.

    Args:
        tally: of the output.
        eps: unit of rounding of what the model computes in.
    """
    rounding = _rounding(tally, eps)
    return np.where(tally.own_effect > 0, REBUILT * (tally.own_effect + rounding), rounding)


def _rounding(tally: Tally, eps: float) -> Lines:
    """What sums of the outputs' size may be off; a class so improbable underflows to none.

    Zeros may be sums that cancel: of them it is known alone how large the other lines are.
    """
    size = np.where(tally.output_scale > 0, tally.output_scale, np.max(tally.output_scale))
    return ARITHMETIC * eps * size + LOST.get(tally.own_dtype, 0.0)


def coarsest_dtype(models: Sequence[keras.Model]) -> str:
    """The float dtype that rounds most, among those that models compute in."""
    computed = {dtype for model in models for dtype in computed_dtypes(model)}
    return max((d for d in computed if d in FLOAT_EPS), key=eps_of, default="float64")


def interpolation_unit(operations: Iterable[keras.Operation]) -> float:
    """Unit of rounding of those that interpolate in float32, whatever their dtype; or 0.0."""
    return max((SINGLE * _rounded(x) for x in operations if interpolates(x)), default=0.0)


def _rounded(operation: keras.Operation) -> int:
    """By how many units of rounding positions are off, about; 1 where they are exact.

    They are multiples of n / m, of n pixels that become m: exact in float32 where that is a number
    of halves, quarters and so on.
    """
    image = operation.input
    shape = [n or max(FREE_SIZES) for n in image.shape[1:]]
    result = operation.compute_output_spec(keras.KerasTensor((1, *shape), image.dtype))
    sides = zip(shape, result.shape[1:], strict=True)
    return max((n for n, m in sides if not _is_binary(Fraction(n, m))), default=1)


def _is_binary(ratio: Fraction) -> bool:
    return ratio.denominator & (ratio.denominator - 1) == 0


def stored_eps(model: keras.Model) -> float:
    """Unit of rounding of a model's coarsest weights."""
    return max((eps_of(v.dtype) for v in model.weights if "float" in v.dtype), default=SINGLE)


def computed_eps(model: keras.Model) -> float:
    """Unit of rounding of the coarsest tensor or layer of a model."""
    dtypes = map(computed, computed_dtypes(model))
    coarsest = max((eps_of(d) for d in dtypes if "float" in d), default=SINGLE)
    return max(coarsest, interpolation_unit(operations(model)))

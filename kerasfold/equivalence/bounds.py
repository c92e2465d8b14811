"""Errors, and how large they may be.

Errors are measured against the spread of the outputs over inputs: against their size, the
softmax of a random network would look right with any kernel.
"""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import tree

from kerasfold.equivalence.probes import FREE_SIZES
from kerasfold.equivalence.runs import Ran, run
from kerasfold.read.model import computed_dtypes, interpolates, operations

EXACT = 1e-10  # of the output scale, in float64
ARITHMETIC = 256.0  # units of float rounding, of the output scale, that any order of sums may make
NOISE = 8.0  # times the measured effect of rounding noise

SINGLE = 2.0**-23  # unit of float32 rounding


def eps_of(dtype: str) -> float:
    """The unit of rounding of a dtype."""
    return (
        float(keras.backend.epsilon()) if "float" not in dtype else FLOAT_EPS.get(dtype, 2.0**-52)
    )


FLOAT_EPS = {"float64": 2.0**-52, "float32": SINGLE, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def tells(truth: np.ndarray) -> bool:
    """Whether an output has a value to compare."""
    return not truth.size or bool(np.isfinite(truth).any())


def largest_error(value: np.ndarray, truth: np.ndarray) -> float:
    """Largest difference; infinite where one is finite and the other is not."""
    value, truth = np.asarray(value, "float64"), np.asarray(truth, "float64")
    if value.shape != truth.shape:
        return math.inf
    finite = np.isfinite(truth)
    if not np.array_equal(truth[~finite], value[~finite], equal_nan=True):
        return math.inf
    if not np.all(np.isfinite(value[finite])):
        return math.inf
    return float(np.max(np.abs(value[finite] - truth[finite]), initial=0.0))


def border_error(value: np.ndarray, truth: np.ndarray, layout: str) -> float:
    """The same among the outermost pixels of images; of vectors and small images, all of it."""
    first = 2 if layout == "channels_first" else 1
    sizes = truth.shape[first : first + truth.ndim - 2]
    if value.shape != truth.shape or not sizes or any(n < 3 for n in sizes):
        return largest_error(value, truth)
    inside = (*(slice(None),) * first, *(slice(1, -1) for _ in sizes))
    value, truth = np.array(value, "float64"), np.array(truth, "float64")
    value[inside] = truth[inside]
    return largest_error(value, truth)


def spread_of(truth: np.ndarray) -> float:
    """Standard deviation over inputs; the scale where an output ignores its input."""
    truth = np.where(np.isfinite(truth), truth, 0.0).astype("float64")
    spread = float(np.sqrt(np.mean(np.var(truth, axis=0)))) if len(truth) > 1 else 0.0
    scale = float(np.max(np.abs(truth), initial=0.0))
    return spread if spread > 1e-12 * scale else scale


def noise_effect(copy: Ran, eps: float) -> list[float]:
    """Change of each output of a float64 model when its weights move by up to half of `eps`."""
    rng = np.random.default_rng(0)
    weights = [v for v in copy.model.weights if "float" in v.dtype]
    saved = [(v, keras.ops.convert_to_numpy(v)) for v in weights]
    try:
        for variable, value in saved:
            variable.assign(value * (1 + eps * rng.uniform(-0.5, 0.5, value.shape)))
        after = run(copy.model, copy.batches)
    finally:
        for variable, value in saved:
            variable.assign(value)
    return [largest_error(y, x) for x, y in zip(copy.outputs, after, strict=True)]


def noise_bound(copies: list[tuple[Ran, float]]) -> list[float]:
    """A multiple of what noise in the weights, of a unit of rounding per model, changes."""
    changes = [noise_effect(copy, eps) for copy, eps in copies]
    return [NOISE * max(pair) for pair in zip(*changes, strict=True)]


def rounds_to_single(copy: Ran) -> bool:
    """Whether some operation rounds to float32 whatever it is given, as bilinear resizing does.

    Outputs then move in steps: under the same noise, 1,024 times smaller, by far more than a
    1,024th of what they moved.
    """
    if any(interpolates(operation) for operation in operations(copy.model)):
        return True
    fine, coarse = (noise_effect(copy, 2.0**-n) for n in (30, 20))
    return any(f > 4 * c / 1024 for f, c in zip(fine, coarse, strict=True))


def single_unit(models: list[keras.Model]) -> float:
    """Unit of rounding of interpolation in float32, whose positions are rounded too."""
    sides = [
        n or max(FREE_SIZES)
        for model in models
        for operation in operations(model)
        for tensor in tree.flatten(operation.output)
        for n in tensor.shape[1:]
        if len(tensor.shape) > 2
    ]
    return SINGLE * max(sides, default=1)


def stored_eps(model: keras.Model) -> float:
    """Unit of rounding of a model's coarsest weights."""
    return max((eps_of(v.dtype) for v in model.weights if "float" in v.dtype), default=SINGLE)


def computed_eps(model: keras.Model) -> float:
    """Unit of rounding of the coarsest tensor or layer of a model."""
    dtypes = computed_dtypes(model)
    return max((eps_of(d) for d in dtypes if "float" in d), default=SINGLE)

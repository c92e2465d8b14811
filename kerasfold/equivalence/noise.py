"""Rounding, as noise in the weights of a model and in what its calls give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kerasfold.backend import in_memory, tensor_of
from kerasfold.read.inside import Made
from kerasfold.read.nodes import symbolic

LOST = 2.0**-16  # of other noise, that noise may be to be lost in it
LEVELS = 256  # that noise has between its ends
COARSE = 2.0**-20  # noise larger than what float32 rounds to
FINER = 2.0**-10  # times it, again and again, what is smaller
SATURATED = 2.0**-6  # of its size that noise moves an output by, at least, if it saturates
TIMES = 3  # that it is made smaller: then it is near float64's own


@dataclass(frozen=True, slots=True)
class Noise:
    """Rounding, as relative errors of up to half a unit.

    Attributes:
        weights: the unit of weights.
        values: the unit of what calls give.
        draw: which of several that are drawn alike.
    """

    weights: float
    values: float
    draw: int = 0

    @property
    def ends_at_weights(self) -> bool:
        """Whether that of values is lost in that of any weights before them."""
        return self.values <= LOST * self.weights


class Drawn:
    """Noise as it is drawn for one run, the same for every run of one model."""

    def __init__(self, noise: Noise) -> None:
        self.noise = noise
        self.rng = np.random.default_rng([0, noise.draw])
        self.of_values = np.random.default_rng([1, noise.draw])  # which depend on the batch's size
        self.moved: set[int] = set()  # tensors that noise of weights before them moves

    def weights(self, operation: keras.Operation) -> list[tuple[keras.Variable, Any]]:
        """The float weights of a layer or model, and what noise makes of them."""
        return [
            (variable, _noisy(tensor_of(variable), self.noise.weights, self.rng))
            for variable in getattr(operation, "weights", ())
            if "float" in variable.dtype
        ]

    def values(self, made: Made, results: Sequence[Any], weighted: bool) -> list[Any]:
        """What noise makes of the results of a call.

        Args:
            made: the call.
            results: what it gave.
            weighted: whether weights of its own were off.
        """
        read = {id(x) for x in symbolic((made.args, made.kwargs))}
        if self.noise.ends_at_weights and (weighted or not self.moved.isdisjoint(read)):
            self.moved.update(map(id, made.outputs))
            return list(results)
        return [_noisy(y, self.noise.values, self.of_values) for y in results]


def _noisy(value: Any, eps: float, rng: np.random.Generator) -> Any:
    """A tensor, each number of it off by up to half of `eps`, if it holds floats."""
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype)):
        return value
    array = np.asarray(in_memory(value), "float64")
    levels = rng.integers(-LEVELS // 2, LEVELS // 2, array.shape, "int8")
    noisy = np.multiply(levels, eps / LEVELS, dtype="float64")
    with np.errstate(over="ignore", invalid="ignore"):
        noisy *= array
        noisy += array
    return keras.ops.convert_to_tensor(noisy, dtype=value.dtype)


def moves_in_steps(moved: Callable[[float], Sequence[float]], sizes: Sequence[float]) -> bool:
    """Whether outputs move in steps that are larger than float64's, as where some of it is float32.

    Then noise that is much smaller moves an output by far more than in proportion, or where it
    crosses no step, by far less. So does what saturates, but not if the noise is small enough.

    Args:
        moved: by how far the same noise, of a unit, moves each output.
        sizes: of the outputs.
    """
    coarse, fine = moved(COARSE), moved(FINER * COARSE)
    far = [f > 4 * FINER * c for c, f in zip(coarse, fine, strict=True)]
    if any(was and c < SATURATED * n for was, c, n in zip(far, coarse, sizes, strict=True)):
        return True
    for time in range(2, TIMES + 1):
        if not any(far):
            return False
        coarse, fine = fine, moved(FINER**time * COARSE)
        pairs = list(zip(far, coarse, fine, strict=True))
        if any(was and f < FINER / 4 * c for was, c, f in pairs):
            return True
        far = [was and f > 4 * FINER * c for was, c, f in pairs]
    return any(far)

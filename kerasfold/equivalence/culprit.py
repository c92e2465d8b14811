"""Which layer it is: where two models part, and what a backend computes wrongly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kerasfold.emit import Emission, copy
from kerasfold.equivalence.bounds import eps_of, largest_error, spread_of
from kerasfold.equivalence.runs import ran
from kerasfold.errors import FoldError
from kerasfold.lift.regions import Regions, lift, lifted
from kerasfold.read.graph import Call, part_of


def first_difference(first: Emission, second: Emission, batch: Any, regions: Regions) -> str:
    """In words, the first tensor, in the order of the calls, that both make and that differs."""
    shared = [
        (call, t.index)
        for call in regions.graph.calls
        for t in call.outputs
        if t.index in first.tensors and t.index in second.tensors
    ]
    if not shared:
        return "no tensor between input and output is common to both models"
    tensors = [index for _, index in shared]
    pairs = zip(*(_tensors(emission, tensors, batch) for emission in (first, second)), strict=True)
    for (call, _), (x, y) in zip(shared, pairs, strict=True):
        if x.dtype.kind == "f" and largest_error(y, x) > 1e-9 * (spread_of(x) or 1.0):
            return f"the first tensor that differs is that of layer '{call.name}'"
    return "no tensor between input and output differs on its own"


def miscomputed(model: keras.Model, batch: Any) -> tuple[str, float] | None:
    """The layer that the backend computes wrongly in its own dtype, and by how much.

    Found by running the one layer both ways, on the same inputs: a copy of it as it is, and one
    in float64. Two copies of one config part by more than rounding where the backend errs.

    Args:
        model: one that differs from its own float64 copy.
        batch: inputs that it differs on.

    Returns:
        None where there is no such layer.
    """
    try:
        regions = lifted(model)
        own, double = copy(regions), copy(regions, "float64")
        made = own.tensors.keys() & double.tensors.keys()
        calls = [c for c in regions.graph.calls if {t.index for t in c.outputs} <= made]
        tensors = sorted({t.index for c in calls for t in (*c.inputs, *c.outputs)})
        given, exact = (
            dict(zip(tensors, _tensors(emission, tensors, batch), strict=True))
            for emission in (own, double)
        )
        for call in calls:
            if any(_parts(given[t.index], exact[t.index]) for t in call.outputs):
                off = _both_ways(regions, call, [exact[t.index] for t in call.inputs])
                if off:
                    return call.name, off
    except FoldError:  # what is no graph, or does not run in float64
        return None
    return None


def _both_ways(regions: Regions, call: Call, inputs: Sequence[np.ndarray]) -> float:
    """How far a layer is off itself in float64, on the same inputs; 0.0 if by rounding."""
    one = lift(part_of(regions.graph, [call], call.outputs))
    distinct = dict(zip((t.index for t in call.inputs), inputs, strict=True))
    batch = [distinct[t.index] for t in one.graph.inputs]
    own, exact = (ran(copy(one, dtype).model, [batch]).outputs for dtype in (None, "float64"))
    return max(
        (largest_error(x, y) for x, y in zip(own, exact, strict=True) if _parts(x, y)), default=0.0
    )


def _parts(own: np.ndarray, exact: np.ndarray) -> bool:
    """Whether two results part by more than rounding does."""
    scale = float(np.max(np.abs(exact), initial=0.0, where=np.isfinite(exact)))
    return own.dtype.kind == "f" and not (
        largest_error(own, exact) <= math.sqrt(eps_of(str(own.dtype))) * scale
    )


def _tensors(emission: Emission, tensors: Sequence[int], batch: Any) -> list[np.ndarray]:
    """The values of some tensors of an emitted model."""
    outputs = [emission.tensors[index] for index in tensors]
    return ran(keras.Model(emission.model.input, outputs), [batch]).outputs

"""Two models, or a fold and its original, and the float64 copies that are the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from kerasfold.backend import full_precision, own_seeds
from kerasfold.compose import Compose
from kerasfold.emit import Emission, copy, emit
from kerasfold.equivalence.bounds import (
    EXACT,
    SINGLE,
    noise_bound,
    spread_of,
    stored_eps,
)
from kerasfold.equivalence.compare import Runs, compare
from kerasfold.equivalence.culprit import first_difference
from kerasfold.equivalence.data import Given
from kerasfold.equivalence.probes import probes
from kerasfold.equivalence.report import EquivalenceReport
from kerasfold.equivalence.runs import ran, run
from kerasfold.equivalence.signature import refuse_other_shapes
from kerasfold.errors import FoldError, only_fold_errors
from kerasfold.forms.form import AnyForm
from kerasfold.lift.regions import Regions, lifted
from kerasfold.read.weights import require_values


def verify(
    a: keras.Model, b: keras.Model, data: Any = None, input_shape: Any = None
) -> EquivalenceReport:
    """Compare two models: the same function, and is `b` as accurate as `a`?

    Never raises on a mere difference.

    Args:
        a: the reference.
        b: the model that should compute the same.
        data: optional inputs in place of random ones: an array (n, ...), a structure of
            arrays as the model takes it or by input names, or batches of them
            (`tf.data.Dataset`, `keras.utils.PyDataset`, an iterator), of which `(x, y)` pairs
            give `x`.
        input_shape: where inputs are random and sizes free: the shape of one without the batch, or
            a structure of shapes as the model takes its inputs.

    Returns:
        An `EquivalenceReport`.

    Raises:
        FoldError: models whose inputs or outputs differ in number or shape, or data that does
            not fit them.
    """
    require_values("verify()")
    for model in (a, b):
        if not isinstance(model, keras.Model):
            raise FoldError(f"verify() compares keras.Model values. Received: {type(model)}")
    refuse_other_shapes(a, b)

    def bound(runs: Runs, dtype: str, unit: float) -> list[float]:
        return noise_bound(
            [
                (r64, max(stored_eps(r.model), unit))
                for r, r64 in ((runs.a, runs.a64), (runs.b, runs.b64))
            ]
        )

    with only_fold_errors("verify()"), own_seeds(), full_precision():
        batches = list(Given(a, data)) if data is not None else probes(a, input_shape)
        first, second = _in_float64(a), _in_float64(b)
        report, runs = compare(a, b, first, second, batches, bound)
    return report if data is None else replace(report, agreement=_agreement(runs))


def assert_equivalent(
    a: keras.Model, b: keras.Model, data: Any = None, input_shape: Any = None
) -> None:
    """Raise AssertionError, with the report, unless `verify` of the same arguments holds."""
    report = verify(a, b, data, input_shape)
    if not report.equivalent:
        raise AssertionError(str(report))


def verify_fold(
    regions: Regions,
    forms: Mapping[int, AnyForm],
    compose: Compose,
    original: keras.Model,
    folded: keras.Model,
    data: Any = None,
    input_shape: Any = None,
) -> EquivalenceReport:
    """Compare a fold that still holds its unrounded weights with its original, as `verify` does."""
    with full_precision():
        batches = list(Given(original, data)) if data is not None else probes(original, input_shape)
        first, dtype = original_in_precision(regions, batches[:1])
        second = emit(regions, forms, compose, dtype=dtype)
        report, _ = compare(original, folded, first.model, second.model, batches, _bound_of_fold)
        if not report.equivalent:
            culprit = first_difference(first, second, batches[0], regions)
            report = replace(report, reason=f"{report.reason}; {culprit}")
    return report


def _bound_of_fold(runs: Runs, dtype: str, unit: float) -> list[float]:
    """Nothing but arithmetic, wherever that is of float64: no weight was rounded."""
    if dtype == "float64" and not unit:
        return [EXACT * spread_of(truth) for truth in runs.a64.outputs]
    eps = max(unit, SINGLE)
    return noise_bound([(runs.a64, eps), (runs.b64, eps)])


def original_in_precision(regions: Regions, batches: list[Any]) -> tuple[Emission, str | None]:
    """The original model in the highest precision that it runs in, and that precision.

    That is float64, or float32 where there is an operation that has no float64, such as
    AveragePooling3D on TensorFlow's CPU, or None where a layer can be copied in its own alone.

    Raises:
        FoldError: it does not run.
    """
    for dtype in ("float64", "float32"):
        try:
            emission = copy(regions, dtype)
            run(emission.model, batches)
        except Exception:
            continue
        return emission, dtype
    emission = copy(regions)
    ran(emission.model, batches)
    return emission, None


def _in_float64(model: keras.Model) -> keras.Model:
    """A float64 copy, or the model itself where it cannot be read and copied."""
    try:
        return copy(lifted(model), "float64").model
    except FoldError:
        return model


def _agreement(runs: Runs) -> float | None:
    """The share of inputs with the same top class; None without outputs that look like scores."""
    scores = [
        (x, y)
        for x, y in zip(runs.a.outputs, runs.b.outputs, strict=True)
        if x.ndim == 2 and x.shape[-1] > 1
    ]
    same = [float(np.mean(x.argmax(-1) == y.argmax(-1))) for x, y in scores]
    return min(same, default=None)

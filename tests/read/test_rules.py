"""Every lift rule against its own Keras layer, in float64 and in float32."""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np
import pytest

import kerasfold
from kerasfold.lift.rules import RULES
from zoo.augmentations import AUGMENTATIONS
from zoo.cases import CASES
from zoo.rows import Case
from zoo.same import FLOAT32, assert_same, kinds

EACH = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
FIRST = {case.id for case in {case.kind: case for case in reversed(CASES)}.values()}  # of each rule


def test_every_rule_has_a_row_and_every_row_a_rule() -> None:
    rules = {kind for kind in RULES if isinstance(kind, type) and issubclass(kind, keras.Layer)}
    assert rules == {case.kind for case in CASES} | set(AUGMENTATIONS)


def test_ids_are_unique() -> None:
    assert [name for name, n in Counter(case.id for case in CASES).items() if n > 1] == []


FREE = (  # which cost nothing under 'layers', and may stay
    *(keras.layers.Flatten, keras.layers.Reshape, keras.layers.ZeroPadding1D),
    *(keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D),
)


@EACH
def test_float64(case: Case) -> None:
    model = case.model("float64")
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert_same(model, folded, case.tolerance)
    if case.merges:
        assert kinds(folded).count("BatchNormalization") < kinds(model).count(
            "BatchNormalization"
        ) or (
            any({"layer", "bn"} <= {*row.layers} for row in folded.fold_report.merged)
        )  # where it is left, it is what the two became
        assert folded.fold_report.merged, str(folded.fold_report)
        together = {name for row in folded.fold_report.merged for name in row.layers}
        gone = together | set(folded.fold_report.removed)
        if case.kind in FREE:
            gone.add("layer")
        assert {"layer", "bn"} <= gone, str(folded.fold_report)
    assert folded.fold_report.layers_after <= folded.fold_report.layers_before


@EACH
def test_float32(case: Case) -> None:
    model = case.model("float32", seed=2)
    folded = kerasfold.fold(model, verify=case.id in FIRST)
    assert_same(model, folded, FLOAT32)
    found = folded.fold_report.equivalence
    assert found.equivalent if case.id in FIRST else found is None


@pytest.mark.parametrize("fault", ["kernel", "bias", "nan"])
def test_the_comparison_in_float32_can_fail(fault: str) -> None:
    model = next(case for case in CASES if case.id == "Conv2D-same").model("float32")
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT32)
    kernel, bias = folded.layers[-1].get_weights()
    if fault == "kernel":
        kernel.flat[np.abs(kernel).argmax()] *= 1.001
    elif fault == "bias":
        bias[np.abs(bias).argmin()] = 0.0
    else:
        bias[0] = np.nan
    folded.layers[-1].set_weights([kernel, bias])
    with pytest.raises(AssertionError, match="differs by"):
        assert_same(model, folded, FLOAT32)


@pytest.mark.parametrize("objective", ["macs", "params"])
@EACH
def test_other_objectives_never_make_it_worse(case: Case, objective: str) -> None:
    model = case.model("float64", seed=3)
    folded = kerasfold.fold(model, objective=objective, verify=False)
    assert_same(model, folded, case.tolerance)
    report = folded.fold_report
    before = getattr(report, f"{objective}_before")
    assert getattr(report, f"{objective}_after") <= before, str(report)
    if objective == "params":
        assert report.params_before == model.count_params()
        assert folded.count_params() == report.params_after <= model.count_params()

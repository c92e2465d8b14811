"""Random graphs hold in float64, border pixels included, under every objective.

KERASFOLD_GRAPHS sets how many examples run (default 250); a run of 10,000 is

    KERASFOLD_GRAPHS=10000 pytest tests/fold/test_random_graphs.py
"""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kerasfold
from laws.random_graphs import Recipe, Step, build, recipes

EXAMPLES = int(os.environ.get("KERASFOLD_GRAPHS", "250"))


def difference(recipe: Recipe, folded: keras.Model, model: keras.Model, xla: bool = False) -> float:
    """The largest difference of any output, relative to its scale; NaN where one has a NaN."""
    rng = np.random.default_rng(recipe.seed)
    x = rng.normal(size=(2, *recipe.sizes, recipe.channels))
    x = np.moveaxis(x, -1, 1) if recipe.first else x
    results = []
    for each in (model, folded):
        if xla:
            each.compile(jit_compile=True)
        results.append(keras.tree.flatten(each.predict_on_batch(x) if xla else each(x)))
    pairs = zip(*results, strict=True)
    errors = []
    for want, got in pairs:
        want, got = np.asarray(want), np.asarray(got)
        assert want.shape == got.shape
        scale = max(float(np.abs(want).max(initial=0.0)), 1e-9)
        errors.append(float(np.abs(want - got).max(initial=0.0)) / scale)
    return float(np.max(errors))  # Python's `max` passes over a NaN that is not the first


OBJECTIVES = st.sampled_from(("latency", "macs", "params", "layers"))


def examples(count: int) -> Any:
    return settings(
        max_examples=count, deadline=None, derandomize="KERASFOLD_GRAPHS" not in os.environ,
        suppress_health_check=list(HealthCheck), print_blob=True, database=None,
    )  # fmt: skip


def check(recipe: Recipe, objective: str, tolerance: float, xla: bool = False) -> None:
    model = build(recipe)
    folded = model.fold(objective=objective, verify=False)
    assert difference(recipe, folded, model, xla) < tolerance
    assert folded.output_names == model.output_names
    assert [x.shape for x in folded.outputs] == [x.shape for x in model.outputs]
    report = folded.fold_report
    worse = {
        "macs": report.macs_after > report.macs_before,
        "params": report.params_after > report.params_before,
        "layers": report.layers_after > report.layers_before,
    }
    assert not worse.get(objective, False), f"{objective} became worse: {report}"


@given(recipe=recipes(), objective=OBJECTIVES)
@examples(EXAMPLES)
def test_random_graphs(recipe, objective):
    check(recipe, objective, 1e-10)


@given(recipe=recipes(most_steps=5, xla=True), objective=OBJECTIVES)
@examples(EXAMPLES // 16)
def test_random_graphs_under_xla(recipe, objective):
    check(recipe, objective, 1e-10, xla=True)


@given(recipe=recipes(bilinear=True), objective=OBJECTIVES)
@examples(EXAMPLES // 8)
def test_random_graphs_with_bilinear_upsampling(recipe, objective):
    """TensorFlow interpolates in float32, whatever it is given."""
    check(recipe, objective, 1e-4)


@pytest.mark.parametrize("fault", ["scale", "bias", "tap"])
def test_the_comparison_can_fail(fault):
    options = (("kernel", (3, 3)), ("strides", (1, 1)), ("dilation", (1, 1)), ("padding", "same"),
               ("units", 2), ("multiplier", 1), ("bias", True), ("activation", None))  # fmt: skip
    recipe = Recipe(
        (6, 5), 2, False, False, (Step("conv", (0,), options), Step("batchnorm", (1,))), 7
    )
    model = build(recipe)
    folded = kerasfold.fold(model, verify=False)
    assert difference(recipe, folded, model) < 1e-10
    layer = folded.layers[-1]
    kernel, bias = layer.get_weights()
    if fault == "scale":
        kernel[..., 0] *= 1 + 1e-6
    elif fault == "bias":
        bias[1] = 0
    else:
        kernel = np.roll(kernel, 1, axis=0)
    layer.set_weights([kernel, bias])
    assert difference(recipe, folded, model) > 1e-8


def test_a_nan_in_an_output_behind_the_first_is_seen():
    recipe = Recipe((5,), 2, False, False, (Step("batchnorm", (0,)), Step("batchnorm", (0,))), 7)
    model = build(recipe)
    folded = kerasfold.fold(model, verify=False)
    assert len(folded.outputs) == 2
    assert difference(recipe, folded, model) < 1e-10
    *_, last = folded.outputs[1]._keras_history.operation.weights
    last.assign(np.full(last.shape, np.nan))
    assert np.isnan(difference(recipe, folded, model))

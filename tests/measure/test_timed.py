"""What is timed, how often, and what becomes of what there was no time for."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.compose import exact
from kerasfold.lift.regions import lift
from kerasfold.measure import measured
from kerasfold.measure.measured import Whole
from kerasfold.measure.tried import Tried
from kerasfold.pipeline import LAST
from kerasfold.read.graph import read
from zoo.blocks import conv
from zoo.choices import MODELS, blocks, stack
from zoo.making import randomise
from zoo.same import kinds
from zoo.stopwatch import by_measuring, calls, few_calls, is_part, many_calls, prices

pytestmark = pytest.mark.usefixtures("nothing_known")


def test_equal_geometry_is_timed_once(watch):
    found = watch(few_calls)
    folded = by_measuring(blocks(3))
    assert kinds(folded) == ["Conv2D", "Activation"] * 3
    (once,) = {len(models) for models in found.timed[:-1]}
    assert (found.components, once) == (1, 2)
    assert not any(map(is_part, found.timed[-1]))


def test_a_later_fold_knows_what_an_earlier_one_timed(watch):
    first, second, other = blocks(2), blocks(1), blocks(1, last="tanh")
    randomise(second, seed=7)
    found = watch(few_calls)
    by_measuring(first)
    found.timed.clear()
    for model in (first, second, other):
        folded = by_measuring(model)
        assert len([kind for kind in kinds(folded) if kind == "Conv2D"]) * 2 == len(kinds(folded))
    assert found.components == 0
    assert len(found.timed) == 3


def with_layout(layout: str, **own: Any) -> keras.Model:
    shape = (3, 12, 12) if layout == "channels_first" else (12, 12, 3)
    size = {"data_format": layout, "padding": "same"} | own
    return stack(conv(6, 1, **size), conv(3, **size), shape=shape)


@pytest.mark.parametrize(
    ("model", "runtime"),
    [
        (lambda: with_layout("channels_last"), "openvino"),
        (lambda: with_layout("channels_first"), "xla"),
        (lambda: with_layout("channels_last", dtype="float16"), "xla"),
        (lambda: stack(conv(6, 1, padding="same"), conv(3)), "xla"),
        (lambda: blocks(1), "xla"),
    ],
    ids=["runtime", "layout", "dtype", "geometry", "activation"],
)
def test_what_differs_is_timed_anew(model, runtime, watch):
    found = watch(few_calls)
    by_measuring(with_layout("channels_last"), verify=False)
    assert found.components == 1
    by_measuring(model(), runtime=runtime, verify=False)
    assert found.components == 2


def test_pinned_nodes_are_timed_anew(watch):
    found = watch(few_calls)
    regions = lift(read(MODELS["expand"]()))
    first, second, _ = regions.lifted

    def forms(*nodes: int) -> list[str]:
        clock = measured.Clock(60.0)
        chosen = measured.measured_plan(regions, composed, "xla", clock, nodes).plan
        return [form.name for form in chosen.forms.values()]

    composed = exact(regions)

    assert forms() == ["operator"]
    assert forms(first) == ["keep", "operator"]
    assert forms(second) == ["operator", "keep"]
    assert forms(first, second) == ["keep"] * 3
    assert found.components == 3  # there is one way with both pinned
    assert forms() == ["operator"]
    assert found.components == 3


def test_with_no_budget_nothing_is_timed_and_the_plan_is_that_for_latency(watch):
    for name, make in MODELS.items():
        model = make()
        found = watch(prices(0))
        folded = by_measuring(model, budget=0.0)
        assert (found.timed, found.deployed) == ([], []), name
        usual = kerasfold.fold(model, "latency", verify=False)
        assert sorted(calls(folded)) == sorted(calls(usual)), name


def test_a_component_is_planned_for_latency_where_no_time_is_left(watch):
    """The most expensive one, as modelled, is timed first."""
    model = stack(
        conv(4, 1), conv(3), layers.ReLU(), conv(16, 1), conv(16), layers.ReLU(), conv(3, 1)
    )
    usual = kerasfold.fold(model, "latency", verify=False)
    assert len(kinds(usual)) == 5
    found = watch(lambda model: (many_calls if is_part(model) else few_calls)(model))
    found.steps = (0.0, 10.0)
    folded = by_measuring(model, budget=5.0)
    assert found.components == 1
    assert [x.name for x in folded.layers if isinstance(x, layers.Conv2D)] == [
        *[x.name for x in usual.layers if isinstance(x, layers.Conv2D)][:1],
        *[x.name for x in model.layers if isinstance(x, layers.Conv2D)][2:],
    ]


@pytest.mark.parametrize(("step", "left"), [(40.0, 460.0), (600.0, LAST)])
def test_the_whole_model_is_timed_for_what_its_parts_left(watch, monkeypatch, step, left):
    found = watch(few_calls)
    found.steps = (0.0, step)
    given: list[float] = []

    def spied(folded: Any, model: Any, inputs: Any, runtime: str, seconds: float) -> Whole:
        given.append(seconds)
        return Whole(True, Tried(runtime, (), ()))

    monkeypatch.setattr("kerasfold.pipeline.timed_whole", spied)
    by_measuring(stack(conv(8, 1), conv(3)), budget=500.0, verify=False)
    assert len(found.timed) == 1
    assert given == [left]


def test_what_there_was_no_time_for_is_timed_when_there_is(watch):
    """A component that is broken off is held against its original, and is not taken as known."""
    model = MODELS["3x3-pool-3x3"]()
    price = prices(1)
    found = watch(lambda model: few_calls(model) if len(kinds(model)) < 3 else 1.5)
    found.steps = (10.0, 0.0)
    by_measuring(model, budget=5.0, verify=False)
    first = found.timed[0]
    assert len(first) == 2
    assert any(kinds(m) == kinds(model) for m in first)
    found.timed.clear()
    found.price = price
    by_measuring(model, budget=500.0, verify=False)
    assert max(map(len, found.timed)) > 2
    found.timed.clear()
    by_measuring(model, budget=500.0, verify=False)
    assert found.components == 0  # now it is known


def test_what_was_timed_still_counts_when_an_overflow_is_found_after_the_budget(watch):
    """The second component is not timed, and merged as for latency its weights overflow."""
    half = {"dtype": "float16"}
    model = keras.Sequential(
        [
            keras.Input((12, 12, 4), dtype="float16"),
            *(conv(6, 1, **half), conv(4, **half), layers.ReLU(**half)),
            *(conv(4, 1, **half), layers.BatchNormalization(name="norm", **half)),
        ]
    )
    norm = model.get_layer("norm")
    norm.gamma.assign(np.full(4, 6e4))
    norm.moving_variance.assign(np.full(4, 1e-3))
    model.layers[-2].kernel.assign(np.full((1, 1, 4, 4), 3e2))
    assert kinds(kerasfold.fold(model, "latency", verify=False))[:2] == ["Conv2D", "ReLU"]
    found = watch(lambda model: (many_calls if is_part(model) else few_calls)(model))
    found.steps = (0.0, 10.0)
    folded = by_measuring(model, budget=5.0, verify=False)
    assert found.components == 1
    assert kinds(folded) == ["Conv2D", "Conv2D", "ReLU", "Conv2D", "BatchNormalization"]

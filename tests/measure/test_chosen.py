"""Folding by measuring: whatever the stopwatch says, the plan it likes best is the one chosen.

No test here asserts on a duration.
"""

from __future__ import annotations

import functools
import itertools

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.cost import OBJECTIVES, UNTIMED
from kerasfold.errors import EquivalenceError, FoldError
from kerasfold.forms.kept import Kept
from kerasfold.lift.regions import lift
from kerasfold.measure import measured
from kerasfold.plan.choose import plan
from kerasfold.plan.search import Search
from kerasfold.read.graph import read
from zoo.blocks import conv
from zoo.choices import MODELS, blocks, emitted, stack
from zoo.making import policy, randomise
from zoo.same import FLOAT32, FLOAT64, assert_same, kinds
from zoo.stopwatch import by_measuring, few_calls, is_part, many_calls, prices

pytestmark = pytest.mark.usefixtures("nothing_known")


@pytest.fixture
def _everything(monkeypatch):
    """No way is left out for what it costs by the roofline."""
    monkeypatch.setattr(measured, "HOPELESS", np.inf)
    monkeypatch.setattr(measured, "TIMED", 10_000)


@functools.cache
def plans(name: str) -> tuple[keras.Model, keras.Model, list[list[keras.Model]]]:
    """A model, what it is with nothing merged, and with each way of each component by itself."""
    with policy("float64"):
        model = MODELS[name]()
    regions = lift(read(model))
    search = Search(regions, OBJECTIVES["latency"], frozenset())
    kept = {index: Kept.of(search.known, index) for index in regions.lifted}
    changed = []
    for component in regions.components():
        others = {i: s for i, s in kept.items() if i not in {n.index for n in component}}
        every = list(search.every(component, 10_000))
        assert len(every) < 10_000
        changed.append([emitted(regions, others | way) for way in every])
    return model, emitted(regions, kept), changed


# what is chosen


@pytest.mark.usefixtures("_everything")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", MODELS)
def test_the_cheapest_of_all_plans_is_chosen_and_exact(name, seed, watch):
    (model, original, changed), price = plans(name), prices(seed)
    watch(price)
    folded = by_measuring(model)
    least = price(original)
    least += sum(min(map(price, ways)) - price(original) for ways in changed)
    assert price(folded) == pytest.approx(least)
    assert folded.fold_report.equivalence.equivalent
    assert_same(model, folded, FLOAT64)


@pytest.mark.usefixtures("_everything")
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ["3x3-pool-3x3", "expand", "same on same", "repvgg"])
def test_no_set_of_tensors_planned_by_hand_is_cheaper(name, seed, watch):
    """Told what to materialise, under every objective."""
    model, price = MODELS[name](), prices(seed)
    watch(price)
    found = price(by_measuring(model, verify=False))
    regions, tried = lift(read(model)), set()
    for count in range(len(regions.lifted) + 1):
        for chosen in itertools.combinations(regions.lifted, count):
            for objective in UNTIMED:
                try:
                    told = plan(regions, objective, materialise=chosen)
                except FoldError:
                    continue
                forms = tuple((form.words(regions), form.visited) for form in told.forms.values())
                if forms not in tried:
                    tried.add(forms)
                    assert found <= price(emitted(regions, dict(told.forms))) + 1e-9


def test_few_calls_or_many(watch):
    """The same model, as its stopwatch likes it."""
    model = MODELS["3x3-pool-3x3"]()
    watch(few_calls)
    assert kinds(by_measuring(model)) == ["Conv2D"]
    measured._CACHE.clear()
    watch(many_calls)
    assert kinds(by_measuring(model)) == ["Conv2D", "AveragePooling2D", "Conv2D"]


@pytest.mark.parametrize("name", ["3x3-pool-3x3", "expand", "same on same"])
def test_the_original_wins_ties(name, watch):
    model = MODELS[name]()
    found = watch(lambda model: 1.0)
    folded = by_measuring(model)
    assert all(len(models) > 1 for models in found.timed)
    assert kinds(folded) == kinds(model)
    assert folded.fold_report.merged == ()


def test_the_original_wins_where_the_gain_is_not_sure(watch):
    """It is better by far in the middle, of deployments whose interval holds 1."""
    model = MODELS["3x3-pool-3x3"]()
    found = watch(few_calls)
    found.unsure = 3.0
    folded = by_measuring(model)
    assert kinds(folded) == kinds(model)
    (attempt,) = [a for a in folded.fold_report.tried[0].attempts if a.what.count("+") == 0]
    assert attempt.gain.median == pytest.approx(3.0)
    assert attempt.gain.low < 1 < attempt.gain.high


def test_what_does_part_of_the_work_of_another_needs_no_clock(watch):
    found = watch(prices(0))
    folded = by_measuring(stack(conv(4), layers.BatchNormalization(), layers.Dropout(0.1)))
    assert kinds(folded) == ["Conv2D"]
    assert found.components == 0
    assert len(found.timed) == 1  # the whole


def test_a_fold_that_is_slower_as_a_whole_is_replaced_by_the_original(watch):
    model = MODELS["3x3-pool-3x3"]()
    found = watch(lambda model: (few_calls if is_part(model) else many_calls)(model))
    folded = by_measuring(model)
    assert kinds(found.timed[-1][1]) == ["Conv2D"]
    assert kinds(folded) == kinds(model)
    assert [x.name for x in folded.layers[1:]] == [x.name for x in model.layers]
    assert (folded.fold_report.merged, folded.fold_report.objective) == ((), "measured")
    assert folded.fold_report.macs_after == folded.fold_report.macs_before
    assert_same(model, folded, FLOAT32)


# the report, the bar, and real runs


def test_the_report_says_what_was_minimised(watch):
    watch(few_calls)
    report = by_measuring(MODELS["expand"]()).fold_report
    assert report.objective == report.to_dict()["objective"] == "measured"
    assert "objective measured" in str(report)
    assert report.equivalence.equivalent
    assert (report.layers_before, report.layers_after) == (3, 1)


def test_the_report_says_what_was_tried_and_taken(watch):
    found = watch(few_calls)
    found.wrong = lambda m: len(kinds(m)) == 1 and is_part(m)
    model = MODELS["3x3-pool-3x3"]()
    *parts, whole = by_measuring(model).fold_report.tried
    (part,) = parts
    assert part.runtime == "xla"
    assert part.layers == tuple(layer.name for layer in model.layers)
    (original,) = [attempt for attempt in part.attempts if attempt.is_original]
    assert (original.milliseconds, original.gain, original.taken) == (3e3, None, False)
    (taken,) = [attempt for attempt in part.attempts if attempt.taken]
    assert (taken.milliseconds, taken.gain.median) == (2e3, pytest.approx(1.5))
    (wrong,) = [attempt for attempt in part.attempts if attempt.note]
    assert (wrong.milliseconds, wrong.note) == (None, "xla computes it wrongly")
    assert whole.layers == ()
    assert [attempt.milliseconds for attempt in whole.attempts] == [3e3, 2e3]
    assert [attempt.taken for attempt in whole.attempts] == [False, True]


def test_a_wrong_fold_is_not_handed_out(watch, monkeypatch):
    """Random weights: no such way is chosen, and without a clock it is found out."""
    watch(few_calls)
    noise = keras.initializers.RandomNormal(seed=1)
    monkeypatch.setattr("kerasfold.read.weights.start_as", lambda values: noise)
    model = stack(conv(12, 1), conv(12), conv(4, 1))
    assert kinds(by_measuring(model)) == ["Conv2D"] * 3
    assert kinds(kerasfold.fold(model, verify=False)) == ["Conv2D"]
    measured._CACHE.clear()
    with pytest.raises(EquivalenceError):
        by_measuring(model, budget=0.0)


def test_outputs_that_are_no_numbers_are_no_fault(watch):
    """The root of a negative number, here and there."""
    x = keras.Input((8, 8, 3))
    y = keras.ops.sqrt(conv(4, 1)(conv(8)(x)))
    watch(few_calls)
    folded = by_measuring(randomise(keras.Model(x, y)), verify=False)
    assert kinds(folded) == ["Conv2D"]


@pytest.mark.parametrize("progress", [False, True])
def test_what_goes_on_is_drawn_whatever_is_minimised(progress, monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    kerasfold.fold(blocks(1), progress=progress)
    out, err = capfd.readouterr()
    assert out == ""
    stages = ("reading the layers", "planning", "building", "comparing with the original")
    assert [stage in err for stage in stages] == [progress] * 4


@pytest.mark.parametrize("progress", [False, True])
def test_the_bar_is_drawn_on_stderr(progress, watch, monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    watch(few_calls)
    by_measuring(blocks(2), progress=progress)
    out, err = capfd.readouterr()
    assert out == ""
    assert ("measuring on xla, 1 of 2 parts" in err) == progress


@pytest.mark.parametrize("runtime", ["tensorflow", "litert"])
def test_a_real_run(runtime, capfd, monkeypatch):
    monkeypatch.setattr("kerasfold.pipeline.LAST", 1.0)
    model = MODELS["expand"]()
    folded = kerasfold.fold(model, "measured", runtime=runtime, budget=2.0)
    assert folded.fold_report.objective == "measured"
    assert folded.fold_report.equivalence.equivalent
    assert_same(model, folded, FLOAT32)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("price", [many_calls, few_calls])
def test_dead_channels_are_not_computed(price, watch):
    """Whatever the clock says; it is the original's time that a fold's is held against."""
    found = watch(price)
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(6, 3, name="first", use_bias=False)(x)
    y = layers.ReLU()(layers.BatchNormalization(name="bn")(y))
    model = randomise(keras.Model(x, layers.Conv2D(4, 3, name="second")(y)))
    bn, dead = model.get_layer("bn"), np.array([1, 0, 1, 1, 0, 1], "float32")
    bn.gamma.assign(bn.gamma * dead)
    bn.beta.assign(bn.beta * dead)
    folded = by_measuring(model)
    assert folded.get_layer("second").kernel.shape[2] == 4
    assert_same(model, folded, FLOAT32)
    assert found.timed[-1][0].count_params() == model.count_params()
    assert by_measuring(model, keep_channels=True).get_layer("second").kernel.shape[2] == 6

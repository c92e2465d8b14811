"""Folding by measuring: whatever the stopwatch says, the plan it likes best is the one chosen.

No test here asserts on a duration. A stopwatch of the test's own gives every model a cost that
depends on its calls alone.
"""

from __future__ import annotations

import importlib
import itertools
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

import kerasfold
from kerasfold.compose import exact
from kerasfold.cost import OBJECTIVES, UNTIMED
from kerasfold.emit import emit
from kerasfold.errors import EquivalenceError, FoldError, RuntimeUnavailableError
from kerasfold.forms.form import AnyForm
from kerasfold.forms.kept import Kept
from kerasfold.lift.regions import Regions, lift
from kerasfold.measure import measured, runtimes
from kerasfold.measure.parts import part, readers_of
from kerasfold.pipeline import LAST
from kerasfold.plan.choose import plan
from kerasfold.plan.search import Search
from kerasfold.read.graph import read
from kerasfold.read.model import input_structure
from laws.random_graphs import build, recipes
from zoo.making import policy, randomise
from zoo.same import FLOAT32, FLOAT64, assert_same, kinds

Priced = Callable[[keras.Model], float]


def conv(filters: int, size: int = 3, **settings: Any) -> keras.layers.Layer:
    return layers.Conv2D(filters, size, **settings)


def stack(*own: keras.layers.Layer, shape: tuple[int, ...] = (12, 12, 3)) -> keras.Model:
    return randomise(keras.Sequential([keras.Input(shape), *own], name="stack"))


def calls(model: keras.Model) -> Iterator[tuple[Any, ...]]:
    """What tells the calls of a model apart."""
    for call in read(model).calls:
        own = call.operation
        sizes = [getattr(own, x, None) for x in ("kernel_size", "pool_size", "strides", "filters")]
        yield (type(own).__name__, *map(str, sizes))


def prices(seed: int) -> Priced:
    """A made-up price for each kind of call."""

    def price(call: tuple[Any, ...]) -> float:
        return random.Random(f"{seed} {call}").uniform(1, 9)

    return lambda model: sum(map(price, calls(model)))


def few_calls(model: keras.Model) -> float:
    return float(len(list(calls(model))))


def many_calls(model: keras.Model) -> float:
    return 100.0 - few_calls(model)


class Stopwatch:
    """Stands for a runtime and for the time that it takes.

    Attributes:
        price: what a run of a model takes.
        deployed: every model that was brought to a runtime.
        timed: every list of models that were timed together.
        wrong: models whose outputs are wrong on the runtime.
        refused: models that the runtime does not take.
        now: what its clock shows.
        steps: what a deployment, and a timing, adds to that.
    """

    def __init__(self, price: Priced) -> None:
        self.price = price
        self.deployed: list[keras.Model] = []
        self.timed: list[list[keras.Model]] = []
        self.wrong: Callable[[keras.Model], bool] = lambda model: False
        self.refused: Callable[[keras.Model], bool] = lambda model: False
        self.now = 0.0
        self.steps = (0.0, 0.0)

    def deploy(self, model: keras.Model, runtime: str, inputs: Any) -> Any:
        if runtime != "tensorflow":
            self.deployed.append(model)
            self.now += self.steps[0]
            if self.refused(model):
                raise FoldError(f"{runtime} does not take model '{model.name}': no such kernel")
        own = keras.tree.pack_sequence_as(input_structure(model), list(inputs))
        off = 1.0 if self.wrong(model) and runtime != "tensorflow" else 0.0

        def run() -> list[np.ndarray]:
            outputs = keras.tree.flatten(model(own, training=False))
            return [np.asarray(y) * (1 + off) for y in outputs]

        run.model = model  # type: ignore[attr-defined]
        return run

    def paired_seconds(self, runs: Any, rounds: int, seconds: float = np.inf) -> np.ndarray:
        self.timed.append([run.model for run in runs])
        self.now += self.steps[1]
        return np.tile([self.price(run.model) for run in runs], (rounds, 1))

    @property
    def components(self) -> int:
        """How many components were timed."""
        return sum(all(map(is_part, models)) for models in self.timed)


def is_part(model: keras.Model) -> bool:
    return any(x.name.startswith("part_input") for x in model.inputs)


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    """Every test starts with nothing timed."""
    monkeypatch.setattr(measured, "_CACHE", {})


@pytest.fixture
def watch(monkeypatch) -> Callable[[Priced], Stopwatch]:
    def start(price: Priced) -> Stopwatch:
        found = Stopwatch(price)
        monkeypatch.setattr(measured, "deploy", found.deploy)
        monkeypatch.setattr(measured, "paired_seconds", found.paired_seconds)
        monkeypatch.setattr(measured, "time", SimpleNamespace(perf_counter=lambda: found.now))
        return found

    return start


@pytest.fixture
def _everything(monkeypatch):
    """No way is left out for what it costs by the roofline."""
    monkeypatch.setattr(measured, "HOPELESS", np.inf)
    monkeypatch.setattr(measured, "TIMED", 10_000)


def by_measuring(model: keras.Model, **settings: Any) -> keras.Model:
    return kerasfold.fold(model, "measured", **{"runtime": "xla", "budget": 60.0} | settings)


def emitted(regions: Regions, segments: dict[int, AnyForm]) -> keras.Model:
    return emit(regions, dict(sorted(segments.items())), exact(regions)).model


def least(model: keras.Model, price: Priced) -> float:
    """The lowest price of all plans, on whole models: one component changes at a time."""
    regions = lift(read(model))
    search = Search(regions, OBJECTIVES["latency"].key, frozenset())
    kept = {index: Kept.of(search.known, index) for index in regions.lifted}
    total = original = price(emitted(regions, kept))
    for component in regions.components():
        others = {i: s for i, s in kept.items() if i not in {n.index for n in component}}
        every = list(search.every(component, 10_000))
        assert len(every) < 10_000
        total += min(price(emitted(regions, others | way)) for way in every) - original
    return total


# the models


def repvgg() -> keras.Model:
    x = keras.Input((9, 9, 4))
    branches = [
        layers.BatchNormalization()(conv(4, k, padding="same", use_bias=False)(x)) for k in (3, 1)
    ]
    y = layers.Add()([*branches, layers.BatchNormalization()(x)])
    return randomise(keras.Model(x, layers.ReLU()(y)))


def two_branches() -> keras.Model:
    """Activations between, so that there are several components."""
    x = keras.Input((12, 12, 3))
    left = conv(4)(layers.ReLU()(conv(8, 1)(conv(8)(x))))
    right = conv(4, 1)(layers.AveragePooling2D(3, 1)(layers.Activation("tanh")(conv(5)(x))))
    return randomise(keras.Model(x, [layers.Add()([left, right]), right]))


def inline() -> keras.Model:
    return stack(conv(6, 1), conv(4, activation="relu"), conv(8), conv(3, 1, activation="tanh"))


def nested() -> keras.Model:
    inner = keras.Sequential([keras.Input((12, 12, 3)), conv(5), layers.Dropout(0.5), conv(3, 1)])
    x = keras.Input((12, 12, 3))
    return randomise(keras.Model(x, layers.AveragePooling2D(2)(conv(4, 1)(inner(x)))))


def shared() -> keras.Model:
    """One layer in two places, with something to merge behind each."""
    x = keras.Input((12, 12, 3))
    layer, after = conv(3, padding="same"), conv(2, 1)
    y = layers.ReLU()(layer(x))
    return randomise(keras.Model(x, [after(layer(y)), layers.AveragePooling2D(2)(layer(x))]))


MODELS: dict[str, Callable[[], keras.Model]] = {
    "3x3-pool-3x3": lambda: stack(conv(4), layers.AveragePooling2D(2), conv(4)),
    "expand": lambda: stack(conv(12, 1), conv(12), conv(4, 1)),
    "same on same": lambda: stack(conv(8, padding="same"), conv(4, padding="same")),
    "pool-1x1": lambda: stack(layers.AveragePooling2D(3, 1), conv(6, 1)),
    "repvgg": repvgg,
    "two branches": two_branches,
    "inline": inline,
    "nested": nested,
    "shared": shared,
}


# what is chosen


@pytest.mark.usefixtures("_everything")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", MODELS)
def test_the_cheapest_of_all_plans_is_chosen_and_exact(name, seed, watch):
    with policy("float64"):
        model = MODELS[name]()
    price = prices(seed)
    watch(price)
    folded = by_measuring(model)
    assert price(folded) == pytest.approx(least(model, price))
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
    regions = lift(read(model))
    for count in range(len(regions.lifted) + 1):
        for chosen in itertools.combinations(regions.lifted, count):
            for objective in UNTIMED:
                try:
                    told = plan(regions, objective, materialise=chosen)
                except FoldError:
                    continue
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


def test_the_original_wins_where_the_gain_is_not_sure(watch, monkeypatch):
    """A median that is better by far, of ratios whose interval holds 1."""
    model = MODELS["3x3-pool-3x3"]()
    found = watch(few_calls)
    steady = found.paired_seconds

    def uneasy(runs: Any, rounds: int, seconds: float = np.inf) -> np.ndarray:
        times = steady(runs, rounds)
        slow = [few_calls(run.model) == 1 for run in runs]
        times[: int(0.45 * rounds), slow] = 50.0
        return times

    monkeypatch.setattr(measured, "paired_seconds", uneasy)
    assert kinds(by_measuring(model)) == kinds(model)


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


# what is timed


def blocks(count: int, last: str = "relu") -> keras.Model:
    own = []
    for i in range(count):
        end = layers.Activation(last if i == count - 1 else "relu")
        own += [conv(6, padding="same"), conv(3, 1), end]
    return stack(*own)


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


def test_held_nodes_are_timed_anew(watch):
    found = watch(few_calls)
    regions = lift(read(MODELS["expand"]()))
    first, second, _ = regions.lifted

    def forms(*held: int) -> list[str]:
        chosen = measured.measured_plan(regions, composed, "xla", measured.Clock(60.0), pinned=held)
        return [segment.name for segment in chosen.forms.values()]

    composed = exact(regions)

    assert forms() == ["operator"]
    assert forms(first) == ["keep", "operator"]
    assert forms(second) == ["operator", "keep"]
    assert forms(first, second) == ["keep"] * 3
    assert found.components == 3  # there is one way with both held
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

    def spied(folded: Any, model: Any, runtime: str, seconds: float) -> bool:
        given.append(seconds)
        return False

    monkeypatch.setattr("kerasfold.pipeline.is_no_better", spied)
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


# runtimes with defects


def test_what_a_runtime_computes_wrongly_is_never_chosen(watch):
    model = MODELS["3x3-pool-3x3"]()
    found = watch(few_calls)
    found.wrong = lambda m: len(kinds(m)) == 1
    folded = by_measuring(model)
    assert len(kinds(folded)) == 2
    assert all(len(kinds(m)) > 1 for models in found.timed for m in models)
    assert any(len(kinds(m)) == 1 for m in found.deployed)


def test_what_a_runtime_refuses_is_passed_over(watch):
    model = MODELS["3x3-pool-3x3"]()
    found = watch(few_calls)
    found.refused = lambda m: len(kinds(m)) == 1
    assert len(kinds(by_measuring(model))) == 2
    found.refused = lambda m: is_part(m) and len(kinds(m)) == 3  # the original alone
    measured._CACHE.clear()
    assert len(kinds(by_measuring(model))) == 1


def test_what_tensorflow_refuses_is_held_against_the_original_on_the_runtime(watch, monkeypatch):
    found = watch(few_calls)

    def deploy(model: keras.Model, runtime: str, inputs: Any) -> Any:
        if runtime == "tensorflow":
            raise FoldError("tensorflow does not take it")
        return found.deploy(model, runtime, inputs)

    monkeypatch.setattr(measured, "deploy", deploy)
    model = MODELS["3x3-pool-3x3"]()
    assert len(kinds(by_measuring(model, verify=False))) == 1
    measured._CACHE.clear()
    found.wrong = lambda m: len(kinds(m)) == 1
    assert len(kinds(by_measuring(model, verify=False))) == 2


@pytest.mark.parametrize("fault", ["wrong", "refused"])
def test_a_fold_that_a_runtime_takes_in_parts_alone_is_replaced_by_the_original(fault, watch):
    model = MODELS["3x3-pool-3x3"]()
    found = watch(few_calls)
    setattr(found, fault, lambda m: not is_part(m) and len(kinds(m)) == 1)
    folded = by_measuring(model)
    assert kinds(folded) == kinds(model)
    assert folded.fold_report.merged == ()


def test_a_fold_is_kept_where_the_original_is_what_a_runtime_computes_wrongly(watch):
    model = MODELS["3x3-pool-3x3"]()
    found = watch(few_calls)
    found.wrong = lambda m: len(kinds(m)) == 3
    assert kinds(by_measuring(model)) == ["Conv2D"]


def test_a_runtime_that_computes_nothing_right_gets_the_original(watch):
    found = watch(few_calls)
    found.wrong = lambda m: True
    model = MODELS["expand"]()
    assert kinds(by_measuring(model)) == kinds(model)
    assert found.timed == []


def test_a_runtime_that_refuses_everything_is_named(monkeypatch):
    def refuses(model: keras.Model, inputs: Any) -> Any:
        raise RuntimeError("no such kernel\nand a long story")

    monkeypatch.setitem(runtimes.RUNTIMES, "xla", refuses)
    message = r"^xla does not take model 'stack': RuntimeError: no such kernel$"
    for model in (MODELS["expand"](), stack(conv(3))):  # with and without a choice
        with pytest.raises(FoldError, match=message):
            by_measuring(model)


@pytest.mark.parametrize("runtime", ["tpu", None, 3, ""])
def test_an_unknown_runtime_is_refused_before_the_model_is_read(runtime):
    with pytest.raises(FoldError, match=r"unknown runtime .*: choose one of 'tensorflow'"):
        kerasfold.fold("not even a model", "measured", runtime=runtime)  # type: ignore[arg-type]


def test_a_missing_package_is_named_before_the_model_is_read(monkeypatch):
    real = importlib.import_module

    def without(name: str, *args: Any) -> Any:
        if name == "openvino":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(RuntimeUnavailableError, match=r'pip install "kerasfold\[openvino\]"'):
        kerasfold.fold("not even a model", "measured", runtime="openvino")  # type: ignore[arg-type]


def test_other_objectives_ask_for_no_runtime():
    assert kinds(kerasfold.fold(MODELS["expand"](), "layers", runtime="tpu")) == ["Conv2D"]


# weights that overflow


def halves(*scales: float) -> keras.Model:
    """Convolutions in float16 with weights of these sizes, and a BatchNormalization."""
    own = [conv(4, dtype="float16", use_bias=False) for _ in scales]
    norm = layers.BatchNormalization(dtype="float16", name="norm")
    model = keras.Sequential([keras.Input((6, 6, 4), dtype="float16"), *own, norm])
    for layer, scale in zip(own, scales, strict=True):
        layer.kernel.assign(np.full(layer.kernel.shape, scale))
    return model


def test_weights_that_overflow_are_passed_over_where_others_do_not(watch):
    """The two convolutions have no product in float16; the second takes its norm all the same."""
    found = watch(few_calls)
    folded = by_measuring(halves(3e2, 3e2), verify=False)
    assert kinds(folded) == ["Conv2D", "Conv2D"]
    assert [kinds(m) for m in found.deployed if is_part(m)] == [["Conv2D", "Conv2D"]]
    measured._CACHE.clear()
    assert kinds(by_measuring(halves(1.0, 1.0), verify=False)) == ["Conv2D"]


def test_a_choice_among_weights_that_overflow_is_not_taken_as_known(watch):
    watch(few_calls)
    assert len(kinds(by_measuring(halves(3e2, 3e2), verify=False))) == 2
    assert len(kinds(by_measuring(halves(1.0, 1.0), verify=False))) == 1
    # And a choice that is known is given up where its weights overflow.
    assert len(kinds(by_measuring(halves(3e2, 3e2), verify=False))) > 1


def test_the_only_way_overflows_and_is_held(watch):
    watch(few_calls)
    model = halves(3e2)
    norm = model.get_layer("norm")
    norm.gamma.assign(np.full(4, 6e4))
    norm.moving_variance.assign(np.full(4, 0.5))
    folded = by_measuring(model, verify=False)
    assert kinds(folded) == ["Conv2D", "BatchNormalization"]
    assert any("would not fit their dtype" in kept.reason for kept in folded.fold_report.kept)


# what is timed of a component


def parts(model: keras.Model) -> list[list[keras.Model]]:
    """Every way of every component, as a model of its own."""
    regions = lift(read(model))
    search = Search(regions, OBJECTIVES["latency"].key, frozenset())
    return [
        [
            emitted(part(regions, component, readers_of(regions.graph)), way)
            for way in measured.candidates(search, component)
        ]
        for component in regions.components()
    ]


def assert_alike(ways: list[keras.Model]) -> None:
    """They take the same, in the same order, and compute the same."""
    inputs = runtimes.random_inputs(ways[0])
    expected = None
    for way in ways:
        assert [tuple(x.shape[1:]) for x in way.inputs] == [
            tuple(x.shape[1:]) for x in ways[0].inputs
        ]
        outputs = keras.tree.flatten(way(inputs, training=False))
        expected = outputs if expected is None else expected
        assert runtimes.difference(expected, outputs) < 1e-4


def test_a_layer_that_does_nothing_is_no_break():
    model = stack(
        layers.Dropout(0.1),
        conv(6),
        layers.Dropout(0.1),
        layers.Identity(),
        conv(4, 1),
        layers.Dropout(0.1),
        layers.ReLU(),
    )
    ((merged, original),) = parts(model)
    assert kinds(merged) == ["Conv2D", "ReLU"]
    assert kinds(original) == ["Conv2D", "Conv2D", "ReLU"]
    assert len(original.inputs) == len(original.outputs) == 1
    assert_alike([merged, original])


def test_a_tensor_read_through_a_layer_that_does_nothing_is_one_input():
    x = image = keras.Input((8, 8, 4))
    y = layers.Dropout(0.2)(x)
    branches = [conv(4, padding="same")(y), conv(4, 1)(layers.Dropout(0.1)(y)), conv(4, 1)(x), x]
    (ways,) = parts(randomise(keras.Model(image, layers.Add()(branches))))
    assert all(len(way.inputs) == 1 for way in ways)
    assert_alike(ways)


def test_activations_behind_are_run_with_it_and_what_they_alone_read_is_no_output():
    x = image = keras.Input((8, 8, 4))
    x = conv(4)(conv(8, 1)(x))
    y = layers.Activation("tanh")(layers.Dropout(0.1)(layers.ReLU()(x)))
    pooled = layers.MaxPooling2D(2)(y)
    for outputs, count in ((pooled, 1), ([pooled, x], 2), ([pooled, layers.Dropout(0.5)(x)], 2)):
        (ways,) = parts(randomise(keras.Model(image, outputs)))
        for way in ways:
            assert kinds(way)[-2:] == ["ReLU", "Activation"]
            assert len(way.outputs) == count
        assert_alike(ways)


@pytest.fixture
def _alike(monkeypatch):
    """Few ways, none of which may differ from the others."""
    monkeypatch.setattr(measured, "TIMED", 5)
    difference = measured.difference

    def held(expected: Any, actual: Any) -> float:
        found = difference(expected, actual)
        assert found < 1e-4
        return found

    monkeypatch.setattr(measured, "difference", held)


@pytest.mark.usefixtures("_alike")
@given(recipe=recipes(most_steps=8), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_random_graphs(recipe, seed, watch):
    model, price = build(recipe), prices(seed)
    watch(price)
    folded = by_measuring(model, verify=False)
    assert price(folded) <= price(model) + 1e-9
    assert_same(model, folded, 1e-6)


# the benchmark


@pytest.fixture
def benchmark():
    folder = str(Path(__file__).parents[1] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        return __import__("measured")
    finally:
        sys.path.remove(folder)


def test_the_benchmark_has_every_plan_of_its_graphs(benchmark):
    for name, make in benchmark.GRAPHS.items():
        model = make()
        models = benchmark.plans(model)
        everything = [sorted(calls(m)) for m in models]
        assert sorted(calls(model)) in everything, name
        assert sorted(calls(kerasfold.fold(model, "layers", verify=False))) in everything, name
        assert len(models) >= 3
        assert {m.output_shape for m in models} == {model.output_shape}


@pytest.mark.parametrize(("chosen", "code"), [(1.0, 0), (1.06, 1)])
def test_the_benchmark_holds_the_best_against_what_is_chosen(
    chosen, code, benchmark, watch, monkeypatch, tmp_path, capsys
):
    """A stopwatch that finds the model chosen by measuring slower than the same plan, or not."""
    found = watch(few_calls)
    monkeypatch.setattr(benchmark, "deploy", found.deploy)

    def timed(runs: Any, rounds: int) -> np.ndarray:
        times = np.tile([few_calls(run.model) for run in runs], (rounds, 1))
        if rounds == 7:  # the last ones: the chosen one is the first of them
            times[:, 0] *= chosen
        return times

    monkeypatch.setattr(benchmark, "paired_seconds", timed)
    out = tmp_path / "measured.json"
    options = ["--only", "expand", "--runtimes", "xla", "--rounds", "7", "--out", str(out)]
    assert benchmark.main(options) == code
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["graph"], row["runtime"], row["rounds"]) == ("expand", "xla", 7)
    assert row["ratio"]["median"] == pytest.approx(1 / chosen)
    assert (row["best"], row["missed"]) == (["Conv2D 3x3"], bool(code))
    assert f"missed: {code} of 1" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--rounds", "--first-rounds", "--budget"])
def test_the_benchmark_wants_positive_numbers(option, benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark.main([option, "0"])
    assert f"{option} must be positive" in capsys.readouterr().err


# the report, the bar, and real runs


def test_the_report_says_what_was_minimised(watch):
    watch(few_calls)
    report = by_measuring(MODELS["expand"]()).fold_report
    assert report.objective == report.to_dict()["objective"] == "measured"
    assert "objective measured" in str(report)
    assert report.equivalence.equivalent
    assert (report.layers_before, report.layers_after) == (3, 1)


def test_a_wrong_fold_is_not_handed_out(watch, monkeypatch):
    """Random weights: no such way is chosen, and without a clock it is found out."""
    watch(few_calls)
    noise = keras.initializers.RandomNormal(seed=1)
    monkeypatch.setattr("kerasfold.layers.build._start_as", lambda values: noise)
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
def test_the_bar_is_drawn_on_stderr(progress, watch, monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    watch(few_calls)
    by_measuring(blocks(2), progress=progress)
    out, err = capfd.readouterr()
    assert out == ""
    assert ("measuring on xla" in err) == progress


@pytest.mark.parametrize("runtime", ["tensorflow", "litert"])
def test_a_real_run(runtime, capfd):
    model = MODELS["expand"]()
    folded = kerasfold.fold(model, "measured", runtime=runtime, budget=30.0)
    assert folded.fold_report.objective == "measured"
    assert folded.fold_report.equivalence.equivalent
    assert_same(model, folded, FLOAT32)
    assert capfd.readouterr().out == ""


def test_a_long_stack_of_which_nothing_merges_has_few_ways():
    """No more sets are looked at than there may be, though hardly any has a plan."""
    x = y = keras.Input((None, None, 8))
    for _ in range(30):
        y = layers.Conv2D(8, 3, padding="same")(y)
    regions = lift(read(keras.Model(x, y)))
    search = Search(regions, OBJECTIVES["latency"].key, frozenset())
    (component,) = regions.components()
    assert len(list(search.every(component, 64))) <= 64
    assert len(measured.candidates(search, component)) == 1

"""Planning: told what to materialise, exact on chains, never worse, linear in the model."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import keras
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from keras import layers

import kerasfold
from kerasfold.algebra.axis import Refused
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.compose import exact
from kerasfold.cost import OBJECTIVES, UNTIMED, Cost, macs_of
from kerasfold.emit import emit
from kerasfold.errors import FoldError
from kerasfold.forms.evaluate import operator_of
from kerasfold.forms.form import Composed, Form
from kerasfold.forms.ways import FORMS
from kerasfold.lift.regions import Regions, lift
from kerasfold.plan.choose import assembled, original_plan, plan
from kerasfold.plan.methods import METHODS, auto, beam
from kerasfold.plan.search import Search
from kerasfold.read.graph import read
from laws.random_graphs import build, recipes
from zoo.making import randomise
from zoo.same import FLOAT32, assert_same


def regions_of(model: keras.Model) -> Regions:
    return lift(read(randomise(model)))


def pooled_chain(image: int, pools: int, channels: int = 1) -> keras.Model:
    stack = [layers.Conv2D(channels, 3, name="c0")]
    for i in range(pools):
        stack += [layers.AveragePooling2D(2), layers.Conv2D(channels, 3, name=f"c{i + 1}")]
    return keras.Sequential([keras.Input((image, image, channels)), *stack])


def nodes_named(regions: Regions, prefix: str) -> set[int]:
    return {n for n, x in regions.lifted.items() if x.call.name.startswith(prefix)}


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize(("image", "pools"), [(28, 2), (224, 4)])
def test_the_partial_forms_of_the_first_article(image, pools, channels):
    """3, then 6/2 for each pooling, where every convolution's output is materialised."""
    model = pooled_chain(image, pools, channels)
    regions = regions_of(model)
    chosen = plan(regions, "layers", materialise=nodes_named(regions, "c"))
    folded = emit(regions, chosen.forms, exact(regions)).model
    windows = [(x.kernel_size, x.strides) for x in folded.layers[1:]]
    assert windows == [((3, 3), (1, 1))] + [((6, 6), (2, 2))] * pools
    x = np.random.default_rng(0).normal(size=(1, image, image, channels)).astype("float32")
    assert_same(model, folded, FLOAT32, x)


def test_materialising_everything_is_the_original():
    regions = regions_of(pooled_chain(28, 2))
    chosen = plan(regions, "macs", materialise=regions.lifted)
    assert [s.name for s in chosen.forms.values()] == ["keep"] * 5
    assert chosen.cost == chosen.original


def test_a_set_without_an_exact_plan_is_an_error():
    same = [layers.Conv2D(2, 3, strides=2, padding="same") for _ in range(2)]
    regions = regions_of(keras.Sequential([keras.Input((None, None, 2)), *same]))
    with pytest.raises(FoldError, match="no exact plan materialises only"):
        plan(regions, "layers", materialise=())


def test_an_unknown_objective_names_the_known_ones():
    with pytest.raises(
        FoldError, match="unknown objective 'speed': choose one of 'latency', 'macs'"
    ):
        plan(regions_of(pooled_chain(28, 1)), "speed")


def test_a_timed_objective_says_what_it_needs():
    message = (
        r"objective 'measured' times ways to compute a model on a runtime, and needs them built: "
        r"call fold\(model, objective='measured', runtime=...\), or choose one of 'latency', 'macs'"
    )
    with pytest.raises(FoldError, match=message):
        kerasfold.explain(pooled_chain(28, 1), objective="measured")


class Single(Composed):
    """One operator, of weights that were looked at while planning."""

    operators: tuple[Operator, ...] = ()

    def __init__(self, operator: Operator) -> None:
        self.operators = (operator,)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Vanished(Form[Single]):
    """A form that numbers show: a path whose weights are all zero, free of charge."""

    name: ClassVar[str] = "vanished"

    @classmethod
    def propose(cls, known, index, visited):
        if not known.is_path(visited) or np.any(known.weights(visited).kernel):
            return None
        reads = known.reads(visited, known.whole(visited))
        return cls(node=index, reads=reads, visited=tuple(visited), cost=Cost())

    def compose(self, nodes):
        return Single(operator_of(nodes, self.visited))

    def emit(self, build, composed, xs):
        name, activation = build.result()
        return build.convolution(xs[self.source], *composed.operators, name, activation, 0)

    def words(self, owner):
        return "nothing"


def test_a_form_is_one_class_and_one_row_and_may_ask_for_weights(monkeypatch):
    x = image = keras.Input((9, 9, 3))
    for i in range(2):
        x = layers.Conv2D(3, 3, name=f"first_{i}")(x)
        x = layers.ReLU()(layers.Conv2D(3, 3, use_bias=False, name=f"second_{i}")(x))
    model = randomise(keras.Model(image, x))
    first = model.get_layer("first_1")
    first.kernel.assign(np.zeros(first.kernel.shape))
    without = kerasfold.explain(model).macs_after
    monkeypatch.setattr("kerasfold.forms.ways.FORMS", (*FORMS, Vanished))
    folded = kerasfold.fold(model)
    words = [row.kind for row in folded.fold_report.merged]
    assert words.count("nothing") == 1
    assert folded.fold_report.macs_after < without
    assert_same(model, folded, FLOAT32)


STACKS = {
    "bottleneck": [layers.Conv2D, (1, 3, 1), (8, 8, 4)],
    "wide": [layers.Conv2D, (3, 1, 3), (16, 4, 16)],
    "narrow": [layers.Conv2D, (3, 3, 2, 1), (1, 6, 1, 6)],
}


@pytest.mark.parametrize("objective", UNTIMED)
@pytest.mark.parametrize("name", STACKS)
def test_a_chain_gets_the_cheapest_of_all_subsets(name, objective):
    """Shortest path against trying every subset, on the same forms."""
    kind, kernels, filters = STACKS[name]
    stack = []
    for k, c in zip(kernels, filters, strict=True):
        stack += [kind(c, k), layers.BatchNormalization()]
    stack.insert(2, layers.AveragePooling2D(2))
    regions = regions_of(keras.Sequential([keras.Input((20, 20, 3)), *stack]))
    key = OBJECTIVES[objective].key
    found = key(plan(regions, objective).cost)
    assert found == pytest.approx(optimum(regions, objective), rel=1e-9)
    assert found <= key(original_plan(regions).cost)


LINKS = (
    lambda n: layers.Conv2D(n, 3),
    lambda n: layers.Conv2D(n, 1),
    lambda n: layers.Conv2D(n, 3, strides=2, padding="same"),
    lambda n: layers.Conv2D(n, 3, padding="same", dilation_rate=2),
    lambda n: layers.DepthwiseConv2D(3, padding="same"),
    lambda n: layers.AveragePooling2D(2),
    lambda n: layers.AveragePooling2D(3, 1, padding="same"),
    lambda n: layers.UpSampling2D(2),
    lambda n: layers.Conv2DTranspose(n, 2, strides=2),
    lambda n: layers.ZeroPadding2D(((1, 2), (0, 1))),
    lambda n: layers.Cropping2D(((1, 0), (2, 1))),
    lambda n: layers.BatchNormalization(),
)


@given(
    links=st.lists(
        st.tuples(st.integers(0, len(LINKS) - 1), st.sampled_from([1, 2, 5, 16])),
        min_size=2,
        max_size=8,
    ),
    objective=st.sampled_from(UNTIMED),
)
@settings(max_examples=150)
def test_a_chain_of_any_layers_gets_the_cheapest_of_all_subsets(links, objective):
    """Also where a step is refused that a longer one, with a padding or a cropping, is not."""
    x = inputs = keras.Input((24, 24, 2))
    for kind, channels in links:
        if min(x.shape[1:3]) > 4:  # a cropping of all is refused
            x = LINKS[kind](channels)(x)
    regions = regions_of(keras.Model(inputs, x))
    found = OBJECTIVES[objective].key(plan(regions, objective).cost)
    assert found == pytest.approx(optimum(regions, objective), rel=1e-9)


def test_a_cropping_behind_a_padding_merges_what_the_padding_kept_apart():
    """Found as a plan of three layers where two are exact."""
    stack = [
        layers.DepthwiseConv2D(3, padding="same"),
        layers.ZeroPadding2D(2),
        layers.Cropping2D(2),
    ]
    regions = regions_of(keras.Sequential([keras.Input((24, 24, 3)), *stack]))
    for objective in UNTIMED:
        found = OBJECTIVES[objective].key(plan(regions, objective).cost)
        assert found == pytest.approx(optimum(regions, objective), rel=1e-9)
    forms = plan(regions, "latency").forms.values()
    assert sum(form.cost.layers for form in forms) == 1
    assert not {"ZeroPadding2D", "Cropping2D"} & {form.words(regions) for form in forms}


def optimum(regions: Regions, objective: str) -> tuple[float, ...]:
    """The least cost of all sets of materialised tensors, component by component."""
    key = OBJECTIVES[objective].key
    search = Search(regions, OBJECTIVES[objective], frozenset())
    known: dict = {}

    def cost(index: int, cut: frozenset[int]) -> Cost | None:
        visited = tuple(search.visit(index, cut))
        if visited not in known:
            form = search.cheapest_form(index, visited)
            known[visited] = None if isinstance(form, Refused) else form.cost
        return known[visited]

    total = Cost()
    for component in regions.components():
        everything, required = search.candidates(component), search.required(component)
        best = None
        for size in range(len(everything - required) + 1):
            for subset in itertools.combinations(sorted(everything - required), size):
                cut, tried = required | set(subset), Cost()
                for index in cut:
                    step = cost(index, cut)
                    if step is None:
                        break
                    tried += step
                    if best is not None and key(tried) >= key(best):
                        break  # costs only grow
                else:
                    best = tried
        total += best
    return key(total)


def chosen_cost(regions: Regions, objective: str) -> float:
    """What 'auto' finds, siblings apart, as `optimum` has them."""
    search = Search(regions, OBJECTIVES[objective], frozenset())
    return search.key(assembled(search, lambda component: auto(search, component)).cost)[0]


def knot(draw, most: int) -> Regions:
    """A linear graph of one component, with as many tensors to decide on as there may be."""
    number = lambda low, high: draw(st.integers(low, high))  # noqa: E731
    made = [keras.Input((number(4, 30), number(4, 30), 4))]
    for _ in range(number(2, most)):
        x, y = made[number(0, len(made) - 1)], made[number(0, len(made) - 1)]
        made.append(
            [
                lambda x, y: layers.Add()([x, y]) if x is not y else x * 2.0,
                lambda x, y: layers.BatchNormalization()(x),
                lambda x, y: layers.Conv2D(4, 1)(x),
                lambda x, y: layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x),
                lambda x, y: layers.AveragePooling2D(3, 1, padding="same")(x),
                lambda x, y: layers.Conv2D(4, 1)(layers.Conv2D(5 + 7 * len(made), 1)(x)),
            ][number(0, 5)](x, y)
        )
    read_by = {
        id(x) for y in made[1:] for x in keras.tree.flatten(y._keras_history.operation.input)
    }
    loose = [x for x in made[1:] if id(x) not in read_by]
    total = layers.Add()(loose) if len(loose) > 1 else loose[0]
    return lift(read(randomise(keras.Model(made[0], total))))


def undecided(regions: Regions) -> int:
    search = Search(regions, OBJECTIVES["macs"], frozenset())
    return max(len(search.candidates(c) - search.required(c)) for c in (*regions.components(), ()))


@given(recipe=recipes(most_steps=11), objective=st.sampled_from(UNTIMED))
@settings(max_examples=80)
def test_few_tensors_get_the_cheapest_of_all_subsets(recipe, objective):
    regions = lift(read(build(recipe)))
    assume(undecided(regions) <= 10)
    assert chosen_cost(regions, objective) == pytest.approx(
        optimum(regions, objective)[0], rel=1e-9
    )


@given(data=st.data(), objective=st.sampled_from(UNTIMED))
@settings(max_examples=40)
def test_a_knot_of_few_tensors_gets_the_cheapest_of_all_subsets(data, objective):
    regions = knot(data.draw, 8)
    assume(3 <= undecided(regions) <= 10)
    assert chosen_cost(regions, objective) == pytest.approx(
        optimum(regions, objective)[0], rel=1e-9
    )


@pytest.fixture
def _narrow(monkeypatch):
    """No component gets the exact search."""
    monkeypatch.setattr("kerasfold.plan.methods.EXHAUSTED", -1)


@pytest.mark.usefixtures("_narrow")
@given(recipe=recipes(most_steps=16), objective=st.sampled_from(UNTIMED))
@settings(max_examples=40)
def test_a_narrow_beam_is_nearly_as_good(recipe, objective):
    regions = lift(read(build(recipe)))
    assume(undecided(regions) <= 14)
    assert chosen_cost(regions, objective) <= 1.05 * optimum(regions, objective)[0]


@given(data=st.data(), objective=st.sampled_from(UNTIMED))
@settings(max_examples=12)
def test_a_beam_on_a_knot_of_more_tensors_is_nearly_as_good(data, objective):
    regions = knot(data.draw, 11)
    assume(8 <= undecided(regions) <= 14)
    search = Search(regions, OBJECTIVES[objective], frozenset())
    found = assembled(search, lambda component: beam(search, component)).cost
    assert search.key(found)[0] <= 1.05 * optimum(regions, objective)[0]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_plan(method):
    regions = regions_of(pooled_chain(28, 2))
    found = plan(regions, "macs", method=method)
    assert found.cost.macs <= found.original.macs


def test_unknown_methods_and_chains_that_branch_are_errors():
    with pytest.raises(FoldError, match=r"unknown method 'luck': choose one of 'auto', 'exact'"):
        plan(regions_of(pooled_chain(28, 1)), method="luck")
    x = keras.Input((8, 8, 2))
    y = layers.Add()([layers.Conv2D(2, 1)(x), layers.Conv2D(2, 1)(x)])
    with pytest.raises(FoldError, match="method 'chain' plans chains: choose 'auto'"):
        plan(regions_of(keras.Model(x, y)), method="chain")


@pytest.mark.parametrize("objective", UNTIMED)
def test_a_component_too_large_for_a_beam_is_no_worse_than_before(objective, monkeypatch):
    x = inputs = keras.Input((9, 9, 2))
    for _ in range(12):
        x = layers.Add()([x, layers.BatchNormalization()(layers.Conv2D(2, 1)(x))])
    regions = regions_of(keras.Model(inputs, x))
    best = OBJECTIVES[objective].key(plan(regions, objective).cost)
    monkeypatch.setattr("kerasfold.plan.methods.BEAMED", 0)
    chosen = plan(regions, objective)
    assert (
        best <= OBJECTIVES[objective].key(chosen.cost) < OBJECTIVES[objective].key(chosen.original)
    )


@pytest.mark.parametrize("objective", UNTIMED)
def test_sums_of_many_branches_are_planned_as_those_of_few(objective, monkeypatch):
    def sum_of(layer, x):
        return layers.Add()([layers.BatchNormalization()(layer(x)) for _ in range(3)])

    inputs = keras.Input((33, 33, 24))
    x = sum_of(lambda x: layers.DepthwiseConv2D(3, strides=2)(x), layers.ReLU()(inputs))
    x = sum_of(lambda x: layers.Conv2D(6, 1)(x), x)
    y = sum_of(lambda x: layers.DepthwiseConv2D(3, padding="same")(x), x)
    regions = regions_of(keras.Model(inputs, layers.Concatenate()([x, y])))
    best = OBJECTIVES[objective].key(plan(regions, objective).cost)
    monkeypatch.setattr("kerasfold.plan.methods.BEAMED", 0)
    assert OBJECTIVES[objective].key(plan(regions, objective).cost) == best


def test_golden_costs():
    """Numbers small enough to check by hand."""
    model = keras.Sequential(
        [keras.Input((10, 10, 3)), layers.Conv2D(4, 3), layers.BatchNormalization()]
    )
    chosen = plan(regions_of(model), "macs")
    # 8 x 8 outputs of 4 channels, 27 products each; the BatchNormalization one more.
    assert (chosen.original.macs, chosen.cost.macs) == (8 * 8 * 4 * 28, 8 * 8 * 4 * 27)
    assert (chosen.original.params, chosen.cost.params) == (27 * 4 + 4 + 16, 27 * 4 + 4)
    assert (chosen.original.layers, chosen.cost.layers) == (2, 1)
    (form,) = chosen.forms.values()
    (geometry,) = form.reads.values()
    assert geometry is not None
    assert macs_of(geometry) == chosen.cost.macs


def test_costs_add_up():
    one, other = Cost(1, 2, 3, 4, (5.0, 6.0)), Cost(1, 1, 1, 1, (1.0, 2.0))
    assert one + other == Cost.sum([one, Cost(), other]) == Cost(2, 3, 4, 5, (6.0, 8.0))
    assert one + other - one == other
    assert one + Cost() == Cost() + one == one


def test_a_refused_step_says_why():
    model = keras.Sequential(
        [keras.Input((12, 12, 2)), layers.Conv2D(2, 3, strides=2), layers.UpSampling2D(2)]
    )
    regions = regions_of(model)
    search = Search(regions, OBJECTIVES["layers"], frozenset())
    merged = search.form(max(regions.lifted), ())
    assert not isinstance(merged, Refused)
    assert merged.name == "pooled"  # the two side by side, not one
    assert "a stride of 2 meets an upsampling by 2" in merged.refusal


@pytest.mark.parametrize("objective", ["latency", "layers"])
def test_planning_composes_linearly_many_geometries(objective, monkeypatch):
    """No quadratic walk: three times the calls, about three times the compositions."""
    counts = []
    for length in (30, 90):
        stack = []
        for _ in range(length // 2):
            stack += [layers.Conv2D(3, 1), layers.BatchNormalization()]
        regions = regions_of(keras.Sequential([keras.Input((8, 8, 3)), *stack]))
        calls = []
        compose = Geometry.__matmul__

        def counted(b, a, calls=calls, compose=compose):
            calls.append(1)
            return compose(b, a)

        monkeypatch.setattr(Geometry, "__matmul__", counted)
        plan(regions, objective)
        monkeypatch.undo()
        counts.append(len(calls))
    assert 0 < counts[1] < 6 * counts[0]

"""Siblings: convolutions that read one tensor become one, whose channels are sliced apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import kerasfold
from kerasfold.algebra.operator import Operator
from kerasfold.cost import OBJECTIVES, UNTIMED, Prices
from kerasfold.errors import EquivalenceError
from kerasfold.forms.joined import Joined
from kerasfold.lift.regions import Regions, lift
from kerasfold.plan.choose import Plan, assembled, loosened, plan
from kerasfold.plan.methods import auto
from kerasfold.plan.search import Search
from kerasfold.read.graph import read
from kerasfold.rooflines import ROOFLINES
from zoo.blocks import conv, same
from zoo.making import policy, randomise
from zoo.same import FLOAT32, FLOAT64, assert_same, kinds, run, run_under_xla

SHAPE = (56, 56, 16)  # so large that narrow siblings pay for their slices


def model_of(
    make: Callable[[Any], Any], shape: tuple[int | None, ...] = SHAPE, dtype: str = "float32"
) -> keras.Model:
    with policy(dtype):
        x = keras.Input(shape, name="image")
        return randomise(keras.Model(x, make(x), name="siblings"))


def unjoined(regions: Regions) -> Plan:
    search = Search(regions, OBJECTIVES["latency"], frozenset())
    return assembled(search, lambda part: loosened(search, auto(search, part)))


def groups(model: keras.Model, objective: str = "latency") -> list[tuple[str, ...]]:
    """Names of the calls that are joined, group by group."""
    regions = lift(read(model))
    found = {
        siblings: tuple(regions.owner[s.node].call.name for s in siblings)
        for form in plan(regions, objective).forms.values()
        if form.name == "joined"
        for siblings in form.siblings.values()
    }
    return list(found.values())


def assert_exact(model: keras.Model, tolerance: float = FLOAT64) -> keras.Model:
    """The fold of a model, which is verified, is what the model is."""
    folded = kerasfold.fold(model)
    assert folded.fold_report.equivalence.equivalent
    assert_same(model, folded, tolerance)
    assert folded.output_names == model.output_names
    return folded


# what is joined


def pair(x: Any) -> list[Any]:
    return [same(3, name="first")(x), same(5, name="second")(x)]


def normed(x: Any) -> list[Any]:
    return [
        layers.BatchNormalization(name="first")(same(3, use_bias=False)(x)),
        layers.ReLU()(layers.BatchNormalization(name="second")(same(4)(x))),
    ]


def activated(x: Any) -> list[Any]:
    """Each its own activation, one of them none, one with weights, one along the channels."""
    own = layers.PReLU(shared_axes=[1, 2], name="own")
    given = {"a": "relu", "b": None, "c": "softmax", "d": own}
    return [same(i + 2, name=name, activation=f)(x) for i, (name, f) in enumerate(given.items())]


def strided(x: Any) -> list[Any]:
    """Padding that a layer of its own gives."""
    return [conv(3, strides=2, name=name)(layers.ZeroPadding2D(1)(x)) for name in "ab"]


def summed(x: Any) -> list[Any]:
    """A block of branches is a sibling like any other."""
    block = layers.Add(name="block")([same(3)(x), same(3, 1)(x)])
    return [block, same(4, name="other")(x)]


def three_in_turns(x: Any) -> list[Any]:
    """Outputs in another order than the calls."""
    first, second, third = (same(n, name=f"c{n}")(x) for n in (3, 5, 4))
    return [third, first, second]


def deeper(x: Any) -> list[Any]:
    """What they read is a layer's output, and itself no input."""
    x = layers.MaxPooling2D(1)(layers.BatchNormalization(name="norm")(same(16, name="stem")(x)))
    return pair(x)


def materialised(x: Any) -> list[Any]:
    """What they read is materialised, and affine: too expensive to compose."""
    return pair(same(16, strides=2, name="stem")(x))


def read_further(x: Any) -> list[Any]:
    """A sibling that others read before the next sibling is called."""
    first = same(3, name="first")(x)
    second = same(4, 1, name="second")(first)
    return [layers.ReLU(name="relu")(first), second, same(5, name="third")(x)]


def added(x: Any) -> list[Any]:
    """What is added to something else is a sibling by itself."""
    y = layers.ReLU()(x)
    return [layers.Add()([same(16, name=name)(x), y]) for name in "ab"]


def two_groups(x: Any) -> list[Any]:
    y = layers.ReLU(name="between")(same(16, name="stem")(x))
    return [same(n, name=f"{name}{n}")(t) for n in (3, 4) for name, t in (("x", x), ("y", y))]


def late(x: Any) -> list[Any]:
    """A sibling that is called after what reads the other's output."""
    first = layers.MaxPooling2D(2, name="pool")(same(3, name="first")(x))
    return [same(2, name="reader")(first), same(4, name="second")(x)]


JOINED: dict[str, tuple[Callable[[Any], Any], list[tuple[str, ...]]]] = {
    "pair": (pair, [("first", "second")]),
    "normed": (normed, [("first", "second")]),
    "activated": (activated, [("a", "b", "c", "d")]),
    "strided": (strided, [("a", "b")]),
    "summed": (summed, [("block", "other")]),
    "three in turns": (three_in_turns, [("c3", "c5", "c4")]),
    "deeper": (deeper, [("first", "second")]),
    "materialised": (materialised, [("first", "second")]),
    "read further": (read_further, [("first", "third")]),
    "added": (added, [("a", "b")]),
    "two groups": (two_groups, [("x3", "x4", "stem"), ("y3", "y4")]),
    "late": (late, [("first", "second")]),
}


@pytest.mark.parametrize("name", JOINED)
def test_joined_siblings_are_exact(name):
    make, expected = JOINED[name]
    model = model_of(make, dtype="float64")
    found = groups(model)
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
    folded = assert_exact(model)
    assert all(f"{group[0]}_joined" in [x.name for x in folded.layers] for group in found)
    assert not {n for group in found for n in group} & {
        x.name for x in folded.layers if isinstance(x, layers.Conv2D)
    }


@pytest.mark.parametrize("name", ["activated", "three in turns", "two groups"])
def test_a_saved_fold_is_loaded_with_its_names(name, tmp_path):
    model = model_of(JOINED[name][0])
    folded = assert_exact(model, FLOAT32)
    folded.save(tmp_path / "folded.keras")
    loaded = keras.models.load_model(tmp_path / "folded.keras")
    assert loaded.output_names == model.output_names
    assert_same(folded, loaded, 0.0)


def each_of(x: Any, steps: list[keras.Layer]) -> list[Any]:
    return [step(x) for step in steps]


SHAPED: dict[str, tuple[tuple[int | None, ...], Callable[[Any], Any]]] = {
    "line": ((4000, 16), lambda x: [layers.Conv1D(n, 3, padding="causal")(x) for n in (2, 3)]),
    "volume": ((16, 16, 16, 4), lambda x: [layers.Conv3D(n, 3)(x) for n in (2, 3)]),
    "any size": ((None, None, 16), lambda x: [same(n, strides=2)(x) for n in (2, 3)]),
    "transposed": (SHAPE, lambda x: [layers.Conv2DTranspose(n, 3)(x) for n in (1, 2, 3)]),
    "heads": (
        (64, 64, 8),
        lambda x: each_of(
            layers.Flatten()(x),
            [
                layers.Dense(n, name=f"d{n}", activation="softmax" if n == 5 else None)
                for n in (3, 5, 4)
            ],
        ),
    ),
    "vectors": ((200000,), lambda x: [layers.Dense(n, name=f"d{n}")(x) for n in (2, 3, 5)]),
    "pixels": ((112, 112, 64), lambda x: [layers.Dense(n)(x) for n in (2, 3)]),
}


@pytest.mark.parametrize("name", SHAPED)
def test_siblings_on_other_shapes(name):
    shape, make = SHAPED[name]
    model = model_of(make, shape)
    assert len(groups(model)) == 1
    folded = assert_exact(model, FLOAT32)
    weighty = [x for x in folded.layers if x.weights]
    assert len(weighty) == 1
    assert isinstance(weighty[0], layers.Dense) == (name in ("heads", "pixels", "vectors"))


def test_names_that_a_joint_would_take_are_left_to_the_layers_that_have_them():
    def make(x: Any) -> list[Any]:
        a, b = (same(n, name=name, activation="relu")(x) for n, name in ((3, "a"), (5, "b")))
        outputs = [a, b]
        for name in ("a_joined", "a_slice", "b_joined", "b_slice"):
            outputs.append(layers.MaxPooling2D(2, name=name)(outputs[-1]))
        return outputs

    model = model_of(make)
    assert len(groups(model)) == 1
    folded = assert_exact(model, FLOAT32)
    names = [operation.name for operation in folded.operations]
    assert len(names) == len(set(names))
    assert [x.name for x in folded.layers if x.weights] == ["a_joined_1"]
    assert {type(folded.get_layer(f"{name}_joined")) for name in "ab"} == {layers.MaxPooling2D}


def test_nested_models():
    def make(x: Any) -> Any:
        inside = keras.Input(SHAPE)
        return keras.Model(inside, pair(inside), name="inner")(x)

    assert len(groups(model_of(make))) == 1
    assert_exact(model_of(make, dtype="float64"))


def test_channels_first_under_xla():
    def make(x: Any) -> list[Any]:
        first = {"data_format": "channels_first"}
        return [same(3, **first)(x), same(5, activation="relu", **first)(x)]

    model = model_of(make, (16, 56, 57))
    assert len(groups(model)) == 1
    # As many channels as columns: Keras would add their bias along the width.
    assert len(groups(model_of(make, (16, 56, 8)))) == 0
    assert len(groups(model_of(make, (16, 56, 9)))) == 1
    folded = kerasfold.fold(model, verify=False)
    x = np.random.default_rng(0).normal(size=(2, 16, 56, 57)).astype("float32")
    assert_same(model, folded, FLOAT32, x, run_under_xla)


def test_a_frozen_group_stays_frozen_and_keeps_its_policy():
    def make(x: Any) -> list[Any]:
        return [same(n, trainable=False, dtype="mixed_float16")(x) for n in (3, 4)]

    model = model_of(make)
    assert len(groups(model)) == 1
    (joint,) = [x for x in kerasfold.fold(model).layers if x.weights]
    assert not joint.trainable
    assert joint.dtype_policy.name == "mixed_float16"


# what is not


def shared_layer(x: Any) -> list[Any]:
    layer = same(3)
    return [layer(x), layer(layers.ReLU()(x)), same(3)(x)]


def frozen_apart(trainable: bool) -> Callable[[Any], list[Any]]:
    """BatchNormalizations are frozen in both: the layers' kernels tell."""

    def make(x: Any) -> list[Any]:
        return [
            layers.BatchNormalization(trainable=False)(same(3, trainable=own)(x))
            for own in (trainable, not trainable)
        ]

    return make


def policies(x: Any) -> list[Any]:
    """What stores weights tells, not what comes last."""
    return [
        layers.Rescaling(2.0, dtype="float16")(same(3, dtype=dtype)(x))
        for dtype in ("mixed_float16", "float16")
    ]


APART: dict[str, Callable[[Any], Any]] = {
    "kernels": lambda x: [same(3, 3)(x), same(3, 1)(x), same(3, (1, 3))(x)],
    "strides": lambda x: [same(3)(x), same(3, strides=2)(x)],
    "padding": lambda x: [same(3)(x), conv(3)(x)],
    "dilations": lambda x: [same(3)(x), same(3, dilation_rate=2)(x)],
    "groups": lambda x: [same(4, groups=2)(x) for _ in range(2)],
    "depthwise": lambda x: [layers.DepthwiseConv2D(3)(x) for _ in range(2)],
    "pools": lambda x: [layers.AveragePooling2D(3, 1)(x) for _ in range(2)],
    "other tensors": lambda x: [same(3)(x), same(3)(layers.ReLU()(x))],
    "shared": shared_layer,
    "frozen": lambda x: [same(3)(x), same(3, trainable=False)(x)],
    "frozen under a norm": frozen_apart(True),
    "frozen first under a norm": frozen_apart(False),
    "dtypes": lambda x: [same(3)(x), same(3, dtype="mixed_float16")(x)],
    "policies": policies,
    "wide": lambda x: [same(64)(x) for _ in range(2)],
}


@pytest.mark.parametrize("name", APART)
def test_what_is_not_joined(name):
    assert groups(model_of(APART[name])) == []


def test_frozen_weights_stay_frozen_beside_others():
    model = model_of(frozen_apart(True))
    folded = kerasfold.fold(model)
    assert [x.trainable for x in folded.layers if x.weights] == [True, False]


def test_small_images_do_not_pay_for_slices():
    assert groups(model_of(pair, (8, 8, 16))) == []


@pytest.mark.parametrize("objective", UNTIMED)
def test_every_objective_joins(objective):
    model = model_of(pair)
    assert groups(model, objective) == [("first", "second")]
    assert kinds(kerasfold.fold(model, objective)) == ["Conv2D"]


@pytest.mark.parametrize("name", ["kernels", "dilations"])
def test_fewest_layers_have_room_for_every_window(name):
    model = model_of(APART[name], (9, 8, 3), "float64")
    folded = kerasfold.fold(model, "layers", verify=False)
    assert kinds(folded) == ["Conv2D"]
    assert_same(model, folded, FLOAT64)


@pytest.mark.parametrize("name", ["strides", "padding", "other tensors", "frozen", "shared"])
def test_fewest_layers_leave_apart_what_no_layer_is(name):
    model = model_of(APART[name], (9, 8, 3))
    assert not groups(model, "layers")


def test_queries_keys_and_values_are_one_matrix():
    def make(x: Any) -> list[Any]:
        return [layers.Dense(8, name=name)(x) for name in ("query", "key", "value")]

    model = model_of(make, (12, 8))
    assert groups(model, "layers") == [("query", "key", "value")]
    assert kerasfold.explain(model, "layers").layers_after == 1


def in_a_sum(x: Any) -> list[Any]:
    """A convolution that is added to another tensor, and one by itself."""
    y = layers.Activation("tanh")(x)
    y = layers.DepthwiseConv2D(3, padding="same")(y)
    return [layers.Add()([same(3, 1)(x), y]), same(5, 1)(x)]


def in_two_sums(x: Any) -> list[Any]:
    """Sums of the same two tensors: a pair of siblings of each."""
    y = layers.Activation("tanh")(x)
    return [layers.Subtract()([same(n, 1)(x), layers.Softmax()(same(n, 1)(y))]) for n in (3, 4)]


def before_a_pool(x: Any) -> list[Any]:
    y = conv(2, 1)(layers.AveragePooling2D(3, 1, padding="same")(x))
    return [y, same(5, 1)(x)]


def operations(x: Any) -> list[Any]:
    return [2.0 * same(3)(x), 3.0 * same(3)(x)]


PARTS: dict[str, tuple[Callable[[Any], Any], int, int]] = {
    "in a sum": (in_a_sum, 4, 3),
    "in two sums": (in_two_sums, 6, 4),
    "before a pool": (before_a_pool, 3, 2),
    "operations": (operations, 4, 1),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_steps_are_siblings(name):
    make, before, after = PARTS[name]
    model = model_of(make, (9, 8, 3), "float64")
    folded = kerasfold.fold(model, "layers", verify=False)
    report = folded.fold_report
    assert (report.layers_before, report.layers_after) == (before, after)
    assert "for 2 at once" in str(report.merged)
    assert report.params_after == folded.count_params()
    assert_same(model, folded, FLOAT64)


def test_a_plan_that_is_told_what_to_materialise_does_not_join():
    regions = lift(read(model_of(pair)))
    told = plan(regions, "latency", materialise=regions.lifted)
    assert [s.name for s in told.forms.values()] == ["keep", "keep"]


def test_pinned_nodes_are_not_joined():
    regions = lift(read(model_of(pair)))
    first, *_ = regions.lifted
    assert [s.name for s in plan(regions).forms.values()] == ["joined"] * 2
    assert [s.name for s in plan(regions, pinned=[first]).forms.values()] == ["keep"] * 2


def test_weights_that_overflow_only_as_one_kernel_are_left_as_they_are(monkeypatch):
    """Siblings whose composed weights have no dtype: pinned, so that planning comes to an end."""
    own = [
        layers.SeparableConv2D(4, 3, dtype="float16", use_bias=False, name=name) for name in "abc"
    ]
    image = keras.Input(SHAPE, dtype="float16")
    model = keras.Model(image, [layer(image) for layer in own])
    regions = lift(read(model))
    assert {s.name for s in plan(regions).forms.values()} == {"joined"}
    for number, layer in enumerate(own):
        for weight in layer.weights:
            values = np.random.default_rng(number).uniform(3e3, 4e3, weight.shape)
            weight.assign(values)  # of equal ones a pool would be made
    tried: list[Any] = []

    def counted(*args: Any, **kwargs: Any) -> Plan:
        tried.append(kwargs["pinned"].copy())
        assert len(tried) <= 4, "it does not end"
        return plan(*args, **kwargs)

    monkeypatch.setattr("kerasfold.pipeline.make_plan", counted)
    folded = kerasfold.fold(model, verify=False)
    assert kinds(folded) == ["SeparableConv2D"] * 3
    assert len(folded.fold_report.kept) == 3
    assert "would not fit their dtype" in folded.fold_report.kept[0].reason


# costs, the report, faults


@pytest.mark.parametrize("name", [*JOINED, *APART])
def test_joining_never_costs_more_and_only_where_it_saves(name):
    make = JOINED[name][0] if name in JOINED else APART[name]
    regions = lift(read(model_of(make)))
    key = OBJECTIVES["latency"].key
    chosen, before = plan(regions), unjoined(regions)
    if name in JOINED:
        assert key(chosen.cost)[0] < key(before.cost)[0]
        assert chosen.cost.layers < before.cost.layers
    else:
        assert chosen.cost == before.cost
    assert chosen.forms.keys() == before.forms.keys()
    assert chosen.original == before.original


def test_the_report_says_what_became_one_layer():
    folded = kerasfold.fold(model_of(normed))
    report = folded.fold_report
    assert [(m.into, m.kind) for m in report.merged] == [
        ("first", "a slice of Conv2D 3x3, for 2 at once"),
        ("second", "a slice of Conv2D 3x3, for 2 at once"),
    ]
    assert [m.layers[-1] for m in report.merged] == ["first", "second"]
    assert [len(m.layers) for m in report.merged] == [2, 2]
    assert (report.layers_before, report.layers_after) == (4, 1)
    assert report.params_after == folded.count_params() == 9 * 16 * 7 + 7
    assert report.macs_after == 56 * 56 * 9 * 16 * 7
    assert "a slice of Conv2D 3x3, for 2 at once" in str(report)
    assert kerasfold.explain(model_of(normed)).layers_after == 1


def test_equal_widths_in_another_order_are_caught(monkeypatch):
    model = model_of(lambda x: [same(4, name=name)(x) for name in "ab"])
    assert_exact(model, FLOAT32)
    concatenation = Operator.concatenation
    monkeypatch.setattr(Operator, "concatenation", lambda parts: concatenation(parts[::-1]))
    with pytest.raises(EquivalenceError, match="the fold of 'siblings' is not handed out"):
        kerasfold.fold(model)


def test_offsets_that_are_one_off_are_caught(monkeypatch):
    """Every slice in its place but for one channel of the first."""
    model = model_of(pair)
    sliced = Joined.emit

    def off(self: Any, build: Any, composed: Any, xs: Any) -> Any:
        value = sliced(self, build, composed, xs)
        ((first, _),) = self.siblings.values()
        return keras.ops.roll(value, 1, axis=-1) if first.node == self.node else value

    monkeypatch.setattr(Joined, "emit", off)
    with pytest.raises(EquivalenceError, match="first"):
        kerasfold.fold(model)


# random siblings

ACTIVATIONS = (None, "relu", "tanh", "sigmoid", "layer")

branches = st.lists(
    st.tuples(
        st.integers(1, 20),  # channels
        st.sampled_from([(1, 1, "same"), (3, 1, "same"), (3, 2, "same"), (3, 1, "valid")]),
        st.booleans(),  # a BatchNormalization
        st.booleans(),  # a bias
        st.sampled_from(ACTIVATIONS),
    ),
    min_size=2,
    max_size=6,
)


def branch(x: Any, option: tuple, name: str) -> Any:
    width, (size, stride, padding), norm, bias, activation = option
    inline = None if norm or activation == "layer" else activation
    y = layers.Conv2D(width, size, stride, padding, use_bias=bias, activation=inline)(x)
    if norm:
        y = layers.BatchNormalization()(y)
    if activation == "layer" or (norm and activation):
        y = layers.Activation("relu" if activation == "layer" else activation, name=name)(y)
    return y


@pytest.fixture
def _free_slices(monkeypatch):
    """Joining pays on small images too."""
    step = Prices.step

    def free(prices, kind, moved, calls=1, **how):
        return step(prices, kind, moved, 0 if kind in ("convolution", "matrix") else calls, **how)

    monkeypatch.setattr(Prices, "step", free)
    alone = {n: replace(r, sharing=math.inf) for n, r in ROOFLINES.items()}
    monkeypatch.setattr("kerasfold.cost.ROOFLINES", alone)


@pytest.mark.usefixtures("_free_slices")
@given(options=branches, stem=st.booleans(), seed=st.integers(0, 2**16))
@settings(max_examples=40)
def test_random_siblings(options, stem, seed):
    x = image = keras.Input((9, 8, 3))
    if stem:
        x = layers.Conv2D(4, 3, activation="relu", padding="same")(x)
    outputs = [branch(x, option, f"out_{i}") for i, option in enumerate(options)]
    model = randomise(keras.Model(image, outputs), seed)
    regions = lift(read(model))
    key = OBJECTIVES["latency"].key
    assert key(plan(regions).cost) <= key(unjoined(regions).cost)
    folded = kerasfold.fold(model, verify=False)
    assert folded.output_names == model.output_names
    assert_same(model, folded, FLOAT32)
    kernels = [geometry for _, geometry, *_ in options]
    if len(set(kernels)) < len(kernels):
        assert groups(model), "siblings of one geometry, and slices are free"
    for want, got in zip(model.outputs, folded.outputs, strict=True):
        assert (want.shape, want.dtype) == (got.shape, got.dtype)
    assert all(np.isfinite(y).all() for y in run(folded, np.zeros((1, 9, 8, 3))))

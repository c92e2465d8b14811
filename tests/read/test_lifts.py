"""Rules for layers of one's own, and the property test that tells a right one from a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.lift.rules import RULES
from kerasfold.read.model import CustomScaleLayer
from kerasfold.testing import check_lift
from zoo.augmentations import AUGMENTATIONS
from zoo.cases import CASES
from zoo.making import chain
from zoo.rows import Case
from zoo.same import FLOAT64, assert_same


class ChannelScale(layers.Layer):
    """gain x + offset, per channel."""

    def build(self, input_shape: Any) -> None:
        shape = (input_shape[-1],)
        self.gain = self.add_weight(shape=shape, initializer="ones", name="gain")
        self.offset = self.add_weight(shape=shape, initializer="zeros", name="offset")

    def call(self, inputs: Any) -> Any:
        return inputs * self.gain + self.offset


class Blur(layers.Layer):
    """A trained 3x3 per channel with zero padding and a stride, channels_last."""

    def __init__(self, strides: int = 1, dilation: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.strides, self.dilation = strides, dilation

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(shape=(3, 3, input_shape[-1], 1), name="kernel")

    def call(self, inputs: Any) -> Any:
        return keras.ops.depthwise_conv(
            inputs,
            self.kernel,
            self.strides,
            padding="same",
            data_format="channels_last",
            dilation_rate=self.dilation,
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "strides": self.strides, "dilation": self.dilation}


class Mirrored(layers.Layer):
    """x minus its left neighbour: two tensors inside one rule."""

    def call(self, inputs: Any) -> Any:
        return inputs - keras.ops.pad(inputs, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]


class ScaledPool(layers.Layer):
    """Twice an average pool 'same': a pool that is not all that its layer does."""

    def call(self, inputs: Any) -> Any:
        return keras.ops.average_pool(2.0 * inputs, 3, 1, padding="same")


class Subclass(ChannelScale):
    """A class whose base has a rule, which says nothing of this one."""


pytestmark = pytest.mark.usefixtures("rules_restored")


def lift_scale() -> None:
    @kerasfold.lifts(ChannelScale)
    def rule(layer: Any, x: kerasfold.Signal) -> kerasfold.Signal:
        return x.scale(layer.gain, layer.offset)


def lift_blur() -> None:
    @kerasfold.lifts(Blur)
    def rule(layer: Any, x: kerasfold.Signal) -> kerasfold.Signal:
        channels = x.channels
        kernel = np.reshape(layer.kernel, (3, 3, 1, channels))
        return x.convolve(
            kernel,
            strides=layer.strides,
            padding="same",
            dilation=layer.dilation,
            groups=channels,
        )


# Layers that are called on a list have no one input shape: test_rules.py compares those.
ON_A_LIST = {layers.Add, layers.Subtract, layers.Average, layers.Concatenate, CustomScaleLayer}
# One row of each class: the last, which is not the plainest, of those whose layer is lifted.
NOT_LIFTED = ("unequal_windows",)
ONE_OF_EACH = {
    case.kind: case
    for case in CASES
    if case.kind not in ON_A_LIST and not case.id.endswith(NOT_LIFTED)
}


def layer_of(case: Case) -> tuple[keras.Layer, tuple[int, ...]]:
    """A fresh layer as in the row, and the shape of its input there."""
    used = case.model("float32").get_layer("layer")
    shape = used.input.shape[1:]
    if isinstance(used, layers.Normalization):  # its statistics are no part of its config
        return used, shape
    return type(used).from_config(used.get_config()), shape


def test_every_class_is_there() -> None:
    lifted = {kind for kind in RULES if isinstance(kind, type)}
    assert set(ONE_OF_EACH) | ON_A_LIST | set(AUGMENTATIONS) == lifted


@pytest.mark.parametrize("case", ONE_OF_EACH.values(), ids=lambda case: case.id)
def test_check_lift_passes(case: Case) -> None:
    layer, shape = layer_of(case)
    for seed in (0, 1):
        check_lift(layer, shape, seed=seed)


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("shape", [(8, 7, 3), (2, 1, 4)])
def test_check_lift_passes_on_own_layers(shape: Any, strides: int) -> None:
    lift_scale()
    lift_blur()
    check_lift(ChannelScale(), shape)
    check_lift(Blur(strides), shape)
    check_lift(Blur(dilation=2), shape)


def test_check_lift_of_a_rule_with_branches() -> None:
    @kerasfold.lifts(Mirrored)
    def rule(layer: Any, x: kerasfold.Signal) -> kerasfold.Signal:
        return x - x.pad([(0, 0), (1, 0)]).crop([(0, 0), (0, 1)])

    check_lift(Mirrored(), (5, 6, 2))


Rule = Callable[[Any, kerasfold.Signal], kerasfold.Signal]
DIFFERS = r"its rule differs from the layer by [\d.e+-]+, with outputs up to [\d.e+-]+"
WRONG: dict[str, tuple[Rule, str]] = {
    "factor": (lambda layer, x: x.scale(2 * np.asarray(layer.gain), layer.offset), DIFFERS),
    "factor_a_little_off": (
        lambda layer, x: x.scale((1 + 1e-6) * np.asarray(layer.gain), layer.offset),
        DIFFERS,
    ),
    "no_offset": (lambda layer, x: x.scale(layer.gain), DIFFERS),
    "offset_added_first": (lambda layer, x: (x + np.asarray(layer.offset)) * layer.gain, DIFFERS),
    "channels_reversed": (lambda layer, x: x.scale(layer.gain[::-1], layer.offset), DIFFERS),
    "one_channel": (
        lambda layer, x: x.scale(np.asarray(layer.gain) * [1, 1, 0], layer.offset),
        DIFFERS,
    ),
    "shifted_by_a_pixel": (
        lambda layer, x: (
            x.scale(layer.gain, layer.offset).pad([(1, 0), (0, 0)]).crop([(0, 1), (0, 0)])
        ),
        DIFFERS,
    ),
    "border_only": (
        lambda layer, x: (
            x.crop([(0, 0), (0, 1)]).pad([(0, 0), (0, 1)]).scale(layer.gain, layer.offset)
        ),
        DIFFERS,
    ),
    "smaller": (
        lambda layer, x: x.scale(layer.gain, layer.offset).crop([(0, 1), (0, 0)]),
        r"is not lifted: its rule gives outputs of shape \(5, 5, 3\), the layer \(6, 5, 3\)",
    ),
    "fewer_channels": (
        lambda layer, x: x.scale(layer.gain, layer.offset).take(slice(0, 2)),
        r"is not lifted: its rule gives outputs of shape \(6, 5, 2\), the layer \(6, 5, 3\)",
    ),
    "flat": (
        lambda layer, x: x.scale(layer.gain, layer.offset).flatten(),
        r"is not lifted: its rule gives outputs of shape \(90,\), the layer \(6, 5, 3\)",
    ),
}


@pytest.mark.parametrize(("rule", "message"), WRONG.values(), ids=WRONG)
def test_check_lift_fails_for_a_wrong_rule(rule: Rule, message: str) -> None:
    kerasfold.lifts(ChannelScale)(rule)
    with pytest.raises(AssertionError, match=message) as failure:
        check_lift(ChannelScale(name="mine"), (6, 5, 3))
    assert "layer 'mine'" in str(failure.value)


def test_check_lift_fails_without_a_rule() -> None:
    with pytest.raises(
        AssertionError,
        match=r"layer 'mine' of class ChannelScale is not lifted: ChannelScale is not linear, or "
        r"kerasfold has no rule for it",
    ):
        check_lift(ChannelScale(name="mine"), (6, 5, 3))


def test_check_lift_fails_where_the_rule_refuses() -> None:
    @kerasfold.lifts(ChannelScale)
    def rule(layer: Any, x: kerasfold.Signal) -> kerasfold.Signal:
        raise kerasfold.Refused("not today")

    with pytest.raises(AssertionError, match="class ChannelScale is not lifted: not today"):
        check_lift(ChannelScale(), (6, 5, 3))


def test_check_lift_fails_for_what_is_not_affine() -> None:
    with pytest.raises(AssertionError, match="LayerNormalization is not linear"):
        check_lift(layers.LayerNormalization(), (6, 5, 3))


def test_rules_are_of_the_exact_class() -> None:
    lift_scale()
    with pytest.raises(
        AssertionError, match="Subclass extends ChannelScale, and kerasfold has no rule"
    ):
        check_lift(Subclass(), (6, 5, 3))


def test_a_wrong_rule_is_never_handed_out() -> None:
    """Verification runs the layer itself, so a fold with a wrong rule fails."""
    kerasfold.lifts(ChannelScale)(lambda layer, x: x.scale(1.01 * np.asarray(layer.gain)))
    with pytest.raises(kerasfold.EquivalenceError, match="not handed out"):
        kerasfold.fold(chain((6, 5, 3), layers.Conv2D(4, 3), ChannelScale()))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "stack",
    [
        lambda: [layers.Conv2D(4, 3), ChannelScale()],
        lambda: [ChannelScale(), layers.Conv2D(4, 3)],
        lambda: [layers.Conv2D(4, 3), ChannelScale(), layers.BatchNormalization()],
        lambda: [layers.Conv2D(4, 3), ChannelScale(), layers.Conv2D(3, 2, strides=2)],
        lambda: [ChannelScale(), layers.Conv2D(4, 3, padding="same")],
        lambda: [Blur(), layers.Conv2D(4, 3)],
        lambda: [Blur(2), layers.BatchNormalization(), layers.Conv2D(4, 2)],
        lambda: [Blur(dilation=2), ChannelScale(), layers.Conv2D(4, 1)],
        lambda: [layers.Conv2D(4, 1, use_bias=False), Blur(), ChannelScale()],
        lambda: [layers.ZeroPadding2D(1), Blur(), layers.AveragePooling2D(2), ChannelScale()],
    ],
)
@pytest.mark.parametrize("shape", [(9, 8, 3), (10, 7, 3)])
def test_own_layers_merge(stack: Callable[[], list[keras.Layer]], shape: Any) -> None:
    lift_scale()
    lift_blur()
    model = chain(shape, *stack())
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert_same(model, folded, FLOAT64)
    report = folded.fold_report
    own = {type(layer) for layer in folded.layers} & {ChannelScale, Blur}
    assert report.layers_after == 1, str(report)
    assert not own, str(report)
    assert kerasfold.fold(model).fold_report.equivalence.equivalent


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("objective", ["latency", "macs", "params", "layers"])
@pytest.mark.parametrize("shape", [(9, 8, 3), (10, 7, 3), (2, 2, 3)])
def test_padding_of_own_layers_is_exact_at_the_border(shape: Any, objective: str) -> None:
    lift_scale()
    lift_blur()
    for stack in (
        [layers.Conv2D(9, 3, padding="same"), Blur(), layers.Conv2D(2, 1)],
        [ChannelScale(), Blur(2), layers.Conv2D(2, 3, padding="same")],
        [layers.BatchNormalization(), Blur(), Blur(dilation=2), ChannelScale()],
    ):
        model = chain(shape, *stack)
        folded = kerasfold.fold(model, objective=objective, verify=False)
        assert_same(model, folded, FLOAT64)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("objective", ["latency", "macs", "params", "layers"])
@pytest.mark.parametrize("rule_first", [True, False])
def test_a_pool_among_other_steps_of_a_layer(objective: str, rule_first: bool) -> None:
    """What moves past a pool, or is framed, may not take the rest of the layer along."""
    if rule_first:
        kerasfold.lifts(ScaledPool)(
            lambda layer, x: x.scale(2.0).average(3, strides=1, padding="same")
        )
    else:
        kerasfold.lifts(ScaledPool)(
            lambda layer, x: x.average(3, strides=1, padding="same").scale(2.0)
        )
    check_lift(ScaledPool(), (7, 6, 3))
    model = chain(
        (12, 13, 3),
        layers.Conv2D(24, 1),
        ScaledPool(),
        layers.Conv2D(24, 3, padding="same"),
        layers.Conv2D(2, 1),
        ScaledPool(),
        layers.Conv2D(3, 1),
    )
    assert_same(model, kerasfold.fold(model, objective=objective, verify=False), FLOAT64)


@pytest.mark.usefixtures("float64")
def test_unknown_sizes_with_own_padding() -> None:
    lift_blur()
    model = chain((None, None, 3), Blur(), layers.Conv2D(4, 3))
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert folded.fold_report.layers_after == 1
    for size in (5, 6, 12):
        assert_same(model, folded, FLOAT64, size=size)


def test_a_refusal_is_in_the_report() -> None:
    @kerasfold.lifts(ChannelScale)
    def rule(layer: Any, x: kerasfold.Signal) -> kerasfold.Signal:
        if x.channels > 3:
            raise kerasfold.Refused(f"{x.channels} channels are more than three")
        return x.scale(layer.gain, layer.offset)

    model = chain(
        (6, 5, 3),
        ChannelScale(name="few"),
        layers.Conv2D(4, 3, name="c1"),
        ChannelScale(name="many"),
        layers.Conv2D(2, 3, name="c2"),
    )
    report = kerasfold.explain(model, objective="layers")
    assert [(row.layer, row.reason) for row in report.kept if row.layer == "many"] == [
        ("many", "4 channels are more than three")
    ]
    assert [row.layers for row in report.merged] == [("few", "c1")]
    assert "4 channels are more than three" in str(report)
    folded = kerasfold.fold(model, objective="layers")
    assert folded.fold_report.layers_after == report.layers_after == 3
    assert isinstance(folded.get_layer("many"), ChannelScale)
    with pytest.raises(kerasfold.NonlinearLayerError, match=r"'many' \(4 channels are more than"):
        kerasfold.require_linear(model)


def test_a_refusal_halfway_leaves_nothing_behind() -> None:
    @kerasfold.lifts(ChannelScale)
    def rule(layer: Any, x: kerasfold.Signal) -> kerasfold.Signal:
        x.scale(layer.gain).pad([(1, 1), (1, 1)])
        raise kerasfold.Refused("after some steps")

    model = chain((6, 5, 3), layers.Conv2D(4, 3), ChannelScale(), layers.Conv2D(2, 3))
    folded = kerasfold.fold(model)
    assert folded.fold_report.layers_after == 3
    assert [row.reason for row in folded.fold_report.kept].count("after some steps") == 1


def test_without_a_rule_the_report_says_so() -> None:
    report = kerasfold.explain(chain((6, 5, 3), layers.Conv2D(4, 3), ChannelScale(name="own")))
    assert ("own", "ChannelScale is not linear, or kerasfold has no rule for it") in [
        (row.layer, row.reason) for row in report.kept
    ]


def test_one_rule_for_two_classes_and_the_function_is_returned() -> None:
    def rule(layer: Any, x: kerasfold.Signal) -> kerasfold.Signal:
        return x.scale(layer.gain, layer.offset)

    assert kerasfold.lifts(ChannelScale, Subclass)(rule) is rule
    check_lift(ChannelScale(), (6, 5, 3))
    check_lift(Subclass(), (6, 3))


def test_what_a_rule_only_tries_is_no_part_of_the_model() -> None:
    @kerasfold.lifts(ChannelScale)
    def rule(layer: Any, x: kerasfold.Signal) -> kerasfold.Signal:
        x.scale(2.0)
        y = x.scale(layer.gain)
        y.pad([(1, 1), (1, 1)])
        return y

    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(8, 3), ChannelScale(), layers.Conv2D(4, 3)]
    )
    for options in ({"objective": "layers"}, {}, {"objective": "measured", "budget": 5.0}):
        folded = kerasfold.fold(model, **options)
        assert folded.fold_report.layers_after < 3


def test_what_a_rule_only_tries_costs_nothing() -> None:
    """A step that is written and discarded, in the middle and at the end."""

    @kerasfold.lifts(Blur)
    def rule(layer: Any, x: kerasfold.Signal) -> kerasfold.Signal:
        kernel = np.reshape(layer.kernel, (3, 3, 1, x.channels))
        x.convolve(np.ones((3, 3, x.channels, 100)))
        y = x.pad([(1, 1), (1, 1)])
        x.scale(2.0)
        y.convolve(np.ones((5, 5, x.channels, 100)))
        y = y.convolve(kernel, groups=x.channels)
        y.scale(3.0)
        return y

    report = kerasfold.explain(chain((6, 6, 3), Blur()))
    assert report.macs_before == report.macs_after == 6 * 6 * 9 * 3
    model = chain((6, 6, 3), Blur(), layers.BatchNormalization())
    folded = kerasfold.fold(model, objective="layers")
    assert folded.fold_report.layers_after == 1
    check_lift(Blur(), (6, 6, 3))


def test_a_rule_that_gives_its_input_back_after_trying_is_an_identity() -> None:
    @kerasfold.lifts(ChannelScale)
    def rule(layer: Any, x: kerasfold.Signal) -> kerasfold.Signal:
        x.scale(layer.gain)
        return x

    report = kerasfold.explain(chain((6, 6, 3), ChannelScale(name="passes"), layers.Conv2D(2, 1)))
    assert report.removed == ("passes",)
    assert report.macs_before == 6 * 6 * 3 * 2


def test_a_rule_takes_the_place_of_another_only_where_it_says_so() -> None:
    def rule(layer: Any, x: kerasfold.Signal) -> kerasfold.Signal:
        raise kerasfold.Refused("mine")

    message = (
        r"Conv2D has a lift rule of kerasfold's own, 'conv': to take its place for every model, "
        r"say lifts\(Conv2D, override=True\)"
    )
    with pytest.raises(kerasfold.FoldError, match=message):
        kerasfold.lifts(layers.Conv2D)(rule)
    with pytest.raises(kerasfold.FoldError, match="Add has a lift rule of kerasfold's own"):
        kerasfold.lifts(ChannelScale, layers.Add)(rule)
    assert ChannelScale not in RULES
    kerasfold.lifts(layers.Conv2D, override=True)(rule)
    assert kerasfold.explain(chain((6, 6, 3), layers.Conv2D(2, 1))).kept[0].reason == "mine"


def test_a_rule_that_is_defined_again_is_no_other() -> None:
    """A cell of a notebook is run twice."""
    for _ in range(2):
        lift_scale()
    check_lift(ChannelScale(), (6, 5, 3))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: layers.Conv2D(4, 3), (None, None, 3)),
        (lambda: layers.Conv2D(4, 3, strides=2, padding="same"), (None, None, 3)),
        (lambda: layers.Conv2D(4, (2, 3), strides=(3, 2), padding="same"), (8, None, 3)),
        (lambda: layers.AveragePooling1D(3, 2, padding="same"), (None, 3)),
        (lambda: layers.BatchNormalization(), (None, None, None, 2)),
        (lambda: layers.Conv2DTranspose(4, 3, strides=2), (None, 7, 3)),
        (lambda: layers.Add(), [(None, 3), (None, 3)]),
        (lambda: layers.Add(), ((5, 3), (5, 3))),
    ],
)
def test_check_lift_takes_unknown_sizes(layer: Any, shape: Any) -> None:
    check_lift(layer(), shape)


def test_check_lift_can_fail_at_unknown_sizes() -> None:
    @kerasfold.lifts(Blur)
    def rule(layer: Any, x: kerasfold.Signal) -> kerasfold.Signal:
        kernel = np.reshape(layer.kernel, (3, 3, 1, x.channels))
        return x.convolve(kernel, padding="same", strides=layer.strides, groups=x.channels) * 1.01

    with pytest.raises(AssertionError, match="its rule differs from the layer"):
        check_lift(Blur(2), (None, None, 3))

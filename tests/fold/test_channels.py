"""Channels that nobody reads, or that are constant, are not computed: exactly, borders included."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from kerasfold.algebra.response import response
from kerasfold.layers.fewer import with_fewer
from kerasfold.lift import ranges
from kerasfold.lift.channels import Aligned, Known, flows
from kerasfold.lift.need import needed
from kerasfold.lift.pruned import pruned
from kerasfold.lift.ranges import Range
from kerasfold.lift.regions import lifted
from kerasfold.read.copies import called_copy
from kerasfold.read.model import made_by
from zoo.dead import kill, some_dead, widths
from zoo.making import policy, randomise
from zoo.same import FLOAT64, assert_same

ALMOST = 1e-6


def named(x: Any, kind: str, *args: Any, **config: Any) -> Any:
    return getattr(layers, kind)(*args, **config)(x)


def block(x: Any, channels: int, padding: str = "same", kernel: int = 3, **config: Any) -> Any:
    x = layers.Conv2D(channels, kernel, padding=padding, use_bias=False, **config)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def built(body: Callable[[Any], Any], shape: tuple = (10, 9, 3), seed: int = 0) -> keras.Model:
    """What is made of images, in float64."""
    keras.utils.clear_session(free_memory=False)
    with policy("float64"):
        inputs = keras.Input(shape, dtype="float64")
        return randomise(keras.Model(inputs, body(inputs)), seed)


def residual(x: Any) -> Any:
    x = block(x, 6)
    y = layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same")(block(x, 9)))
    return layers.Conv2D(4, 3)(layers.ReLU()(layers.Add()([x, y])))


def inverted(x: Any) -> Any:
    x = block(x, 9)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    return layers.Conv2D(4, 3)(layers.Conv2D(5, 1, activation="swish")(x))


def gated(x: Any, pool: str = "GlobalAveragePooling2D") -> Any:
    x = block(x, 9)
    y = named(x, pool, keepdims=True)
    y = layers.Conv2D(9, 1, activation="sigmoid")(layers.Conv2D(3, 1, activation="relu")(y))
    return layers.Conv2D(4, 3)(layers.Multiply()([x, y]))


def flattened(x: Any) -> Any:
    x = layers.MaxPooling2D(2, padding="same")(block(x, 6))
    return layers.Dense(3, activation="softmax")(layers.Flatten()(x))


# What is made of images, some BatchNormalizations of which have gammas of zero.
NETS: dict[str, Callable[[Any], Any]] = {
    "valid": lambda x: layers.Conv2D(4, 3)(block(block(x, 6, "valid"), 8, "valid")),
    "same": lambda x: layers.Conv2D(4, 3, padding="same")(block(block(x, 6), 8)),
    "strides": lambda x: block(block(x, 6, strides=2), 8, strides=2),
    "dilated": lambda x: block(block(x, 6, dilation_rate=2), 8, dilation_rate=2),
    "residual": residual,
    "inverted": inverted,
    "gated": gated,
    "flattened": flattened,
    "reshaped": lambda x: layers.Dense(3)(layers.Reshape((-1, 6 * 9))(block(x, 6))),
    "joined": lambda x: block(layers.Concatenate()([block(x, 6), block(x, 5, kernel=1)]), 7),
    "in groups": lambda x: block(block(x, 8), 6, groups=2),
    "separable": lambda x: layers.SeparableConv2D(4, 3, padding="same", depth_multiplier=2)(
        block(x, 6)
    ),
    "transposed": lambda x: layers.Conv2DTranspose(4, 3, strides=2, padding="same")(block(x, 6)),
    "multiplied depthwise": lambda x: layers.Conv2D(4, 3)(
        layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")(block(x, 6))
    ),
    "pooled": lambda x: layers.Dense(4)(layers.GlobalAveragePooling2D()(block(block(x, 6), 8))),
    "average of a border": lambda x: layers.Conv2D(4, 1)(
        layers.AveragePooling2D(3, 1, "same")(layers.ZeroPadding2D(1)(block(x, 6)))
    ),
    "upsampled": lambda x: layers.Conv2D(4, 3, padding="same")(layers.UpSampling2D(2)(block(x, 6))),
    "slopes": lambda x: layers.Conv2D(4, 3, padding="same")(
        layers.PReLU(shared_axes=[1, 2])(
            layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same")(x))
        )
    ),
    "scaled": lambda x: layers.Conv2D(4, 3)(ops.tanh(2.0 * block(x, 6) - 0.3)),
    "a number added": lambda x: layers.Conv2D(4, 3)(1.0 / ops.tanh(ops.add(2.0, block(x, 6)))),
    "added to itself": lambda x: layers.Conv2D(4, 3)(
        ops.tanh(layers.Add()([y := layers.BatchNormalization()(layers.Conv2D(6, 3)(x)), y]))
    ),
    "three added up": lambda x: layers.Conv2D(4, 1)(
        layers.Add()([block(x, 6), block(x, 6), block(x, 6)])
    ),
}


def test_what_is_constant_is_added_as_often_as_it_was() -> None:
    def body(x: Any) -> list[Any]:
        constant = layers.Conv2D(3, 3, kernel_initializer="zeros", name="constant")(x)
        once = layers.Conv2D(3, 3, kernel_initializer="zeros")(x)
        added = [layers.Add()([constant, constant]), layers.Add()([constant, constant, once])]
        return [*added, layers.Dense(2)(layers.GlobalAveragePooling2D()(constant))]

    model = built(body)
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            layer.kernel.assign(0 * layer.kernel)
    folded = kerasfold.fold(model, objective="macs", verify=False)
    assert folded.fold_report.macs_after < model.fold(keep_channels=True).fold_report.macs_after
    assert_same(model, folded, FLOAT64)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("seed", range(2))
def test_a_fold_without_dead_channels_is_the_same(name: str, seed: int) -> None:
    model = some_dead(built(NETS[name], seed=seed), seed=seed)
    folded = kerasfold.fold(model, objective="macs", verify=seed == 0)
    assert seed or folded.fold_report.equivalence.verdict == "equivalent"
    assert_same(model, folded, FLOAT64)
    kept = kerasfold.explain(model, objective="macs", keep_channels=True)
    staying = sum(each.staying for each in folded.fold_report.channels)
    assert staying or folded.fold_report.macs_after < kept.macs_after


@pytest.mark.parametrize("name", NETS)
def test_what_is_almost_dead_stays(name: str) -> None:
    model = built(NETS[name])
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            kill(layer, [0], to=ALMOST)
    report = kerasfold.explain(model, objective="macs")
    assert all(each.constant == each.unread == 0 for each in report.channels)


@pytest.mark.parametrize("name", ["same", "inverted", "joined", "residual", "separable"])
def test_at_unknown_sizes(name: str) -> None:
    model = some_dead(built(NETS[name], (None, None, 3)))
    folded = kerasfold.fold(model, objective="macs", verify=False)
    for size in (5, 12):
        assert_same(model, folded, FLOAT64, size=size)


def dead_alike(build: Callable[..., keras.Model], size: int) -> tuple[keras.Model, int]:
    """A network with a third of the channels dead, the same in all that one Add sums; how many."""
    model = randomise(build(weights=None, input_shape=(size, size, 3), classes=5))
    rng = np.random.default_rng(1)
    same: dict[str, np.ndarray] = {}  # by tensor that a sum gives, or goes into
    gone = 0
    for layer in reversed(model.layers):
        if isinstance(layer, layers.Add):
            dead = same.get(layer.output.name)
            if dead is None:
                dead = rng.permutation(layer.output.shape[-1])[: layer.output.shape[-1] // 3]
            same |= {x.name: dead for x in layer.input}
        elif isinstance(layer, layers.BatchNormalization):
            count = layer.output.shape[-1]
            dead = same.get(layer.output.name, rng.permutation(count)[: count // 3])
            kill(layer, dead)
            gone += len(dead) * (not isinstance(made_by(layer.input), layers.DepthwiseConv2D))
        elif layer.output.name in same and not isinstance(layer.input, list):
            same[layer.input.name] = same[layer.output.name]
    return model, gone


def test_every_dead_channel_of_resnet50_is_gone() -> None:
    model, gone = dead_alike(keras.applications.ResNet50, 64)
    report = kerasfold.explain(model)
    assert sum(each.gone for each in report.channels) == gone
    assert not any(each.staying for each in report.channels)


def test_what_differs_among_addends_stays_and_is_counted() -> None:
    def body(x: Any) -> Any:
        x, y = (layers.BatchNormalization()(layers.Conv2D(6, 3)(x)) for _ in range(2))
        return layers.Conv2D(4, 3)(layers.ReLU()(x + y))

    model = built(body)
    first, second = (x for x in model.layers if isinstance(x, layers.BatchNormalization))
    kill(first, [0, 1, 2])
    kill(second, [1, 2, 3])
    report = kerasfold.fold(model, objective="macs").fold_report
    gone = [(each.unread, each.constant, each.staying) for each in report.channels]
    assert gone == [(0, 2, 1)] * 2
    assert "of others is not constant" in report.channels[0].reason
    assert "constant channels that stay: 2" in str(report)


def test_a_constant_before_zero_padding_of_unknown_size_stays_with_the_reason() -> None:
    model = built(inverted, (None, None, 3))
    normal = next(x for x in model.layers if isinstance(x, layers.BatchNormalization))
    kill(normal, [0, 1])
    normal.beta.assign([1.0, -1.0, *normal.beta[2:]])
    (channels, *_) = kerasfold.explain(model, objective="macs").channels
    assert (channels.constant, channels.staying) == (1, 1)
    assert "at an unknown size, in 'depthwise_conv2d'" in channels.reason


def test_a_fixed_image_leaves_with_its_activation() -> None:
    model = built(inverted)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            kill(layer, [0, 1, 2])
            layer.beta.assign(np.abs(layer.beta))  # no constant is zero
    folded = kerasfold.fold(model, objective="macs", verify=False)
    assert widths(folded) == [6, 6, 5, 4]
    assert_same(model, folded, FLOAT64)


def test_a_gate_of_a_channel_of_zeros_leaves_and_of_another_constant_stays() -> None:
    model = built(gated)
    normal = next(x for x in model.layers if isinstance(x, layers.BatchNormalization))
    kill(normal, [0, 1, 2, 3])
    normal.beta.assign([-1.0, -1.0, -1.0, 1.0, *normal.beta[4:]])
    folded = kerasfold.fold(model, objective="macs", verify=False)
    assert widths(folded) == [6, 3, 6, 4]
    assert_same(model, folded, FLOAT64)


@pytest.mark.parametrize("pool", ["GlobalAveragePooling2D", "GlobalMaxPooling2D"])
@pytest.mark.parametrize(("gamma", "read"), [(0.0, 5), (ALMOST, 6)])
@pytest.mark.parametrize("size", [10, None])
def test_a_constant_behind_a_gate_leaves_the_squeeze(
    pool: str, gamma: float, read: int, size: int | None
) -> None:
    """It is part of the bias there; what is almost one is not."""
    model = built(lambda x: gated(x, pool), (size, size, 3))
    normal = next(x for x in model.layers if isinstance(x, layers.BatchNormalization))
    kill(normal, [0, 1, 2])
    kill(normal, [3], to=gamma)
    normal.beta.assign([-1.0, -1.0, -1.0, 1.0, *normal.beta[4:]])
    folded = kerasfold.fold(model, objective="macs", verify=False)
    kernels = [layer.kernel.shape[-2:] for layer in folded.layers if hasattr(layer, "kernel")]
    assert kernels == [(3, 6), (read, 3), (3, 6), (6, 4)]
    assert_same(model, folded, FLOAT64, size=size or 7)


@pytest.mark.parametrize(("least", "read"), [(1 / 10, 5), (1 / 6, 5), (1 / 5, 6)])
def test_a_squeeze_of_nearly_all_channels_is_left_alone(least: float, read: int) -> None:
    """One of the six channels that are there is constant: to select the others is a call."""
    model = built(gated)
    normal = next(x for x in model.layers if isinstance(x, layers.BatchNormalization))
    kill(normal, [0, 1, 2, 3])
    normal.beta.assign([-1.0, -1.0, -1.0, 1.0, *normal.beta[4:]])
    regions = lifted(model)
    (fewer,) = itertools.islice(pruned(regions, least=least), 1)
    weighed = [x.operation for x in fewer.graph.calls if hasattr(x.operation, "kernel")]
    assert [layer.kernel.shape[-2:] for layer in weighed] == [(3, 6), (read, 3), (3, 6), (6, 4)]


def test_the_same_channels_are_not_tried_twice() -> None:
    """Where no constant is an image, those that are part of a bias are all that there are."""
    model = built(lambda x: layers.Conv2D(4, 3)(block(x, 9)))
    kill(next(x for x in model.layers if isinstance(x, layers.BatchNormalization)), [0, 1])
    tries = pruned(lifted(model))
    next(tries)
    with pytest.raises(StopIteration):
        tries.send(False)


@pytest.mark.parametrize("clamp", ["relu", "relu6"])
def test_what_bounds_prove_is_constant(clamp: str) -> None:
    """Of what lies in [0, 1], weights and biases that leave nothing above zero, or a little."""
    model = built(lambda x: layers.Conv2D(4, 3)(
        layers.Conv2D(3, 1, activation=clamp)(layers.Conv2D(2, 3, activation="sigmoid")(x))
    ))  # fmt: skip
    kernel = np.array([[1.0, 1.0, 0.5], [-0.5, 0.25, 0.75]])
    model.layers[2].kernel.assign(kernel[None, None])
    model.layers[2].bias.assign([-1.0 - 1e-9, -1.25 - 1e-9, -1.25 + 1e-9])
    (found,) = kerasfold.explain(model, objective="macs").channels
    assert (found.constant, found.unread, found.staying) == (2, 0, 0)


@pytest.mark.parametrize(
    "idle",
    [
        lambda: layers.Reshape((5, 6)),
        lambda: layers.Reshape((-1, 6)),
        lambda: lambda x: ops.reshape(x, (-1, 5, 6)),
        lambda: layers.Dropout(0.1),
    ],
)
def test_channels_go_through_what_changes_nothing_and_says_how_many_there_were(idle: Any) -> None:
    with policy("float64"):
        inputs, norm = keras.Input((5, 3)), layers.BatchNormalization()
        x = layers.ReLU()(norm(layers.Conv1D(6, 1)(inputs)))
        model = randomise(keras.Model(inputs, layers.Conv1D(2, 1)(idle()(x))))
    norm.gamma.assign([0, 1, 1, 1, 1, 1])
    norm.beta.assign([-1, 1, 1, 1, 1, 1])
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert folded.fold_report.channels


def test_keep_channels_keeps_them() -> None:
    model = some_dead(built(NETS["same"]))
    folded = kerasfold.fold(model, keep_channels=True)
    assert folded.fold_report.channels == ()
    assert widths(folded) == widths(model)


def test_the_report_counts_what_is_gone() -> None:
    model = some_dead(built(NETS["same"]))
    report = kerasfold.fold(model, objective="macs").fold_report
    assert "channels that are gone: 4 of 14" in str(report)
    assert "conv2d_1: 2 of 6 gone" in report.text(verbose=True)
    assert report.to_dict()["channels"][0]["layer"] == "conv2d_1"
    explained = kerasfold.explain(model, objective="macs")
    assert (explained.channels, explained.params_after) == (report.channels, report.params_after)


def test_of_a_function_with_the_name_of_one_of_keras_nothing_is_known() -> None:
    def sigmoid(x: Any) -> Any:
        return 4.0 * x

    model = built(lambda x: layers.Conv2D(4, 3)(
        layers.Conv2D(3, 1, activation="relu")(layers.Activation(sigmoid)(x))
    ))  # fmt: skip
    model.layers[2].kernel.assign(-np.abs(model.layers[2].kernel))
    model.layers[2].bias.assign(-np.ones(3))  # below zero, were that sigmoid the one of Keras
    folded = kerasfold.fold(model, verify=False)
    assert widths(folded) == [3, 4]
    assert_same(model, folded, FLOAT64)


def test_a_layer_that_no_config_rebuilds_keeps_its_channels() -> None:
    class Unwritten(keras.regularizers.Regularizer):
        def __call__(self, x: Any) -> Any:
            return 0.0 * ops.sum(x)

    regularizer = Unwritten()
    model = built(lambda x: layers.Conv2D(4, 3)(block(x, 6, kernel_regularizer=regularizer)))
    kill(model.layers[2], [1, 2])
    assert_same(model, kerasfold.fold(model, verify=False), FLOAT64)


def test_the_reason_why_channels_stay_is_found_where_branches_part_and_meet_often() -> None:
    def body(x: Any) -> Any:
        x = layers.Conv2D(8, 3, use_bias=False)(x)
        for _ in range(40):
            x = 0.5 * layers.Add()([x, layers.ReLU()(x)])
        return layers.Conv2D(4, 3, groups=2)(x)

    model = built(body)
    kill(model.layers[1], [1])
    (channels,) = kerasfold.explain(model).channels
    assert channels.staying == 1


def test_what_is_needed_goes_along_a_chain_in_few_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An input has all of its channels, and so has all that takes each of them by itself."""
    settled = []
    settle = Aligned.settle

    def counted(self: Aligned, *args: Any) -> None:
        settled.append(self.call.name)
        settle(self, *args)

    def body(x: Any) -> Any:
        for _ in range(40):
            x = ops.sigmoid(ops.tanh(x))
        return layers.Conv2D(4, 3)(x)

    model = built(body)
    model.layers[-1].kernel.assign(np.asarray(model.layers[-1].kernel) * [[[[0.0], [1.0], [1.0]]]])
    known = Known(lifted(model))
    monkeypatch.setattr(Aligned, "settle", counted)
    assert all(there.all() for there in needed(known, flows(known)).values())
    assert len(settled) <= 4 * 80


def test_where_all_are_constant_one_stays_and_says_so() -> None:
    x = image = keras.Input((4, 4, 2))
    for name in "abc":
        x = layers.Conv2D(2, 1, bias_initializer=keras.initializers.Constant(-1.0), name=name)(x)
        x = layers.ReLU()(x)
    model = keras.Model(image, layers.Softmax()(layers.Conv2D(3, 1)(x)))
    model.get_layer("a").kernel.assign(np.zeros((1, 1, 2, 2)))
    report = kerasfold.fold(model).fold_report
    reasons = {each.layer: each.reason for each in report.channels if each.staying}
    assert {reasons[name] for name in "abc"} == {"one is left where all are constant"}


def test_where_all_are_constant_and_stay_not_all_could_go() -> None:
    """One is left, and an image is added: what is constant before zero padding is none behind."""

    def body(x: Any) -> Any:
        x = layers.ReLU()(layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3)(x)))
        return layers.Conv2D(2, 3, padding="same")(x)

    model = built(body, (6, 6, 3))
    kill(model.get_layer("bn"), range(4))
    model.get_layer("bn").beta.assign(np.full(4, 2.0))
    (found, _) = model.fold().fold_report.channels
    assert (
        found.reason
        == "one is left where all are constant, and with what is added it is no cheaper"
    )
    (found, _) = model.fold(objective="macs").fold_report.channels
    assert found.reason == "one is left where all are constant"


def half_dead() -> keras.Model:
    """Two convolutions of eight channels that are added up, the first five of which are zeros."""

    def body(x: Any) -> Any:
        a, b = (layers.Conv2D(8, 3, use_bias=False, name=name)(x) for name in "ab")
        x = layers.ReLU()(layers.Add()([a, b]))
        return layers.Conv2D(4, 1)(layers.DepthwiseConv2D(3, strides=2)(x))

    model = built(body, (32, 32, 8))
    for name in "ab":
        kernel = model.get_layer(name).kernel
        kernel.assign(np.asarray(kernel) * (np.arange(8) >= 5))
    return model


@pytest.mark.parametrize(("runtime", "there"), [("onnxruntime", 4), ("litert", 3), (None, 3)])
def test_a_runtime_keeps_channels_that_make_it_faster(runtime: str | None, there: int) -> None:
    """ONNX Runtime computes a multiple of four in another layout, and three more slowly."""
    model = half_dead()
    folded = kerasfold.fold(model, runtime=runtime)
    convolutions = [x for x in folded.layers if type(x) is layers.Conv2D]
    assert {x.filters for x in convolutions[:-1]} == {there}
    assert_same(model, folded, FLOAT64)
    (found, *_) = folded.fold_report.channels
    assert found.gone == 8 - there
    assert found.reason == ("without them, it would be no cheaper" if there == 4 else "")


def bordered(channels: int = 8) -> keras.Model:
    """Constants before a 'same' depthwise layer and an activation, which are images behind them."""

    def body(x: Any) -> Any:
        x = layers.BatchNormalization(name="bn")(layers.Conv2D(channels, 3)(x))
        x = layers.SeparableConv2D(4, 3, padding="same", activation="tanh")(layers.ReLU()(x))
        return layers.Conv2D(3, 1)(x)

    model = built(body, (34, 34, 3))
    kill(model.get_layer("bn"), range(channels // 2))
    model.get_layer("bn").beta.assign(np.ones(channels))
    return model


def test_images_of_constants_are_counted_and_are_weights_where_those_count() -> None:
    model = bordered()
    report = model.fold(objective="macs").fold_report
    assert report.constants >= 32 * 32
    assert f" and {report.constants:,} constants; " in report.headline
    explained = kerasfold.explain(model, objective="macs")
    assert (explained.constants, explained.params_after) == (report.constants, report.params_after)
    fewest = model.fold(objective="params").fold_report
    assert fewest.constants + fewest.params_after < report.constants + report.params_after


def test_channels_that_are_returned_are_said_to_be() -> None:
    def body(x: Any) -> list[Any]:
        y = layers.BatchNormalization(name="bn")(layers.Conv2D(6, 3)(x))
        return [y, layers.Conv2D(2, 3)(y)]

    model = built(body)
    kill(model.get_layer("bn"), [1, 4])
    (left,) = model.fold(objective="macs").fold_report.channels
    assert (left.staying, left.reason) == (2, "the model returns them")


def test_in_fours_where_they_are_put_side_by_side() -> None:
    def body(x: Any) -> Any:
        halves = [
            layers.ReLU()(layers.BatchNormalization(name=n)(layers.Conv2D(6, 3, padding="same")(x)))
            for n in "ab"
        ]
        x = layers.DepthwiseConv2D(3, activation="relu")(layers.Concatenate()(halves))
        return layers.Conv2D(8, 3)(x)

    model = built(body, (32, 32, 4))
    kill(model.get_layer("a"), [0])
    kill(model.get_layer("b"), [1])
    folded = model.fold(runtime="onnxruntime", verify=False)
    wide = [x.output.shape[-1] for x in folded.layers if isinstance(x, layers.DepthwiseConv2D)]
    assert wide == [12]
    assert model.fold(runtime="litert", verify=False).fold_report.channels


def test_one_term_that_is_left_has_the_dtype_of_the_sum() -> None:
    with policy("mixed_float16"):
        x = keras.Input((8, 8, 4))
        dead = layers.Conv2D(4, 3, padding="same", kernel_initializer="zeros")(x)
        added = layers.Add()([x, dead])
        model = keras.Model(x, [added, layers.Conv2D(3, 3)(added)])
    folded = model.fold()
    assert [y.dtype for y in folded.outputs] == ["float16", "float16"]


ONE_OF_EACH: dict[str, tuple[Callable[[], Any], list[int], list[int]]] = {
    "convolution": (lambda: layers.Conv2D(6, 3, activation="swish"), [0, 2, 3], [0, 4]),
    "groups": (lambda: layers.Conv2D(6, 3, groups=2, use_bias=False), [0, 2], [1, 5]),
    "depthwise": (lambda: layers.DepthwiseConv2D(3, activation="relu"), [0, 3], [0, 3]),
    "transposed": (lambda: layers.Conv2DTranspose(5, 3, activation="relu"), [1, 2], [0, 4]),
    "separable": (lambda: layers.SeparableConv2D(5, 3, activation="relu"), [1, 2], [0, 4]),
    "dense": (lambda: layers.Dense(5, activation="tanh"), [0, 3], [2, 4]),
    "normalisation": (layers.BatchNormalization, [1, 3], [1, 3]),
    "slopes": (lambda: layers.PReLU(shared_axes=[1, 2]), [1, 3], [1, 3]),
}


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_a_layer_of_fewer_channels_makes_those_of_the_other(kind: str, linear: bool) -> None:
    make, reads, gives = ONE_OF_EACH[kind]
    inputs = keras.Input((6, 7, 4))
    layer: Any = make()
    randomise(keras.Model(inputs, layer(inputs)))
    linear = linear and hasattr(layer, "activation")
    own = {name: (id(value), repr(value)) for name, value in vars(layer).items()}
    fewer = with_fewer(layer, np.array(reads), np.array(gives), linear)
    assert own == {name: (id(value), repr(value)) for name, value in vars(layer).items()}
    assert not {id(v) for v in fewer.variables} & {id(v) for v in layer.variables}
    x = np.zeros((2, 6, 7, 4), "float32")  # the channels that are not read
    x[..., reads] = np.random.default_rng(0).normal(size=(2, 6, 7, len(reads)))
    expected = type(layer).from_config(
        layer.get_config() | ({"activation": None} if linear else {})
    )
    expected.build(x.shape)
    expected.set_weights(layer.get_weights())
    wanted = keras.ops.convert_to_numpy(expected(x))[..., gives]
    copied, _ = called_copy(fewer, "copy", None, (keras.Input((6, 7, len(reads))),), {})
    np.testing.assert_allclose(copied(x[..., reads]), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chosen", [[0, 2], [3, 0, 0, 1], [2]])
def test_of_channels_that_are_selected_is_known_what_was(chosen: list[int]) -> None:
    """The same as of the matrix that selects them, but for what that is rounded by."""
    model = built(lambda x: layers.Conv2D(2, 3)(ops.take(x, chosen, axis=-1)), (6, 5, 4))
    (node,) = (x for x in lifted(model).program.nodes if x.selected)
    rng, fixed = np.random.default_rng(0), np.array([True, False, True, False])
    image = np.where(fixed, rng.normal(size=(6, 5, 4)), 0.0)
    low = np.array([0.0, -np.inf, 0.0, -2.0])
    known = Range.between(low, np.array([0.0, 3.0, 0.0, 1.0]), 2).having(fixed, image)
    got, want = ranges.after(node, [known]), ranges._after_operator(node, known)
    np.testing.assert_array_equal(got.fixed, want.fixed)
    np.testing.assert_array_equal(got.image, want.image)
    np.testing.assert_allclose(got.low, want.low, rtol=1e-13)
    np.testing.assert_allclose(got.high, want.high, rtol=1e-13)
    np.testing.assert_array_equal(got.fixed, fixed[chosen])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["Conv2D", "DepthwiseConv2D", "Conv2DTranspose"])
def test_a_kernel_as_it_is_stored_makes_of_constants_what_it_makes_in_float64(
    dtype: str, kind: str
) -> None:
    config = {} if kind == "DepthwiseConv2D" else {"filters": 4}
    with policy(dtype):
        x = keras.Input((6, 5, 4), dtype=dtype)
        layer = getattr(layers, kind)(kernel_size=3, padding="same", **config)
        model = keras.Model(x, layer(x))
    (node,) = (n for n in lifted(model).program.nodes if n.multiplies)
    image = np.random.default_rng(0).normal(size=(6, 5, 4))
    np.testing.assert_array_equal(response(node.as_stored(), image), response(node.load(), image))


@pytest.mark.parametrize(("objective", "read"), [("macs", 15), ("latency", 16)])
def test_where_seconds_count_a_squeeze_is_not_selected_from_for_one_channel(
    objective: str, read: int
) -> None:
    def body(x: Any) -> Any:
        x = block(x, 16)
        y = layers.GlobalAveragePooling2D(keepdims=True)(x)
        y = layers.Conv2D(16, 1, activation="sigmoid")(layers.Conv2D(4, 1, activation="relu")(y))
        return layers.Conv2D(4, 3)(layers.Multiply()([x, y]))

    model = built(body)
    normal = next(x for x in model.layers if isinstance(x, layers.BatchNormalization))
    kill(normal, [3])
    normal.beta.assign([*normal.beta[:3], 1.0, *normal.beta[4:]])
    folded = kerasfold.fold(model, objective=objective, verify=False)
    kernels = [layer.kernel.shape[-2] for layer in folded.layers if hasattr(layer, "kernel")]
    assert kernels[1] == read
    assert_same(model, folded, FLOAT64)

"""Where a fold will run: prices differ between runtimes, and grow with the batch."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.algebra.axis import Axis
from kerasfold.algebra.geometry import Geometry
from kerasfold.cost import Prices, seen_share
from kerasfold.errors import FoldError
from kerasfold.measure.runtimes import RUNTIMES, Runtime
from kerasfold.rooflines import ROOFLINES
from zoo.making import randomise

FUSING = ("litert", "onnxruntime", "openvino")
CONV = Geometry((Axis(28, 3, pad=(1, 1)), Axis(28, 3, pad=(1, 1))), (8, 16))


def between(shape: tuple[int, ...], *steps: Any) -> keras.Model:
    """Steps between nonlinearities."""
    x = inputs = keras.Input(shape)
    for step in (layers.ReLU(), *steps, layers.ReLU()):
        x = step(x)
    return randomise(keras.Model(inputs, x))


def test_every_runtime_that_is_timed_has_a_roofline_of_every_kind() -> None:
    assert ROOFLINES.keys() == RUNTIMES.keys()
    kinds = {frozenset(roofline.rates) for roofline in ROOFLINES.values()}
    assert len(kinds) == 1


def test_a_runtime_that_is_named_is_the_only_one_that_counts() -> None:
    both, one = Prices.of(), Prices.of("xla")
    assert both.operator(CONV).seconds[1:] == one.operator(CONV).seconds
    assert len(both.operator(CONV).seconds) == 2


@pytest.mark.parametrize("runtime", ROOFLINES)
def test_images_cost_as_much_each_and_calls_and_weights_once(runtime: str) -> None:
    one, many = (Prices.of(runtime, batch).operator(CONV) for batch in (1, 64))
    assert (one.macs, one.params, one.layers) == (many.macs, many.params, many.layers)
    assert one.total_seconds < many.total_seconds <= 64 * one.total_seconds + 1e-3
    start = ROOFLINES[runtime].rates["elementwise"].start
    one, many = (Prices.of(runtime, batch).step("elementwise", 1e6) for batch in (1, 64))
    assert many.total_seconds - start == pytest.approx(64 * (one.total_seconds - start))


@pytest.mark.parametrize("runtime", ROOFLINES)
def test_what_is_fused_with_the_layer_before_it_is_free(runtime: str) -> None:
    conv = layers.Conv2D(8, 3, use_bias=False)
    behind = between((28, 28, 8), conv, layers.BatchNormalization())
    alone = between((28, 28, 8), layers.BatchNormalization())
    (folds,) = kerasfold.explain(behind, runtime=runtime).predicted
    (stays,) = kerasfold.explain(alone, runtime=runtime).predicted
    assert stays.before > 0
    assert (folds.gain == pytest.approx(1)) == (runtime in FUSING)


def test_a_normalisation_that_is_fused_still_merges() -> None:
    conv = layers.Conv2D(8, 3, use_bias=False)
    model = between((28, 28, 8), conv, layers.BatchNormalization())
    report = kerasfold.explain(model, runtime="openvino")
    assert [len(merged.layers) for merged in report.merged] == [2]


def test_what_two_read_is_fused_with_nothing() -> None:
    x = inputs = keras.Input((28, 28, 8))
    y = layers.Conv2D(8, 3, use_bias=False)(layers.ReLU()(x))
    model = keras.Model(inputs, [layers.ReLU()(layers.BatchNormalization()(y)), layers.ReLU()(y)])
    (pace,) = kerasfold.explain(randomise(model), runtime="openvino").predicted
    alone = Prices.of("openvino").operator(Geometry((Axis(28, 3), Axis(28, 3)), (8, 8)))
    assert pace.before > 1e3 * alone.total_seconds


def test_plans_differ_where_prices_do() -> None:
    steps = layers.DepthwiseConv2D(3, use_bias=False), layers.Conv2D(16, 1)
    model = between((28, 28, 16), *steps)
    merged = {name: len(kerasfold.explain(model, runtime=name).merged) for name in ROOFLINES}
    assert merged == {name: int(name not in FUSING) for name in ROOFLINES}


def test_plans_differ_where_batches_do() -> None:
    steps = layers.DepthwiseConv2D(3, use_bias=False), layers.Conv2D(16, 1)
    model = between((28, 28, 16), *steps)
    one, many = (kerasfold.explain(model, runtime="tensorflow", batch_size=n) for n in (1, 64))
    assert (len(one.merged), len(many.merged)) == (1, 0)


def test_a_report_says_for_what_it_was_planned() -> None:
    model = between((28, 28, 8), layers.Conv2D(8, 3), layers.BatchNormalization())
    folded = kerasfold.fold(model, runtime="litert", batch_size=8)
    found, told = folded.fold_report, kerasfold.explain(model, runtime="litert", batch_size=8)
    assert [pace.runtime for pace in found.predicted] == ["LiteRT"]
    assert found.predicted == told.predicted
    assert found.batch_size == 8
    assert "objective latency at batch 8" in str(found)


def test_without_a_runtime_none_may_be_slower() -> None:
    model = between((28, 28, 8), layers.Conv2D(8, 3), layers.BatchNormalization())
    assert [p.runtime for p in kerasfold.explain(model).predicted] == ["TensorFlow", "XLA"]


def test_a_batch_that_the_model_does_not_take_is_refused() -> None:
    model = keras.Sequential([keras.Input((4, 4, 1), batch_size=2, name="x"), layers.Conv2D(1, 3)])
    assert kerasfold.explain(model, batch_size=2).batch_size == 2
    for function in (kerasfold.fold, kerasfold.explain):
        with pytest.raises(FoldError, match=r"batch_size=8: input 'x' of model '.*' takes 2 at"):
            function(model, batch_size=8)


def test_what_is_measured_is_measured_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def bring(model: keras.Model, inputs: Any) -> Any:
        seen.append(inputs[0].shape[0])
        return lambda: [np.asarray(model(inputs[0], training=False))]

    monkeypatch.setitem(RUNTIMES, "eager", Runtime(bring))
    model = between((6, 6, 2), layers.Conv2D(2, 1), layers.Conv2D(2, 3))
    folded = kerasfold.fold(model, "measured", runtime="eager", batch_size=3, budget=0.1)
    assert set(seen) == {3}
    assert folded.fold_report.batch_size == 3


@pytest.mark.parametrize(
    "axis", [Axis(5, 3, 2, 2, pad=(3, 1)), Axis(4, 3, upsampling=2, crop=(1, 0), pad=(2, 2))]
)
def test_zeros_around_an_image_are_no_pieces_of_it(axis: Axis) -> None:
    assert axis.size is not None
    assert axis.out is not None
    last = (axis.size - sum(axis.crop) - 1) * axis.upsampling
    places = [
        p * axis.stride + t * axis.dilation - axis.pad[0]
        for p in range(axis.out)
        for t in range(axis.taps)
    ]
    assert seen_share(axis) == sum(0 <= place <= last for place in places) / len(places)


def padded(by_layer: bool) -> keras.Model:
    """A convolution of volumes, whose own zeros are around it, or those of a layer."""
    own = [layers.Conv3D(2, 3, padding="same", use_bias=False)]
    apart = [layers.ZeroPadding3D(1), layers.Conv3D(2, 3, use_bias=False)]
    return between((4, 4, 4, 2), *(apart if by_layer else own))


def test_zeros_cost_the_same_whoever_puts_them_there() -> None:
    layer, own = (kerasfold.explain(padded(x), runtime="xla").predicted[0] for x in (True, False))
    assert own.before < layer.before < 1.01 * own.before


def test_numbers_around_an_image_are_no_zeros() -> None:
    x = inputs = keras.Input((6, 4, 10, 1))
    for layer in (
        layers.BatchNormalization(),
        layers.ZeroPadding3D(((2, 0), (1, 2), (1, 2))),
        layers.Conv3DTranspose(3, 2),
    ):
        x = layer(x)
    model = randomise(keras.Model(inputs, x))
    assert not [m for m in kerasfold.explain(model).merged if "padding of its own" in m.kind]


@pytest.mark.parametrize("runtime", ["tensorflow", "xla"])
def test_a_product_for_each_pixel_and_group_is_many(runtime: str) -> None:
    """Of 56 x 56 x 64, in 16 groups 2.0 and 1.8 ms, in one 0.4 and 0.2; apart, 0.2 and 0.1."""
    operator = Prices.of(runtime).operator
    one, groups, apart = (
        operator(Geometry((Axis(56), Axis(56)), (64, 64), groups)).total_seconds
        for groups in (1, 16, 64)
    )
    assert groups > 5 * one
    assert groups > 4 * apart


def test_channels_that_give_two_each_are_no_multiplication_of_an_image() -> None:
    """XLA multiplies where each channel gives one: 28 x 28 x 16 took 1 us, and two each 300."""
    operator = Prices.of("xla").operator
    one, two = (operator(Geometry((Axis(28), Axis(28)), (16, 16 * n), 16)) for n in (1, 2))
    assert two.total_seconds > 5 * one.total_seconds


def test_a_matrix_product_of_every_other_pixel_is_a_convolution_under_xla() -> None:
    """Of 14 x 14 x 3 it took 42 us, of all pixels 21: it is no product of matrices there."""
    operator = Prices.of("xla").operator
    all_of_them, every_other = (
        operator(Geometry((Axis(14, stride=n).tight(),) * 2, (3, 32))) for n in (1, 2)
    )
    assert every_other.total_seconds > 2 * all_of_them.total_seconds

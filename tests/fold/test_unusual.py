"""Legal models that are seldom written: the fold computes what they compute, or says why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

import kerasfold
from kerasfold.algebra.axis import Axis
from kerasfold.algebra.chain import chain
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.lift.rules import RULES
from kerasfold.testing import apply, check_lift
from zoo.making import policy, randomise

OBJECTIVES = ("latency", "macs", "params", "layers")
each_objective = pytest.mark.parametrize("objective", OBJECTIVES)


pytestmark = pytest.mark.usefixtures("float64", "rules_restored")


def image(*shape: int | None) -> Any:
    return keras.Input(shape, dtype="float64")


def assert_folds(
    model: keras.Model, objective: str = "layers", size: int = 18, faults: bool = True
) -> keras.Model:
    """Equal to 1e-10 of the scale; and a fault in any weight that is stored would be seen."""
    folded = kerasfold.fold(model, objective, verify=False)
    rng = np.random.default_rng(5)
    xs = [rng.normal(size=(2, *(n or size for n in x.shape[1:]))) for x in model.inputs]
    arguments = xs if len(xs) > 1 else xs[0]

    def run(m: keras.Model) -> list[np.ndarray]:
        return [np.asarray(y) for y in keras.tree.flatten(m(arguments, training=False))]

    def error() -> float:
        pairs = list(zip(run(model), run(folded), strict=True))
        assert all(a.shape == b.shape for a, b in pairs)
        return float(np.max([np.abs(a - b).max() / np.abs(a).max() for a, b in pairs]))

    assert error() < 1e-10
    for variable in folded.trainable_variables if faults else ():
        right = variable.numpy()
        if np.any(right):
            variable.assign(right * 1.001)
            assert error() > 1e-8, variable.path
            variable.assign(right)
    return folded


def shared_between(first: Callable[[Any], Any], second: Callable[[Any], Any]) -> keras.Model:
    """One convolution behind two different steps without weights."""
    x, y = image(9, 9, 3), image(9, 9, 3)
    conv = L.Conv2D(4, 3)
    return randomise(keras.Model([x, y], [L.ReLU()(conv(first(x))), L.ReLU()(conv(second(y)))]))


@each_objective
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda x: L.Rescaling(2.0)(x), lambda x: L.Rescaling(3.0)(x)),
        (lambda x: x[..., :2], lambda x: x[..., 1:]),
        (
            lambda x: L.Normalization(mean=0.5, variance=2.0)(x),
            lambda x: L.Normalization(mean=1.0, variance=2.0)(x),
        ),
        (lambda x: x * 2.0, lambda x: x * 2.0),
        (lambda x: x + 1.0, lambda x: x - 1.0),
    ],
    ids=["rescaling", "channels", "normalization", "the same", "shift"],
)
def test_a_shared_layer_behind_different_constants(first, second, objective):
    assert_folds(shared_between(first, second), objective)


@each_objective
def test_a_shared_layer_with_different_steps_behind(objective):
    x = image(9, 9, 3)
    conv = L.Conv2D(4, 3)
    model = keras.Model(x, [L.ReLU()(conv(x) * 2.0), L.ReLU()(conv(x[:, ::-1][:, ::-1]) * 5.0)])
    assert_folds(randomise(model), objective)


@each_objective
def test_a_separable_layer_of_unknown_height_behind_padding(objective):
    x = image(None, 32, 3)
    padded = L.ZeroPadding2D(((0, 0), (1, 1)))(x)
    model = keras.Model(x, L.SeparableConv2D(4, 3, strides=2, padding="same")(padded))
    assert_folds(randomise(model), objective)


def test_an_explicit_mask_is_a_barrier():
    x = image(6, 3)
    pooled = L.GlobalAveragePooling1D()(x, mask=np.array([[1, 1, 0, 0, 0, 1]], dtype="bool"))
    folded = assert_folds(randomise(keras.Model(x, L.Dense(4)(pooled))))
    assert any("reads a mask" in row.reason for row in folded.fold_report.kept)
    x, k = image(6, 3), image(6)
    pooled = L.GlobalAveragePooling1D()(x, mask=ops.cast(k > 0, "float64"))
    assert_folds(randomise(keras.Model([x, k], L.Dense(4)(pooled))))


class SumPool(L.Layer):
    """Four times the mean: constants do not stay what they are."""

    def call(self, x: Any) -> Any:
        return 4 * ops.average_pool(x, 2, 2)


@each_objective
def test_a_window_that_is_no_mean_does_not_move(objective):
    kerasfold.lifts(SumPool)(
        lambda layer, x: x.convolve(
            np.ones((2, 2, 1, x.channels)), strides=2, groups=x.channels, weightless=True
        )
    )
    check_lift(SumPool(), (6, 8, 3))
    x = image(8, 8, 8)
    assert_folds(randomise(keras.Model(x, SumPool()(L.Conv2D(2, 1)(x)))), objective)


@each_objective
def test_an_activation_that_looks_at_its_neighbours(objective):
    x = image(20, 20, 3)
    flat = L.Flatten()(L.Cropping2D(8)(x))
    dense = L.Dense(4, activation=lambda t: ops.softmax(t, axis=1))(flat)
    assert_folds(randomise(keras.Model(x, dense)), objective)


@pytest.mark.parametrize("gain", [1e-3, 1.0])
def test_a_padding_value_that_its_dtype_cannot_hold(gain):
    keras.config.set_dtype_policy("mixed_float16")
    x = keras.Input((8, 8, 3), dtype="float16")
    norm = L.BatchNormalization()
    model = keras.Model(x, L.Conv2D(4, 3, padding="same")(norm(x)))
    norm.gamma.assign([gain] * 3)
    norm.beta.assign([100.0] * 3)
    folded = kerasfold.fold(model, "layers", verify=False)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float16")
    want, got = (np.asarray(m(images), "float64") for m in (model, folded))
    assert np.isfinite(want).all()
    assert np.abs(want - got).max() < 0.02 * np.abs(want).max()
    padded = any(type(o).__name__ == "Pad" for o in folded.operations)
    assert padded == (gain == 1.0)


def test_an_activation_with_weights_is_copied():
    keras.config.set_dtype_policy("float32")
    prelu = L.PReLU(alpha_initializer="ones")
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, L.Conv2D(4, 1, activation=prelu)(L.Conv2D(4, 3)(x)))
    model(np.ones((1, 8, 8, 3)))  # Keras builds the activation only now
    prelu.alpha.assign(np.full(prelu.alpha.shape, 0.25))
    folded = model.fold(objective="layers")
    assert folded.fold_report.layers_after == 1
    before = prelu.alpha.numpy()
    folded.compile("sgd", "mse")
    folded.fit(np.ones((4, 8, 8, 3)), np.full((4, 6, 6, 4), 50.0), verbose=0)
    np.testing.assert_array_equal(prelu.alpha.numpy(), before)
    copied = folded.layers[-1].activation
    assert not np.array_equal(copied.alpha.numpy(), before)


@each_objective
def test_a_second_copy_takes_no_name_of_another_layer(objective):
    x = image(8, 8, 3)
    conv = L.Conv2D(3, 3, padding="same", name="c")
    a = L.ReLU(name="r1")(conv(L.AveragePooling2D(2, name="p")(x)))
    b = L.ReLU(name="r2")(conv(L.Conv2D(3, 1, name="q")(x)))
    model = randomise(keras.Model(x, [a, b, L.Conv2D(2, 1, name="c_1")(a)]))
    folded = assert_folds(model, objective)
    assert folded.get_layer("c_1").kernel.shape == (1, 1, 3, 2)


def test_verify_of_outputs_of_different_sizes():
    x = image(None, None, 3)
    a = keras.Model(x, L.Conv2D(2, 3, padding="same", name="o")(x))
    y = image(None, None, 3)
    b = keras.Model(y, L.Conv2D(2, 3, name="o")(y))
    report = kerasfold.verify(a, b)
    assert not report.equivalent
    assert "output 'o' has shape" in report.reason
    with pytest.raises(AssertionError, match="has shape"):
        kerasfold.assert_equivalent(a, b)


def test_verify_of_what_is_nowhere_finite():
    def model() -> keras.Model:
        return keras.Sequential([image(8, 8, 3), L.Conv2D(4, 3)])

    a, b = model(), model()
    with pytest.raises(kerasfold.FoldError, match=r"can be compared .*5 of 5 inputs"):
        kerasfold.verify(a, b, data=np.full((5, 8, 8, 3), np.nan))
    for m in (a, b):
        m.layers[0].kernel.assign(m.layers[0].kernel * np.nan)
    report = kerasfold.verify(a, b)
    assert report.verdict == "inconclusive"
    assert "nowhere finite" in report.reason


def test_verify_of_a_subclassed_model():
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = L.Dense(2)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Own()
    model(np.ones((1, 3)))
    with pytest.raises(kerasfold.UnsupportedModelError, match="'own' of class Own has no symbolic"):
        kerasfold.verify(model, model)


def test_weights_that_would_underflow_stay_apart():
    """A kernel of subnormal float16 numbers, which a later factor makes visible."""
    half = {"dtype": "mixed_float16"}
    model = keras.Sequential(
        [
            keras.Input((8, 8, 256)),
            keras.layers.Conv2D(8, 3, use_bias=False, name="conv", **half),
            keras.layers.BatchNormalization(epsilon=0.0, name="norm", **half),
            keras.layers.ELU(**half),
            keras.layers.Rescaling(1e4, **half),
        ]
    )
    kernel = np.random.default_rng(0).normal(size=(3, 3, 256, 8)) * 0.1
    model.get_layer("conv").set_weights([kernel])

    def folded(gamma: float) -> keras.Model:
        values = [np.full(8, gamma), np.zeros(8), np.zeros(8), np.ones(8)]
        model.get_layer("norm").set_weights(values)
        return kerasfold.fold(model, objective="layers")

    apart = folded(1e-6)
    kept = {row.layer: row.reason for row in apart.fold_report.kept}
    assert "would not fit their dtype" in kept["conv"]
    x = np.random.default_rng(1).normal(size=(4, 8, 8, 256)).astype("float32")
    np.testing.assert_array_equal(np.asarray(apart(x)), np.asarray(model(x)))
    assert len(folded(1e-2).layers) == len(model.layers)  # which do not count the Input
    assert len(apart.layers) == len(model.layers) + 1


def test_an_overflow_on_random_inputs_is_called_so():
    keras.config.set_dtype_policy("float32")
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, L.Conv2D(2, 1)(L.Conv2D(4, 1)(x)))
    for layer in model.layers[1:]:
        layer.kernel.assign(np.full(layer.kernel.shape, 1e25))
    folded = model.fold()
    found = folded.fold_report.equivalence
    assert found.verdict == "inconclusive"
    assert "overflows its dtype on most inputs" in found.reason
    assert found.same_function
    assert len(folded.layers) == 3


def test_a_single_call_whose_composition_overflows_stays():
    keras.config.set_dtype_policy("mixed_float16")
    x = keras.Input((6, 6, 1))
    layer = L.SeparableConv2D(2, 3, use_bias=False)
    model = keras.Model(x, layer(x))
    for kernel in (layer.depthwise_kernel, layer.pointwise_kernel):
        kernel.assign(300.0 + np.arange(np.prod(kernel.shape)).reshape(kernel.shape) ** 2)
    for objective in OBJECTIVES:
        folded = kerasfold.fold(model, objective, verify=False)
        assert [type(x) for x in folded.layers[1:]] == [L.SeparableConv2D]


@each_objective
def test_a_planned_composition_is_emitted_in_whatever_order(objective):
    x = image(16, 16, 3)
    y = L.Cropping2D(1)(L.Conv2D(64, 3, padding="same")(x))
    y = L.AveragePooling2D(3, strides=1, padding="same")(y)
    assert_folds(randomise(keras.Model(x, L.Conv2D(2, 1)(y))), objective)
    x = image(12, 12, 3)
    y = L.Conv2D(64, 3, use_bias=False)(L.ZeroPadding2D(4)(x))
    y = L.Conv2D(2, 3, use_bias=False)(y)
    y = L.Conv2D(2, 3, padding="same", use_bias=False)(y)
    y = L.AveragePooling2D(5, strides=1, padding="same")(y)
    assert_folds(randomise(keras.Model(x, L.Conv2D(2, 1)(y))), objective)


def test_a_chain_ends_in_its_target():
    """Composed from first to last where the cheaper order is refused."""

    def link(taps: int, pad: int, size: int, channels: tuple[int, int]) -> Operator:
        geometry = Geometry((Axis(size, taps, pad=(pad, pad)),), channels)
        kernel = np.random.default_rng(taps).normal(size=geometry.kernel_shape)
        return Operator(geometry, kernel, np.zeros(channels[1]))

    links = [link(3, 4, 12, (3, 64)), link(3, 0, 18, (64, 2)), link(3, 1, 16, (2, 2))]
    whole = links[0]
    for operator in links[1:]:
        whole = operator @ whole
    composed = chain(links)
    assert composed.geometry == whole.geometry
    x = np.random.default_rng(0).normal(size=(12, 3))
    y = x
    for operator in links:
        y = apply(operator, y)
    np.testing.assert_allclose(apply(composed, x), y, atol=1e-12 * np.abs(y).max())


@each_objective
def test_tensors_passed_by_keyword(objective):
    x = image(9, 9, 3)
    y = L.Conv2D(3, 3)(inputs=x)
    y = L.Add()(inputs=[y, L.BatchNormalization()(inputs=y)])
    folded = assert_folds(randomise(keras.Model(x, y)), objective)
    assert folded.fold_report.merged


@each_objective
def test_arrays_on_the_left_of_an_operation(objective):
    x = image(9, 9, 3)
    a = np.array([1.0, 2.0, 3.0])
    y = ops.subtract(a, ops.multiply(a, ops.add(a, x)))
    assert_folds(randomise(keras.Model(x, L.Conv2D(2, 3)(y))), objective)


@each_objective
def test_more_than_three_spatial_axes(objective):
    x = image(2, 3, 4, 5, 6)
    y = L.Rescaling(0.5, 1.0)(L.BatchNormalization()(x))
    assert_folds(randomise(keras.Model(x, L.Dense(3)(L.Dense(4)(y)))), objective, size=2)


def test_truthy_training_is_a_barrier():
    x = image(9, 9, 3)
    model = keras.Model(x, L.Conv2D(3, 1)(L.BatchNormalization()(x, training=1)))
    reasons = [row.reason for row in kerasfold.explain(model).kept]
    assert "it is called with training=True" in reasons


def test_a_nested_model_of_several_inputs_is_walked_through():
    a, b = image(8, 8, 3), image(8, 8, 3)
    inner = keras.Model([a, b], L.Conv2D(2, 1)(L.Add()([a, b])))
    x = image(8, 8, 3)
    model = randomise(keras.Model(x, L.BatchNormalization()(inner([L.Conv2D(3, 1)(x), x]))))
    assert assert_folds(model).fold_report.layers_after == 1


class Faulty(L.Layer):
    def call(self, x: Any) -> Any:
        return x


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda layer, x: None, "it returns NoneType, not a kerasfold.Signal"),
        (lambda layer, x: 1 / 0, "ZeroDivisionError: division by zero"),
        (
            lambda layer, x: x.convolve(np.ones((1, 1, 7, 2))),
            r"ValueError: a kernel of shape \(1, 1, 7, 2\) does not fit 3 channels",
        ),
    ],
)
def test_a_faulty_rule_is_named(rule, message):
    kerasfold.lifts(Faulty)(rule)
    x = image(9, 9, 3)
    model = keras.Model(x, Faulty(name="culprit")(x))
    told = f"the lift rule of Faulty failed on layer 'culprit': {message}"
    with pytest.raises(kerasfold.FoldError, match=told):
        model.fold()


def test_check_lift_of_a_layer_with_several_inputs():
    for kind in (L.Add, L.Subtract, L.Average):
        check_lift(kind(), [(5, 4, 2), (5, 4, 2)])
    check_lift(L.Concatenate(), [(5, 4, 2), (5, 4, 3)])
    kerasfold.lifts(L.Subtract, override=True)(RULES[L.Add])
    with pytest.raises(AssertionError, match="its rule differs from the layer"):
        check_lift(L.Subtract(), [(5, 4, 2), (5, 4, 2)])


def test_an_operation_on_a_float32_input_in_a_float64_model():
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, L.Conv2D(4, 3)(x / 127.5))
    assert model.fold().fold_report.equivalence.equivalent


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.Conv2DTranspose(5, 4, strides=2, padding="same"),
        lambda: L.Conv2DTranspose(5, 3, strides=(2, 3), padding="same", output_padding=(1, 0)),
        lambda: L.Conv2DTranspose(5, 2, strides=3),
        lambda: L.Conv2DTranspose(5, 3, strides=2, output_padding=1),
        lambda: L.Conv1DTranspose(5, 5, strides=3, padding="same"),
    ],
)
def test_a_transposed_convolution_keeps_its_padding(layer):
    made = layer()
    x = image(*(7, 8)[: made.rank], 4)
    folded = assert_folds(randomise(keras.Model(x, L.BatchNormalization()(made(x)))))
    assert [type(o) for o in folded.operations[1:]] == [type(made)]
    assert folded.layers[-1].padding == made.padding


def test_slices_pads_and_ones_count_nothing():
    x = image(None, None, 3)
    model = keras.Model(
        x, L.Conv2D(2, 3, padding="same")(L.BatchNormalization(beta_initializer="ones")(x))
    )
    rng = np.random.default_rng(0)
    model.layers[1].set_weights([rng.uniform(0.5, 1.5, 3) for _ in range(4)])
    folded = assert_folds(model)
    assert (folded.fold_report.layers_before, folded.fold_report.layers_after) == (2, 1)
    assert kerasfold.explain(folded, objective="layers").layers_before == 1


@each_objective
def test_a_refused_step_waits_for_what_undoes_it(objective):
    """A stride refuses an upsampling, but not an upsampling that a pool undoes."""
    x = image(13, 12, 3)
    y = L.Conv2D(4, 3, strides=2)(x)
    y = L.AveragePooling2D(2)(L.Conv2D(4, 1)(L.UpSampling2D(2)(y)))
    model = randomise(keras.Model(x, L.Conv2D(5, 1)(y)))
    folded = assert_folds(model, objective)
    if objective == "layers":
        assert folded.fold_report.layers_after == 1


@each_objective
def test_a_separable_layer_that_sees_its_whole_image(objective):
    x = image(4, 4, 2)
    assert_folds(
        randomise(keras.Model(x, L.GlobalAveragePooling2D()(L.SeparableConv2D(3, 4)(x)))), objective
    )


@each_objective
@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_padding_then_cropping_of_images_of_any_size(objective, size):
    x = image(None, 2)
    y = L.Cropping1D((3, 0))(L.ZeroPadding1D((0, 3))(x))
    # Of a small image nothing is left but padding, which no weight changes.
    model = randomise(keras.Model(x, L.Conv1D(2, 1)(y)))
    assert_folds(model, objective, size, faults=size > 3)


@pytest.mark.parametrize(
    "block",
    [
        lambda x: L.ZeroPadding2D(1)(L.BatchNormalization()(x)),
        lambda x: L.Cropping2D(2)(L.ZeroPadding2D(1)(x)),
        lambda x: L.ZeroPadding2D(1)(L.Rescaling(0.5, 1.0)(x)),
    ],
)
def test_nothing_becomes_a_convolution_that_is_slower(block):
    x = image(64, 64, 32)
    folded = assert_folds(randomise(keras.Model(x, L.ReLU()(block(x)))), "latency")
    assert not any("conv" in type(o).__name__.lower() for o in folded.operations)


def test_pixels_that_are_cropped_again_are_counted():
    x = image(2, 2, 16)
    y = L.Conv2DTranspose(4, 1, strides=8, use_bias=False)(x)
    model = randomise(keras.Model(x, L.GlobalAveragePooling2D(keepdims=True)(y)))
    for objective in OBJECTIVES:
        folded = assert_folds(model, objective)
        read = kerasfold.explain(folded, objective="macs").macs_before
        assert folded.fold_report.macs_after == read


def test_verify_of_one_input_in_a_list():
    x = image(4)
    a = keras.Model(x, L.Dense(2)(x))
    assert kerasfold.verify(a, keras.Model([x], a.output)).equivalent


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("factor", [2, 3])
def test_bilinear_upsampling_of_small_images_is_no_false_alarm(dtype, factor):
    keras.config.set_dtype_policy(dtype)
    for seed in range(6):
        x = keras.Input((5, 4, 2), dtype=dtype)
        y = L.UpSampling2D(factor, interpolation="bilinear")(L.BatchNormalization()(x))
        model = randomise(keras.Model(x, L.Conv2D(3, 1)(y)), seed)
        assert model.fold().fold_report.equivalence.equivalent


def test_a_float64_constant_in_a_float32_model_of_volumes():
    keras.config.set_dtype_policy("float32")
    x = keras.Input((4, 4, 4, 2))
    y = L.BatchNormalization()(L.AveragePooling3D(2)(x)) * np.array([0.3, 0.7])
    assert randomise(keras.Model(x, y)).fold().fold_report.equivalence.equivalent


@pytest.mark.parametrize("policy_name", ["mixed_float16", "mixed_bfloat16"])
def test_outputs_keep_their_dtype_where_no_layer_of_it_is_left(policy_name: str) -> None:
    """A sum of float32 inputs is of the low precision only behind a layer that computes in it."""
    with policy(policy_name):
        x, y = keras.Input((4,), dtype="float32"), keras.Input((4,), dtype="float32")
        outputs = [-L.Subtract()([x, y]), ops.negative(-L.Add()([x, x]))]
        model = keras.Model([x, y], outputs)
    for objective in OBJECTIVES:
        folded = kerasfold.fold(model, objective)
        assert [t.dtype for t in folded.outputs] == [t.dtype for t in model.outputs]


def _cropped(x: Any) -> Any:
    return L.Conv2D(2, 3)(L.CenterCrop(6, 6)(x))


def _beside_nothing(x: Any) -> Any:
    joined = L.Concatenate()([L.Dense(3)(x), x[..., 0:0]])
    return L.Dense(2)(L.BatchNormalization()(L.Dense(4)(joined)))


FIRST: dict[str, tuple[tuple[int, ...], str, Callable[[Any], Any]]] = {
    "CenterCrop": ((8, 8, 3), "float32", _cropped),
    "complex numbers": ((6,), "complex64", lambda x: L.Dense(2)(ops.real(x))),
    "no channels": ((0,), "float32", lambda x: L.Dense(2)(x)),
    "some of none": ((6,), "float32", _beside_nothing),
}


@pytest.mark.parametrize("name", FIRST)
def test_what_reads_an_input_is_foreseen(name: str) -> None:
    shape, dtype, body = FIRST[name]
    inputs = keras.Input(shape, dtype=dtype)
    keras.utils.set_random_seed(0)
    model = keras.Model(inputs, body(inputs))
    folded = kerasfold.fold(model)
    assert folded.fold_report.equivalence.verdict == "equivalent"
    assert not any(isinstance(x, L.BatchNormalization) for x in folded.layers)
    fault = keras.models.clone_model(model)
    fault.set_weights([w + 1e-3 for w in model.get_weights()])
    assert kerasfold.verify(model, fault).verdict == "different"

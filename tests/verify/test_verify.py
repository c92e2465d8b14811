"""`verify` finds every small wrong, and passes every right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasfold
from kerasfold.equivalence.runs import Walk
from zoo.making import policy, randomise


def trained_like(dtype: str = "float32") -> keras.Model:
    with policy(dtype):
        i = keras.Input((12, 12, 3), name="image")
        x = layers.Conv2D(6, 3, strides=2, padding="same", name="stem")(i)
        x = layers.ReLU()(layers.BatchNormalization(name="bn1")(x))
        y = layers.DepthwiseConv2D(3, padding="same", name="dw")(x)
        y = layers.BatchNormalization(name="bn2")(layers.Conv2D(6, 1, name="pw")(y))
        x = layers.ReLU()(layers.Add()([x, y]))
        x = layers.SeparableConv2D(5, 3, name="sep")(x)
        x = layers.GlobalAveragePooling2D()(x)
        return randomise(keras.Model(i, layers.Dense(4, name="head")(x)))


def lazy_softmax(dtype: str = "float32") -> keras.Model:
    """As built: zero biases, tiny logits; its probabilities hardly leave 1/10 whatever comes in."""
    keras.utils.set_random_seed(3)
    with policy(dtype):
        i = keras.Input((16, 16, 3), name="image")
        x = i
        for k in range(4):
            x = layers.Conv2D(8, 3, padding="same", use_bias=False, name=f"c{k}")(x)
            x = layers.ReLU()(layers.BatchNormalization(name=f"n{k}")(x))
        x = layers.GlobalAveragePooling2D()(x)
        x = layers.Dense(
            10,
            activation="softmax",
            name="head",
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        )(x)
        return keras.Model(i, x)


MODELS: dict[str, Callable[..., keras.Model]] = {
    "trained_like": trained_like,
    "lazy_softmax": lazy_softmax,
}


def copy_of(model: keras.Model) -> keras.Model:
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    return twin


def change(weight: Any, function: Callable[[np.ndarray], np.ndarray]) -> None:
    weight.assign(function(weight.numpy()))


def kernels(make: Callable[..., keras.Model]) -> list[str]:
    return [w.path for w in make().weights if "kernel" in w.name]


def weight_at(model: keras.Model, path: str) -> Any:
    return next(w for w in model.weights if w.path.split("/", 1)[-1] == path.split("/", 1)[-1])


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_models_pass(make: Callable[..., keras.Model], dtype: str) -> None:
    model = make(dtype)
    for other in (
        model,
        copy_of(model),
        kerasfold.fold(model, verify=False),
        kerasfold.fold(model, objective="layers", verify=False),
    ):
        report = kerasfold.verify(model, other)
        assert report.equivalent, str(report)
        kerasfold.assert_equivalent(model, other)
    assert report.reason == ""


KERNELS = [(name, number) for name, make in MODELS.items() for number in range(len(kernels(make)))]


@pytest.mark.parametrize("factor", [1.01, 1.001])
@pytest.mark.parametrize(("name", "number"), KERNELS)
def test_any_kernel_scaled_a_little(name: str, number: int, factor: float) -> None:
    model = MODELS[name]()
    twin = copy_of(model)
    change([w for w in twin.weights if "kernel" in w.name][number], lambda w: w * factor)
    report = kerasfold.verify(model, twin)
    assert not report.equivalent, str(report)
    assert report.reason
    with pytest.raises(AssertionError):
        kerasfold.assert_equivalent(model, twin)


@pytest.mark.parametrize("number", range(len(kernels(trained_like))))
def test_any_kernel_of_the_fold_scaled_a_little(number: int) -> None:
    model = trained_like()
    folded = kerasfold.fold(model, verify=False)
    all_kernels = [w for w in folded.weights if "kernel" in w.name]
    change(all_kernels[number % len(all_kernels)], lambda w: w * 1.001)
    assert not kerasfold.verify(model, folded).equivalent


def drop_bias(model: keras.Model) -> None:
    change(model.get_layer("pw").bias, np.zeros_like)


def nudge_one_bias(model: keras.Model) -> None:
    change(model.get_layer("dw").bias, lambda b: b + np.eye(6)[2] * 1e-3)


def shift_kernel(model: keras.Model) -> None:
    change(model.get_layer("stem").kernel, lambda k: np.roll(k, 1, axis=0))


def swap_channels(model: keras.Model) -> None:
    change(model.get_layer("pw").kernel, lambda k: k[..., [1, 0, 2, 3, 4, 5]])


def swap_classes(model: keras.Model) -> None:
    for weight in model.get_layer("head").weights:
        change(weight, lambda k: k[..., [0, 1, 3, 2]])


def flip_gamma(model: keras.Model) -> None:
    change(model.get_layer("bn1").gamma, np.negative)


def forget_epsilon(model: keras.Model) -> None:
    change(model.get_layer("bn2").moving_variance, lambda v: v + 1e-3)


def one_tap(model: keras.Model) -> None:
    def zero(kernel: np.ndarray) -> np.ndarray:
        kernel[0, 0, 0, 0] *= 1.01
        return kernel

    change(model.get_layer("stem").kernel, zero)


@pytest.mark.parametrize(
    "wrong",
    [
        drop_bias,
        nudge_one_bias,
        shift_kernel,
        swap_channels,
        swap_classes,
        flip_gamma,
        forget_epsilon,
        one_tap,
    ],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_thing_wrong(wrong: Callable[[keras.Model], None], dtype: str) -> None:
    model = trained_like(dtype)
    twin = copy_of(model)
    wrong(twin)
    report = kerasfold.verify(model, twin)
    assert not report.equivalent, str(report)


def test_a_shifted_pad() -> None:
    def model(pad: Any) -> keras.Model:
        i = keras.Input((10, 10, 3))
        x = layers.Conv2D(4, 3, strides=2)(layers.ZeroPadding2D(pad)(i))
        return randomise(keras.Model(i, layers.ReLU()(x)))

    a, b = model(((0, 1), (0, 1))), model(((1, 0), (1, 0)))
    assert not kerasfold.verify(a, b).equivalent
    assert kerasfold.verify(a, model(((0, 1), (0, 1)))).equivalent


def test_borders_only() -> None:
    """One pad column is wrong, by a little: nothing inside the image tells."""

    def model(value: float) -> keras.Model:
        i = keras.Input((32, 32, 1))
        x = keras.ops.pad(i, [[0, 0], [0, 0], [0, 1], [0, 0]], constant_values=value)
        return randomise(keras.Model(i, layers.Conv2D(2, 3)(x)))

    assert not kerasfold.verify(model(0.0), model(1e-3)).equivalent
    assert kerasfold.verify(model(1e-3), model(1e-3)).equivalent


def test_an_output_that_is_small_beside_another() -> None:
    def model(factor: float) -> keras.Model:
        i = keras.Input((6,))
        out = [layers.Dense(3, name="big")(i), layers.Dense(3, name="small")(i)]
        made = randomise(keras.Model(i, out))
        change(made.get_layer("big").kernel, lambda k: k * 1e6)
        for weight in made.get_layer("small").weights:
            change(weight, lambda k: k * 1e-6)
        change(made.get_layer("small").kernel, lambda k: k * factor)
        return made

    assert not kerasfold.verify(model(1.0), model(1.001)).equivalent
    assert kerasfold.verify(model(1.0), model(1.0)).equivalent


def test_a_constant_offset_hides_nothing() -> None:
    """A large constant on the output: errors are measured against what varies with the input."""

    def model(factor: float) -> keras.Model:
        i = keras.Input((6,), dtype="float64")
        made = randomise(keras.Model(i, layers.Dense(3, name="d", dtype="float64")(i)))
        change(made.get_layer("d").bias, lambda b: b + 1e6)
        change(made.get_layer("d").kernel, lambda k: k * factor)
        return made

    assert not kerasfold.verify(model(1.0), model(1.001)).equivalent
    assert kerasfold.verify(model(1.0), model(1.0)).equivalent


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_float16_weights_do_not_pass_as_float32(make: Callable[..., keras.Model]) -> None:
    model = make()
    twin = copy_of(model)
    for weight in twin.weights:
        change(weight, lambda w: w.astype("float16").astype("float32"))
    assert not kerasfold.verify(model, twin).equivalent


def test_float16_model_does_not_pass_as_float32() -> None:
    model, half = trained_like(), trained_like("float16")
    half.set_weights(model.get_weights())
    assert not kerasfold.verify(model, half).equivalent


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_low_precision_still_tells(policy: str) -> None:
    model = trained_like(policy)
    twin = copy_of(model)
    assert kerasfold.verify(model, twin).equivalent
    change(twin.get_layer("pw").kernel, lambda w: w * 1.01)
    assert not kerasfold.verify(model, twin).equivalent


# Shapes.


def dense(
    units: int = 3, width: int = 4, outputs: int = 1, inputs: int = 1, seed: int = 0
) -> keras.Model:
    given = [keras.Input((width,)) for _ in range(inputs)]
    x = layers.Concatenate()(given) if inputs > 1 else given[0]
    return randomise(keras.Model(given, [layers.Dense(units)(x) for _ in range(outputs)]), seed)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({}, {"units": 5}),
        ({}, {"width": 5}),
        ({}, {"outputs": 2}),
        ({}, {"inputs": 2}),
    ],
)
def test_different_shapes_are_an_error(a: dict[str, int], b: dict[str, int]) -> None:
    for first, second in ((a, b), (b, a)):
        with pytest.raises(kerasfold.FoldError) as error:
            kerasfold.verify(dense(**first), dense(**second))
        assert "put" in str(error.value)
        with pytest.raises((kerasfold.FoldError, AssertionError)):
            kerasfold.assert_equivalent(dense(**first), dense(**second))


# The user's own data.


def two_inputs() -> keras.Model:
    a, b = keras.Input((6, 6, 3), name="left"), keras.Input((5,), name="right")
    x = layers.GlobalAveragePooling2D()(
        layers.BatchNormalization()(layers.Conv2D(4, 3, name="c")(a))
    )
    x = layers.Concatenate()([x, b])
    return randomise(keras.Model({"left": a, "right": b}, layers.Dense(3, activation="softmax")(x)))


class Batches(keras.utils.PyDataset):
    def __init__(self, x: Any, labels: bool) -> None:
        super().__init__()
        self.x, self.labels = x, labels

    def __len__(self) -> int:
        return 3

    def __getitem__(self, k: int) -> Any:
        x = keras.tree.map_structure(lambda a: a[4 * k : 4 * k + 4], self.x)
        return (x, np.zeros(4)) if self.labels else (x,)


def forms(x: Any) -> dict[str, Any]:
    labels = np.zeros(12)
    return {
        "arrays": x,
        "tensors": keras.tree.map_structure(tf.constant, x),
        "dataset": tf.data.Dataset.from_tensor_slices((x, labels)).batch(4),
        "dataset_without_labels": tf.data.Dataset.from_tensor_slices(x).batch(4),
        "dataset_ragged_last": tf.data.Dataset.from_tensor_slices((x, labels)).batch(5),
        "pydataset": Batches(x, True),
        "pydataset_without_labels": Batches(x, False),
        "generator_of_pairs": iter([(x, labels)]),
    }


def image_data() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(12, 12, 12, 3)).astype("float32")


def dict_data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "left": rng.normal(size=(12, 6, 6, 3)).astype("float32"),
        "right": rng.normal(size=(12, 5)).astype("float32"),
    }


@pytest.mark.parametrize("form", forms(np.zeros((12, 1))))
@pytest.mark.parametrize("structure", ["array", "dict"])
def test_given_data(form: str, structure: str) -> None:
    model = trained_like() if structure == "array" else two_inputs()

    def given() -> Any:
        return forms(image_data() if structure == "array" else dict_data())[form]

    folded = kerasfold.fold(model, verify=False)
    report = kerasfold.verify(model, folded, given())
    assert report.equivalent, str(report)
    assert report.inputs == 12
    kerasfold.assert_equivalent(model, folded, data=given())
    twin = copy_of(model)
    change(next(w for w in twin.weights if "kernel" in w.name), lambda w: w * 1.01)
    assert not kerasfold.verify(model, twin, given()).equivalent
    with pytest.raises(AssertionError, match="NOT equivalent"):
        kerasfold.assert_equivalent(model, twin, data=given())


def test_agreement_of_classes() -> None:
    model = two_inputs()
    report = kerasfold.verify(model, kerasfold.fold(model), dict_data())
    assert (report.agreement.top1, report.agreement.accuracy_a) == (1.0, None)
    twin = copy_of(model)
    change(twin.weights[-1], lambda b: b + np.array([9.0, 0.0, 0.0]))
    assert kerasfold.verify(model, twin, dict_data()).agreement.top1 < 1.0


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((3, 9, 9, 3), "float32"),
        np.zeros((0, 12, 12, 3), "float32"),
        np.zeros(3),
        [],
        {},
        "path.npz",
        7,
    ],
    ids=["size", "empty", "rank", "none", "dict", "text", "number"],
)
def test_data_that_does_not_fit_is_an_error(bad: Any) -> None:
    with pytest.raises(kerasfold.FoldError) as error:
        kerasfold.verify(trained_like(), trained_like(), bad)
    assert str(error.value)


def test_data_is_not_consumed_or_changed() -> None:
    x = image_data()
    before = x.copy()
    kerasfold.verify(trained_like(), trained_like(), x)
    np.testing.assert_array_equal(x, before)


def swapped() -> tuple[keras.Model, dict[str, np.ndarray]]:
    """Inputs of one shape whose order is not that of their names, and data by name."""
    right, left = keras.Input((4,), name="right"), keras.Input((4,), name="left")
    model = keras.Model([right, left], keras.ops.relu(right - 2.0 * left))
    rng = np.random.default_rng(0)
    return model, {n: rng.normal(size=(12, 4)).astype("float32") for n in ("left", "right")}


@pytest.mark.parametrize("form", ["arrays", "dataset", "pydataset", "generator_of_pairs"])
def test_named_data_goes_to_the_inputs_of_those_names(form: str, monkeypatch: Any) -> None:
    model, data = swapped()
    seen: list[Any] = []
    run = Walk.__call__

    def spied(self: Walk, batch: Any) -> Any:
        if self.model is model:
            seen.append(batch)
        return run(self, batch)

    monkeypatch.setattr(Walk, "__call__", spied)
    kerasfold.verify(model, copy_of(model), forms(data)[form])
    right, left = (np.concatenate([batch[k] for batch in seen]) for k in (0, 1))
    np.testing.assert_array_equal(right, data["right"])
    np.testing.assert_array_equal(left, data["left"])


def test_data_of_different_lengths_is_an_error() -> None:
    model, data = swapped()
    data["left"] = data["left"][:5]
    with pytest.raises(kerasfold.FoldError, match=r"lengths: \{'right': 12, 'left': 5\}"):
        kerasfold.verify(model, copy_of(model), data)


def test_every_word_of_an_embedding_is_compared() -> None:
    i = keras.Input((6,), dtype="int32")
    model = keras.Model(i, keras.layers.Dense(3)(keras.layers.Embedding(10, 4)(i)))
    twin = copy_of(model)
    assert kerasfold.verify(model, twin).equivalent
    change(twin.layers[1].weights[0], lambda w: w + 5.0 * (np.arange(10) == 7)[:, None])
    assert not kerasfold.verify(model, twin).equivalent


def test_bytes_are_compared_to_the_last() -> None:
    def model(top: float) -> keras.Model:
        i = keras.Input((6,), dtype="uint8")
        return keras.Model(i, keras.ops.minimum(keras.ops.cast(i, "float32"), top))

    assert kerasfold.verify(model(255.0), model(255.0)).equivalent
    assert not kerasfold.verify(model(255.0), model(200.0)).equivalent


def test_scores_of_classes_have_no_border() -> None:
    def model(shift: float) -> keras.Model:
        i = keras.Input((4,))
        return keras.Model(i, layers.Rescaling(1.0, shift, name="scores")(i))

    report = kerasfold.verify(model(0.0), model(0.5))
    (out,) = report.outputs
    assert report.where is not None
    assert (report.where.layer, report.where.border, report.where.inside) == ("scores", 0.0, 0.0)
    assert (out.max_border_error, out.max_inside_error) == (0.0, 0.0)
    assert "by 0.5 at" in str(report)
    assert "border" not in str(report)


def test_a_difference_at_the_border_is_told_from_one_inside() -> None:
    def model(edge: float, inside: float) -> keras.Model:
        i = keras.Input((8, 8, 1))
        shift = np.full((1, 8, 8, 1), edge, "float32")
        shift[:, 1:-1, 1:-1] = inside
        return keras.Model(i, i + shift)

    report = kerasfold.verify(model(0, 0), model(0.5, 0))
    (at_border,) = report.outputs
    assert "0.5 (at the border 0.5)" in str(report)
    assert at_border.max_border_error == pytest.approx(0.5, rel=1e-3)
    (inside,) = kerasfold.verify(model(0, 0), model(0, 0.5)).outputs
    assert inside.max_border_error < 1e-6 < inside.max_abs_error


# Not a number.


def test_nan_outputs_are_not_equivalent() -> None:
    model = trained_like()
    broken = copy_of(model)
    change(broken.get_layer("head").bias, lambda b: b * np.nan)
    assert not kerasfold.verify(model, broken).equivalent
    assert not kerasfold.verify(broken, model).equivalent
    assert not kerasfold.verify(model, broken, image_data()).equivalent


def test_one_nan_in_one_place() -> None:
    def model(edge: float) -> keras.Model:
        i = keras.Input((4,))
        return keras.Model(i, keras.ops.where(i > 0, i, edge))

    assert not kerasfold.verify(model(1.0), model(float("nan"))).equivalent


def test_infinite_outputs_are_not_equivalent_to_finite() -> None:
    def model(edge: float) -> keras.Model:
        i = keras.Input((4,))
        return keras.Model(i, keras.ops.where(i > 0, i, edge))

    assert not kerasfold.verify(model(1.0), model(float("inf"))).equivalent
    assert not kerasfold.verify(model(float("inf")), model(-float("inf"))).equivalent


# Precision.


def test_same_function_but_less_accurate() -> None:
    """(x + 1e4 - 1e4): equal in exact arithmetic, 1000 times worse in float32."""
    i = keras.Input((6,))
    a = keras.Model(i, i * 1.0)
    j = keras.Input((6,))
    b = keras.Model(j, (j + 1e4) - 1e4)
    report = kerasfold.verify(a, b)
    assert not report.equivalent, str(report)


@pytest.mark.parametrize("seed", [20, 548, 696, 702])
def test_an_output_that_hangs_on_one_unit(seed: int) -> None:
    """All lines then move with that unit's error, of which one draw of noise is next to nothing."""
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(6, 1)).astype("float32")
    models = []
    for first in (kernel, np.nextafter(kernel, np.float32(rng.choice([-9, 9], kernel.shape)))):
        i = keras.Input((6,))
        unit = layers.Dense(1, use_bias=False)(i)
        models.append(keras.Model(i, layers.Dense(3, use_bias=False)(unit)))
        models[-1].set_weights([first, np.float32([[1, 2, 3]])])
    report = kerasfold.verify(*models, rng.normal(size=(1, 6)).astype("float32"))
    assert report.equivalent, str(report)


def test_verify_touches_neither_model() -> None:
    model = trained_like()
    folded = kerasfold.fold(model)
    before = [w.numpy().tobytes() for m in (model, folded) for w in m.weights]
    nodes = [len(layer._inbound_nodes) for m in (model, folded) for layer in m.layers]
    kerasfold.verify(model, folded)
    assert before == [w.numpy().tobytes() for m in (model, folded) for w in m.weights]
    assert nodes == [len(layer._inbound_nodes) for m in (model, folded) for layer in m.layers]


def test_report_reads_and_serialises() -> None:
    import json

    report = kerasfold.verify(trained_like(), trained_like())
    assert "equivalent" in str(report)
    assert report.max_abs_error == 0.0
    assert report.inputs > 1
    folded = kerasfold.fold(trained_like())
    assert json.loads(json.dumps(folded.fold_report.to_dict()))["equivalence"]["equivalent"] is True


def test_what_cancels_cannot_be_told() -> None:
    """The unit of noise turns out to be another before any noise was asked for."""
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(3, 3)(x)
    model = randomise(keras.Model(x, (y + 1e8) - 1e8))
    with pytest.raises(kerasfold.EquivalenceError, match="inconclusive: rounding noise"):
        kerasfold.fold(model)


def test_both_parts_of_complex_numbers_count() -> None:
    x = keras.Input((5,))

    def of(factor: float) -> keras.Model:
        part = layers.Lambda(
            lambda t: keras.ops.view_as_complex(keras.ops.stack([t, factor * t], -1))
        )
        return keras.Model(x, part(x))

    assert kerasfold.verify(of(2.0), of(2.0)).equivalent
    assert not kerasfold.verify(of(2.0), of(2.01)).equivalent


@pytest.mark.parametrize("beside", [False, True])
def test_an_output_of_nothing_is_equal_to_another(beside: bool) -> None:
    def of(factor: float) -> keras.Model:
        x = keras.Input((4,))
        y = randomise(keras.Model(x, layers.Dense(3)(x)))(x) * factor
        return keras.Model(x, [y[:, :0], y] if beside else y[:, :0])

    assert kerasfold.verify(of(1.0), of(1.0)).verdict != "different"
    assert (kerasfold.verify(of(1.0), of(2.0)).verdict == "different") == beside


def test_names_what_failed() -> None:
    def two(factor: float) -> keras.Model:
        i = keras.Input((4,))
        made = randomise(
            keras.Model(i, [layers.Dense(2, name="good")(i), layers.Dense(2, name="bad")(i)])
        )
        change(made.get_layer("bad").kernel, lambda k: k * factor)
        return made

    report = kerasfold.verify(two(1.0), two(1.01))
    assert "bad" in report.reason
    with pytest.raises(AssertionError, match="bad"):
        kerasfold.assert_equivalent(two(1.0), two(1.01))


@pytest.mark.parametrize(
    ("dtype", "logit"),
    [
        *(("float32", -88.5), ("float32", -95.0), ("float32", -110.0)),
        *(("mixed_float16", -17.0), ("mixed_bfloat16", -90.0)),
    ],
)
def test_an_improbable_class_may_underflow(dtype: str, logit: float) -> None:
    """It is less than the smallest normal number of the output's dtype, and may be given as 0."""
    with policy(dtype):
        x = keras.Input((3,))
        model = keras.Model(x, layers.Softmax()(layers.Dense(3)(layers.Dense(4)(x))))
    rng = np.random.default_rng(0)
    shift = np.array([0.0, logit, 1.0])
    model.set_weights([rng.normal(size=w.shape) * 0.05 for w in model.weights[:3]] + [shift])
    folded = model.fold()
    assert folded.fold_report.equivalence.verdict == "equivalent"
    assert kerasfold.verify(model, folded).verdict == "equivalent"


def test_what_is_always_in_training_is_noted() -> None:
    x = keras.Input((4,), name="x")
    model = keras.Model(x, layers.Dropout(0.5, name="drop")(x, training=True))
    report = kerasfold.verify(model, keras.Model(x, layers.Identity(name="drop")(x)))
    assert "layer 'drop' is called with training=True, which model(x) obeys" in report.note


def test_a_border_of_zeros_may_be_a_sum_that_cancels() -> None:
    x = inputs = keras.Input((6, 5, 1))
    normed = layers.BatchNormalization()
    model = randomise(keras.Model(inputs, layers.ZeroPadding2D(1)(normed(x))))
    gamma, beta, mean, variance = (w.numpy()[0] for w in normed.weights)
    gain = gamma / np.sqrt(variance + normed.epsilon)
    shift = beta - gain * mean
    around = [(0, 0), (1, 1), (1, 1), (0, 0)]
    conv = layers.Conv2D(1, 1)
    x = conv(keras.ops.pad(x, around, constant_values=float(-shift / gain)))
    conv.set_weights([np.full((1, 1, 1, 1), gain), np.full((1,), shift * (1 + 2.0**-22))])
    other = keras.Model(inputs, x)
    assert 0 < np.max(np.abs(other(np.zeros((1, 6, 5, 1)))[:, 0])) < 1e-6
    report = kerasfold.verify(model, other)
    assert report.equivalent, report

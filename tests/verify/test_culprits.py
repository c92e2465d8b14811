"""A verdict names the layer: the one whose config lies, or the one a backend computes wrongly."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.equivalence.culprit import miscomputed
from zoo.making import policy, randomise


@keras.saving.register_keras_serializable()
class Miscomputed(layers.Layer):
    """Twice the input, as a backend with a defect in float32 computes it."""

    def call(self, x: Any) -> Any:
        y = 2.0 * x
        return y if self.compute_dtype == "float64" else y + keras.ops.cast(0.5, y.dtype)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def with_defect() -> keras.Model:
    x = inputs = keras.Input((6, 6, 2))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(3, 3, name="before")(x)))
    x = layers.Conv2D(3, 1, name="behind")(Miscomputed(name="defect")(x))
    return randomise(keras.Model(inputs, x, name="net"))


def test_the_backend_and_the_layer_are_named() -> None:
    message = (
        r"tensorflow on cpu:0 computes layer 'defect' of model 'net' wrongly: in its own dtype it "
        r"is 0\.5 off what it gives in float64: run the model elsewhere"
    )
    with pytest.raises(kerasfold.EquivalenceError, match=message):
        kerasfold.fold(with_defect())


def test_a_right_model_beside_a_wrong_one_is_equivalent_and_says_so(monkeypatch: Any) -> None:
    model = with_defect()
    with policy("float32"):
        x = inputs = keras.Input((6, 6, 2))
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(3, 3)(x)))
        right = keras.Model(inputs, layers.Conv2D(3, 1)(layers.Rescaling(2.0)(x)))
    right.set_weights(model.get_weights())
    report = kerasfold.verify(model, right)
    assert report.equivalent
    assert "computes layer 'defect' of model 'net' wrongly" in report.note
    assert "the second model is computed rightly" in str(report)
    back = kerasfold.verify(right, model)
    assert not back.equivalent
    assert back.note == ""


def test_a_model_that_is_computed_rightly_has_no_such_layer() -> None:
    x = inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(3, 3, activation="relu")(layers.AveragePooling2D(2, padding="same")(x))
    model = randomise(keras.Model(inputs, x))
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 2)).astype("float32")
    assert miscomputed(model, x) is None


@keras.saving.register_keras_serializable()
class Liar(layers.Layer):
    """A shift that its config does not tell."""

    shift = 0.0

    def call(self, x: Any) -> Any:
        return x + keras.ops.cast(self.shift, x.dtype)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


@keras.saving.register_keras_serializable()
class NotDouble(layers.Layer):
    """Gives its input, if it is not of float64."""

    def call(self, x: Any) -> Any:
        if x.dtype == "float64" and not isinstance(x, keras.KerasTensor):
            raise ValueError("no kernel for double")
        return 1.0 * x

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


@pytest.mark.parametrize("double", [True, False])
def test_a_config_that_lies_is_not_the_backend(double: bool) -> None:
    """Also where there is no float64 to find a layer in."""
    x = inputs = keras.Input((6, 6, 2))
    x = layers.Activation("tanh")(x)
    x = layers.AveragePooling2D(2)(x if double else NotDouble()(x))
    liar = Liar()
    liar.shift = 3.0
    model = keras.Model(inputs, liar(layers.ReLU()(x)))
    message = r"get_config\(\) or weights do not say all"
    with pytest.raises(kerasfold.EquivalenceError, match=message):
        kerasfold.fold(model)


def with_liar(factor: float) -> keras.Model:
    """A net that others are to be made of: what its 'liar' computes is in no config."""
    x = inputs = keras.Input((6, 6, 2))
    x = layers.BatchNormalization()(layers.Conv2D(3, 3)(x))
    liar = Scaled(name="liar")
    liar.factor = factor
    x = layers.BatchNormalization(name="last")(layers.Conv2D(3, 1)(liar(x)))
    return randomise(keras.Model(inputs, [x, layers.ReLU()(x)], name="net"))


@keras.saving.register_keras_serializable()
class Scaled(layers.Layer):
    """Some times its input's tanh, which its config does not tell."""

    factor = 1.0

    def build(self, _: Any) -> None:
        self.gain = self.add_weight(name="gain")

    def call(self, x: Any) -> Any:
        return self.factor * keras.ops.tanh(self.gain * x)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


@pytest.mark.parametrize("kind", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_a_config_that_lies_is_found_whatever_rounding_hides(kind: str) -> None:
    """In half precision a model may be off its float64 copy by as much as its outputs."""
    with policy(kind):
        right, lying = with_liar(1.0), with_liar(1.3)
    right.set_weights(lying.get_weights())
    assert kerasfold.fold(right).fold_report.equivalence.equivalent
    message = r"layer 'liar' of model 'net' is \S+ off a copy of it, on the same inputs: its get_c"
    with pytest.raises(kerasfold.EquivalenceError, match=message):
        kerasfold.fold(lying)
    for report in (kerasfold.verify(lying, right), kerasfold.verify(right, lying)):
        assert report.verdict == "different"
        assert "liar" in report.reason or kind == "float32"


@pytest.mark.usefixtures("rules_restored")
@pytest.mark.parametrize("last", [False, True], ids=["between", "last"])
def test_a_lift_rule_that_says_something_else_is_named(last: bool) -> None:
    """Also where the fold makes none of what goes into the layer."""
    liar = Liar()
    liar.shift = 3.0
    kerasfold.lifts(Liar)(lambda layer, x: x.scale(np.full(4, 2.0)))
    steps = [keras.Input((8, 8, 3)), layers.Conv2D(4, 3), liar]
    model = keras.Sequential(steps if last else [*steps, layers.Conv2D(4, 1)])
    with pytest.raises(kerasfold.EquivalenceError, match="check_lift"):
        kerasfold.fold(model)


@keras.saving.register_keras_serializable()
class Noisy(layers.Layer):
    """The input and what is drawn from a seed of its own, at inference too."""

    def build(self, _: Any) -> None:
        self.seeds = keras.random.SeedGenerator(4)

    def call(self, x: Any) -> Any:
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seeds, dtype=x.dtype)


def noisy(factor: float = 1.0) -> keras.Model:
    x = inputs = keras.Input((6, 6, 2))
    x = Noisy(name="noisy")(layers.BatchNormalization()(layers.Conv2D(3, 3)(x)))
    model = randomise(keras.Model(inputs, layers.Conv2D(3, 1)(x), name="net"))
    model.layers[-1].kernel.assign(factor * model.layers[-1].kernel)
    return model


def test_what_draws_numbers_is_not_computed_wrongly() -> None:
    """Others in float64 than in float32, from the same seed."""
    model = noisy()
    report = kerasfold.fold(model).fold_report.equivalence
    assert report.verdict == "inconclusive"
    assert report.reason == (
        "layer 'noisy' of model 'net' draws random numbers, others in float64: its accuracy cannot "
        "be told"
    )
    assert kerasfold.verify(model, noisy(1.01)).verdict == "different"


@keras.saving.register_keras_serializable()
class Half(layers.Layer):
    """Holds a layer that computes in float16 whatever the dtype of this one."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.dense = layers.Dense(3, dtype="float16")

    def build(self, shape: Any) -> None:
        self.dense.build(shape)
        self.gain = self.add_weight(shape=(3,), name="gain")

    def call(self, x: Any) -> Any:
        return keras.ops.cast(self.dense(x), x.dtype) * self.gain


def test_a_layer_that_computes_in_half_precision_always_is_named() -> None:
    x = inputs = keras.Input((6, 6, 2))
    x = Half(name="half")(layers.BatchNormalization()(layers.Conv2D(3, 3)(x)))
    model = randomise(keras.Model(inputs, layers.Conv2D(3, 1, name="last")(x)))
    with pytest.raises(
        kerasfold.EquivalenceError,
        match="output 'last' is compared in float16, in which layer 'half' computes always, round",
    ):
        kerasfold.fold(model)


RNG = np.random.default_rng(0)
TWICE = r"model 'net' does not give the same twice: run again on the same inputs, an output is \S+"


class Draws(layers.Layer):
    """The input and what is drawn anew each time."""

    def call(self, x: Any) -> Any:
        return x + keras.ops.cast(RNG.normal(size=x.shape[1:]), x.dtype)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def drawing(*last: keras.Layer) -> keras.Model:
    x = keras.Input((8,), name="x")
    return randomise(keras.Sequential([x, *last], name="net"))


@pytest.mark.parametrize("last", [(), (layers.Softmax,)])
def test_a_model_that_draws_is_told_by_that(last: tuple[type[keras.Layer], ...]) -> None:
    models = [drawing(layers.Dense(3), Draws(), *(kind() for kind in last)) for _ in range(2)]
    models[1].set_weights(models[0].get_weights())
    report = kerasfold.verify(*models)
    assert report.verdict == "inconclusive"
    assert re.fullmatch(f"{TWICE} off", report.reason)
    assert report.outputs[0].reason == report.reason


def test_a_second_model_alone_that_draws_is_different_and_says_so() -> None:
    report = kerasfold.verify(drawing(layers.ReLU()), drawing(layers.ReLU(), Draws()))
    assert report.verdict == "different"
    assert re.fullmatch(f"output .*; {TWICE} off", report.reason)


class Unsteady(layers.Layer):
    """The input, as a backend gives it that reads memory that is not its own."""

    def call(self, x: Any) -> Any:
        if self.compute_dtype == "float64":
            return x
        return x + keras.ops.cast(RNG.normal(size=x.shape[1:]), x.dtype)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def test_a_fold_of_what_the_backend_computes_otherwise_each_time_cannot_be_told() -> None:
    x = inputs = keras.Input((6, 6, 2))
    x = layers.BatchNormalization()(layers.Conv2D(3, 3)(Unsteady()(x)))
    report = kerasfold.fold(randomise(keras.Model(inputs, x, name="net"))).fold_report.equivalence
    assert report.verdict == report.outputs[0].verdict == "inconclusive"
    assert re.fullmatch(f"{TWICE} off", report.reason)


def test_whichever_output_it_is_of() -> None:
    x = inputs = keras.Input((8,))
    outputs = [layers.Dense(3)(x), layers.Dense(3, name="last")(Unsteady()(x))]
    model = randomise(keras.Model(inputs, outputs, name="net"))
    report = kerasfold.fold(model).fold_report.equivalence
    assert [report.verdict, *(x.verdict for x in report.outputs)] == [
        *("inconclusive", "equivalent", "inconclusive")
    ]
    assert re.fullmatch(f"{TWICE} off", report.reason)


def test_the_second_model_may_be_the_one_that_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is not the first model's own may hold the same twice."""
    said = iter(["", "not the same twice"])
    monkeypatch.setattr("kerasfold.equivalence.models.unsteady", lambda *_: next(said))
    models = [drawing(Unsteady(name="unsteady"), layers.Dense(3)) for _ in range(2)]
    models[1].set_weights(models[0].get_weights())
    report = kerasfold.verify(*models)
    assert (report.verdict, report.reason) == ("inconclusive", "not the same twice")


def test_a_fault_beside_it_is_still_one() -> None:
    models = [drawing(Unsteady(), layers.Dense(3)) for _ in range(2)]
    models[1].set_weights([1.01 * w for w in models[0].get_weights()])
    report = kerasfold.verify(*models)
    assert report.verdict == "different"
    assert report.outputs[0].error > report.outputs[0].bound


def test_a_model_that_draws_nothing_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the verdict is one of equality; and where it is not, it says no such thing."""
    models = [drawing(layers.Dense(3, name="y")) for _ in range(2)]
    models[1].set_weights([2 * w for w in models[1].get_weights()])
    report = kerasfold.verify(*models)
    assert report.verdict == "different"
    assert "twice" not in report.reason
    monkeypatch.setattr("kerasfold.equivalence.models.unsteady", None)
    assert kerasfold.verify(models[0], models[0]).equivalent

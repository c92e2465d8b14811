"""A copy of a layer has its weights, which nothing that becomes of either changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.read.copies import called_copy
from zoo.making import policy, randomise


class Doubling(layers.Dense):
    """Does more to a weight than to build it."""

    def build(self, shape: Any) -> None:
        """Build twice what its initializer gives."""
        super().build(shape)
        self.kernel.assign(2 * self.kernel)


def built(kind: Callable[..., keras.Layer], **settings: Any) -> tuple[keras.Layer, Any]:
    """A layer with weights as training leaves them, and what it is called on."""
    image = keras.Input((6, 6, 4))
    layer = kind(**settings)
    randomise(keras.Model(image, layer(image)))
    return layer, image


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (layers.BatchNormalization, {}),
        (layers.Conv2D, {"filters": 3, "kernel_size": 2}),
        (layers.SeparableConv2D, {"filters": 3, "kernel_size": 2}),
        (layers.PReLU, {}),
        (Doubling, {"units": 3}),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_float16"])
def test_of_any_dtype(kind: type[keras.Layer], settings: dict[str, Any], dtype: str) -> None:
    layer, image = built(kind, **settings)

    copied, _ = called_copy(layer, "copied", dtype, (image,), {})

    assert len(copied.weights) == len(layer.weights) > 0
    for weight, original in zip(copied.weights, layer.weights, strict=True):
        np.testing.assert_array_equal(weight, original)


@pytest.mark.parametrize("changed", ["original", "copy"])
def test_are_its_own(changed: str) -> None:
    layer, image = built(layers.BatchNormalization)
    copied, _ = called_copy(layer, "copied", None, (image,), {})
    before = copied.get_weights()

    for weight in (layer if changed == "original" else copied).weights:
        weight.assign_add(keras.ops.ones_like(weight))

    kept = copied if changed == "original" else layer
    for weight, value in zip(kept.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_no_value_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, image = built(layers.Conv2D, filters=3, kernel_size=2)
    monkeypatch.setattr(keras.initializers.GlorotUniform, "__call__", None)

    copied, _ = called_copy(layer, "copied", None, (image,), {})

    np.testing.assert_array_equal(copied.kernel, layer.kernel)


@keras.saving.register_keras_serializable("kerasfold tests")
class Dropping(layers.Layer):
    """Its config leaves out the rate that it drops at, which is nothing at inference."""

    def __init__(self, rate: float = 0.0, **config: Any) -> None:
        super().__init__(**config)
        self.drop = layers.Dropout(rate) if rate else layers.Identity()
        self.inner = [layers.Dense(2) for _ in range(3)]

    def get_config(self) -> dict[str, Any]:
        """All but the rate."""
        return {"name": self.name, "dtype": self.dtype}

    def call(self, x: Any) -> Any:
        """Of its layers, one after another."""
        for dense in self.inner:
            x = keras.ops.sin(dense(self.drop(x)))
        return x


@pytest.mark.parametrize("open_layers", [False, True])
def test_of_a_layer_that_holds_a_seed_where_its_copy_has_none(open_layers: bool) -> None:
    x = keras.Input((2,))
    model = randomise(keras.Model(x, Dropping(0.1)(layers.Dense(2)(x))))
    folded = model.fold(open_layers=open_layers)
    given = np.random.default_rng(0).normal(size=(5, 2))
    np.testing.assert_allclose(folded(given), model(given, training=False), rtol=1e-5, atol=1e-6)
    assert folded.fold_report.equivalence.verdict == "equivalent"


@keras.saving.register_keras_serializable("kerasfold tests")
class Late(layers.Layer):
    """What it holds is made when it first runs: Keras does not call what tells its sizes."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.inner = [layers.Dense(3), layers.BatchNormalization()]

    def build(self, shape: Any) -> None:
        """Nothing."""

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], 3)

    def call(self, x: Any) -> Any:
        """Of its layers, one after another, on the batch at once."""
        rows = keras.ops.reshape(x, (keras.ops.shape(x)[0] * 2, 2))
        for layer in self.inner:
            rows = layer(rows)
        return keras.ops.reshape(rows, (-1, 2, 3))


def test_of_a_layer_that_makes_them_when_it_runs() -> None:
    x = keras.Input((2, 2))
    model = keras.Model(x, Late()(layers.Dense(2)(layers.Dense(2)(x))))
    given = np.random.default_rng(0).normal(size=(5, 2, 2))
    model(given)
    folded = randomise(model).fold("layers")
    assert (folded.fold_report.layers_before, folded.fold_report.layers_after) == (3, 2)
    assert folded.fold_report.equivalence.dtype == "float64"
    np.testing.assert_allclose(folded(given), model(given), rtol=1e-5, atol=1e-6)


@keras.saving.register_keras_serializable("kerasfold tests")
class Noting(Late):
    """Keeps what its first run shows it of a weight."""

    noted: Any = None

    def call(self, x: Any) -> Any:
        """The same, times what it keeps."""
        y = super().call(x)
        if self.noted is None and not isinstance(y, keras.KerasTensor):
            self.noted = keras.ops.max(keras.ops.abs(self.inner[0].kernel))
        return y if self.noted is None else y * keras.ops.cast(self.noted, y.dtype)


@pytest.mark.parametrize("verify", [True, False])
def test_no_copy_runs_before_it_has_them(verify: bool) -> None:
    x = keras.Input((2, 2))
    model = keras.Model(x, Noting()(layers.Dense(2)(layers.Dense(2)(x))))
    given = np.random.default_rng(0).normal(size=(5, 2, 2))
    model(given)
    folded = model.fold("layers", verify=verify)
    np.testing.assert_allclose(folded(given), model(given), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("verify", [True, False])
def test_of_one_that_never_ran_there_are_none(verify: bool) -> None:
    x = keras.Input((2, 2))
    model = keras.Model(x, Late(name="late")(layers.Dense(2)(x)))
    message = r"layer 'late' of class Late has 0 weights, and 6 once it has run: call the model on"
    with pytest.raises(kerasfold.UnsupportedModelError, match=message):
        model.fold(verify=verify)
    with pytest.raises(kerasfold.UnsupportedModelError, match=message):
        kerasfold.verify(model, keras.models.clone_model(model))
    assert len(model.weights) == 2


@keras.saving.register_keras_serializable("kerasfold tests")
class Weighing(layers.Layer):
    """Has a weight of its own, and holds a layer that is told no dtype."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.dense = layers.Dense(3)

    def build(self, shape: Any) -> None:
        """Both."""
        self.gain = self.add_weight(shape=(shape[-1],), name="gain")
        self.dense.build(shape)

    def call(self, x: Any) -> Any:
        """A layer of what is weighed."""
        return self.dense(self.gain * x)


@pytest.mark.parametrize("before", ["float32", "mixed_float16"])
@pytest.mark.parametrize("after", ["float32", "mixed_float16", "float64"])
def test_what_it_holds_has_the_dtype_that_it_had(before: str, after: str) -> None:
    with policy(before):
        x = keras.Input((4, 4, 2))
        y = Weighing(name="weighing")(layers.BatchNormalization()(layers.Conv2D(2, 3)(x)))
        model = randomise(keras.Model(x, y))
    with policy(after):
        folded = model.fold()
    dtypes = [m.get_layer("weighing").dense.dtype_policy.name for m in (model, folded)]
    assert dtypes == [before, before]
    assert folded.fold_report.equivalence.dtype == "float64"


def test_of_what_a_layer_goes_on_from() -> None:
    x = keras.Input(batch_shape=(1, 3, 2))
    model = keras.Model(x, layers.LSTM(2, stateful=True)(x))
    model(np.ones((1, 3, 2)))
    layer = model.layers[-1]
    copied, _ = called_copy(layer, "copied", None, (x,), {})
    assert np.any(layer.states[0])
    for state, original in zip(copied.states, layer.states, strict=True):
        np.testing.assert_array_equal(state, original)


class Around(layers.Layer):
    """Weighs what another layer gives, whose config holds that layer or the weight as it is."""

    def __init__(self, inner: keras.Layer, gain: Any = None, **config: Any) -> None:
        super().__init__(**config)
        self.inner, self.gain, self.tells = inner, gain, "inner"

    def build(self, shape: Any) -> None:
        """Build both, if they are not."""
        if self.gain is None:
            self.gain = self.add_weight(shape=(shape[-1],), name="gain")
        if not self.inner.built:
            self.inner.build(shape)

    def call(self, x: Any) -> Any:
        """What is weighed."""
        return self.inner(x) * self.gain

    def get_config(self) -> dict[str, Any]:
        """With the layer as it is, or the weight."""
        inner = self.inner if self.tells == "inner" else layers.Dense(3)
        gain = None if self.tells == "inner" else self.gain
        return {**super().get_config(), "inner": inner, "gain": gain}


@pytest.mark.parametrize(("tells", "what"), [("inner", "layer 'held'"), ("gain", "weight 'gain'")])
@pytest.mark.parametrize("verify", [True, False])
def test_a_copy_that_holds_those_of_its_original_is_refused(
    tells: str, what: str, verify: bool
) -> None:
    around = Around(layers.Dense(3, name="held"), name="around")
    x = keras.Input((4, 4, 3))
    model = randomise(keras.Model(x, around(layers.BatchNormalization()(layers.Conv2D(3, 3)(x)))))
    around.tells = tells
    before = {name: len(value) for name, value in vars(around.inner).items() if type(value) is list}
    message = rf"layer 'around' of class Around cannot be copied: .* the very {what} .* get_config"
    with pytest.raises(kerasfold.UnsupportedModelError, match=message):
        model.fold(verify=verify)
    assert before == {
        n: len(value) for n, value in vars(around.inner).items() if type(value) is list
    }

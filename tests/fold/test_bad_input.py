"""What cannot be folded is refused with the documented error, naming the layer or what to do."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold import FoldError, NonlinearLayerError, UnsupportedModelError
from kerasfold.errors import words_of
from zoo.making import randomise

ENTRIES = {
    "fold": kerasfold.fold,
    "explain": kerasfold.explain,
    "method": keras.Model.fold,
    "require_linear": kerasfold.require_linear,
}
EVERY = pytest.mark.parametrize("entry", ENTRIES)


pytestmark = pytest.mark.usefixtures("fresh")


class Subclassed(keras.Model):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(3, 3)

    def call(self, x: Any) -> Any:
        return self.conv(x)


class Unconfigurable(layers.Layer):
    """No `get_config`, though its constructor takes what Keras cannot write down."""

    def __init__(self, factor: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x: Any) -> Any:
        return keras.ops.sin(x) * self.factor[0]


class LyingConfig(layers.Layer):
    def __init__(self, factor: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x: Any) -> Any:
        return keras.ops.sin(x) * self.factor

    def get_config(self) -> dict[str, Any]:
        return layers.Layer.get_config(layers.Layer(name=self.name))


def conv_net(policy: str = "float32") -> keras.Model:
    keras.config.set_dtype_policy(policy)
    i = keras.Input((6, 6, 3))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="first")(i))
    x = layers.Dense(3, name="head")(layers.Flatten()(x))
    return randomise(keras.Model(i, x, name="net"))


@EVERY
@pytest.mark.parametrize("built", [False, True])
def test_subclassed_model(entry: str, built: bool) -> None:
    model = Subclassed(name="mine")
    if built:
        model(np.zeros((1, 6, 6, 3), "float32"))
    with pytest.raises(UnsupportedModelError, match="mine") as error:
        ENTRIES[entry](model)
    assert "functional" in str(error.value).lower()


@EVERY
@pytest.mark.parametrize("stack", [[], [layers.Conv2D(3, 3)]], ids=["empty", "conv"])
def test_unbuilt_sequential(entry: str, stack: Any) -> None:
    with pytest.raises(UnsupportedModelError, match="loose") as error:
        ENTRIES[entry](keras.Sequential(stack, name="loose"))
    assert "build" in str(error.value) or "Input" in str(error.value)


@pytest.mark.filterwarnings("ignore")
@EVERY
@pytest.mark.parametrize("which", ["all", "head"])
def test_quantised(entry: str, which: str) -> None:
    i = keras.Input((6, 6, 3))
    x = layers.Dense(4, name="inner")(layers.BatchNormalization(name="norm")(i))
    model = keras.Model(i, layers.Dense(3, name="head")(x), name="net")
    if which == "all":
        model.quantize("int8")
    else:
        model.get_layer("head").quantize("int8")
    with pytest.raises(
        UnsupportedModelError, match="head" if which == "head" else "inner|head"
    ) as error:
        ENTRIES[entry](model)
    assert "quanti" in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("layer", "weight"),
    [
        ("first", "kernel"),
        ("first", "bias"),
        ("norm", "gamma"),
        ("norm", "moving_variance"),
        ("head", "kernel"),
    ],
)
@EVERY
def test_non_finite_weights(entry: str, layer: str, weight: str, value: float) -> None:
    model = conv_net()
    variable = getattr(model.get_layer(layer), weight)
    broken = variable.numpy()
    broken.flat[0] = value
    variable.assign(broken)
    with pytest.raises(FoldError, match=layer) as error:
        ENTRIES[entry](model)
    if entry != "require_linear":
        assert "finite" in str(error.value)


@pytest.mark.parametrize("layer", ["first", "head"])
@pytest.mark.parametrize("policy", ["mixed_float16"])
def test_weights_that_overflow_float16(layer: str, policy: str) -> None:
    model = conv_net(policy)
    model.get_layer(layer).kernel.assign(np.full(model.get_layer(layer).kernel.shape, 1e5))
    with pytest.raises(FoldError, match=layer) as error:
        kerasfold.fold(model)
    assert "float16" in str(error.value)


def test_composed_weights_that_would_overflow_float16_stay_apart() -> None:
    """Each weight fits; their product does not."""
    keras.config.set_dtype_policy("mixed_float16")
    i = keras.Input((4, 4, 2))
    x = layers.Conv2D(2, 1, use_bias=False, activation="relu", name="a")(i)
    x = layers.Conv2D(2, 1, use_bias=False, name="b")(x)
    x = layers.Conv2D(2, 1, use_bias=False, name="c")(x)
    model = keras.Model(i, x)
    for name, factor in (("a", 1e-3), ("b", 2e3), ("c", 1e3)):
        model.get_layer(name).kernel.assign(np.full((1, 1, 2, 2), factor))
    folded = kerasfold.fold(model, objective="layers")
    x = np.random.default_rng(0).uniform(0.1, 1, (2, 4, 4, 2)).astype("float32")
    a, b = (np.asarray(m(x)).astype("float64") for m in (model, folded))
    assert np.isfinite(a).all()
    np.testing.assert_allclose(b, a, rtol=0.01)


def test_negative_variance() -> None:
    model = conv_net()
    model.get_layer("norm").moving_variance.assign([-1.0, 1.0, 1.0, 1.0])
    with pytest.raises(FoldError, match="norm"):
        kerasfold.fold(model)


@pytest.mark.parametrize("entry", ["fold", "method"])
def test_layer_that_cannot_be_rebuilt(entry: str) -> None:
    i = keras.Input((6, 6, 3))
    x = Unconfigurable((2.0, object()), name="stubborn")(layers.Conv2D(3, 3)(i))
    with pytest.raises(UnsupportedModelError, match="stubborn") as error:
        ENTRIES[entry](keras.Model(i, x))
    assert "get_config" in str(error.value)


def test_config_that_rebuilds_another_layer_is_caught_or_refused() -> None:
    """`get_config` forgets `factor`: what is rebuilt computes something else."""
    i = keras.Input((6, 6, 3))
    model = keras.Model(i, LyingConfig(3.0, name="liar")(i))
    with pytest.raises(FoldError, match="liar"):
        kerasfold.fold(model)


def test_rebuilt_layer_is_like_the_original() -> None:
    i = keras.Input((6, 6, 3))
    assert kerasfold.fold(keras.Model(i, LyingConfig(2.0, name="honest")(i))) is not None


@EVERY
@pytest.mark.parametrize("objective", ["speed", "", "LATENCY", None, 3, ["macs"]])
def test_unknown_objective(entry: str, objective: Any) -> None:
    with pytest.raises(FoldError) as error:
        ENTRIES[entry](conv_net(), objective=objective)
    for known in ("latency", "macs", "params", "layers"):
        assert known in str(error.value)
    assert repr(objective) in str(error.value)


@pytest.mark.parametrize("nonlinear", ["drop", None, True])
def test_unknown_option(nonlinear: Any) -> None:
    with pytest.raises(FoldError) as error:
        kerasfold.fold(conv_net(), nonlinear=nonlinear)
    assert "keep" in str(error.value)
    assert "error" in str(error.value)


@pytest.mark.parametrize("entry", ["fold", "explain", "require_linear"])
@pytest.mark.parametrize(
    "thing",
    [None, 3, "model.keras", np.zeros(3), [], {}, layers.Conv2D(3, 3), keras.Model, lambda x: x],
    ids=("none", "number", "path", "array", "list", "dict", "layer", "class", "function"),
)
def test_not_a_model(entry: str, thing: Any) -> None:
    with pytest.raises(UnsupportedModelError) as error:
        ENTRIES[entry](thing)
    assert "keras.Model" in str(error.value) or "Keras model" in str(error.value)


@pytest.mark.parametrize("thing", [None, 3, "model.keras", layers.Conv2D(3, 3)], ids=str)
def test_verify_of_what_is_not_a_model(thing: Any) -> None:
    for pair in ((thing, conv_net()), (conv_net(), thing)):
        with pytest.raises(FoldError):
            kerasfold.verify(*pair)


def test_require_linear_names_every_offender() -> None:
    i = keras.Input((6, 6, 3))
    x = layers.ReLU(name="bend")(layers.Conv2D(3, 3, name="straight")(i))
    x = layers.Conv2D(3, 3, activation="tanh", name="bent_inside")(x)
    x = layers.MaxPooling2D(name="peak")(x)
    model = keras.Model(i, layers.BatchNormalization(name="straight_too")(x))
    for call in (kerasfold.require_linear, lambda m: kerasfold.fold(m, nonlinear="error")):
        with pytest.raises(NonlinearLayerError) as error:
            call(model)
        for name in ("bend", "bent_inside", "peak"):
            assert name in str(error.value)
        assert "straight" not in str(error.value)


def test_require_linear_gives_one_layer() -> None:
    i = keras.Input((9, 9, 1))
    x = layers.Conv2D(2, 3)(layers.AveragePooling2D(2)(layers.BatchNormalization()(i)))
    folded = kerasfold.require_linear(randomise(keras.Model(i, x)))
    assert folded.fold_report.layers_after <= 2


def test_errors_are_fold_errors_are_value_errors() -> None:
    for kind in (NonlinearLayerError, UnsupportedModelError, kerasfold.EquivalenceError):
        assert issubclass(kind, FoldError)
    assert issubclass(FoldError, ValueError)


def test_nothing_is_touched_by_a_refusal() -> None:
    model = conv_net()
    model.get_layer("head").kernel.assign(np.full((64, 3), np.nan))
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    with pytest.raises(FoldError):
        kerasfold.fold(model)
    assert nodes == [len(layer._inbound_nodes) for layer in model.layers]


@pytest.mark.parametrize("kind", [3, "Conv2D", None, object(), np.add])
def test_lifts_of_what_is_no_layer(kind: Any) -> None:
    with pytest.raises(TypeError):
        kerasfold.lifts(kind)


class Failing(keras.layers.Layer):
    """Cannot be called."""

    def call(self, x: Any) -> Any:
        """Say why."""
        raise ValueError("its own words")


class Around(keras.layers.Layer):
    """Calls it."""

    def build(self, _: Any) -> None:
        """Make it."""
        self.inner = Failing()

    def call(self, x: Any) -> Any:
        """What it gives."""
        return self.inner(x)


@pytest.mark.parametrize("layer", [Failing, Around])
def test_what_a_layer_raises_is_told_and_not_what_keras_says_before(layer: Any) -> None:
    with pytest.raises(ValueError, match="Error encountered:\n\n") as raised:
        layer()(keras.Input((3,)))
    assert words_of(raised.value) == "ValueError: its own words"


def test_why_a_config_rebuilds_no_layer_is_told() -> None:
    with pytest.raises(TypeError, match="Error when deserializing") as raised:
        keras.layers.Dense.from_config({"units": 3, "depth": 2})
    words = "Unrecognized keyword arguments passed to Dense: {'depth': 2}"
    assert words_of(raised.value) == f"TypeError: {words}"

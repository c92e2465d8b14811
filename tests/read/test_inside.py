"""What is inside layers and nested models is read, and folded; and they stay as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.errors import UnsupportedModelError
from zoo.composites import (
    CLOSED,
    COMPOSITES,
    NESTED,
    Around,
    ConvNorm,
    Forgetful,
    Remembering,
    Weighted,
    on_image,
)
from zoo.making import randomise
from zoo.same import FLOAT32, ONLY_FLOAT32, assert_same, kinds

pytestmark = [
    pytest.mark.usefixtures("fresh"),
    pytest.mark.filterwarnings("ignore:The structure of `inputs`"),
]


def notes(model: keras.Model) -> list[Any]:
    """All that its layers and operations have noted, and their weights."""
    operations = [*model._flatten_layers(), *model.operations]
    return [
        {
            key: len(value) if isinstance(value, list) else id(value)
            for key, value in vars(operation).items()
        }
        for operation in operations
    ]


def folded_of_untouched(model: keras.Model, tolerance: float | None) -> keras.Model:
    """A fold that is the same without a BatchNormalization, of a model that stays as it was."""
    before, weights = notes(model), model.get_weights()
    kerasfold.explain(model)
    assert notes(model) == before
    folded = kerasfold.fold(model, verify=False)
    assert "BatchNormalization" not in kinds(folded)
    assert_same(model, folded, tolerance)
    assert all(map(np.array_equal, model.get_weights(), weights))
    return folded


@pytest.mark.parametrize("name", NESTED)
def test_nested_models_are_walked(name: str) -> None:
    folded = folded_of_untouched(randomise(NESTED[name]()), FLOAT32)
    assert not any(isinstance(layer, keras.Model) for layer in folded.layers)


@pytest.mark.parametrize("name", COMPOSITES)
def test_layers_made_of_others_are_opened(name: str) -> None:
    folded = folded_of_untouched(randomise(COMPOSITES[name]()), ONLY_FLOAT32)
    assert folded.fold_report.opened
    assert "opened" in str(folded.fold_report)


@pytest.mark.parametrize("name", CLOSED)
def test_what_is_no_graph_stays_one_layer(name: str) -> None:
    build, words = CLOSED[name]
    model = randomise(build())
    before = notes(model)
    report = kerasfold.explain(model)
    (reason,) = (row.reason for row in report.kept if row.layer == "block")
    assert words in reason
    assert not report.opened
    assert notes(model) == before


def test_layers_stay_shut_on_request() -> None:
    model = randomise(COMPOSITES["block of blocks"]())
    folded = kerasfold.fold(model, open_layers=False, verify=False)
    assert [type(layer).__name__ for layer in folded.layers] == ["InputLayer", "Residual"]
    assert not folded.fold_report.opened
    assert_same(model, folded, ONLY_FLOAT32)


def test_a_rule_of_ones_own_goes_before_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    from kerasfold.lift.registry import RULES

    def linear_block(layer: Any, x: kerasfold.Signal) -> kerasfold.Signal:
        return x.convolve(layer.conv.kernel, padding="same").scale(2.0)

    monkeypatch.setitem(RULES, ConvNorm, linear_block)
    report = kerasfold.explain(on_image(ConvNorm(4, "linear", name="block")))
    assert not report.opened
    assert not report.kept or report.kept[0].layer == "block"


def test_an_attribute_set_in_call_is_set_back() -> None:
    block = Remembering(name="block")
    model = randomise(on_image(block))
    noted = block.last
    assert kerasfold.explain(model).opened
    assert block.last is noted


def test_a_layer_whose_config_forgets_is_made_of_its_arguments() -> None:
    model = randomise(on_image(Forgetful(4, 3, name="block")))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, ONLY_FLOAT32)
    assert folded.get_layer("block").conv.kernel_size == (3, 3)


class Single(Weighted):
    """The same, whose convolution is of float32 whatever it is in itself."""

    def __init__(self, filters: int, **options: Any) -> None:
        super().__init__(filters, **options)
        self.conv = layers.Conv2D(filters, 3, padding="same", dtype="float32")


@pytest.mark.parametrize(("kind", "dtype"), [(Weighted, "float64"), (Single, "float32")])
def test_what_a_layer_holds_is_compared_in_float64_if_it_may_be(kind: Any, dtype: str) -> None:
    policy = keras.config.dtype_policy()
    model = randomise(on_image(kind(4, name="block")))
    folded = kerasfold.fold(model)
    assert folded.fold_report.equivalence.dtype == dtype
    assert_same(model, folded, ONLY_FLOAT32)
    assert keras.config.dtype_policy() is policy


class Needy(Weighted):
    """Nothing rebuilds it: its argument is no plain value, and not in its config."""

    def __init__(self, filters: Callable[[], int], **options: Any) -> None:
        super().__init__(filters(), **options)

    def get_config(self) -> dict[str, Any]:
        return layers.Layer.get_config(self)


def test_a_layer_that_nothing_rebuilds_is_named_with_what_its_config_lacks() -> None:
    model = on_image(Needy(lambda: 4, name="block"))
    with pytest.raises(UnsupportedModelError, match=r"'block' of class Needy .* lacks 'filters'"):
        kerasfold.fold(model)


def test_a_fold_while_a_function_is_traced_is_refused() -> None:
    import tensorflow as tf

    model = on_image(Around())

    @tf.function
    def traced() -> None:
        for use in (kerasfold.fold, kerasfold.explain, lambda m: kerasfold.verify(m, m)):
            with pytest.raises(kerasfold.FoldError, match="call it outside"):
                use(model)

    traced()


@pytest.mark.parametrize("verify", [True, False])
def test_whatever_a_layer_raises_is_a_fold_error(verify: bool) -> None:
    block = Needy(lambda: 4, name="block")

    def broken() -> Any:
        raise KeyError("gone")

    block.get_config = broken
    with pytest.raises(UnsupportedModelError, match=r"'block' .* 'gone'"):
        kerasfold.fold(on_image(block), verify=verify)


class DropPath(layers.Layer):
    """Drops what it is given, in training alone."""

    def call(self, x: Any, training: bool | None = None) -> Any:
        """The input; in training, that of some samples."""
        return layers.Dropout(0.5, noise_shape=(None, 1, 1, 1))(x, training=True) if training else x


class Doubling(layers.Layer):
    """Has neither layers nor weights, and does something."""

    def call(self, x: Any) -> Any:
        """Twice the input."""
        return 2.0 * x


def test_a_layer_that_does_nothing_at_inference_is_no_wall() -> None:
    x = keras.Input((6, 6, 3))
    y = DropPath(name="drop")(layers.Conv2D(4, 3, name="conv")(x))
    y = layers.BatchNormalization(name="bn")(y)
    model = randomise(keras.Model(x, Doubling(name="twice")(y)))
    before = [len(layer._inbound_nodes) for layer in model.layers]
    report = model.fold().fold_report
    assert [row.layers for row in report.merged] == [("conv", "bn")]
    assert [row.layer for row in report.kept] == ["twice"]
    assert report.opened == ("drop",)
    assert [len(layer._inbound_nodes) for layer in model.layers] == before
    shut = model.fold(open_layers=False).fold_report
    assert [row.layer for row in shut.kept if row.kind == "DropPath"] == ["drop"]


class Attending(layers.Layer):
    """Each pixel of an image, weighted by a softmax over all of its pixels."""

    def __init__(self, pixels: int = 1100, **options: Any) -> None:
        super().__init__(**options)
        self.pixels, self.score = pixels, layers.Dense(1)

    def build(self, shape: Any) -> None:
        self.score.build(shape)

    def call(self, x: Any) -> Any:
        ops = keras.ops
        scores = ops.reshape(self.score(x), (ops.shape(x)[0], self.pixels))
        return x * ops.reshape(ops.softmax(scores), (-1, self.pixels, 1))


@pytest.mark.parametrize("open_layers", [True, False])
def test_a_layer_behind_a_constant_takes_any_batch(open_layers: bool) -> None:
    """Of what `Add` makes of both Keras says that its batch is the constant's, 1."""
    rng = np.random.default_rng(0)
    x = image = keras.Input((1100, 8))
    x = layers.Add()([layers.Dense(8)(x), rng.normal(size=(1, 1100, 8)).astype("float32")])
    model = randomise(keras.Model(image, layers.Dense(3)(layers.Dense(5)(Attending()(x)))))
    folded = model.fold(open_layers=open_layers)
    given = rng.normal(size=(4, 1100, 8)).astype("float32")
    np.testing.assert_allclose(folded(given), model(given), rtol=1e-4, atol=1e-6)


class Placed(layers.Layer):
    """Adds a constant, and hands the sum to another layer that it holds."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add, self.attend = layers.Add(), Attending(pixels=12)

    def build(self, shape: Any) -> None:
        self.attend.build(shape)

    def call(self, x: Any) -> Any:
        constant = np.linspace(-1, 1, 96, dtype="float32").reshape(1, 12, 8)
        return self.attend(self.add([x, constant]))


def _added(x: Any) -> Any:
    constant = np.random.default_rng(0).normal(size=(1, 12, 8)).astype("float32")
    return layers.Add()([x, constant])


BEHIND: dict[str, Callable[[Any], Any]] = {
    "a layer": lambda x: Attending(pixels=12)(layers.Dense(8)(_added(x))),
    "an operation": lambda x: Attending(pixels=12)(keras.ops.relu(_added(x))),
    "a sum": lambda x: Attending(pixels=12)(layers.Multiply()([_added(x), _added(x)])),
    "a model": lambda x: Attending(pixels=12)(
        keras.Sequential([keras.Input((12, 8)), layers.Dense(8), layers.ReLU()])(_added(x))
    ),
    "inside a layer": lambda x: Placed()(x),
    "inside, behind another": lambda x: Placed()(layers.ReLU()(_added(x))),
}


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", BEHIND)
def test_any_batch_goes_on_behind_a_constant(name: str, verify: bool) -> None:
    image = keras.Input((12, 8))
    x = BEHIND[name](layers.Dense(8)(image))
    model = randomise(keras.Model(image, layers.Dense(3)(layers.Dense(5)(x))))
    folded = model.fold(verify=verify)
    given = np.random.default_rng(1).normal(size=(4, 12, 8)).astype("float32")
    wanted = model.predict(given, verbose=0)
    found = folded.predict(given, verbose=0)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
    assert kerasfold.verify(model, folded, data=given).verdict == "equivalent"


@keras.saving.register_keras_serializable("inside")
class Biased(layers.Layer):
    """Adds rows of a table that another layer owns, and that its config does not say."""

    def __init__(self, table: Any = None, **options: Any) -> None:
        super().__init__(**options)
        object.__setattr__(self, "table", table)

    def call(self, x: Any) -> Any:
        return x if self.table is None else x + self.table(keras.ops.arange(3))

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


@keras.saving.register_keras_serializable("inside")
class Block(layers.Layer):
    """Owns the table, and what uses it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.table, self.dense = layers.Embedding(3, 4), layers.Dense(4)
        self.bias = Biased(self.table)

    def build(self, shape: Any) -> None:
        self.table.build((3,))
        self.dense.build(shape)

    def call(self, x: Any) -> Any:
        return self.dense(self.bias(x))


@pytest.mark.parametrize("verify", [True, False])
def test_a_layer_that_uses_one_of_another_is_copied_with_that(verify: bool) -> None:
    image = keras.Input((3, 4))
    x = Block(name="block")(layers.Dense(4)(image))
    model = randomise(keras.Model(image, layers.Dense(2)(x)))
    folded = model.fold(verify=verify)
    given = np.random.default_rng(1).normal(size=(4, 3, 4)).astype("float32")
    np.testing.assert_allclose(folded(given), model(given), atol=1e-5)
    (row,) = [row for row in folded.fold_report.kept if row.layer == "block"]
    assert row.code == "KF107"
    assert "which uses layer 'embedding" in row.reason

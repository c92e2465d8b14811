"""A copy of a layer has what its original learnt of data, or saves in its own way, too."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold

FAR = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
WORDS = ["b", "a", "c", "two\nlines", " a"]


def behind(inputs: Any, x: Any) -> keras.Model:
    """A model with something to fold behind numbers that a layer gives."""
    keras.utils.set_random_seed(0)
    x = layers.BatchNormalization()(layers.Dense(5)(x))
    return keras.Model(inputs, layers.Dense(2)(layers.ReLU()(x)))


def binned(mode: str) -> tuple[keras.Model, Any]:
    layer = layers.Discretization(num_bins=4)
    layer.adapt(FAR)
    inputs = keras.Input((4,))
    return behind(inputs, layers.CategoryEncoding(4, output_mode=mode)(layer(inputs))), FAR


def looked_up(kind: type, data: Any, dtype: str, **settings: Any) -> tuple[keras.Model, Any]:
    layer = kind(**settings)
    layer.adapt(data)
    inputs = keras.Input((1,), dtype=dtype)
    return behind(inputs, layer(inputs)), ops.convert_to_tensor(data)


def counted() -> tuple[keras.Model, Any]:
    layer = layers.TextVectorization(output_mode="tf_idf", pad_to_max_tokens=True, max_tokens=9)
    layer.adapt(["a b c", "a b", "q r a"])
    inputs = keras.Input((1,), dtype="string")
    x = layers.Reshape((9,))(layer(inputs))
    return behind(inputs, x), ops.convert_to_tensor([["a b"], ["q z a a"]])


@keras.saving.register_keras_serializable("copied_state")
class Shifting(layers.Layer):
    """Adds an array that is no weight, and that it saves in its own way."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shift = np.zeros(4, "float32")

    def call(self, inputs: Any) -> Any:
        """The sum."""
        return ops.tanh(inputs + self.shift)

    def save_own_variables(self, store: Any) -> None:
        """The array."""
        store["shift"] = self.shift

    def load_own_variables(self, store: Any) -> None:
        """The same."""
        self.shift = store["shift"]


@keras.saving.register_keras_serializable("copied_state")
class FromFile(layers.Layer):
    """Scales by a number that it writes beside the weights."""

    factor = 1.0

    def call(self, inputs: Any) -> Any:
        """The product."""
        return ops.tanh(inputs * self.factor)

    def save_assets(self, folder: str) -> None:
        """The number."""
        (Path(folder) / "factor").write_text(str(self.factor))

    def load_assets(self, folder: str) -> None:
        """The same."""
        self.factor = float((Path(folder) / "factor").read_text())


def of_its_own(kind: type, **state: Any) -> tuple[keras.Model, Any]:
    layer, inputs = kind(), keras.Input((4,))
    for name, value in state.items():
        setattr(layer, name, value)
    return behind(inputs, layer(inputs)), FAR


STRINGS = np.array([[word] for word in [*WORDS, *WORDS[:2]]])
ADAPTED: dict[str, Callable[[], tuple[keras.Model, Any]]] = {
    "bins": lambda: binned("multi_hot"),
    "counted bins": lambda: binned("count"),
    "strings": lambda: looked_up(
        layers.StringLookup, STRINGS, "string", output_mode="one_hot", max_tokens=9
    ),
    "integers": lambda: looked_up(
        layers.IntegerLookup, np.array([[3], [4], [4], [-5]]), "int64", output_mode="one_hot"
    ),
    "text": counted,
    "its own": lambda: of_its_own(Shifting, shift=np.arange(4, dtype="float32")),
    "its own file": lambda: of_its_own(FromFile, factor=3.0),
}


@pytest.mark.parametrize("name", ADAPTED)
def test_what_was_learnt_is_copied(name: str) -> None:
    model, data = ADAPTED[name]()
    wanted = ops.convert_to_numpy(model(data))
    folded = kerasfold.fold(model, verify=False)
    assert not any(isinstance(x, layers.BatchNormalization) for x in folded.layers)
    np.testing.assert_allclose(folded(data), wanted, atol=1e-5 * np.abs(wanted).max())
    assert kerasfold.verify(model, folded, data=data).verdict == "equivalent"
    np.testing.assert_array_equal(model(data), wanted)


def test_a_state_of_its_own_is_not_shared() -> None:
    model, data = of_its_own(Shifting, shift=np.arange(4, dtype="float32"))
    folded = kerasfold.fold(model, verify=False)
    wanted = ops.convert_to_numpy(model(data))
    next(x for x in folded.layers if isinstance(x, Shifting)).shift[:] = 7
    np.testing.assert_array_equal(model(data), wanted)


def test_a_fault_in_what_was_learnt_is_found() -> None:
    model, data = binned("multi_hot")
    folded = kerasfold.fold(model)
    next(x for x in folded.layers if isinstance(x, layers.Discretization)).bin_boundaries[1] += 0.5
    assert kerasfold.verify(model, folded, data=data).verdict == "different"


@keras.saving.register_keras_serializable("copied_state")
class Unloadable(Shifting):
    """What it saves, it does not load."""

    def load_own_variables(self, store: Any) -> None:
        """It fails."""
        raise KeyError("moved")


def test_what_a_copy_does_not_take_is_said() -> None:
    model, _ = of_its_own(Unloadable)
    with pytest.raises(kerasfold.FoldError, match=r"saves more than its weights.*moved"):
        kerasfold.fold(model)


@keras.saving.register_keras_serializable("copied_state")
class Tripled(layers.Layer):
    """Its attribute is made of its argument, and is not that."""

    def __init__(self, activation: Any = "tanh", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.said = activation
        function = keras.activations.get(activation)
        self.activation = lambda x: 3.0 * function(x)

    def call(self, inputs: Any) -> Any:
        """The attribute's."""
        return self.activation(inputs)

    def get_config(self) -> dict[str, Any]:
        """What it was given."""
        return {**super().get_config(), "activation": self.said}


@keras.saving.register_keras_serializable("copied_state")
class Parsing(layers.Layer):
    """It writes and reads its activation by itself."""

    def __init__(self, activation: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)

    def call(self, inputs: Any) -> Any:
        """The activation's."""
        return self.activation(inputs)

    def get_config(self) -> dict[str, Any]:
        """Its name."""
        name = keras.activations.serialize(self.activation)
        return {**super().get_config(), "activation": name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Parsing:
        """What has no such name is refused."""
        function = keras.activations.deserialize(config["activation"])
        return cls(**{**config, "activation": function})


@keras.saving.register_keras_serializable("copied_state")
class Given(Parsing):
    """It holds a function that no config says."""

    def get_config(self) -> dict[str, Any]:
        """What Keras makes of it."""
        return {**super(Parsing, self).get_config(), "activation": self.activation.__name__}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Given:
        """As any layer."""
        return cls(**config)


@pytest.mark.parametrize(
    "layer",
    [lambda: Tripled(), lambda: Parsing("relu"), lambda: Given(lambda x: 0.1 * ops.square(x))],
)
def test_an_activation_is_what_its_config_says_if_that_serves(layer: Any) -> None:
    inputs = keras.Input((4,))
    model = behind(inputs, layer()(inputs))
    folded = kerasfold.fold(model, verify=False)
    np.testing.assert_allclose(folded(FAR), model(FAR), atol=1e-6)
    assert kerasfold.fold(model).fold_report.equivalence.verdict == "equivalent"


# Keras writes for these what they were made with, where that is plain values.
WITHOUT_CONFIG = [
    kind
    for kind in vars(layers).values()
    if inspect.isclass(kind)
    and issubclass(kind, layers.Layer)
    and kind is not layers.Layer
    and kind.get_config is layers.Layer.get_config
]


@pytest.mark.parametrize("kind", WITHOUT_CONFIG)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_copy_of_a_class_without_a_config_is_saved(
    kind: type, policy: str, tmp_path: Path
) -> None:
    inputs = keras.Input((4,))
    x = layers.BatchNormalization()(layers.Dense(5, dtype=policy)(inputs))
    model = keras.Model(inputs, [layers.ELU(0.5, dtype=policy)(x), kind(dtype=policy)(x)])
    folded = model.fold()
    folded.save(tmp_path / "folded.keras")
    again = keras.models.load_model(tmp_path / "folded.keras")
    for a, b in zip(folded(FAR), again(FAR), strict=True):
        assert np.array_equal(a, b)
    assert {type(x) for x in folded.layers} >= {layers.ELU}
    assert keras.models.clone_model(folded).count_params() == folded.count_params()
    assert folded.fold().count_params() == folded.count_params()

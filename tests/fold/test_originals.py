"""Names survive a fold, and nothing of the original is touched by it."""

from __future__ import annotations

import copy
import random

import keras
import numpy as np
import pytest

import kerasfold
from zoo.graphs import GRAPHS, built
from zoo.same import (
    FLOAT32,
    assert_same,
    fingerprint,
)

pytestmark = pytest.mark.usefixtures("fresh")


def test_names_of_layers_lifted_out_of_nested_models() -> None:
    model = built("nested_three_deep")
    names = {layer.name for layer in kerasfold.fold(model, objective="layers").layers}
    assert "image" in names
    assert "end" in names
    assert "outer_middle_act" in names
    assert not any(isinstance(layer, keras.Model) for layer in kerasfold.fold(model).layers)


def test_name_collision_is_resolved() -> None:
    folded = kerasfold.fold(built("name_collisions"))
    names = [layer.name for layer in folded.layers]
    assert {"a_b", "a_c"} <= set(names)
    assert len(set(names)) == len(names) == 5


def test_materialised_tensor_keeps_its_layer_name() -> None:
    folded = kerasfold.fold(built("sequential"))
    assert {"b", "r", "head", "image"} <= {layer.name for layer in folded.layers}


# The original.


def test_optimizer_and_compiled_state_untouched_and_fit_goes_on() -> None:
    model, alone = built("softmax_head"), built("softmax_head")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 8, 8, 3)).astype("float32"), rng.integers(0, 5, 32)
    for each in (model, alone):
        each.compile(
            keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        keras.utils.set_random_seed(1)
        each.fit(x, y, epochs=1, batch_size=16, verbose=0, shuffle=False)
    state = [v.numpy() for v in model.optimizer.variables]
    optimizer, before = model.optimizer, fingerprint(model)
    folded = model.fold()
    assert fingerprint(model) == before
    assert model.compiled
    assert model.optimizer is optimizer
    for kept, now in zip(state, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(kept, now.numpy())
    assert not folded.compiled
    assert_same(model, folded, FLOAT32)
    for each in (model, alone):
        keras.utils.set_random_seed(2)
        each.fit(x, y, epochs=1, batch_size=16, verbose=0, shuffle=False)
    for a, b in zip(model.weights, alone.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    with pytest.raises(AssertionError):
        assert_same(model, folded, FLOAT32)
    assert_same(model, model.fold(), FLOAT32)


def test_fold_trains() -> None:
    folded = kerasfold.fold(built("softmax_head"))
    folded.compile("sgd", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    before = folded.get_weights()
    folded.fit(rng.normal(size=(8, 8, 8, 3)), rng.integers(0, 5, 8), verbose=0)
    assert all(np.abs(a - b).max() > 0 for a, b in zip(before, folded.get_weights(), strict=True))


def test_random_state_untouched() -> None:
    model = built("dropout_as_output")
    keras.utils.set_random_seed(5)
    expected = random.random(), keras.random.uniform((2,)).numpy().tolist()
    keras.utils.set_random_seed(5)
    kerasfold.fold(model)
    assert (random.random(), keras.random.uniform((2,)).numpy().tolist()) == expected


def test_policy_and_backend_settings_untouched() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    model = GRAPHS["residual"]()
    kerasfold.fold(model)
    assert keras.config.dtype_policy().name == "mixed_float16"
    assert keras.config.floatx() == "float32"


def test_config_of_the_original_still_rebuilds_it() -> None:
    model = built("residual")
    config = copy.deepcopy(model.get_config())
    kerasfold.fold(model, verify=False)
    again = keras.Model.from_config(config)
    again.set_weights(model.get_weights())
    assert_same(model, again, 0.0)

"""Whole graphs: structure, names and values survive a fold."""

from __future__ import annotations

import keyword
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from kerasfold.cost import UNTIMED
from kerasfold.reports.record import COUNTS
from zoo.graphs import BN, GRAPHS, Conv, built, image
from zoo.making import randomise
from zoo.same import (
    FLOAT32,
    FLOAT64,
    assert_same,
    fingerprint,
    inputs_of,
    kinds,
    layers_of,
    run,
    signature,
)

pytestmark = pytest.mark.usefixtures("fresh")


EXAMPLES = Path(__file__).parents[2] / "examples"
EACH = pytest.mark.parametrize("name", GRAPHS)


@EACH
@pytest.mark.parametrize("objective", ["latency", "layers"])
def test_same_outputs_names_structure(name: str, objective: str) -> None:
    model = built(name)
    before = fingerprint(model)
    folded = kerasfold.fold(model, objective=objective, verify=objective == "latency")
    assert fingerprint(model) == before
    assert signature(folded) == signature(model)
    assert_same(model, folded, FLOAT32, inputs=inputs_of(model))
    inputs = inputs_of(model)
    keras.tree.assert_same_structure(model(inputs), folded(inputs))
    assert not folded.compiled
    assert folded is not model
    assert not {id(layer) for layer in layers_of(model)} & {
        id(layer) for layer in layers_of(folded)
    }
    assert folded.fold_report.layers_after <= folded.fold_report.layers_before


@EACH
def test_float64(name: str) -> None:
    model = built(name, "float64")
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert signature(folded) == signature(model)
    # Kernels of keras layers such as Normalization are float32 inside whatever the policy.
    assert_same(model, folded, FLOAT64, inputs=inputs_of(model))


@EACH
def test_names_are_unique_and_legal(name: str) -> None:
    model = built(name)
    folded = kerasfold.fold(model, verify=False)
    names = [layer.name for layer in folded.layers]
    assert len(set(names)) == len(names)
    for each in names:
        assert each
        assert "/" not in each
        assert " " not in each
        assert not keyword.iskeyword(each)
    assert folded.name == model.name


@EACH
def test_saves_and_loads(name: str, tmp_path: Path) -> None:
    model = built(name)
    folded = kerasfold.fold(model, objective="layers", verify=False)
    folded.save(tmp_path / "folded.keras")
    loaded = keras.saving.load_model(
        tmp_path / "folded.keras", safe_mode=name != "in_memory_lambda"
    )
    if name != "nested_many_outputs":  # two outputs of one name: no file can say that
        assert signature(loaded) == signature(model)
    for a, b in zip(run(folded, inputs_of(model)), run(loaded, inputs_of(model)), strict=True):
        np.testing.assert_array_equal(a, b)


@EACH
def test_folding_again_changes_nothing(name: str) -> None:
    model = built(name)
    for objective in UNTIMED:
        once = kerasfold.fold(model, objective=objective, verify=False)
        did, again = once.fold_report, kerasfold.explain(once, objective=objective)
        for count in COUNTS:
            assert getattr(again, f"{count}_before") == getattr(did, f"{count}_after")
            assert getattr(again, f"{count}_before") == getattr(again, f"{count}_after")
        assert (again.merged, again.removed, again.narrowed) == ((), (), ())
    twice = kerasfold.fold(once, objective=objective, verify=False)
    assert kinds(twice) == kinds(once)
    if name != "nested_many_outputs":  # two outputs of one name: no second fold can know
        assert signature(twice) == signature(model)
    assert_same(once, twice, FLOAT32, inputs=inputs_of(model))


@pytest.mark.parametrize("objective", UNTIMED)
def test_a_trained_model_is_folded_once(objective: Any) -> None:
    model = keras.models.load_model(EXAMPLES / "digits.keras")
    once = kerasfold.fold(model, objective=objective, verify=False)
    again = kerasfold.explain(once, objective=objective)
    assert not again.merged
    assert again.macs_after == again.macs_before == once.fold_report.macs_after


@EACH
def test_explain_says_what_fold_does(name: str) -> None:
    model = built(name)
    before = fingerprint(model)
    said, did = kerasfold.explain(model), kerasfold.fold(model, verify=False).fold_report
    assert fingerprint(model) == before
    assert said.to_dict() | {"keras_layers_after": did.keras_layers_after} == did.to_dict()


FEW = ("residual", "siamese", "operators", "input_as_output", "softmax_head", "inception")


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        *((name, "mixed_float16") for name in GRAPHS),
        *((name, policy) for policy in ("bfloat16", "mixed_bfloat16", "float16") for name in FEW),
    ],
)
def test_low_precision(name: str, policy: str) -> None:
    model = built(name, policy)
    folded = kerasfold.fold(model, verify=policy != "mixed_float16" or name in FEW)
    assert signature(folded) == signature(model)
    assert {w.dtype for w in folded.weights} <= {w.dtype for w in model.weights}
    inputs = inputs_of(model)
    for a, b in zip(run(model, inputs), run(folded, inputs), strict=True):
        assert np.abs(a - b).max() <= (0.02 if "bf" not in policy else 0.15) * max(
            np.abs(a).max(), 1e-3
        )


# Other models.


def test_functional_subclass_with_its_own_train_step() -> None:
    folded = kerasfold.fold(built("custom_training"))
    assert kinds(folded) == ["Conv2D"]


def test_subclass_of_functional_with_its_own_call_is_refused_or_kept() -> None:
    class Doubled(keras.Model):
        def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
            return 2 * super().call(inputs, training=training)

    i = image()
    model = randomise(Doubled(i, Conv(4, 3, name="c")(i)))
    with pytest.raises(kerasfold.UnsupportedModelError, match=r"call|subclass"):
        kerasfold.fold(model)


def test_deep_chain_of_plain_layers() -> None:
    x = i = image((6, 6, 2))
    for k in range(60):
        x = layers.ReLU()(BN(name=f"n{k}")(Conv(2, 1, name=f"c{k}")(x)))
    model = randomise(keras.Model(i, x))
    folded = kerasfold.fold(model, verify=False, keep_channels=True)
    assert kinds(folded).count("BatchNormalization") == 0
    assert_same(model, folded, FLOAT32)


def test_method_is_the_function() -> None:
    model = built("residual")
    assert kinds(model.fold(objective="layers")) == kinds(kerasfold.fold(model, objective="layers"))
    assert model.fold(verify=False).fold_report.equivalence is None


def test_one_number_for_all_inputs() -> None:
    i = keras.Input((7,))
    model = randomise(keras.Model(i, ops.mean(layers.Dense(3)(layers.Dense(4)(i)))))
    folded = kerasfold.fold(model, objective="layers")
    assert len(folded.layers) == len(model.layers) - 1
    x = np.random.default_rng(0).normal(size=(5, 7)).astype("float32")
    assert_same(model, folded, FLOAT32, x)


def test_activations_are_no_layers_however_they_are_written() -> None:
    i = image((8, 8, 3), "image")
    x = ops.softmax(Conv(4, 1)(ops.silu(Conv(4, 1)(ops.relu(Conv(4, 3)(i))))))
    model = keras.Model(i, ops.reshape(x, (-1, 6 * 6 * 4)))
    assert kerasfold.explain(model, objective="layers").layers_before == 3

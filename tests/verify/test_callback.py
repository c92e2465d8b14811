"""A model is folded while it is trained, and never knows."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.callbacks import FoldCheckpoint

# Steps are not compiled by XLA, which takes longer than these are trained for.
HOW: dict[str, Any] = {
    "optimizer": "adam", "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"],
    "jit_compile": False,
}  # fmt: skip
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(40, 6, 6, 2)).astype("float32")
LABELS = RNG.integers(0, 3, size=40)


@pytest.fixture
def model(fresh: None) -> keras.Model:
    image = keras.Input((6, 6, 2), name="image")
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, name="conv")(image))
    x = layers.Dropout(0.2)(layers.ReLU()(x))
    scores = layers.Dense(3, "softmax", name="scores")(layers.Flatten()(x))
    model = keras.Model(image, scores, name="net")
    model.compile(**HOW)
    return model


def fit(model: keras.Model, *callbacks: keras.callbacks.Callback, **settings: Any) -> None:
    settings = {"epochs": 2, "batch_size": 20, "verbose": 0, **settings}
    model.fit(IMAGES, LABELS, callbacks=list(callbacks), **settings)


def forgetful(layer: Any, x: Any) -> Any:
    """A rule that knows nothing of the shift of a BatchNormalization."""
    return x.scale(layer.gamma)


def test_what_is_written_is_the_model_of_its_epoch_folded(
    model: keras.Model, tmp_path: Path
) -> None:
    given = []
    told = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: given.append(model.predict(IMAGES, verbose=0))
    )
    checkpoint = FoldCheckpoint(tmp_path / "new" / "{epoch:02d}-{loss:.1f}.keras", objective="macs")
    fit(model, told, checkpoint)
    files = sorted((tmp_path / "new").iterdir())
    assert [file.name[:3] for file in files] == ["01-", "02-"]
    assert np.abs(given[0] - given[1]).max() > 1e-3
    for file, want in zip(files, given, strict=True):
        folded = keras.saving.load_model(file)
        assert {layer.name for layer in folded.layers}.isdisjoint({"conv", "dropout"})
        assert np.abs(folded.predict(IMAGES, verbose=0) - want).max() < 1e-5
    assert checkpoint.fold_report.objective == "macs"
    assert checkpoint.fold_report.equivalence.equivalent


def test_training_goes_as_it_would_without(model: keras.Model, tmp_path: Path) -> None:
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    twin.compile(**HOW)
    for one, callbacks in (
        (model, [FoldCheckpoint(tmp_path / "m.keras", save_freq=1)]),
        (twin, []),
    ):
        keras.utils.set_random_seed(0)
        one.get_layer(index=4).seed_generator.state.assign([1, 2])
        fit(one, *callbacks)
    for ours, theirs in (
        (model.weights, twin.weights),
        (model.optimizer.variables, twin.optimizer.variables),
    ):
        assert len(ours) == len(theirs) >= 8
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_only_the_best_is_written(model: keras.Model, tmp_path: Path) -> None:
    checkpoint = FoldCheckpoint(
        tmp_path / "{epoch}.keras", "loss", save_best_only=True, initial_value_threshold=0.0
    )
    fit(model, checkpoint)
    assert not list(tmp_path.iterdir())
    fit(model, FoldCheckpoint(tmp_path / "{epoch}.keras", "loss", save_best_only=True))
    assert (tmp_path / "1.keras").exists()


def test_batches_are_counted(model: keras.Model, tmp_path: Path) -> None:
    fit(model, FoldCheckpoint(tmp_path / "{epoch}-{batch}.keras", save_freq=3))
    assert [file.name for file in tmp_path.iterdir()] == ["2-1.keras"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Keras with NumPy, told again
def test_a_wrong_fold_is_a_warning_and_the_file_stays(
    model: keras.Model, tmp_path: Path, rules_restored: None
) -> None:
    file = tmp_path / "m.keras"
    checkpoint = FoldCheckpoint(file, "loss", save_best_only=True)
    fit(model, checkpoint, epochs=1)
    before, best = file.read_bytes(), checkpoint.best
    kerasfold.lifts(layers.BatchNormalization, override=True)(forgetful)
    with pytest.warns(UserWarning, match="FoldCheckpoint wrote nothing: .* NOT equivalent"):
        fit(model, checkpoint, epochs=2)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
    assert checkpoint.best == best


def test_a_wrong_fold_ends_training_where_that_is_asked_for(
    model: keras.Model, tmp_path: Path, rules_restored: None
) -> None:
    kerasfold.lifts(layers.BatchNormalization, override=True)(forgetful)
    with pytest.raises(kerasfold.EquivalenceError, match="'net' is not handed out"):
        fit(model, FoldCheckpoint(tmp_path / "m.keras", on_error="raise"))


def test_what_cannot_be_folded_at_all_is_refused_before_the_first_step(tmp_path: Path) -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(3, "softmax")

        def call(self, x: Any) -> Any:
            return self.dense(keras.ops.reshape(x, (-1, 72)))

    model = Own()
    model.compile(**{**HOW, "optimizer": "sgd"})
    with pytest.raises(kerasfold.UnsupportedModelError, match="Own"):
        fit(model, FoldCheckpoint(tmp_path / "m.keras"))
    assert model.optimizer.iterations == 0


def test_options_are_checked_where_they_are_given() -> None:
    with pytest.raises(kerasfold.FoldError, match="on_error='stop': choose 'warn' or 'raise'"):
        FoldCheckpoint("m.keras", on_error="stop")
    with pytest.raises(TypeError, match="objektive"):
        FoldCheckpoint("m.keras", objektive="macs")


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("{epoch:zz}.keras", {}, "cannot be filled in: "),
        ("{val_loss:02d}.keras", {}, "cannot be filled in: "),
        ("{val_loss!z}.keras", {}, "cannot be filled in: "),
        ("{}.keras", {}, "cannot be filled in: expected names"),
        ("{epoch.real}.keras", {}, "cannot be filled in: expected names"),
        ("{epoch.keras", {}, r"cannot be filled in: expected '}'"),
        ("a.keras", {"objective": "zz"}, r"unknown objective='zz': choose 'latency'"),
    ],
)
def test_paths_and_objectives_are_checked_where_they_are_given(
    path: str, options: dict, message: str
) -> None:
    with pytest.raises(kerasfold.FoldError, match=message):
        FoldCheckpoint(path, **options)


@pytest.mark.parametrize("name", ["{val_top-5:.2f}", "{val_loss!s:>8}", "{my metric:05.1f}"])
def test_a_path_may_have_whatever_names_are_logged(name: str) -> None:
    path = name + ".keras"
    assert FoldCheckpoint(path).filepath == path


def test_a_path_that_asks_for_what_is_not_logged_is_a_warning(
    model: keras.Model, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match=r"wrote nothing: .*what is logged: epoch, batch, .*loss"):
        fit(model, FoldCheckpoint(tmp_path / "{nope}.keras"))
    with pytest.raises(kerasfold.FoldError, match="cannot be filled in: what is logged"):
        fit(model, FoldCheckpoint(tmp_path / "{nope}.keras", on_error="raise"))


def test_the_example_in_its_docstring_runs(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    doc = inspect.getdoc(FoldCheckpoint) or ""
    source = textwrap.dedent(doc[doc.index("    model.fit(") : doc.index("Args:")])
    exec(
        source,
        {
            "model": model,
            "FoldCheckpoint": kerasfold.callbacks.FoldCheckpoint,
            "images": IMAGES,
            "labels": LABELS,
        },
    )
    assert (tmp_path / "best-1.keras").exists()

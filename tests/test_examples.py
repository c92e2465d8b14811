"""The examples run, and the committed model is trained and folds."""

import functools
import importlib
from importlib.util import find_spec
from pathlib import Path

import block_search
import keras
import numpy as np
import pytest
import seeds
import train_and_fold as training
from rewritings import CHAINS, Miss

import kerasfold
from kerasfold.lift.rules import RULES

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def plain_steps(monkeypatch):
    """Steps of training are not compiled by XLA, which takes longer than to train for an epoch."""
    monkeypatch.setattr("keras.src.trainers.trainer.model_supports_jit", lambda model: False)


def test_seeds_prints_every_collapsed_form(monkeypatch, capsys):
    for name in ("CHAINS", "CLAIMS"):
        monkeypatch.setattr(seeds, name, getattr(seeds, name)[:1])
    monkeypatch.setattr(seeds, "misses", lambda: [Miss("few", np.array([0.25]))])
    policy = keras.config.dtype_policy()
    seeds.main()
    assert keras.config.dtype_policy() == policy
    printed = capsys.readouterr().out
    for seed in seeds.SEEDS:
        rows = [line for line in printed.splitlines() if line.strip().startswith(f"{seed.name}  ")]
        assert len(rows) == len(seeds.CHANNELS), printed
        stride = "" if seed.stride == 1 else f"/{seed.stride}"
        for row in rows:
            assert f" {seed.kernel}x{seed.kernel}{stride} " in row
    for part in (CHAINS[0].about, "exact", "25.0%", "25, 18"):
        assert part in printed


def test_rules_for_layers_of_others_are_registered_where_those_are(rules_restored):
    before = len(RULES)
    importlib.import_module("zoo_rules")
    layers = {"kimm": 2, "keras_hub": 2}
    assert len(RULES) - before == sum(n for name, n in layers.items() if find_spec(name))


def test_block_search_prints_every_block(monkeypatch, capsys):
    monkeypatch.setattr(block_search, "BLOCKS", block_search.QUICK)
    monkeypatch.setattr(block_search, "trained_accuracy", lambda block, epochs: 0.9)
    best, _ = block_search.main(["--quick"])
    assert best.block == ("separable", "separable", "depthwise")
    printed = capsys.readouterr().out
    for part in ("236,810", "834,890", "90.0%", "0.147", "loses 7,168 weights", "rank of none"):
        assert part in printed


def test_block_search_trains(plain_steps):
    assert 0.0 < block_search.trained_accuracy(("depthwise",), epochs=1) <= 1.0


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ([], []),
        (["a", "a"], ["a", "a"]),
        (["a", "a", "a", "b"], ["3 x (a)", "b"]),
        (["a", "b"] * 3 + ["a"], ["3 x (a, b)", "a"]),
    ],
)
def test_seeds_writes_repetitions_once(words, written):
    assert seeds.runs(words) == written


@pytest.fixture
def small(plain_steps, monkeypatch):
    """Digits are as small as they come."""
    monkeypatch.setattr(training, "digits", functools.partial(training.digits, upsampling=1))


def short(side):
    """The example's network with a block and a transition alone."""
    x = image = keras.Input((side, side, 1), name="image")
    x = training.transition(training.repvgg(x, 4, "block"), 8, "transition")
    scores = keras.layers.Dense(10, "softmax")(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, scores, name="digits")


def test_training_goes_on_around_a_fold(small, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(training, "build", short)
    out = tmp_path / "digits.keras"
    first, second = training.main(["--epochs", "1", "--out", str(out)])
    assert (first.epochs, second.epochs) == (1, 2)
    for stage in (first, second):
        assert stage.model == stage.folded
        assert stage.difference < 1e-5
    printed = capsys.readouterr().out
    for part in (
        "MACs",
        "parameters",
        "layers",
        "BatchNormalization",
        "equivalent",
        "accuracy on the test images",
    ):
        assert part in printed

    *_, images, _, labels = training.digits()
    saved = keras.models.load_model(out)
    assert training.accuracy(saved, images, labels) == second.model


def test_training_writes_nothing_by_default(small, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training.main(["--epochs", "0"])
    assert not list(tmp_path.iterdir())
    assert "saved" not in capsys.readouterr().out


def test_committed_model_is_trained_and_folds():
    path = EXAMPLES / "digits.keras"
    assert path.stat().st_size < 1_000_000
    model = keras.models.load_model(path)
    assert {w.dtype for w in model.trainable_weights} == {"float32"}
    folded = kerasfold.fold(model)
    assert not any(isinstance(x, keras.layers.BatchNormalization) for x in folded.layers)
    assert folded.fold_report.layers_after < folded.fold_report.layers_before

    _, images, _, labels = training.digits()
    expected, actual = model.predict(images, verbose=0), folded.predict(images, verbose=0)
    assert np.abs(expected - actual).max() < 1e-5
    for m in (model, folded):
        assert training.accuracy(m, images, labels) > 0.95

    untrained = keras.models.clone_model(model)
    assert training.accuracy(untrained, images, labels) < 0.5

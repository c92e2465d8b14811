"""A model is held against what its original gave, in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from kerasfold.equivalence.domain import Domain
from kerasfold.equivalence.probes import Recipe, draw
from kerasfold.equivalence.recipes import Lasting, restored, written
from kerasfold.errors import UnusableError
from kerasfold.golden import _digest, check_golden, write_golden
from zoo.commands import conv_bn
from zoo.making import randomise


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the file of a small model."""
    path = tmp_path_factory.mktemp("golden") / "small.npz"
    write_golden(conv_bn(), path)
    return path


def words(scale: float = 1.0) -> keras.Model:
    """Two inputs, one of words; a class that is seldom chosen."""
    keras.utils.set_random_seed(1)
    word, gain = keras.Input((5,), dtype="int32", name="word"), keras.Input((4,), name="gain")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(50, 4, name="table")(word))
    x = layers.Dense(3, "softmax", name="scores")(layers.Multiply()([x, gain]))
    model = keras.Model({"word": word, "gain": gain}, x, name="words")
    table = model.get_layer("table").embeddings
    table.assign(scale * table)
    return model


def altered(path: Path, target: Path, **changes: Any) -> Path:
    """The same file with another array, or with other words."""
    with np.load(path) as file:
        arrays = dict(file)
    about = json.loads(str(arrays["about"]))
    for name, value in changes.items():
        if name in about:
            about[name] = value
        else:
            arrays[name.replace("_", ".")] = value
    arrays["about"] = np.array(json.dumps(about))
    np.savez(target, **arrays)
    return target


def test_a_fold_passes(path: Path) -> None:
    report = check_golden(conv_bn().fold(objective="layers"), path)
    assert report.verdict == "equivalent"
    assert report.max_abs_error > 0
    assert [out.name for out in report.outputs] == ["bn"]


def test_another_model_does_not(path: Path) -> None:
    report = check_golden(conv_bn(last_scale=1 + 1e-5), path)
    assert report.verdict == "different"
    assert report.reason.startswith("output 'bn' differs")


def test_a_less_accurate_build_needs_a_tolerance(path: Path) -> None:
    half = keras.models.clone_model(
        conv_bn(),
        clone_function=lambda x: type(x).from_config({**x.get_config(), "dtype": "mixed_float16"}),
    )
    half.set_weights(conv_bn().get_weights())
    assert not check_golden(half, path).equivalent
    assert check_golden(half, path, atol=0.05, rtol=0.01).equivalent
    assert not check_golden(half, path, atol=1e-6).equivalent
    rounded = conv_bn()
    rounded.set_weights([w.astype("float16") for w in conv_bn().get_weights()])
    assert not check_golden(rounded, path).equivalent
    assert check_golden(rounded, path, atol=0.05, rtol=0.01).equivalent


def test_words_and_rare_classes_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "words.npz"
    write_golden(words(), path)
    assert path.stat().st_size < 100_000
    assert check_golden(words(), path).equivalent
    assert check_golden(words().fold(), path).equivalent
    assert not check_golden(words(scale=1.0001), path).equivalent


def test_a_softmax_may_be_written_otherwise(tmp_path: Path) -> None:
    def net(written: bool, sharpness: float = 1.0) -> keras.Model:
        keras.utils.set_random_seed(2)
        x = keras.Input((6,), name="x")
        logits = layers.Dense(3, name="logits")(x)
        if not written:
            return keras.Model(x, layers.Softmax(name="scores")(logits))
        powers = keras.ops.exp(sharpness * logits)
        return keras.Model(x, powers / keras.ops.sum(powers, axis=-1, keepdims=True))

    write_golden(net(False), tmp_path / "softmax.npz")
    for check in (
        lambda model: check_golden(model, tmp_path / "softmax.npz"),
        lambda model: kerasfold.verify(net(False), model, strict_signature=False),
    ):
        assert check(net(True)).equivalent
        assert not check(net(True, sharpness=1.001)).equivalent
    assert kerasfold.verify(net(True), net(False), strict_signature=False).equivalent


def test_the_inputs_may_be_the_users(tmp_path: Path) -> None:
    images = np.random.default_rng(5).normal(size=(3, 8, 8, 3)).astype("float32")
    write_golden(conv_bn(), tmp_path / "own.npz", data=images)
    with np.load(tmp_path / "own.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["input.0.0"], images)
        assert file["truth.0.0"].dtype == "float64"
    report = check_golden(conv_bn(), tmp_path / "own.npz")
    assert (report.inputs, report.verdict) == (3, "equivalent")


def test_random_inputs_are_the_same_everywhere() -> None:
    """The digest of what NumPy draws today: should it ever draw otherwise, files say so."""
    numbers = [(np.zeros(6), np.ones(6)), (np.arange(6.0), np.full(6, 0.5))]
    rows = [(np.arange(3), np.arange(50))]
    inputs = [
        Domain((2, 3), "float32", numbers, [], np.zeros(6)),
        Domain((3,), "int32", [(np.zeros(3), np.ones(3))], rows, np.zeros(3)),
    ]
    usual = Recipe(inputs, [1, 3], [(5.0, 1.0)] * 4)
    drawn = [usual, Recipe(inputs, [1], [(4096.0, 0.0)], loud=True)]
    for each in (drawn, restored(written(drawn))):
        assert _digest(draw(each, [0, 0], Lasting(0)))[:16] == "ccf1b50ff501516d"


def test_what_is_drawn_is_normal() -> None:
    numbers = Lasting(3).normal(size=(100, 1000))
    assert abs(numbers.mean()) < 0.02
    assert abs(numbers.std() - 1) < 0.02
    order = Lasting(3).permutation(100)
    assert sorted(order) == list(range(100)) != list(order)


def test_every_row_of_a_table_is_held_against_the_file(tmp_path: Path) -> None:
    word = keras.Input((7,), dtype="int32")
    table = layers.Embedding(500, 4)
    model = keras.Model(word, layers.Dense(3)(layers.GlobalAveragePooling1D()(table(word))))
    write_golden(model, tmp_path / "rows.npz")
    assert check_golden(model, tmp_path / "rows.npz").equivalent
    table.embeddings.assign(table.embeddings + 0.1 * np.eye(500, 4, -321))
    assert not check_golden(model, tmp_path / "rows.npz").equivalent


def test_large_inputs_are_held_against_the_file(tmp_path: Path) -> None:
    def capped(most: float) -> keras.Model:
        keras.utils.set_random_seed(4)
        x = keras.Input((6,), name="x")
        return keras.Model(x, layers.ReLU(most, name="y")(layers.Dense(5, name="d")(x)))

    write_golden(capped(1e6), tmp_path / "loud.npz")
    for options in ({}, {"atol": 1e-3}):
        assert check_golden(capped(1e6), tmp_path / "loud.npz", **options).equivalent
        report = check_golden(capped(90.0), tmp_path / "loud.npz", **options)
        assert report.verdict == "different"
        assert float(np.abs(report.shown["x"]).max()) > 90


def test_words_may_be_inputs(tmp_path: Path) -> None:
    def net(*vocabulary: str) -> keras.Model:
        keras.utils.set_random_seed(4)
        x = keras.Input((2,), dtype="string", name="x")
        codes = layers.StringLookup(vocabulary=vocabulary)(x)
        return keras.Model(x, layers.Embedding(4, 3, name="table")(codes))

    write_golden(net("a", "b", "c"), tmp_path / "words.npz")
    assert check_golden(net("a", "b", "c"), tmp_path / "words.npz").equivalent
    assert not check_golden(net("a", "c", "b"), tmp_path / "words.npz").equivalent


def test_a_large_file_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kerasfold.golden.LARGE", 1000)
    with pytest.warns(UserWarning, match=r"large.npz has 0 MB: outputs of 'small' are large"):
        write_golden(conv_bn(), tmp_path / "large.npz")


def test_what_nothing_can_be_told_by_is_not_written(tmp_path: Path) -> None:
    image = keras.Input((4,))
    model = keras.Model(image, keras.ops.log(keras.ops.multiply(image, 0.0) - 1.0), name="void")
    with pytest.raises(
        kerasfold.FoldError, match=r"model 'void' is no reference: .* nowhere finite"
    ):
        write_golden(model, tmp_path / "void.npz")
    assert not list(tmp_path.iterdir())


def test_a_model_of_other_shapes_is_refused(path: Path) -> None:
    image = keras.Input((8, 8, 2))
    with pytest.raises(
        kerasfold.FoldError,
        match=r"has inputs of shapes \[\[8, 8, 2\]\], model 'small' of .* has \[\[8, 8, 3\]\]",
    ):
        check_golden(keras.Model(image, layers.Conv2D(4, 1)(image), name="two"), path)


def test_files_that_are_no_golden_files_are_refused(path: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.npz"
    text.write_text("no archive")
    cases = {
        text: "text.npz cannot be read as a golden file",
        altered(path, tmp_path / "a.npz", format=9): "is of format 9, written by kerasfold",
        altered(path, tmp_path / "b.npz", digest="0"): "are not those that its outputs",
        tmp_path / "missing.npz": "missing.npz does not exist",
    }
    for file, message in cases.items():
        with pytest.raises(UnusableError, match=message):
            check_golden(conv_bn(), file)


@pytest.mark.parametrize("ending", ["argmax", "threshold"])
def test_what_goes_into_the_last_step_is_kept(tmp_path: Path, ending: str) -> None:
    end = {"argmax": lambda y: ops.argmax(y, axis=-1), "threshold": lambda y: y > 0.5}[ending]

    def net(error: float) -> keras.Model:
        x, scores = keras.Input((8,)), layers.Dense(10, "softmax")
        model = randomise(keras.Model(x, end(scores(x))))
        scores.bias.assign(scores.bias + error * np.arange(10))
        return model

    write_golden(net(0.0), tmp_path / "step.npz")
    report = check_golden(net(0.0), tmp_path / "step.npz")
    assert (report.verdict, report.note) == ("equivalent", "")
    report = check_golden(net(1e-5), tmp_path / "step.npz")
    assert report.verdict == "inconclusive"
    assert "agree, but what goes into" in report.reason

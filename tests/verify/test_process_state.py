"""What folding and comparing leave as they found it, for all threads."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasfold
from kerasfold import FoldError, files
from kerasfold.backend import double_precision, full_precision, own_seeds, unfilled
from kerasfold.quiet import unsaid
from zoo.making import randomise


@keras.saving.register_keras_serializable("process_state")
class Drawing(layers.Layer):
    """Its weights are drawn when it is built, one of them from Keras's global generator."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.kernel = self.add_weight((shape[-1],), initializer="glorot_uniform")
        self.shift = self.add_weight((1,), initializer=lambda *_, **__: keras.random.normal((1,)))

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return inputs * self.kernel + self.shift


def drawing() -> keras.Model:
    """Layers that take seeds when they are made, and such as are made anew by a fold."""
    x = image = keras.Input((4, 4, 2))
    for _ in range(2):
        x = layers.SeparableConv2D(4, 3, padding="same")(x)
        x = layers.Dropout(0.5)(layers.BatchNormalization()(x))
        x = Drawing()(layers.PReLU()(x))
    x = layers.Reshape((-1, 4))(x)
    x = layers.MultiHeadAttention(2, 2, dropout=0.1)(x, x)
    return randomise(keras.Model(image, layers.LSTM(3, recurrent_dropout=0.1)(x)))


def stored(model: keras.Model, folder: Path) -> keras.Model:
    files.save(model, folder / "model.keras", {})
    return files.load(str(folder / "model.keras"), {})


WAYS: dict[str, Callable[[keras.Model, Path], object]] = {
    "fold": lambda model, _: model.fold(),
    "explain": lambda model, _: kerasfold.explain(model),
    "verify": lambda model, _: kerasfold.verify(model, model),
    "factor": lambda *_: kerasfold.factor(np.ones((3, 3, 2, 2)), "spatial").layers(),
    "files": stored,
}


def settings() -> dict[str, object]:
    """What the process and this thread have set, beside random numbers and counters of names."""
    loggers = [x for x in logging.root.manager.loggerDict.values() if isinstance(x, logging.Logger)]
    kept = keras.src.backend.common.global_state
    own = vars(kept.GLOBAL_STATE_TRACKER) | vars(kept.GLOBAL_SETTINGS_TRACKER)
    options = tf.config.optimizer.get_experimental_options(), tf.config.optimizer.get_jit()
    return {
        "thread": {name: repr(x) for name, x in own.items() if name != "object_name_uids"},
        "keras": [getattr(keras.config, x)() for x in ("floatx", "epsilon", "image_data_format")],
        "objects": dict(keras.saving.get_custom_objects()),
        "tensorflow": (*options, tf.config.experimental.tensor_float_32_execution_enabled()),
        "loggers": {x.name: (x.level, x.disabled, list(x.filters), x.handlers) for x in loggers},
        "logging": logging.root.manager.disable,
        "warnings": (list(warnings.filters), warnings.showwarning),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "environment": (dict(os.environ), list(sys.path), Path.cwd()),
        "errors": (np.geterr(), sys.excepthook, threading.excepthook),
        "streams": (sys.stdout, sys.stderr),
        "threads": threading.enumerate(),
    }


@pytest.mark.parametrize("way", WAYS)
def test_the_process_is_left_as_it_was(way: str, tmp_path: Path) -> None:
    model = drawing()
    WAYS[way](model, tmp_path)  # what is imported, or started, with the first
    before = settings()
    WAYS[way](model, tmp_path)
    assert settings() == before


def test_what_other_threads_log_is_heard_while_a_model_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, logger = drawing(), logging.getLogger("absl")
    monkeypatch.setattr(logger, "propagate", True)

    def write(*_: object, **__: object) -> None:
        logger.warning("advice")
        thread = threading.Thread(target=logger.warning, args=["heard"])
        thread.start()
        thread.join()
        raise FoldError("enough")

    monkeypatch.setattr(model, "save", write)
    with pytest.raises(FoldError):
        files.save(model, tmp_path / "model.keras", {})
    assert caplog.messages == ["heard"]


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_drawn(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = drawing()
    keras.random.normal((1,))  # so that there is a global generator

    def drawn(*_: object) -> None:
        raise AssertionError("drawn")

    generator = keras.src.random.seed_generator.global_seed_generator()
    before = random.getstate(), generator.state.numpy().tolist()
    seeds = [v.numpy() for v in model.non_trainable_variables]
    legacy = np.random.get_state()[1].copy()  # noqa: NPY002
    with monkeypatch.context() as patched:
        for name in ("random", "randint", "getrandbits", "uniform"):
            patched.setattr(random, name, drawn)
        WAYS[way](model, tmp_path)
    assert (random.getstate(), generator.state.numpy().tolist()) == before
    assert keras.src.random.seed_generator.global_seed_generator() is generator
    np.testing.assert_array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002
    for kept, now in zip(seeds, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(kept, now.numpy())


def test_a_thread_that_draws_meanwhile_misses_nothing() -> None:
    model, done, drawn = drawing(), threading.Event(), []
    random.seed(3)
    expected = random.Random(3)

    def load() -> None:
        while not done.wait(0.001):
            drawn.append(random.random())

    loader = threading.Thread(target=load)
    loader.start()
    try:
        model.fold()
    finally:
        done.set()
        loader.join()
    assert len(drawn) > 10
    assert drawn == [expected.random() for _ in drawn]


def test_layers_made_elsewhere_draw_as_ever() -> None:
    """Seeds given in a fold are its own, of layers made afterwards they are not."""
    with own_seeds():
        inside = [keras.initializers.GlorotUniform().seed for _ in range(2)]
    assert inside[0] != inside[1]
    random.seed(3)
    seed = keras.initializers.GlorotUniform().seed
    random.seed(3)
    assert keras.initializers.GlorotUniform().seed == seed
    random.seed(4)
    assert keras.initializers.GlorotUniform().seed != seed


def overlapping(scope: Callable[[], AbstractContextManager[None]]) -> None:
    """Enter a scope in two threads; the one that entered first leaves it first."""
    entered, left = threading.Event(), threading.Event()

    def first() -> None:
        with scope():
            entered.wait(10)
        left.set()

    thread = threading.Thread(target=first)
    thread.start()
    with scope():
        entered.set()
        left.wait(10)
    thread.join()


def speak() -> None:
    """Four warnings, of which two are left where those of layers are unsaid."""
    warnings.warn("A layer warns", stacklevel=1)
    warnings.warn("another", stacklevel=1)
    with unsaid():
        warnings.warn("a third", stacklevel=1)
        thread = threading.Thread(target=warnings.warn, args=["elsewhere"])
        thread.start()
        thread.join()


def test_warnings_are_unsaid_in_their_thread_alone() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with unsaid("A layer"):
            speak()
    assert [str(each.message) for each in caught] == ["another", "elsewhere"]


def test_filters_of_warnings_are_put_back_by_threads_that_overlap() -> None:
    before = list(warnings.filters)
    overlapping(unsaid)
    assert warnings.filters == before


def test_single_precision_is_put_back_by_threads_that_overlap() -> None:
    switch = tf.config.experimental
    switch.enable_tensor_float_32_execution(True)
    with full_precision():
        overlapping(full_precision)
        assert not switch.tensor_float_32_execution_enabled()
    assert switch.tensor_float_32_execution_enabled()


def test_a_switch_that_was_off_stays_off() -> None:
    switch = tf.config.experimental
    switch.enable_tensor_float_32_execution(False)
    try:
        overlapping(full_precision)
        assert not switch.tensor_float_32_execution_enabled()
    finally:
        switch.enable_tensor_float_32_execution(True)


@pytest.mark.parametrize(
    "name", ["glorot_uniform", "he_normal", "random_normal", "truncated_normal", "orthogonal"]
)
def test_nothing_is_drawn_for_weights_that_get_the_values_of_others(name: str) -> None:
    """Here and meanwhile alone; another thread, and whoever comes after, draws as ever."""
    draws: list[np.ndarray] = []

    def draw() -> None:
        initializer = getattr(keras.initializers, name.title().replace("_", ""))(seed=1)
        draws.append(keras.ops.convert_to_numpy(initializer((3, 4), dtype="float32")))

    draw()
    with unfilled():
        thread = threading.Thread(target=draw)
        thread.start()
        thread.join()
        draw()
    draw()
    before, elsewhere, here, after = draws
    assert before.any()
    assert not here.any()
    np.testing.assert_array_equal(elsewhere, before)
    np.testing.assert_array_equal(after, before)


def made_of_numbers() -> set[str]:
    """The dtypes of what is written as numbers, and told none."""
    arrays = np.ones(2, "float32"), [0.5, 1], 0.5
    tensors = [*map(keras.ops.convert_to_tensor, arrays), keras.ops.zeros(2), keras.ops.ones(())]
    return {keras.backend.standardize_dtype(x.dtype) for x in tensors}


def test_constants_are_float64_where_that_is_computed_and_in_no_other_thread() -> None:
    elsewhere: list[set[str]] = []
    with double_precision():
        assert made_of_numbers() == {"float64"}
        told = (
            keras.ops.convert_to_tensor(0.5, dtype="float32"),
            keras.ops.convert_to_tensor([1, 2]),
        )
        assert [x.dtype.name for x in told] == ["float32", "int32"]
        other = threading.Thread(target=lambda: elsewhere.append(made_of_numbers()))
        other.start()
        other.join()
    assert elsewhere == [made_of_numbers()] == [{"float32"}]


@keras.saving.register_keras_serializable("process_state")
class Guarded(layers.Layer):
    """Divides by what it makes sure is not zero, by a number that is told no dtype."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.gain = self.add_weight((shape[-1],), initializer="ones")

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        size = keras.ops.sqrt(keras.ops.mean(x * x, axis=-1, keepdims=True))
        return self.gain * x / (keras.ops.convert_to_tensor(1e-3) + size)


def guarded(x: keras.KerasTensor) -> keras.KerasTensor:
    """The same with no weights."""
    return x / (keras.ops.convert_to_tensor([1e-3]) + keras.ops.sum(x, axis=-1, keepdims=True))


@pytest.mark.parametrize("guard", [Guarded, lambda: layers.Lambda(guarded)])
def test_layers_that_write_constants_are_compared_in_float64(guard: Callable[[], Any]) -> None:
    x = image = keras.Input((6, 6, 3))
    x = guard()(layers.BatchNormalization()(layers.Conv2D(4, 3)(x)))
    report = randomise(keras.Model(image, x)).fold().fold_report.equivalence
    assert (report.verdict, report.dtype) == ("equivalent", "float64")

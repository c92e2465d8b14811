"""Models whose class predicts in its own way come back in it, or a warning says that it is lost."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest

import kerasfold
from zoo.composites import backbone
from zoo.making import randomise
from zoo.same import ONLY_FLOAT32, assert_same, kinds
from zoo.tasks import Classifier, Detector, Halve, Picky, Sized, watched

pytestmark = pytest.mark.usefixtures("fresh")

IMAGES = np.random.default_rng(0).normal(size=(3, 8, 8, 4)).astype("float32")

TASKS: dict[str, Callable[[], keras.Model]] = {
    "a part like any model": lambda: Classifier(backbone(), 3, Halve()),
    "a part that says more": lambda: Detector(Sized((8, 8, 4)), classes=3, preprocessor=Halve()),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_comes_back_in_its_class_and_is_read_again(name: str, tmp_path: Path) -> None:
    task = randomise(TASKS[name]())
    folded = kerasfold.fold(task)
    assert type(folded) is type(task)
    assert folded.preprocessor is task.preprocessor
    assert "BatchNormalization" not in kinds(folded.backbone)
    assert folded.fold_report.equivalence.equivalent
    assert folded.fold_report.layers_after == folded.fold_report.layers_before - 1
    assert type(task).__name__ in folded.fold_report.note
    folded.save(tmp_path / "folded.keras")
    again = keras.saving.load_model(tmp_path / "folded.keras")
    want = task.predict(IMAGES, verbose=0)
    for model in (folded, again):
        np.testing.assert_allclose(model.predict(IMAGES, verbose=0), want, atol=1e-5)
    assert not np.allclose(want, keras.ops.convert_to_numpy(task(IMAGES)), atol=1e-3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Picky(Sized((8, 8, 4)), classes=3, preprocessor=Halve()),
            r"predict\(\).* does not take",
        ),
        (watched, r"predict_step\(\).* no model that is a part"),
    ],
)
def test_a_plain_model_is_said_to_be_one(make: Callable[[], keras.Model], words: str) -> None:
    task = randomise(make())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        folded = kerasfold.fold(task, verify=False)
    assert any(re.search(words, str(warning.message)) for warning in caught)
    assert type(folded) is type(keras.Model(task.input, task.output))
    assert folded.fold_report.note in folded.fold_report.text(width=None)
    assert "BatchNormalization" not in kinds(folded)
    assert_same(keras.Model(task.input, task.output), folded, ONLY_FLOAT32)


@keras.saving.register_keras_serializable("classes")
class Counted(Classifier):
    """It counts how often one is made."""

    made: ClassVar[int] = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        Counted.made += 1
        super().__init__(*args, **options)


def test_a_class_is_tried_to_be_read_again_once() -> None:
    tasks = [Counted(backbone(), 3, Halve()) for _ in range(3)]
    counts = []
    for task in tasks:
        Counted.made = 0
        assert type(kerasfold.fold(task, verify=False)) is Counted
        counts.append(Counted.made)
    assert counts == [2, 1, 1]

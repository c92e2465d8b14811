"""What verification runs: each model once on its inputs, in full precision, of one composition."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasfold
from kerasfold.equivalence.bounds import difference_bound
from kerasfold.equivalence.probes import probes
from kerasfold.equivalence.runs import AsIs, Walk
from kerasfold.equivalence.tally import Tally
from kerasfold.forms.form import Form
from kerasfold.forms.joined import Joined
from kerasfold.forms.ways import FORMS
from zoo.making import chain, randomise


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[keras.Model, int, bool]]]:
    """Model, inputs and whether TF32 was on, of every run of a model on a batch."""
    seen: list[tuple[keras.Model, int, bool]] = []

    def spy(kind: type, method: str) -> None:
        run = getattr(kind, method)

        def spied(self: Any, batch: Any, *rest: Any) -> Any:
            single = tf.config.experimental.tensor_float_32_execution_enabled()
            seen.append((self.model, len(keras.tree.flatten(batch)[0]), single))
            return run(self, batch, *rest)

        monkeypatch.setattr(kind, method, spied)

    spy(AsIs, "_outputs")
    spy(Walk, "_run")
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(True)
    yield seen
    tf.config.experimental.enable_tensor_float_32_execution(before)


def scores() -> keras.Model:
    return chain((7, 7, 2), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3))


def test_data_is_run_five_times(runs: list) -> None:
    """Both models, their float64 copies, and the first of these with noise in its weights."""
    model = scores()
    data = np.random.default_rng(0).normal(size=(20, 7, 7, 2)).astype("float32")
    report = kerasfold.verify(model, kerasfold.fold(model, verify=False), data)
    assert report.agreement.top1 == 1.0
    assert sorted(Counter(id(m) for m, _, _ in runs).values()) == [1, 1, 1, 2]
    assert {count for _, count, _ in runs} == {20}


def test_a_fold_runs_each_model_once_on_each_batch(runs: list) -> None:
    """The models, and their float64 copies: without rounding there is no noise to measure.

    The copies alone run on the loud inputs too.
    """
    model = scores()
    model.fold()
    drawn = probes(model)
    usual, loud = ([len(batch) for batch in batches] for batches in (drawn.usual, drawn.loud))
    lengths = defaultdict(list)
    for one, count, _ in runs:
        lengths[id(one)].append(count)
    assert sorted(lengths.values()) == sorted([usual, usual, usual + loud, usual + loud])


def test_noise_is_measured_on_one_input(runs: list) -> None:
    """That of two stored models: on the first, and not again where it explains the rest."""
    model = scores()
    folded = kerasfold.fold(model, verify=False)
    drawn = probes(model)
    assert kerasfold.verify(model, folded).equivalent
    lengths = defaultdict(list)
    for one, count, _ in runs:
        lengths[id(one)].append(count)
    usual, loud = ([len(batch) for batch in batches] for batches in (drawn.usual, drawn.loud))
    noisy = [usual[0], 1, *usual[1:], *loud]
    assert sorted(lengths.values()) == sorted([usual, usual, usual + loud, noisy])


@pytest.mark.parametrize("how", ["fold", "verify", "data", "different"])
def test_every_run_is_in_full_precision(how: str, runs: list) -> None:
    model = scores()
    data = np.random.default_rng(0).normal(size=(40, 7, 7, 2)).astype("float32")
    if how == "fold":
        model.fold()
    elif how == "different":
        assert not kerasfold.verify(model, randomise(scores(), seed=1)).equivalent
    else:
        kerasfold.verify(model, model.fold(verify=False), data if how == "data" else None)
    assert runs
    assert not any(single for _, _, single in runs)
    assert tf.config.experimental.tensor_float_32_execution_enabled()


def test_a_fold_that_is_verified_is_composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    composed: Counter[tuple[str, int]] = Counter()

    def counting(kind: type[Form]) -> None:
        compose = kind.compose

        def counted(self: Form, nodes: Any) -> Any:
            composed[type(self).__name__, self.node] += 1
            return compose(self, nodes)

        monkeypatch.setattr(kind, "compose", counted)

    for kind in {
        form for row in (*FORMS, Joined) for form in row.__mro__ if "compose" in vars(form)
    }:
        counting(kind)
    x = image = keras.Input((56, 56, 16))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3)(x)))
    outputs = [layers.Conv2D(4, 1, name=name)(x) for name in "ab"]  # which are joined
    model = randomise(keras.Model(image, [layers.BatchNormalization()(y) for y in outputs]))
    folded = model.fold("layers")
    assert folded.fold_report.equivalence.equivalent
    kinds = [row.kind for row in folded.fold_report.merged]
    assert kinds[1:] == ["a slice of Conv2D 1x1, for 2 at once"] * 2
    assert Counter(name for name, _ in composed) == {"Convolved": 3, "Joined": 2}
    assert set(composed.values()) == {1}


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_border_is_that_of_the_images(rank: int, layout: str) -> None:
    """An image with its border cut off and zeros put there."""
    sizes = (6, 7, 8)[:rank]
    shape = (*sizes, 2) if layout == "channels_last" else (2, *sizes)

    def net(cut: bool) -> keras.Model:
        x = image = keras.Input(shape)
        if cut:
            place = (slice(None), *(slice(1, -1),) * rank, slice(None))
            pads = [(0, 0), *[(1, 1)] * rank, (0, 0)]
            if layout == "channels_first":
                place = (slice(None), slice(None), *(slice(1, -1),) * rank)
                pads = [(0, 0), (0, 0), *[(1, 1)] * rank]
            x = keras.ops.pad(x[place], pads)
        # A layer that says which axis the channels are.
        said = getattr(layers, f"ZeroPadding{rank}D")(0, data_format=layout)
        return keras.Model(image, keras.ops.relu(said(x)))

    (out,) = kerasfold.verify(net(cut=False), net(cut=True)).outputs
    assert out.max_abs_error > 0.5
    assert out.max_border_error == out.max_abs_error
    (inside,) = kerasfold.verify(net(cut=True), net(cut=True)).outputs
    assert inside.max_border_error == 0.0


def test_a_difference_inside_is_none_at_the_border_in_channels_first() -> None:
    mask = np.zeros((1, 6, 6), "float32")
    mask[0, 3, 3] = 1.0

    def net(shift: float) -> keras.Model:
        image = keras.Input((2, 6, 6))
        x = keras.ops.add(image, keras.ops.convert_to_tensor(shift * mask))
        return keras.Model(image, layers.ZeroPadding2D(0, data_format="channels_first")(x))

    (out,) = kerasfold.verify(net(0.0), net(1.0)).outputs
    assert out.max_abs_error == pytest.approx(1.0)
    assert out.max_border_error == 0.0


@pytest.mark.parametrize(("kinds", "seen"), [(1, False), (3, True)])
def test_samples_are_judged_beside_those_of_their_loudness(kinds: int, seen: bool) -> None:
    """One in three is a thousand times as loud; the others have an error, and less noise."""
    tally = Tally(name="y", shape=(None, 2), pixels=(), kinds=kinds)
    loudness = np.array([1.0, 1e3, 1.0] * 4)[:, None]
    values = loudness * np.random.default_rng(0).normal(size=(12, 2))
    for start, stop in ((0, 1), (1, 6), (6, 12)):
        batch, error = values[start:stop], 1e-5 * (loudness[start:stop] < 2)
        tally.saw_copies(batch, batch * (1 + error))
        tally.saw_noise(batch, batch * (1 + 1e-7))
    assert np.any(tally.error > difference_bound(tally, 2.0**-52)) == seen

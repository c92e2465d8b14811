"""The user's data: read batch by batch, checked batch by batch, with its labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasfold
from kerasfold.equivalence.data import MOST_ROWS, NUMBERS, ROWS, Given


def numbers(shape: Any = (4,), dtype: str = "float32", batch: int | None = None) -> keras.Model:
    i = keras.Input(shape, batch_size=batch, dtype=dtype, name="x")
    return keras.Model(i, keras.layers.Flatten(name="flat")(i))


def two_heads() -> keras.Model:
    i = keras.Input((4,), name="x")
    heads = [keras.layers.Dense(n, name=name)(i) for n, name in ((3, "kind"), (5, "colour"))]
    return keras.Model(i, heads)


def wide() -> keras.Model:
    """A score of each of 40 classes."""
    i = keras.Input((4,), name="x")
    return keras.Model(i, keras.layers.Dense(40)(i))


def rows(n: int) -> np.ndarray:
    return np.arange(4.0 * n, dtype="float32").reshape(n, 4)


def read(given: Given) -> tuple[np.ndarray, list[np.ndarray]]:
    """All inputs, and all labels of each output."""
    x, y = [], []
    for batch in given:
        x.append(batch)
        y.append(given.labels())
    return np.concatenate(x), [np.concatenate(column) for column in zip(*y, strict=True)]


def test_nothing_is_read_ahead_and_nothing_is_kept() -> None:
    read_so_far = []

    def batches() -> Iterator[np.ndarray]:
        for k in range(1000):
            read_so_far.append(k)
            yield rows(2)

    given = Given(numbers(), batches())
    for k, _ in zip(range(3), given, strict=False):
        assert read_so_far == list(range(k + 1))


def test_large_batches_are_taken_in_pieces() -> None:
    sizes = [len(x) for x in Given(numbers(), iter([rows(5), rows(2 * MOST_ROWS + 3)]))]
    assert sizes == [5, MOST_ROWS, MOST_ROWS, 3]
    assert [len(x) for x in Given(numbers((64, 64, 1)), np.zeros((ROWS + 1, 64, 64, 1)))] == [32, 1]
    side = int((NUMBERS / 2) ** 0.5)
    large = np.zeros((3, side, side, 1), "float32")
    assert [len(x) for x in Given(numbers((None, None, 1)), large)] == [2, 1]


def test_a_variable_is_an_array() -> None:
    np.testing.assert_array_equal(read(Given(numbers(), tf.Variable(rows(3))))[0], rows(3))


@pytest.mark.parametrize("first", [True, False])
def test_labels_of_some_batches_alone_are_an_error(first: bool) -> None:
    pairs = [(rows(2), np.zeros(2)), rows(2)]
    batches = iter(pairs if first else pairs[::-1])
    with pytest.raises(kerasfold.FoldError, match=r"batch 2 of data has (no )?labels, unlike"):
        list(Given(numbers(), batches))


def test_a_memory_map_is_read_by_its_pieces(tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", rows(70))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(read(Given(numbers(), mapped))[0], rows(70))


def broken() -> Iterator[np.ndarray]:
    yield rows(3)
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            iter([rows(3), np.zeros((3, 5))]),
            r"batch 2 of data: input 'x' takes float32 of shape \(None, 4\)\. "
            r"Received: float64 of shape \(3, 5\)",
        ),
        (iter([rows(3), np.array([["a"] * 4])]), r"batch 2 .* takes float32 .*: str32 of shape"),
        (iter([rows(3), {"y": rows(3)}]), r"batch 2 .* no array for input\(s\) \['x'\]\..*\['y'\]"),
        (rows(3).tolist(), r"batch 1 of data .* in no array: lists are read as batches"),
        ((rows(3), [0, 1, 0]), r"batch 2 of data .* in no array: .* np\.asarray"),
        (iter([rows(3), [rows(3), rows(3)]]), r"batch 2 .* 2 array\(s\), the model takes 1"),
        (broken(), r"batch 2 of data cannot be read \(OSError: the disk is gone\)"),
        (tf.data.Dataset.from_tensor_slices(rows(3)), r"shape \(4,\): batch it"),
        (tf.data.Dataset.from_tensors(rows(3)).repeat(), r"without end: pass data\.take\(n\)"),
        (iter([]), "no input"),
        (7, "data of type int: pass arrays"),
    ],
    ids=[
        "size",
        "text",
        "keys",
        "list",
        "listed",
        "arrays",
        "broken",
        "unbatched",
        "endless",
        "empty",
        "number",
    ],
)
def test_what_is_wrong_is_said_at_the_batch_that_shows_it(data: Any, message: str) -> None:
    with pytest.raises(kerasfold.FoldError, match=message):
        list(Given(numbers(), data))


@pytest.mark.parametrize("value", [1.5, -1, 256, np.nan])
def test_an_integer_input_takes_what_it_can_hold(value: float) -> None:
    model = numbers(dtype="uint8")
    whole = np.array([[0.0, 1.0, 7.0, 255.0]])
    assert read(Given(model, whole))[0].tolist() == whole.tolist()
    with pytest.raises(kerasfold.FoldError, match=r"'x' takes uint8, which does not hold all"):
        list(Given(model, np.full((2, 4), value)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_inputs_with_nan_or_infinity_are_left_out_and_counted(bad: float) -> None:
    data, labels = rows(40).astype("float64"), np.arange(40)
    data[[3, 35], [0, 2]] = bad
    given = Given(wide(), data, labels)
    x, y = read(given)
    kept = np.delete(np.arange(40), [3, 35])
    np.testing.assert_array_equal(x, rows(40)[kept])
    np.testing.assert_array_equal(y[0], kept)
    assert (given.inputs, given.note) == (
        38,
        "left out of data: 2 of 40 inputs, with NaN or infinity in 'x'",
    )


def test_data_of_nan_alone_is_an_error() -> None:
    with pytest.raises(
        kerasfold.FoldError, match=r"no input .* \(.*: 3 of 3 inputs, with NaN .*'x'\)"
    ):
        list(Given(numbers(), np.full((3, 4), np.nan)))


def test_a_fixed_batch_is_filled_from_what_comes() -> None:
    given = Given(numbers(batch=8), iter([rows(11), rows(3), rows(5)]))
    batches = list(given)
    assert [len(x) for x in batches] == [8, 8]
    np.testing.assert_array_equal(np.concatenate(batches)[11:14], rows(3))
    assert given.note == (
        "left out of data: the last 3, which are fewer than the model takes at a time"
    )


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
def test_keys_of_inputs_or_their_names() -> None:
    a, b = keras.Input((1,), name="first"), keras.Input((1,), name="second")
    model = keras.Model({"b": a, "a": b}, keras.layers.Add()([a, b]))
    ones, twos = np.ones((2, 1), "float32"), np.full((2, 1), 2.0, "float32")
    for data in ({"b": ones, "a": twos}, {"first": ones, "second": twos}):
        (batch,) = Given(model, data)
        assert (batch["b"][0, 0], batch["a"][0, 0]) == (1.0, 2.0)


@pytest.mark.parametrize("form", ["pair", "pairs", "dataset", "labels", "labels_of_batches"])
def test_labels_go_with_their_inputs(form: str) -> None:
    x, y = rows(40), np.arange(40)
    given = {
        "pair": lambda: ((x, y), None),
        "pairs": lambda: (iter([(x[:9], y[:9]), (x[9:], y[9:])]), None),
        "dataset": lambda: (tf.data.Dataset.from_tensor_slices((x, y)).batch(7), None),
        "labels": lambda: (x, y),
        "labels_of_batches": lambda: (iter([x[:9], x[9:]]), y),
    }[form]
    read_x, (read_y,) = read(Given(wide(), *given()))
    np.testing.assert_array_equal(read_x[:, 0] / 4, read_y)
    assert len(read_y) == 40


def test_labels_of_several_outputs_are_taken_by_name() -> None:
    kind, colour = np.arange(6) % 3, np.arange(6) % 5
    for labels in ([kind, colour], {"colour": colour, "kind": kind}):
        _, (first, second) = read(Given(two_heads(), rows(6), labels))
        assert first.tolist() == kind.tolist()
        assert second.tolist() == colour.tolist()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(5) % 3, "labels= is of length 5, and data holds more inputs"),
        (np.arange(7) % 3, "labels= is of length 7, and data holds 6 inputs"),
        ({"shape": np.arange(6) % 3}, r"by name: \{'kind': \(None, 3\), 'colour': \(None, 5\)\}"),
        ([np.arange(6) % 3] * 3, r"Received: \['\(6,\) from 0 to 2'(, '.*'){2}\]"),
        (np.arange(6), r"whole numbers from 0, .*Received: \['\(6,\) from 0 to 5'\]"),
        ("cats", r"must be classes .*Received: \['str'\]"),
    ],
    ids=["fewer", "more", "names", "number", "classes", "text"],
)
def test_labels_that_do_not_fit_are_an_error(labels: Any, message: str) -> None:
    with pytest.raises(kerasfold.FoldError, match=message):
        list(Given(two_heads(), rows(6), labels))


@pytest.mark.parametrize("count", [5, 7])
def test_a_pair_with_labels_of_another_number_is_an_error(count: int) -> None:
    with pytest.raises(kerasfold.FoldError, match=f"data holds 6 inputs, and labels of .* {count}"):
        list(Given(two_heads(), (rows(6), np.arange(count) % 3)))


@pytest.mark.parametrize("targets", [np.arange(6) / 7, np.arange(6.0)[:, None] - 3])
def test_targets_of_a_pair_that_are_no_classes_are_none(targets: np.ndarray) -> None:
    """Users pass what they train with."""
    x = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    i = keras.Input((3,))
    model = keras.Model(i, keras.layers.Dense(1)(i))
    report = kerasfold.verify(model, model, (x, targets))
    assert report.equivalent
    assert report.agreement is None


def test_a_batch_with_labels_of_another_number_is_an_error() -> None:
    batches = iter([(rows(3), np.zeros(3)), (rows(3), np.zeros(2))])
    message = "batch 2 of data holds 3 inputs, and labels of length 2"
    with pytest.raises(kerasfold.FoldError, match=message):
        list(Given(numbers(), batches))


def test_what_batches_hold_beside_inputs_need_be_no_labels() -> None:
    boxes = {"boxes": np.zeros((3, 2, 4)), "kinds": np.array(["cat", "dog", "cow"])}
    given = Given(numbers(), iter([(rows(3), boxes)]))
    assert len(list(given)) == 1
    assert given.labels() == []
    assert given.is_labelled


# As verify() tells them.


def digits(shift: float = 0.0) -> keras.Model:
    """Names the largest of three numbers; with a shift, the first more often."""
    i = keras.Input((3,), name="x")
    dense = keras.layers.Dense(3, kernel_initializer="identity")
    model = keras.Model(i, dense(i))
    dense.bias.assign([shift, 0.0, 0.0])
    return model


def test_nan_in_the_data_is_not_blamed_on_the_second_model() -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    x[7, 1] = np.nan
    for report in (
        kerasfold.verify(digits(), digits(), x),
        kerasfold.fold(digits(), data=x).fold_report.equivalence,
    ):
        assert (report.verdict, report.inputs) == ("equivalent", 39)
        assert report.note == "left out of data: 1 of 40 inputs, with NaN or infinity in 'x'"
        assert report.note in str(report)


@pytest.mark.parametrize("form", ["labels", "pair", "pairs"])
def test_labels_give_the_accuracy_of_either_model(form: str) -> None:
    x = np.random.default_rng(0).normal(size=(50, 3))
    labels = x.argmax(axis=1)
    data, beside = {
        "labels": (x, labels),
        "pair": ((x, np.eye(3)[labels]), None),
        "pairs": (tf.data.Dataset.from_tensor_slices((x, labels)).batch(9), None),
    }[form]
    report = kerasfold.verify(digits(), digits(1.0), data, labels=beside)
    found = report.agreement
    right = np.mean((x + np.eye(3)[0]).argmax(axis=1) == labels)
    assert (found.accuracy_a, found.accuracy_b, found.top1) == (1.0, right, right)
    assert [one.label for one in found.per_class] == [0, 1, 2]
    assert "top class of" in str(report)
    assert report.to_dict()["outputs"][0]["agreement"]["accuracy_b"] == right


def test_labels_that_no_output_scores_are_noted() -> None:
    """0 and 1, of logits: 0.5 does not divide them."""
    i = keras.Input((3,))
    model = keras.Model(i, keras.layers.Dense(1)(i))
    x = 9.0 * np.eye(3)
    boxes = {"boxes": np.zeros((3, 2, 4))}
    for data, labels in ((x, [0, 1, 0]), ((x, np.zeros(3)), None), (iter([(x, boxes)]), None)):
        report = kerasfold.verify(model, model, data, labels=labels)
        assert report.agreement is None
        assert report.note == "no accuracy: the labels are classes of no output"


def test_labels_of_random_inputs_are_an_error() -> None:
    with pytest.raises(kerasfold.FoldError, match="labels= are those of data=: give both"):
        kerasfold.verify(digits(), digits(), labels=np.zeros(3))

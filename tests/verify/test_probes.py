"""What models are compared on: sizes, values, words and batches that faults do not hide from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from kerasfold.equivalence import ranges, room
from kerasfold.equivalence.probes import probes
from zoo.making import chain, policy, randomise

pytestmark = pytest.mark.usefixtures("fresh")


def drawn(model: keras.Model, number: int = 0) -> np.ndarray:
    """All numbers of one input, whatever the size."""
    return np.concatenate([keras.tree.flatten(batch)[number].ravel() for batch in probes(model)])


def sizes(model: keras.Model) -> list[tuple[int, ...]]:
    """Those of the first input, each once, in order."""
    shapes = [keras.tree.flatten(batch)[0].shape for batch in probes(model)]
    return list(dict.fromkeys(shape[1:-1] for shape in shapes))


# Sizes.


def strided(count: int, padding: str = "same") -> keras.Model:
    """Convolutions of stride 2 padded as Keras does, or as PyTorch does."""
    stack: list[keras.Layer] = []
    for _ in range(count):
        stack += [layers.ZeroPadding2D(1)] if padding == "torch" else []
        kept = "valid" if padding == "torch" else padding
        stack += [layers.Conv2D(3, 3, strides=2, padding=kept), layers.ReLU()]
    return chain((None, None, 3), *stack)


@pytest.mark.parametrize("count", [1, 3])
def test_padding_of_another_framework(count: int) -> None:
    assert kerasfold.verify(strided(count), strided(count)).equivalent
    assert not kerasfold.verify(strided(count), strided(count, "torch")).equivalent


def test_sizes_have_different_remainders_by_the_strides() -> None:
    found = sizes(strided(5))
    assert {True, False} == {height % 2 == 0 for height, _ in found}
    assert any(height != width for height, width in found)
    assert {0, 1, 16, 31} <= {n % 32 for size in found for n in size}
    assert min(map(max, found)) < 32 <= max(map(max, found)) <= 64


def unet() -> keras.Model:
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, padding="same")(image)
    y = layers.UpSampling2D(4)(layers.MaxPooling2D(4)(x))
    return keras.Model(image, layers.Conv2D(2, 1)(layers.Concatenate()([x, y])))


def test_sizes_that_a_model_does_not_take_are_passed_over() -> None:
    found = sizes(unet())
    assert len(found) > 1
    assert all(n % 4 == 0 for size in found for n in size)
    assert kerasfold.verify(unet(), unet()).inputs >= 2 * len(found)


def test_no_model_of_keras_layers_runs_to_find_a_size() -> None:
    x = keras.Input((None, 4))
    y = layers.Lambda(lambda t: 1 / 0, output_shape=(None, 4))(x)
    assert len(sizes(keras.Model(x, layers.Conv1D(4, 3)(y)))) > 1


def picky(refused: Callable[[int], bool], name: str) -> keras.Model:
    """A model that says of sizes what is not so: it refuses some when it runs."""

    def run(x: Any) -> Any:
        return 1 / 0 if refused(x.shape[1]) else x

    x = keras.Input((None, 4))
    y = layers.Lambda(run, output_shape=(None, 4))(x)
    return randomise(keras.Model(x, layers.Conv1D(4, 3, padding="same")(y), name=name))


def test_a_size_that_is_refused_in_a_run_is_passed_over() -> None:
    free, picked = picky(lambda n: False, "free"), picky(lambda n: n % 2 == 1, "picky")
    assert kerasfold.verify(picked, free).verdict == "equivalent"
    report = kerasfold.verify(free, picked)
    assert report.verdict == "different"
    assert "takes inputs of shape" in report.reason
    assert "'picky'" in report.reason


def test_each_size_has_two_samples_and_one_size_a_sample_alone() -> None:
    lengths: dict[Any, list[int]] = {}
    for batch in probes(strided(2)):
        lengths.setdefault(batch.shape[1:], []).append(len(batch))
    assert all(sum(counts) > 1 for counts in lengths.values())
    first = next(iter(lengths.values()))
    assert first[0] == 1 < max(first)


def test_large_images_come_in_small_batches() -> None:
    lengths = [len(batch) for batch in probes(chain((512, 512, 3), layers.Conv2D(1, 1)))]
    assert lengths == [1, 3]


def test_a_fixed_batch_is_kept() -> None:
    x = keras.Input(batch_shape=(3, 8))
    assert {len(batch) for batch in probes(keras.Model(x, layers.Dense(2)(x)))} == {3}


# Values.


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_relu6_is_not_relu(dtype: str) -> None:
    def net(limit: float | None) -> keras.Model:
        with policy(dtype):
            return chain(
                (8, 8, 3),
                *(layers.Conv2D(8, 3), layers.ReLU(), layers.Conv2D(8, 3), layers.ReLU(limit)),
                *(layers.GlobalAveragePooling2D(), layers.Dense(2)),
            )

    assert kerasfold.verify(net(None), net(None)).equivalent
    assert not kerasfold.verify(net(None), net(6.0)).equivalent


def test_relu6_deep_in_a_net_is_not_relu() -> None:
    """What goes into it is 0 +- 0.1 where inputs are 0 +- 1."""

    def net(limit: float | None) -> keras.Model:
        stack = [layers.Dense(16, "relu", use_bias=False) for _ in range(10)]
        return chain((16,), *stack, layers.ReLU(limit), layers.Dense(2))

    assert kerasfold.verify(net(None), net(None)).equivalent
    assert not kerasfold.verify(net(None), net(6.0)).equivalent


def test_inputs_that_are_loud_show_differences_and_hide_none() -> None:
    """An overflow there is no doubt of the usual ones."""

    def net(factor: float) -> keras.Model:
        x = keras.Input((4,))
        return randomise(keras.Model(x, ops.exp(layers.Dense(2)(x)) * factor))

    assert kerasfold.verify(net(1.0), net(1.0)).verdict == "equivalent"
    assert kerasfold.verify(net(1.0), net(1.001)).verdict == "different"


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "float16"])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_what_is_clipped_on_one_of_two_inputs(dtype: str, sign: float) -> None:
    """It is read where it is positive, or negative: one loud sample need not be."""

    def net(limit: float) -> keras.Model:
        with policy(dtype):
            inputs = [keras.Input((8, 8, 3)), keras.Input((1,))]
            first = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs[0]))
            other = layers.ReLU(limit)(layers.ReLU()(sign * inputs[1]))
            return randomise(
                keras.Model(inputs, layers.Dense(2)(layers.Concatenate()([first, other])))
            )

    assert kerasfold.verify(net(100.0), net(100.0)).verdict == "equivalent"
    assert kerasfold.verify(net(1e9), net(100.0)).verdict == "different"


def bytes_to_unit(x: Any) -> Any:
    return layers.Rescaling(1 / 255)(x)


def bytes_by_operations(x: Any) -> Any:
    return x / 127.5 - 1.0


def bytes_resized(x: Any) -> Any:
    return layers.Rescaling(1 / 255)(layers.Resizing(8, 8)(x))


def trained_statistics(x: Any) -> Any:
    return layers.Normalization(mean=[100.0, 200.0, 50.0], variance=[4.0, 900.0, 1.0])(x)


def batch_statistics(x: Any) -> Any:
    layer = layers.BatchNormalization()
    y = layer(x)
    layer.moving_mean.assign([1e3, 0.0, -1e3])
    layer.moving_variance.assign([1e4, 1e-4, 1.0])
    return y


def swapped_channels(x: Any) -> Any:
    return x[..., ::-1] - np.array([103.0, 1e3, 123.0], "float32")


ASKING = [
    *(bytes_to_unit, bytes_by_operations, bytes_resized, trained_statistics, batch_statistics),
    swapped_channels,
]


@pytest.mark.parametrize("preprocess", ASKING, ids=lambda f: f.__name__)
def test_units_live_behind_preprocessing(preprocess: Callable[[Any], Any]) -> None:
    """What is preprocessed is as it is usually: 0 +- 1, in every channel."""
    image = keras.Input((12, 12, 3))
    y = preprocess(image)
    got = np.concatenate([keras.Model(image, y)(batch) for batch in probes(keras.Model(image, y))])
    assert np.all(np.median(np.abs(got), axis=(0, 1, 2)) < 3)
    assert np.all(np.median(np.abs(got), axis=(0, 1, 2)) > 0.1)
    assert np.all(got.max(axis=(0, 1, 2)) > 6)
    assert np.all(got.min(axis=(0, 1, 2)) < -6)


def test_a_kernel_behind_units_that_live_on_bytes_alone() -> None:
    def net(factor: float) -> keras.Model:
        image = keras.Input((8, 8, 3))
        first = layers.Conv2D(4, 3)
        x = layers.ReLU()(first(layers.Rescaling(1 / 255)(image)))
        model = randomise(keras.Model(image, layers.Conv2D(2, 1, name="last")(x)))
        first.bias.assign(np.full(4, -0.5))  # nothing is reached by inputs of 0 +- 1
        model.get_layer("last").kernel.assign(factor * model.get_layer("last").kernel)
        return model

    assert kerasfold.verify(net(1.0), net(1.0)).equivalent
    assert not kerasfold.verify(net(1.0), net(1.01)).equivalent


def test_a_float16_model_keeps_within_its_range() -> None:
    with policy("float16"):
        model = chain((64,), *(layers.Dense(64, "relu") for _ in range(4)))
    for batch in probes(model):
        assert np.isfinite(model(batch)).all()


def test_loud_inputs_keep_within_the_range_of_their_dtype() -> None:
    x = keras.Input((4,), dtype="float16")
    (loud,) = probes(keras.Model(x, layers.Rescaling(1 / 255)(x))).loud
    assert np.all(np.isfinite(loud))
    assert np.abs(loud).max() == 65504


# Integers.


def rows_of(*reads: Callable[[Any], Any], dtype: str = "int32", width: int = 2) -> keras.Model:
    """An input of each reader."""
    inputs = [keras.Input((width,), dtype=dtype) for _ in reads]
    outputs = [read(x) for read, x in zip(reads, inputs, strict=True)]
    return keras.Model(inputs, outputs)


READERS: dict[str, tuple[Callable[[Any], Any], set[int]]] = {
    "embedding": (lambda x: layers.Embedding(300, 2)(x), set(range(300))),
    "one_hot": (lambda x: ops.one_hot(x, 7), set(range(7))),
    "encoding": (lambda x: layers.CategoryEncoding(9)(x), set(range(9))),
    "take": (lambda x: ops.take(np.ones((5, 2)), ops.cast(x, "int32"), axis=0), set(range(5))),
    "lookup": (lambda x: layers.IntegerLookup(vocabulary=[10, 400])(x), {10, 400, 401}),
    "shifted": (lambda x: layers.Embedding(40, 2)(x + 3), set(range(-3, 37))),
    "moved": (
        lambda x: layers.Embedding(40, 2)(ops.concatenate([x[:, 1:], x[:, :1]], axis=1)),
        set(range(40)),
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_every_row_is_read(reader: str) -> None:
    read, rows = READERS[reader]
    assert set(drawn(rows_of(read)).tolist()) == rows


# How whole numbers come to be those of rows, otherwise than as they are given.
WAYS: dict[str, Callable[[Any], Any]] = {
    "clip": lambda x: ops.clip(x, 0, 299),
    "minimum": lambda x: ops.minimum(x, 299),
    "maximum": lambda x: ops.minimum(ops.maximum(x, 0), 299),
    "where": lambda x: ops.where(ops.equal(x, 0), 1, x),
    "abs": abs,
    "halved": lambda x: x // 2,
    "by_ten": lambda x: x // 10,
    "remainder": lambda x: (x + 3) % 300,
    "hashed": lambda x: layers.Hashing(300)(x),
    "as_floats": lambda x: ops.cast(ops.clip(ops.cast(x, "float32"), 0, 299), "int32"),
    "moved": lambda x: ops.clip(ops.expand_dims(x + 1, -1), 0, 299)[:, :, 0],
    "unknown": lambda x: layers.Lambda(lambda t: t * 1, output_shape=(7,))(x),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("table", ["embedding", "one_hot", "take"])
def test_every_row_is_read_through_other_numbers(way: str, table: str) -> None:
    """As a run of the model itself tells."""
    x = keras.Input((7,), dtype="int32")
    reader: Callable[[Any], Any] = {
        "embedding": layers.Embedding(300, 1, embeddings_initializer="zeros", name="table"),
        "one_hot": lambda i: ops.one_hot(i, 300),
        "take": lambda i: ops.take(np.ones((300, 1), "float32"), i, axis=0),
    }[table]
    rows = WAYS[way](x)
    model, looked_up = keras.Model(x, reader(rows)), keras.Model(x, rows)
    read = np.concatenate([np.ravel(looked_up(batch)) for batch in probes(model)])
    assert set(read) == set(range(way == "where", 300))


@pytest.mark.parametrize("way", ["clip", "minimum", "abs", "halved", "hashed"])
def test_a_wrong_row_behind_other_numbers(way: str) -> None:
    def net(error: float) -> keras.Model:
        x = keras.Input((7,), dtype="int32")
        model = randomise(keras.Model(x, layers.Embedding(300, 4, name="table")(WAYS[way](x))))
        table = model.get_layer("table").embeddings
        table.assign(table + error * (np.arange(300) == 177)[:, None])
        return model

    assert kerasfold.verify(net(0.0), net(0.0)).verdict == "equivalent"
    assert kerasfold.verify(net(0.0), net(1.0)).verdict == "different"


# The same of floats: of those the integers above 0.
FLOATS: dict[str, Callable[[Any], Any]] = {
    "clipped": lambda x: ops.clip(x, 0, 99),
    "rounded": lambda x: ops.clip(ops.round(x), 0, 99),
    "scaled": lambda x: ops.floor(ops.minimum(ops.relu(0.5 * x), 99.0)),
}


@pytest.mark.parametrize("way", FLOATS)
def test_floats_that_are_looked_up_alone_are_whole(way: str) -> None:
    x, table = keras.Input((7,)), layers.Embedding(100, 3)
    rows = ops.cast(FLOATS[way](x), "int32")
    model, looked_up = keras.Model(x, table(rows)), keras.Model(x, rows)
    read = np.concatenate([np.ravel(looked_up(batch)) for batch in probes(model)])
    assert set(read) == set(range(100))
    numbers = drawn(keras.Model(x, [table(rows), layers.Dense(2)(x)]))
    assert np.any(numbers % 1)


def test_both_tables_of_a_quotient_and_a_remainder_are_read() -> None:
    x = keras.Input((4,), dtype="int32")
    pair = [layers.Embedding(20, 2)(x // 10), layers.Embedding(10, 2)(x % 10)]
    values = drawn(keras.Model(x, pair))
    assert set(values // 10) == set(range(20))
    assert set(values % 10) == set(range(10))


def test_an_index_that_is_computed_does_not_say_what_words_there_are() -> None:
    x = keras.Input((4,), dtype="int32")
    scores = layers.Dense(1)(layers.Embedding(40, 3)(x))
    best = ops.argmax(scores[..., 0], axis=-1)
    assert set(drawn(keras.Model(x, layers.Embedding(4, 2)(best)))) == set(range(40))


def test_an_error_of_a_rule_is_not_taken_for_its_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> Any:
        raise KeyError("of the rule itself")

    monkeypatch.setitem(ranges._PASSING, layers.Rescaling, wrong)
    x = keras.Input((2,))
    with pytest.raises(KeyError, match="of the rule itself"):
        probes(keras.Model(x, layers.Rescaling(2.0)(x)))


def test_words_in_an_input_of_floats() -> None:
    assert set(drawn(rows_of(lambda x: layers.Embedding(50, 2)(x), dtype="float32"))) == set(
        range(50)
    )


def test_the_last_and_the_first_word_are_read_first() -> None:
    assert drawn(rows_of(READERS["embedding"][0]))[:2].tolist() == [299, 0]


def test_a_small_vocabulary_does_not_limit_another() -> None:
    model = rows_of(lambda x: layers.Embedding(10, 2)(x), lambda x: layers.Embedding(1000, 2)(x))
    assert set(drawn(model, 0)) == set(range(10))
    assert set(drawn(model, 1)) == set(range(1000))


def test_columns_of_an_input_have_tables_of_their_own() -> None:
    x = keras.Input((3,))
    first, second = layers.Embedding(10, 2)(x[:, 0]), layers.Embedding(70, 2)(x[:, 1])
    model = keras.Model(x, layers.Concatenate()([first, second, x[:, 2:]]))
    rows = np.concatenate(list(probes(model)))
    assert set(rows[:, 0]) == set(range(10))
    assert set(rows[:, 1]) == set(range(70))
    assert np.any(rows[:, 2] % 1)


def test_what_two_tables_share_is_read_of_both() -> None:
    x = keras.Input((4,), dtype="int32")
    pair = [layers.Embedding(n, 2)(x) for n in (30, 20)]
    assert set(drawn(keras.Model(x, pair))) == set(range(20))


def test_every_combination_of_few_is_read() -> None:
    x, y = keras.Input((2,), dtype="int32"), keras.Input((1,))
    found = [layers.Embedding(7, 2)(x), layers.Embedding(40, 2)(y)]
    batches = list(probes(keras.Model([x, y], found)))
    rows = np.concatenate([np.concatenate(batch, axis=-1) for batch in batches])
    assert len(rows) == len(np.unique(rows, axis=0)) == 7 * 7 * 40


def test_tables_of_one_row_are_read_beside_others() -> None:
    x, y = keras.Input((70,), dtype="int32"), keras.Input((2,), dtype="int32")
    found = [layers.Embedding(1, 2)(x), layers.Embedding(7, 2)(y)]
    rows = np.concatenate([np.concatenate(b, axis=-1) for b in probes(keras.Model([x, y], found))])
    assert not rows[:, :70].any()
    assert len(np.unique(rows, axis=0)) == 7 * 7


def test_a_unit_that_one_combination_of_words_reaches() -> None:
    """Of 15 x 30 pairs one gives it more than 0."""

    def net(error: float) -> keras.Model:
        x, y = keras.Input((1,), dtype="int32"), keras.Input((1,), dtype="int32")
        pair = [ops.one_hot(v, n) for v, n in ((x, 15), (y, 30))]
        first = layers.Dense(4, activation="relu")
        hidden = first(layers.Flatten()(layers.Concatenate()(pair)))
        model = randomise(keras.Model([x, y], layers.Dense(2)(hidden)))
        kernel, bias = first.get_weights()
        kernel[:, 2] = [*np.eye(15)[11], *np.eye(30)[4]]
        bias[2] = -1.5 + error
        first.set_weights([kernel, bias])
        return model

    assert kerasfold.verify(net(0.0), net(0.0)).equivalent
    assert kerasfold.verify(net(0.0), net(0.01)).verdict == "different"


@pytest.mark.parametrize("row", [0, 999])
def test_a_wrong_row_of_the_larger_table(row: int) -> None:
    def net(error: float) -> keras.Model:
        x, y = (keras.Input((2,), dtype="int32") for _ in range(2))
        pair = [
            layers.Flatten()(layers.Embedding(n, 3, name=f"of{n}")(v))
            for n, v in ((5, x), (1000, y))
        ]
        model = randomise(keras.Model([x, y], layers.Dense(2)(layers.Concatenate()(pair))))
        table = model.get_layer("of1000").embeddings
        table.assign(table + error * (np.arange(1000) == row)[:, None])
        return model

    assert kerasfold.verify(net(0.0), net(0.0)).equivalent
    assert not kerasfold.verify(net(0.0), net(0.01)).equivalent


@pytest.mark.parametrize(
    ("dtype", "values"),
    [("uint8", set(range(256))), ("int8", set(range(-128, 128))), ("bool", {False, True})],
)
def test_all_that_a_small_dtype_holds(dtype: str, values: set[Any]) -> None:
    model = rows_of(lambda x: ops.cast(x, "float32"), dtype=dtype)
    assert set(drawn(model).tolist()) == values


def test_integers_that_are_computed_with_are_more_than_0_and_1() -> None:
    found = drawn(rows_of(lambda x: layers.Dense(2)(ops.cast(x, "float32")), width=8))
    assert found.min() < -4 < 4 < found.max()


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_a_mask_that_is_added_is_a_flag(dtype: str) -> None:
    model = rows_of(lambda x: (1.0 - ops.cast(x, "float32")) * -1e9, dtype=dtype)
    assert set(drawn(model).tolist()) == {0, 1}


def test_words_are_those_of_the_vocabulary() -> None:
    x = keras.Input((1,), dtype="string")
    look_up = layers.StringLookup(vocabulary=["red", "green"])
    model = keras.Model(x, layers.Embedding(3, 2)(look_up(x)))
    assert set(drawn(model)) == {"red", "green", "[UNK]"}
    assert kerasfold.verify(model, model).equivalent


def test_an_output_may_have_other_axes_than_keras_says() -> None:
    def net(error: float) -> keras.Model:
        x = keras.Input((1,), dtype="string")
        words = layers.TextVectorization(vocabulary=["red", "green"], output_mode="multi_hot")(x)
        model = randomise(keras.Model(x, layers.Dense(2, name="last")(words)))
        kernel = model.get_layer("last").kernel
        kernel.assign(kernel + error * (np.arange(3) == 2)[:, None])
        return model

    assert len(net(0.0)(np.array([["red"]])).shape) != len(net(0.0).output.shape)
    assert kerasfold.verify(net(0.0), net(0.0)).verdict == "equivalent"
    assert kerasfold.verify(net(0.0), net(0.01)).verdict == "different"


HASHES: dict[str, Callable[[Any, Any], Any]] = {
    "rows": lambda x, _: ops.one_hot(layers.Hashing(90)(x), 90),
    "clipped": lambda x, _: ops.one_hot(ops.minimum(layers.Hashing(200)(x), 89), 90),
    "one_hot": lambda x, _: layers.Hashing(90, output_mode="one_hot")(x),
    "pairs": lambda x, y: layers.HashedCrossing(90, output_mode="one_hot")((x, y)),
}


@pytest.mark.parametrize("dtype", ["string", "int32"])
@pytest.mark.parametrize("hashed", HASHES)
def test_every_bin_of_a_hash_is_reached(hashed: str, dtype: str) -> None:
    def net(error: float) -> keras.Model:
        pair = [keras.Input((1,), dtype=dtype) for _ in range(2)]
        bins = ops.reshape(HASHES[hashed](*pair), (-1, 90))
        model = randomise(keras.Model(pair, layers.Dense(2, name="last")(bins)))
        kernel = model.get_layer("last").kernel
        kernel.assign(kernel + error * (np.arange(90) == 61)[:, None])
        return model

    assert kerasfold.verify(net(0.0), net(0.0)).verdict == "equivalent"
    assert kerasfold.verify(net(0.0), net(0.01)).verdict == "different"


class Positions(layers.Layer):
    """A layer with two tables, of which the smaller is not for words."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.words, self.places = layers.Embedding(60, 3), layers.Embedding(8, 3)

    def build(self, shape: Any) -> None:
        self.words.build(shape)
        self.places.build(shape)
        self.built = True

    def call(self, x: Any) -> Any:
        return self.words(x) + self.places(ops.arange(x.shape[1]))


class Opaque(Positions):
    """The same, and its call is no graph."""

    def call(self, x: Any) -> Any:
        return super().call(x) if isinstance(x, keras.KerasTensor) else super().call(x) * 1


@pytest.mark.parametrize("kind", [Positions, Opaque])
def test_tables_inside_a_layer(kind: type[Positions]) -> None:
    x = keras.Input((8,), dtype="int32")
    found = set(drawn(keras.Model(x, kind()(x))))
    assert found >= set(range(8))
    assert found <= set(range(60))
    if kind is Positions:
        assert found == set(range(60))


def test_rows_are_read_as_far_as_that_is_worth_it() -> None:
    x = keras.Input((1,), dtype="int32")
    y = layers.Dense(2**17)(layers.Flatten()(layers.Embedding(100_000, 16)(x)))
    found = drawn(keras.Model(x, y))
    assert found[0] == 99_999
    assert 1000 < len(found) < 5000


# Of both models.


def test_what_the_second_model_asks_for_is_asked_too() -> None:
    """It adds something to images of 0 +- 255 or so, and to none of 0 +- 1 or 0 +- 4096."""

    def net(bump: float) -> keras.Model:
        image = keras.Input((8, 8, 3))
        power = ops.mean(layers.Rescaling(1 / 255)(image) ** 2, axis=(1, 2, 3), keepdims=True)
        added = image + bump * ops.relu(0.5 - ops.abs(power - 1.0))
        return randomise(keras.Model(image, layers.Conv2D(2, 3)(added)))

    plain = keras.Input((8, 8, 3))
    first = randomise(keras.Model(plain, layers.Conv2D(2, 3)(plain)))
    assert kerasfold.verify(first, net(0.0)).verdict == "equivalent"
    assert kerasfold.verify(first, net(1.0)).verdict == "different"


def test_each_kind_of_number_is_drawn_at_every_scale() -> None:
    image = keras.Input((64,))
    first = keras.Model(image, layers.Dense(2)(image))
    other = keras.Model(image, layers.Dense(2)(layers.Rescaling(1 / 255)(image)))
    found = np.concatenate(list(probes(first, other=other)))
    scales = np.std(found, axis=1)
    for scale in (1, 5, 0.25):
        assert np.any(abs(scales / scale - 1) < 0.3)
        assert np.any(abs(scales / scale / 255 - 1) < 0.3)


def test_sizes_go_by_the_strides_of_the_second_model_too() -> None:
    batches = list(probes(strided(1), other=strided(5)))
    assert {0, 1} <= {batch.shape[1] % 32 for batch in batches}
    assert max(batch.shape[1] for batch in batches) >= 64
    batches = list(probes(strided(1)))
    assert max(batch.shape[1] for batch in batches) < 64


def words(rows: int) -> keras.Model:
    x = keras.Input((4,), dtype="int32")
    table = layers.Embedding(rows, 3, name="table")
    model = keras.Model(x, layers.Dense(2, name="last")(table(x)), name=f"of{rows}")
    rng = np.random.default_rng(0)
    table.embeddings.assign(rng.normal(size=(60, 3))[:rows])
    model.get_layer("last").kernel.assign(rng.normal(size=(3, 2)))
    return model


def test_a_table_that_lacks_rows_of_the_first_model() -> None:
    report = kerasfold.verify(words(50), words(40))
    assert report.verdict == "different"
    assert "'of40' does not run" in report.reason
    assert kerasfold.verify(words(40), words(50)).verdict == "equivalent"


def test_rows_are_those_of_the_model_that_can_be_read() -> None:
    x = keras.Input((8,), dtype="int32")
    guessed = keras.Model(x, layers.Lambda(lambda t: t * 2, output_shape=(8,))(x))
    read = keras.Model(x, layers.Embedding(60, 2)(x))
    assert set(drawn(guessed)) == {0, 1}
    found = np.concatenate([batch.ravel() for batch in probes(guessed, other=read)])
    assert set(found) == set(range(60))
    found = np.concatenate([batch.ravel() for batch in probes(read, other=guessed)])
    assert set(found) == set(range(60))


def test_inputs_that_would_fill_the_memory_are_refused_before_they_are_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = keras.Input((20000, 20000, 3))
    model = keras.Model(x, layers.Conv2D(4, 3)(x), name="huge")
    wanted = r"'huge' .* on 3 inputs of shape \(20000, 20000, 3\), .*1,599,\d+,\d+ numbers.*GiB"
    monkeypatch.setattr(room, "free_bytes", lambda: 2.0**35)
    with pytest.raises(kerasfold.FoldError, match=wanted):
        model.fold()
    monkeypatch.setattr(room, "free_bytes", lambda: 2.0**10)
    with pytest.raises(kerasfold.FoldError, match="free: give one or two inputs as data="):
        kerasfold.verify(*2 * [keras.Sequential([keras.Input((64,)), layers.Dense(3)])])


def test_free_memory_is_known_here() -> None:
    assert 2**20 < room.free_bytes() < 2**50


def test_files_that_a_container_has_read_take_no_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(room, "_GROUP", tmp_path)
    monkeypatch.setattr(room, "_MEMORY", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal: 8 kB\n")
    assert room.free_bytes() == np.inf
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("4900\n")
    (tmp_path / "memory.stat").write_text("anon 900\ninactive_file 3000\nactive_file 700\n")
    assert room.free_bytes() == 5000 - 4900 + 3000 + 700
    (tmp_path / "memory.max").write_text("max\n")
    assert room.free_bytes() == np.inf


class Unused(keras.layers.Layer):
    """Holds a table that it never builds."""

    def __init__(self) -> None:
        super().__init__()
        self.table = keras.layers.Embedding(10, 4)

    def build(self, shape):
        """Nothing."""

    def call(self, x):
        return keras.ops.sin(x)


def test_a_table_that_was_never_built_is_no_obstacle() -> None:
    x = keras.Input((3,))
    model = keras.Model(x, Unused()(keras.layers.Dense(2)(x)))
    assert kerasfold.verify(model, model).equivalent

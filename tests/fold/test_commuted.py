"""Scales that are positive, and shifts, pass a maximum and merge into what it reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from kerasfold.lift.commuted import commuted
from kerasfold.lift.regions import Regions, lifted
from zoo.making import policy, randomise
from zoo.same import FLOAT64, assert_same, kinds

POOLS: dict[str, Callable[[], Any]] = {
    "pool": layers.MaxPooling2D,
    "same": lambda: layers.MaxPooling2D(3, 2, padding="same"),
    "op": lambda: lambda x: ops.max_pool(x, 2, padding="valid"),
    "global": layers.GlobalMaxPooling2D,
    "kept axes": lambda: layers.GlobalMaxPooling2D(keepdims=True),
    "by hand": lambda: lambda x: ops.max(x, axis=(1, 2)),
    "of rows": lambda: lambda x: ops.max(x, axis=-3, keepdims=True),
}
GROWING: dict[str, Callable[[], Any]] = {
    "normalisation": layers.BatchNormalization,
    "rescaling": lambda: layers.Rescaling(0.3, -0.5),
    "shift": lambda: lambda x: x - 0.7,
    "two": lambda: lambda x: layers.BatchNormalization()(2.0 * x),
}


def built(pool: Any, behind: Any, sign: float = 1.0, channels: int = 4) -> keras.Model:
    """A convolution, a maximum and what is behind it, in float64, with gains of one sign."""
    with policy("float64"):
        inputs = keras.Input((9, 9, 3))
        x = behind()(pool()(layers.Conv2D(channels, 3, padding="same")(inputs)))
        model = randomise(keras.Model(inputs, ops.tanh(x)))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(sign * np.abs(np.asarray(layer.gamma)))
    return model


@pytest.mark.parametrize("behind", GROWING)
@pytest.mark.parametrize("pool", POOLS)
def test_what_grows_passes_a_maximum(pool: str, behind: str) -> None:
    model = built(POOLS[pool], GROWING[behind])
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert len(folded.operations) == 4, kinds(folded)  # with the input
    again = kerasfold.fold(folded, verify=False)
    assert len(again.operations) == 4


OTHERS: dict[str, Callable[[Any], Any]] = {
    "of channels": lambda x: ops.max(x, axis=-1, keepdims=True),
    "of all": lambda x: ops.max(x, axis=(1, 2, 3), keepdims=True),
    "of a number too": lambda x: ops.max(x, axis=(1, 2), initial=0.0),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_maximum_of_more_than_pixels_is_passed_by_nothing(name: str) -> None:
    model = built(lambda: OTHERS[name], layers.BatchNormalization, channels=1)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert "BatchNormalization" in kinds(folded)


# Behind a vector that is repeated.
REPEATED: dict[str, Callable[[Any], Any]] = {
    "a normalisation": lambda x: ops.tanh(layers.BatchNormalization()(x)),
    "a matrix": lambda x: ops.tanh(layers.Dense(3, activation="elu")(layers.ReLU()(x))),
    "a convolution": lambda x: ops.tanh(layers.Conv1D(3, 1)(layers.BatchNormalization()(x))),
    "of the steps": lambda x: ops.tanh(layers.BatchNormalization(axis=1)(x)),
    "by its number": lambda x: ops.tanh(layers.BatchNormalization(axis=2)(x)),
    "a table": lambda x: ops.tanh(x * np.arange(24.0).reshape(6, 4)),
}


@pytest.mark.parametrize("name", REPEATED)
def test_what_works_on_vectors_runs_before_they_are_repeated(name: str) -> None:
    with policy("float64"):
        inputs = keras.Input((6,))  # as many as steps
        x = layers.RepeatVector(6)(layers.Dense(4)(inputs))
        model = randomise(keras.Model(inputs, REPEATED[name](x)))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    if name in ("a normalisation", "a matrix"):
        assert "BatchNormalization" not in kinds(folded)
        assert type(folded.operations[-1]) is layers.RepeatVector


def test_a_negative_gain_stays() -> None:
    model = built(layers.MaxPooling2D, layers.BatchNormalization, sign=-1.0)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert "BatchNormalization" in kinds(folded)


def test_one_negative_gain_keeps_all() -> None:
    model = built(layers.MaxPooling2D, layers.BatchNormalization)
    gamma = next(layer.gamma for layer in model.layers if hasattr(layer, "gamma"))
    gamma.assign(np.asarray(gamma) * [1, 1, -1e-3, 1])
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert "BatchNormalization" in kinds(folded)


def test_what_others_read_of_the_maximum_is_as_it_was() -> None:
    def behind(x: Any) -> Any:
        return layers.BatchNormalization()(x) * ops.sigmoid(x)

    model = built(layers.MaxPooling2D, lambda: behind)
    assert_same(model, kerasfold.fold(model, verify=False), FLOAT64)


def test_what_comes_behind_a_nonlinearity_is_not_computed_for_more_pixels() -> None:
    with policy("float64"):
        inputs = keras.Input((9, 9, 3))
        x = layers.MaxPooling2D()(ops.elu(layers.Conv2D(4, 3)(inputs)))
        model = randomise(keras.Model(inputs, ops.tanh(layers.Rescaling(2.0, 0.5)(x))))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    (scale,) = (x for x in folded.layers if isinstance(x, layers.Rescaling))
    assert scale.output.shape[1] == 3


@pytest.mark.parametrize("rows", [8, 9])
def test_an_axis_of_vectors_is_none_of_images(rows: int) -> None:
    with policy("float64"):
        inputs = [keras.Input((rows + 2, 10, 3)), keras.Input((64, 64, 3))]
        a, b = (layers.Conv2D(n, 3)(x) for n, x in zip((8, 32), inputs, strict=True))
        a = layers.BatchNormalization(axis=1)(layers.GlobalMaxPooling2D()(a))
        b = layers.BatchNormalization()(layers.MaxPooling2D(2, 1)(b))  # pays for both
        model = randomise(keras.Model(inputs, [ops.tanh(a), ops.tanh(b)]))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(np.abs(np.asarray(layer.gamma)))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert "BatchNormalization" not in kinds(folded)


def video(kind: Any = layers.Conv2D, size: int = 3, **rest: Any) -> Any:
    """A convolution of each step."""
    return layers.TimeDistributed(kind(4, size, **rest))


def norm(**rest: Any) -> Any:
    return layers.BatchNormalization(name="norm", **rest)


# Of sequences of images or of signals; whether gains are positive.
STEPS: dict[str, tuple[Callable[[Any], Any], Any, float]] = {
    "behind": (lambda x: norm()(video()(x)), (3, 8, 8, 2), -1.0),
    "behind one of signals": (lambda x: norm()(video(layers.Conv1D)(x)), (3, 8, 2), -1.0),
    "before": (lambda x: video()(norm()(ops.sin(x))), (3, 8, 8, 2), -1.0),
    "between": (lambda x: video()(norm()(video(activation="tanh")(x))), (3, 8, 8, 2), -1.0),
    "behind an activation": (
        lambda x: video(padding="same")(norm()(layers.ReLU()(video()(x)))),
        (3, 8, 8, 2),
        1.0,
    ),
    "of an axis by its number": (lambda x: norm(axis=4)(video()(x)), (3, 8, 8, 2), 1.0),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_normalisation_of_a_sequence_merges_into_what_each_step_is_given_to(name: str) -> None:
    steps, shape, sign = STEPS[name]
    with policy("float64"):
        inputs = keras.Input(shape, dtype="float64")
        model = randomise(keras.Model(inputs, ops.tanh(steps(inputs))))
    gamma = model.get_layer("norm").gamma
    gamma.assign(sign * np.abs(np.asarray(gamma)))
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT64)
    assert "BatchNormalization" not in kinds(folded), kinds(folded)


def test_a_normalisation_of_steps_is_none_of_channels() -> None:
    with policy("float64"):
        inputs = keras.Input((4, 8, 8, 2))  # as many steps as channels
        x = layers.BatchNormalization(axis=1, name="norm")(video()(inputs))
        model = randomise(keras.Model(inputs, ops.tanh(x)))
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT64)
    assert "BatchNormalization" in kinds(folded)
    reasons = {row.kind: row.reason for row in folded.fold_report.kept}
    assert "parts the images, or joins those of a batch" in reasons["Reshape"]


def test_names_and_outputs_stay() -> None:
    with policy("float64"):
        inputs = keras.Input((8, 8, 3))
        x = layers.MaxPooling2D(name="pool")(layers.Conv2D(4, 3)(inputs))
        model = randomise(keras.Model(inputs, {"y": layers.Rescaling(0.5, name="half")(x)}))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert folded.output_names == model.output_names
    assert list(folded.output) == ["y"]


def pixels(folded: keras.Model) -> dict[str, int]:
    """Pixels that each operation gives, by its class."""
    return {
        type(op).__name__: int(np.prod(op.output.shape[1:-1]))
        for op in folded.operations
        if len(op.output.shape) > 3
    }


@pytest.mark.parametrize("activation", ["relu", "gelu", "sigmoid"])
def test_what_works_on_pixels_runs_before_they_are_repeated(activation: str) -> None:
    with policy("float64"):
        inputs = keras.Input((6, 5, 3))
        x = layers.UpSampling2D((2, 3))(ops.tanh(inputs))
        x = layers.Activation(activation)(layers.Conv2D(8, 1)(x))
        x = layers.BatchNormalization()(layers.Conv2D(4, 1, activation="relu")(x))
        model = randomise(keras.Model(inputs, ops.sin(x)))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert pixels(folded)["Conv2D"] == pixels(folded)["Activation"] == 30
    assert pixels(folded)["UpSampling2D"] == 180
    assert folded.fold_report.macs_after <= 30 * (3 * 8 + 8 * 4 + 4)


REPEATING: dict[str, tuple[Any, Any]] = {
    "pixels": ((6, 5, 3), lambda: layers.UpSampling2D(2, dtype="float64")),
    "vectors": ((3,), lambda: layers.RepeatVector(4, dtype="float64")),
}


@pytest.mark.parametrize("name", REPEATING)
def test_what_is_cast_before_it_is_repeated_is_worked_on_as_cast(name: str) -> None:
    shape, repeat = REPEATING[name]
    inputs = keras.Input(shape, dtype="float32")
    model = keras.Model(inputs, ops.tanh(repeat()(inputs)))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)


def test_bilinear_pixels_are_no_repeated_ones() -> None:
    with policy("float64"):
        inputs = keras.Input((6, 5, 3))
        x = layers.UpSampling2D(2, interpolation="bilinear")(ops.tanh(inputs))
        model = randomise(keras.Model(inputs, layers.Conv2D(2, 3)(layers.ReLU()(x))))
    folded = kerasfold.fold(model)
    assert pixels(folded)["ReLU"] == 120


SHUFFLES: dict[str, Callable[[Any], Any]] = {
    "shuffle": lambda x: layers.Reshape((6, 5, 4))(
        layers.Permute((1, 2, 4, 3))(layers.Reshape((6, 5, 2, 2))(x))
    ),
    "reversed": lambda x: x[..., ::-1],
    "taken": lambda x: ops.take(x, [2, 0, 3, 1], axis=-1),
}


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_a_shuffle_of_channels_passes_an_activation(shuffle: str) -> None:
    with policy("float64"):
        inputs = keras.Input((6, 5, 3))
        x = SHUFFLES[shuffle](ops.sin(layers.Conv2D(4, 3)(layers.ZeroPadding2D()(inputs))))
        model = randomise(keras.Model(inputs, layers.Conv2D(2, 3)(ops.tanh(x))))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    names = [type(op).__name__ for op in folded.operations]
    assert not {"Reshape", "Permute", "GetItem", "Take"} & set(names), names


def test_reshapes_around_an_activation_meet() -> None:
    with policy("float64"):
        inputs = keras.Input((6, 4))
        x = layers.Reshape((24,))(ops.sin(layers.Dense(4)(inputs)))
        x = layers.Reshape((6, 4))(ops.tanh(x))
        model = randomise(keras.Model(inputs, layers.Dense(3)(x)))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert "Reshape" not in kinds(folded)


def test_a_slope_by_channel_is_not_by_sample() -> None:
    with policy("float64"):
        inputs = keras.Input((6, 5, 3))
        x = layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(4, 3)(inputs)[..., ::-1])
        model = randomise(keras.Model(inputs, layers.Conv2D(2, 3)(x)))
    assert_same(model, kerasfold.fold(model, verify=False), FLOAT64)


def sum_before(activation: Any) -> keras.Model:
    """A sum, an activation and a maximum of its windows."""
    with policy("float64"):
        inputs = keras.Input((8, 8, 3), dtype="float64")
        x = ops.sin(inputs) + ops.cos(inputs)
        x = layers.MaxPooling2D()(activation(x))
        return randomise(keras.Model(inputs, layers.Conv2D(4, 3)(x)))


@pytest.mark.parametrize("activation", [ops.relu, ops.tanh, ops.elu, ops.relu6])
def test_what_is_monotone_works_on_the_maxima(activation: Any) -> None:
    model = sum_before(activation)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    shapes = [op.output.shape[1] for op in folded.operations]
    assert shapes == [8, 8, 8, 8, 4, 4, 2]


@pytest.mark.parametrize("activation", [ops.gelu, ops.abs, ops.square, ops.cos])
def test_what_is_not_monotone_works_on_all(activation: Any) -> None:
    model = sum_before(activation)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert [op.output.shape[1] for op in folded.operations][4] == 8


def test_what_runtimes_fuse_with_a_convolution_stays_behind_it() -> None:
    with policy("float64"):
        inputs = keras.Input((8, 8, 3))
        x = layers.MaxPooling2D()(layers.ReLU()(layers.Conv2D(4, 1)(inputs)))
        model = randomise(keras.Model(inputs, x))
    assert kinds(kerasfold.fold(model)) == kinds(model)


MULTIPLES: dict[str, Callable[[], Any]] = {
    "number": lambda: lambda x: 0.5 * x,
    "layer": lambda: layers.Rescaling(3.0),
    "two": lambda: lambda x: layers.Rescaling(-2.0)(x / 3.0),
}


@pytest.mark.parametrize("multiple", MULTIPLES)
def test_a_multiple_passes_axes_in_another_order(multiple: str) -> None:
    with policy("float64"):
        inputs = keras.Input((6, 5, 3), dtype="float64")
        x = MULTIPLES[multiple]()(layers.Permute((3, 1, 2))(ops.sin(inputs)))
        x = layers.Conv2D(4, 3)(layers.Permute((2, 3, 1))(x))
        model = randomise(keras.Model(inputs, ops.tanh(x)))
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT64)
    assert [type(x).__name__ for x in folded.operations[1:]] == ["Sin", "Conv2D", "Tanh"]


PLACES: dict[str, Callable[[Any, Any], Any]] = {
    "flip": lambda a, b: ops.flip(a, axis=1),
    "flip of all": lambda a, b: ops.flip(a, axis=(1, 2)),
    "take": lambda a, b: ops.take(a, [-1, 0, 0, 2], axis=2),
    "roll": lambda a, b: ops.roll(a, 2, axis=1),
    "repeat": lambda a, b: ops.repeat(a, 2, axis=2),
    "mirrored": lambda a, b: ops.pad(a, ((0, 0), (2, 1), (0, 0), (0, 0)), mode="reflect"),
    "rows": lambda a, b: layers.Concatenate(axis=1)([a, b]),
    "columns": lambda a, b: ops.concatenate([b, a, b], axis=2),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_is_affine_passes_what_puts_pixels_elsewhere(place: str) -> None:
    with policy("float64"):
        inputs = keras.Input((6, 5, 3))
        x = PLACES[place](*(layers.Conv2D(4, 3)(ops.sin(k * inputs)) for k in (1.0, 2.0)))
        x = layers.Dense(3)(layers.BatchNormalization(name="norm")(x))
        model = randomise(keras.Model(inputs, ops.tanh(x)))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert not {"BatchNormalization", "Dense"} & set(kinds(folded))
    assert all("norm" in merged.layers for merged in folded.fold_report.merged)
    assert not folded.fold_report.repeated


def test_what_differs_between_pixels_stays_behind_what_puts_them_elsewhere() -> None:
    with policy("float64"):
        inputs = keras.Input((6, 5, 3))
        x = ops.flip(layers.Conv2D(4, 3)(inputs), axis=1) * np.arange(4.0).reshape(4, 1, 1)
        model = randomise(keras.Model(inputs, ops.tanh(x)))
    assert_same(model, kerasfold.fold(model, verify=False), FLOAT64)


def transition(behind: Any, channels: int = 8) -> keras.Model:
    """A 1x1 convolution and its normalisation, means of windows, and what reads them."""
    with policy("float64"):
        inputs = keras.Input((8, 8, 4))
        x = layers.BatchNormalization()(layers.Conv2D(channels, 1)(ops.tanh(inputs)))
        return randomise(keras.Model(inputs, ops.tanh(behind(layers.AveragePooling2D(2)(x)))))


def branches(x: Any) -> Any:
    wide = layers.Conv2D(4, 3, padding="same")(x)
    return layers.Add()([wide, layers.Conv2D(4, 1)(x)])


@pytest.mark.parametrize("objective", ["macs", "params"])
def test_what_mixes_channels_merges_past_the_means_into_branches(objective: Any) -> None:
    model = transition(branches)
    folded = kerasfold.fold(model, objective=objective, verify=False)
    assert_same(model, folded, FLOAT64)
    assert kinds(folded).count("Conv2D") == 1
    assert folded.fold_report.macs_after < 4 * 4 * 4 * (9 * 5 + 4) + 256


def test_means_of_which_nothing_is_multiplied_stay_where_they_are() -> None:
    regions = lifted(transition(lambda x: x))
    assert not list(commuted(regions))


def moved(regions: Regions) -> list[str]:
    """The poolings that come before the convolution that they came behind."""
    names = [call.name for call in regions.graph.calls]
    return [f"mean{k}" for k in (1, 2) if names.index(f"mean{k}") < names.index(f"mix{k}")]


@pytest.mark.parametrize(("is_taken", "then"), [(False, ["mean2"]), (True, ["mean1", "mean2"])])
def test_each_move_past_means_is_tried_by_itself(is_taken: bool, then: list[str]) -> None:
    x = inputs = keras.Input((8, 8, 4))
    for k in (1, 2):
        x = layers.Conv2D(8, 1, name=f"mix{k}")(ops.tanh(x))
        x = branches(layers.AveragePooling2D(2, name=f"mean{k}")(x))
    tried = commuted(lifted(keras.Model(inputs, x)))
    assert moved(next(tried)) == ["mean1"]
    assert moved(tried.send(is_taken)) == then


@pytest.mark.parametrize("first", [0, 3])
def test_a_slice_of_channels_is_no_shuffle_of_them(first: int) -> None:
    """Behind what works on each sample, the first ones would be computed of all."""
    with policy("float64"):
        inputs = keras.Input((9, 9, 3))
        x = layers.Conv2D(8, 3)(inputs)
        y = layers.Conv2D(4, 3)(layers.ReLU()(x[..., first : first + 5]))
        model = randomise(keras.Model(inputs, [y, ops.tanh(x)]))
    assert not list(commuted(lifted(model, True)))


# Before a maximum, and behind what no gain and shift passes whole.
READING: dict[str, Callable[[Any], Any]] = {
    "a convolution": lambda x: layers.Conv2D(2, 2)(layers.MaxPooling2D()(x)),
    "past dropouts": lambda x: layers.Conv2D(2, 2)(
        layers.Dropout(0.5)(layers.MaxPooling2D()(layers.Dropout(0.5)(x)))
    ),
    "windows at the border": lambda x: layers.Conv2D(2, 2)(
        layers.MaxPooling2D(3, 2, padding="same")(x)
    ),
    "a matrix": lambda x: layers.Dense(2)(layers.GlobalMaxPooling2D()(x)),
    "by hand": lambda x: layers.Dense(2)(ops.max(x, axis=(1, 2))),
}


def activated(reading: Callable[[Any], Any], sign: float = 1.0) -> keras.Model:
    """A BatchNormalization behind an activation that no shift passes, before a maximum."""
    with policy("float64"):
        inputs = keras.Input((9, 9, 3))
        x = layers.Conv2D(4, 3, padding="same", activation="elu")(inputs)
        norm = layers.BatchNormalization()
        model = randomise(keras.Model(inputs, ops.tanh(reading(norm(x)))))
    norm.gamma.assign(sign * np.abs(np.asarray(norm.gamma)))
    return model


@pytest.mark.parametrize("objective", ["latency", "layers"])
@pytest.mark.parametrize("name", READING)
def test_what_grows_goes_behind_a_maximum_into_what_reads_it(name: str, objective: str) -> None:
    model = activated(READING[name])
    folded = kerasfold.fold(model, objective, verify=False)
    assert_same(model, folded, FLOAT64)
    assert not {"BatchNormalization", "Add", "Multiply"} & set(kinds(folded)), kinds(folded)
    shrinking = activated(READING[name], sign=-1.0)
    kept = kerasfold.fold(shrinking, objective, verify=False)
    assert_same(shrinking, kept, FLOAT64)
    assert "BatchNormalization" in kinds(kept)


def test_a_shift_before_padding_is_added_to_fewer_pixels() -> None:
    model = activated(lambda x: layers.Conv2D(2, 3, padding="same")(layers.MaxPooling2D()(x)))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert kinds(folded)[:3] == ["Conv2D", "MaxPooling2D", "BatchNormalization"]


def test_what_grows_goes_behind_a_maximum_into_a_recurrent_layer() -> None:
    with policy("float64"):
        norm = layers.BatchNormalization()
        x = norm(layers.Conv1D(4, 3, activation="elu")(inputs := keras.Input((16, 3))))
        model = randomise(keras.Model(inputs, layers.LSTM(2)(layers.MaxPooling1D()(x))))
    norm.gamma.assign(np.abs(np.asarray(norm.gamma)))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert kinds(folded) == ["Conv1D", "MaxPooling1D", "LSTM"]


def test_what_counts_axes_from_the_first_stays_before_a_vector() -> None:
    for behind in (layers.BatchNormalization(axis=3), lambda x: x + np.ones((1, 1, 4))):
        with policy("float64"):
            inputs = keras.Input((9, 9, 3))
            x = behind(layers.Conv2D(4, 3, activation="elu")(inputs))
            y = layers.Dense(2)(layers.GlobalMaxPooling2D()(x))
            model = randomise(keras.Model(inputs, ops.tanh(y)))
        assert_same(model, kerasfold.fold(model, verify=False), FLOAT64)


IDLE: dict[str, Callable[[], Any]] = {
    "Reshape": lambda: layers.Reshape((9, 9, 4)),
    "CenterCrop": lambda: layers.CenterCrop(9, 9),
    "Resizing": lambda: layers.Resizing(9, 9),
    "reshape": lambda: lambda x: ops.reshape(x, (-1, 9, 9, 4)),
}


@pytest.mark.parametrize("name", IDLE)
def test_what_changes_nothing_at_one_size_goes_along_to_no_other(name: str) -> None:
    model = activated(lambda x: layers.Conv2D(2, 2)(layers.MaxPooling2D()(IDLE[name]()(x))))
    tolerance = 1e-6 if name == "Resizing" else FLOAT64  # TensorFlow resizes in float32
    assert_same(model, kerasfold.fold(model, verify=False), tolerance)


def test_what_repeats_pixels_goes_behind_no_shape_that_is_told() -> None:
    with policy("float64"):
        inputs = keras.Input((4, 4, 3))
        x = layers.UpSampling2D()(layers.Conv2D(2, 1, activation="elu")(inputs))
        x = layers.Conv2D(5, 1, activation="tanh")(layers.Reshape((8, 8, 2))(x))
        model = randomise(keras.Model(inputs, x))
    assert_same(model, kerasfold.fold(model, verify=False), FLOAT64)

"""Padding behind padding: equal in float64 at every border pixel, whatever is minimised.

All models are float64, so that a fold's weights are not rounded and Keras's own output is the
oracle. Borders are compared on their own: an error there must not hide behind the interior.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.cost import OBJECTIVES, UNTIMED
from kerasfold.lift.regions import lift
from kerasfold.plan.choose import plan
from kerasfold.read.graph import read
from zoo.blocks import chained, conv, same
from zoo.making import chain, policy, randomise
from zoo.same import inputs_of, run

TOLERANCE = 1e-10
FAULT = 1e-8  # a hundredth of float32's rounding

Stack = Callable[[], list[keras.Layer]]


pytestmark = pytest.mark.usefixtures("float64")


def pool(k: int, strides: int, padding: str = "same") -> keras.Layer:
    return layers.AveragePooling2D(k, strides, padding=padding)


def zones(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The pixels of outputs (batch, height, width, channels): inside, and each border alone.

    The sides are one and two pixels deep, the corners apart from them.
    """
    height, width = shape[1:3]
    down = np.minimum(np.arange(height), np.arange(height)[::-1])[:, None]
    across = np.minimum(np.arange(width), np.arange(width)[::-1])[None, :]
    first_row = np.arange(height)[:, None] < height / 2
    first_column = np.arange(width)[None, :] < width / 2
    masks: dict[str, np.ndarray] = {}
    for depth in (0, 1):
        corner = (down == depth) & (across == depth)
        for name, side, elsewhere in (
            ("top", (down == depth) & first_row, across > depth),
            ("bottom", (down == depth) & ~first_row, across > depth),
            ("left", (across == depth) & first_column, down > depth),
            ("right", (across == depth) & ~first_column, down > depth),
        ):
            masks[f"{name} {depth}"] = side & elsewhere
        masks[f"corners {depth}"] = corner
    masks["inside"] = (down > 1) & (across > 1)
    assert (sum(mask.astype(int) for mask in masks.values()) == 1).all()
    return {name: mask for name, mask in masks.items() if mask.any()}


def differences(expected: np.ndarray, got: np.ndarray) -> dict[str, float]:
    """The largest difference in each zone, relative to the outputs' size in that zone."""
    assert expected.shape == got.shape
    assert np.isfinite(expected).all()
    return {
        name: float(np.abs(expected - got)[:, mask].max() / np.abs(expected[:, mask]).max())
        for name, mask in zones(expected.shape).items()
    }


def assert_equal_everywhere(expected: np.ndarray, got: np.ndarray) -> None:
    """Equal, zone by zone; and a fault planted in any zone would have been seen there."""
    errors = differences(expected, got)
    assert all(error < TOLERANCE for error in errors.values()), errors
    for name, mask in zones(expected.shape).items():
        wrong = got.copy()
        row, column = np.argwhere(mask)[-1]
        wrong[-1, row, column, -1] += FAULT * np.abs(expected[:, mask]).max()
        seen = {zone for zone, e in differences(expected, wrong).items() if e >= TOLERANCE}
        assert seen == {name}


Shape = tuple[int, int, int]
EVEN, ODD, MIXED, TINY = (12, 10, 3), (13, 11, 3), (9, 12, 3), (2, 2, 3)
SHAPES = {"even": EVEN, "odd": ODD, "mixed": MIXED}
STACKS: dict[str, Stack] = {
    "3_3": lambda: [same(24), same(2)],
    "3_5_3": lambda: [same(16), same(16, 5), same(2)],
    "3_3_no_bias": lambda: [same(24, use_bias=False), same(2, use_bias=False)],
    "3_3_3_3": lambda: [same(12), same(12), same(12), same(2)],
    "even_kernels": lambda: [same(24, 4), same(2, (2, 4))],
    "strided_first": lambda: [same(24, strides=2), same(2)],
    "strided_second": lambda: [same(24), same(2, strides=2)],
    "strided_both": lambda: [same(24, strides=2), same(2, strides=2)],
    "strided_by_3_2": lambda: [same(24), same(2, strides=(3, 2))],
    "dilated": lambda: [same(24, dilation_rate=2), same(2, dilation_rate=(1, 2))],
    "depthwise": lambda: [
        layers.DepthwiseConv2D(3, padding="same", depth_multiplier=4),
        layers.SeparableConv2D(2, 3, padding="same"),
    ],
    "batchnorm_before": lambda: [layers.BatchNormalization(), same(24), same(2)],
    "batchnorm_before_one": lambda: [layers.BatchNormalization(), same()],
    "batchnorm_before_strided": lambda: [layers.BatchNormalization(), same(strides=2)],
    "batchnorm_before_depthwise": lambda: [
        layers.BatchNormalization(),
        layers.DepthwiseConv2D(3, padding="same"),
    ],
    "batchnorm_between": lambda: [same(24), layers.BatchNormalization(), same(2)],
    "rescaling_before": lambda: [layers.Rescaling(1 / 127.5, -1.0), same(24), same(2)],
    "rescaling_before_one": lambda: [layers.Rescaling(0.3, -1.0), same()],
    "rescaling_per_channel": lambda: [layers.Rescaling([0.3, 2.0, -1.0], [1.0, 0.0, 3.0]), same()],
    "pointwise_before": lambda: [conv(24, 1), same(2)],
    "pointwise_before_two": lambda: [conv(5, 1), same(24), same(2)],
    "pointwise_strided_before": lambda: [conv(5, 1, strides=2), same(2)],
    "average_before": lambda: [pool(3, 1), same(2)],
    "average_before_strided": lambda: [pool(3, 2), same(24), same(2)],
    "average_after": lambda: [same(24), pool(3, 1)],
    "average_after_strided": lambda: [same(24), pool(2, 2)],
    "average_between": lambda: [same(24), pool(3, 1), same(2)],
    "average_between_pointwise": lambda: [conv(24, 1), pool(3, 2), conv(2, 1), same(2)],
    "average_between_uneven": lambda: [same(24), pool((5, 4), (2, 3)), same(2)],
    "average_between_cropped": lambda: [same(24), pool(2, 2), layers.Cropping2D(1), same(2)],
    "average_between_crop_pad": lambda: [
        same(24),
        pool(3, 1),
        layers.Cropping2D(((1, 0), (0, 2))),
        layers.ZeroPadding2D(2),
        conv(2),
    ],
    "average_twice": lambda: [same(24), pool(3, 1), pool(2, 1), same(2)],
    "nearest_between": lambda: [same(24), layers.UpSampling2D((2, 3)), same(2)],
    "transposed_behind": lambda: [
        same(24, use_bias=False),
        layers.Conv2DTranspose(2, 5, strides=2, padding="same"),
    ],
    "transposed_between": lambda: [
        layers.Conv2DTranspose(16, 3, strides=(2, 1), padding="same"),
        same(16),
        same(2),
    ],
    "average_drops_a_tail": lambda: [pool(2, 2, "valid"), same(24), same(2)],
    "average_drops_two": lambda: [pool(3, 3, "valid"), layers.ZeroPadding2D(2), conv(2)],
    "cropping_then_padding": lambda: [layers.Cropping2D(1), layers.ZeroPadding2D(2), conv(2)],
    "uneven_cropping_then_same": lambda: [layers.Cropping2D(((2, 0), (0, 1))), same(24), same(2)],
    "same_cropping_padding": lambda: [
        same(24),
        layers.Cropping2D(((1, 0), (0, 2))),
        layers.ZeroPadding2D(1),
        conv(2),
    ],
    "relu_behind": lambda: [same(24), same(2, activation="relu"), same(24), same(2)],
}
TINIES = [
    "3_3", "3_5_3", "even_kernels", "strided_first", "strided_second", "batchnorm_before",
    "rescaling_before_one", "pointwise_before", "average_before", "average_after",
    "average_drops_a_tail",
]  # fmt: skip
EACH = [
    pytest.param(shape, STACKS[name], id=f"{name}-{size}")
    for size, shape in SHAPES.items()
    for name in STACKS
] + [pytest.param(TINY, STACKS[name], id=f"{name}-2x2") for name in TINIES]


@pytest.mark.parametrize(("shape", "stack"), EACH)
def test_equal_at_every_pixel(shape: Shape, stack: Stack) -> None:
    model = chain(shape, *stack())
    inputs = inputs_of(model, seed=4)
    (expected,) = run(model, inputs)
    seen: dict[str, np.ndarray] = {}
    for objective in UNTIMED:
        key = OBJECTIVES[objective].key
        chosen = plan(lift(read(model)), objective)
        # Seconds are added up in another order, which may differ in the last digit.
        assert key(chosen.cost)[0] <= key(chosen.original)[0] * (1 + 1e-12), objective
        folded = kerasfold.fold(model, objective=objective, verify=False)
        emitted = str([(form.name, form.visited) for form in chosen.forms.values()])
        if emitted not in seen:  # objectives often agree on a plan, which is then one model
            (seen[emitted],) = run(folded, inputs)
            assert_equal_everywhere(expected, seen[emitted])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_input_of_another_dtype_than_the_layers(dtype: str) -> None:
    """Keras's own `Input` is float32, and so is the tensor that a pad value goes around."""
    inputs = keras.Input(ODD, dtype=dtype)
    model = randomise(keras.Model(inputs, same()(layers.Rescaling(0.3, -1.0)(inputs))))
    folded = kerasfold.fold(model, objective="layers", verify=False)
    images = keras.ops.cast(inputs_of(chain(ODD, same())), dtype)
    assert_equal_everywhere(*run(model, images), *run(folded, images))


def test_frames_are_among_what_is_tested() -> None:
    """Otherwise everything above might be equal because nothing is merged."""
    framed = set()
    for name, stack in STACKS.items():
        report = kerasfold.explain(chain((24, 21, 3), *stack()), objective="macs")
        if any("border" in row.kind for row in report.merged):
            framed.add(name)
    assert framed >= {
        "3_3", "3_5_3", "strided_first", "strided_second", "batchnorm_between",
        "average_between", "average_between_uneven", "average_between_cropped",
        "average_between_crop_pad", "average_twice", "transposed_behind",
        "transposed_between",
    }  # fmt: skip


def forms_of(model: keras.Model, objective: str = "macs") -> set[str]:
    chosen = plan(lift(read(model)), objective)
    return {form.name for form in chosen.forms.values()}


TILED = [
    "3_3", "3_5_3", "3_3_no_bias", "3_3_3_3", "even_kernels", "strided_second", "strided_by_3_2",
    "dilated", "depthwise", "batchnorm_before", "batchnorm_between", "rescaling_before",
    "pointwise_before_two", "average_before_strided", "average_between_uneven",
    "average_between_cropped", "average_between_crop_pad", "nearest_between", "transposed_behind",
    "transposed_between", "average_drops_a_tail", "uneven_cropping_then_same",
    "same_cropping_padding", "relu_behind",
]  # fmt: skip


@pytest.mark.usefixtures("no_strips")
@pytest.mark.parametrize("shape", [EVEN, ODD, MIXED], ids=SHAPES)
@pytest.mark.parametrize("name", TILED)
def test_tiles_are_equal_at_every_pixel(name: str, shape: Shape) -> None:
    model = chain(shape, *STACKS[name]())
    assert "tiled" in forms_of(model)
    folded = kerasfold.fold(model, objective="macs", verify=False)
    inputs = inputs_of(model, seed=4)
    assert_equal_everywhere(*run(model, inputs), *run(folded, inputs))


@pytest.mark.usefixtures("no_strips")
@pytest.mark.parametrize("rank", [1, 3])
def test_tiles_of_other_ranks(rank: int) -> None:
    kind = getattr(layers, f"Conv{rank}D")
    x = inputs = keras.Input((*(9, 8, 7)[:rank], 2), dtype="float64")
    for n, strides in ((24, 1), (2, 2), (16, 1), (2, 1)):
        x = kind(n, 3, strides, padding="same", activation="relu" if strides == 2 else None)(x)
    model = randomise(keras.Model(inputs, x))
    assert "tiled" in forms_of(model)
    folded = kerasfold.fold(model, objective="macs", verify=False)
    images = inputs_of(model)
    (expected,), (got,) = run(model, images), run(folded, images)
    assert np.abs(got - expected).max() < TOLERANCE * np.abs(expected).max()


@pytest.mark.usefixtures("no_strips")
@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_tiles_in_other_dtypes_are_saved_and_loaded(dtype: str, tmp_path: Path) -> None:
    with policy(dtype):
        inputs = keras.Input(ODD)
        x = layers.Conv2D(24, 3, padding="same")(inputs)
        x = layers.Conv2D(2, 3, padding="same", activation="relu")(x)
        model = randomise(keras.Model(inputs, layers.Conv2D(2, 3)(x)))
    assert "tiled" in forms_of(model)
    folded = model.fold("macs")
    path = tmp_path / "folded.keras"
    folded.save(path)
    loaded = keras.models.load_model(path)
    images = inputs_of(model)
    (expected,), (got,), (again,) = (run(m, images) for m in (model, folded, loaded))
    assert got.dtype == expected.dtype
    assert np.array_equal(got, again)
    scale = {"float32": 1e-6, "mixed_float16": 4e-3, "mixed_bfloat16": 3e-2}[dtype]
    expected, got = np.float64(expected), np.float64(got)
    assert np.abs(got - expected).max() < scale * np.abs(expected).max()


@pytest.mark.usefixtures("no_strips")
def test_tiles_crop_no_image_where_both_ends_are_alike() -> None:
    """A strided slice of an image costs OpenVINO two transpositions of it."""
    for name in ("3_3", "3_5_3", "strided_second"):
        folded = kerasfold.fold(chain(EVEN, *STACKS[name]()), objective="macs", verify=False)
        assert "tiled" in forms_of(chain(EVEN, *STACKS[name]()))
        assert not [x.name for x in folded.layers if isinstance(x, layers.Cropping2D)]


def bilinear(factors: Any) -> keras.Layer:
    return layers.UpSampling2D(factors, interpolation="bilinear")


BILINEAR: dict[str, Stack] = {
    "between": lambda: [same(96), bilinear(2), same(2)],
    "uneven": lambda: [same(96), bilinear((4, 1)), same(2)],
    "pointwise_before": lambda: [conv(96, 1), bilinear(2), same(2)],
    "strided_behind": lambda: [same(96), bilinear((2, 4)), same(2, strides=2)],
    "cropped_behind": lambda: [same(96), bilinear(2), layers.Cropping2D(((1, 0), (2, 3))), same(2)],
    "average_before": lambda: [same(96), pool(2, 1), bilinear(2), same(2)],
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("stack", BILINEAR.values(), ids=BILINEAR)
def test_bilinear_upsampling_is_framed(shape: Shape, stack: Stack) -> None:
    """TensorFlow interpolates in float32: these are weights of which it rounds none."""
    model = chain(shape, *stack())
    rng = np.random.default_rng(3)
    for variable in model.weights:
        variable.assign(rng.integers(-3, 4, variable.shape))
    folded = kerasfold.fold(model, objective="macs")
    assert any("border" in row.kind for row in folded.fold_report.merged)
    images = rng.integers(-9, 10, (2, *shape)).astype("float64")
    assert_equal_everywhere(*run(model, images), *run(folded, images))


def test_bilinear_upsampling_of_what_float32_rounds() -> None:
    model = chain(ODD, same(24), bilinear((3, 5)), same(2))
    folded = kerasfold.fold(model, objective="macs")
    assert any("border" in row.kind for row in folded.fold_report.merged)
    assert folded.fold_report.equivalence.dtype == "float64"
    inputs = inputs_of(model, seed=4)
    (expected,), (got,) = run(model, inputs), run(folded, inputs)
    assert all(error < 1e-5 for error in differences(expected, got).values())
    assert kerasfold.verify(model, folded).equivalent


def test_verified() -> None:
    for name in ("3_3", "batchnorm_before", "average_between", "cropping_then_padding"):
        folded = kerasfold.fold(chain(ODD, *STACKS[name]()), objective="macs")
        assert folded.fold_report.equivalence.equivalent


# Folds that others make: right inside, wrong at the border. The comparison must tell.


def naive_same_on_same() -> tuple[keras.Model, keras.Model]:
    model = chain(ODD, same(24, use_bias=False), same(2, use_bias=False))
    a, b = (layer.kernel.numpy() for layer in model.layers[1:])
    kernel = np.zeros((5, 5, 3, 2))
    for i in range(3):
        for j in range(3):
            kernel[i : i + 3, j : j + 3] += np.einsum("xyim,mo->xyio", a, b[i, j])
    naive = chain(ODD, same(2, 5, use_bias=False))
    naive.layers[1].kernel.assign(kernel)
    return model, naive


def naive_batchnorm_before() -> tuple[keras.Model, keras.Model]:
    """The shift of a BatchNormalization as a bias, as if it were there beyond the image too."""
    model = chain(ODD, layers.BatchNormalization(), same(2))
    norm, layer = model.layers[1:]
    gain = norm.gamma.numpy() / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    shift = norm.beta.numpy() - norm.moving_mean.numpy() * gain
    naive = chain(ODD, same(2))
    kernel = layer.kernel.numpy()
    naive.layers[1].kernel.assign(kernel * gain[:, None])
    naive.layers[1].bias.assign(layer.bias.numpy() + np.einsum("xyio,i->o", kernel, shift))
    return model, naive


def naive_average_pooling() -> tuple[keras.Model, keras.Model]:
    """Average pooling 'same' as a zero-padded kernel of 1 / 9."""
    model = chain(ODD, pool(3, 1))
    naive = chain(ODD, layers.DepthwiseConv2D(3, padding="same", use_bias=False))
    naive.set_weights([np.full((3, 3, 3, 1), 1 / 9)])
    return model, naive


def naive_cropping() -> tuple[keras.Model, keras.Model]:
    """Cropping, then padding, as if they cancelled."""
    model = chain(ODD, layers.Cropping2D(1), layers.ZeroPadding2D(1), conv(2))
    naive = chain(ODD, conv(2))
    naive.set_weights(model.get_weights())
    return model, naive


def naive_dropped_tail() -> tuple[keras.Model, keras.Model]:
    """A pool that drops the last row, composed with a padded convolution that then reads it."""
    model = chain(ODD, pool(2, 2, "valid"), same(2))
    naive = chain(ODD, layers.ZeroPadding2D(((2, 1), (2, 1))), conv(2, 6, strides=2))
    kernel = np.repeat(np.repeat(model.layers[2].kernel.numpy() / 4, 2, axis=0), 2, axis=1)
    naive.set_weights([kernel, model.layers[2].bias.numpy()])
    return model, naive


@pytest.mark.parametrize(
    "pair",
    [
        naive_same_on_same,
        naive_batchnorm_before,
        naive_average_pooling,
        naive_cropping,
        naive_dropped_tail,
    ],
)
def test_border_faults_are_told(pair: Callable[[], tuple[keras.Model, keras.Model]]) -> None:
    model, naive = pair()
    inputs = inputs_of(model, seed=4)
    (expected,), (got,) = run(model, inputs), run(naive, inputs)
    errors = differences(expected, got)
    assert errors.pop("inside") < TOLERANCE
    assert max(errors.values()) > 0.01, errors
    with pytest.raises(AssertionError):
        assert_equal_everywhere(expected, got)
    assert not kerasfold.verify(model, naive).equivalent


@pytest.mark.parametrize("name", ["3_3", "strided_second", "batchnorm_between"])
def test_a_wrong_strip_is_told(name: str) -> None:
    """Each emitted layer of a framed fold matters: one bias off, and the comparison fails."""
    model = chain((24, 21, 3), *STACKS[name]())
    folded = kerasfold.fold(model, objective="macs", verify=False)
    assert any("border" in row.kind for row in folded.fold_report.merged)
    inputs = inputs_of(model, seed=4)
    (expected,) = run(model, inputs)
    told = []
    for variable in folded.weights:
        right = variable.numpy()
        variable.assign(right * (1 + 1e-6))
        errors = differences(expected, run(folded, inputs)[0])
        assert max(errors.values()) > TOLERANCE, variable.path
        told.append({zone for zone, error in errors.items() if error > TOLERANCE})
        variable.assign(right)
    assert any("inside" not in zones for zones in told), "no weight of the border alone"
    assert_equal_everywhere(expected, run(folded, inputs)[0])


def test_wide_hidden_layer_at_a_seventh_of_the_macs() -> None:
    model = chain((128, 128, 16), same(256), same(16))
    folded = kerasfold.fold(model, objective="latency", verify=False)
    report = folded.fold_report
    assert report.macs_after < 0.15 * report.macs_before, str(report)
    inputs = inputs_of(model, batch=1)
    assert_equal_everywhere(*run(model, inputs), *run(folded, inputs))


# What stays impossible, and what is said of it.


def two_sources(x: Any) -> Any:
    a, b = layers.ReLU()(x), layers.ELU()(x)
    joined = layers.Concatenate()([conv(2, 3)(a), conv(4, 3)(b)])
    return conv(4, 1, groups=2, name="last")(joined)


UNKNOWN = (None, None, 3)
IMPOSSIBLE: dict[str, tuple[Any, Callable[[Any], Any], str]] = {
    "stride_then_upsampling": (
        ODD,
        chained(lambda: conv(4, 3, strides=2), lambda: layers.UpSampling2D(2)),
        r"a stride of 2 meets an upsampling by 2: .*periodic",
    ),
    "stride_then_upsampling_common_factor": (
        EVEN,
        chained(lambda: pool(4, 4, "valid"), lambda: layers.UpSampling2D(6)),
        r"a stride of 4 meets an upsampling by 6",
    ),
    "stride_then_transposed": (
        ODD,
        chained(
            lambda: conv(4, 3, strides=2),
            lambda: layers.Conv2DTranspose(2, 3, strides=2, padding="same"),
        ),
        r"a stride of 2 meets an upsampling by 2",
    ),
    "strided_same_at_unknown_size": (
        UNKNOWN,
        chained(lambda: same(strides=2), lambda: conv(2)),
        r"padding='same' depends on the image size.*unknown.*fixed size",
    ),
    "same_then_strided_same_at_unknown_size": (
        UNKNOWN,
        chained(lambda: same(), lambda: same(2, strides=2)),
        r"padding='same' depends on the image size.*unknown.*fixed size",
    ),
    "group_of_several_sources": (
        ODD,
        two_sources,
        r"a concatenation whose parts share groups of channels",
    ),
    "flatten_at_unknown_size": (
        UNKNOWN,
        chained(lambda: conv(), lambda: layers.Flatten()),
        r"flattening at an unknown image size: give the model's Input a fixed size",
    ),
    "global_pooling_at_unknown_size": (
        UNKNOWN,
        chained(lambda: conv(), lambda: layers.GlobalAveragePooling2D(), lambda: layers.Dense(2)),
        r"global pooling at an unknown image size: give the model's Input a fixed size",
    ),
    "adaptive_pooling_at_unknown_size": (
        UNKNOWN,
        chained(lambda: conv(), lambda: layers.AdaptiveAveragePooling2D(2)),
        r"do not divide into \(2, 2\) equal windows",
    ),
    "bilinear": (
        ODD,
        chained(lambda: conv(), lambda: layers.UpSampling2D(2, interpolation="bilinear")),
        r"weights change along the border, where .* bilinear upsampling see fewer pixels",
    ),
    "bicubic": (
        ODD,
        chained(lambda: conv(), lambda: layers.UpSampling2D(2, interpolation="bicubic")),
        r"interpolation 'bicubic' clamps at the border",
    ),
    "same_on_same_at_unknown_size": (
        UNKNOWN,
        chained(lambda: same(24), lambda: same(2)),
        r"zero padding between two layers: at the border .* zeros in the original",
    ),
}


@pytest.mark.parametrize(("shape", "block", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_says_so(shape: Any, block: Callable[[Any], Any], message: str) -> None:
    inputs = keras.Input(shape, dtype="float64")
    model = randomise(keras.Model(inputs, block(inputs)))
    folded = kerasfold.fold(model, objective="layers", verify=False)
    report = folded.fold_report
    reasons = [row.reason for row in (*report.kept, *report.apart)]
    assert any(re.search(message, reason) for reason in reasons), reasons
    # ... and is left as it was, which is exact.
    images = inputs_of(model, size=11, seed=4)
    (expected,), (got,) = run(model, images), run(folded, images)
    # TensorFlow interpolates in float32 whatever it is given.
    tolerance = 1e-6 if "clamps" in message else TOLERANCE
    assert np.abs(expected - got).max() < tolerance * np.abs(expected).max()

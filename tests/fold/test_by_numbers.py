"""What the numbers of kernels show, through the whole fold, and compared in float64."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasfold
from kerasfold.algebra.operator import Operator
from kerasfold.inverse.numbers import Turned
from kerasfold.lift.program import Weights
from kerasfold.lift.regions import lifted
from kerasfold.plan.choose import plan as make_plan
from kerasfold.plan.numbers import by_numbers
from kerasfold.rooflines import XLA, Rate
from zoo.making import randomise


def holding(layer: L.Layer, *weights: np.ndarray, size=(20, 22), behind=()) -> keras.Model:
    """A model of one layer of these weights, a ReLU behind it."""
    channels = weights[0].shape[-2]
    x = keras.Input((*size, channels) if size else (channels,))
    y = layer(x)
    for other in behind:
        y = other(y)
    model = keras.Model(x, L.ReLU()(y))
    layer.set_weights([np.asarray(w, "float32") for w in weights])
    return model


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=shape).astype("float32")


def in_float64(model: keras.Model) -> keras.Model:
    other = keras.models.clone_model(
        model,
        clone_function=lambda x: type(x).from_config(
            x.get_config() | ({"dtype": "float64"} if isinstance(x, L.Layer) else {})
        ),
    )
    other.set_weights(model.get_weights())
    return other


def error(model: keras.Model, other: keras.Model) -> float:
    """Between two models in float64, as a share of the larger of their outputs."""
    sizes = [20 if n is None else n for n in model.input_shape[1:]]
    x = np.random.default_rng(1).normal(size=(2, *sizes))
    a, b = (np.asarray(in_float64(each)(x)) for each in (model, other))
    return float(np.max(np.abs(a - b)) / np.max(np.abs(a)))


def classes(model: keras.Model) -> list[type]:
    kinds = [type(operation) for operation in model.operations[1:]]
    return [kind for kind in kinds if kind not in (L.ReLU, L.ZeroPadding2D, L.Cropping2D)]


def zeros_but(shape: tuple[int, ...], *place: object) -> np.ndarray:
    kernel = np.zeros(shape, "float32")
    kernel[place] = normal(*kernel[place].shape)
    return kernel


def blocks() -> np.ndarray:
    kernel = normal(3, 3, 6, 8)
    kernel[:, :, :3, 4:], kernel[:, :, 3:, :4] = 0, 0
    return kernel


EYE = np.eye(6, dtype="float32")
CASES = {
    "trimmed": (
        lambda: holding(
            L.Conv2D(4, 5, padding="same"),
            zeros_but((5, 5, 3, 4), slice(1, 4), slice(2, 5)),
            normal(4),
        ),
        [L.Conv2D],
    ),
    "trimmed, strided": (
        lambda: holding(
            L.Conv2D(4, 5, 2, padding="same"),
            zeros_but((5, 5, 3, 4), slice(1, 4), slice(2, 5)),
            normal(4),
            size=(21, 18),
        ),
        [L.Conv2D],
    ),
    "trimmed, of unknown size": (
        lambda: holding(
            L.Conv2D(4, 5, padding="same"),
            zeros_but((5, 5, 3, 4), slice(0, 3), slice(2, 5)),
            normal(4),
            size=(None, None),
        ),
        [L.Conv2D],
    ),
    "dilated": (
        lambda: holding(
            L.Conv2D(4, 5, padding="same"),
            zeros_but((5, 5, 3, 4), slice(None, None, 2), slice(None, None, 2)),
            normal(4),
        ),
        [L.Conv2D],
    ),
    "blocks": (lambda: holding(L.Conv2D(8, 3), blocks(), normal(8)), [L.Conv2D]),
    "diagonal": (
        lambda: holding(L.Conv2D(6, 3), EYE * normal(3, 3, 1, 6), normal(6)),
        [L.DepthwiseConv2D],
    ),
    "mean": (
        lambda: holding(
            L.DepthwiseConv2D(4, 2, padding="same"),
            np.full((4, 4, 6, 1), 1 / 16),
            np.zeros(6),
        ),
        [L.AveragePooling2D],
    ),
    "mean, then mixed": (
        lambda: holding(L.Conv2D(8, 4, 4), np.ones((4, 4, 1, 1)) * normal(3, 8), normal(8)),
        [L.AveragePooling2D, L.Conv2D],
    ),
    "identity": (lambda: holding(L.Conv2D(6, 1), EYE[None, None], np.zeros(6)), []),
    "permuted": (
        lambda: holding(L.Conv2D(6, 1), EYE[None, None, [3, 1, 2, 0, 5, 4]], np.zeros(6)),
        ["Take"],
    ),
    "permuted, in a wider window": (
        lambda: holding(
            L.Conv2D(6, 3, padding="same"),
            np.pad(EYE[None, None, ::-1], ((1, 1), (1, 1), (0, 0), (0, 0))),
            np.zeros(6),
        ),
        ["Take"],
    ),
    "some of a vector": (
        lambda: holding(L.Dense(3), EYE[:, 1:6:2], np.zeros(3), size=()),
        ["GetItem"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_they_show_exactly(case: str) -> None:
    make, kinds = CASES[case]
    model = make()
    folded = kerasfold.fold(model, "macs", exact_numbers=True, verify=False)
    assert error(model, folded) < 1e-10
    names = [kind.__name__ for kind in classes(folded)]
    assert names == [kind if isinstance(kind, str) else kind.__name__ for kind in kinds]
    report = folded.fold_report
    assert report.macs_after < report.macs_before or report.params_after < report.params_before
    assert folded.count_params() == report.params_after


def test_a_mean_of_ninths_is_a_pool_in_the_dtype_that_it_is_computed_in() -> None:
    """Nine times the float32 next to a ninth is 1 + 3e-8, which is a 1 in float32."""
    kernel = np.full((3, 3, 4, 1), 1 / 9)
    folded = kerasfold.fold(holding(L.DepthwiseConv2D(3), kernel, np.zeros(4)), "params")
    assert classes(folded) == [L.AveragePooling2D]
    assert folded.fold_report.equivalence.outputs[0].error < 1e-10


def test_what_is_merged_is_looked_at_too() -> None:
    norm = L.BatchNormalization(gamma_initializer="ones")
    kernel = zeros_but((5, 5, 3, 4), slice(1, 4), slice(2, 5))
    model = holding(L.Conv2D(4, 5, padding="same"), kernel, normal(4), behind=(norm,))
    norm.set_weights([1 + normal(4) / 9, normal(4), normal(4), np.abs(normal(4)) + 1])
    folded = kerasfold.fold(model)
    (conv,) = [x for x in folded.layers if isinstance(x, L.Conv2D)]
    assert conv.kernel_size == (3, 3)
    assert folded.fold_report.equivalence.outputs[0].error < 1e-10


def test_it_stays_where_it_does_not_pay() -> None:
    report = kerasfold.explain(holding(L.Conv2D(8, 3), blocks(), normal(8)), "layers")
    assert report.merged == ()


def test_explain_says_what_fold_does() -> None:
    model = holding(L.Conv2D(8, 3), blocks(), normal(8))
    assert kerasfold.explain(model, "macs").merged == model.fold("macs").fold_report.merged


def test_a_fold_has_nothing_left_to_show() -> None:
    once = kerasfold.fold(holding(L.DepthwiseConv2D(7), blur(7, 1.2), np.zeros(2)), "macs")
    assert kerasfold.explain(once, "macs").merged == ()


def test_calls_of_one_layer_stay_one_layer() -> None:
    kernel = zeros_but((5, 5, 3, 3), slice(1, 4), slice(2, 5))
    layer, x = L.Conv2D(3, 5, padding="same"), keras.Input((12, 12, 3))
    model = keras.Model(x, L.ReLU()(layer(L.ReLU()(layer(x)))))
    layer.set_weights([kernel, normal(3)])
    folded = kerasfold.fold(model, "macs")
    assert error(model, folded) < 1e-10
    assert folded.count_params() == 3 * 3 * 3 * 3 + 3


# As stored


def blur(taps: int, width: float, channels: int = 2) -> np.ndarray:
    t = np.arange(taps) - (taps - 1) / 2
    g = np.exp(-((t / width) ** 2) / 2)
    return np.repeat(np.outer(g, g / g.sum() ** 2)[:, :, None, None], channels, 2).astype("float32")


def blurred(**options: object) -> keras.Model:
    return holding(L.DepthwiseConv2D(15, use_bias=False, **options), blur(15, 2.5))


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_blur_is_one_along_each_axis(
    strides: int, padding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(XLA.rates, "row", XLA.rates["depthwise"])  # so that none is turned
    model = blurred(strides=strides, padding=padding)
    folded = kerasfold.fold(model, "params")
    first, last = (x for x in folded.layers if isinstance(x, (L.DepthwiseConv2D, L.Conv2D)))
    assert (first.kernel_size, last.kernel_size) == ((15, 1), (1, 15))
    column, row = (np.float64(x.kernel).reshape(15, 2) for x in (first, last))
    product = column[:, None] * row[None]
    stored = blur(15, 2.5)[..., 0]
    assert np.max(np.abs(product - stored) / np.spacing(stored)) <= 1
    other = in_float64(model)
    other.layers[1].set_weights([product[..., None]])
    assert error(other, folded) < 1e-10
    assert kerasfold.verify(model, folded).equivalent
    report = folded.fold_report
    assert report.equivalence.outputs[0].error < 1e-10
    assert "units in the last place from the kernel" in " ".join(str(report).split())


@pytest.fixture
def rows_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(XLA.rates, "row", Rate(0.0))


def whole_numbers(size: tuple[int, int] = (20, 22), **options: object) -> keras.Model:
    """A window that is a product of others bit for bit, neither of them the same reversed."""
    kernel = np.outer(np.arange(3, 18) ** 2, np.arange(1, 17))[..., None, None] * [[[1.0], [2]]]
    layer = L.DepthwiseConv2D((15, 16), **options)
    return holding(layer, kernel / 2**20, normal(2), size=size)


TURNED = [L.Permute, L.DepthwiseConv2D, L.Permute, L.DepthwiseConv2D]


@pytest.mark.usefixtures("rows_for_nothing")
@pytest.mark.parametrize(
    ("taps", "size", "options"),
    [
        (31, (20, 23), {"padding": "same"}),
        (16, (20, 23), {"padding": "same"}),
        (15, (25, 20), {}),
        (15, (40, 41), {"strides": 3}),
        (15, (40, None), {"strides": 2}),
        (15, (40, 31), {"dilation_rate": 2}),
        (15, (None, None), {"padding": "same", "depth_multiplier": 2}),
        (15, (15, 15), {}),
    ],
)
def test_a_tall_window_is_turned(
    taps: int, size: tuple[int | None, ...], options: dict[str, object]
) -> None:
    kernel = np.repeat(blur(taps, taps / 6), options.get("depth_multiplier", 1), 3)
    model = holding(
        L.DepthwiseConv2D(taps, **options), kernel, normal(kernel[0, 0].size), size=size
    )
    folded = kerasfold.fold(model, "params")
    windows = {x.kernel_size for x in folded.layers if isinstance(x, L.DepthwiseConv2D)}
    assert windows == {(1, taps)}
    assert folded.fold_report.equivalence.outputs[0].error < 1e-10
    assert kerasfold.verify(model, folded).equivalent
    assert kerasfold.explain(folded, "params").merged == ()


@pytest.mark.usefixtures("rows_for_nothing")
def test_one_that_is_turned_is_what_it_was_in_float64() -> None:
    model = whole_numbers(padding="same")
    folded = kerasfold.fold(model, "params")
    assert classes(folded) == TURNED
    assert folded.layers[-1].name == model.layers[-1].name
    assert error(model, folded) < 1e-14
    (merged,) = folded.fold_report.merged
    assert merged.kind == "Permute + DepthwiseConv2D 1x15 + Permute + DepthwiseConv2D 1x16"


@pytest.mark.usefixtures("rows_for_nothing")
def test_it_is_turned_with_channels_first() -> None:
    layer = L.DepthwiseConv2D(15, padding="same", data_format="channels_first")
    x = keras.Input((2, 20, 23))
    model = keras.Model(x, layer(x))
    layer.set_weights([blur(15, 2.5), normal(2)])
    folded = kerasfold.fold(model, "params")
    assert classes(folded) == TURNED
    assert folded.fold_report.equivalence.outputs[0].error < 1e-10


@pytest.mark.usefixtures("rows_for_nothing")
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_it_is_turned_in_mixed_precision(policy: str) -> None:
    model = whole_numbers(padding="same", dtype=policy)
    folded = kerasfold.fold(model, "params")
    assert classes(folded) == TURNED
    assert {x.dtype_policy.name for x in folded.layers[1:-1]} == {policy}
    assert folded.fold_report.equivalence.outputs[0].error < 1e-10


@pytest.mark.usefixtures("rows_for_nothing")
def test_a_pixel_needs_no_transposition_back() -> None:
    model = whole_numbers(size=(15, 16))
    folded = kerasfold.fold(model, "params")
    assert L.Permute not in classes(folded)
    assert folded.output_names == model.output_names
    assert error(model, folded) < 1e-14


@pytest.mark.parametrize(
    ("taps", "size", "runtime", "kinds"),
    [
        (31, 128, None, TURNED),
        (31, 128, "xla", TURNED),
        (31, 128, "tensorflow", [L.DepthwiseConv2D] * 2),
        (5, 128, "xla", [L.DepthwiseConv2D] * 2),
        (3, 16, None, [L.DepthwiseConv2D]),
    ],
)
def test_it_is_turned_where_it_pays(
    taps: int, size: int, runtime: str | None, kinds: list[type]
) -> None:
    layer = L.DepthwiseConv2D(taps, padding="same", use_bias=False)
    model = holding(layer, blur(taps, taps / 6), size=(size, size))
    assert classes(kerasfold.fold(model, runtime=runtime, verify=False)) == kinds


@pytest.mark.usefixtures("rows_for_nothing")
def test_what_is_merged_with_one_that_is_turned_goes_along() -> None:
    norm = L.BatchNormalization()
    layer = L.DepthwiseConv2D(15, padding="same")
    model = holding(layer, blur(15, 2.5), normal(2), behind=(norm, L.Conv2D(3, 1)))
    norm.set_weights([1 + normal(2) / 9, normal(2), normal(2), np.abs(normal(2)) + 1])
    folded = kerasfold.fold(model, "params")
    assert classes(folded)[:3] == TURNED[:3]
    assert folded.fold_report.equivalence.outputs[0].error < 1e-10
    assert kerasfold.verify(model, folded).equivalent


@pytest.mark.usefixtures("rows_for_nothing")
def test_one_that_is_turned_the_wrong_way_is_not_handed_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = Turned.inner.fget

    def wrong(step: Turned) -> Operator:
        inner = real(step)
        return Operator(inner.geometry, inner.kernel[:, ::-1], inner.bias)

    monkeypatch.setattr(Turned, "inner", property(wrong))
    with pytest.raises(kerasfold.EquivalenceError):
        kerasfold.fold(whole_numbers(padding="same"), "params")


def test_exact_numbers_are_no_product() -> None:
    report = kerasfold.fold(blurred(), "params", exact_numbers=True).fold_report
    assert report.merged == ()


def test_four_last_places_off_stay() -> None:
    model = blurred()
    kernel = blur(15, 2.5)
    kernel[3, 9, 1] += 4 * np.spacing(kernel[3, 9, 1])
    model.layers[1].set_weights([kernel])
    assert kerasfold.explain(model, "params").merged == ()


def test_what_is_merged_with_a_blur_goes_along() -> None:
    norm = L.BatchNormalization()
    layer = L.DepthwiseConv2D(15, padding="same")
    model = holding(layer, blur(15, 2.5), normal(2), behind=(norm,))
    norm.set_weights([1 + normal(2) / 9, normal(2), normal(2), np.abs(normal(2)) + 1])
    folded = kerasfold.fold(model, "params")
    assert classes(folded) == TURNED
    assert folded.fold_report.equivalence.outputs[0].error < 1e-10
    assert kerasfold.verify(model, folded).equivalent


def test_a_wrong_factor_is_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared in float64 is what the steps and all that they leave out make together."""
    real = kerasfold.plan.numbers.difference

    def wrong(given: object, instead: object) -> object:
        return real(given, instead).scaled(2.0)

    monkeypatch.setattr("kerasfold.plan.numbers.difference", wrong)
    with pytest.raises(kerasfold.EquivalenceError):
        kerasfold.fold(blurred(), "params")


def low_rank(inputs: int, outputs: int, rank: int = 2) -> np.ndarray:
    rng = np.random.default_rng(5)
    left, right = (rng.integers(-3, 4, shape) for shape in ((inputs, rank), (rank, outputs)))
    return (left @ right).astype("float32")


LAYERS = {
    "dense": (lambda: L.Dense(40), low_rank(48, 40), ()),
    "1x1": (lambda: L.Conv2D(40, 1, strides=2), low_rank(48, 40)[None, None], (6, 5)),
}


@pytest.mark.parametrize("case", LAYERS)
def test_a_kernel_of_low_rank_is_two_thin_ones(case: str) -> None:
    make, kernel, size = LAYERS[case]
    model = holding(make(), kernel, normal(40), size=size)
    folded = kerasfold.fold(model, "macs")
    first, last = (np.float64(x.kernel) for x in folded.layers if getattr(x, "weights", ()))
    assert folded.count_params() < model.count_params() / 2
    off = np.abs(first @ last - kernel)
    assert np.max(off[kernel != 0] / np.spacing(np.abs(kernel[kernel != 0]))) <= 1
    assert np.max(off[kernel == 0]) <= 1e-12 * np.max(np.abs(kernel))
    assert error(model, folded) < 1e-6
    report = folded.fold_report
    assert report.equivalence.outputs[0].error < 1e-10
    assert "units in the last place from the kernel" in " ".join(str(report).split())


def test_exact_numbers_are_of_full_rank() -> None:
    model = holding(L.Dense(40), low_rank(48, 40), normal(40), size=())
    assert kerasfold.explain(model, "params", exact_numbers=True).merged == ()


def test_a_rank_that_is_four_last_places_off_stays() -> None:
    kernel = low_rank(48, 40)
    kernel[0, 0] += 4 * np.spacing(np.abs(kernel[0, 0]) + np.float32(1))
    model = holding(L.Dense(40), kernel, normal(40), size=())
    assert kerasfold.explain(model, "params").merged == ()


@pytest.mark.parametrize(("size", "count"), [(40, 1), (1024, 2)])
def test_a_low_rank_is_used_where_it_pays(size: int, count: int) -> None:
    model = holding(L.Dense(size), low_rank(size, size), normal(size), size=())
    folded = kerasfold.fold(model, "latency", verify=False)
    assert classes(folded) == [L.Dense] * count


def test_as_few_layers_keep_their_kernel() -> None:
    kernel = zeros_but((5, 5, 3, 4), slice(1, 4), slice(2, 5))
    folded = kerasfold.fold(holding(L.Conv2D(4, 5, padding="same"), kernel, normal(4)), "layers")
    assert folded.layers[1].kernel_size == (5, 5)


@pytest.mark.parametrize("objective", ["layers", "macs"])
@pytest.mark.parametrize("kernel", [np.eye(6), np.ones((6, 6)), np.eye(6)[::-1]])
def test_behind_a_mean_of_what_is_padded(objective: str, kernel: np.ndarray) -> None:
    steps = [L.ZeroPadding2D(1), L.GlobalAveragePooling2D(), L.Dense(6)]
    model = keras.Sequential([keras.Input((6, 6, 4)), L.Conv2D(6, 3, activation="relu"), *steps])
    model.layers[-1].kernel.assign(kernel)
    assert model.fold(objective).fold_report.equivalence.verdict == "equivalent"


def test_kernels_that_show_nothing_are_not_read_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    x = keras.Input((16, 16, 3))
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3)(x)))
    y = L.Dense(4)(L.Flatten()(L.DepthwiseConv2D(3, activation="relu")(y)))
    model = randomise(keras.Model(x, y))
    regions = lifted(model)
    plan = make_plan(regions)
    monkeypatch.setattr(Weights, "read", None)
    assert by_numbers(regions, plan, "latency") is plan


FEW_PIXELS = {
    "one pixel": (L.Conv2D(4, 3, padding="same"), (3, 3, 3, 4), (1, 1), (1, 1)),
    "two": (L.Conv2D(4, 11, padding="same"), (11, 11, 3, 4), (2, 2), (3, 3)),
    "a row": (L.Conv2D(4, 7, padding="same"), (7, 7, 3, 4), (1, 20), (1, 7)),
    "apart": (L.DepthwiseConv2D(7, padding="same"), (7, 7, 3, 1), (3, 3), (5, 5)),
    "with strides": (L.Conv2D(4, 3, 2, padding="same"), (3, 3, 3, 4), (1, 1), (1, 1)),
    "dilated": (L.Conv2D(4, 3, padding="same", dilation_rate=4), (3, 3, 3, 4), (4, 5), (1, 3)),
    "as many as taps": (L.Conv2D(4, 3, padding="same"), (3, 3, 3, 4), (2, 3), (3, 3)),
}


@pytest.mark.parametrize("objective", ["latency", "macs", "params"])
@pytest.mark.parametrize("name", FEW_PIXELS)
def test_taps_that_read_no_pixel_go(name: str, objective: str) -> None:
    layer, shape, size, taps = FEW_PIXELS[name]
    layer = type(layer).from_config(layer.get_config())
    outputs = shape[-1] * (3 if isinstance(layer, L.DepthwiseConv2D) else 1)
    model = holding(layer, normal(*shape), normal(outputs), size=size)
    folded = kerasfold.fold(model, objective)
    assert folded.count_params() == np.prod([*taps, *shape[2:]]) + outputs
    assert folded.layers[-2].kernel_size == taps
    assert error(model, folded) < 1e-14


def test_a_layer_that_is_called_on_images_of_two_sizes_keeps_its_taps() -> None:
    layer = L.Conv2D(4, 5, padding="same")
    inputs = [keras.Input((n, n, 3)) for n in (1, 2)]
    model = randomise(keras.Model(inputs, [L.ReLU()(layer(x)) for x in inputs]))
    folded = kerasfold.fold(model, "params")
    assert folded.count_params() == model.count_params()


@pytest.mark.parametrize("size", [(20, 22), (1, 1)], ids=["zeros", "one pixel"])
def test_a_layer_with_more_to_it_than_weights_is_kept_as_it_is(size: tuple[int, int]) -> None:
    layer = L.Conv2D(4, 5, padding="same", kernel_regularizer="l2")
    kernel = zeros_but((5, 5, 3, 4), slice(1, 4), slice(2, 5))
    folded = kerasfold.fold(holding(layer, kernel, normal(4), size=size))
    assert folded.layers[1].kernel_regularizer is not None

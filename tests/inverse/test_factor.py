"""Every form of `factor`: what is made in it comes back, the smallest is found, and it runs."""

import itertools

import keras
import numpy as np
import pytest
import scipy.signal

import kerasfold
from kerasfold import FoldError, factor
from kerasfold.inverse.into import WAYS
from zoo.forms import CASES, MAKERS, chain_of, links

L = keras.layers


def weights(found):
    return sum(kernel.size for kernel in found.kernels)


def test_every_form_of_the_table_is_made():
    assert {*MAKERS} == {*WAYS}


@pytest.mark.parametrize(("into", "rank"), CASES)
def test_a_kernel_made_in_a_form_comes_back(into, rank):
    for seed in range(8):
        kernel, sizes = MAKERS[into](np.random.default_rng(seed), rank)
        found = factor(kernel, into, **sizes)
        assert found.exact
        assert np.linalg.norm(found.compose() - kernel) < 1e-12 * np.linalg.norm(kernel)


@pytest.mark.parametrize(("into", "rank"), [case for case in CASES if case[0] != "pool"])
def test_its_sizes_are_found_too(into, rank):
    for seed in range(4):
        kernel, sizes = MAKERS[into](np.random.default_rng(seed), rank)
        given = factor(kernel, into, **sizes)
        windows = {name: size for name, size in sizes.items() if name == "sizes"}
        found = factor(kernel, into, **windows)
        assert found.exact
        assert weights(found) <= weights(given)


@pytest.mark.parametrize("tolerance", [0.2, 0.5])
@pytest.mark.parametrize(
    ("into", "option", "rank", "sizes"),
    [
        ("spatial", "rank", 2, range(1, 13)),
        ("spatial", "rank", 3, list(itertools.product(range(1, 7), repeat=2))),
        ("separable", "multiplier", 2, range(1, 6)),
        ("bottleneck", "ranks", 2, list(itertools.product(range(1, 5), range(1, 6)))),
    ],
)
def test_the_smallest_that_meets_a_tolerance(into, option, rank, sizes, tolerance):
    channels = (4, 5) if rank == 2 else (2, 2)
    kernel = np.random.default_rng(0).standard_normal((*(3, 3, 2)[:rank], *channels))
    found = factor(kernel, into, tolerance=tolerance)
    every = [factor(kernel, into, **{option: size}) for size in sizes]
    assert found.relative_error <= tolerance
    assert weights(found) == min(weights(f) for f in every if f.relative_error <= tolerance)


BINOMIAL = [1, 4, 6, 4, 1]
GAUSSIAN = scipy.signal.windows.gaussian(7, 1.5)


@pytest.mark.parametrize(
    ("column", "row"),
    [([1, 2, 1], [-1, 0, 1]), (BINOMIAL, BINOMIAL), (GAUSSIAN, GAUSSIAN)],
    ids=["Sobel", "binomial", "Gaussian"],
)
def test_filters_of_image_processing_are_spatially_separable(column, row):
    found = factor(np.outer(column, row)[..., None, None], "spatial")
    assert found.exact
    shapes = [kernel.shape for kernel in found.kernels]
    assert shapes == [(len(column), 1, 1, 1), (1, len(row), 1, 1)]


def test_a_given_size_that_does_not_do_has_its_error_stated():
    kernel = np.random.default_rng(0).standard_normal((3, 3, 1, 1))
    found = factor(kernel, "spatial", rank=1)
    values = np.linalg.svd(kernel[..., 0, 0])[1]
    assert not found.exact
    assert np.isclose(found.relative_error, np.linalg.norm(values[1:]) / np.linalg.norm(values))
    assert np.isclose(
        found.relative_error * np.linalg.norm(kernel), np.linalg.norm(found.compose() - kernel)
    )


def separate(rng, into):
    """Four channels, each with two filters that are made in a form, as of a DepthwiseConv."""
    each = []
    for _ in range(4):
        if into == "spatial":
            made = chain_of(links(rng, [(3, 1), (1, 3)], (1, 1, 2)))
        elif into == "chain":
            made = chain_of(links(rng, [(2, 2), (2, 2)], (1, 1, 2)))
        elif into == "pool":
            made = scipy.signal.convolve(rng.standard_normal((2, 2, 1, 2)), np.ones((2, 2, 1, 1)))
        else:
            made = np.zeros((3, 3, 1, 2))
            made[::2, ::2] = rng.standard_normal((2, 2, 1, 2))
        each.append(made)
    return np.concatenate(each, axis=-2)


DEPTHWISE = {
    "spatial": {"rank": 1},
    "chain": {"sizes": (2, 2)},
    "pool": {"pool_size": 2},
    "dilated": {"dilation": 2},
}


@pytest.mark.parametrize("into", DEPTHWISE)
def test_a_depthwise_kernel_stays_depthwise(into):
    kernel = separate(np.random.default_rng(0), into)
    found = factor(kernel, into, depthwise=True, **DEPTHWISE[into])
    assert found.exact
    assert found.compose().shape == kernel.shape
    assert {step.kind for step in found.steps} <= {"DepthwiseConv2D", "AveragePooling2D"}
    layer = L.DepthwiseConv2D(
        3, depth_multiplier=2, strides=found.steps[-1].strides, use_bias=False, dtype="float64"
    )
    layer.build((None, 9, 9, 4))
    layer.set_weights([kernel])
    assert_computes(layer, found.layers(dtype="float64"), (9, 9, 4))


def test_a_depthwise_kernel_of_a_higher_rank_has_groups():
    kernel = np.random.default_rng(0).standard_normal((3, 3, 4, 1))
    found = factor(kernel, "spatial", depthwise=True)
    assert found.exact
    assert [(s.kind, s.groups) for s in found.steps] == [("DepthwiseConv2D", 4), ("Conv2D", 4)]


def assert_computes(layer, layers, shape):
    """Layers one after another compute what one layer does."""
    x = np.random.default_rng(1).standard_normal((2, *shape))
    expected = np.asarray(layer(x))
    result = np.asarray(keras.Sequential([keras.Input(shape, dtype=layer.dtype), *layers])(x))
    assert result.shape == expected.shape
    bound = 1e-12 if layer.dtype == "float64" else 1e-4
    assert np.abs(result - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.parametrize(("into", "rank"), CASES)
@pytest.mark.parametrize("strides", [1, 2])
def test_its_layers_compute_the_convolution(into, rank, strides):
    kernel, sizes = MAKERS[into](np.random.default_rng(3), rank)
    found = factor(kernel, into, **sizes)
    if into == "dilated" and strides > 1:
        with pytest.raises(FoldError, match="no Keras layer has both strides and dilation"):
            found.layers(strides=strides)
        return
    dtype = "float32" if into == "pool" and rank == 3 else "float64"  # as TensorFlow's pools have
    whole = np.multiply(strides, sizes.get("pool_size", (1,) * rank))
    conv = getattr(L, f"Conv{rank}D")
    layer = conv(kernel.shape[-1], kernel.shape[:rank], tuple(whole), use_bias=False, dtype=dtype)
    shape = (*(k + 5 for k in kernel.shape[:rank]), kernel.shape[-2])
    layer.build((None, *shape))
    layer.set_weights([kernel])
    assert_computes(layer, found.layers(strides=strides, dtype=dtype), shape)


def test_strides_are_where_the_least_is_computed():
    found = factor(np.outer([1, 2, 1], [-1, 0, 1])[..., None, None], "spatial")
    assert [layer.strides for layer in found.layers(strides=(2, 3))] == [(2, 1), (1, 3)]


def test_padding_same_is_around_the_whole_as_of_one_layer():
    kernel = np.random.default_rng(0).standard_normal((4, 5, 2, 3))
    layer = L.Conv2D(3, (4, 5), padding="same", use_bias=False, dtype="float64")
    layer.build((None, 9, 9, 2))
    layer.set_weights([kernel])
    found = factor(kernel, "separable")
    assert_computes(layer, found.layers(padding="same", dtype="float64"), (9, 9, 2))
    with pytest.raises(FoldError, match="depends on the size of the image"):
        found.layers(padding="same", strides=2)


def test_layers_are_of_the_dtype_and_have_the_weights_alone():
    found = factor(np.ones((3, 3, 2, 2)), "spatial")
    layers = found.layers()
    assert [layer.dtype for layer in layers] == ["float32", "float32"]
    for layer, kernel in zip(layers, found.kernels, strict=True):
        (held,) = layer.get_weights()
        assert np.array_equal(held, kernel.astype("float32"))


FORMS = {
    "spatial": {},
    "separable": {},
    "bottleneck": {},
    "dilated": {},
    "chain": {"sizes": (2, 2), "filters": 2, "restarts": 1, "budget": 60.0},
    "pool": {"pool_size": 2},
}


def test_a_kernel_of_zeros():
    for into, sizes in FORMS.items():
        found = factor(np.zeros((3, 3, 1, 1)), into, **sizes)
        assert (found.exact, found.relative_error, found.bound) == (True, 0.0, 0.0)


@pytest.mark.parametrize("power", [-1030, -560, 515, 1000])
@pytest.mark.parametrize("into", FORMS)
def test_the_size_of_its_numbers_plays_no_part(into, power):
    kernel = np.random.default_rng(0).standard_normal((3, 3, 4, 5)).astype("float32").astype(float)
    one, found = (factor(k, into, **FORMS[into]) for k in (kernel, np.ldexp(kernel, power)))
    assert found.relative_error == one.relative_error
    assert found.bound == one.bound * 2.0**power
    assert found.exact == one.exact
    if power > -1000:  # below, float64 does not hold all digits
        assert np.array_equal(found.compose(), np.ldexp(one.compose(), power))


def test_a_small_kernel_has_factors_that_float32_holds():
    found = factor(np.ones((3, 3, 2, 2)) * 1e-60, "spatial")
    assert all(np.all(kernel.astype("float32") > 1e-35) for kernel in map(np.abs, found.kernels))


def test_factors_that_float64_does_not_hold_are_refused():
    with pytest.raises(FoldError, match="not finite: scale it down"):
        factor(np.full((3, 1, 1), 1.7e308), "pool", pool_size=3)


@pytest.mark.parametrize("dtype", ["foo", "int32", 3])
def test_layers_of_what_is_no_float_are_refused(dtype):
    with pytest.raises(FoldError, match=f"dtype is one of floats.*Received: {dtype!r}"):
        factor(np.ones((3, 3, 1, 1)), "spatial").layers(dtype=dtype)


def test_it_says_what_it_is():
    found = factor(np.outer([1, 2, 1], [-1, 0, 1])[..., None, None], "spatial")
    assert str(found).startswith("spatial: Conv2D 3x1, then Conv2D 1x3; 6 weights for 9")
    assert str(found).endswith("exact")


KERNEL = np.ones((5, 5, 2, 2))


@pytest.mark.parametrize(
    ("kernel", "into", "options", "message"),
    [
        (KERNEL, "blocks", {}, "into one of chain, spatial, .*Received: 'blocks'"),
        (
            KERNEL,
            "spatial",
            {"ranks": 2},
            "'spatial' has no option 'ranks', but rank, depthwise, tolerance",
        ),
        (KERNEL, "pool", {}, "'pool' needs the option 'pool_size'"),
        (
            KERNEL,
            "pool",
            {"pool_size": 6},
            "a pool of 6x6 is larger than the kernel, which has 5x5",
        ),
        (KERNEL, "spatial", {"rank": 0}, "rank is a whole number, 1 or more.*Received: 0"),
        (
            KERNEL,
            "bottleneck",
            {"ranks": (1, 2, 3)},
            r"ranks is a whole number, 1 .*Received: \(1, 2, 3\)",
        ),
        (KERNEL, "spatial", {"tolerance": -1}, "tolerance is a number, 0 or more. Received: -1"),
        (KERNEL, "dilated", {"dilation": 3}, "a dilation of 3x3 has no kernel of 5x5 taps"),
        (
            KERNEL,
            "chain",
            {"sizes": (3, 4)},
            "3x3, 4x4 has a kernel of 6x6 taps: give sizes=.*Received: .* of 5x5",
        ),
        (KERNEL, "chain", {"sizes": (5,)}, r"two windows or more.*Received: \(5,\)"),
        (
            KERNEL,
            "chain",
            {"start": [KERNEL, KERNEL]},
            r"start is a kernel for each.*\(5, 5, 2, 2\)",
        ),
        (KERNEL, "chain", {"start": ["a", "b"]}, "each of start is an array .*Received: 'a'"),
        (KERNEL, "chain", {"start": [KERNEL * np.nan] * 2}, "each of start .* not finite"),
        (KERNEL, "chain", {"seed": -1}, "seed is a whole number, 0 or more. Received: -1"),
        (KERNEL, "chain", {"seed": 1.5}, "seed is a whole number, 0 or more. Received: 1.5"),
        (KERNEL, "spatial", {"depthwise": "no"}, "depthwise is True or False. Received: 'no'"),
        (KERNEL, "chain", {"budget": "long"}, "budget is a number, 0 or more. Received: 'long'"),
        (KERNEL[0], "spatial", {}, r"two or three of them. Received: .* \(5, 2, 2\)"),
        (
            KERNEL[..., 0, 0],
            "spatial",
            {},
            r"kernel\[..., None, None\]. Received: shape \(5, 5\)",
        ),
        (KERNEL * np.nan, "spatial", {}, "not finite"),
        ("sobel", "spatial", {}, "real numbers. Received: .sobel"),
        (KERNEL.astype(complex), "spatial", {}, r"real numbers. Received: array.{,40}$"),
    ],
)
def test_what_does_not_fit_is_an_error_that_says_what_does(kernel, into, options, message):
    with pytest.raises(FoldError, match=message):
        factor(kernel, into, **options)


@pytest.fixture
def mirrored():
    @kerasfold.factors_into("mirrored")
    def mirrored(kernel, *, tolerance=0.0):
        """The kernel that is its own mirror image, which is nearest."""
        return [kerasfold.inverse.steps.convolution((kernel + kernel[::-1])[None] / 2)]

    yield mirrored
    del WAYS["mirrored"]


def test_a_form_is_added_by_name(mirrored):
    kernel = np.random.default_rng(0).standard_normal((3, 2, 2))
    found = factor(kernel, "mirrored")
    assert not found.exact
    assert np.array_equal(found.compose(), (kernel + kernel[::-1]) / 2)
    assert factor(found.compose(), "mirrored").exact
    with pytest.raises(FoldError, match="there is a form 'mirrored' already"):
        kerasfold.factors_into("mirrored")

"""A kernel divided by one of its factors, against the factor that it was made with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from kerasfold import Deconvolution, FoldError, deconvolve
from kerasfold.inverse import solvers

Steps = tuple[int, ...]


def composed(first: np.ndarray, last: np.ndarray, strides: Steps) -> np.ndarray:
    """kernel[u + s v] = sum of first[u] last[v], one tap of `last` at a time."""
    taps = [k + s * (n - 1) for k, n, s in zip(first.shape, last.shape, strides, strict=False)]
    kernel = np.zeros((*taps, first.shape[-2], last.shape[-1]))
    for at in np.ndindex(last.shape[:-2]):
        starts = (s * v for s, v in zip(strides, at, strict=True))
        window = tuple(slice(n, n + k) for n, k in zip(starts, first.shape, strict=False))
        kernel[window] += first @ last[at]
    return kernel


def drawn(
    rng: np.random.Generator, taps: int, channels: int, unique: bool = True
) -> tuple[str, np.ndarray, np.ndarray, Steps]:
    """Which factor is given, `first`, `last` and the strides of `first`."""
    rank = rng.integers(1, 4)
    strides = tuple(rng.integers(1, 4, rank).tolist())
    inputs, inner, outputs = rng.integers(1, channels + 1, 3)
    given = ("first", "last")[rng.integers(2)]
    if given == "first":
        inputs, inner = sorted((inputs, inner), reverse=unique)
    else:
        outputs, inner = sorted((outputs, inner), reverse=unique)
    sizes = [rng.integers(1, taps + 1, rank) for _ in range(2)]
    first = rng.normal(size=(*sizes[0], inputs, inner))
    return given, first, rng.normal(size=(*sizes[1], inner, outputs)), strides


def divided(given: str, first: np.ndarray, last: np.ndarray, strides: Steps) -> Deconvolution:
    divisor = first if given == "first" else last
    return deconvolve(composed(first, last, strides), **{given: divisor}, strides=strides)


def matrix(make: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Of a linear map, a column for each number of what it takes."""
    ones = np.eye(math.prod(shape)).reshape(-1, *shape)
    return np.stack([make(one).ravel() for one in ones], axis=-1)


def of_divisor(given: str, first: np.ndarray, last: np.ndarray, strides: Steps) -> np.ndarray:
    """The matrix that makes the kernel of the other factor, of one of its outputs or inputs."""
    if given == "first":
        return matrix(lambda one: composed(first, one, strides), (*last.shape[:-1], 1))
    return matrix(lambda one: composed(one, last, strides), (*first.shape[:-2], 1, first.shape[-1]))


def error(found: np.ndarray, true: np.ndarray) -> float:
    assert found.shape == true.shape
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


@pytest.mark.parametrize("seed", range(3))
def test_a_factor_is_found_by_the_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(100):
        given, first, last, strides = drawn(rng, taps=5, channels=6)
        result = divided(given, first, last, strides)
        assert result.exact
        assert result.condition < 1e5
        assert error(result.kernel, last if given == "first" else first) < 1e-9


def test_the_condition_is_that_of_the_matrix() -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        drawing = drawn(rng, taps=3, channels=3, unique=False)
        result, dense = divided(*drawing), of_divisor(*drawing)
        values = np.linalg.svd(dense, compute_uv=False)
        unique = len(dense) >= dense.shape[1] and values[-1] > 1e-13 * values[0]
        assert result.unique == unique
        assert result.exact
        assert not unique or 0.1 < result.condition / (values[0] / values[-1]) < 10


@pytest.mark.parametrize("solver", solvers.SOLVERS, ids=lambda solver: solver.__name__.strip("_"))
@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_every_solver_finds_the_shortest_of_the_best(
    solver: Any, rows: int, noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one row for two columns, where neither all kernels are made nor by one alone, and more."""
    rng = np.random.default_rng(rows)
    first, last = rng.normal(size=(3, 2, rows, 2)), rng.normal(size=(4, 5, 2, 3))
    kernel = composed(first, last, (1, 1))
    kernel += noise * rng.normal(size=kernel.shape)
    monkeypatch.setattr(solvers, "SOLVERS", (solver, solvers._at_once))
    result = deconvolve(kernel, first=first)
    dense = of_divisor("first", first, last, (1, 1))
    best = np.linalg.lstsq(dense, kernel.reshape(-1, 3), rcond=None)[0].reshape(last.shape)
    assert error(result.kernel, best) < 1e-9
    assert result.exact == (noise == 0.0)
    assert result.unique == (rows > 1)
    values = np.linalg.svd(dense, compute_uv=False)
    assert not result.unique or 0.1 < result.condition * values[-1] / values[0] < 10
    left = composed(first, result.kernel, (1, 1)) - kernel
    assert result.relative_residual == pytest.approx(
        np.linalg.norm(left) / np.linalg.norm(kernel), abs=1e-12
    )


def test_the_factors_that_an_article_restored_nearly_are_found() -> None:
    first = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1]])[..., None, None]
    last = np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0]])[..., None, None]
    whole = np.array(
        [[0, 0, 0, 0, 0], [1, 2, 2, 1, 0], [1, 1, 1, 0, 0], [0, 1, 2, 2, 1], [0, 0, 0, 0, 0]]
    )[..., None, None]
    assert np.allclose(deconvolve(whole, first=first).kernel, last, rtol=0, atol=1e-12)
    assert np.allclose(deconvolve(whole, last=last).kernel, first, rtol=0, atol=1e-12)


def test_a_pool_is_taken_out_of_a_kernel_of_many_channels() -> None:
    first = np.random.default_rng(0).normal(size=(20, 17, 3, 16))
    pool = np.ones((6, 6, 1, 1)) * np.eye(16) / 36
    kernel = composed(first, pool, (1, 1))
    result = deconvolve(kernel, last=layers.AveragePooling2D(6))
    assert error(result.kernel, first) < 1e-10
    assert result.exact
    assert result.unique


def test_a_kernel_without_structure_is_taken_out_of_a_large_one() -> None:
    rng = np.random.default_rng(0)
    first, last = rng.normal(size=(30, 30, 1, 6)), rng.normal(size=(8, 8, 6, 6))
    result = divided("last", first, last, (1, 1))
    assert error(result.kernel, first) < 1e-10
    assert 1 < result.condition < 1e3


def test_a_large_kernel_that_does_not_divide_is_divided_by_least_squares() -> None:
    """Where several thousand numbers are looked for, what is left is across what is made."""
    rng = np.random.default_rng(0)
    first, kernel = rng.normal(size=(3, 3, 2, 1)), rng.normal(size=(72, 71, 2, 1))
    result = deconvolve(kernel, first=first)
    assert not result.exact
    left = kernel - composed(first, result.kernel, (1, 1))
    made = composed(first, rng.normal(size=result.kernel.shape), (1, 1))
    assert abs(np.sum(left * made)) < 1e-9 * np.linalg.norm(left) * np.linalg.norm(made)


def test_a_large_divisor_that_hides_much_says_so_or_is_refused() -> None:
    """A blur of 80x80 pixels, twice and three times over."""
    blur = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]])[..., None, None] / 8
    image = np.random.default_rng(0).normal(size=(80, 80, 1, 1))
    twice = composed(blur, blur, (1, 1))
    result = divided("first", twice, image, (1, 1))
    assert 1e6 < result.condition < 1e9
    assert error(result.kernel, image) < 1e-16 * result.condition
    with pytest.raises(FoldError, match="so near to one that cannot be inverted"):
        divided("first", composed(twice, blur, (1, 1)), image, (1, 1))


def built(layer: keras.Layer, channels: int, rank: int) -> keras.Layer:
    layer.build((None, *(None,) * rank, channels))
    return layer


LAYERS = [
    (built(layers.Conv1D(3, 2, strides=2), 3, 1), (2,)),
    (built(layers.Conv2D(2, (3, 1), dilation_rate=(2, 1), padding="same"), 4, 2), (1, 1)),
    (built(layers.Conv2D(4, 2, groups=2), 4, 2), (1, 1)),
    (built(layers.Conv3D(2, (1, 2, 2), strides=(2, 1, 1)), 2, 3), (2, 1, 1)),
    (built(layers.DepthwiseConv1D(3), 4, 1), (1,)),
    (built(layers.DepthwiseConv2D((2, 3), strides=2), 4, 2), (2, 2)),
    (built(layers.SeparableConv1D(3, 3, strides=3), 4, 1), (3,)),
    (built(layers.SeparableConv2D(3, (3, 2), strides=2), 4, 2), (2, 2)),
    (layers.AveragePooling1D(3), (3,)),
    (layers.AveragePooling2D(2, strides=1), (1, 1)),
    (layers.AveragePooling3D((1, 2, 1)), (1, 2, 1)),
]


@pytest.mark.parametrize(("layer", "strides"), LAYERS, ids=lambda x: type(x).__name__)
def test_a_layer_is_divided_by(layer: keras.Layer, strides: Steps) -> None:
    """The kernel is the answer of both layers, one after another, to a single pixel."""
    rank, rng = len(strides), np.random.default_rng(0)
    channels = (layer.get_build_config() or {"input_shape": [4]})["input_shape"][-1]
    pixel = np.zeros((channels, *(9,) * rank, channels), "float32")
    pixel[(range(channels), *(4,) * rank, range(channels))] = 1
    unit = layer.__class__.from_config({**layer.get_config(), "strides": 1, "padding": "valid"})
    answer = np.asarray(unit(pixel))  # (channel, *positions, outputs), of the taps last to first
    unit.set_weights(layer.get_weights())
    answer = np.asarray(unit(pixel), "float64")
    taps = [9 - n + 1 for n in answer.shape[1:-1]]
    window = (slice(None), *(slice(4 - k + 1, 5) for k in taps))
    first = np.flip(np.moveaxis(answer[window], 0, -2), tuple(range(rank)))
    last = rng.normal(size=(*(3,) * rank, first.shape[-1], 5))
    result = deconvolve(composed(first, last, strides), first=layer)
    assert error(result.kernel, last) < 1e-5


def test_what_no_weight_tells_is_zero_and_said() -> None:
    first = np.random.default_rng(0).normal(size=(3, 3, 4, 3))
    first[..., 1] = 0
    last = np.random.default_rng(1).normal(size=(2, 2, 3, 2))
    result = divided("first", first, last, (1, 1))
    assert result.exact
    assert math.isinf(result.condition)
    assert not np.any(result.kernel[..., 1, :])
    assert "cannot be inverted" in str(result)


def test_a_divisor_of_zeros_finds_nothing_and_says_so() -> None:
    result = deconvolve(np.ones((3, 1, 1)), first=np.zeros((2, 1, 1)))
    assert not np.any(result.kernel)
    assert (result.relative_residual, result.exact) == (1.0, False)
    assert "cannot be inverted" in str(result)


def test_a_divisor_that_is_nearly_singular_says_so() -> None:
    """1, 2, 1 over and over is a mean of many pixels: it hides what alternates."""
    first = np.ones((1, 1, 1))
    for _ in range(24):
        first = composed(first, np.array([1.0, 2.0, 1.0])[:, None, None], (1,))
    result = deconvolve(np.ones((88, 1, 1)), first=first)
    assert not result.unique
    assert np.all(np.abs(result.kernel) < 1e3)


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_sizes_of_numbers_play_no_part(size: float) -> None:
    first, last = np.full((2, 1, 1), size), np.arange(1.0, 4)[:, None, None]
    result = divided("first", first, last, (1,))
    assert result.exact
    assert error(result.kernel, last) < 1e-12


def test_an_empty_kernel_of_zeros_is_exact() -> None:
    result = deconvolve(np.zeros((3, 2, 2)), last=np.ones((2, 2, 2), "float32"))
    assert result.exact
    assert result.relative_residual == 0.0
    assert result.kernel.dtype == np.float64


KERNEL = np.ones((5, 5, 2, 3))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "either first= or last=. Received: none"),
        ({"first": KERNEL, "last": KERNEL}, "Received: both"),
        ({"first": np.ones((3, 2, 3))}, "has as many axes as the kernel, 4. Received: (3, 2, 3)"),
        ({"first": np.ones((3, 3, 4, 3))}, "as many inputs"),
        ({"last": np.ones((3, 3, 4, 2))}, "as many outputs"),
        ({"first": np.ones((6, 3, 2, 3))}, "Received: a kernel of (5, 5) taps, first= of (6, 3)"),
        ({"first": np.ones((2, 3, 2, 3)), "strides": 2}, "strides (2, 2)"),
        ({"last": np.ones((3, 4, 2, 3)), "strides": 2}, "last= of (3, 4), strides (2, 2)"),
        (
            {"last": np.ones((3, 3, 2, 3)), "strides": (1, 2, 1)},
            "strides= is a whole number, 1 or more, or 2 of them",
        ),
        ({"last": np.ones((3, 3, 2, 3)), "strides": 0}, "a whole number, 1 or more"),
        ({"last": np.full((3, 3, 2, 3), np.nan)}, "last= has values that are not finite"),
        ({"first": "abc"}, "first= is a built Keras layer, or an array of real numbers"),
        ({"first": layers.Conv2D}, "first= is a built Keras layer, or an array of real numbers"),
        ({"first": KERNEL * 1j}, "first= is a built Keras layer, or an array of real numbers"),
        ({"first": layers.Conv2D(3, 2)}, "build it"),
        ({"first": built(layers.Conv2D(3, 2, activation="relu"), 2, 2)}, "an activation"),
        ({"first": built(layers.Conv1D(3, 2), 2, 1)}, "no single convolution"),
        ({"first": built(layers.Conv2DTranspose(3, 2, strides=2), 2, 2)}, "not transposed"),
        ({"first": layers.AveragePooling2D(2, padding="same")}, "padding='valid'"),
        (
            {"first": layers.AveragePooling2D(2), "strides": 3},
            "strides (2, 2). Received: strides=3",
        ),
        ({"first": layers.MaxPooling2D(2)}, "a maximum of several samples is not linear"),
        ({"first": built(layers.Flatten(), 2, 2)}, "no single convolution"),
    ],
)
def test_an_argument_that_does_not_fit_is_refused(arguments: Any, words: str) -> None:
    with pytest.raises(FoldError) as refusal:
        deconvolve(KERNEL, **arguments)
    assert words in str(refusal.value)


@pytest.mark.parametrize("kernel", ["x", KERNEL * 1j, built(layers.Conv2D(3, 3), 2, 2)], ids=type)
def test_a_kernel_that_is_no_array_of_real_numbers_is_refused(kernel: Any) -> None:
    with pytest.raises(FoldError, match=r"kernel= is an array of real numbers\. Received: .{,40}$"):
        deconvolve(kernel, first=KERNEL)


@pytest.mark.parametrize("kernel", [np.ones((2, 2)), np.ones((0, 2, 2)), np.ones((1,) * 6)])
def test_what_is_no_kernel_is_refused(kernel: np.ndarray) -> None:
    with pytest.raises(FoldError, match="one to three axes"):
        deconvolve(kernel, first=kernel)

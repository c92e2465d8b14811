"""Pointwise kernels of low rank as stored: the rule in loops, and what nearly is of low rank."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasfold import Refused
from kerasfold.algebra.axis import Axis
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.inverse.skeleton import thin
from laws.oracle import apply_windows, assert_close


def numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-3, 4, shape).astype("float64")


def columns_again(rng: np.random.Generator, rows: int, columns: int, rank: int) -> np.ndarray:
    """Columns that each are one of a few."""
    few = rng.normal(size=(rows, rank)).astype("float32").astype("float64")
    return few[:, rng.integers(0, rank, columns)]


def pointwise(matrix: np.ndarray, stride: int = 1) -> Operator:
    axes = (Axis(6, stride=stride).tight(), Axis(5, stride=stride).tight())
    geometry = Geometry(axes, matrix.shape, biased=True)
    return Operator(geometry, matrix.reshape(geometry.kernel_shape), np.arange(matrix.shape[1]))


def matrices(operator: Operator, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    ((first, last),) = thin(operator, dtype)
    return first.kernel[0, 0], last.kernel[0, 0]


def assert_as_stored(product: np.ndarray, matrix: np.ndarray, dtype: str = "float32") -> None:
    """Each number within one unit in its last place, and no zero larger than it may be."""
    largest = np.abs(matrix).max()
    for p, s in zip(product.flat, matrix.flat, strict=True):
        unit = float(np.spacing(np.abs(np.asarray(s, dtype)))) if s else 1e-12 * largest
        assert abs(p - s) <= unit


@given(st.integers(0, 999), st.integers(1, 3), st.integers(24, 40), st.integers(24, 40))
@settings(max_examples=40, deadline=None)
def test_sums_of_a_few_columns_are_two_thin_kernels(
    seed: int, rank: int, rows: int, columns: int
) -> None:
    rng = np.random.default_rng(seed)
    matrix = numbers(rng, rows, rank) @ numbers(rng, rank, columns)
    first, last = matrices(pointwise(matrix))
    assert first.shape[1] <= 2 * rank
    assert_as_stored(first @ last, matrix)
    for kernel in (first, last):
        assert np.array_equal(kernel, kernel.astype("float32"))


@pytest.mark.parametrize("turned", [False, True])
def test_columns_or_rows_that_are_equal_are_kept_once(turned: bool) -> None:
    matrix = columns_again(np.random.default_rng(0), 40, 48, 7)
    matrix = matrix.T if turned else matrix
    first, last = matrices(pointwise(matrix))
    assert first.shape[1] == 7
    assert np.array_equal(first @ last, matrix)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_steps_are_the_convolution(stride: int) -> None:
    rng = np.random.default_rng(2)
    operator = pointwise(numbers(rng, 24, 2) @ numbers(rng, 2, 24), stride)
    ((first, last),) = thin(operator, "float32")
    x = rng.normal(size=(6, 5, 24))
    assert_close(apply_windows(last @ first, x), apply_windows(operator, x))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_so_it_is_in_other_dtypes(dtype: str) -> None:
    matrix = columns_again(np.random.default_rng(0), 32, 32, 4)
    matrix = matrix.astype(dtype).astype("float64")
    first, last = matrices(pointwise(matrix), dtype)
    assert first.shape[1] == 4
    assert np.array_equal(first @ last, matrix)


def test_a_rank_of_one_is_found_though_it_is_rounded() -> None:
    rng = np.random.default_rng(1)
    column, row = (rng.normal(size=n).astype("float32") for n in (12, 13))
    matrix = np.outer(column, row).astype("float64")
    first, last = matrices(pointwise(matrix))
    assert first.shape[1] == 1
    assert_as_stored(first @ last, matrix)


def test_zeros_stay_zeros() -> None:
    rng = np.random.default_rng(3)
    matrix = numbers(rng, 32, 3) @ numbers(rng, 3, 32)
    assert np.any(matrix == 0)
    matrix[5], matrix[:, 7] = 0, 0
    first, last = matrices(pointwise(matrix))
    assert_as_stored(first @ last, matrix)


@pytest.mark.parametrize("seed", range(8))
def test_one_number_off_by_four_last_places_is_refused(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = numbers(rng, 32, 2) @ numbers(rng, 2, 32)
    place = tuple(np.argwhere(matrix)[seed])
    matrix[place] += 4 * float(np.spacing(np.abs(np.float32(matrix[place]))))
    with pytest.raises(Refused, match="only nearly"):
        list(thin(pointwise(matrix), "float32"))


@pytest.mark.parametrize("shape", [(64, 64), (512, 128), (30, 300)])
def test_random_kernels_are_refused_at_once(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kerasfold.inverse.skeleton._skeleton", None)
    matrix = np.random.default_rng(0).normal(size=shape)
    with pytest.raises(Refused, match="full rank"):
        list(thin(pointwise(matrix), "float32"))


def test_random_factors_are_rounded_to_more_than_a_rank() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(32, 2)) @ rng.normal(size=(2, 32))
    with pytest.raises(Refused, match="only nearly"):
        list(thin(pointwise(matrix.astype("float32").astype("float64")), "float32"))

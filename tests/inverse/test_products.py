"""Products as stored: the rule in loops, what is found, and what is off by a few last places."""

from __future__ import annotations

import numpy as np
import pytest

from kerasfold import Refused
from kerasfold.algebra.axis import Axis
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.inverse.numbers import Turned
from kerasfold.inverse.products import difference, distance, separated
from kerasfold.inverse.stored import rank_one, units_apart


def gaussian(taps: int, width: float, dtype: str = "float32") -> np.ndarray:
    t = np.arange(taps) - (taps - 1) / 2
    g = np.exp(-((t / width) ** 2) / 2)
    return np.outer(g, g / g.sum() ** 2).astype(dtype)


def apart(product: np.ndarray, stored: np.ndarray) -> float:
    """Units in the last place at the worst of the numbers that are not zero, one by one."""
    units = [0.0]
    for p, s in zip(product.flat, stored.flat, strict=True):
        if s:
            units.append(abs(p - float(s)) / float(np.spacing(abs(s))))
    return max(units)


@pytest.mark.parametrize(
    ("taps", "width"), [(3, 0.8), (7, 1.2), (15, 2.5), (25, 4), (31, 5), (31, 6.5), (41, 7)]
)
def test_a_gaussian_as_stored_is_a_column_times_a_row(taps: int, width: float) -> None:
    stored = gaussian(taps, width)
    column, row, units = rank_one(stored.astype("float64"), "float32")
    for numbers in (column, row):
        assert np.array_equal(numbers, numbers.astype("float32"))
    assert apart(np.outer(column, row), stored) == pytest.approx(units)
    assert units <= 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_so_it_is_in_other_dtypes(dtype: str) -> None:
    stored = gaussian(9, 2, "float64").astype(dtype).astype("float64")
    column, row, units = rank_one(stored, dtype)
    assert units == units_apart(np.outer(column, row), stored, dtype) <= 1
    for numbers in (column, row):
        assert np.array_equal(numbers, numbers.astype(dtype).astype("float64"))


def test_a_product_of_what_the_dtype_holds_is_found_again() -> None:
    rng = np.random.default_rng(0)
    column, row = (rng.normal(size=n).astype("float32") for n in (25, 27))
    assert rank_one(np.outer(column, row).astype("float64"), "float32").units <= 1


@pytest.mark.parametrize("size", [1e-150, 1e-280, 1e150, 1e280])
def test_no_square_of_small_or_large_numbers_is_lost(size: float) -> None:
    rng = np.random.default_rng(0)
    column, row = rng.integers(1, 9, 5) * np.sqrt(size), rng.integers(1, 9, 6) * np.sqrt(size)
    stored = np.outer(column, row)
    found = rank_one(stored, "float64")
    assert units_apart(np.outer(found.column, found.row), stored, "float64") == found.units <= 1


def test_numbers_too_small_for_all_their_digits_are_no_hindrance() -> None:
    stored = gaussian(31, 1.5)
    assert 0 < np.min(stored[stored > 0]) < np.finfo("float32").tiny or np.any(stored == 0)
    column, row, _ = rank_one(stored.astype("float64"), "float32")
    product = np.outer(column, row)
    assert apart(product, stored) <= 1
    assert np.all(np.abs(product[stored == 0]) <= 1e-12 * stored.max())


def test_binomials_are_exactly_a_product() -> None:
    binomial = np.array([1.0, 4, 6, 4, 1]) / 16
    assert rank_one(np.outer(binomial, binomial), "float32").units == 0


@pytest.mark.parametrize("seed", range(8))
def test_four_last_places_off_is_no_product(seed: int) -> None:
    rng = np.random.default_rng(seed)
    stored = gaussian(15, 2.5)
    place = tuple(rng.integers(0, 15, 2))
    stored[place] += 4 * np.spacing(stored[place])
    with pytest.raises(Refused, match="product of two"):
        rank_one(stored.astype("float64"), "float32")


def test_a_zero_where_none_belongs_is_no_product() -> None:
    stored = gaussian(15, 2.5)
    stored[7, 7] = 0
    with pytest.raises(Refused, match="no product of two"):
        rank_one(stored.astype("float64"), "float32")


def convolution(kernel: np.ndarray, groups: int = 1, **axis: int) -> Operator:
    *taps, width, outputs = kernel.shape
    axes = tuple(Axis(20, n, pad=(n // 2, n // 2), **axis).tight() for n in taps)
    geometry = Geometry(axes, (width * groups, outputs), groups, True)
    return Operator(geometry, kernel.astype("float64"), np.arange(1.0, outputs + 1))


def assert_products(operator: Operator, ways: int) -> None:
    found = list(separated(operator, "float32"))
    assert len(found) == ways
    for pair in found:
        assert distance((operator,), pair, "float32") <= 1
        less = difference((operator,), pair)
        assert np.max(np.abs(less.kernel)) <= 2e-7 * np.max(np.abs(operator.kernel))
        assert not less.bias.any()


def test_depthwise_windows_come_apart_along_each_axis() -> None:
    kernel = np.stack([gaussian(7, 1.2), gaussian(7, 2)], axis=-1)[:, :, None]
    assert_products(convolution(kernel, groups=2), ways=4)


def test_with_a_multiplier() -> None:
    kernel = np.stack([gaussian(7, w) for w in (1, 1.2, 1.5, 2)], axis=-1)[:, :, None]
    assert_products(convolution(kernel, groups=2), ways=4)


def test_with_strides_in_either_step() -> None:
    kernel = np.stack([gaussian(7, 1.2), gaussian(7, 2)], axis=-1)[:, :, None]
    assert_products(convolution(kernel, groups=2, stride=2), ways=8)


@pytest.mark.parametrize("axes", [{}, {"stride": 2}, {"dilation": 2}])
def test_a_window_along_the_first_axis_is_turned_too(axes: dict[str, int]) -> None:
    kernel = np.stack([gaussian(5, 1.2), gaussian(5, 2)], axis=-1)[:, :, None]
    operator = convolution(kernel[:, :4], groups=2, **axes)
    for pair in separated(operator, "float32"):
        for step in pair:
            if not isinstance(step, Turned):
                continue
            tall, row = step.operator.geometry, step.inner.geometry
            assert (tall.taps, row.taps) == ((5, 1), (1, 5))
            assert row.axes == tall.axes[::-1]
            assert np.array_equal(step.inner.kernel[0], step.operator.kernel[:, 0])


def test_windows_of_a_vector_are_not_turned() -> None:
    geometry = Geometry((Axis(5, 5), Axis(1)), (2, 2), 2, vector=True)
    operator = Operator(geometry, np.ones((5, 1, 1, 2)), np.zeros(2))
    with pytest.raises(Refused, match="no two axes"):
        _ = Turned(operator).inner


def test_in_three_axes() -> None:
    g = np.array([1.0, 2, 1])
    assert_products(convolution(np.einsum("i,j,k->ijk", g, g, g)[..., None, None]), ways=3)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_window_of_each_input_channel_before_what_mixes_them(groups: int) -> None:
    rng = np.random.default_rng(1)
    windows, mixing = rng.integers(1, 9, (3, 3, 4)), rng.integers(-8, 9, (4 // groups, 6))
    kernel = np.empty((3, 3, 4 // groups, 6))
    for i, o in np.ndindex(4 // groups, 6):
        first = o * groups // 6 * (4 // groups)
        kernel[..., i, o] = windows[..., first + i] * mixing[i, o]
    assert_products(convolution(kernel, groups), ways=1)


def test_a_window_of_each_output_channel_behind_what_mixes_the_inputs() -> None:
    rng = np.random.default_rng(2)
    windows, mixing = rng.integers(1, 9, (3, 3, 6)), rng.integers(1, 9, (4, 6))
    assert_products(convolution(windows[:, :, None, :] * mixing), ways=1)


def test_no_product() -> None:
    kernel = np.random.default_rng(3).normal(size=(5, 5, 2, 3))
    with pytest.raises(Refused, match="no product of two"):
        next(separated(convolution(kernel), "float32"))
    with pytest.raises(Refused, match="along one axis"):
        next(separated(convolution(kernel[:1, :, :1], groups=3), "float32"))

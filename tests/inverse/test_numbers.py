"""What numbers show exactly: each law against loops, and where it nearly holds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kerasfold import Refused
from kerasfold.algebra.axis import Axis
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.inverse.numbers import (
    Mean,
    Selection,
    averaged,
    blocked,
    dilated,
    operator_of,
    selected,
    trimmed,
    within,
)
from laws.oracle import apply_windows, assert_close

SEEDS = pytest.mark.parametrize("seed", range(12))
Numbers = Callable[[np.random.Generator, np.ndarray], None]


def drawn(seed: int, spoil: Numbers, groups: int = 1, **fixed: object) -> Operator:
    """A convolution of random sizes, with numbers that `spoil` changes in place."""
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, 4))
    axes = tuple(
        Axis(
            int(rng.integers(9, 13)),
            taps=int(rng.integers(3, 6)),
            stride=int(rng.integers(1, 3)),
            pad=(int(rng.integers(0, 3)), int(rng.integers(0, 3))),
        ).tight()
        for _ in range(rank)
    )
    geometry = Geometry(axes, (4, 8), groups, True)
    kernel = rng.normal(size=geometry.kernel_shape)
    spoil(rng, kernel)
    return Operator(geometry, kernel, rng.normal(size=8))


def assert_same(steps: tuple, operator: Operator, seed: int) -> None:
    sizes = [axis.size for axis in operator.geometry.axes]
    x = np.random.default_rng(seed).normal(size=(*sizes, operator.geometry.channels[0]))
    assert_close(apply_windows(operator_of(steps), x), apply_windows(operator, x))


def zeros_around(rng: np.random.Generator, kernel: np.ndarray) -> None:
    kernel[0], kernel[-1] = 0, 0


def zeros_between(rng: np.random.Generator, kernel: np.ndarray) -> None:
    kernel[1::2] = 0
    kernel[0], kernel[-1] = 1, 1 if len(kernel) % 2 else 0


@SEEDS
def test_outer_zeros_are_trimmed(seed: int) -> None:
    operator = drawn(seed, zeros_around)
    (found,) = trimmed(operator)
    assert found.geometry.taps[0] <= operator.geometry.taps[0] - 2
    assert_same((found,), operator, seed)


@SEEDS
def test_one_number_keeps_an_outer_tap(seed: int) -> None:
    def nearly(rng: np.random.Generator, kernel: np.ndarray) -> None:
        kernel[0] = 0
        kernel.reshape(len(kernel), -1)[0, -1] = 1e-30

    with pytest.raises(Refused, match="outer taps that are not zeros"):
        trimmed(drawn(seed, nearly))


def of_few_pixels(seed: int) -> Operator:
    """A convolution of images that are mostly smaller than its kernel."""
    rng = np.random.default_rng(seed)
    axes = tuple(
        Axis(
            int(rng.integers(1, 4)),
            taps=(taps := int(rng.integers(2, 7))),
            stride=int(rng.integers(1, 3)),
            dilation=(dilation := int(rng.integers(1, 3))),
            upsampling=int(rng.integers(1, 3)),
            pad=tuple(int(n) for n in dilation * (taps - 1) // 2 + rng.integers(0, 3, 2)),
        ).tight()
        for _ in range(int(rng.integers(1, 4)))
    )
    geometry = Geometry(axes, (4, 8), 2, True)
    return Operator(geometry, rng.normal(size=geometry.kernel_shape), rng.normal(size=8))


def has_idle_taps(operator: Operator) -> bool:
    try:
        return any(axis.trimmed()[0] != axis for axis in operator.geometry.axes)
    except Refused:
        return False  # it reads nothing at all


@pytest.mark.parametrize("seed", [n for n in range(60) if has_idle_taps(of_few_pixels(n))])
def test_taps_that_read_no_pixel_go(seed: int) -> None:
    operator = of_few_pixels(seed)
    (found,) = within(operator)
    assert isinstance(found, Operator)
    assert found.kernel.size < operator.kernel.size
    assert_same((found,), operator, seed)


@pytest.mark.parametrize(("size", "taps"), [(1, 1), (2, 3), (3, None), (None, None)])
def test_of_five_taps_those_stay_that_read_a_pixel(size: int | None, taps: int | None) -> None:
    axis = Axis(size, 5, pad=(2, 2))
    operator = Operator(Geometry((axis,), (2, 3)), np.ones((5, 2, 3)), np.zeros(3))
    if taps is None:
        with pytest.raises(Refused):
            within(operator)
    else:
        (found,) = within(operator)
        assert isinstance(found, Operator)
        assert found.geometry.taps == (taps,)


@SEEDS
def test_zeros_between_taps_are_a_dilation(seed: int) -> None:
    def spoil(rng: np.random.Generator, kernel: np.ndarray) -> None:
        kernel[1::2] = 0
        if len(kernel) % 2 == 0:
            kernel[:] = 1

    operator = drawn(seed, spoil)
    if operator.geometry.taps[0] % 2 == 0:
        pytest.skip("as many taps as there are no zeros between")
    (found,) = dilated(operator)
    assert found.geometry.axes[0].dilation == (4 if operator.geometry.taps[0] == 1 else 2)
    assert_same((found,), operator, seed)


@SEEDS
def test_one_number_between_taps_is_no_dilation(seed: int) -> None:
    def nearly(rng: np.random.Generator, kernel: np.ndarray) -> None:
        kernel[1:-1] = 0
        kernel.reshape(len(kernel), -1)[1, 0] = 1e-30

    with pytest.raises(Refused, match="no zeros between them"):
        dilated(drawn(seed, nearly))


@SEEDS
@pytest.mark.parametrize("groups", [2, 4])
def test_blocks_are_groups(seed: int, groups: int) -> None:
    def spoil(rng: np.random.Generator, kernel: np.ndarray) -> None:
        for i, o in np.ndindex(4, 8):
            if i * groups // 4 != o * groups // 8:
                kernel[..., i, o] = 0

    operator = drawn(seed, spoil)
    (found,) = blocked(operator)
    assert found.geometry.groups == groups
    assert_same((found,), operator, seed)


@SEEDS
def test_blocks_within_groups_are_more_groups(seed: int) -> None:
    def spoil(rng: np.random.Generator, kernel: np.ndarray) -> None:
        kernel[..., 0, [2, 3, 6, 7]] = 0
        kernel[..., 1, [0, 1, 4, 5]] = 0

    operator = drawn(seed, spoil, groups=2)
    (found,) = blocked(operator)
    assert found.geometry.groups == 4
    assert_same((found,), operator, seed)


@SEEDS
def test_a_number_outside_its_block_keeps_channels_together(seed: int) -> None:
    def nearly(rng: np.random.Generator, kernel: np.ndarray) -> None:
        kernel[..., :2, 4:], kernel[..., 2:, :4] = 0, 0
        kernel.reshape(-1, 4, 8)[0, 0, 7] = 1e-30

    with pytest.raises(Refused, match="of other blocks"):
        blocked(drawn(seed, nearly))


def pointwise(matrix: np.ndarray, groups: int = 1) -> Operator:
    geometry = Geometry((Axis(5), Axis(None)), (len(matrix) * groups, matrix.shape[1]), groups)
    return Operator(geometry, matrix[None, None], np.zeros(matrix.shape[1]))


@SEEDS
def test_a_permutation_is_a_selection(seed: int) -> None:
    channels = np.random.default_rng(seed).permutation(6)
    (found,) = selected(pointwise(np.eye(6)[:, channels]))
    assert isinstance(found, Selection)
    assert found.channels == tuple(channels)


def test_the_same_in_groups() -> None:
    (found,) = selected(pointwise(np.array([[0.0, 1, 1, 0], [1, 0, 0, 1]]), groups=2))
    assert found.channels == (1, 0, 2, 3)


@pytest.mark.parametrize(
    ("matrix", "why"),
    [
        (np.eye(4) + 1e-30, "the sum of several"),
        (np.diag([1, 1, 1, 1 + 1e-15]), "not handed on as it is"),
        (np.diag([1.0, 1, 1, -1]), "not handed on as it is"),
        (np.diag([1.0, 1, 1, 0]), "the sum of several, or none"),
    ],
)
def test_nearly_a_selection(matrix: np.ndarray, why: str) -> None:
    with pytest.raises(Refused, match=why):
        selected(pointwise(matrix))


@SEEDS
def test_equal_taps_are_a_mean(seed: int) -> None:
    def spoil(rng: np.random.Generator, kernel: np.ndarray) -> None:
        kernel[...] = kernel.reshape(-1, *kernel.shape[-2:])[0]

    operator = drawn(seed, spoil)
    steps = averaged(operator)
    assert isinstance(steps[0], Mean)
    assert_same(steps, operator, seed)


@SEEDS
def test_one_tap_that_differs_makes_no_mean(seed: int) -> None:
    def nearly(rng: np.random.Generator, kernel: np.ndarray) -> None:
        kernel[...] = 1
        kernel.flat[-1] = 1 + 1e-15

    with pytest.raises(Refused, match="not all alike"):
        averaged(drawn(seed, nearly))


def test_of_zeros_no_mean_is_taken() -> None:
    geometry = Geometry((Axis(6, taps=2), Axis(5, taps=3)), (3, 3), 3)
    with pytest.raises(Refused, match="all zeros"):
        averaged(Operator(geometry, np.zeros((2, 3, 1, 3)), np.zeros(3)))


def test_a_mean_of_each_channel_keeps_its_gain_and_its_bias() -> None:
    geometry = Geometry((Axis(6, taps=2), Axis(5, taps=3)), (3, 3), 3, True)
    gains, bias = np.array([1 / 6, 2.0, -1.0]), np.array([0.0, 1.0, 2.0])
    operator = Operator(geometry, np.broadcast_to(gains, (2, 3, 1, 3)), bias)
    (found,) = averaged(operator)
    assert found.gain.tolist() == [1, 12, -6]
    assert_same((found,), operator, 0)

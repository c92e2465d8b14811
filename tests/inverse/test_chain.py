"""Chains of smaller convolutions: found where there are any, and the nearest where not."""

import functools

import numpy as np
import pytest

from kerasfold import factor
from kerasfold.inverse.polynomials import factors, times
from zoo.forms import chain_of, links

ONE_CHANNEL = [
    [(3,), (3,)],
    [(2,), (4,), (3,)],
    [(17,), (17,)],
    [(3, 3), (3, 3)],
    [(2, 4), (4, 2)],
    [(5, 5), (5, 5)],
    [(2, 2), (2, 2), (2, 2)],
    [(1, 3), (3, 3), (3, 1)],
]


@pytest.mark.parametrize("sizes", ONE_CHANNEL, ids=str)
def test_one_channel_is_found_from_nothing(sizes):
    for seed in range(5):
        made = links(np.random.default_rng(seed), sizes, (1,) * (len(sizes) + 1))
        found = factor(chain_of(made), "chain", sizes=sizes)
        assert found.exact
        assert [kernel.shape for kernel in found.kernels] == [(*size, 1, 1) for size in sizes]


def test_a_chain_that_was_rounded_to_float32_is_found_to_that():
    made = links(np.random.default_rng(0), [(3, 3), (3, 3)], (1, 1, 1))
    found = factor(chain_of(made).astype("float32"), "chain", tolerance=1e-6)
    assert 1e-12 < found.relative_error < 1e-6
    assert not found.exact


@pytest.mark.parametrize(
    ("sizes", "channels"),
    [
        ([(3,), (3,)], (3, 2, 3)),
        ([(3, 3), (3, 3)], (2, 3, 2)),
        ([(3, 3), (3, 3)], (4, 4, 4)),
        ([(2, 2), (3, 3), (2, 2)], (2, 2, 2, 2)),
        ([(2, 2, 2), (2, 2, 2)], (2, 2, 2)),
    ],
    ids=str,
)
def test_several_channels_are_found_from_nearby(sizes, channels):
    rng = np.random.default_rng(0)
    for _ in range(5):
        made = links(rng, sizes, channels)
        start = [kernel * (1 + 0.1 * rng.uniform(-1, 1, kernel.shape)) for kernel in made]
        found = factor(chain_of(made), "chain", sizes=sizes, start=start)
        assert found.exact


def test_several_channels_are_found_from_nothing_where_the_search_gets_there():
    made = links(np.random.default_rng(0), [(3, 3), (3, 3)], (3, 2, 3))
    found = factor(chain_of(made), "chain")
    assert found.exact
    assert [kernel.shape for kernel in found.kernels] == [(3, 3, 3, 2), (3, 3, 2, 3)]


def test_a_kernel_that_is_no_chain_has_one_of_more_filters():
    kernel = np.random.default_rng(0).standard_normal((3, 3, 1, 1))
    one = factor(kernel, "chain", sizes=(2, 2), filters=1, restarts=5)
    several = factor(kernel, "chain", sizes=(2, 2), restarts=5)
    assert not one.exact
    assert 0.01 < one.relative_error < 1
    assert several.exact
    assert several.kernels[0].shape[-1] > 1


def test_without_real_factors_the_nearest_are_given():
    """Of (a + b x) (c + d x), with real numbers, none is nearer to 1 + x^2 than 1, or x^2."""
    found = factor(np.array([1.0, 0, 1])[:, None, None], "chain", sizes=(2, 2), filters=1)
    assert not found.exact
    assert np.isclose(found.relative_error, np.sqrt(0.5))


SQUARE = np.array([[1.0, 2, 0], [3, 1, 1], [0, 2, 2]])


@pytest.mark.parametrize(
    "made",
    [
        [np.outer([1, 2, 1], [1, 2, 1])] * 2,
        [SQUARE] * 2,
        [np.pad([[1.0, 2], [3, 4]], ((1, 0), (0, 1))), np.eye(3)],
    ],
    ids=["binomial", "square", "border of zeros"],
)
def test_factors_that_divide_more_than_once_and_powers_of_a_variable(made):
    kernel = chain_of([link[..., None, None] for link in made])
    assert factor(kernel, "chain", sizes=(3, 3), filters=1).exact


def test_the_same_seed_gives_the_same_chain():
    kernel = np.random.default_rng(0).standard_normal((3, 3, 2, 2))
    options = {"sizes": (2, 2), "filters": 2, "restarts": 2, "budget": 60.0}
    first, second, other = (factor(kernel, "chain", seed=s, **options) for s in (1, 1, 2))
    assert np.array_equal(first.kernels[0], second.kernels[0])
    assert not np.array_equal(first.kernels[0], other.kernels[0])


@pytest.mark.parametrize("first", [np.zeros((2, 1, 1)), np.array([0.0, 1])[:, None, None]])
def test_a_start_that_leads_nowhere_is_one_of_many(first):
    """Of zeros, or with nothing in common with the kernel."""
    kernel = np.array([1.0, 3, 2, 0])[:, None, None]
    last = np.array([0.0, 0, 1])[:, None, None]
    assert factor(kernel, "chain", sizes=(2, 3), start=[first, last]).exact


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_the_size_of_a_start_plays_no_part(size):
    made = links(np.random.default_rng(0), [(3,), (3,)], (2, 2, 2))
    assert factor(chain_of(made), "chain", start=[link * size for link in made], restarts=1).exact


@pytest.mark.parametrize("shape", [(26, 26), (626,)], ids=str)
def test_a_polynomial_that_would_take_minutes_is_its_only_factor(shape):
    whole = np.random.default_rng(0).standard_normal(shape)
    assert [f.shape for f in factors(whole)] == [shape]


def test_time_that_is_over_still_gives_a_chain():
    kernel = np.random.default_rng(0).standard_normal((5, 5, 2, 2))
    found = factor(kernel, "chain", filters=2, budget=0.0)
    assert 0 < found.relative_error < 1


def test_a_long_chain_of_many_channels_goes_without_gauss_newton(monkeypatch):
    monkeypatch.setattr("kerasfold.inverse.descent.WORK", 0)
    rng = np.random.default_rng(0)
    made = links(rng, [(2, 2), (2, 2)], (3, 1, 3))
    found = factor(chain_of(made), "chain", sizes=(2, 2), filters=1, tolerance=1e-3)
    assert found.relative_error <= 1e-3


def test_factors_of_a_polynomial_multiply_to_it():
    shapes = [(1, 3), (2, 1), (2, 2), (3, 2)]
    rng = np.random.default_rng(0)
    whole = functools.reduce(times, [rng.standard_normal(shape) for shape in shapes])
    found = factors(whole)
    product = functools.reduce(times, found)
    assert sorted(f.shape for f in found) == shapes
    assert np.allclose(product * (np.vdot(product, whole) / np.vdot(product, product)), whole)


def test_an_irreducible_polynomial_is_its_only_factor():
    whole = np.random.default_rng(0).standard_normal((3, 4))
    (found,) = factors(whole)
    assert np.array_equal(found, whole)

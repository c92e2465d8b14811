"""The bound of an output's error holds, and is not far from what there is."""

from pathlib import Path

import keras
import numpy as np
import pytest

from kerasfold import factor
from kerasfold.inverse.bound import output_bound

DIGITS = Path(__file__).parents[2] / "examples" / "digits.keras"


def gain(kernel, size, steps=40):
    """What a convolution of an image makes of its norm, at most: by power iteration.

    Source: Golub and Van Loan, Matrix Computations, section 7.3.1, for the Gram matrix.
    """
    *taps, inputs, _ = kernel.shape
    full = [size + k - 1 for k in taps]
    axes = tuple(range(len(taps)))
    of_kernel = np.fft.rfftn(kernel, full, axes)
    window = tuple(slice(0, size) for _ in taps)
    x = np.random.default_rng(0).standard_normal((*(size,) * len(taps), inputs))
    for _ in range(steps):
        x /= np.linalg.norm(x)
        y = np.einsum("...io,...i->...o", of_kernel, np.fft.rfftn(x, full, axes))
        found = np.linalg.norm(np.fft.irfftn(y, full, axes))
        x = np.fft.irfftn(np.einsum("...io,...o->...i", of_kernel.conj(), y), full, axes)[window]
    return found


@pytest.mark.parametrize(
    "shape", [(2, 1, 1), (5, 3, 2), (3, 3, 2, 4), (1, 5, 1, 1), (2, 3, 2, 2, 1)]
)
def test_it_is_above_power_iteration_and_near(shape):
    for seed in range(2):
        kernel = np.random.default_rng(seed).standard_normal(shape)
        most, found = output_bound(kernel[None]), gain(kernel, (256, 32, 16)[len(shape) - 3])
        assert found <= most
        assert most < 1.1 * found


def test_the_largest_of_all_frequencies_may_lie_between_those_looked_at():
    for rate in np.linspace(0.5, 1, 7):
        kernel = np.cos(rate * np.arange(6))[:, None, None]
        fine = np.abs(np.fft.fft(kernel[:, 0, 0], 2**14)).max()
        assert fine <= output_bound(kernel[None]) <= 1.03 * fine


def test_a_large_one_is_bounded_without_its_frequencies(monkeypatch):
    kernel = np.random.default_rng(0).standard_normal((3, 3, 2, 4))
    near = output_bound(kernel[None])
    monkeypatch.setattr("kerasfold.inverse.bound.WORK", 0)
    assert output_bound(kernel[None]) >= near


def test_channels_apart_are_bounded_by_the_largest():
    kernel = np.random.default_rng(0).standard_normal((3, 3, 3, 1))
    each = [output_bound(kernel[None, ..., c : c + 1, :]) for c in range(3)]
    assert np.isclose(output_bound(np.moveaxis(kernel, -2, 0)[..., None, :]), max(each))


FORMS = {
    "spatial": {"rank": 6},
    "separable": {"multiplier": 2},
    "bottleneck": {"ranks": (6, 6)},
    "chain": {"sizes": ((3, 1), (1, 3)), "filters": 4, "restarts": 1, "budget": 2.0},
    "pool": {"pool_size": 2},
    "dilated": {"dilation": 2},
}


@pytest.fixture(scope="module")
def trained():
    """A few kernels of a trained net."""
    model = keras.models.load_model(DIGITS)
    return [model.get_layer(name).get_weights()[0] for name in ("block1a_3x3", "block2a_3x3")]


@pytest.mark.parametrize("into", FORMS)
def test_kernels_of_a_trained_net_miss_what_is_stated(into, trained):
    for kernel in trained:
        found = factor(kernel, into, **FORMS[into])
        missed = kernel - found.compose()
        assert np.isclose(found.relative_error, np.linalg.norm(missed) / np.linalg.norm(kernel))
        assert gain(missed, 16) <= found.bound
        assert found.exact == (found.relative_error <= 1e-12)


@pytest.mark.parametrize("into", ["spatial", "separable", "bottleneck"])
def test_kernels_of_a_trained_net_are_taken_apart_exactly_at_full_rank(into, trained):
    for kernel in trained:
        assert factor(kernel, into).exact

"""The forms that the articles collapse chains into, and rewrite them as."""

import keras
import numpy as np
import pytest
from rewritings import CHAINS, drawn, model_of, whole, windows

import kerasfold
from zoo.articles import FLOAT64, agree, has_form, run, seeds, shifted, with_a_wrong_kernel
from zoo.same import FLOAT32, assert_same, float32_bound, in_float64

STEPS = dict.fromkeys(words for chain in CHAINS for words in chain.steps)


@pytest.mark.parametrize("words", STEPS)
def test_every_rewriting_has_the_window_of_its_layers(words):
    """Whatever their weights: those of most steps are special, and made in `rewritings`."""
    layers = drawn(words, 1, np.random.default_rng(0))
    window = whole([layer.window for layer in layers])[-1]
    model = model_of(layers, window.size + 2 * window.stride)
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert has_form(folded, window.size, window.stride)
    assert_same(model, folded, FLOAT32)


def test_every_step_of_a_chain_has_one_window():
    for chain in CHAINS:
        assert len({whole(windows(words))[-1] for words in chain.steps}) == 1, chain.about


@pytest.fixture(params=["float32", "float64"])
def precision(request):
    """A float type for everything that a test builds, with the rounding to expect, if known."""
    usual = keras.config.floatx()
    keras.config.set_floatx(request.param)
    keras.config.set_dtype_policy(request.param)
    yield {"float32": FLOAT32, "float64": FLOAT64}[request.param]
    keras.config.set_floatx(usual)
    keras.config.set_dtype_policy(usual)


@pytest.mark.parametrize("channels", seeds.CHANNELS)
@pytest.mark.parametrize("seed", seeds.SEEDS, ids=lambda seed: seed.name)
def test_collapsed_form(seed, channels, precision):
    keras.utils.set_random_seed(0)
    model = seed.build(channels)
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert has_form(folded, seed.kernel, seed.stride)
    x = np.random.default_rng(1).standard_normal((2, *model.input_shape[1:])).astype(model.dtype)
    truth = run(in_float64(model), x)
    tolerance = precision or float32_bound(truth, run(model, x)) / np.abs(truth).max()
    assert agree(run(folded, x), truth, tolerance)
    assert not agree(run(folded, shifted(x)), truth, tolerance)
    assert not agree(run(with_a_wrong_kernel(folded), x), truth, tolerance)

"""The forms that the articles collapse chains into, and rewrite them as."""

import keras
import numpy as np
import pytest

import kerasfold
from zoo.articles import FLOAT64, agree, has_form, run, seeds, shifted, with_a_wrong_kernel
from zoo.same import FLOAT32, assert_same, float32_bound, in_float64

# Sections 6 to 8 rewrite chains, with weights that are only approximately the same; that
# every rewriting has the window it claims is exact. '6/2' is a 6x6 kernel with stride 2.
REWRITINGS = {
    (8, 2): """
        3 avg2 3
        3 6/2
        8/2""",
    (18, 4): """
        3 avg2 3 avg2 3
        3 6/2 6/2
        3 5 2/2 6 1/2
        3 5 12/2 1/2
        3 5 9 4/4
        3 5 9 avg4
        18/4
        15 avg4
        4/2 4/2 3""",
    (15, 4): """
        3/2 3/2 3
        2 2/2 2 2/2 3
        2 4/2 6/2
        2 3 2/2 6/2
        2 3 12/4
        2 3 9 4/4
        2 3 9 avg4""",
    (78, 16): """
        3 6/2 6/2 6/2 6/2
        3 5 2/2 5 2/2 5 2/2 6 1/2
        3 5 10/2 10/2 12/2 1/2
        3 5 9 2/2 9 2/2 12 1/4
        3 5 9 18/2 24/2 1/4
        3 5 9 17 2/2 24 1/8
        3 5 9 17 48/2 1/8
        3 5 9 17 33 16/16
        63 avg16
        78/16
        4/2 4/2 4/2 4/2 3""",
    (63, 16): """
        3/2 3/2 3/2 3/2 3
        2 2/2 2 2/2 2 2/2 2 2/2 3
        2 4/2 4/2 4/2 6/2
        2 3 2/2 3 2/2 3 2/2 6 1/2
        2 3 6/2 6/2 12/2 1/2
        2 3 5 2/2 5 2/2 12 1/4
        2 3 5 10/2 24/2 1/4
        2 3 5 9 2/2 24 1/8
        2 3 5 9 48/2 1/8
        2 3 5 9 33 16/16""",
    (47, 16): """
        3/2 3/2 3/2 3/2 2""",
}


def written(word):
    """The layer that '6', '6/2' or 'avg2' stands for."""
    if word.startswith("avg"):
        return seeds.pool(int(word.removeprefix("avg")))
    return seeds.conv(*map(int, word.split("/")))


@pytest.mark.parametrize(
    ("words", "kernel", "stride"),
    [
        pytest.param(line.split(), *form, id=line.strip())
        for form, lines in REWRITINGS.items()
        for line in lines.strip().splitlines()
    ],
)
def test_rewritings_of_sections_5_to_8(words, kernel, stride):
    model = seeds.chain(kernel + 2 * stride, *map(written, words))(1)
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert has_form(folded, kernel, stride)
    assert_same(model, folded, FLOAT32)


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
    folded = kerasfold.fold(model, objective="layers")
    assert has_form(folded, seed.kernel, seed.stride)
    x = np.random.default_rng(1).standard_normal((2, *model.input_shape[1:])).astype(model.dtype)
    truth = run(in_float64(model), x)
    tolerance = precision or float32_bound(truth, run(model, x)) / np.abs(truth).max()
    assert agree(run(folded, x), truth, tolerance)
    assert not agree(run(folded, shifted(x)), truth, tolerance)
    assert not agree(run(with_a_wrong_kernel(folded), x), truth, tolerance)

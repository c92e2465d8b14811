"""What the examples print of the articles: every number, every chain of arrows, every block."""

from __future__ import annotations

import functools

import block_search
import numpy as np
import pytest
from block_search import CIFAR, QUICK, classifier, evaluation, ranks, sizes
from claims import CLAIMS, EXACT, transposed_is_no_inverse
from rewritings import CHAINS, Window, misses, walked

pytestmark = pytest.mark.usefixtures("float64")
LOSSY = {
    "any 5x5",
    "two strides",
    "any 4x4 with strides as poolings",
    "four strides",
}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.source}: {claim.about}")
def test_every_number_is_found(claim):
    found = claim.find()
    if claim.numbers:
        assert found.numbers == claim.numbers
    if found.difference is not None and claim.find is not transposed_is_no_inverse:
        assert found.difference < EXACT


def test_a_transposed_convolution_is_no_inverse():
    assert transposed_is_no_inverse().difference > 0.1


@functools.cache
def steps_of(about):
    """The steps of a chain, run once."""
    (chain,) = (chain for chain in CHAINS if chain.about == about)
    return walked(chain)


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: f"{chain.section}: {chain.about}")
def test_every_step_is_exact_or_not(chain):
    steps = steps_of(chain.about)
    assert [step.words for step in steps] == list(chain.steps)
    assert steps[0].difference == 0.0
    assert all(step.is_exact for step in steps[1:]) == (chain.about not in LOSSY)


def test_with_strides_nothing_is_lost_but_by_the_first_step():
    first, *others = steps_of("four strides")[1:]
    assert first.difference > 0.1
    for step in others:
        assert step.difference == pytest.approx(first.difference, rel=1e-9)


def test_with_poolings_every_step_is_exact_of_several_channels():
    chain = next(chain for chain in CHAINS if chain.about == "two poolings")
    assert all(step.is_exact for step in walked(chain, channels=3))


def test_a_chain_ends_with_the_weights_it_began_with():
    """Five kernels, of 9 weights that are not zero, each larger than the one before."""
    (step,) = (step for step in steps_of("two poolings") if step.words == "3 5 9 avg4")
    assert step.weights == (9 + 25 + 81, 3 * 9)


def test_random_and_trained_kernels_miss_their_factors():
    for miss in misses(count=5):
        assert len(miss.errors) == 5
        assert 0.0 < miss.errors[0] <= miss.errors[-1] < 1.0


def test_a_window_behind_another_is_one():
    assert Window.of("3/2").then(Window.of("avg2")) == Window.of("5/4")
    assert [str(Window.of(word)) for word in ("3", "6/2", "avg2")] == ["3", "6/2", "avg2"]


# The fourth article's search.

PRINTED = [
    (("separable", "separable", "depthwise"), 0.2407, 236_810, 0.8067),
    (("separable", "separable", "separable"), 0.2598, 322_826, 0.8048),
    (("conv", "depthwise", "depthwise"), 0.3283, 834_890, 0.8387),
    (("conv", "separable", "separable"), 0.3586, 1_006_922, 0.8428),
    (("conv", "separable", "separable"), 0.3590, 1_006_922, 0.8424),
]


@pytest.mark.parametrize(("block", "value", "weights", "accuracy"), PRINTED)
def test_the_evaluations_that_the_article_prints(block, value, weights, accuracy):
    assert classifier(block).count_params() == weights
    assert round(evaluation(accuracy, weights), 4) == pytest.approx(value, abs=1e-4)


def test_27_blocks_on_images_of_cifar():
    assert len(set(block_search.BLOCKS)) == 27
    assert classifier(QUICK[0]).input_shape[1:] == CIFAR


def test_folding_takes_the_same_from_every_block():
    saved = [np.subtract(*sizes(block)).tolist() for block in QUICK]
    assert saved == [[7_168, 458_752]] * len(QUICK)


def test_equal_values_share_a_rank():
    assert ranks([3.0, 1.0, 3.0, 2.0]) == [3, 1, 3, 2]

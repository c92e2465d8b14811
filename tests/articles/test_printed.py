"""Every number that the first article, and the fourth, print for an exact identity.

Each is computed by the Keras model that the article writes down and by its fold. Where an
article computes it with SciPy, SciPy is asked as well.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
import scipy.signal as sp
from keras import layers
from skimage.measure import block_reduce

import kerasfold
from zoo.articles import (
    A1_1,
    A1_2,
    A1_3,
    A1_4,
    A1_5,
    A1_6,
    A2_2,
    A2_3,
    A2_5,
    A2_6,
    A3_5,
    A3_6,
    A4_6,
    A5_6,
    B1_1,
    B1_2,
    B1_4,
    B1_5,
    C1_1,
    C1_2,
    C1_4,
    C1_5,
    C2_2,
    C2_5,
    C3_5,
    D1_2,
    D1_3,
    D1_4,
    D1_5,
    E1_5,
    TRANSPOSED,
    agree,
    average,
    conv,
    counting,
    has_form,
    images,
    kernel_of,
    run,
    sequence,
    shifted,
    with_a_wrong_kernel,
)


class Printed(NamedTuple):
    """What an article prints for a model.

    Attributes:
        name: article, section, and the names printed there.
        build: the model.
        image: its input.
        output: its printed output.
        kernel: the printed kernel of the one layer that it collapses into, or None.
        stride: of that layer.
    """

    name: str
    build: Callable[[], keras.Model]
    image: np.ndarray
    output: np.ndarray
    kernel: np.ndarray | None = None
    stride: int = 1


PRINTED = [
    Printed("1.1-C1", lambda: sequence((7, 7, 1), conv(A1_1)), images(B1_1), images(C1_1), A1_1),
    Printed("1.2-C1", lambda: sequence((7, 7, 1), conv(A1_2)), images(B1_2), images(C1_2), A1_2),
    Printed(
        "1.2-C2-D1-E1",
        lambda: sequence((7, 7, 1), conv(A1_2), conv(A2_2)),
        images(B1_2),
        images(C2_2),
        D1_2,
    ),
    Printed(
        "1.4-C1-D2", lambda: sequence((8, 8, 1), average()), images(B1_4), images(C1_4), A1_4, 2
    ),
    Printed(
        "1.4-as-Conv2D",
        lambda: sequence((8, 8, 1), conv(A1_4, strides=2)),
        images(B1_4),
        images(C1_4),
        A1_4,
        2,
    ),
    Printed(
        "1.4-D1", lambda: sequence((8, 8, 1), average(strides=1)), images(B1_4), images(D1_4), A1_4
    ),
    Printed("1.5-C1", lambda: sequence((12, 12, 1), conv(A1_5)), images(B1_5), images(C1_5), A1_5),
    Printed(
        "1.5-C2", lambda: sequence((10, 10, 1), average()), images(C1_5), images(C2_5), A1_4, 2
    ),
    Printed(
        "1.5-A3",
        lambda: sequence((10, 10, 1), average(), conv(A2_5)),
        images(C1_5),
        images(C3_5),
        A3_5 / 4,
        2,
    ),
    Printed(
        "1.5-C3-D1-E2",
        lambda: sequence((12, 12, 1), conv(A1_5), average(), conv(A2_5)),
        images(B1_5),
        images(C3_5),
        D1_5 / 4,
        2,
    ),
    Printed(
        # Before its stride is taken: pooling one pixel apart, and A2's taps two.
        "1.5-E1",
        lambda: sequence((12, 12, 1), conv(A1_5), average(strides=1), conv(A2_5, dilation_rate=2)),
        images(B1_5),
        images(E1_5),
        D1_5 / 4,
    ),
    Printed(
        "4-Conv2D",
        lambda: sequence((3, 3, 2), (layers.Conv2D(3, 3, use_bias=False), counting(3, 3, 2, 3))),
        counting(1, 3, 3, 2) * 0.1,
        np.array([[[[598.5, 615.6, 632.7]]]]),
    ),
    Printed(
        "4-DepthwiseConv2D",
        lambda: sequence(
            (3, 3, 2), (layers.DepthwiseConv2D(3, use_bias=False), counting(3, 3, 2, 1))
        ),
        counting(1, 3, 3, 2) * 0.1,
        np.array([[[[96.9, 114.0]]]]),
    ),
    Printed(
        "4-SeparableConv2D",
        lambda: sequence(
            (3, 3, 1),
            (
                layers.SeparableConv2D(2, 3, use_bias=False),
                counting(3, 3, 1, 1),
                counting(1, 1, 1, 2) + 1,
            ),
        ),
        counting(1, 3, 3, 1) * 0.1,
        np.array([[[[57.0, 85.5]]]]),
    ),
    Printed(
        "4-SeparableConv2D-as-Conv2D",
        lambda: sequence(
            (3, 3, 1),
            (layers.Conv2D(2, 3, use_bias=False), counting(3, 3, 1, 1) * np.array([2, 3])),
        ),
        counting(1, 3, 3, 1) * 0.1,
        np.array([[[[57.0, 85.5]]]]),
    ),
    Printed(
        "4-Conv2DTranspose",
        lambda: sequence(
            (2, 2, 3), (layers.Conv2DTranspose(2, 3, use_bias=False), counting(3, 3, 2, 3))
        ),
        counting(1, 2, 2, 3) * 0.1,
        images(*TRANSPOSED),
    ),
]
WITH_KERNEL = [case for case in PRINTED if case.kernel is not None]
named = pytest.mark.parametrize("case", PRINTED, ids=lambda case: case.name)


@pytest.mark.parametrize("objective", ["latency", "layers"])
@named
def test_printed_output(case, objective):
    model = case.build()
    assert agree(run(model, case.image), case.output)
    assert agree(
        run(kerasfold.fold(model, objective=objective, verify=False), case.image), case.output
    )


@pytest.mark.parametrize("case", WITH_KERNEL, ids=lambda case: case.name)
def test_printed_kernel(case):
    folded = kerasfold.fold(case.build(), objective="layers", verify=False)
    assert has_form(folded, len(case.kernel), case.stride)
    assert np.array_equal(kernel_of(folded), case.kernel)
    assert folded.count_params() in (0, case.kernel.size)


@named
@pytest.mark.parametrize("fault", ["kernel entry + 1", "shifted stride"])
def test_planted_fault_in_a_printed_output_is_rejected(case, fault):
    folded = kerasfold.fold(case.build(), objective="layers", verify=False)
    image = case.image
    if fault == "shifted stride":
        image = shifted(image)
    else:
        folded = with_a_wrong_kernel(folded)
    assert not agree(run(folded, image), case.output)


@pytest.mark.parametrize("case", WITH_KERNEL, ids=lambda case: case.name)
def test_planted_fault_in_a_printed_kernel_is_rejected(case):
    folded = kerasfold.fold(case.build(), objective="layers", verify=False)
    assert not has_form(folded, len(case.kernel), case.stride + 1)
    assert not has_form(folded, len(case.kernel) + 1, case.stride)
    assert not np.array_equal(kernel_of(with_a_wrong_kernel(folded)), case.kernel)


def test_section_1_scipy():
    assert np.array_equal(sp.correlate2d(B1_1, A1_1, mode="valid"), C1_1)
    assert np.array_equal(sp.convolve2d(B1_1, A1_1[::-1, ::-1], mode="valid"), C1_1)


def test_section_2_scipy():
    assert np.array_equal(sp.correlate2d(C1_2, A2_2, mode="valid"), C2_2)
    assert np.array_equal(sp.convolve2d(A1_2, A2_2, mode="full"), D1_2)
    assert np.array_equal(sp.correlate2d(B1_2, D1_2, mode="valid"), C2_2)


def test_section_3_the_convolved_kernels_and_their_numbers_of_weights():
    """A 5x5 kernel has 25 weights, two 3x3 kernels 18: only one direction is always exact."""
    two = sequence((7, 7, 1), conv(A1_3), conv(A2_3))
    folded = kerasfold.fold(two, objective="layers")
    assert has_form(folded, 5, 1)
    assert np.array_equal(kernel_of(folded), D1_3)
    assert np.array_equal(sp.convolve2d(A1_3, A2_3, mode="full"), D1_3)
    assert agree(run(folded, images(B1_2)), run(two, images(B1_2)))
    assert (two.count_params(), folded.count_params()) == (18, 25)


def test_section_4_scipy():
    every = sp.correlate2d(B1_4, np.ones((2, 2)) / 4, mode="valid")
    assert np.array_equal(block_reduce(B1_4, (2, 2), np.average), C1_4)
    assert np.array_equal(every, D1_4)
    assert np.array_equal(every[::2, ::2], C1_4)
    assert not np.array_equal(every[1::2, 1::2], C1_4[:3, :3])


def test_section_5_scipy():
    assert np.array_equal(np.kron(A2_5, np.ones((2, 2))), A3_5)
    assert np.array_equal(block_reduce(C1_5, (2, 2), np.average), C2_5)
    assert np.array_equal(sp.convolve2d(A1_5, A3_5, mode="full"), D1_5)
    every = sp.correlate2d(B1_5, D1_5, mode="valid") / 4
    assert np.array_equal(every, E1_5)
    assert np.array_equal(every[::2, ::2], C3_5)
    assert not np.array_equal(every[1::2, 1::2], C3_5[:2, :2])


@pytest.mark.parametrize("seed", range(3))
def test_section_6(seed):
    """The article's five layers, its three, and one layer, on inputs of our own."""
    b1 = np.random.default_rng(seed).integers(-4, 5, (26, 26)) * 4.0
    x = sp.correlate2d(b1, A1_6, mode="valid")
    x = sp.correlate2d(block_reduce(x, (2, 2), np.average), A2_6, mode="valid")
    c5 = sp.correlate2d(block_reduce(x, (2, 2), np.average), A3_6, mode="valid")

    d1 = sp.convolve2d(A1_6, A4_6, mode="full")
    e2 = sp.correlate2d(b1, d1, mode="valid")[::2, ::2] / 4
    e3 = sp.correlate2d(e2, A5_6, mode="valid")[::2, ::2] / 4
    assert np.array_equal(c5, e3)

    five = sequence((26, 26, 1), conv(A1_6), average(), conv(A2_6), average(), conv(A3_6))
    three = sequence((26, 26, 1), conv(A1_6), conv(A4_6 / 4, strides=2), conv(A5_6 / 4, strides=2))
    for model in (five, three):
        folded = kerasfold.fold(model, objective="layers")
        assert has_form(folded, 18, 4)
        assert agree(run(model, images(b1)), images(c5))
        assert agree(run(folded, images(b1)), images(c5))
        assert not agree(run(folded, shifted(images(b1))), images(c5))
        assert not agree(run(with_a_wrong_kernel(folded), images(b1)), images(c5))


@pytest.mark.parametrize(("a2", "repeated"), [(A2_6, A4_6), (A3_6, A5_6)], ids=["A4", "A5"])
def test_section_6_repeated_kernels(a2, repeated):
    folded = kerasfold.fold(sequence((26, 26, 1), average(), conv(a2)), objective="layers")
    assert has_form(folded, 6, 2)
    assert np.array_equal(kernel_of(folded) * 4, repeated)

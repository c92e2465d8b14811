"""Every number that the four articles behind kerasfold print for an exact identity.

Each is computed by the Keras model that the article writes down and by its fold. Where an
article computes it with SciPy, SciPy is asked as well. Arrays are pasted as printed.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
import scipy.signal as sp
from keras import layers
from skimage.measure import block_reduce

import kerasfold

PATH = Path(__file__).parents[1] / "examples" / "seeds.py"
SPEC = importlib.util.spec_from_file_location("seeds", PATH)
seeds = sys.modules["seeds"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(seeds)

FLOAT32 = 1e-5  # of the largest value
FLOAT64 = 1e-12


def grid(text):
    """A printed matrix."""
    rows = text.replace("[", " ").replace("]", " ").strip().splitlines()
    return np.array([[float(word) for word in row.split()] for row in rows])


def images(*channels):
    """Matrices as the channels of one image."""
    return np.stack(channels, axis=-1)[None].astype("float32")


def sequence(shape, *steps):
    """A model of (layer, *weights), one after another."""
    x = inputs = keras.Input(shape)
    for layer, *weights in steps:
        x = layer(x)
        layer.set_weights(weights)
    return keras.Model(inputs, x)


def conv(kernel, **options):
    """A Conv2D from one channel to one, with this matrix as its kernel."""
    kernel = np.asarray(kernel, "float32")
    return layers.Conv2D(1, kernel.shape, use_bias=False, **options), kernel[..., None, None]


def average(size=2, **options):
    return (layers.AveragePooling2D(size, **options),)


def run(model, x):
    return np.asarray(model(x, training=False))


def agree(actual, expected, tolerance=FLOAT32):
    """Whether two arrays are equal but for rounding."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    return actual.shape == expected.shape and bool(
        np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()
    )


def the_window(model):
    """The one layer of a collapsed model that is a convolution or a pooling."""
    counted = [x for x in model.layers if x.weights or seeds.window(x) is not None]
    assert len(counted) == 1, [x.name for x in counted]
    return counted[0]


def has_form(model, kernel, stride):
    """Whether a model is one convolution of this kernel size and stride."""
    return seeds.window(the_window(model)) == ((kernel, kernel), (stride, stride))


def kernel_of(model):
    """The kernel of a collapsed model from one channel to one, as a matrix."""
    layer = the_window(model)
    if isinstance(layer, layers.AveragePooling2D):
        return np.full(layer.pool_size, 1 / np.prod(layer.pool_size))
    return keras.ops.convert_to_numpy(layer.kernel)[:, :, 0, 0]


def with_a_wrong_kernel(model):
    """The model with one entry of its first kernel one too large.

    A model that is only a pooling has no kernel: the convolution that it is stands in for it.
    """
    if not model.weights:
        pooling = the_window(model)
        kernel = np.full(
            (*pooling.pool_size, model.input_shape[-1], 1), 1 / np.prod(pooling.pool_size)
        )
        layer = layers.DepthwiseConv2D(pooling.pool_size, strides=pooling.strides, use_bias=False)
        model = sequence(model.input_shape[1:], (layer, kernel))
    variable = model.weights[0]
    values = keras.ops.convert_to_numpy(variable).copy()
    values.flat[0] += 1
    variable.assign(values)
    return model


def shifted(x):
    """Images one pixel on, as a stride that starts one too late sees them."""
    return np.roll(x, -1, axis=2)


# First article, section 1: one correlation.
A1_1 = grid("""[[0 1 0]
 [0 0 0]
 [1 0 1]]""")
B1_1 = grid("""[[-1 -3  4 -3  1 -2 -2]
 [-3 -4 -2 -2  1  3  2]
 [-1 -4  2  3  3  3 -3]
 [ 3 -3 -2  1  3 -1  0]
 [ 2 -4  0  2  4  0  2]
 [ 4  0 -3  4  4  3  0]
 [ 0 -4 -2  4  3 -3  1]]""")
C1_1 = grid("""[[-2  3  2  7 -2]
 [-3 -4 -1  1  6]
 [-2  0  7  5  9]
 [-2  2  2 10  3]
 [-6  0  3  5  4]]""")

# Section 2: 3x3 after 3x3.
A1_2 = grid("""[[1 0 1]
 [1 1 1]
 [0 0 0]]""")
A2_2 = grid("""[[0 0 1]
 [0 1 0]
 [0 0 0]]""")
B1_2 = grid("""[[-3 -4  4 -4  0 -2  3]
 [ 2  0 -3  3  4  2 -4]
 [ 0  4 -4  0  1  1  2]
 [-4 -3  0 -1 -3  0 -2]
 [ 4  1  2 -2 -3 -1  1]
 [ 3 -1 -1 -4 -1  3 -2]
 [ 4  0 -1 -3 -4 -4 -3]]""")
C1_2 = grid("""[[  0  -8   8   3   5]
 [ -1   3  -2   7   4]
 [-11   0  -7  -3  -2]
 [  3  -3  -6  -7  -8]
 [  7  -7  -7  -5  -2]]""")
C2_2 = grid("""[[ 11   1  12]
 [ -2   0   1]
 [-10  -9  -9]]""")
D1_2 = grid("""[[0 0 1 0 1]
 [0 1 1 2 1]
 [0 1 1 1 0]
 [0 0 0 0 0]
 [0 0 0 0 0]]""")

# Section 3: another 3x3 after 3x3.
A1_3 = grid("""[[1 1 0]
 [1 0 0]
 [0 1 1]]""")
A2_3 = grid("""[[0 0 0]
 [1 1 1]
 [0 0 0]]""")
D1_3 = grid("""[[0 0 0 0 0]
 [1 2 2 1 0]
 [1 1 1 0 0]
 [0 1 2 2 1]
 [0 0 0 0 0]]""")

# Section 4: average pooling.
A1_4 = grid("""[[0.25 0.25]
 [0.25 0.25]]""")
B1_4 = grid("""[[-12  -4   0   8  -4   4 -12  -8]
 [  4  -4   8 -12  -8 -16 -12  -8]
 [-16 -16 -16   8   8 -16 -12   0]
 [-12  -8  -4  16  -4  -8 -16  -4]
 [-12  -8 -12  16  -4   4  -4   0]
 [-12 -12   4  -8 -12   8   0  16]
 [ -8  16   8  16 -12 -12 -16   0]
 [ -8   4   4 -12  12  -4 -16   4]]""")
C1_4 = grid("""[[ -4.   1.  -6. -10.]
 [-13.   1.  -5.  -8.]
 [-11.   0.  -1.   3.]
 [  1.   4.  -4.  -7.]]""")
D1_4 = grid("""[[ -4.   0.   1.  -4.  -6.  -9. -10.]
 [ -8.  -7.  -3.  -1.  -8. -14.  -8.]
 [-13. -11.   1.   7.  -5. -13.  -8.]
 [-10.  -8.   4.   6.  -3.  -6.  -6.]
 [-11.  -7.   0.  -2.  -1.   2.   3.]
 [ -4.   4.   5.  -4.  -7.  -5.   0.]
 [  1.   8.   4.   1.  -4. -12.  -7.]]""")

# Section 5: 3x3, average pooling, 3x3.
A1_5 = grid("""[[0 0 1]
 [1 0 0]
 [0 0 1]]""")
A2_5 = grid("""[[1 1 1]
 [0 0 0]
 [0 0 1]]""")
A3_5 = grid("""[[1 1 1 1 1 1]
 [1 1 1 1 1 1]
 [0 0 0 0 0 0]
 [0 0 0 0 0 0]
 [0 0 0 0 1 1]
 [0 0 0 0 1 1]]""")
B1_5 = grid("""[[ 0 -2 -1 -3 -4  2 -3 -1 -3 -4 -2  1]
 [ 4 -1  2 -4 -4  4 -1 -1 -4 -2  2  2]
 [ 1 -4  3  3 -2  2  3 -2 -3  4 -1  2]
 [-3 -1 -4  4  0  3  1  0  0  0 -4  1]
 [ 3  1  4  1 -2 -2  2  1 -3  0  3 -3]
 [-4  0  3 -4  3  4  2  0  3  0  1 -4]
 [ 1 -3 -1 -1  3 -4 -2  3 -4  1  0 -3]
 [ 1 -4  0  4  4  3 -2 -4  3 -2  3  0]
 [ 0  2 -2  3  3  3  2 -2 -1  0  1 -1]
 [-4 -4  2 -2 -4 -1  4  4 -1  3 -1  4]
 [ 4  4 -2 -1 -1  0  4 -2  3  3 -4  4]
 [-4 -3  0 -1 -2  0 -2  3  3 -1 -2 -4]]""")
C1_5 = grid("""[[  6  -1  -4   0  -4   1  -7  -1  -7   1]
 [ -1  -4  -1  10  -2   1  -1  -4  -5   7]
 [  4   3  -8   4   5   2  -5   4   2  -1]
 [  2   1   7   8   1  -2   5   1  -6  -3]
 [ -1   0   4 -10   3   8  -5   1   6  -6]
 [  4  -3   6   6   3  -8   4   1   0  -3]
 [ -2  -2   6   3   4   4  -7  -3   4  -6]
 [  2   4  -2   5   5   3   4  -1   1   4]
 [ -8  -2   4   1   2  -5   6   7  -4   6]
 [  6   1  -8  -2   1   7   6   0   0   3]]""")
C2_5 = grid("""[[ 0.    1.25 -1.   -3.25 -1.  ]
 [ 2.5   2.75  1.5   1.25 -2.  ]
 [ 0.    1.5   1.5   0.25 -0.75]
 [ 0.5   3.    4.   -1.75  0.75]
 [-0.75 -1.25  1.25  4.75  1.25]]""")
C3_5 = grid("""[[ 1.75 -2.75 -6.  ]
 [10.75  3.75  1.5 ]
 [ 4.25  8.    2.25]]""")
D1_5 = grid("""[[0 0 1 1 1 1 1 1]
 [1 1 2 2 2 2 1 1]
 [1 1 2 2 2 2 1 1]
 [0 0 1 1 1 1 1 1]
 [0 0 0 0 0 0 1 1]
 [0 0 0 0 1 1 1 1]
 [0 0 0 0 1 1 1 1]
 [0 0 0 0 0 0 1 1]]""")
E1_5 = grid("""[[ 1.75 -3.25 -2.75 -2.75 -6.  ]
 [ 4.   -0.75  0.    3.25 -0.5 ]
 [10.75  6.25  3.75  5.    1.5 ]
 [ 6.5   7.    9.25  3.25  2.5 ]
 [ 4.25  5.5   8.    3.    2.25]]""")

# Section 6: 3x3, average pooling, 3x3, average pooling, 3x3. Its input is not printed.
A1_6 = grid("""[[1 1 0]
 [1 0 0]
 [0 0 0]]""")
A2_6 = grid("""[[0 0 0]
 [0 0 0]
 [1 1 0]]""")
A3_6 = grid("""[[1 0 1]
 [0 0 1]
 [1 0 1]]""")
A4_6 = grid("""[[0 0 0 0 0 0]
 [0 0 0 0 0 0]
 [0 0 0 0 0 0]
 [0 0 0 0 0 0]
 [1 1 1 1 0 0]
 [1 1 1 1 0 0]]""")
A5_6 = grid("""[[1 1 0 0 1 1]
 [1 1 0 0 1 1]
 [0 0 0 0 1 1]
 [0 0 0 0 1 1]
 [1 1 0 0 1 1]
 [1 1 0 0 1 1]]""")

# Fourth article: the outputs of single layers.
TRANSPOSED = (
    grid("""[[  1.4000001   8.2        20.800001   21.2      ]
 [ 17.2        72.200005  119.         94.600006 ]
 [ 71.2       212.6       259.40002   181.       ]
 [ 91.399994  231.40001   265.6       165.2      ]]"""),
    grid("""[[  3.2       14.5       27.1       25.7     ]
 [ 26.2       95.600006 142.4      109.      ]
 [ 80.2      236.00002  282.8      195.4     ]
 [ 98.6      248.5      282.7      175.1     ]]"""),
)


def counting(*shape):
    """1, 2, 3, ... in this shape."""
    return np.arange(1, 1 + np.prod(shape), dtype="float32").reshape(shape)


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
    assert agree(run(kerasfold.fold(model, objective=objective), case.image), case.output)


@pytest.mark.parametrize("case", WITH_KERNEL, ids=lambda case: case.name)
def test_printed_kernel(case):
    folded = kerasfold.fold(case.build(), objective="layers")
    assert has_form(folded, len(case.kernel), case.stride)
    assert np.array_equal(kernel_of(folded), case.kernel)
    assert folded.count_params() in (0, case.kernel.size)


@named
@pytest.mark.parametrize("fault", ["kernel entry + 1", "shifted stride"])
def test_planted_fault_in_a_printed_output_is_rejected(case, fault):
    folded = kerasfold.fold(case.build(), objective="layers")
    image = case.image
    if fault == "shifted stride":
        image = shifted(image)
    else:
        folded = with_a_wrong_kernel(folded)
    assert not agree(run(folded, image), case.output)


@pytest.mark.parametrize("case", WITH_KERNEL, ids=lambda case: case.name)
def test_planted_fault_in_a_printed_kernel_is_rejected(case):
    folded = kerasfold.fold(case.build(), objective="layers")
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
    difference, scale = seeds.largest_difference(model, folded)
    assert difference <= FLOAT32 * scale


@pytest.fixture(params=["float32", "float64"])
def precision(request):
    """A float type for everything that a test builds, with the rounding to expect."""
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
    expected = run(model, x)
    assert agree(run(folded, x), expected, precision)
    assert not agree(run(folded, shifted(x)), expected, precision)
    assert not agree(run(with_a_wrong_kernel(folded), x), expected, precision)


# Second article: dilated, transposed, spatially and depthwise separable convolutions.


def test_dilated_3x3_has_the_field_of_a_5x5_and_nine_weights():
    dilated = sequence((9, 9, 1), conv(A1_5, dilation_rate=2))
    dense = sequence((9, 9, 1), conv(np.ones((5, 5))))
    assert dilated.output_shape == dense.output_shape
    assert dilated.count_params() == 9
    # Keras has no stride together with dilation, so here the zeros are written out.
    strided = sequence((9, 9, 1), conv(A1_5, dilation_rate=2), conv(np.ones((1, 1)), strides=2))
    folded = kerasfold.fold(strided, objective="layers")
    assert has_form(folded, 5, 2)
    kernel = kernel_of(folded)
    assert np.array_equal(kernel[::2, ::2], A1_5)
    assert np.count_nonzero(kernel) == np.count_nonzero(A1_5)
    assert agree(run(folded, images(B1_5[:9, :9])), run(strided, images(B1_5[:9, :9])))
    assert not agree(run(folded, images(B1_5[:9, 1:10])), run(strided, images(B1_5[:9, :9])))


def test_transposed_convolution_restores_the_shape():
    steps = (layers.Conv2D(1, 3, strides=2), layers.Conv2DTranspose(1, 3, strides=2))
    x = inputs = keras.Input((5, 5, 1))
    shapes = []
    for layer in steps:
        x = layer(x)
        shapes.append(x.shape[1:3])
    assert shapes == [(2, 2), (5, 5)]
    model = keras.Model(inputs, x)
    image = images(B1_2[:5, :5])
    for objective in ("latency", "layers"):
        assert agree(run(kerasfold.fold(model, objective=objective), image), run(model, image))


def test_sobel_is_separable():
    """(1, 2, 1) down and (1, 0, -1) across: 6 weights in place of 9."""
    model = sequence((7, 7, 1), conv([[1], [2], [1]]), conv([[1, 0, -1]]))
    folded = kerasfold.fold(model, objective="layers")
    assert has_form(folded, 3, 1)
    sobel = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    assert np.array_equal(kernel_of(folded), sobel)
    assert (model.count_params(), folded.count_params()) == (6, 9)
    assert agree(run(folded, images(B1_1)), images(sp.correlate2d(B1_1, sobel, mode="valid")))


def test_512_feature_maps_summed_into_32_are_one_convolution_of_4608_weights():
    kernel = np.random.default_rng(0).standard_normal((3, 3, 16, 32)).astype("float32")
    every = layers.DepthwiseConv2D(3, depth_multiplier=32, use_bias=False)
    summed = np.tile(np.eye(32, dtype="float32"), (16, 1))[None, None]
    model = sequence((8, 8, 16), (every, kernel), (layers.Conv2D(32, 1, use_bias=False), summed))
    assert every.output.shape[-1] == 512
    folded = kerasfold.fold(model, objective="params")
    assert folded.count_params() == 4608
    assert agree(the_window(folded).kernel, kernel)
    plain = sequence((8, 8, 16), (layers.Conv2D(32, 3, use_bias=False), kernel))
    assert plain.count_params() == 4608
    x = np.random.default_rng(1).standard_normal((1, 8, 8, 16)).astype("float32")
    assert agree(run(folded, x), run(plain, x))
    assert not agree(run(with_a_wrong_kernel(folded), x), run(plain, x))


@pytest.mark.parametrize("objective", ["latency", "params"])
def test_depthwise_separable_convolution_has_656_weights(objective):
    x = inputs = keras.Input((8, 8, 16))
    x = layers.DepthwiseConv2D(3, use_bias=False)(x)
    x = layers.Conv2D(32, 1, use_bias=False)(x)
    two = keras.Model(inputs, x)
    one = keras.Sequential([keras.Input((8, 8, 16)), layers.SeparableConv2D(32, 3, use_bias=False)])
    image = np.random.default_rng(0).standard_normal((1, 8, 8, 16)).astype("float32")
    for model in (two, one):
        assert model.count_params() == 656
        folded = kerasfold.fold(model, objective=objective)
        assert agree(run(folded, image), run(model, image))
        if objective == "params":
            assert folded.count_params() == 656


# Third article: what a second convolution reads.


@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (3, 2), (20, 5)])
def test_second_convolution_reads_every_feature_map(k1, k2):
    """Filters of the second layer are k1 deep: 3*3*k1 + k1 and 5*5*k1*k2 + k2 parameters."""
    first = layers.Conv2D(k1, 3, bias_initializer="random_normal")
    second = layers.Conv2D(k2, 5, bias_initializer="random_normal")
    model = keras.Sequential([keras.Input((12, 14, 1)), first, second])
    assert first.kernel.shape == (3, 3, 1, k1)
    assert second.kernel.shape == (5, 5, k1, k2)
    assert first.count_params() == 3 * 3 * k1 + k1
    assert second.count_params() == 5 * 5 * k1 * k2 + k2
    folded = kerasfold.fold(model, objective="layers")
    assert has_form(folded, 7, 1)
    assert folded.count_params() == 7 * 7 * k2 + k2
    difference, scale = seeds.largest_difference(model, folded)
    assert difference <= FLOAT32 * scale


@pytest.mark.parametrize("objective", ["latency", "layers"])
def test_padded_convolutions_keep_the_image_size(objective):
    """The article's own two layers pad: N = (N - 3 + 2 P) / S + 1 with P = 1, S = 1."""
    convolutions = [
        layers.Conv2D(filters, size, padding="same", bias_initializer="random_normal")
        for filters, size in ((4, 3), (2, 5))
    ]
    model = keras.Sequential([keras.Input((12, 14, 1)), *convolutions])
    assert model.output_shape == (None, 12, 14, 2)
    folded = kerasfold.fold(model, objective=objective)
    difference, scale = seeds.largest_difference(model, folded)
    assert difference <= FLOAT32 * scale


def test_pooling_is_applied_to_each_feature_map():
    """What is in one channel stays in it."""
    model = seeds.chain(8, seeds.pool())(5)
    for folded in (kerasfold.fold(model), kerasfold.fold(model, objective="layers")):
        for channel in range(5):
            image = np.zeros((1, 8, 8, 5), "float32")
            image[0, :, :, channel] = B1_4
            expected = np.zeros((1, 4, 4, 5))
            expected[0, :, :, channel] = C1_4
            assert agree(run(folded, image), expected)


# Fourth article: weight shapes, and the three classifiers for CIFAR-10.


@pytest.mark.parametrize(
    ("channels", "layer", "shapes"),
    [
        (2, lambda: layers.Conv2D(3, 3, use_bias=False), [(3, 3, 2, 3)]),
        (2, lambda: layers.DepthwiseConv2D(3, use_bias=False), [(3, 3, 2, 1)]),
        (1, lambda: layers.SeparableConv2D(2, 3, use_bias=False), [(3, 3, 1, 1), (1, 1, 1, 2)]),
        (3, lambda: layers.Conv2DTranspose(2, 3, use_bias=False), [(3, 3, 2, 3)]),
    ],
    ids=["Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose"],
)
def test_weight_shapes(channels, layer, shapes):
    model = keras.Sequential([keras.Input((3, 3, channels)), layer()])
    for objective in ("latency", "params"):
        folded = kerasfold.fold(model, objective=objective)
        assert [w.shape for w in model.weights] == shapes
        assert [w.shape for w in folded.weights] == shapes


def test_each_channel_adds_its_part():
    """274.5 from the first channel and 324 from the second are 598.5."""
    x = counting(1, 3, 3, 2) * 0.1
    for mask, part in (([1, 0], 274.5), ([0, 1], 324.0)):
        kernel = counting(3, 3, 2, 3) * np.array(mask)[:, None]
        model = sequence((3, 3, 2), (layers.Conv2D(3, 3, use_bias=False), kernel))
        assert agree(run(kerasfold.fold(model), x)[0, 0, 0, 0], part)


@pytest.mark.parametrize("channels", [1, 4, 7])
def test_pointwise_has_n_squared_filters_and_depthwise_n(channels):
    pointwise = layers.Conv2D(channels, 1, use_bias=False)
    depthwise = layers.DepthwiseConv2D(1, use_bias=False)
    for layer, expected in ((pointwise, channels**2), (depthwise, channels)):
        model = keras.Sequential([keras.Input((3, 3, channels)), layer])
        assert model.count_params() == expected
        assert kerasfold.fold(model).count_params() == expected


def classifier(kind, biased=True):
    """The fourth article's network, of this kind of layer."""

    def activated(x):
        return layers.Activation("relu")(layers.BatchNormalization()(x))

    def block(x, filters):
        for _ in range(2):
            if kind is layers.DepthwiseConv2D:
                x = kind(3, padding="same", use_bias=biased)(x)
            else:
                x = kind(filters, 3, padding="same", use_bias=biased)(x)
            x = activated(x)
        return x

    x = inputs = keras.Input((32, 32, 3))
    for filters in (64, 128, 256):
        if filters > 64:
            x = layers.AveragePooling2D(2)(x)
        x = block(activated(layers.Conv2D(filters, 1, use_bias=biased)(x)), filters)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


def pretend_trained(model, x):
    """Biases as training leaves them, and the batch statistics of these images."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
            layer.beta.assign(rng.normal(0, 0.3, layer.beta.shape))
            layer.momentum = 0.0
        elif getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(0, 0.3, layer.bias.shape))
    model(x, training=True)


CLASSIFIERS = [
    (layers.Conv2D, 1_598_730),
    (layers.DepthwiseConv2D, 58_506),
    (layers.SeparableConv2D, 230_538),
]


@pytest.mark.parametrize(
    ("kind", "parameters"), CLASSIFIERS, ids=[kind.__name__ for kind, _ in CLASSIFIERS]
)
def test_classifiers(kind, parameters):
    model = classifier(kind)
    assert model.count_params() == parameters
    assert classifier(kind, biased=False).count_params() != parameters

    rng = np.random.default_rng(1)
    x = rng.normal(rng.normal(size=(8, 1, 1, 3)), rng.uniform(0.1, 2, (8, 1, 1, 3)), (8, 32, 32, 3))
    x = x.astype("float32")
    pretend_trained(model, x)
    folded = kerasfold.fold(model)
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in folded.layers)
    assert folded.count_params() < parameters

    expected = run(model, x)
    # Every class has some probability whatever the weights: what tells is the spread over images.
    spread = expected.std(axis=0).max()
    assert spread > 0.01
    assert np.abs(run(folded, x) - expected).max() <= FLOAT32 * spread
    assert np.abs(run(with_a_wrong_kernel(folded), x) - expected).max() > FLOAT32 * spread

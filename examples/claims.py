"""What the articles behind kerasfold say in numbers, each beside what Keras models give.

The articles: 1, strided convolutions and average pooling (French); 2, kinds of convolutions
(Chinese); 3, how later convolutional layers work (Japanese); 4, convolutions by example and a
search for the best blocks (Japanese).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from block_search import classifier

import kerasfold

L = keras.layers
EXACT = 1e-9  # of the largest output; float64 gives 1e-15
Numbers = tuple[int, ...]


class Found(NamedTuple):
    """What models give.

    Attributes:
        numbers: those that the article prints.
        difference: the largest difference of two models that the article calls equal, as a part
            of their largest output; None where it compares none.
    """

    numbers: Numbers
    difference: float | None = None


class Claim(NamedTuple):
    """A statement of an article.

    Attributes:
        source: article, and section.
        about: what it says.
        numbers: that it prints.
        find: builds models, and counts and compares.
        remark: what is to be said of it, where it is wrong or only nearly right.
    """

    source: str
    about: str
    numbers: Numbers
    find: Callable[[], Found]
    remark: str = ""


def sequence(shape: tuple[int, ...], *layers: keras.Layer) -> keras.Model:
    """Layers, one after another, on images of this shape."""
    return keras.Sequential([keras.Input(shape), *layers])


def differing(a: keras.Model, b: keras.Model) -> float:
    """The largest difference of two models on random images, as a part of the largest output."""
    x = np.random.default_rng(0).standard_normal((2, *a.input_shape[1:]))
    expected, actual = np.asarray(a(x, training=False)), np.asarray(b(x, training=False))
    return float(np.abs(expected - actual).max() / np.abs(expected).max())


def weights(*models: keras.Model) -> Numbers:
    """How many weights each has."""
    return tuple(model.count_params() for model in models)


def conv(filters: int, size: int | tuple[int, int], **options: object) -> keras.Layer:
    """A convolution without a bias."""
    return L.Conv2D(filters, size, use_bias=False, **options)


def one_layer(*windows: tuple[int, int]) -> Numbers:
    """Side and stride of the one layer that convolutions of these sizes and strides are."""
    side = 1
    for size, stride in reversed(windows):
        side = (side - 1) * stride + size
    layers = [conv(1, size, strides=stride) for size, stride in windows]
    folded = kerasfold.fold(sequence((side, side, 1), *layers), "layers", verify=False)
    return folded.layers[-1].kernel_size[0], math.prod(stride for _, stride in windows)


# First article.


def two_of_three_for_one_of_five() -> Found:
    """Numbers of weights of 5x5, and of two 3x3."""
    five = sequence((9, 9, 1), conv(1, 5))
    return Found(weights(five, sequence((9, 9, 1), conv(1, 3), conv(1, 3))))


def apart_again() -> Found:
    """A1 and A2 out of D1, the convolution of both, and the other one: the article's numbers."""
    a1 = np.reshape([[1.0, 1, 0], [1, 0, 0], [0, 1, 1]], (3, 3, 1, 1))
    a2 = np.reshape([[0.0, 0, 0], [1, 1, 1], [0, 0, 0]], (3, 3, 1, 1))
    d1 = np.reshape(
        [[0.0, 0, 0, 0, 0], [1, 2, 2, 1, 0], [1, 1, 1, 0, 0], [0, 1, 2, 2, 1], [0, 0, 0, 0, 0]],
        (5, 5, 1, 1),
    )
    found = kerasfold.deconvolve(d1, last=a2).kernel, kerasfold.deconvolve(d1, first=a1).kernel
    worst = max(np.abs(x - y).max() for x, y in zip(found, (a1, a2), strict=True))
    return Found(tuple(round(float(kernel.max())) for kernel in found), float(worst))


def channels_between() -> Found:
    """Channels between two 2x2 that are any 3x3, found from none."""
    kernel = np.random.default_rng(0).standard_normal((3, 3, 1, 1))
    factors = kerasfold.factor(kernel, "chain", sizes=(2, 2))
    first, last = factors.kernels
    return Found((first.shape[-1], first.size + last.size), factors.relative_error)


def pool_as_convolution() -> Found:
    """Average pooling of 2, and a convolution with 1/4 everywhere and stride 2."""
    smooth = conv(1, 2, strides=2, kernel_initializer=keras.initializers.Constant(0.25))
    pooled = sequence((28, 28, 1), L.AveragePooling2D(2))
    return Found(smooth.kernel_size, differing(pooled, sequence((28, 28, 1), smooth)))


def moved_before(*sizes: int) -> Callable[[], Found]:
    """Sides of kernels behind 0, 1, 2, ... poolings of 2, moved before those, dilated."""

    def find() -> Found:
        found, worst = [], 0.0
        for k, size in enumerate(sizes):
            rate = 2**k
            behind, before = conv(1, size), conv(1, size, dilation_rate=rate)
            image = (4 * rate, 4 * rate, 1)
            a = sequence(image, L.AveragePooling2D(rate), behind)
            b = sequence(image, before, L.AveragePooling2D(rate))
            before.set_weights(behind.get_weights())
            found.append(image[0] - before.output.shape[1] + 1)
            worst = max(worst, differing(a, b))
        return Found(tuple(found), worst)

    return find


def as_many_weights() -> Found:
    """Weights of 3x3, 3x3, 3x3 with poolings between, with strides, and of 4x4, 4x4, 3x3."""
    pooled = [conv(1, 3), L.AveragePooling2D(2), conv(1, 3), L.AveragePooling2D(2), conv(1, 3)]
    strided, wider = ([conv(1, k, strides=2), conv(1, k, strides=2), conv(1, 3)] for k in (3, 4))
    return Found(weights(*(sequence((28, 28, 1), *chain) for chain in (pooled, strided, wider))))


def four_strides_of_4() -> Found:
    """Side and stride of the one layer that four 4x4 with stride 2, and a 3x3, are."""
    return Found(one_layer(*[(4, 2)] * 4, (3, 1)))


# Second article.


def dilated_as_wider() -> Found:
    """A 3x3 at rate 2, and a 5x5 with zeros in every second row and column."""
    dilated, dense = conv(1, 3, dilation_rate=2), conv(1, 5)
    a, b = sequence((9, 9, 1), dilated), sequence((9, 9, 1), dense)
    kernel = np.zeros((5, 5, 1, 1))
    kernel[::2, ::2] = dilated.get_weights()[0]
    dense.set_weights([kernel])
    side = 9 - dilated.output.shape[1] + 1
    return Found((side, int(np.count_nonzero(kernel))), differing(a, b))


def transposed_as_upsampled() -> Found:
    """A transposed 3x3/2 of 2x2, and a 3x3 of zeros put between its pixels and around them."""
    transposed, plain = L.Conv2DTranspose(1, 3, strides=2, use_bias=False), conv(1, 3)
    spread = L.Conv2DTranspose(1, 1, strides=2, use_bias=False, kernel_initializer="ones")
    a = sequence((2, 2, 1), transposed)
    b = sequence((2, 2, 1), spread, L.ZeroPadding2D(((2, 1), (2, 1))), plain)
    plain.set_weights([transposed.get_weights()[0][::-1, ::-1]])
    return Found(transposed.output.shape[1:3], differing(a, b))


def sobel() -> Found:
    """(1, 2, 1) down, then (1, 0, -1) across."""
    down, across, one = conv(1, (3, 1)), conv(1, (1, 3)), conv(1, 3)
    two = sequence((9, 9, 1), down, across)
    down.set_weights([np.reshape([1.0, 2, 1], (3, 1, 1, 1))])
    across.set_weights([np.reshape([1.0, 0, -1], (1, 3, 1, 1))])
    whole = sequence((9, 9, 1), one)
    one.set_weights([np.reshape([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]], (3, 3, 1, 1))])
    return Found(weights(two, whole), differing(two, whole))


def separable() -> Found:
    """Weights of a separable 3x3 from 16 channels to 32, and of a plain one."""
    one = sequence((9, 9, 16), L.SeparableConv2D(32, 3, use_bias=False))
    return Found(weights(one, sequence((9, 9, 16), conv(32, 3))))


def mapped_and_added() -> Found:
    """16 times 32 feature maps, added up by 16: what a convolution does."""
    every = L.DepthwiseConv2D(3, depth_multiplier=32, use_bias=False)
    model = sequence((9, 9, 16), every, L.Reshape((7, 7, 16, 32)), Total(axis=-2))
    plain = conv(32, 3)
    one = sequence((9, 9, 16), plain)
    plain.set_weights(every.get_weights())
    return Found((16 * 32,), differing(model, one))


# Third article: k1 filters of 3x3, then k2 of 5x5.

K1, K2 = 20, 50


class Total(L.Layer):
    """The sum along an axis."""

    def __init__(self, axis: int, **options: object) -> None:
        super().__init__(**options)
        self.axis = axis

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """All samples along the axis, added up."""
        return keras.ops.sum(x, self.axis)


def type_1() -> Found:
    """Every filter by itself on every map: k1 k2 maps."""
    each = L.Conv3D(K2, (5, 5, 1), use_bias=False)
    model = sequence((12, 12, 1), conv(K1, 3), L.Reshape((10, 10, K1, 1)), each)
    return Found((*weights(model), math.prod(model.output_shape[3:])))


def type_2_1() -> Found:
    """Every filter on all maps, with the same weights for each: as on their sum."""
    first, each, one = conv(K1, 3), L.Conv3D(K2, (5, 5, 1), use_bias=False), conv(K2, 5)
    by_map = [L.Reshape((10, 10, K1, 1)), each, Total(axis=-2)]
    added = [L.Reshape((10, 10, K1, 1)), Total(axis=-2), one]
    a, b = sequence((12, 12, 1), first, *by_map), sequence((12, 12, 1), first, *added)
    one.set_weights([each.get_weights()[0][:, :, 0]])
    return Found((*weights(b), b.output_shape[-1]), differing(a, b))


def type_2_2() -> Found:
    """Every filter as deep as there are maps, with weights of its own for each: a Conv2D."""
    model = sequence((12, 12, 1), conv(K1, 3), conv(K2, 5))
    return Found((*weights(model), model.output_shape[-1]))


def with_biases() -> Found:
    """A Conv2D behind another, with the biases that the second answer counts."""
    layers = (L.Conv2D(K1, 3), L.Conv2D(K2, 5))
    sequence((12, 12, 1), *layers)
    return Found(tuple(layer.count_params() for layer in layers))


def pooled_by_map() -> Found:
    """Pooling of all maps, and of each by itself."""
    x = keras.Input((8, 8, K1))
    each = [L.AveragePooling2D(2)(x[..., i : i + 1]) for i in range(K1)]
    apart = keras.Model(x, L.Concatenate()(each))
    return Found((K1,), differing(sequence((8, 8, K1), L.AveragePooling2D(2)), apart))


# Fourth article.


def separable_filters() -> Found:
    """3x3 kernels that a Conv2D of one channel to two has, and a separable one."""
    kernels = conv(2, 3), L.SeparableConv2D(2, 3, use_bias=False)
    for layer in kernels:
        sequence((3, 3, 1), layer)
    shapes = kernels[0].kernel.shape, kernels[1].depthwise_kernel.shape
    return Found(tuple(math.prod(shape[2:]) for shape in shapes))


def pointwise_and_depthwise() -> Found:
    """Weights of a 1x1 of N channels to N, and of a depthwise one, for N = 64."""
    image, depthwise = (4, 4, 64), L.DepthwiseConv2D(1, use_bias=False)
    return Found(weights(sequence(image, conv(64, 1)), sequence(image, depthwise)))


def counted(kind: str) -> Callable[[], Found]:
    """The weights of the network for CIFAR-10 of two layers of one kind in each module."""
    return lambda: Found(weights(classifier([kind] * 2)))


def transposed_is_no_inverse() -> Found:
    """A convolution, and its transpose behind it, are not the identity."""
    first, back = conv(1, 3), L.Conv2DTranspose(1, 3, use_bias=False)
    both = sequence((9, 9, 1), first, back)
    back.set_weights(first.get_weights())
    return Found((), differing(sequence((9, 9, 1), L.Identity()), both))


CLAIMS = (
    Claim(
        "1, 3",
        "numbers of one 5x5, and of two 3x3: so not every 5x5 is two 3x3",
        (25, 18),
        two_of_three_for_one_of_five,
    ),
    Claim(
        "1, 3",
        "the largest of A1 and of A2, out of their convolution",
        (1, 1),
        apart_again,
        "division is exact; the article's routine, for restoring images, gives 0.965 and 0.999",
    ),
    Claim("1, 4", "AveragePooling2D(2) is a 2x2 with stride 2", (2, 2), pool_as_convolution),
    Claim(
        "1, 7",
        "as many weights with strides as with poolings; more with 4x4",
        (27, 27, 41),
        as_many_weights,
    ),
    Claim(
        "1, 7",
        "a 3x3 as two 2x2, nearly: it has one channel between them, and 8 weights for 9",
        (),
        channels_between,
        "exact with so many channels, and weights; with one, only by chance",
    ),
    Claim(
        "1, 8",
        "3x3 behind 0 to 4 poolings of 2, moved before them",
        (3, 5, 9, 17, 33),
        moved_before(3, 3, 3, 3, 3),
        "exact, where the article has approximate: each is the 3x3, dilated, and of the 33 x 33 = "
        "1,089 weights 9 are not 0. The side is not doubled, but 2n - 1",
    ),
    Claim(
        "1, 8",
        "2x2 behind 0 to 3 strides of 2, and 3x3 behind 4, moved before them",
        (2, 3, 5, 9, 33),
        moved_before(2, 2, 2, 2, 3),
        "exact; what is not is each 3x3/2 as 2x2 and 2x2/2",
    ),
    Claim("1, 8", "with a 2x2 as the last", (2, 3, 5, 9, 17), moved_before(2, 2, 2, 2, 2)),
    Claim(
        "1, 8",
        "four 4x4/2 and a 3x3 are as large as four poolings between 3x3",
        (78, 16),
        four_strides_of_4,
        "and they compute the same for some 4x4, with 73 weights for 45",
    ),
    Claim("2", "3x3 at rate 2: side of its field, weights", (5, 9), dilated_as_wider),
    Claim(
        "2",
        "a transposed 3x3/2 makes 5x5 of 2x2, as an upsampled 3x3",
        (5, 5),
        transposed_as_upsampled,
    ),
    Claim("2", "Sobel as 3x1 and 1x3: 6 numbers for 9", (6, 9), sobel),
    Claim("2", "16 x 32 feature maps, added up by 16", (512,), mapped_and_added),
    Claim("2", "separable 3x3 of 16 channels to 32, and a plain one", (656, 4608), separable),
    Claim(
        "3",
        "type 1, each filter on each map: 9 k1 + 25 k2 weights, k1 k2 maps",
        (9 * K1 + 25 * K2, K1 * K2),
        type_1,
    ),
    Claim(
        "3",
        "type 2.1, one kernel for all maps: as many weights, k2 maps",
        (9 * K1 + 25 * K2, K2),
        type_2_1,
        "the same as a 5x5 on the sum of the maps",
    ),
    Claim(
        "3",
        "type 2.2, a kernel for each map: 9 k1 + 25 k1 k2 weights, k2 maps",
        (9 * K1 + 25 * K1 * K2, K2),
        type_2_2,
        "what Conv2D does",
    ),
    Claim(
        "3",
        "'type 2.1' of an answer: 9 k1 + k1, and 25 k1 k2 + k2 weights",
        (9 * K1 + K1, 25 * K1 * K2 + K2),
        with_biases,
        "the count is right, and is that of type 2.2",
    ),
    Claim("3", "pooling is done map by map", (K1,), pooled_by_map),
    Claim(
        "4",
        "1x1 of N channels to N has N^2 filters, depthwise N",
        (64**2, 64),
        pointwise_and_depthwise,
    ),
    Claim(
        "4", "3x3 kernels, of one channel to two: Conv2D 2, separable 1", (2, 1), separable_filters
    ),
    *(
        Claim("4", f"weights of the network of {kind} layers", (number,), counted(kind))
        for kind, number in (
            ("conv", 1_598_730),
            ("depthwise", 58_506),
            ("separable", 230_538),
        )
    ),
    Claim(
        "4",
        "Conv2DTranspose is 'literally the inverse' of Conv2D",
        (),
        transposed_is_no_inverse,
        "it is not: it is the adjoint, as article 2 says in other words",
    ),
)

"""The second, third and fourth article: weights counted, shapes kept, classifiers folded."""

import keras
import numpy as np
import pytest
import scipy.signal as sp
from keras import layers

import kerasfold
from zoo.articles import (
    A1_5,
    B1_1,
    B1_2,
    B1_4,
    B1_5,
    C1_4,
    agree,
    conv,
    counting,
    has_form,
    images,
    kernel_of,
    run,
    seeds,
    sequence,
    the_window,
    with_a_wrong_kernel,
)
from zoo.same import FLOAT32, assert_same, float32_bound, in_float64


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
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert has_form(folded, 7, 1)
    assert folded.count_params() == 7 * 7 * k2 + k2
    assert_same(model, folded, FLOAT32)


@pytest.mark.parametrize("objective", ["latency", "layers"])
def test_padded_convolutions_keep_the_image_size(objective):
    """The article's own two layers pad: N = (N - 3 + 2 P) / S + 1 with P = 1, S = 1."""
    convolutions = [
        layers.Conv2D(filters, size, padding="same", bias_initializer="random_normal")
        for filters, size in ((4, 3), (2, 5))
    ]
    model = keras.Sequential([keras.Input((12, 14, 1)), *convolutions])
    assert model.output_shape == (None, 12, 14, 2)
    folded = kerasfold.fold(model, objective=objective, verify=False)
    assert_same(model, folded, FLOAT32)


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
    for objective in ("macs", "params"):
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
    folded = kerasfold.fold(model, verify=False)
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in folded.layers)
    assert folded.count_params() < parameters

    # Every class has some probability whatever the weights: what tells is the spread over images.
    truth = run(in_float64(model), x)
    assert truth.std(axis=0).max() > 0.01
    bound = float32_bound(truth, run(model, x))
    assert np.abs(run(folded, x) - truth).max() <= bound
    assert np.abs(run(with_a_wrong_kernel(folded), x) - truth).max() > bound

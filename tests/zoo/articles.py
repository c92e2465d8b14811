"""What the four articles behind kerasfold print, and their models.

Arrays are pasted as printed.
"""

import keras
import numpy as np
import seeds
from keras import layers

PRINTED = 1e-5  # of the largest value
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


def agree(actual, expected, tolerance=PRINTED):
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

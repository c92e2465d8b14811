"""One row per lifted layer and option.

A new lift rule needs one new row: `test_rules.py` asserts that they match.
"""

from __future__ import annotations

import keras
from keras import layers

from kerasfold.read.model import CustomScaleLayer, LayerScale, StochasticDepth
from zoo.blocks import conv, same, with_bn
from zoo.rows import Case, after_conv, before, merge, normalization, rows

ODD_EVEN = {"-odd": (9, 7, 4), "-even": (8, 10, 4)}
ONE = {"": (9, 8, 4)}
LINE = {"": (11, 4)}
VOLUME = {"": (6, 7, 5, 2)}
RELU = {"activation": "relu", "_where": "before"}

CASES: list[Case] = [
    *rows(
        layers.Conv2D,
        ONE,
        (6, 3),
        {
            "valid": {},
            "same": {"padding": "same"},
            "no_bias": {"use_bias": False},
            "1x1": {"_args": (6, 1)},
            "2x5": {"_args": (6, (2, 5))},
            "even_kernel_same": {"_args": (6, (4, 2)), "padding": "same"},
            "wider_than_image_same": {"_args": (6, (11, 3)), "padding": "same"},
            "stride2": {"strides": 2},
            "stride_over_kernel": {"_args": (6, 2), "strides": 3},
            "strides_1_2": {"strides": (1, 2)},
            "strides_2_3_same": {"strides": (2, 3), "padding": "same"},
            "dilation2": {"dilation_rate": 2},
            "dilation_1_3_same": {"dilation_rate": (1, 3), "padding": "same"},
            "groups2": {"groups": 2},
            "groups4_same": {"_args": (8, 3), "groups": 4, "padding": "same", "use_bias": False},
            "groups2_dilation2": {"groups": 2, "dilation_rate": 2},
            "groups2_stride2": {"groups": 2, "strides": 2},
            "relu": RELU,
            "softmax": {"activation": "softmax", "_where": "before"},
            "leaky_callable": {"activation": keras.ops.leaky_relu, "_where": "before"},
            "linear_by_name": {"activation": "linear"},
            "frozen": {"trainable": False},
            "before": {"_where": "before"},
        },
    ),
    *rows(
        layers.Conv2D,
        ODD_EVEN,
        (6, 3),
        {
            "stride2_same": {"strides": 2, "padding": "same"},
            "even_stride2_same": {"_args": (6, (2, 4)), "strides": 2, "padding": "same"},
            "stride3_same": {"strides": 3, "padding": "same"},
        },
    ),
    *rows(
        layers.Conv1D,
        LINE,
        (6, 3),
        {
            "valid": {},
            "same": {"padding": "same"},
            "causal": {"padding": "causal"},
            "causal_dilation": {"padding": "causal", "dilation_rate": 2},
            "stride2_same": {"strides": 2, "padding": "same"},
            "stride3": {"strides": 3, "use_bias": False},
            "dilation3": {"dilation_rate": 3},
            "groups2": {"groups": 2},
            "relu": RELU,
        },
    ),
    *rows(
        layers.Conv3D,
        VOLUME,
        (3, 2),
        {
            "valid": {},
            "same": {"padding": "same"},
            "3x1x2": {"_args": (3, (3, 1, 2)), "use_bias": False},
            "strides": {"strides": (2, 1, 2), "padding": "same"},
            "dilation": {"dilation_rate": (1, 2, 1)},
            "relu": RELU,
        },
    ),
    *rows(
        layers.DepthwiseConv2D,
        ONE,
        (3,),
        {
            "valid": {},
            "same": {"padding": "same"},
            "no_bias": {"use_bias": False},
            "2x4": {"_args": ((2, 4),)},
            "multiplier3": {"depth_multiplier": 3},
            "multiplier2_same": {"depth_multiplier": 2, "padding": "same", "use_bias": False},
            "dilation2": {"dilation_rate": 2},
            "dilation_2_1_same": {"dilation_rate": (2, 1), "padding": "same"},
            "stride2": {"strides": 2},
            "multiplier2_stride2": {"strides": 2, "depth_multiplier": 2},
            "relu6": {"activation": "relu6", "_where": "before"},
            "before": {"_where": "before"},
        },
    ),
    *rows(
        layers.DepthwiseConv2D,
        ODD_EVEN,
        (3,),
        {
            "stride2_same": {"strides": 2, "padding": "same"},
        },
    ),
    *rows(
        layers.DepthwiseConv1D,
        LINE,
        (3,),
        {
            "valid": {},
            "same_stride2": {"padding": "same", "strides": 2},
            "multiplier2": {"depth_multiplier": 2},
            "dilation2": {"dilation_rate": 2, "use_bias": False},
        },
    ),
    *rows(
        layers.SeparableConv2D,
        ONE,
        (6, 3),
        {
            "valid": {},
            "same": {"padding": "same"},
            "no_bias": {"use_bias": False},
            "multiplier2": {"depth_multiplier": 2},
            "multiplier3_same": {"depth_multiplier": 3, "padding": "same"},
            "2x3": {"_args": (6, (2, 3))},
            "dilation2": {"dilation_rate": 2},
            "stride2": {"strides": 2},
            "relu": RELU,
            "before": {"_where": "before"},
        },
    ),
    *rows(
        layers.SeparableConv2D,
        ODD_EVEN,
        (6, 3),
        {
            "stride2_same": {"strides": 2, "padding": "same"},
        },
    ),
    *rows(
        layers.SeparableConv1D,
        LINE,
        (6, 3),
        {
            "valid": {},
            "same": {"padding": "same"},
            "stride2": {"strides": 2, "depth_multiplier": 2},
            "dilation2": {"dilation_rate": 2, "use_bias": False},
        },
    ),
    *rows(
        layers.AveragePooling2D,
        ODD_EVEN,
        (2,),
        {
            "2": {},
            "3_stride1": {"_args": (3, 1)},
            "2x3_strides_3_2": {"_args": ((2, 3), (3, 2))},
            "before": {"_where": "before"},
            "1": {"_args": (1, 1), "_merges": False},  # in float64 it casts, else it is no step
        },
    ),
    *rows(
        layers.AveragePooling2D,
        ODD_EVEN,
        (2,),
        {
            "3_same": {"_args": (3, 1), "padding": "same", "_merges": False},
            "3_stride2_same": {"_args": (3, 2), "padding": "same", "_merges": False},
            "2_same": {"padding": "same", "_merges": False},
        },
    ),
    *rows(
        layers.AveragePooling1D,
        LINE,
        (2,),
        {
            "2": {},
            "3_stride1": {"_args": (3, 1)},
            "2_same": {"padding": "same", "_merges": False},
        },
    ),
    *rows(
        layers.AveragePooling3D,
        VOLUME,
        (2,),
        {
            "2": {},
            "2x1x3": {"_args": ((2, 1, 3), (1, 1, 2))},
            "2_same": {"padding": "same", "_merges": False},
        },
    ),
    *[
        Case(layers.BatchNormalization, f"BatchNormalization-{name}", make, (7, 6, 4))
        for name, make in {
            "pair": lambda x: layers.BatchNormalization(name="layer")(x),
            "no_scale": lambda x: layers.BatchNormalization(scale=False, name="layer")(x),
            "no_center": lambda x: layers.BatchNormalization(center=False, name="layer")(x),
            "neither": lambda x: layers.BatchNormalization(center=False, scale=False, name="layer")(
                x
            ),
            "axis3": lambda x: layers.BatchNormalization(axis=3, name="layer")(x),
            "epsilon": lambda x: layers.BatchNormalization(epsilon=0.3, name="layer")(x),
            "frozen": lambda x: layers.BatchNormalization(trainable=False, name="layer")(x),
            "before_conv": lambda x: layers.Conv2D(3, 2, name="c")(
                layers.BatchNormalization(name="layer")(x)
            ),
            "training_false": lambda x: layers.BatchNormalization(name="layer")(x, training=False),
            "between": lambda x: layers.Conv2D(3, 3, name="c2")(
                layers.BatchNormalization(name="layer")(
                    layers.Conv2D(5, 2, strides=2, name="c1")(x)
                )
            ),
        }.items()
    ],
    Case(
        layers.BatchNormalization,
        "BatchNormalization-1d",
        lambda x: layers.Conv1D(5, 2, name="c")(layers.BatchNormalization(name="layer")(x)),
        (9, 4),
    ),
    *rows(
        layers.ZeroPadding2D,
        ONE,
        (1,),
        {
            "1": {"_merges": False},
            "uneven": {"_args": (((2, 0), (1, 3)),), "_merges": False},
        },
    ),
    Case(
        layers.ZeroPadding2D,
        "ZeroPadding2D-before_valid",
        lambda x: layers.Conv2D(5, 3, name="c")(
            layers.ZeroPadding2D(((0, 2), (3, 1)), name="layer")(x)
        ),
        (9, 8, 4),
    ),
    Case(
        layers.ZeroPadding2D,
        "ZeroPadding2D-before_stride2",
        lambda x: layers.Conv2D(5, 3, strides=2, name="c")(
            layers.ZeroPadding2D(1, name="layer")(x)
        ),
        (9, 8, 4),
    ),
    Case(
        layers.ZeroPadding2D,
        "ZeroPadding2D-before_depthwise",
        lambda x: layers.DepthwiseConv2D(3, strides=2, name="c")(
            layers.ZeroPadding2D(((0, 1), (0, 1)), name="layer")(x)
        ),
        (8, 8, 4),
    ),
    Case(
        layers.ZeroPadding1D,
        "ZeroPadding1D-uneven",
        lambda x: layers.Conv1D(5, 3, name="c")(layers.ZeroPadding1D((2, 1), name="layer")(x)),
        (9, 4),
    ),
    Case(
        layers.ZeroPadding3D,
        "ZeroPadding3D-uneven",
        lambda x: layers.Conv3D(3, 2, name="c")(
            layers.ZeroPadding3D(((1, 0), (0, 1), (2, 1)), name="layer")(x)
        ),
        (5, 4, 5, 2),
    ),
    after_conv(layers.MaxPooling1D, "1_stride2", (9, 4), pool_size=1, strides=2),
    after_conv(layers.MaxPooling2D, "1_stride2", (9, 8, 4), pool_size=1, strides=2),
    after_conv(layers.MaxPooling3D, "1_stride2", (5, 4, 5, 2), pool_size=1, strides=2),
    after_conv(layers.GlobalMaxPooling1D, "of_one", (2, 4)),
    after_conv(layers.GlobalMaxPooling2D, "of_one", (2, 2, 4)),
    after_conv(layers.GlobalMaxPooling3D, "of_one", (2, 2, 2, 4)),
    after_conv(layers.Cropping2D, "1", (9, 8, 4), cropping=1),
    after_conv(layers.Cropping2D, "uneven", (9, 8, 4), cropping=((2, 0), (1, 3))),
    Case(
        layers.Cropping2D,
        "Cropping2D-after_stride2",
        lambda x: layers.Cropping2D(((1, 0), (0, 1)), name="layer")(
            layers.Conv2D(5, 3, strides=2, name="c")(x)
        ),
        (13, 12, 4),
    ),
    after_conv(layers.Cropping1D, "uneven", (9, 4), cropping=(2, 1)),
    after_conv(layers.Cropping3D, "uneven", (5, 4, 6, 2), cropping=((1, 0), (0, 1), (2, 1))),
    after_conv(layers.CenterCrop, "uneven", (9, 8, 4), height=3, width=5),
    after_conv(layers.Resizing, "same", (9, 8, 4), height=8, width=7, interpolation="nearest"),
    *before(
        lambda x: layers.Conv2D(3, 1, name="c")(x),
        *rows(layers.Resizing, ONE, (18, 24), {"nearest": {"interpolation": "nearest"}}),
    ),
    after_conv(layers.Identity, "2d", (8, 7, 3)),
    after_conv(layers.Dropout, "2d", (8, 7, 3), rate=0.4),
    after_conv(layers.Dropout, "noise_shape", (8, 7, 3), rate=0.4, noise_shape=(None, 1, 1, 4)),
    after_conv(layers.SpatialDropout1D, "1d", (8, 3), rate=0.4),
    after_conv(layers.SpatialDropout2D, "2d", (8, 7, 3), rate=0.4),
    after_conv(layers.SpatialDropout3D, "3d", (6, 5, 4, 2), rate=0.4),
    after_conv(layers.AlphaDropout, "2d", (8, 7, 3), rate=0.4),
    after_conv(layers.GaussianDropout, "2d", (8, 7, 3), rate=0.4),
    after_conv(layers.GaussianNoise, "2d", (8, 7, 3), stddev=0.4),
    after_conv(layers.ActivityRegularization, "2d", (8, 7, 3), l1=0.1),
    after_conv(StochasticDepth, "2d", (8, 7, 3), drop_path_rate=0.3),
    after_conv(layers.Activation, "linear", (8, 7, 3), activation="linear"),
    after_conv(layers.Activation, "none", (8, 7, 3), activation=None),
    merge(layers.Add, "residual", lambda x: [layers.Conv2D(4, 3, padding="same", name="a")(x), x]),
    merge(layers.Add, "twice_the_same", lambda x: [x, x]),
    merge(layers.Add, "conv_twice", lambda x: [y := layers.Conv2D(4, 2, name="a")(x), y]),
    merge(
        layers.Add,
        "repvgg",
        lambda x: [
            layers.BatchNormalization()(x),
            with_bn(conv(4, 1, use_bias=False))(x),
            with_bn(same(4, 3))(x),
        ],
    ),
    merge(
        layers.Add,
        "acnet",
        lambda x: [
            layers.Conv2D(5, (3, 1), padding="same", name="a")(x),
            layers.Conv2D(5, (1, 3), padding="same", name="b")(x),
            layers.Conv2D(5, 3, padding="same", dilation_rate=2, name="c")(x),
        ],
    ),
    merge(
        layers.Add,
        "strided",
        lambda x: [
            layers.Conv2D(5, 3, strides=2, padding="same", name="a")(x),
            layers.Conv2D(5, 1, strides=2, name="b")(x),
        ],
    ),
    merge(
        layers.Add,
        "depthwise_and_pool",
        lambda x: [
            layers.DepthwiseConv2D(2, strides=2, name="a")(x),
            layers.AveragePooling2D(2, name="b")(x),
        ],
    ),
    merge(
        layers.Subtract, "residual", lambda x: [layers.Conv2D(4, 3, padding="same", name="a")(x), x]
    ),
    merge(
        layers.Subtract,
        "other_order",
        lambda x: [x, layers.Conv2D(4, 3, padding="same", name="a")(x)],
    ),
    Case(
        CustomScaleLayer,
        "CustomScaleLayer-residual",
        lambda x: CustomScaleLayer(0.3, name="layer")([x, layers.Conv2D(4, 1, name="a")(x)]),
        (8, 7, 4),
    ),
    merge(
        layers.Average,
        "three",
        lambda x: [
            x,
            layers.Conv2D(4, 3, padding="same", name="a")(x),
            layers.Conv2D(4, 1, name="b")(x),
        ],
    ),
    merge(
        layers.Concatenate,
        "two_convs",
        lambda x: [
            layers.Conv2D(3, 3, padding="same", name="a")(x),
            layers.Conv2D(2, 1, name="b")(x),
        ],
    ),
    merge(
        layers.Concatenate,
        "with_the_input",
        lambda x: [x, layers.DepthwiseConv2D(3, padding="same", name="a")(x), x],
    ),
    merge(
        layers.Concatenate,
        "groups",
        lambda x: [
            layers.Conv2D(4, 3, groups=2, name="a")(x),
            layers.Conv2D(2, (3, 3), name="b")(x),
        ],
    ),
    *rows(
        layers.Conv2DTranspose,
        ONE,
        (6, 3),
        {
            "valid": {},
            "same": {"padding": "same"},
            "no_bias": {"use_bias": False},
            "1x1": {"_args": (6, 1)},
            "stride2": {"strides": 2},
            "stride2_same": {"strides": 2, "padding": "same"},
            "2x5_strides_3_2": {"_args": (6, (2, 5)), "strides": (3, 2)},
            "2x5_strides_3_2_same": {"_args": (6, (2, 5)), "strides": (3, 2), "padding": "same"},
            "5_stride2_same": {"_args": (6, 5), "strides": 2, "padding": "same"},
            "stride_over_kernel": {"_args": (6, 2), "strides": 3},
            "stride_over_kernel_same": {"_args": (6, 2), "strides": 3, "padding": "same"},
            "output_padding": {"strides": 2, "output_padding": 1},
            "output_padding_0_same": {"strides": 2, "padding": "same", "output_padding": 0},
            "output_padding_same": {
                "_args": (6, (3, 4)),
                "strides": 3,
                "padding": "same",
                "output_padding": (2, 1),
            },
            "relu": RELU,
            "before": {"_where": "before"},
            "before_stride2": {"_where": "before", "strides": 2},
        },
    ),
    *rows(
        layers.Conv1DTranspose,
        LINE,
        (6, 3),
        {
            "valid": {},
            "same": {"padding": "same", "use_bias": False},
            "stride2_same": {"strides": 2, "padding": "same"},
            "stride_over_kernel": {"_args": (6, 2), "strides": 3},
            "output_padding": {"strides": 3, "output_padding": 2},
        },
    ),
    *rows(
        layers.Conv3DTranspose,
        VOLUME,
        (3, 2),
        {
            "valid": {},
            "same": {"padding": "same"},
            "stride2": {"strides": 2, "use_bias": False},
            "3x1x2_strides_2_1_2_same": {
                "_args": (3, (3, 1, 2)),
                "strides": (2, 1, 2),
                "padding": "same",
            },
            "stride_over_kernel": {"strides": 3},
            "output_padding": {"strides": 2, "padding": "same", "output_padding": 1},
        },
    ),
    # A scale per channel behind an upsampling would be a transposed convolution in groups, which
    # Keras has not; a convolution mixes the channels anyway.
    *before(
        lambda x: layers.Conv2D(3, 3, name="c")(x),
        *rows(
            layers.UpSampling2D,
            ONE,
            (2,),
            {"2": {}, "unequal": {"_args": ((2, 3),)}, "before": {"_where": "before"}},
        ),
    ),
    *before(
        lambda x: layers.Conv1D(3, 3, name="c")(x),
        *rows(layers.UpSampling1D, LINE, (2,), {"2": {}, "3": {"_args": (3,)}}),
    ),
    *before(
        lambda x: layers.Conv3D(3, 2, name="c")(x),
        *rows(layers.UpSampling3D, VOLUME, (2,), {"2": {}, "unequal": {"_args": ((1, 3, 2),)}}),
    ),
    *rows(layers.UpSampling2D, ONE, (), {"alone": {"_args": ((3, 1),), "_merges": False}}),
    # The same of global pooling: a weight per channel is no pooling layer, a Dense behind it is.
    *[
        row
        for rank, (kind, shapes) in enumerate(
            (
                (layers.GlobalAveragePooling1D, LINE),
                (layers.GlobalAveragePooling2D, ONE),
                (layers.GlobalAveragePooling3D, VOLUME),
            ),
            start=1,
        )
        for row in (
            *before(
                lambda x: layers.Dense(3, name="c")(x),
                *rows(kind, shapes, (), {"vector": {}, "before": {"_where": "before"}}),
            ),
            *before(
                lambda x, rank=rank: getattr(layers, f"Conv{rank}D")(3, 1, name="c")(x),
                *rows(kind, shapes, (), {"keepdims": {"keepdims": True}}),
            ),
            *rows(
                kind,
                shapes,
                (),
                {
                    "alone": {"_merges": False},
                    "keepdims_alone": {"keepdims": True},
                },
            ),
        )
    ],
    *rows(
        layers.AdaptiveAveragePooling2D,
        {"": (8, 9, 4)},
        (),
        {
            "4x3": {"_args": ((4, 3),)},
            "1": {"_args": (1,)},
            "whole": {"_args": ((8, 9),), "_merges": False},  # as a pool of one pixel
            "unequal_windows": {"_args": ((3, 3),), "_merges": False},
            "before": {"_args": ((2, 9),), "_where": "before"},
        },
    ),
    *rows(
        layers.AdaptiveAveragePooling1D,
        {"": (12, 4)},
        (),
        {"4": {"_args": (4,)}, "unequal_windows": {"_args": (5,), "_merges": False}},
    ),
    *rows(
        layers.AdaptiveAveragePooling3D,
        {"": (6, 4, 5, 2)},
        (),
        {
            "3x2x1": {"_args": ((3, 2, 1),)},
            "unequal_windows": {"_args": ((4, 2, 1),), "_merges": False},
        },
    ),
    *rows(
        layers.Dense,
        {"-vector": (7,), "-line": (5, 4), "-channels": (6, 5, 4)},
        (3,),
        {
            "bias": {},
            "no_bias": {"use_bias": False},
            "softmax": {"activation": "softmax", "_where": "before"},
        },
    ),
    *rows(
        layers.EinsumDense,
        {"-image": (6, 5, 4)},
        (),
        {
            "channels": {"_args": ("bhwc,cd->bhwd", (6, 5, 3)), "bias_axes": "d"},
            "transposed": {"_args": ("bhwc,dc->bhwd", (6, 5, 3))},
            "relu": {"_args": ("bhwc,cd->bhwd", (6, 5, 3)), "bias_axes": "d", **RELU},
            "scale": {"_args": ("bhwc,c->bhwc", (6, 5, 4))},
            "scale_and_bias": {"_args": ("bhwc,c->bhwc", (6, 5, 4)), "bias_axes": "c"},
        },
    ),
    *rows(
        layers.EinsumDense,
        {"-line": (5, 4)},
        (),
        {
            "ellipsis": {"_args": ("...c,cd->...d", (3,)), "bias_axes": "d"},
            "bias_along_the_line": {
                "_args": ("btc,cd->btd", (5, 3)),
                "bias_axes": "td",
                "_merges": False,
            },
            "whole": {"_args": ("btc,ctd->bd", (3,)), "bias_axes": "d"},
            "heads": {"_args": ("btc,cnk->btnk", (5, 2, 3)), "bias_axes": "nk"},
        },
    ),
    *[
        Case(kind, f"{kind.__name__}-{name}", make, shape, where)
        for kind, name, make, shape, where in (
            (
                layers.SpectralNormalization,
                "dense",
                lambda x: layers.SpectralNormalization(layers.Dense(3), name="layer")(x),
                (7,),
                "after",
            ),
            (
                layers.SpectralNormalization,
                "relu",
                lambda x: layers.SpectralNormalization(
                    layers.Conv2D(3, 2, activation="relu"), name="layer"
                )(x),
                (5, 4, 3),
                "before",
            ),
            (
                layers.SpectralNormalization,
                "conv",
                lambda x: layers.SpectralNormalization(layers.Conv2D(3, 2), name="layer")(x),
                (5, 4, 3),
                "after",
            ),
            (
                layers.TimeDistributed,
                "relu",
                lambda x: layers.TimeDistributed(layers.Dense(3, activation="relu"), name="layer")(
                    x
                ),
                (5, 4),
                "before",
            ),
            (
                layers.TimeDistributed,
                "batchnorm",
                lambda x: layers.Conv1D(3, 2)(
                    layers.TimeDistributed(layers.BatchNormalization(), name="layer")(x)
                ),
                (5, 4),
                "after",
            ),
            (
                layers.TimeDistributed,
                "dense",
                lambda x: layers.TimeDistributed(layers.Dense(3), name="layer")(x),
                (5, 4),
                "after",
            ),
            (
                layers.Pipeline,
                "of_augmentations",
                lambda x: layers.Pipeline(
                    [layers.RandomFlip(), layers.Rescaling(2.0, 1.0)], name="layer"
                )(layers.Conv2D(4, 1)(x)),
                (5, 4, 3),
                "after",
            ),
            (
                LayerScale,
                "image",
                lambda x: LayerScale(0.1, 4, name="layer")(layers.Conv2D(4, 1)(x)),
                (5, 4, 3),
                "after",
            ),
        )
    ],
    *before(
        lambda x: layers.Dense(3, name="c")(x),
        *rows(
            layers.Flatten,
            {"-image": (4, 3, 2), "-line": (5, 2), "-volume": (3, 2, 2, 2)},
            (),
            {"": {}, "before": {"_where": "before"}},
        ),
        *rows(layers.Reshape, {"": (4, 3, 2)}, (), {"24": {"_args": ((24,),)}}),
        *rows(layers.Reshape, {"": (4, 3, 2)}, (), {"any": {"_args": ((-1,),)}}),
    ),
    *rows(layers.Flatten, {"": (4, 3, 2)}, (), {"alone": {"_merges": False}}),
    after_conv(layers.Reshape, "to_an_image", (10, 9, 4), target_shape=(12, 6, 4)),
    after_conv(layers.Permute, "", (9, 8, 4), dims=(2, 1, 3)),
    *rows(
        layers.Rescaling,
        ONE,
        (),
        {
            "scale": {"_args": (1 / 127.5,)},
            "offset": {"_args": (2.0, -1.0)},
            "negative": {"_args": (-0.3, 0.5)},
            "per_channel": {"_args": ([1.0, 2.0, -0.5, 3.0], [0.1, 0.0, -2.0, 1.0])},
            "before": {"_args": (0.5, 3.0), "_where": "before"},
        },
    ),
    Case(
        layers.Rescaling,
        "Rescaling-before_valid",
        lambda x: layers.Conv2D(3, 3, name="c")(layers.Rescaling(1 / 255, -1, name="layer")(x)),
        (9, 8, 4),
    ),
    normalization("adapted", adapt=True),
    normalization("inverted_adapted", adapt=True, invert=True),
    normalization("given", mean=[0.485, -0.4, 3.0, 0.0], variance=[0.2, 0.3, 4.0, 1e-3]),
    normalization("one_number", mean=0.3, variance=2.0, axis=None),
    normalization("inverted", mean=[0.1, 0.2, 0.3, 0.4], variance=[0.2, 3, 4, 1], invert=True),
]

"""Graph -> affine program: one rule a layer.

Layers and functions that are lifted, what of them is exact, and what is refused:

Conv1D/2D/3D, DepthwiseConv1D/2D, SeparableConv1D/2D
    exact: any strides, dilation, groups and padding; an inline `activation=` is put back; a
      Conv1D/2D in as many groups as channels becomes the DepthwiseConv that it equals
    refused: merging a strided 'same' layer with more than pointwise ones at an unknown image size

Conv1D/2D/3DTranspose
    exact: with strides, `output_padding` and dilation
    refused: merging it with a stride before it that shares a divisor with its own

UpSampling1D/2D/3D
    exact: nearest; bilinear moves past pointwise layers, and merges with others in the interior
      of the image (`kerasfold.forms`, 3.), or whole with what sees all of it
    refused: other interpolations; merging it with a stride before it that shares a divisor with
      its factor

AveragePooling1D/2D/3D
    exact: any; pools, nearest upsamplings, paddings and croppings one after another are one of
      them where they count all samples equally often; a 'same' pool that reaches beyond the image
      moves past pointwise layers, and merges with others as a bilinear upsampling does

MaxPooling1D/2D/3D, GlobalMaxPooling1D/2D/3D
    exact: of one sample each: a stride, or nothing
    refused: maxima of several samples

AdaptiveAveragePooling1D/2D/3D
    exact: with windows of one size
    refused: images that it does not divide

GlobalAveragePooling1D/2D/3D
    exact: with and without `keepdims`; what is pointwise before it (a 1x1, a Dense, a
      BatchNormalization, a scale) is computed of the mean, of one pixel
    refused: images of unknown size

Dense
    exact: on vectors and on the channel axis

EinsumDense
    exact: where it is a matrix on any axes of the image, or a scale per channel
    refused: other equations

SpectralNormalization, Pipeline
    exact: around, or of, any of these layers
    refused: activations in a Pipeline

TimeDistributed
    exact: around a layer for vectors, as that layer on the channels; around one for images, as
      that layer on all steps as one batch, into which a BatchNormalization of the sequence merges
    refused: an unknown number of steps of images

LayerScale, CustomScaleLayer
    exact: the scales in `keras.applications`

Flatten, Reshape, Permute
    exact: two that undo each other vanish; maps per pixel and scales per channel pass them (Dense
      → Reshape → BatchNormalization), and windows along what stays one axis; an order of channels
      goes into a kernel (channel shuffle)
    refused: images of unknown size; windows along what is no axis before

BatchNormalization, Normalization, Rescaling
    exact: on any axes, at inference; several one after another, constants among them, become one
      BatchNormalization; what varies from pixel to pixel merges with its like, and with maps that
      it passes (W (x + c) = W x + W c; a Dense layer on all of the image)
    refused: values that are not finite; merging what first subtracts numbers more than 256 times as
      large as what is left (years, of which weights would lose digits)

ZeroPadding1D/2D/3D, Cropping1D/2D/3D, CenterCrop
    exact: any; crops and slices in a row become one
    refused: a CenterCrop of smaller images

Resizing
    exact: to the same size, or one a whole number of times larger, as UpSampling2D is
    refused: other sizes; smoothing, or keeping the aspect ratio

Add, Subtract, Average
    exact: tensors of one shape, of any number of sources; multiples by the same numbers are added
      or subtracted first, and multiplied once; convolutions that are added up may become one, of
      their sources side by side
    refused: sums that broadcast

Concatenate
    exact: of channels; what applies to each group of channels by itself goes into its parts, a
      convolution of it can read them one by one, and what is cut out of one of them again reads
      that alone
    refused: another axis; merging groups of channels that read several parts

Identity, Dropout, SpatialDropout1D/2D/3D, AlphaDropout, GaussianDropout, GaussianNoise,
  ActivityRegularization, StochasticDepth, Activation
    exact: removed, as is every step that changes nothing (times one, plus zero, all of the
      channels)
    refused: activations other than linear

AugMix, CutMix, MixUp, RandAugment, RandomBrightness, RandomColorDegeneration, RandomColorJitter,
  RandomContrast, RandomCrop, RandomElasticTransform, RandomErasing, RandomFlip,
  RandomGaussianBlur, RandomGrayscale, RandomHue, RandomInvert, RandomPerspective,
  RandomPosterization, RandomRotation, RandomSaturation, RandomSharpness, RandomShear,
  RandomTranslation, RandomZoom, Solarization
    exact: removed; the report names those that a plain `model(x)` would run
    refused: a crop to sizes other than the image's

`keras.ops`: add, subtract, multiply, divide, true_divide, negative, cast, convert_to_tensor,
  stop_gradient, copy, deg2rad, rad2deg, zeros_like, concatenate, stack, split, array_split,
  unstack, pad, reshape, transpose, swapaxes, moveaxis, squeeze, expand_dims, depth_to_space,
  space_to_depth, get_item, take, flip, roll, repeat, tile, diff, conv, depthwise_conv,
  separable_conv, conv_transpose, batch_normalization, average_pool, mean, sum, average, matmul,
  dot, inner, tensordot, einsum, resize, extract_patches, crop_images, pad_images, and the
  operators
    exact: with constants that vary along any axes; products with a constant matrix on any axes of
      the image; padding with zeros, of channels too; slices; lists of channels; casts to the same
      dtype; multiples by one number of a product of two tensors, taken into one of them
    refused: products and quotients of tensors; rearrangements of the batch; constants that
      broadcast an image; padding with other values; indices other than slices and numbers; flips
      and lists along other axes; other products of tensors and constants

Everything else is a barrier: it stays as it is, and so do calls with `training=True`, calls that
read a mask or hand one on to what may look for it, and subclasses of the layers above. Nested
models are walked through, however they are called, at the sizes they are called with. Layers of
other makers that are made of layers (a residual block with its convolutions and BatchNorms
inside) are *opened*: their `call` is run once on symbolic tensors, and the result holds the
layers inside; they must have no weights of their own, and a `call` that is nothing but layers and
`keras.ops`. The report names them, and why others stay shut; `open_layers=False` leaves all shut.
So is `TimeDistributed` around a model; a layer that several calls share, at one size or several,
stays shared where what is merged into it is the same for all of them. Weights are read in float64
and rounded once, to the dtype the layer stores them in, under any dtype policy.

Some barriers do what stands beside them to channels, by weights of their own. Gains and shifts
that alone they read go into the kernels and biases of LSTM, GRU, SimpleRNN, ConvLSTM1D/2D/3D, RNN
and Bidirectional of these, MultiHeadAttention and GroupQueryAttention; those that alone read what
they give, into Embedding, attention, and Dense, EinsumDense and convolutions of integers. A bias
comes in where a shift needs one, and that pays. Not so shifts before zero padding or in half
precision, steps behind an activation, but for gains that pass it, nor layers of several calls, or
with masks, or attention that returns its scores. Positive gains, and shifts, go before a Maximum
or a Minimum (`keras.ops` too), where affine steps make all that it reads.

Calls that compute the same of the same tensors are made once, affine or not: a layer that is
called on one tensor twice, or layers of Keras that are made alike, their weights equal bit for
bit. Never those that are random or keep a state, in training either, nor what runs code of
others.

To add a layer, write one rule: it takes the layer and a `kerasfold.Signal` per tensor, and says
in affine steps (`convolve`, `scale`, `average`, `pad`, `crop`, `upsample`, `take`, `+`, `*`,
`kerasfold.concatenate`, …) what the layer does at inference. Rules are found by exact class.
`kerasfold.testing.check_lift` compares a rule with its layer on random weights and inputs.

    @kerasfold.lifts(ChannelScale)
    def channel_scale(layer, x):
        '''y = gain x.'''
        return x.scale(layer.gain)

Layers that only drop things in training are `x` itself. `examples/zoo_rules.py` has rules for
layers of kimm and keras-hub.

An activation of your own, a function or a class of layers, states its laws (`pointwise`,
`positively_homogeneous`, `monotone`, `odd`, `idempotent`) with `kerasfold.obeys`, by which strides,
scales and shuffles pass it; `kerasfold.testing.check_laws` holds them against random numbers.

    @kerasfold.obeys(positively_homogeneous=True, monotone=True)
    def leaky(x):
        return keras.ops.maximum(x, 0.1 * x)

A rule may raise `kerasfold.Refused(reason)`; the layer is then kept, with that reason in the
report. A rule takes the place of another, such as kerasfold's own, only with `lifts(...,
override=True)`.
"""

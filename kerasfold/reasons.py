"""Why a layer stays: each reason that a report may give, by a short and stable code.

A reason is written where something is refused; its code is found by its words. `kerasfold why CODE`
prints what stands here, and imports nothing else.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """What is behind a code.

    Attributes:
        code: in reports.
        title: in a few words.
        meaning: why kerasfold leaves the layer alone.
        example: a model of which it is said.
        way_out: what can be done about it, if anything.
        words: regular expressions; a reason has this code if one of them is found in it.
    """

    code: str
    title: str
    meaning: str
    example: str
    way_out: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        example = "\n".join(f"    {line}" for line in self.example.splitlines())
        return (
            f"{self.code}: {self.title}\n\n{self.meaning}\n\nExample:\n{example}\n\n"
            f"What to do: {self.way_out}"
        )


NONE = "nothing: the layer is what the model needs, and it costs no more than it did."

# In the order in which they are tried: the first that fits is the code. The last fits all.
REASONS = (
    Reason(
        "KF110",
        "a gain that is not positive",
        "The layer multiplies channels behind an activation or a maximum that lets positive gains "
        "pass, g relu(x) = relu(g x), and no others: -relu(x) is not relu(-x). One of its gains is "
        "negative or zero, so that it stays.",
        "Conv2D -> ReLU -> BatchNormalization with a negative gamma in one channel",
        "gammas that are positive: keras.constraints.NonNeg() in training keeps them from being "
        "negative.",
        (r"gains are not positive",),
    ),
    Reason(
        "KF107",
        "a layer whose inside is not seen",
        "The layer is made of others. Its inside can be folded only where its `call` is nothing "
        "but layers and keras.ops on tensors; this one has weights of its own, keeps a state, or "
        "does something that cannot be followed. It stays as it is, as one.",
        "class Block(keras.layers.Layer):  # multiplies by self.gain, a weight of its own\n"
        "    def call(self, x):\n        return self.gain * self.conv(x)",
        "write a rule for it with @kerasfold.lifts(Block), or build the block of layers.",
        (r"^(it|a nested model) \(\w+\) ",),
    ),
    Reason(
        "KF601",
        "nothing before it to merge with",
        "Two layers merge where one reads what the other gives, and nothing nonlinear is between "
        "them. Before this one there is nothing linear that only it reads, or the input.",
        "ReLU -> Conv2D -> ReLU",
        NONE,
        (r"^(its activation is not linear, and )?nothing before it merges into it",),
    ),
    Reason(
        "KF602",
        "an output has its name of it",
        "The layer does nothing, but for the name that it gives to an output whose tensor is an "
        "input, or another output, too. Without it that output would have another name.",
        'keras.layers.Identity(name="scores") on an input that is returned',
        NONE,
        (r"has its name of it",),
    ),
    Reason(
        "KF102",
        "an activation that is not linear",
        "What is before a nonlinear activation and what is behind it are no one linear step.",
        'Conv2D(8, 3, activation="relu") -> Conv2D(8, 1)',
        "train without the activation where the accuracy allows it; else nothing.",
        (r"activation.*not linear", r"an activation on an identity"),
    ),
    Reason(
        "KF101",
        "not linear, or a layer without a rule",
        "kerasfold merges what is linear (a weighted sum of its inputs, plus constants). This "
        "layer is not, as ReLU, MaxPooling2D and all other activations of Keras are not; or, as "
        "most often with a class of your own or of another package, kerasfold does not know it.",
        "Conv2D -> MaxPooling2D -> Conv2D",
        "a layer of your own that is linear gets a rule with @kerasfold.lifts: see "
        "help(kerasfold.lifts).",
        (r"has no rule\b", r"a maximum of", r"compares more often"),
    ),
    Reason(
        "KF103",
        "a product of two tensors",
        "Tensors that depend on the input, multiplied with or divided by each other, are no "
        "linear step: twice the input gives four times the output.",
        "x * keras.ops.sigmoid(x)",
        NONE,
        (
            r"(product|quotient|division).*not linear",
            r"weights are a tensor",
            r"operand (is|that is not)",
        ),
    ),
    Reason(
        "KF104",
        "called with training=True",
        "The layer was called with training=True when the model was built, so that it is random, "
        "or uses the batch's own statistics, at inference too. That is kept.",
        "Dropout(0.5)(x, training=True)",
        "build the model without training=True, if that is not meant.",
        (r"training=True",),
    ),
    Reason(
        "KF105",
        "a mask",
        "A mask (which steps of a sequence count) goes through the layer and is read behind it, "
        "or is read by it. A merged layer would not hand it on.",
        "Embedding(mask_zero=True) -> Dense -> LSTM",
        "apply what needs the mask before the layers that are to be merged.",
        (r"\bmask(s|ed)?\b",),
    ),
    Reason(
        "KF106",
        "numbers of another kind",
        "The layer reads or gives integers, or casts from one dtype to another. Merged weights "
        "are floats of one dtype, and rounding between two layers is part of what they compute.",
        'ZeroPadding2D on an Input(dtype="uint8")',
        "cast once, at the input, and use one dtype policy for layers that are to be merged; a "
        "number of NumPy's makes float64 of what it multiplies, as in x / np.sqrt(2), and "
        "float(np.sqrt(2)) does not.",
        (r"not a float", r"not floats", r"\bcasts \w+ to", r"integers"),
    ),
    Reason(
        "KF403",
        "merging it would take more weights or multiplications",
        "Merged, the layers would have many more weights or multiplications, and would be hardly "
        "faster for it. A 1x1 convolution to few channels before a 3x3 one is cheaper as two.",
        "Conv2D(8, 1) -> Conv2D(256, 3) on 256 channels",
        "objective='layers' merges all that is exact, whatever it costs.",
        (r"would take [\d,]+ ",),
    ),
    Reason(
        "KF402",
        "merging it would be slower",
        "As predicted for this image size, the merged layer takes longer than the layers by "
        "themselves, on TensorFlow or under XLA.",
        "DepthwiseConv2D(3) -> Conv2D(256, 1): one dense 3x3 convolution would take 9 times "
        "the multiplications",
        "objective='measured' times it on your runtime; objective='layers' merges it anyway.",
        (r"would be slower", r"no faster on", r"^measured|slower on"),
    ),
    Reason(
        "KF404",
        "weights that several calls share",
        "The layer is called more than once. Merged at some calls, its weights would be stored "
        "twice.",
        "conv(a), conv(b), with a BatchNormalization behind one of them",
        "use layers of their own where they need not be equal.",
        (r"weights are shared",),
    ),
    Reason(
        "KF501",
        "numbers that do not fit the dtype",
        "The merged weights would overflow what they are stored in, or lose their digits, so that "
        "the result were less accurate than the original.",
        "a float16 Conv2D behind a BatchNormalization whose variance is 1e-12",
        "fold the model in float32.",
        (r"not fit their dtype", r"not finite", r"could be lost", r"lose digits"),
    ),
    Reason(
        "KF201",
        "an image of unknown size",
        "What would be exact here depends on the size of the image, which the Input leaves open.",
        'keras.Input((None, None, 3)) -> Conv2D(8, 3, strides=2, padding="same") -> Conv2D(8, 3)',
        "give the Input a fixed size, such as keras.Input((224, 224, 3)).",
        (r"unknown (image )?size", r"size.*unknown", r"channels is unknown", r"unknown padding"),
    ),
    Reason(
        "KF204",
        "a border that counts fewer pixels",
        "AveragePooling2D(padding='same') divides by the pixels that are really there, and "
        "bilinear upsampling repeats the outermost ones: along the border their weights differ "
        "from those inside.",
        'AveragePooling2D(3, strides=1, padding="same") -> Conv2D(8, 3)',
        "padding='valid', where the model may change.",
        (r"bilinear", r"clamps", r"a mean of (samples|what is)"),
    ),
    Reason(
        "KF301",
        "no Keras layer says it",
        "The layers are one linear step, but no single layer of Keras computes it: a scale with a "
        "stride, upsampling with a stride, a selection of pixels.",
        "Cropping2D -> ZeroPadding2D",
        NONE,
        (
            r"no (Keras|cropping|pooling) layer|no layer",
            r"^it is no convolution|selecting, which is no",
            r"Keras has no",
            r"a mean (that counts|of windows|whose|times)|nothing is reduced|no slice",
            r"which do not divide \d|leave samples out",
            r"a selection",
            r"indexes|it slices|operands|outputs have|gives outputs|it leaves no channels",
            r"no tensor|not compose|steps at once|multiples|is called on other",
            r"a sum of (what is scaled|different)|smaller than the kernel",
            r"equal windows|a list of channels",
            r"has no channels|declares images|resizes|times smaller|shifts by|repeats some",
            r"parts of nothing|add up to zero|of no numbers",
        ),
    ),
    Reason(
        "KF202",
        "zero padding between two layers",
        "The second layer pads with zeros what the first one gives. One merged kernel would read "
        "there what the first layer computes beyond the border of the image, which is not zero: "
        "right inside, wrong along the edges.",
        'Conv2D(8, 3, padding="same") -> Conv2D(8, 3, padding="same")',
        "pad once, before the first layer (its padding 'same' or ZeroPadding2D, then 'valid'); or "
        "objective='layers' or 'macs', which compute the border by itself where that is exact.",
        (
            r"zero padding between",
            r"before zero padding",
            r"\bpad(s|ded|ding)?\b",
            r"\bborder\b|high end",
            r"\btile",
            r"channel of ones",
        ),
    ),
    Reason(
        "KF203",
        "strides and upsamplings that do not meet",
        "A stride and an upsampling that share a divisor, or branches of different strides, give "
        "a result that changes from pixel to pixel, which no one convolution does.",
        "Conv2D(8, 3, strides=2) -> UpSampling2D(2) -> Conv2D(8, 3)",
        NONE,
        (
            r"\bstride",
            r"upsampl",
            r"periodically",
            r"branches (of|that)",
            r"windows? (falls|differ)|whose windows",
        ),
    ),
    Reason(
        "KF304",
        "a bias that Keras would add along the wrong axis",
        "With channels first, on TensorFlow, and images as wide as they have channels, Keras "
        "adds a bias along the width. kerasfold writes no layer that this could happen to.",
        'Conv2D(8, 3, data_format="channels_first") that gives images of width 8',
        "channels last, where the model may change.",
        (r"TensorFlow",),
    ),
    Reason(
        "KF303",
        "a concatenation of several sources",
        "What is behind reads channels of several tensors at once, and no one layer does.",
        "Concatenate([Conv2D(a), Conv2D(b)]) -> Conv2D(8, 3, groups=3)",
        NONE,
        (r"concatenation",),
    ),
    Reason(
        "KF302",
        "an image that is rearranged",
        "Flatten, Reshape, Permute and their like are between the layers, and what is behind "
        "does not work along the same axes as what is before.",
        "Conv2D -> Reshape -> Conv1D",
        NONE,
        (
            r"rearrange",
            r"a step of its own",
            r"reshape",
            r"flattened",
            r"reverses|moves the batch|batch an axis",
            r"part of (their|an|the) ",
        ),
    ),
    Reason(
        "KF108",
        "other axes than the channels",
        "The step works along the batch, or along axes that differ from tensor to tensor, or its "
        "constants stretch an image.",
        "keras.layers.Add()([image, vector])",
        NONE,
        (
            r"broadcast",
            r"\bbatch\b",
            r"\baxis\b|\baxes\b",
            r"a constant of shape",
            r"is no matrix",
            r"data_format|channels_(first|last)|in a model that is",
            r"along the steps",
        ),
    ),
    Reason(
        "KF401",
        "merging it does not pay",
        "It can be merged exactly, and would cost no less under the objective that was asked "
        "for: one large kernel may take more multiplications than two small ones.",
        "Conv2D(64, 3) -> Conv2D(64, 3): one 5x5 takes 25 multiplications where two 3x3 take 18",
        "another objective: 'layers' merges all that is exact, but into more than 134 million "
        "weights in place of less than a quarter of them; 'measured' times it.",
        (r"does not pay",),
    ),
    Reason(
        "KF109",
        "a reason of its own",
        "The rule of this layer, or the layer itself, gave a reason that stands in the report.",
        '@kerasfold.lifts(MyLayer)\ndef rule(layer, x):\n    raise kerasfold.Refused("why")',
        "what the reason says.",
        ("",),
    ),
)

BY_CODE = {reason.code: reason for reason in REASONS}


@functools.cache
def code_of(reason: str) -> str:
    """The code of a reason that a report gives."""
    return next(r.code for r in REASONS if any(re.search(words, reason) for words in r.words))


def listed() -> str:
    """All codes with their titles, a line each, in order."""
    return "\n".join(f"{code}  {BY_CODE[code].title}" for code in sorted(BY_CODE))

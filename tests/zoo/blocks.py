"""Layers in short, and the blocks that are affine from end to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

Tensor = Any
Block = Callable[[Tensor], Tensor]


def conv(n: int = 4, k: Any = 3, **settings: Any) -> keras.Layer:
    """A convolution, padded with nothing unless told."""
    return layers.Conv2D(n, k, **settings)


def same(n: int = 4, k: Any = 3, **settings: Any) -> keras.Layer:
    """A convolution that keeps the size unless strided."""
    return layers.Conv2D(n, k, padding="same", **settings)


def chained(*stack: Callable[[], keras.Layer]) -> Block:
    """Layers one after another, made where the block is applied."""

    def block(x: Tensor) -> Tensor:
        for layer in stack:
            x = layer()(x)
        return x

    return block


def with_bn(layer: keras.Layer) -> Block:
    """A layer with its BatchNormalization."""
    return lambda x: layers.BatchNormalization()(layer(x))


def repvgg(n: int = 4, strides: int = 1, groups: int = 1, bias: bool = False) -> Block:
    """3x3 + 1x1 + identity, each with its BatchNormalization."""

    def block(x: Tensor) -> Tensor:
        settings = {"strides": strides, "groups": groups, "use_bias": bias, "padding": "same"}
        branches = [with_bn(conv(n, k, **settings))(x) for k in (3, 1)]
        if strides == 1 and n == x.shape[-1]:
            branches.append(layers.BatchNormalization()(x))
        return layers.Add()(branches)

    return block


def acnet(strides: int = 1) -> Block:
    """3x3 + 1x3 + 3x1."""

    def block(x: Tensor) -> Tensor:
        settings = {"strides": strides, "padding": "same", "use_bias": False}
        return layers.Add()(
            [with_bn(layers.Conv2D(6, k, **settings))(x) for k in (3, (1, 3), (3, 1))]
        )

    return block


def dbb(padded: str, groups: int = 1) -> Block:
    """The diverse branch block; where its 1x1-BN -> 3x3 path is padded is `padded`.

    'between': a plain 'same' 3x3 pads zeros behind the first BN. 'before': the image is
    padded before the 1x1, so that the 3x3 reads what the BN makes of zeros, which is what
    its authors' padding with the BN's own constant comes to.
    """

    def bn_conv(x: Tensor, n: int, k: int, padding: str = "valid") -> Tensor:
        layer = layers.Conv2D(n, k, padding=padding, use_bias=False, groups=groups)
        return layers.BatchNormalization()(layer(x))

    def block(x: Tensor) -> Tensor:
        if padded == "between":
            deep = bn_conv(bn_conv(x, 8, 1), 6, 3, "same")
        else:
            deep = bn_conv(bn_conv(layers.ZeroPadding2D(1)(x), 8, 1), 6, 3)
        pooled = layers.ZeroPadding2D(1)(bn_conv(x, 6, 1))
        pooled = layers.BatchNormalization()(layers.AveragePooling2D(3, 1)(pooled))
        return layers.Add()([bn_conv(x, 6, 3, "same"), bn_conv(x, 6, 1), deep, pooled])

    return block


def mobileone_depthwise(strides: int = 1) -> Block:
    def block(x: Tensor) -> Tensor:
        settings = {"strides": strides, "padding": "same", "use_bias": False}
        branches = [with_bn(layers.DepthwiseConv2D(3, **settings))(x) for _ in range(4)]
        branches.append(with_bn(layers.DepthwiseConv2D(1, **settings))(x))
        if strides == 1:
            branches.append(layers.BatchNormalization()(x))
        return layers.Add()(branches)

    return block


def mobileone_pointwise(x: Tensor) -> Tensor:
    branches = [with_bn(layers.Conv2D(4, 1, use_bias=False))(x) for _ in range(3)]
    return layers.Add()([*branches, layers.BatchNormalization()(x)])


def sesr(x: Tensor) -> Tensor:
    """k x k -> 1x1, with the identity."""
    return layers.Add()([layers.Conv2D(4, 1)(layers.Conv2D(16, 5, padding="same")(x)), x])


def separable_residual(x: Tensor) -> Tensor:
    return layers.Add()([x, layers.SeparableConv2D(4, 3, padding="same")(x)])


def concatenated(x: Tensor) -> Tensor:
    branches = [
        layers.Conv2D(6, 3, padding="same")(x),
        layers.Conv2D(3, 1)(x),
        layers.DepthwiseConv2D(3, padding="same")(x),
    ]
    return layers.Conv2D(5, 1)(layers.Concatenate()(branches))


def diamond(x: Tensor) -> Tensor:
    y = layers.Conv2D(5, 3)(x)
    return layers.Add()([layers.Conv2D(4, 3)(y), with_bn(layers.Conv2D(4, (3, 3)))(y)])

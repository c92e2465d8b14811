"""The networks of the benchmarks: seven blocks between ReLUs, for training and by hand.

A stem (3x3 to 16 channels), seven blocks of width/stride 16/1, 16/1, 32/2, 32/1, 32/1, 64/2,
64/1, global average pooling and a Dense layer of 10, on images of 64x64x3. `block_net` builds
the form that is trained; `plain_net` the one that it should become.

    python benchmarks/nets.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from fold_time import randomise

import kerasfold

L = keras.layers
Tensor = Any
Block = Callable[[Tensor, int, int], Tensor]

WIDTHS = ((16, 1), (16, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1))


def normed(x: Tensor, layer: keras.Layer | None = None) -> Tensor:
    """A layer, if any, and a BatchNormalization."""
    return L.BatchNormalization()(x if layer is None else layer(x))


def repvgg(x: Tensor, width: int, stride: int) -> Tensor:
    """3x3 + 1x1 + identity, each normalised (Ding et al. 2021)."""
    branches = [
        normed(x, L.Conv2D(width, k, stride, padding="same", use_bias=False)) for k in (3, 1)
    ]
    if stride == 1 and x.shape[-1] == width:
        branches.append(normed(x))
    return L.Add()(branches)


def mobileone(x: Tensor, width: int, stride: int) -> Tensor:
    """Depthwise branches, a ReLU, pointwise branches (Vasu et al. 2023)."""
    branches = [
        normed(x, L.DepthwiseConv2D(3, stride, padding="same", use_bias=False)) for _ in range(4)
    ]
    branches.append(normed(x, L.DepthwiseConv2D(1, stride, use_bias=False)))
    if stride == 1:
        branches.append(normed(x))
    x = L.ReLU()(L.Add()(branches))
    branches = [normed(x, L.Conv2D(width, 1, use_bias=False)) for _ in range(4)]
    if x.shape[-1] == width:
        branches.append(normed(x))
    return L.Add()(branches)


def dbb(x: Tensor, width: int, stride: int) -> Tensor:
    """The diverse branch block (Ding et al. 2021): 3x3, 1x1, 1x1-3x3 and 1x1-pool.

    Its 1x1 layers have no bias, so that padding behind them with what their BatchNormalization
    makes of zero, as the authors do, is padding before them with zero.
    """
    unbiased = {"use_bias": False}
    wide = L.ZeroPadding2D(1)(x)
    deep = normed(wide, L.Conv2D(x.shape[-1], 1, **unbiased))
    pooled = normed(wide, L.Conv2D(width, 1, **unbiased))
    return L.Add()(
        [
            normed(wide, L.Conv2D(width, 3, stride, **unbiased)),
            normed(x, L.Conv2D(width, 1, stride, **unbiased)),
            normed(deep, L.Conv2D(width, 3, stride, **unbiased)),
            normed(pooled, L.AveragePooling2D(3, stride)),
        ]
    )


def expandnet(x: Tensor, width: int, stride: int) -> Tensor:
    """1x1 -> 3x3 -> 1x1, four times as wide inside (Guo et al. 2020)."""
    x = L.ZeroPadding2D(1)(x)
    x = L.Conv2D(4 * x.shape[-1], 1)(x)
    return L.Conv2D(width, 1)(L.Conv2D(4 * width, 3, stride)(x))


def sesr(x: Tensor, width: int, stride: int) -> Tensor:
    """3x3 to 256 channels -> 1x1, and the identity (Bhardwaj et al. 2022)."""
    y = L.Conv2D(width, 1)(L.Conv2D(256, 3, stride, padding="same")(x))
    return L.Add()([x, y]) if stride == 1 and x.shape[-1] == width else y


def same_on_same(x: Tensor, width: int, stride: int) -> Tensor:
    """Two 3x3 'same', eight times as wide between them."""
    y = L.Conv2D(8 * width, 3, padding="same")(x)
    return L.Conv2D(width, 3, stride, padding="same")(y)


def plain_conv(x: Tensor, width: int, stride: int) -> Tensor:
    """One 3x3, padded as Keras pads an image of even size at stride 1."""
    return L.Conv2D(width, 3, stride, padding="same")(x)


def plain_padded(x: Tensor, width: int, stride: int) -> Tensor:
    """One 3x3, padded by one pixel at every side."""
    if stride == 1:
        return plain_conv(x, width, stride)
    return L.Conv2D(width, 3, stride)(L.ZeroPadding2D(1)(x))


def plain_mobileone(x: Tensor, width: int, stride: int) -> Tensor:
    """A depthwise 3x3, a ReLU, a 1x1."""
    x = L.DepthwiseConv2D(3, stride, padding="same", activation="relu")(x)
    return L.Conv2D(width, 1)(x)


BLOCKS: dict[str, tuple[Block, Block]] = {
    "RepVGG": (repvgg, plain_conv),
    "MobileOne": (mobileone, plain_mobileone),
    "DBB": (dbb, plain_padded),
    "ExpandNet": (expandnet, plain_padded),
    "SESR": (sesr, plain_conv),
}


def network(block: Block, size: int = 64) -> keras.Model:
    """Seven of a block, between ReLUs."""
    x = inputs = keras.Input((size, size, 3))
    x = L.ReLU()(L.Conv2D(16, 3, padding="same")(x))
    for width, stride in WIDTHS:
        x = L.ReLU()(block(x, width, stride))
    return randomise(keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(x))))


def block_net(name: str) -> keras.Model:
    """The network of a block as it is trained."""
    return network(BLOCKS[name][0])


def plain_net(name: str) -> keras.Model:
    """The network of a block as it should become."""
    return network(BLOCKS[name][1])


def main() -> None:
    """Print what each network folds to, beside what it should."""
    for name in BLOCKS:
        folded = block_net(name).fold(verify=False)
        plain = plain_net(name)
        print(
            f"{name}: {len(folded.layers)} layers and {folded.fold_report.macs_after:,.0f} MACs, "
            f"by hand {len(plain.layers)} and {kerasfold.explain(plain).macs_before:,.0f}"
        )


if __name__ == "__main__":
    main()

"""The fourth article's search for the best block, run over its whole space, folding allowed for.

Three modules of 64, 128 and 256 channels, pooled between; each a 1x1 convolution and three layers,
every one a Conv2D, a DepthwiseConv2D or a SeparableConv2D behind which come a BatchNormalization
and a ReLU: 27 blocks. The article has Optuna look at some, on CIFAR-10; this prints all, with
weights and multiply-accumulates before and after folding, and the accuracy of a narrow copy that
is trained on scikit-learn's digits, in the order of the article's penalised error.

On 2026-11-26, with 8 epochs (weights of the article's network, accuracy on digits):

    least penalised error  separable, depthwise, depthwise    150,794  97.1 %
                           depthwise, depthwise, depthwise     64,778  95.1 %
                           separable, separable, depthwise    236,810  97.8 %  the article's
    most accurate          conv, conv, depthwise            1,605,002  98.9 %
                           conv, conv, conv                 2,375,114  98.4 %  the article's

Folding takes 7,168 weights and 458,752 multiply-accumulates from each, of 64,778 to 2,375,114 and
of 8.1 to 344.7 million. No block changes rank: every module has the same four BatchNormalizations,
and behind a ReLU nothing else is linear, so whatever adds up over layers, folding takes the same
from each.

    python examples/block_search.py           # some minutes
    python examples/block_search.py --quick   # trains two of the 27, one epoch each
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import kerasfold

L = keras.layers
Block = tuple[str, ...]  # keys of `KINDS`
KINDS: dict[str, Callable[[int], keras.Layer]] = {
    "conv": lambda filters: L.Conv2D(filters, 3, padding="same"),
    "depthwise": lambda filters: L.DepthwiseConv2D(3, padding="same"),
    "separable": lambda filters: L.SeparableConv2D(filters, 3, padding="same"),
}
BLOCKS: tuple[Block, ...] = tuple(itertools.product(KINDS, repeat=3))
CIFAR, WIDE = (32, 32, 3), (64, 128, 256)  # the article's images, and channels of its modules
NARROW = (8, 16, 32)  # channels of what is trained here
QUICK = (("conv", "depthwise", "depthwise"), ("separable", "separable", "depthwise"))


def classifier(
    block: Sequence[str], image: tuple[int, ...] = CIFAR, widths: Sequence[int] = WIDE
) -> keras.Model:
    """The article's network of modules that all have the same layers.

    Args:
        block: the kind of each layer of a module behind its 1x1 convolution.
        image: shape of the images.
        widths: channels of each module.
    """

    def activated(x: Any, layer: keras.Layer) -> Any:
        return L.Activation("relu")(L.BatchNormalization(momentum=0.9)(layer(x)))

    x = inputs = keras.Input(image)
    for filters in widths:
        x = activated(x, L.Conv2D(filters, 1))
        for kind in block:
            x = activated(x, KINDS[kind](filters))
        x = L.GlobalAveragePooling2D()(x) if filters == widths[-1] else L.AveragePooling2D(2)(x)
    return keras.Model(inputs, L.Dense(10, activation="softmax")(x))


class Sizes(NamedTuple):
    """Weights and multiply-accumulates of a network, before or after folding."""

    weights: int
    macs: int


def sizes(block: Block) -> tuple[Sizes, Sizes]:
    """Those of the article's network, and of its fold."""
    model = classifier(block)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.beta.assign(layer.gamma)  # as training does: a bias of zeros would be left out
    report = kerasfold.explain(model)
    return (
        Sizes(report.params_before, report.macs_before),
        Sizes(report.params_after, report.macs_after),
    )


def evaluation(accuracy: float, weights: int) -> float:
    """What the article minimises: the error, and 0.05 for every 250,000 weights."""
    return 1.0 - accuracy + weights / 250_000 * 0.05


def trained_accuracy(block: Block, epochs: int) -> float:
    """The accuracy on the test digits of a narrow network, trained for some epochs."""
    from train_and_fold import digits  # which needs scikit-learn

    images, test_images, labels, test_labels = digits(upsampling=1)
    keras.utils.set_random_seed(0)
    model = classifier(block, images.shape[1:], NARROW)
    steps = epochs * -(-len(images) // 64)
    rate = keras.optimizers.schedules.CosineDecay(0.01, steps)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    model.fit(images, labels, batch_size=64, epochs=epochs, verbose=0)
    answers = np.argmax(model(test_images, training=False), axis=-1)
    return float(np.mean(answers == test_labels))


class Row(NamedTuple):
    """A block, with what was found of it.

    Attributes:
        block: the kinds of its layers.
        before: sizes of the article's network.
        after: sizes of its fold.
        accuracy: of the narrow network, on digits; None where it was not trained.
    """

    block: Block
    before: Sizes
    after: Sizes
    accuracy: float | None


CRITERIA: dict[str, Callable[[Sizes, float], float]] = {
    "weights": lambda size, accuracy: size.weights,
    "multiply-accumulates": lambda size, accuracy: size.macs,
    "penalised error": lambda size, accuracy: evaluation(accuracy, size.weights),
}


def ranks(values: Sequence[float]) -> list[int]:
    """The rank of each value, from 1; equal ones share the first."""
    ordered = sorted(values)
    return [1 + ordered.index(value) for value in values]


def moved(rows: Sequence[Row], criterion: str) -> list[Block]:
    """The blocks, of those that were trained, that change rank once folding is allowed for."""
    trained = [(row, row.accuracy) for row in rows if row.accuracy is not None]
    value = CRITERIA[criterion]
    before = ranks([value(row.before, accuracy) for row, accuracy in trained])
    after = ranks([value(row.after, accuracy) for row, accuracy in trained])
    return [row.block for (row, _), a, b in zip(trained, before, after, strict=True) if a != b]


def table(rows: Sequence[Row]) -> Table:
    """All blocks, the best first."""
    result = Table(title=f"{len(rows)} blocks", title_justify="left", box=box.SIMPLE_HEAD)
    result.add_column("block", style="cyan", no_wrap=True)
    for name in ("weights", "folded", "MACs", "folded", "accuracy on digits", "penalised error"):
        result.add_column(name, justify="right")
    for row in rows:
        trained = row.accuracy is not None
        result.add_row(
            ", ".join(row.block),
            *(f"{sizes.weights:,}" for sizes in (row.before, row.after)),
            *(f"{sizes.macs / 1e6:,.1f} M" for sizes in (row.before, row.after)),
            f"{row.accuracy:.1%}" if trained else "",
            f"{evaluation(row.accuracy, row.before.weights):.3f}" if trained else "",
        )
    return result


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Search, and print what was found; the rows of the table."""
    parser = argparse.ArgumentParser(description="The fourth article's search for the best block.")
    parser.add_argument("--quick", action="store_true", help="train two blocks, one epoch each")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of each training (8)")
    args = parser.parse_args(argv)
    wanted, epochs = (QUICK, 1) if args.quick else (BLOCKS, args.epochs)
    rows = []
    for block in BLOCKS:
        accuracy = trained_accuracy(block, epochs) if block in wanted else None
        rows.append(Row(block, *sizes(block), accuracy))
        keras.backend.clear_session()
    rows.sort(key=lambda row: evaluation(row.accuracy or 0.0, row.before.weights))
    console = Console(width=None if Console().is_terminal else 110)
    console.print(table(rows))
    saved = {(x.weights - y.weights, x.macs - y.macs) for _, x, y, _ in rows}
    for weights, macs in sorted(saved):
        console.print(f"Folded, a network loses {weights:,} weights and {macs:,} MACs.")
    for criterion in CRITERIA:
        blocks = "; ".join(map(", ".join, moved(rows, criterion)))
        console.print(f"By {criterion}, folding changes the rank of {blocks or 'none'}.")
    return rows


if __name__ == "__main__":
    main()

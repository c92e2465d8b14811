"""Train a small convolutional network on handwritten digits, and fold it while it trains.

`model.fold()` returns a new model. The one that is being trained is not touched: its
branches and batch normalisations are what makes it train well, and it goes on training.

    python examples/train_and_fold.py
    python examples/train_and_fold.py --out examples/digits.keras
"""

from __future__ import annotations

import argparse
import os
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import kerasfold  # noqa: F401  (gives every model its fold method)

Digits = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def digits(upsampling: int = 2) -> Digits:
    """scikit-learn's 1,797 digits in [0, 1], every pixel repeated, a quarter kept for the test.

    Returns:
        Training images, test images, training labels and test labels.
    """
    data = load_digits()
    images = (data.images / 16).astype("float32")[..., None]
    images = images.repeat(upsampling, axis=1).repeat(upsampling, axis=2)
    return tuple(train_test_split(images, data.target, random_state=0, stratify=data.target))


def norm(x: Any, name: str) -> Any:
    """Batch normalisation whose averages settle within a few of our short epochs."""
    return keras.layers.BatchNormalization(momentum=0.9, name=name)(x)


def repvgg(x: Any, filters: int, name: str) -> Any:
    """RepVGG's block in training: a 3x3, a 1x1 and, where it fits, an identity branch."""
    layers = keras.layers
    branches = []
    for size in (3, 1):
        label = f"{name}_{size}x{size}"
        y = layers.Conv2D(filters, size, padding="same", use_bias=False, name=label)(x)
        branches.append(norm(y, f"{label}_norm"))
    if x.shape[-1] == filters:
        branches.append(norm(x, f"{name}_identity_norm"))
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_sum")(branches))


def transition(x: Any, filters: int, name: str) -> Any:
    """DenseNet's transition: a 1x1 convolution, then an average pooling."""
    layers = keras.layers
    x = layers.Conv2D(filters, 1, use_bias=False, name=name)(x)
    x = norm(x, f"{name}_norm")
    return layers.AveragePooling2D(2, name=f"{name}_pool")(x)


def build(side: int, width: int = 16) -> keras.Model:
    """The network: three stages of blocks, with a transition between them."""
    x = inputs = keras.Input((side, side, 1), name="image")
    x = repvgg(x, width, "block1a")
    x = repvgg(x, width, "block1b")
    x = transition(x, 2 * width, "transition1")
    x = repvgg(x, 2 * width, "block2a")
    x = repvgg(x, 2 * width, "block2b")
    x = transition(x, 2 * width, "transition2")
    x = repvgg(x, 2 * width, "block3")
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    x = keras.layers.Dropout(0.2, name="dropout")(x)
    outputs = keras.layers.Dense(10, activation="softmax", name="digit")(x)
    return keras.Model(inputs, outputs, name="digits")


def accuracy(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of images whose likeliest class is their label."""
    return float(np.mean(np.argmax(model.predict(images, verbose=0), axis=-1) == labels))


class Stage(NamedTuple):
    """A model and its fold at one moment of the training.

    Attributes:
        epochs: epochs trained so far.
        model: accuracy of the model on the test images.
        folded: accuracy of its fold.
        difference: the largest difference of their outputs on the test images.
    """

    epochs: int
    model: float
    folded: float
    difference: float


def fold_now(
    model: keras.Model, epochs: int, images: np.ndarray, labels: np.ndarray
) -> tuple[Any, Stage]:
    """Fold the model as it is, and compare the two on the test images.

    Returns:
        The folded model, and the comparison.

    Raises:
        RuntimeError: the fold changed the model.
    """
    before = model.get_weights()
    folded = model.fold()
    if not all(map(np.array_equal, before, model.get_weights())):
        raise RuntimeError("fold() changed the weights of the model that it folded")
    difference = np.abs(model.predict(images, verbose=0) - folded.predict(images, verbose=0)).max()
    both = [accuracy(m, images, labels) for m in (model, folded)]
    return folded, Stage(epochs, *both, float(difference))


def main(arguments: list[str] | None = None) -> list[Stage]:
    """Train, fold, train on, fold again; print the report of the last fold.

    Args:
        arguments: the command line, or None for the process's own.

    Returns:
        The comparisons after the first and the second half of the training.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--epochs", type=int, default=12, help="epochs of each half of the training"
    )
    parser.add_argument(
        "--out", help="where to save the trained model, not folded; nowhere by default"
    )
    options = parser.parse_args(arguments)

    keras.utils.set_random_seed(0)
    images, test_images, labels, test_labels = digits()
    model = build(images.shape[1])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    stages = []
    for half, rate in ((1, 3e-3), (2, 3e-4)):
        model.optimizer.learning_rate = rate
        model.fit(images, labels, batch_size=64, epochs=options.epochs, verbose=0)
        folded, stage = fold_now(model, half * options.epochs, test_images, test_labels)
        stages.append(stage)
    show(stages, folded)
    if options.out:
        # A copy that was never compiled: the optimizer's state would triple the file.
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        copy.save(options.out)
        print(f"saved the trained model, not folded: {options.out}")
    return stages


def show(stages: list[Stage], folded: keras.Model) -> None:
    """Print the report of the last fold, then the accuracies."""
    print(folded.fold_report, end="\n\n")

    accuracies = Table(title="accuracy on the test images", title_justify="left")
    for column in ("epochs", "trained", "folded", "largest difference of a probability"):
        accuracies.add_column(column, justify="right")
    for stage in stages:
        accuracies.add_row(
            str(stage.epochs),
            f"{stage.model:.2%}",
            f"{stage.folded:.2%}",
            f"{stage.difference:.0e}",
        )
    Console().print(accuracies)


if __name__ == "__main__":
    main()

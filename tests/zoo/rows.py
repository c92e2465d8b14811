"""A row of the table of lifted layers, and what makes several of them.

A row builds its layer on an input; the tests put a BatchNormalization behind (or before) it, so
that something merges.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import layers

from zoo.making import policy, randomise
from zoo.same import FLOAT32, FLOAT64

POOLING_3D = (layers.AveragePooling3D, layers.AdaptiveAveragePooling3D, layers.MaxPooling3D)


@dataclass(frozen=True)
class Case:
    """A layer on an input.

    Attributes:
        kind: the layer class the row is about.
        id: unique, for the test's name.
        make: applies the layer to a tensor.
        shape: input shape, without batch.
        where: which side of the layer the BatchNormalization goes.
        merges: whether that BatchNormalization must disappear under objective='layers'.
    """

    kind: type
    id: str
    make: Callable[[Any], Any]
    shape: tuple[int | None, ...]
    where: str = "after"
    merges: bool = True

    @property
    def has_float64(self) -> bool:
        """TensorFlow has no 3-D pooling of float64 on the CPU."""
        return self.kind not in POOLING_3D

    @property
    def tolerance(self) -> float | None:
        """What float64 models may differ by."""
        return FLOAT64 if self.has_float64 else FLOAT32

    def model(self, dtype: str, seed: int = 0) -> keras.Model:
        """The layer with a BatchNormalization, weights randomised, under a dtype policy."""
        dtype = "float32" if dtype == "float64" and not self.has_float64 else dtype
        with policy(dtype):
            x = inputs = keras.Input(self.shape, name="image")
            if self.where == "before":
                x = layers.BatchNormalization(name="bn")(x)
            x = self.make(x)
            if self.where == "after":
                x = layers.BatchNormalization(name="bn")(x)
            return randomise(keras.Model(inputs, x), seed)


def rows(
    kind: type, shapes: Any, positional: tuple[Any, ...], options: dict[str, Any]
) -> list[Case]:
    """One row per set of options and shape; `_`-keys are fields of the row."""
    found = []
    for (name, given), (label, shape) in itertools.product(options.items(), shapes.items()):
        if given.get("_only", label) != label:
            continue
        fields = {key[1:]: value for key, value in given.items() if key in ("_where", "_merges")}
        settings = {key: value for key, value in given.items() if not key.startswith("_")}
        args = given.get("_args", positional)

        def make(x: Any, args: Any = args, settings: Any = settings) -> Any:
            return kind(*args, name="layer", **settings)(x)

        found.append(Case(kind, f"{kind.__name__}-{name}{label}", make, shape, **fields))
    return found


def after_conv(kind: type, name: str, shape: tuple[int, ...], **settings: Any) -> Case:
    """A layer between a conv and the BatchNormalization, which must meet through it."""
    conv = {2: layers.Conv1D, 3: layers.Conv2D, 4: layers.Conv3D}[len(shape)]

    def make(x: Any) -> Any:
        return kind(name="layer", **settings)(conv(4, 2, name="conv")(x))

    return Case(kind, f"{kind.__name__}-{name}", make, shape)


def before(then: Callable[[Any], Any], *cases: Case) -> list[Case]:
    """The rows with something behind the layer that it must merge into."""

    def chained(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda x: then(make(x))

    return [replace(case, make=chained(case.make)) for case in cases]


def normalization(name: str, adapt: bool = False, **settings: Any) -> Case:
    """With statistics that no test randomises: the layer computes with what it was given."""
    data = np.random.default_rng(5).normal(1.5, 2.0, (20, 3, 3, 4))

    def make(x: Any) -> Any:
        layer = layers.Normalization(name="layer", **settings)
        if adapt:
            layer.adapt(data)
        return layer(x)

    return Case(layers.Normalization, f"Normalization-{name}", make, (9, 8, 4))


def merge(
    kind: type, name: str, branches: Callable[[Any], list[Any]], shape: Any = (8, 7, 4)
) -> Case:
    def make(x: Any) -> Any:
        return kind(name="layer")(branches(x))

    return Case(kind, f"{kind.__name__}-{name}", make, shape)

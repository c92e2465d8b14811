"""A runtime and a clock of the tests' own: every model costs what its calls alone say."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasfold
from kerasfold.errors import FoldError
from kerasfold.measure import measured, stopwatch
from kerasfold.read.graph import read
from kerasfold.read.model import input_structure

Priced = Callable[[keras.Model], float]


def calls(model: keras.Model) -> Iterator[tuple[Any, ...]]:
    """What tells the calls of a model apart."""
    for call in read(model).calls:
        own = call.operation
        if isinstance(own, keras.layers.Identity):  # which no runtime spends time on
            continue
        sizes = [getattr(own, x, None) for x in ("kernel_size", "pool_size", "strides", "filters")]
        yield (type(own).__name__, *map(str, sizes))


def prices(seed: int) -> Priced:
    """A made-up price for each kind of call."""

    def price(call: tuple[Any, ...]) -> float:
        return random.Random(f"{seed} {call}").uniform(1, 9)

    return lambda model: sum(map(price, calls(model)))


def few_calls(model: keras.Model) -> float:
    return float(len(list(calls(model))))


def many_calls(model: keras.Model) -> float:
    return 100.0 - few_calls(model)


class Stopwatch:
    """Stands for a runtime and for the time that it takes.

    Attributes:
        price: what a run of a model takes.
        deployed: every model that was brought to a runtime.
        timed: every list of models that were timed together.
        wrong: models whose outputs are wrong on the runtime.
        refused: models that the runtime does not take.
        now: what its clock shows.
        steps: what a deployment, and a timing, adds to that.
        unsure: by how much the logarithm of what all but the first take varies, either way, from
            one deployment to the next.
    """

    def __init__(self, price: Priced) -> None:
        self.price = price
        self.deployed: list[keras.Model] = []
        self.timed: list[list[keras.Model]] = []
        self.wrong: Callable[[keras.Model], bool] = lambda model: False
        self.refused: Callable[[keras.Model], bool] = lambda model: False
        self.now = 0.0
        self.steps = (0.0, 0.0)
        self.unsure = 0.0

    def deploy(self, model: keras.Model, runtime: str, inputs: Any) -> Any:
        if runtime != "tensorflow":
            self.deployed.append(model)
            self.now += self.steps[0]
            if self.refused(model):
                raise FoldError(f"{runtime} does not take model '{model.name}': no such kernel")
        own = keras.tree.pack_sequence_as(input_structure(model), list(inputs))
        off = 1.0 if self.wrong(model) and runtime != "tensorflow" else 0.0

        # TensorFlow without oneDNN has channels_first under XLA alone.
        first = any(getattr(x, "data_format", "") == "channels_first" for x in model.layers)
        call = tf.function(model, jit_compile=True) if first else model

        def run() -> list[np.ndarray]:
            outputs = keras.tree.flatten(call(own, training=False))
            return [np.asarray(y) * (1 + off) for y in outputs]

        run.model = model  # type: ignore[attr-defined]
        return run

    def deployer(self, make: Callable[[], keras.Model], runtime: str, inputs: Any) -> Any:
        """Deploys once, however often it is asked."""
        return functools.cache(lambda: self.deploy(make(), runtime, inputs))

    def timed_over(
        self, deploys: Any, trials: int, rounds: int, seconds: float = np.inf
    ) -> stopwatch.Times:
        """What several deployments take: all the same, but for `unsure`."""
        self.timed.append([deploy().model for deploy in deploys])
        self.now += self.steps[1]
        taken = [self.price(model) for model in (*self.timed[-1], self.timed[-1][0])]
        first, *others, control = (np.full((rounds, 1), own) for own in taken)
        luck = np.exp(self.unsure * np.linspace(-1, 1, trials))
        return stopwatch.Times([[first, *(x * own for own in others), control] for x in luck])

    def paired_seconds(self, runs: Any, rounds: int, seconds: float = np.inf) -> np.ndarray:
        self.timed.append([run.model for run in runs])
        self.now += self.steps[1]
        return np.tile([self.price(run.model) for run in runs], (rounds, 1))

    @property
    def components(self) -> int:
        """How many components were timed."""
        return sum(all(map(is_part, models)) for models in self.timed)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is timed yet."""
    monkeypatch.setattr(measured, "_CACHE", {})


def started(price: Priced, monkeypatch: pytest.MonkeyPatch) -> Stopwatch:
    """A stopwatch in place of what measuring times with."""
    found = Stopwatch(price)
    monkeypatch.setattr(measured, "deploy", found.deploy)
    monkeypatch.setattr(measured, "deployer", found.deployer)
    monkeypatch.setattr(measured, "timed", found.timed_over)
    monkeypatch.setattr(measured, "paired_seconds", found.paired_seconds)
    monkeypatch.setattr(measured, "time", SimpleNamespace(perf_counter=lambda: found.now))
    return found


def is_part(model: keras.Model) -> bool:
    return any(x.name.startswith("part_input") for x in model.inputs)


def by_measuring(model: keras.Model, **settings: Any) -> keras.Model:
    return kerasfold.fold(model, "measured", **{"runtime": "xla", "budget": 60.0} | settings)

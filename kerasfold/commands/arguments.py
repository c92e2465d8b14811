"""Arguments that several commands take."""

from __future__ import annotations

import argparse
import importlib
import math
import os
from collections.abc import Sequence

import keras

from kerasfold.errors import UnusableError, words_of
from kerasfold.measure.runtimes import RUNTIMES

HERE = "tensorflow"  # the runtime where none is named


def add_objective(command: argparse.ArgumentParser, choices: Sequence[str]) -> None:
    """What to minimise; the first by default."""
    command.add_argument(
        "--objective", choices=choices, default=choices[0], help=f"what to minimise ({choices[0]})"
    )


def add_runtime(command: argparse.ArgumentParser, what: str) -> None:
    """A runtime, and what it is for."""
    command.add_argument("--runtime", choices=tuple(RUNTIMES), help=what)


def add_pair(command: argparse.ArgumentParser, second: str) -> None:
    """Two models, and what the second may be."""
    command.add_argument("a", metavar="A", help="the reference (.keras, .h5, .hdf5)")
    command.add_argument("b", metavar="B", help=second)


def positive(text: str) -> int:
    """A whole number from 1 up."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up. Received: {text!r}")
    return number


def seconds(text: str) -> float:
    """A number above 0."""
    number = _number(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0. Received: {text!r}")
    return number


def amount(text: str) -> float:
    """A finite number, 0 or more."""
    number = _number(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number, 0 or more. Received: {text!r}")
    return number


def shape(text: str) -> tuple[int, ...]:
    """Whole numbers from 1 up, with commas between them."""
    return tuple(positive(part.strip()) for part in text.split(","))


def _number(text: str) -> float:
    """What a text says, NaN where that is no number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def start(modules: Sequence[str]) -> dict[str, type]:
    """Import the user's modules; their classes of layers, models and operations."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    custom: dict[str, type] = {}
    for name in modules:
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise UnusableError(f"cannot import {name} ({words_of(error)})") from error
        for value in vars(module).values():
            own = isinstance(value, type) and value.__module__.split(".")[0] != "keras"
            if own and issubclass(value, keras.Operation):
                custom[value.__name__] = value
    return custom

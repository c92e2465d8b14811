"""Modules of the user's, of which a model's layers are made."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import keras

from kerasfold.errors import UnusableError, words_of


def imported(modules: Sequence[str]) -> dict[str, type]:
    """Import the user's modules; their classes of layers, models and operations."""
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

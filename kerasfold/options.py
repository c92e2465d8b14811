"""Options of public functions, refused where they are not of their kind: `FoldError` says so."""

from __future__ import annotations

import numbers
import os
import reprlib
from collections.abc import Sequence
from typing import Any

from kerasfold.errors import FoldError


def require_flags(**options: Any) -> None:
    """Refuse what is neither True nor False. Raises `FoldError`."""
    for name, value in options.items():
        if not isinstance(value, bool) and type(value).__name__ != "bool":  # of NumPy's
            raise FoldError(f"{name}={_shown(value)}: expected True or False")


def require_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Refuse what is none of some words. Raises `FoldError`."""
    if not isinstance(value, str) or value not in choices:
        raise FoldError(f"unknown {name}={_shown(value)}: choose {' or '.join(map(repr, choices))}")


def whole_number(name: str, value: Any) -> int:
    """The number from 1 up that an option is. Raises `FoldError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise FoldError(f"{name}={_shown(value)}: expected a whole number from 1 up")
    return int(value)


def path_of(name: str, value: Any) -> str:
    """The path that an option is. Raises `FoldError`."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        raise FoldError(f"{name}={_shown(value)}: expected the path of a file")
    return path


def how_to_read(value: Any) -> str:
    """What to add where a model is expected: of the path of a file, how it becomes one."""
    is_path = isinstance(value, (str, os.PathLike))
    return ": keras.saving.load_model() reads files" if is_path else ""


def require_alone(told: str, **options: Any) -> None:
    """Refuse options that would be for nothing. Raises `FoldError`.

    Args:
        told: what they are for, in words.
        **options: each None where it is not given.
    """
    for name, value in options.items():
        if value is not None:
            raise FoldError(f"{name}= is {told}. Received: {name}={_shown(value)}")


def _shown(value: Any) -> str:
    return " ".join(reprlib.repr(value).split())

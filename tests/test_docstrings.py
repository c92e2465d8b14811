"""Every public name has an example in its docstring, and it runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import keras
import numpy as np
import pytest

import kerasfold

INNER = ("callbacks.FoldCheckpoint", "golden.check_golden", "golden.write_golden")
ROOMS = ("measure", "plan")  # whose docstrings say how to add to them
NAMES = (*kerasfold.__all__, *INNER, *ROOMS, "testing.check_lift")


def public(name: str) -> object:
    if name in ROOMS:
        return importlib.import_module(f"kerasfold.{name}")
    module, _, inner = name.rpartition(".")
    return getattr(importlib.import_module(f"kerasfold.{module}") if module else kerasfold, inner)


@pytest.mark.parametrize("name", NAMES)
def test_its_example_runs(name: str, tmp_path: Path, rules_restored: None) -> None:
    keras.utils.clear_session()  # names of layers begin anew
    about = inspect.getdoc(public(name)) or ""
    assert "\nExample:\n    >>> " in about
    known = {"keras": keras, "kerasfold": kerasfold, "np": np, "folder": tmp_path}
    example = doctest.DocTestParser().get_doctest(about, known, name, None, None)
    said: list[str] = []
    doctest.DocTestRunner().run(example, out=said.append)
    assert not said, "".join(said)


def test_help_of_fold_names_what_may_be_chosen() -> None:
    text = inspect.getdoc(kerasfold.fold) or ""
    for word in ("'latency'", "'measured'", "'keep'", "'litert'", "Raises:", "Returns:"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 100

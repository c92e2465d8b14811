"""When the packages behind kerasfold load, and what they may say.

A command that fails writes one line to stderr: backends start up silently under it. A plugin
of pytest is imported by whole suites: nothing is loaded for it before a test needs it.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from kerasfold.stopping import quiet_while_loading


@contextlib.contextmanager
def muted_stderr() -> Iterator[None]:
    """Send what C++ code writes to stderr nowhere, if there is a stderr."""
    try:
        saved = os.dup(2)
    except OSError:  # closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


@contextlib.contextmanager
def for_this_process() -> Iterator[None]:
    """Quiet while the packages behind kerasfold load, if this process is its command line."""
    command = Path(sys.argv[0]).stem == "kerasfold" if sys.argv else False
    as_module = any(
        flag == "-m" and name == "kerasfold"
        for flag, name in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    )
    if command or as_module:
        with quiet_while_loading(), muted_stderr():
            yield
    else:
        yield


def waits_for_keras() -> bool:
    """Whether names load on first use: in a pytest process that has not imported Keras so far."""
    return "_pytest" in sys.modules and "keras" not in sys.modules


def once_imported(module: str, then: Callable[[], None]) -> None:
    """Call a function as soon as a module, not yet imported, is, by whoever imports it."""
    sys.meta_path.insert(0, _Watch(module, then))


class _Watch(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module where the others find it, and leaves no trace once that is imported."""

    def __init__(self, module: str, then: Callable[[], None]) -> None:
        self.module, self.then = module, then
        self.loader: importlib.abc.Loader | None = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.module:
            return None
        others = (finder.find_spec for finder in sys.meta_path if finder is not self)
        spec = next((spec for find in others if (spec := find(fullname, path, target))), None)
        if spec is not None and spec.loader is not None:
            spec.loader, self.loader = self, spec.loader
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        assert self.loader is not None
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert self.loader is not None is not module.__spec__
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        sys.meta_path.remove(self)
        self.then()

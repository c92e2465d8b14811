"""When the packages behind kerasfold load, and what they may say.

The command line answers before it loads them, and a plugin of pytest is imported by whole suites:
nothing is loaded for either before it is needed. A command that fails writes one line to stderr:
backends start up silently under it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib.abc
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import IO

from kerasfold.stopping import is_command_line

CHATTY = ("absl", "jax", "tensorflow")  # loggers


def loads_late() -> bool:
    """Whether names load on first use: under the command line and pytest, before Keras has."""
    return "keras" not in sys.modules and ("_pytest" in sys.modules or is_command_line())


@contextlib.contextmanager
def backends_unheard() -> Iterator[IO[bytes]]:
    """Quiet meanwhile but for what Python writes to stderr; gives a file of what C++ code does.

    It logs as modules load, before it reads which level to log, and later too: at the first use of
    a device, and of each of its libraries. In the process of the command line alone: others are
    not ours to silence.
    """
    with tempfile.TemporaryFile() as said:
        if not is_command_line():
            yield said
            return
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        with _descriptor_to(said):
            yield said


@contextlib.contextmanager
def loading(said: IO[bytes]) -> Iterator[None]:
    """Show what C++ code said while modules loaded, if they do not."""
    try:
        yield
    except Exception:
        said.seek(0)
        sys.stderr.write(said.read().decode(errors="replace"))
        raise


@contextlib.contextmanager
def _descriptor_to(file: IO[bytes]) -> Iterator[None]:
    """Send what is written to file descriptor 2 to a file, if it is open, but for Python's stderr.

    Where C++ code ends the process, Python says where that was.
    """
    own, saved = sys.stderr, -1
    with contextlib.suppress(OSError):  # closed
        saved = os.dup(2)
    if own is None or saved < 0:
        yield
        return
    with open(saved, "w", encoding=own.encoding, errors=own.errors, buffering=1) as stream:
        crashes = not faulthandler.is_enabled()
        os.dup2(file.fileno(), 2)
        if crashes:
            faulthandler.enable(stream)
        try:
            with contextlib.redirect_stderr(stream if own is sys.__stderr__ else own):
                yield
        finally:
            if crashes:
                faulthandler.disable()
            os.dup2(saved, 2)


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

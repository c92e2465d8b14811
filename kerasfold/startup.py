"""A command that fails writes one line to stderr: backends start up silently under it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path


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


def for_this_process() -> contextlib.AbstractContextManager[None]:
    """Mute while the packages behind kerasfold load, if this process is its command line."""
    command = Path(sys.argv[0]).stem == "kerasfold" if sys.argv else False
    as_module = any(
        flag == "-m" and name == "kerasfold"
        for flag, name in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    )
    return muted_stderr() if command or as_module else contextlib.nullcontext()

"""Files written whole or not at all: beside their target, then put in its place at once.

What is being written lies in a folder named after the process that writes it. A signal that ends
the process takes the folder away; what a process had no time to remove, the next one removes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from kerasfold.errors import UnusableError, words_of
from kerasfold.stopping import before_ending

_FOLDER = re.compile(r"\.kerasfold-(?P<place>[0-9a-f]{8})-(?P<process>\d{1,9})-(?P<start>\d+)-\w+")


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Where to write what then takes the place of a file, at once. Raises `UnusableError`."""
    try:
        _sweep(target.parent)
        with _folder_beside(target) as folder:
            written = folder / target.name
            yield written
            with written.open("r+b") as file:
                os.fsync(file)  # where a quota or a network shows only now that it does not fit
            if target.exists():
                written.chmod(stat.S_IMODE(target.stat().st_mode))
            os.replace(written, target)
    except UnusableError:
        raise
    except Exception as error:
        raise UnusableError(f"cannot write {target} ({words_of(error)})") from error


@contextlib.contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """A folder that is gone afterwards, also where a signal ends the process meanwhile."""
    writer = os.getpid()
    _, start = _state_and_start(writer)
    name = f".kerasfold-{_place()}-{writer}-{start}-{secrets.token_hex(4)}"
    folder = target.parent / name

    def remove() -> None:
        if os.getpid() == writer:  # and no fork of it
            shutil.rmtree(folder, ignore_errors=True)

    with before_ending(remove):
        try:
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            remove()


def _sweep(parent: Path) -> None:
    """Remove what processes of this place left in a folder that live no longer."""
    with contextlib.suppress(OSError):  # a folder may be written to, and not be listed
        for path in parent.iterdir():
            name = _FOLDER.fullmatch(path.name)
            here = name is not None and name["place"] == _place()
            if name and here and not _lives(int(name["process"]), name["start"]):
                shutil.rmtree(path, ignore_errors=True)  # which follows no links


@functools.cache
def _place() -> str:
    """Where numbers of processes mean what they mean here: a machine, a container on it."""
    names = platform.node()
    with contextlib.suppress(OSError):
        names += os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(names.encode()).hexdigest()[:8]


def _lives(process: int, start: str) -> bool:
    """Whether a process lives, as far as that can be told; a later one of its number is another."""
    state, started = _state_and_start(process)
    if state:
        return state not in "ZX" and started == start
    if os.name != "posix":  # where to ask a process for a sign of life is to end it
        return True
    with contextlib.suppress(PermissionError):  # another user's
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True


def _state_and_start(process: int) -> tuple[str, str]:
    """A letter, and clock ticks since the machine started: see proc(5); "" and "0" if unknown."""
    try:
        text = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return "", "0"
    fields = text.rpartition(b")")[2].decode().split()  # after a name, in which anything may stand
    return fields[0], fields[19]

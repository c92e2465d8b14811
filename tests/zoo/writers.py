"""Processes that write one file over and over, and are killed while they do.

Run by itself, so that a process forks in no time: it imports neither Keras nor TensorFlow.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
import types
from pathlib import Path

package = types.ModuleType("kerasfold")
package.__path__ = [str(Path(__file__).parents[2] / "kerasfold")]
sys.modules["kerasfold"] = package

from kerasfold.replacing import replacing  # noqa: E402
from kerasfold.stopping import raised, said_of  # noqa: E402

os.fsync = lambda file: None  # a disk takes its time, and a signal waits for it
SIZE, PIECE = 1 << 20, 1 << 16


def write(target: Path, letter: bytes, times: int) -> None:
    """Write a file that is one letter throughout, in pieces."""
    for _ in range(times):
        with replacing(target) as written, written.open("wb", buffering=0) as file:
            for _ in range(SIZE // PIECE):
                file.write(letter * PIECE)


def forked(target: Path, letter: bytes, times: int, command: bool = True) -> int:
    """The number of a process that has begun to write: the command line, or anything else."""
    begun, beginning = os.pipe()
    process = os.fork()
    if process:
        os.read(begun, 1)  # a signal that comes earlier may be lost to Python
        os.close(begun)
        os.close(beginning)
        return process
    code = 0
    try:
        with raised() if command else contextlib.nullcontext():
            os.write(beginning, b"x")
            write(target, letter, times)
    except KeyboardInterrupt as stop:
        _, code = said_of(stop)
    os._exit(code)


def check_whole(target: Path) -> None:
    """A file that is not one letter throughout was damaged."""
    content = target.read_bytes()
    assert len(content) == SIZE, len(content)
    assert content == content[:1] * SIZE


def litter(target: Path) -> list[str]:
    """What lies beside a file."""
    return sorted(path.name for path in target.parent.iterdir() if path != target)


def killed(target: Path, rounds: int) -> None:
    """Each round another signal at another moment."""
    endings = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]
    draw = random.Random(0)
    for i in range(rounds):
        ending = endings[i % len(endings)]
        process = forked(target, b"abc"[i % 3 : i % 3 + 1], 10**6, command=i % 8 < 4)
        time.sleep(draw.uniform(0.0, 0.01))
        os.kill(process, ending)
        _, status = os.waitpid(process, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (-ending, 128 + ending), (ending, code)
        check_whole(target)
        if ending is signal.SIGKILL:
            write(target, b"n", 1)
        assert not litter(target), (ending, litter(target))


def at_once(target: Path) -> None:
    """Several processes that write one file, and one that reads it."""
    running = {forked(target, letter, 10) for letter in (b"a", b"b", b"c")}
    while running:
        check_whole(target)
        process, status = os.waitpid(-1, os.WNOHANG)
        if process:
            assert status == 0
            running.remove(process)
    assert not litter(target)


def paused(target: Path) -> None:
    """What a process that lives is writing stays, whoever writes meanwhile."""
    process = os.fork()
    if not process:
        with replacing(target) as written:
            written.write_bytes(b"s")
            signal.pause()
    while not litter(target):
        time.sleep(0.001)
    before = litter(target)
    write(target, b"n", 1)
    assert litter(target) == before
    os.kill(process, signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)  # it has ended, and still has a number
    write(target, b"n", 1)
    assert not litter(target)
    os.waitpid(process, 0)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started this
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    where = Path(sys.argv[1])
    write(where, b"o", 1)
    killed(where, 50)
    at_once(where)
    paused(where)

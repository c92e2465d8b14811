"""A signal at random moments while models are written: no damaged file, no litter, the right code.

    python benchmarks/kills.py --out kills.json

A process writes one model over and over, in place of a whole one, as `.keras` and as `.h5`, until
SIGINT, SIGTERM, SIGHUP or SIGKILL ends it. Afterwards the file is a model with all its weights,
nothing lies beside it (after SIGKILL: nothing once the next has written), and the process says
what ended it. It needs a system that forks.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from kerasfold import stopping
from kerasfold.files import load, save

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
STUCK = 60.0  # seconds after which a process has not heard a signal


def net() -> keras.Model:
    """Several weights, so that writing them takes a while."""
    return keras.Sequential([keras.Input((64,)), *(keras.layers.Dense(64) for _ in range(10))])


def ended(model: keras.Model, target: Path, number: signal.Signals, moment: float) -> int | None:
    """The exit code of a process that writes a model when it is sent a signal, or None if stuck.

    Args:
        model: what it writes.
        target: where to.
        number: the signal.
        moment: seconds after its start.
    """
    ready, begun = os.pipe()
    process = os.fork()
    if not process:
        code = 99
        try:
            for each in SIGNALS[:-1]:  # as a shell leaves them, whatever started this
                signal.signal(each, signal.SIG_DFL)
            with stopping.raised():
                os.write(begun, b".")
                while True:
                    save(model, target, {})
        except KeyboardInterrupt as stop:
            code = stopping.said_of(stop)[1]
        except BaseException as error:
            print(repr(error), flush=True)
        os._exit(code)
    os.read(ready, 1)
    os.close(ready)
    os.close(begun)
    time.sleep(moment)
    os.kill(process, number)
    end = time.monotonic() + STUCK
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def is_whole(model: keras.Model, target: Path) -> bool:
    """Whether a file holds the model."""
    pairs = zip(model.get_weights(), load(str(target), {}).get_weights(), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def wrong(model: keras.Model, target: Path, number: signal.Signals, moment: float) -> list[str]:
    """What a signal at one moment leaves as it should not be."""
    code = ended(model, target, number, moment)
    killed = number is signal.SIGKILL
    found = []
    if code != (-number if killed else 128 + number):
        found.append("stuck" if code is None else f"exit code {code}")
    if not is_whole(model, target):
        found.append("a damaged file")
    if killed:
        save(model, target, {})
    if [path for path in target.parent.iterdir() if path != target]:
        found.append("litter")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=50, help="of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args(argv)
    model, rng = net(), random.Random(args.seed)
    rows: list[tuple[str, str, float, list[str]]] = []
    for suffix in (".keras", ".h5"):
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / f"model{suffix}"
            save(model, target, {})
            begun = time.monotonic()
            save(model, target, {})
            span = 1.5 * (time.monotonic() - begun)
            for number, _ in zip(itertools.cycle(SIGNALS), range(args.moments), strict=False):
                moment = rng.uniform(0, span)
                found = wrong(model, target, number, moment)
                rows.append((suffix, number.name, moment, found))
                if found:
                    print(*rows[-1], flush=True)
    runs = Counter((suffix, name) for suffix, name, *_ in rows)
    failed = Counter((suffix, name) for suffix, name, _, found in rows if found)
    table = Table("format", "signal", "moments", "wrong")
    for (kind, signalled), count in runs.items():
        table.add_row(str(kind), str(signalled), str(count), str(failed[kind, signalled]))
    Console().print(table)
    if args.out:
        args.out.write_text(json.dumps({"seed": args.seed, "rows": rows}, indent=1))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

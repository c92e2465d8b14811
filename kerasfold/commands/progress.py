"""How far a comparison is: a bar on a terminal, else a line now and then, all on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

from kerasfold.equivalence.stored import Stored

PAUSE = 5.0  # seconds from line to line


def watched(data: Stored) -> Iterator[Any]:
    """Batches of data that say how many of its inputs were asked for."""
    sized = ((batch, len(batch[0][0])) for batch in data)
    yield from (_bar if sys.stderr.isatty() else _lines)(sized, data.inputs)


def _bar(batches: Iterator[tuple[Any, int]], inputs: int) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("comparing", total=inputs)
        for batch, count in batches:
            yield batch
            bar.advance(task, count)


def _lines(batches: Iterator[tuple[Any, int]], inputs: int) -> Iterator[Any]:
    said, done = time.monotonic(), 0
    for batch, count in batches:
        yield batch
        done += count
        if time.monotonic() - said > PAUSE:
            said = time.monotonic()
            print(f"kerasfold: compared {done} of {inputs} inputs", file=sys.stderr)

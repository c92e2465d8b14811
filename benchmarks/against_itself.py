"""Whether the stopwatch can be believed: a model against itself, again and again.

    python benchmarks/against_itself.py
    python benchmarks/against_itself.py --runtimes litert --runs 30 --out itself.json
    python benchmarks/against_itself.py --size 48 --seconds 200 --out itself.json --append

Each run is what `kerasfold bench A A` does, with its numbers of deployments and pairs: of 100
intervals of 95 % no more than 12 may exclude 1, and in the median none may be wider than 5 % either
way, on a model that takes some 10 ms. Runtimes take turns, so that a run that is broken off has as
many of each; `--append` goes on from what was written.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from options import add_runtimes, require_runtimes
from rich import box
from rich.console import Console
from rich.table import Table

from kerasfold.files import load
from kerasfold.measure.runtimes import deployer, random_inputs
from kerasfold.measure.stopwatch import Deploy, timed

MOST, WIDEST = 0.12, 0.05  # intervals that exclude 1, and half of one in the median

Row = dict[str, Any]


def model(size: int) -> keras.Model:
    """Five convolutions."""
    same = {"padding": "same", "activation": "relu"}
    layers = [keras.layers.Conv2D(32, 3, **same) for _ in range(5)]
    return keras.Sequential([keras.Input((size, size, 32)), *layers])


def runs(
    deploys: dict[str, Deploy], count: int, deployments: int, pairs: int, seconds: float
) -> Iterator[Row]:
    """A row for each run, each runtime in its turn, until a time."""
    end = time.perf_counter() + seconds
    for _ in range(count):
        for runtime, deploy in deploys.items():
            if time.perf_counter() > end:
                return
            times = timed([deploy, deploy], deployments, pairs)
            found, control = times.ratio(1), times.control
            yield {
                "runtime": runtime,
                "milliseconds": 1e3 * float(np.median(times.calls(0))),
                "ratio": [found.low, found.median, found.high],
                "control": [control.low, control.median, control.high],
            }


def excludes(interval: Sequence[float]) -> bool:
    """Whether an interval does not hold 1."""
    return not interval[0] <= 1 <= interval[2]


def half(interval: Sequence[float]) -> float:
    """Half the width of an interval, as a share."""
    return float(interval[2] / interval[0]) ** 0.5 - 1


def summary(rows: Sequence[Row]) -> list[Row]:
    """What became of the runs of each runtime."""
    found = []
    for runtime in dict.fromkeys(row["runtime"] for row in rows):
        own = [row for row in rows if row["runtime"] == runtime]
        excluded = sum(excludes(row["ratio"]) for row in own)
        width = float(np.median([half(row["ratio"]) for row in own]))
        found.append(
            {
                "runtime": runtime,
                "runs": len(own),
                "excluded": excluded,
                "warned": sum(excludes(row["control"]) for row in own),
                "half": width,
                "milliseconds": float(np.median([row["milliseconds"] for row in own])),
                "holds": excluded <= MOST * len(own) and width <= WIDEST,
            }
        )
    return found


def table(found: Sequence[Row]) -> Table:
    """A line for each runtime."""
    shown = Table(title="a model against itself", title_justify="left", box=box.SIMPLE_HEAD)
    shown.add_column("runtime")
    for name in ("ms", "runs", "exclude 1", "warnings", "median interval"):
        shown.add_column(name, justify="right")
    for row in found:
        shown.add_row(
            *(row["runtime"], f"{row['milliseconds']:.2f}"),
            *(str(row[name]) for name in ("runs", "excluded", "warned")),
            f"+-{100 * row['half']:.1f} %",
            style="" if row["holds"] else "red",
        )
    return shown


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_runtimes(parser)
    parser.add_argument("--runs", type=int, default=100, help="on each runtime (100)")
    parser.add_argument("--deployments", type=int, default=12, help="of each run (12)")
    parser.add_argument("--pairs", type=int, default=9, help="of each deployment (9)")
    parser.add_argument("--size", type=int, default=112, help="of the image (112)")
    parser.add_argument("--seconds", type=float, default=np.inf, help="when no run begins any more")
    parser.add_argument("--out", type=Path, help="a file for the numbers, as JSON")
    parser.add_argument("--append", action="store_true", help="to what is in it")
    args = parser.parse_args(argv)
    if args.append and args.out is None:
        parser.error("--append needs --out")
    require_runtimes(parser, args.runtimes)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 1 where the stopwatch does not hold."""
    args = arguments(argv)
    known = args.append and args.out.exists()
    rows: list[Row] = json.loads(args.out.read_text())["rows"] if known else []
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "model.keras"))
        whole = model(args.size)
        whole.save(path)
        inputs = random_inputs(whole)
        deploys = {name: deployer(lambda: load(path, {}), name, inputs) for name in args.runtimes}
        for row in runs(deploys, args.runs, args.deployments, args.pairs, args.seconds):
            rows.append(row)
            if args.out is not None:
                args.out.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    found = summary(rows)
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 100).print(table(found))
    return 0 if all(row["holds"] for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Whether folding by measuring finds the best: every plan of five small graphs, timed.

    python benchmarks/measured.py
    python benchmarks/measured.py --only expand --runtimes litert --rounds 21

For each graph and runtime, the plan that `objective="measured"` chooses, and all plans there are:
each set of tensors to materialise, each of them in each of its forms. They run in turns for a few
rounds; then the fastest ones run in turns with the chosen one, and the best of those is held
against it: the median over rounds of best / chosen with its 95 % interval, 1 where nothing is
faster, below 0.95 where too much was missed. That the best is taken of many makes it look a little
faster than it is. A plan that the runtime refuses or computes wrongly is not timed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import nets
import numpy as np
from models import filled, same, stack
from options import add_runtimes, require_runtimes
from rich import box
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import kerasfold
from kerasfold.choices import RuntimeName
from kerasfold.compose import exact
from kerasfold.cost import OBJECTIVES
from kerasfold.emit import emit
from kerasfold.errors import FoldError
from kerasfold.lift.regions import lift
from kerasfold.measure.runtimes import (
    WRONG,
    deploy,
    difference,
    random_inputs,
)
from kerasfold.measure.timing import Ratio, paired_seconds, ratio
from kerasfold.plan.search import Search
from kerasfold.read.graph import read

L = keras.layers
GOAL = 0.95
FINALISTS = 6  # plans that are timed again, the chosen one not counted
MOST = 4096  # plans of a graph

Run = Callable[[], list[np.ndarray]]
Row = dict[str, Any]


def repvgg() -> keras.Model:
    """A block as it is trained, and its ReLU."""
    x = keras.Input((56, 56, 16))
    return keras.Model(x, L.ReLU()(nets.repvgg(x, 16, 1)))


GRAPHS: dict[str, Callable[[], keras.Model]] = {
    "3x3-pool2-3x3": stack(
        (56, 56, 16), lambda: [L.Conv2D(32, 3), L.AveragePooling2D(2), L.Conv2D(32, 3)]
    ),
    "expand": stack((56, 56, 16), lambda: [L.Conv2D(64, 1), L.Conv2D(64, 3), L.Conv2D(16, 1)]),
    "3x3-64-3x3-same": stack((56, 56, 16), lambda: [same(64), same(16)]),
    "pool3-1x1": stack((56, 56, 64), lambda: [L.AveragePooling2D(3, 1), L.Conv2D(32, 1)]),
    "repvgg": filled(repvgg),
}


def plans(model: keras.Model) -> list[keras.Model]:
    """A model for each plan of the only component of a model."""
    regions = lift(read(model))
    (component,) = regions.components()
    search = Search(regions, OBJECTIVES["latency"], frozenset())
    ways = list(search.every(component, MOST + 1))
    if len(ways) > MOST:
        raise ValueError(f"more than {MOST} plans")

    return [emit(regions, way, exact(regions)).model for way in ways]


def deployed(
    original: keras.Model, models: Sequence[keras.Model], runtime: str, tick: Callable[[], object]
) -> dict[int, Run]:
    """The models that a runtime takes and computes rightly, by their position."""
    inputs = random_inputs(original)
    expected = deploy(original, "tensorflow", inputs)()
    runs: dict[int, Run] = {}
    for position, model in enumerate(models):
        try:
            run = deploy(model, runtime, inputs)
        except FoldError:
            continue
        finally:
            tick()
        if difference(expected, run()) <= WRONG:
            runs[position] = run
    return runs


def measure(
    name: str,
    runtime: RuntimeName,
    rounds: int,
    first_rounds: int,
    budget: float,
    tick: Callable[[], object],
) -> Row:
    """The best of all plans of a graph against the one that measuring chooses."""
    model = GRAPHS[name]()
    chosen = kerasfold.fold(model, "measured", runtime=runtime, budget=budget)
    models = [chosen, *plans(model)]
    runs = deployed(model, models, runtime, tick)
    if 0 not in runs:
        raise FoldError(f"{runtime} computes the fold of {name} wrongly")
    rivals = [position for position in runs if position]
    seconds = np.median(paired_seconds([runs[p] for p in rivals], first_rounds), axis=0)
    rivals = [rivals[i] for i in np.argsort(seconds)[:FINALISTS]]
    times = paired_seconds([runs[p] for p in (0, *rivals)], rounds)
    medians = np.median(times, axis=0)
    best = 1 + int(np.argmin(medians[1:]))
    found = ratio(times[:, best], times[:, 0])
    return {
        "graph": name,
        "runtime": runtime,
        "plans": len(models) - 1,
        "timed": len(runs) - 1,
        "rounds": len(times),
        "seconds": {"chosen": float(medians[0]), "best": float(medians[best])},
        "ratio": asdict(found),
        "chosen": layers_of(chosen),
        "best": layers_of(models[rivals[best - 1]]),
        "missed": is_missed(found),
    }


def is_missed(found: Ratio) -> bool:
    """Whether the best is surely faster than the chosen one, and by too much."""
    return found.high < GOAL


def layers_of(model: keras.Model) -> list[str]:
    """The layers of a plan, in words."""
    words = []
    for layer in model.layers[1:]:
        size = getattr(layer, "kernel_size", getattr(layer, "pool_size", None))
        words.append(f"{type(layer).__name__}{'' if size is None else ' ' + in_words(size)}")
    return words


def in_words(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def table(rows: Sequence[Row]) -> Table:
    """A line for each graph and runtime."""
    shown = Table(
        title=f"best of all plans / chosen by measuring, of time: 1 is perfect, {GOAL} the goal",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for title in ("graph", "runtime"):
        shown.add_column(title, no_wrap=True)
    for title in ("plans", "chosen, ms", "best, ms"):
        shown.add_column(title, justify="right")
    shown.add_column("best / chosen (95 %)", no_wrap=True)
    for title in ("chosen", "best"):
        shown.add_column(title)
    for row in rows:
        found, seconds = row["ratio"], row["seconds"]
        words = f"{found['median']:.2f} ({found['low']:.2f}-{found['high']:.2f})"
        if row["missed"]:
            words = f"[red]{words} missed[/]"
        elif found["median"] >= GOAL:
            words = f"[green]{words}[/]"
        shown.add_row(
            *(row["graph"], row["runtime"], f"{row['timed']}/{row['plans']}"),
            *(f"{1e3 * seconds[which]:.3f}" for which in ("chosen", "best")),
            *(words, shortened(row["chosen"]), shortened(row["best"])),
        )
    return shown


def shortened(words: Sequence[str], most: int = 4) -> str:
    """The first few."""
    more = [f"{len(words) - most} more"] if len(words) > most else []
    return ", ".join([*words[:most], *more])


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", choices=GRAPHS, default=list(GRAPHS), metavar="GRAPH", help="(all)"
    )
    add_runtimes(parser)
    parser.add_argument("--rounds", type=int, default=51, help="of the fastest plans (51)")
    parser.add_argument("--first-rounds", type=int, default=9, help="of all plans (9)")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of each fold (60)")
    parser.add_argument("--out", type=Path, help="a file for the numbers, as JSON")
    args = parser.parse_args(argv)
    for option in ("rounds", "first_rounds", "budget"):
        if not getattr(args, option) > 0:
            parser.error(f"--{option.replace('_', '-')} must be positive")
    require_runtimes(parser, args.runtimes)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 1 where too much was missed."""
    args = arguments(argv)
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 170)
    rows: list[Row] = []
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        for name in args.only:
            for runtime in args.runtimes:
                progress.update(task, description=f"{name} on {runtime}")
                sizes = args.rounds, args.first_rounds, args.budget
                rows.append(measure(name, runtime, *sizes, lambda: progress.advance(task)))
                if args.out is not None:
                    args.out.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
                gc.collect()
            keras.backend.clear_session()
    console.print(table(rows))
    missed = sum(row["missed"] for row in rows)
    console.print(f"missed: {missed} of {len(rows)}", highlight=False)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

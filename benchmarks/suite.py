"""What folding gains on every runtime: a table, `suite.json` and `suite.png`.

    python benchmarks/suite.py
    python benchmarks/suite.py --only seeds RepVGG --runtimes litert --no-applications
    python benchmarks/suite.py --append
    python benchmarks/suite.py --batch 8 --variants told --out suite8.json
    python benchmarks/suite.py --only steps --runtimes tensorflow xla --variants latency --seconds 9

For each model of `models.py` and each runtime, on one image or a batch: the model as it is,
collapsed as far as it goes (objective 'layers'), folded for latency, the same told the runtime and
the batch, folded by measuring there, and built by hand where that is known. All of them are
deployed several times over and run in turns, as `kerasfold bench` does it; a ratio is original /
variant, with its 95 % interval over deployments, so that above 1 the variant is faster. One is
called slower where that whole interval lies below 0.97. Each model and runtime have a process of
their own, so that none runs among the threads and the leavings of others, and what exhausts the
memory costs no more than itself. What was measured is written after each, and `--append` goes on
from there.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from models import GROUPS, Entry, chosen
from options import add_runtimes, require_runtimes
from rich import box
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import kerasfold
from kerasfold.errors import FoldError
from kerasfold.measure.runtimes import (
    RUNTIMES,
    WRONG,
    deployer,
    difference,
    random_inputs,
)
from kerasfold.measure.stopwatch import Deploy, timed

ORIGINAL, PLAIN, MEASURED = "original", "plain", "measured"
TOLD = "told"  # latency, there
OBJECTIVES = ("layers", "latency", TOLD, MEASURED)
VARIANTS = (*OBJECTIVES, PLAIN)
FOLDED = ("latency", TOLD, MEASURED)  # what a plain network is held against
SLOWER = 0.97
FEWEST = 2  # deployments, of which there is an interval
LARGE = ("applications", "pruned")  # groups of networks that take long to verify

Row = dict[str, Any]
Build = Callable[[], keras.Model]


class Limits(NamedTuple):
    """How long to measure, and on what.

    Attributes:
        deployments: of each comparison, at most.
        pairs: timed in each deployment.
        seconds: of each comparison, about, at most.
        budget: seconds of each fold by measuring.
        verify: whether folds of applications are verified too.
        batch: images at once.
    """

    deployments: int
    pairs: int
    seconds: float
    budget: float
    verify: bool
    batch: int = 1


def form(
    variant: Any, entry: Entry, original: keras.Model, runtime: Any, limits: Limits
) -> keras.Model:
    """A variant of a model, for a runtime.

    Raises:
        FoldError: it cannot be made.
    """
    if variant == ORIGINAL:
        return original
    if variant == PLAIN:
        assert entry.plain is not None
        return entry.plain()
    verify = limits.verify or entry.group not in LARGE
    if variant not in (TOLD, MEASURED):
        return kerasfold.fold(original, variant, verify=verify)
    there = {"runtime": runtime, "batch_size": limits.batch}
    if variant == TOLD:
        return kerasfold.fold(original, "latency", verify=verify, **there)
    return kerasfold.fold(
        original, variant, verify=verify, budget=limits.budget, progress=False, **there
    )


def empty_row(
    entry: Entry, runtime: str, variants: Iterable[str], failed: Mapping[str, str]
) -> Row:
    """What there is of one model on one runtime before anything is timed."""
    return {
        "model": entry.name,
        "group": entry.group,
        "runtime": runtime,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "variants": list(variants),
        "failed": dict(failed),
        "deployments": 0,
        "seconds": {},
        "ratios": {},
        "to_plain": {},
        "errors": {},
        "slower": [],
        "slower_than_plain": [],
    }


def measure(
    entry: Entry,
    runtime: str,
    variants: Iterable[str],
    limits: Limits,
    lost: Mapping[str, str] = MappingProxyType({}),
    making: Callable[[str | None], None] = lambda variant: None,
) -> Row:
    """Seconds of the variants of one model on one runtime, in turns, and their ratios.

    Args:
        entry: the model.
        runtime: where.
        variants: which, beside the original.
        limits: how long.
        lost: those that are not to be made, and why.
        making: told each variant before it is made, and None once all are.
    """
    original = entry.build()
    inputs = random_inputs(original, limits.batch)
    row = empty_row(entry, runtime, variants, lost)
    deploys: dict[str, Deploy] = {}
    outputs: dict[str, list[np.ndarray]] = {}
    failed: dict[str, str] = row["failed"]
    for variant in (ORIGINAL, *variants):
        if variant in lost or (variant == PLAIN and entry.plain is None):
            continue
        making(variant)
        try:
            model = form(variant, entry, original, runtime, limits)
            deploy = deployer(functools.partial(copied, model), runtime, inputs)
            outputs[variant] = deploy()()
            deploys[variant] = deploy
        except FoldError as error:
            failed[variant] = str(error)
            if variant == ORIGINAL:
                return row
    making(None)
    for variant in [v for v in deploys if v not in (ORIGINAL, PLAIN)]:
        off = difference(outputs[ORIGINAL], outputs[variant])
        if off <= WRONG:
            row["errors"][variant] = off
        else:  # the runtime's doing, if the fold was verified; what it gains is nothing
            failed[variant] = f"its outputs are wrong there, by {off:.0e} of the largest"
            del deploys[variant]
    times = timed(
        list(deploys.values()),
        limits.deployments,
        limits.pairs,
        seconds=limits.seconds,
        fewest=FEWEST,
    )
    places = {variant: place for place, variant in enumerate(deploys)}
    row["deployments"] = len(times.trials)
    row["seconds"] = {v: float(np.median(times.calls(place))) for v, place in places.items()}
    for variant in [v for v in places if v != ORIGINAL]:
        row["ratios"][variant] = asdict(times.ratio(places[variant]))
        if PLAIN in places and variant in FOLDED:
            row["to_plain"][variant] = asdict(times.ratio(places[variant], places[PLAIN]))
    row["slower"] = [v for v in row["ratios"] if v != PLAIN and is_slower(row["ratios"][v])]
    row["slower_than_plain"] = [v for v, r in row["to_plain"].items() if is_slower(r)]
    return row


def copied(model: keras.Model) -> keras.Model:
    """The same model, its weights elsewhere."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def send_row(
    connection: Connection,
    name: str,
    runtime: str,
    variants: Iterable[str],
    limits: Limits,
    lost: Mapping[str, str],
) -> None:
    """`measure` for the parent process: variants as they are made, then the row."""
    with contextlib.suppress(OSError):  # where memory runs out, this process is the one to stop
        Path("/proc/self/oom_score_adj").write_text("1000")
    (entry,) = chosen([name])
    connection.send(measure(entry, runtime, variants, limits, lost, connection.send))


def measure_apart(
    entry: Entry,
    runtime: str,
    variants: Iterable[str],
    limits: Limits,
    target: Callable[..., None] = send_row,
) -> Row:
    """`measure`, in a process of its own.

    Where that stops, it is tried again without the variant that was being made; where that was
    the original, or all were made, the row is one that failed.
    """
    context = multiprocessing.get_context("spawn")
    lost: dict[str, str] = {}
    while True:
        receiver, sender = context.Pipe(duplex=False)
        own = (sender, entry.name, runtime, variants, limits, lost)
        process = context.Process(target=target, args=own)
        process.start()
        sender.close()  # the pipe ends with the process
        making: str | None = ORIGINAL
        try:
            while not isinstance(said := receiver.recv(), dict):
                making = said
            return said
        except (EOFError, OSError):  # the latter in the middle of what it said
            process.join()
        finally:
            process.kill()
        why = f"its process stopped with exit code {process.exitcode}"
        if making in (ORIGINAL, None):
            return empty_row(entry, runtime, variants, lost | {ORIGINAL: why})
        lost[making] = why


def is_slower(found: dict[str, float]) -> bool:
    """Whether a ratio's whole interval says slower."""
    return found["high"] < SLOWER


def machine() -> dict[str, Any]:
    """What it was measured on."""
    wanted = ["kerasfold", "tensorflow", "keras", "numpy", "ai-edge-litert", "onnxruntime"]
    versions = {}
    for package in (*wanted, "tf2onnx", "openvino"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": cpu(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions,
    }


def cpu() -> str:
    """The name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def in_words(here: dict[str, Any]) -> str:
    """The machine, in a line."""
    packages = ", ".join(f"{name} {version}" for name, version in here["packages"].items())
    return (
        f"{here['cpu']}, {here['cores']} core{'s' if here['cores'] != 1 else ''}, "
        f"{here['system']}, Python {here['python']}, {packages}"
    )


def write(path: Path, result: dict[str, Any]) -> None:
    """Put a file in place at once, so that a run that is broken off leaves a whole one."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    os.replace(beside, path)


def written(found: dict[str, float] | None, slower: bool = False) -> str:
    """A ratio and its interval."""
    if found is None:
        return ""
    words = f"{found['median']:.2f} ({found['low']:.2f}-{found['high']:.2f})"
    if slower:
        return f"[red]{words} slower[/]"
    return f"[green]{words}[/]" if found["low"] > 1 / SLOWER else words


def results(rows: Sequence[Row]) -> Table:
    """Every model on every runtime."""
    variants = [
        v for v in VARIANTS if any(v in row["seconds"] or v in row["failed"] for row in rows)
    ]
    against = [v for v in FOLDED if any(v in row["to_plain"] for row in rows)]
    table = Table(
        title="original / variant: above 1, the variant is faster (95 % interval)",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for name in ("model", "runtime"):
        table.add_column(name, no_wrap=True)
    for name in ("original, ms", "deployments"):
        table.add_column(name, justify="right")
    for variant in variants:
        table.add_column(variant)
    for variant in against:
        table.add_column(f"plain / {variant}")
    before = None
    for row in rows:
        if before is not None and row["model"] != before:
            table.add_section()
        seconds = row["seconds"].get(ORIGINAL)
        cells = ["failed" if seconds is None else f"{1e3 * seconds:.3f}", str(row["deployments"])]
        for variant in variants:
            failed = variant in row["failed"]
            found = written(row["ratios"].get(variant), variant in row["slower"])
            cells.append("[red]failed[/]" if failed else found)
        for variant in against:
            slower = variant in row["slower_than_plain"]
            cells.append(written(row["to_plain"].get(variant), slower))
        table.add_row("" if row["model"] == before else row["model"], row["runtime"], *cells)
        before = row["model"]
    return table


def means(rows: Sequence[Row]) -> Table:
    """Geometric means of the ratios of each group."""
    columns = [("ratios", v, v) for v in VARIANTS]
    columns += [("to_plain", v, f"plain / {v}") for v in FOLDED]
    columns = [c for c in columns if any(c[1] in row[c[0]] for row in rows)]
    table = Table(title="geometric means", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("group", no_wrap=True)
    table.add_column("runtime", no_wrap=True)
    table.add_column("models", justify="right")
    for *_, title in columns:
        table.add_column(title, justify="right")
    for group in (*GROUPS, "all"):
        for runtime in RUNTIMES:
            own = [r for r in rows if r["runtime"] == runtime and group in (r["group"], "all")]
            if not own:
                continue
            cells = []
            for key, variant, _ in columns:
                medians = [r[key][variant]["median"] for r in own if variant in r[key]]
                cells.append(f"{statistics.geometric_mean(medians):.2f}" if medians else "")
            table.add_row(group, runtime, str(len(own)), *cells)
        table.add_section()
    return table


def remarks(rows: Sequence[Row]) -> list[str]:
    """What is slower, what failed, and how far outputs differ, in lines."""
    lines = []
    for key, ratios, variants, than in (
        ("slower", "ratios", OBJECTIVES, "the original"),
        ("slower_than_plain", "to_plain", FOLDED, "the plain network"),
    ):
        for variant in variants:
            own = [row for row in rows if variant in row[ratios]]
            found = [
                f"  {row['model']} on {row['runtime']}: {written(row[ratios][variant])}"
                for row in own
                if variant in row[key]
            ]
            if own:
                lines += [f"{variant} slower than {than}: {len(found)} of {len(own)}", *found]
    lines += [
        f"failed: {row['model']} on {row['runtime']}, {variant}: {why}"
        for row in rows
        for variant, why in row["failed"].items()
    ]
    for runtime in RUNTIMES:
        worst = max(
            (
                (error, f"{row['model']}, {variant}")
                for row in rows
                if row["runtime"] == runtime
                for variant, error in row["errors"].items()
            ),
            default=None,
        )
        if worst is not None:
            lines.append(f"largest difference of outputs on {runtime}: {worst[0]:.0e} ({worst[1]})")
    return lines


def picture(rows: Sequence[Row], path: Path, caption: str) -> None:
    """Bars of the ratios, model by model, one panel per runtime."""
    runtimes = [name for name in RUNTIMES if any(row["runtime"] == name for row in rows)]
    names = list(dict.fromkeys(row["model"] for row in rows))
    variants = [v for v in VARIANTS if any(v in row["ratios"] for row in rows)]
    width = 0.8 / max(len(variants), 1)
    size = (max(6.0, 2 + 0.55 * len(names)), 1.2 + 2.6 * len(runtimes))
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(runtimes), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for panel, runtime in zip(panels, runtimes, strict=True):
            own = {row["model"]: row["ratios"] for row in rows if row["runtime"] == runtime}
            for index, variant in enumerate(variants):
                found = [
                    (place, own[name][variant])
                    for place, name in enumerate(names)
                    if variant in own.get(name, {})
                ]
                tops = np.array([r["median"] for _, r in found])
                ends = np.array([(r["low"], r["high"]) for _, r in found]).reshape(-1, 2)
                panel.bar(
                    [place + (index - (len(variants) - 1) / 2) * width for place, _ in found],
                    tops - 1,  # a bar starts at 1, upwards or downwards
                    width,
                    bottom=1,
                    color=f"C{VARIANTS.index(variant)}",
                    label=variant,
                    yerr=np.abs(ends.T - tops),
                    error_kw={"elinewidth": 0.7},
                )
            panel.axhline(1, color="black", linewidth=0.8)
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_minor_locator(NullLocator())
            panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            panel.grid(axis="y", alpha=0.3, linewidth=0.5)
            panel.set_axisbelow(True)
            panel.set_ylabel(f"{runtime}\noriginal / variant")
        if variants:
            panels[0].legend(ncols=len(variants), loc="upper right")
        panels[-1].set_xticks(range(len(names)), names, rotation=60, ha="right")
        panels[-1].set_xlim(-0.6, len(names) - 0.4)
        figure.supxlabel(textwrap.fill(caption, int(20 * size[0])), fontsize=6)
        figure.savefig(path, dpi=150)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="models or groups (all)")
    parser.add_argument("--no-applications", action="store_true", help="leave keras's networks out")
    add_runtimes(parser)
    parser.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="VARIANT"
    )
    parser.add_argument(
        "--deployments", type=int, default=12, help="of each comparison, at most (12)"
    )
    parser.add_argument("--pairs", type=int, default=9, help="of each deployment (9)")
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="of each comparison, about, at most (30)"
    )
    parser.add_argument(
        "--budget", type=float, default=60.0, help="seconds of each fold by measuring (60)"
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images at once (1)")
    parser.add_argument("--verify", action="store_true", help="verify folds of applications too")
    parser.add_argument("--append", action="store_true", help="keep what the file has")
    parser.add_argument("--out", type=Path, default=Path("suite.json"))
    args = parser.parse_args(argv)
    try:
        args.entries = chosen(args.only, not args.no_applications)
    except ValueError as error:
        parser.error(str(error))
    require_runtimes(parser, args.runtimes)
    if not args.entries:
        parser.error("no model is left")
    args.variants = [v for v in VARIANTS if v in args.variants]
    args.limits = Limits(
        args.deployments, args.pairs, args.seconds, args.budget, args.verify, args.batch
    )
    args.result = {"machine": machine(), "limits": args.limits._asdict(), "rows": []}
    if args.append and args.out.exists():
        had, args.result = args.result, json.loads(args.out.read_text())
        if args.result["machine"] != had["machine"]:
            parser.error(f"{args.out} was measured on {in_words(args.result['machine'])}")
        if args.result["limits"] != had["limits"]:
            parser.error(f"{args.out} was measured with {args.result['limits']}")
    return args


def run(args: argparse.Namespace, console: Console) -> None:
    """Measure what the file has not."""
    rows: dict[tuple[str, str], Row] = {
        (row["model"], row["runtime"]): row for row in args.result["rows"]
    }
    todo: list[tuple[Entry, str, list[str]]] = []
    for entry in args.entries:
        for runtime in args.runtimes:
            had = rows.get((entry.name, runtime), {"variants": []})["variants"]
            if set(args.variants) - set(had):
                todo.append((entry, runtime, [v for v in VARIANTS if v in (*args.variants, *had)]))
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(todo))
        for entry, runtime, variants in todo:
            progress.update(task, description=f"{entry.name} on {runtime}")
            rows[entry.name, runtime] = measure_apart(entry, runtime, variants, args.limits)
            args.result["rows"] = list(rows.values())
            write(args.out, args.result)
            progress.advance(task)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and draw."""
    args = arguments(argv)
    # Its own hold of the output: converters are muted while the progress is shown.
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 170)
    run(args, console)
    order = {entry.name: place for place, entry in enumerate(chosen(None))}
    rows = sorted(
        args.result["rows"],
        key=lambda row: (order.get(row["model"], len(order)), list(RUNTIMES).index(row["runtime"])),
    )
    caption = f"{datetime.now():%Y-%m-%d}: {in_words(args.result['machine'])}"
    console.print(results(rows))
    console.print(means(rows))
    for line in remarks(rows):
        console.print(line, highlight=False)
    console.print(caption, highlight=False)
    image = args.out.with_suffix(".png")
    picture(rows, image, caption)
    console.print(f"written to {args.out} and {image}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a verification costs, in processor time and memory, and how both grow with the layers.

    python benchmarks/verification_cost.py
    python benchmarks/verification_cost.py --only MobileNetV2 chain-900 --pairs 1

The yardstick is what no verification can do without: `clone_model` of the original, and one
forward pass of each model in float64 on the inputs that are compared. `fold`'s own verification
and `verify(model, folded)` may each take twice that, and hold, beside both models, twice their
weights and 300 MB. A chain of 900 layers may take 1.2 times as long per layer as one of 300.

Times are processor seconds, medians of runs in turns. Each model has two processes of its own, one
for the times and one for each peak of memory. What misses a goal is in red; the exit code says so.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from fold_time import keras_chain, randomise
from rich.console import Console
from rich.table import Table

import kerasfold
import kerasfold.pipeline as pipeline
from kerasfold.equivalence.probes import probes

L = keras.layers
TIMES = 2.0  # of a clone and a float64 pass of each model
WEIGHTS, MEGABYTES = 2.0, 300.0  # of both models, and beside them
GROWTH = 1.2  # per layer, from the second longest chain to the longest
CHAINS = (100, 300, 900)
WAYS = ("fold", "verify")


def conv_mixer() -> keras.Model:
    """ConvMixer-256/8 on CIFAR's images (Trockman and Kolter 2022)."""

    def active(x: Any, layer: keras.Layer) -> Any:
        return L.BatchNormalization()(L.Activation("gelu")(layer(x)))

    inputs = keras.Input((32, 32, 3))
    x = active(L.Rescaling(1 / 255)(inputs), L.Conv2D(256, 2, 2))
    for _ in range(8):
        x = L.Add()([active(x, L.DepthwiseConv2D(5, padding="same")), x])
        x = active(x, L.Conv2D(256, 1))
    outputs = L.Dense(10, activation="softmax")(L.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs, name="ConvMixer")


def _application(name: str) -> Callable[[], keras.Model]:
    return lambda: getattr(keras.applications, name)(weights=None)


def _chain(layers: int) -> Callable[[], keras.Model]:
    return lambda: keras_chain("relu", layers)


MODELS: dict[str, Callable[[], keras.Model]] = {
    **{name: _application(name) for name in ("MobileNetV2", "ResNet50", "ResNet101")},
    "ConvMixer": conv_mixer,
    **{f"chain-{layers}": _chain(layers) for layers in CHAINS},
}


def built(name: str) -> keras.Model:
    """A model with random weights, the same each time."""
    keras.utils.set_random_seed(0)
    return randomise(MODELS[name]())


def in_float64(model: keras.Model) -> keras.Model:
    """The same model, in float64 from its inputs on."""

    def remade(layer: keras.Layer) -> keras.Layer:
        policy = {"dtype": "float64"} if isinstance(layer, keras.Layer) else {}
        return type(layer).from_config({**layer.get_config(), **policy})

    copy = keras.models.clone_model(model, clone_function=remade)
    copy.set_weights(model.get_weights())
    return copy


class Verified:
    """Folds, and tells what `fold` verified: its processor time, verdict and peak of memory."""

    seconds: float
    verdict: str
    peak: float

    @contextmanager
    def watched(self) -> Iterator[None]:
        """`fold` verifies as ever, but its time and memory are taken."""
        original = pipeline.verify_fold

        def timed(*args: Any, **kwargs: Any) -> Any:
            restart_peak()
            start = time.process_time()
            report = original(*args, **kwargs)
            self.seconds = time.process_time() - start
            self.peak = status("VmHWM")
            self.verdict = report.verdict
            return report

        pipeline.verify_fold = timed
        try:
            yield
        finally:
            pipeline.verify_fold = original

    def fold(self, model: keras.Model) -> None:
        """Fold, whether what is made can be handed out or not."""
        with self.watched():
            try:
                kerasfold.fold(model)
            except kerasfold.EquivalenceError as error:
                print(error, file=sys.stderr)


def status(field: str) -> float:
    """Megabytes of this process's memory: VmRSS, or its peak VmHWM."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def restart_peak() -> None:
    """Count the peak of memory from what is in use now."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def megabytes(*models: keras.Model) -> float:
    """Of their weights."""
    return sum(np.asarray(w).nbytes for model in models for w in model.weights) / 2**20


def times(name: str, pairs: int) -> dict[str, Any]:
    """Processor seconds of everything that is compared, in turns."""
    model = built(name)
    folded = kerasfold.fold(model, verify=False)
    exact = [in_float64(model), in_float64(folded)]
    drawn = probes(model)
    batches = [*drawn.usual, *drawn.loud]
    verified = Verified()
    verdicts: dict[str, str] = {}

    def passes() -> None:
        for batch in batches:
            for each in exact:
                each(batch, training=False)

    def verify() -> None:
        verdicts["verify"] = kerasfold.verify(model, folded).verdict

    steps: Mapping[str, Callable[[], object]] = {
        "clone": lambda: keras.models.clone_model(model),
        "passes": passes,
        "verify": verify,
        "fold": lambda: verified.fold(model),
    }
    taken: dict[str, list[float]] = {step: [] for step in steps}
    for number in range(pairs + 1):  # the first is untimed
        for step in list(steps)[:: 1 if number % 2 else -1]:
            gc.collect()
            start = time.process_time()
            steps[step]()
            spent = verified.seconds if step == "fold" else time.process_time() - start
            taken[step] += [spent] if number else []
    least = [c + p for c, p in zip(taken["clone"], taken["passes"], strict=True)]
    verdicts["fold"] = verified.verdict
    return {
        "layers": len(model.layers),
        **{f"{step}_s": statistics.median(spent) for step, spent in taken.items()},
        **{
            f"{way}_ratio": statistics.median(
                t / of for t, of in zip(taken[way], least, strict=True)
            )
            for way in WAYS
        },
        "verdicts": verdicts,
    }


def memory(name: str, way: str) -> dict[str, Any]:
    """Megabytes that a verification takes beside both models, at its peak, and may take."""
    model = built(name)
    restart_peak()
    loaded = status("VmRSS")
    if way == "fold":
        verified = Verified()
        verified.fold(model)
        folded = kerasfold.fold(model, verify=False)
        loaded, peak = loaded + megabytes(folded), verified.peak
    else:
        folded = kerasfold.fold(model, verify=False)
        restart_peak()
        loaded = status("VmRSS")
        kerasfold.verify(model, folded)
        peak = status("VmHWM")
    allowed = WEIGHTS * megabytes(model, folded) + MEGABYTES
    return {f"{way}_mb": peak - loaded, "allowed_mb": allowed}


def in_own_process(*options: str) -> dict[str, Any]:
    """What this program finds with some options, in a process of its own."""
    command = [sys.executable, __file__, *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(options)}: exit code {done.returncode}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measured(name: str, pairs: int) -> dict[str, Any]:
    """All figures of one model."""
    row = in_own_process("--times-of", name, "--pairs", str(pairs))
    for way in WAYS:
        row |= in_own_process("--memory-of", name, way)
    return {"model": name, **row}


def misses(rows: Mapping[str, dict[str, Any]]) -> list[str]:
    """The goals that are not met."""
    missed = []
    for name, row in rows.items():
        for way in WAYS:
            if row[f"{way}_ratio"] > TIMES:
                missed.append(f"{name}: {way} takes {row[f'{way}_ratio']:.2f} of {TIMES:g}")
            if row[f"{way}_mb"] > row["allowed_mb"]:
                missed.append(
                    f"{name}: {way} holds {row[f'{way}_mb']:.0f} MB of {row['allowed_mb']:.0f}"
                )
            if row["verdicts"][way] != "equivalent":
                missed.append(f"{name}: {way} says {row['verdicts'][way]}")
    for way in WAYS:
        each = [
            rows[name][f"{way}_s"] / layers
            for layers in CHAINS
            if (name := f"chain-{layers}") in rows
        ]
        if len(each) > 1 and each[-1] > GROWTH * each[-2]:
            missed.append(f"{way} takes {each[-1] / each[-2]:.2f} times as long per layer")
    return missed


def show(console: Console, rows: Mapping[str, dict[str, Any]]) -> None:
    """Print the figures as a table."""
    table = Table(title="processor seconds, and MB beside both models")
    for column in ("model", "layers", "clone", "passes"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for way in WAYS:
        for column in (way, "ratio", "MB"):
            table.add_column(column, justify="right")
    table.add_column("allowed MB", justify="right")

    def red(text: str, bad: bool) -> str:
        return f"[red]{text}[/red]" if bad else text

    for name, row in rows.items():
        cells = [name, f"{row['layers']}", f"{row['clone_s']:.2f}", f"{row['passes_s']:.2f}"]
        for way in WAYS:
            ratio, held = row[f"{way}_ratio"], row[f"{way}_mb"]
            cells += [
                f"{row[f'{way}_s']:.2f}",
                red(f"{ratio:.2f}", ratio > TIMES),
                red(f"{held:.0f}", held > row["allowed_mb"]),
            ]
        table.add_row(*cells, f"{row['allowed_mb']:.0f}")
    console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL")
    parser.add_argument("--pairs", type=int, default=3, help="timed rounds per model (3)")
    parser.add_argument("--out", type=Path, default=Path("verification_cost.json"))
    parser.add_argument("--times-of", choices=MODELS, help=argparse.SUPPRESS)
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.times_of or args.memory_of:
        row = times(args.times_of, args.pairs) if args.times_of else memory(*args.memory_of)
        print(json.dumps(row))
        return 0
    console = Console(width=130)
    rows: dict[str, dict[str, Any]] = {}
    for name in args.only:
        rows[name] = measured(name, args.pairs)
        console.print(rows[name])
        args.out.write_text(json.dumps(rows, indent=1))
    show(console, rows)
    missed = misses(rows)
    for miss in missed:
        console.print(f"[red]{miss}[/red]")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

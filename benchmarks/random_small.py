"""Is anything slower? Random small graphs of all lifted layers, folded for latency, and timed.

    python benchmarks/random_small.py
    python benchmarks/random_small.py --graphs 40 --first 100 --out part.json

Each graph runs in turns with its fold, on TensorFlow graphs and under XLA, at batch 1. A ratio is
the median over rounds of original / folded, with its 95 % interval. Those whose whole interval
lies below 0.97 are timed again, in a process of their own; what is below it twice is slower, and
the exit code says so. A fold that changes no layer is not timed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from fold_time import randomise
from rich.console import Console
from rich.progress import track

import kerasfold
from kerasfold.measure.runtimes import WRONG, deploy, difference, random_inputs
from kerasfold.measure.timing import paired_seconds, ratio

L = keras.layers
SLOWER = 0.97
RUNTIMES = ("tensorflow", "xla")
MOST_STEPS = 6  # of a graph
MOST_VALUES = 2**17  # of a tensor
SIZES = {1: (8, 40, 200), 2: (4, 7, 14, 28), 3: (4, 6, 10)}
CHANNELS = (1, 3, 8, 16, 32)

Value: TypeAlias = keras.KerasTensor
Random: TypeAlias = np.random.Generator
Step: TypeAlias = Callable[[Random, list[Value]], Value]


def _of(family: str, x: Value, end: str = "") -> Any:
    """The layer class of a family for images like `x`."""
    return getattr(L, f"{family}{len(x.shape) - 2}D{end}")


def _pairs(random: Random, x: Value, most: int) -> Any:
    """So many samples, at most, for either side of each axis."""
    drawn = random.integers(0, most + 1, (len(x.shape) - 2, 2))
    pairs = tuple((int(lo), int(hi)) for lo, hi in drawn)
    return pairs if len(pairs) > 1 else pairs[0]


def _one(random: Random, options: Sequence[Any]) -> Any:
    return options[int(random.integers(len(options)))]


def _window(random: Random, strided: bool = True) -> dict[str, Any]:
    """Kernel, stride or dilation, and padding."""
    stride = _one(random, (1, 1, 2)) if strided else 1
    return {
        "kernel_size": _one(random, (1, 2, 3, 3, 5)),
        "strides": stride,
        "dilation_rate": 1 if stride > 1 else _one(random, (1, 1, 1, 2)),
        "padding": _one(random, ("same", "valid")),
    }


def _conv(random: Random, x: Value) -> Value:
    bias = bool(random.integers(2))
    return _of("Conv", x)(_one(random, CHANNELS), **_window(random), use_bias=bias)(x)


def _grouped(random: Random, x: Value) -> Value:
    groups = _one(random, (2, x.shape[-1]))
    return _of("Conv", x)(2 * x.shape[-1], **_window(random), groups=groups)(x)


def _depthwise(random: Random, x: Value) -> Value:
    return _of("DepthwiseConv", x)(**_window(random), depth_multiplier=_one(random, (1, 1, 2)))(x)


def _separable(random: Random, x: Value) -> Value:
    return _of("SeparableConv", x)(_one(random, CHANNELS), **_window(random))(x)


def _transposed(random: Random, x: Value) -> Value:
    settings = {"strides": _one(random, (1, 2, 3)), "padding": _one(random, ("same", "valid"))}
    kind = _of("Conv", x, "Transpose")
    return kind(_one(random, CHANNELS), _one(random, (2, 3, 4)), **settings)(x)


def _pool(random: Random, x: Value) -> Value:
    size = _one(random, (2, 3))
    settings = {"strides": _one(random, (1, size)), "padding": _one(random, ("same", "valid"))}
    return _of("AveragePooling", x)(size, **settings)(x)


def _global(random: Random, x: Value) -> Value:
    return _of("GlobalAveragePooling", x)(keepdims=bool(random.integers(2)))(x)


def _per_channel(random: Random, x: Value) -> Any:
    """One number, or one per channel."""
    return _one(random, (0.7, np.float32(random.normal(size=x.shape[-1]))))


def _sum(random: Random, tensors: list[Value]) -> Value:
    kind = _one(random, (L.Add, L.Add, L.Subtract, L.Average))
    x = tensors[-1]
    return kind()([x, _one(random, [t for t in tensors if t.shape == x.shape])])


def _concatenate(random: Random, tensors: list[Value]) -> Value:
    x = tensors[-1]
    return L.Concatenate()([x, _one(random, [t for t in tensors if t.shape[:-1] == x.shape[:-1]])])


def _slice(random: Random, x: Value) -> Value:
    low = random.integers(0, x.shape[-1])
    return x[..., int(low) : int(random.integers(low, x.shape[-1])) + 1]


def _cut(random: Random, x: Value) -> Value:
    return x[:, 1:-1] if random.integers(2) else x[:, ::2]


def _pad(random: Random, x: Value) -> Value:
    return keras.ops.pad(x, [(0, 0), *[(1, 1)] * (len(x.shape) - 2), (0, 0)])


STEPS: dict[str, Step] = {
    "conv": lambda r, xs: _conv(r, xs[-1]),
    "pointwise": lambda r, xs: L.Dense(_one(r, CHANNELS))(xs[-1]),
    "grouped": lambda r, xs: _grouped(r, xs[-1]),
    "depthwise": lambda r, xs: _depthwise(r, xs[-1]),
    "separable": lambda r, xs: _separable(r, xs[-1]),
    "transposed": lambda r, xs: _transposed(r, xs[-1]),
    "pool": lambda r, xs: _pool(r, xs[-1]),
    "global": lambda r, xs: _global(r, xs[-1]),
    "upsampling": lambda r, xs: _of("UpSampling", xs[-1])(2)(xs[-1]),
    "bilinear": lambda _, xs: L.UpSampling2D(2, interpolation="bilinear")(xs[-1]),
    "normalised": lambda r, xs: L.BatchNormalization()(xs[-1]),
    "rescaled": lambda r, xs: L.Rescaling(0.5, 0.25)(xs[-1]),
    "scaled": lambda r, xs: xs[-1] * _per_channel(r, xs[-1]),
    "shifted": lambda r, xs: xs[-1] + _per_channel(r, xs[-1]),
    "divided": lambda r, xs: xs[-1] / 3.0,
    "negative": lambda r, xs: -xs[-1],
    "sum": _sum,
    "concatenated": _concatenate,
    "slice": lambda r, xs: _slice(r, xs[-1]),
    "cut": lambda r, xs: _cut(r, xs[-1]),
    "padded": lambda r, xs: _of("ZeroPadding", xs[-1])(_pairs(r, xs[-1], 2))(xs[-1]),
    "padded_op": lambda r, xs: _pad(r, xs[-1]),
    "cropped": lambda r, xs: _of("Cropping", xs[-1])(_pairs(r, xs[-1], 1))(xs[-1]),
    "flattened": lambda r, xs: L.Dense(_one(r, CHANNELS))(L.Flatten()(xs[-1])),
    "dropout": lambda r, xs: L.Dropout(0.5)(xs[-1]),
    "relu": lambda r, xs: L.ReLU()(xs[-1]),
}  # fmt: skip


def graph(seed: int) -> keras.Model:
    """A model of its own for each seed; its outputs are the tensors that nothing reads."""
    keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    rank = _one(random, (1, 2, 2, 2, 3))
    sizes = [_one(random, SIZES[rank]) for _ in range(rank)]
    inputs = keras.Input((*sizes, _one(random, CHANNELS)))
    tensors = [inputs]
    wanted = int(random.integers(2, MOST_STEPS + 1))
    for _ in range(100):  # what is drawn may not fit
        if len(tensors) > wanted:
            break
        step = _one(random, list(STEPS.values()))
        at = len(tensors) - 1 if random.integers(3) else int(random.integers(len(tensors)))
        sources = [t for i, t in enumerate(tensors) if i != at] + [tensors[at]]
        try:
            value = step(random, sources)
        except (ValueError, AttributeError, TypeError, IndexError):
            continue
        if min(value.shape[1:]) < 1 or np.prod(value.shape[1:]) > MOST_VALUES:
            continue
        tensors.append(value)
    model = keras.Model(inputs, tensors[1:])
    read = {id(t) for layer in model.operations for t in keras.tree.flatten(layer.input)}
    return randomise(keras.Model(inputs, [t for t in tensors[1:] if id(t) not in read]))


class Limits(NamedTuple):
    """How long to measure: rounds and seconds of each comparison, at most."""

    rounds: int
    seconds: float


def measure(seed: int, limits: Limits) -> dict[str, Any] | None:
    """Ratios of a graph to its fold, by runtime; None where the fold changes no layer."""
    model = graph(seed)
    folded = kerasfold.fold(model, verify=False)
    report = folded.fold_report
    rewritten = any("it is written as" in kept.reason for kept in report.kept)
    if not (report.merged or rewritten):
        return None
    inputs = random_inputs(model)
    row: dict[str, Any] = {"seed": seed, "layers": words(model), "folded": words(folded)}
    for runtime in RUNTIMES:
        runs = [deploy(m, runtime, inputs) for m in (model, folded)]
        off = difference(*(run() for run in runs))
        assert off <= WRONG, f"graph {seed} differs on {runtime} by {off:.0e}"
        times = paired_seconds(runs, limits.rounds, limits.seconds)
        row[runtime] = asdict(ratio(times[:, 0], times[:, 1]))
    return row


def words(model: keras.Model) -> str:
    """The layers and operations of a model, in order."""
    return " ".join(type(operation).__name__ for operation in model.operations[1:])


def again(seed: int, limits: Limits) -> dict[str, Any] | None:
    """`measure`, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (seed, limits))


def slower_on(row: Any) -> list[str]:
    """The runtimes on which a fold is slower: the whole interval says so."""
    return [runtime for runtime in RUNTIMES if row[runtime]["high"] < SLOWER]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, time again, print; 1 where anything is slower twice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="seed of the first graph (0)")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each comparison (3)")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    limits = Limits(args.rounds, args.seconds)
    console = Console(width=None if sys.stdout.isatty() else 170)
    rows, twice = [], []
    for seed in track(range(args.first, args.first + args.graphs), "timing", console=console):
        keras.backend.clear_session()
        row = measure(seed, limits)
        if row is None:
            continue
        rows.append(row)
        if slower := slower_on(row):
            row["again"] = again(seed, limits)
            both = [runtime for runtime in slower if runtime in slower_on(row["again"])]
            twice += [(runtime, row) for runtime in both]
    for runtime in RUNTIMES if rows else ():
        medians = [row[runtime]["median"] for row in rows]
        once = sum(runtime in slower_on(row) for row in rows)
        console.print(
            f"{runtime}: {len(rows)} of {args.graphs} graphs change, geometric mean "
            f"{statistics.geometric_mean(medians):.2f}, least {min(medians):.2f}, "
            f"below {SLOWER} once: {once}, twice: {sum(name == runtime for name, _ in twice)}"
        )
    for runtime, row in twice:
        found = [f"{x[runtime]['median']:.2f}" for x in (row, row["again"])]
        console.print(f"slower on {runtime}, {' and '.join(found)}: graph {row['seed']}")
        console.print(f"  {row['layers']}\n  {row['folded']}", highlight=False)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1))
    return int(bool(twice))


if __name__ == "__main__":
    sys.exit(main())

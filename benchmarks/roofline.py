"""Calibrate the roofline of the "latency" objective: time single layers and fit its constants.

Prints the fitted constants of `kerasfold.cost` and, for each layer, its measured time (the
median of paired alternating runs) against the roofline's. Run it on an idle machine:

    python benchmarks/roofline.py --out roofline.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from rich.console import Console
from rich.table import Table

from kerasfold import cost
from kerasfold.graph import read
from kerasfold.plan import original_plan
from kerasfold.region import lift

CHAIN = 4  # equal layers in a row, so that the cost of entering a graph is shared


def cases():
    """(name, size, channels, layer factory) of what is timed."""
    for size, channels in itertools.product((14, 28, 56, 112), (8, 32, 128)):
        if size * size * channels > 112 * 112 * 64:
            continue
        yield f"conv1x1 {size} {channels}", size, channels, lambda c: layers.Conv2D(c, 1)
        yield (
            f"conv3x3 {size} {channels}",
            size,
            channels,
            lambda c: layers.Conv2D(c, 3, padding="same"),
        )
        yield (
            f"conv5x5 {size} {channels}",
            size,
            channels,
            lambda c: layers.Conv2D(c, 5, padding="same"),
        )
        yield (
            f"depthwise3x3 {size} {channels}",
            size,
            channels,
            lambda c: layers.DepthwiseConv2D(3, padding="same"),
        )
        yield f"batchnorm {size} {channels}", size, channels, lambda c: layers.BatchNormalization()
        yield (
            f"separable {size} {channels}",
            size,
            channels,
            lambda c: layers.SeparableConv2D(c, 3, padding="same"),
        )


def measure(runs: int) -> list[dict]:
    """Median seconds of each case, and what the roofline needs to know of it."""
    jobs = []
    for name, size, channels, factory in cases():
        inputs = keras.Input((size, size, channels))
        x = inputs
        for _ in range(CHAIN):
            x = factory(channels)(x)
        model = keras.Model(inputs, x)
        regions = lift(read(model))
        geometries = [n.geometry for n in regions.program.nodes if n.geometry is not None]
        function = tf.function(lambda t, model=model: model(t, training=False), autograph=False)
        data = tf.random.normal((1, size, size, channels))
        function(data)
        jobs.append((name, geometries, function, data, original_plan(regions).cost.seconds))
    times = {name: [] for name, *_ in jobs}
    for _ in range(runs):
        for name, _, function, data, _ in jobs:
            start = time.perf_counter()
            function(data)
            times[name].append((time.perf_counter() - start) / CHAIN)
    return [
        {
            "name": name,
            "seconds": float(np.median(times[name])),
            "roofline": predicted / CHAIN,
            "steps": [
                {
                    "macs": cost.macs_of(g) / CHAIN,
                    "grouped": g.groups > 1,
                    "bytes": (
                        cost.moved_bytes([a.size for a in g.axes], g.channels[0])
                        + cost.moved_bytes(g.sizes, g.channels[1])
                        + 4 * g.params
                    )
                    / CHAIN,
                }
                for g in geometries
            ],
        }
        for name, geometries, _, _, predicted in jobs
    ]


def fit(rows: list[dict]) -> dict[str, float]:
    """Constants that minimise the squared error of log time."""
    from scipy.optimize import minimize

    def predict(logs, row):
        dense, grouped, rate, call = np.exp(logs)
        return call + sum(
            max(s["macs"] / (grouped if s["grouped"] else dense), s["bytes"] / rate)
            for s in row["steps"]
        )

    def loss(logs):
        return sum((np.log(predict(logs, row)) - np.log(row["seconds"])) ** 2 for row in rows)

    start = np.log([cost.DENSE_MACS, cost.DEPTHWISE_MACS, cost.BYTES, cost.PER_CALL])
    best = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 4000, "fatol": 1e-9})
    names = ("DENSE_MACS", "DEPTHWISE_MACS", "BYTES", "PER_CALL")
    return dict(zip(names, map(float, np.exp(best.x)), strict=True))


def main(argv: list[str] | None = None) -> None:
    """Measure, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=41)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    rows = measure(args.runs)
    constants = fit(rows)
    table = Table(title="microseconds per layer")
    for column in ("layer, size, channels", "measured", "roofline"):
        table.add_column(column)
    for row in rows:
        table.add_row(row["name"], f"{1e6 * row['seconds']:.1f}", f"{1e6 * row['roofline']:.1f}")
    console = Console()
    console.print(table)
    for name, value in constants.items():
        console.print(f"{name} = {value:.3g}  (in use: {getattr(cost, name):.3g})")
    if args.out:
        args.out.write_text(json.dumps({"constants": constants, "layers": rows}, indent=1))


if __name__ == "__main__":
    main()

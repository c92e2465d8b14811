"""Calibrate the roofline of the "latency" objective: time single layers and fit its constants.

A layer's time is what it adds to a chain: that of a chain of several, less that of one, in
paired alternating runs. Prints the fitted constants of `kerasfold.cost` beside those in use,
and each layer's measured time against the roofline's. Run it on an idle machine:

    python benchmarks/roofline.py --runtimes tensorflow --out roofline.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize

from kerasfold.cost import (
    BYTES,
    DENSE_MACS,
    DEPTHWISE_MACS,
    DISPATCH,
    IM2COL,
    PER_CALL,
    POOL_ADDS,
    SPLIT,
    im2col,
    moved_bytes,
    vectorised_macs,
)
from kerasfold.lift.regions import lift
from kerasfold.measure.runtimes import RUNTIMES, deploy, random_inputs
from kerasfold.measure.timing import paired_seconds
from kerasfold.plan.choose import original_plan
from kerasfold.read.graph import read

CHAIN = 4  # layers in the longer chain, beside the one in both
LARGEST = 2e8  # multiply-accumulates of the largest layer timed
IN_USE = {
    "DENSE_MACS": DENSE_MACS,
    "DEPTHWISE_MACS": DEPTHWISE_MACS,
    "POOL_ADDS": POOL_ADDS,
    "BYTES": BYTES,
    "IM2COL": IM2COL,
    "PER_CALL": PER_CALL,
    "DISPATCH": DISPATCH,
}

Row = dict[str, Any]


def cases() -> Iterator[tuple[str, int, int, Callable[[int], keras.Layer]]]:
    """(name, size, channels, layer factory) of what is timed; each keeps the shape."""
    for size, channels in itertools.product((8, 14, 28, 56, 112), (2, 8, 16, 32, 64, 128)):
        for k in (1, 3, 5, 9):
            if size * size * channels**2 * k * k <= LARGEST and k < size:
                yield f"conv{k}x{k}", size, channels, _conv(k)
        if size * size * channels <= 2e6:
            yield "depthwise3x3", size, channels, _depthwise
            yield "batchnorm", size, channels, _normalise
            yield "pool3x3", size, channels, _pool


def _conv(k: int) -> Callable[[int], keras.Layer]:
    return lambda channels: layers.Conv2D(channels, k, padding="same")


def _depthwise(channels: int) -> keras.Layer:
    return layers.DepthwiseConv2D(3, padding="same")


def _normalise(channels: int) -> keras.Layer:
    return layers.BatchNormalization()


def _pool(channels: int) -> keras.Layer:
    return layers.AveragePooling2D(3, 1, padding="same")


def chain(
    size: int, channels: int, factory: Callable[[int], keras.Layer], count: int
) -> keras.Model:
    """So many equal layers in a row, with a barrier between them."""
    x = inputs = keras.Input((size, size, channels))
    for _ in range(count):
        x = layers.ReLU()(factory(channels)(x))
    return keras.Model(inputs, x)


def measure(runtime: str, rounds: int) -> list[Row]:
    """Median seconds of each case, and what the roofline needs to know of it."""
    rows = []
    for name, size, channels, factory in cases():
        models = [chain(size, channels, factory, count) for count in (1, 1 + CHAIN)]
        inputs = random_inputs(models[0])
        times = paired_seconds([deploy(m, runtime, inputs) for m in models], rounds)
        regions = lift(read(models[0]))
        ((node, geometry),) = [
            (node, node.geometry) for node in regions.program.nodes if node.geometry is not None
        ]
        rows.append(
            {
                "name": f"{name} {size} {channels}",
                "seconds": max(float(np.median(times[:, 1] - times[:, 0])) / CHAIN, 1e-7),
                "roofline": original_plan(regions).cost.seconds,
                "kind": "POOL_ADDS"
                if node.weightless
                else "DEPTHWISE_MACS"
                if geometry.groups > 1
                else "DENSE_MACS",
                "macs": vectorised_macs(geometry),
                "patches": im2col(geometry),
                "bytes": 2 * moved_bytes(geometry.sizes, channels) + 4 * geometry.params,
            }
        )
        keras.backend.clear_session()
    return rows


def fit(rows: list[Row]) -> dict[str, float]:
    """Constants that minimise the squared error of log time."""

    def predict(constants: dict[str, float], row: Row) -> float:
        work = row["macs"] / constants[row["kind"]] + row["patches"] / constants["IM2COL"]
        work = max(work, row["bytes"] / constants["BYTES"])
        shared = constants["DISPATCH"] if work > SPLIT else 0.0
        return work + constants["PER_CALL"] + shared

    def loss(logs: np.ndarray) -> float:
        constants = dict(zip(IN_USE, np.exp(logs), strict=True))
        return sum(math.log(predict(constants, row) / row["seconds"]) ** 2 for row in rows)

    start = np.log(list(IN_USE.values()))
    best = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 20000, "maxfev": 20000})
    return dict(zip(IN_USE, map(float, np.exp(best.x)), strict=True))


def main(argv: list[str] | None = None) -> None:
    """Measure, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=["tensorflow"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    console = Console()
    found = {}
    for runtime in args.runtimes:
        rows = measure(runtime, args.rounds)
        constants = fit(rows)
        found[runtime] = {"constants": constants, "layers": rows}
        table = Table(title=f"microseconds per layer, {runtime}")
        for column in ("layer, size, channels", "measured", "roofline"):
            table.add_column(column)
        for row in rows:
            table.add_row(
                row["name"], f"{1e6 * row['seconds']:.1f}", f"{1e6 * row['roofline']:.1f}"
            )
        console.print(table)
        for name, value in constants.items():
            console.print(f"{name} = {value:.3g}  (in use: {IN_USE[name]:.3g})")
    if args.out:
        args.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""Calibrate the rooflines of the "latency" objective: time single layers and fit their rates.

A layer's time is what it adds to a chain: that of a chain of several, less that of one, in paired
alternating runs. A case that a runtime refuses is left out. Prints the fitted rates of
`kerasfold.rooflines` beside those in use, for each kind of work, and each layer's measured time
against the roofline's. Run it on an idle machine:

    python benchmarks/roofline.py --runtimes tensorflow --kinds pool depthwise --out roofline.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize

from kerasfold.cost import load_of, moved_bytes
from kerasfold.errors import FoldError
from kerasfold.lift.regions import lift
from kerasfold.measure.runtimes import deploy, random_inputs
from kerasfold.measure.timing import paired_seconds
from kerasfold.read.graph import read
from kerasfold.rooflines import ROOFLINES, Kind, Load, Rate, Roofline

CHAIN = 4  # layers in the longer chain, beside the one in both
LARGEST = 2e8  # multiply-accumulates of the largest layer timed

Row = dict[str, Any]
Sizes = tuple[int, ...]
Factory = Callable[[int], Callable[[Any], Any]]


def cases() -> Iterator[tuple[str, Kind, Sizes, int, Factory]]:
    """(name, kind, sizes, channels, factory) of what is timed; each keeps the shape."""
    for size, channels in itertools.product((8, 14, 28, 56, 112), (2, 8, 16, 32, 64, 128)):
        image = (size, size)
        for k in (1, 3, 5, 9):
            if size * size * channels**2 * k * k <= LARGEST and k < size:
                yield f"conv{k}x{k}", "convolution", image, channels, _conv(k)
        if size * size * channels**2 <= LARGEST:
            yield "dense", "matrix", image, channels, layers.Dense
            yield "transposed3x3", "transposed", image, channels, _upsampled("2D", 3, 1)
            for k, stride in ((2, 2), (3, 2), (4, 2), (3, 3), (4, 4)):
                if size * stride <= 112:
                    up = _upsampled("2D", k, stride)
                    yield f"transposed{k}x{k}/{stride}", "transposed", image, channels, up
            yield "padded1x1", "padded", image, channels, _behind_zeros
            for k, groups in ((3, 2), (1, 2), (1, channels // 2)):
                grouped = _conv(k, groups=groups)
                if 1 < groups < channels:
                    yield f"grouped{k}x{k} {groups}", "grouped", image, channels, grouped
        if size * size * channels <= 2e6:
            yield "depthwise3x3", "depthwise", image, channels, _depthwise(3)
            yield "depthwise1x9", "row", image, channels, _depthwise((1, 9))
            yield "apart3x3", "grouped depthwise", image, channels, _conv_apart
            yield "depthwise1x1", "scale", image, channels, _depthwise(1)
            yield "batchnorm", "normalisation", image, channels, _normalise
            yield "pool3x3", "pool", image, channels, _pool
            yield "multiply", "elementwise", image, channels, _multiply
            yield "concatenate", "copy", image, channels, _concatenate
            yield "gate", "reduction", image, channels, _gate
            yield "pad and crop", "cut", image, channels, _pad_and_crop
        if size * size * channels <= 5e5:
            yield "every other", "strided", image, channels, _every_other
    for size, channels in itertools.product((4, 6, 8, 12, 16), (2, 8, 16, 32)):
        if size**3 * channels**2 * 27 <= LARGEST:
            volume = (size,) * 3
            yield "conv3x3x3", "volume", volume, channels, _volume(1)
            yield "grouped3x3x3", "grouped volume", volume, channels, _volume(2)
            up = _upsampled("3D", 3, 2)
            yield "transposed3x3x3/2", "transposed volume", volume, channels, up


def _conv(k: int, **settings: Any) -> Factory:
    return lambda channels: layers.Conv2D(channels, k, padding="same", **settings)


def _conv_apart(channels: int) -> keras.Layer:
    return layers.Conv2D(channels, 3, padding="same", groups=channels)


def _volume(groups: int) -> Factory:
    return lambda channels: layers.Conv3D(channels, 3, padding="same", groups=groups)


def _upsampled(rank: str, k: int, stride: int) -> Factory:
    """To a multiple of the size, and back again by a crop."""

    def factory(channels: int) -> Callable[[Any], Any]:
        kind = getattr(layers, f"Conv{rank}Transpose")
        up = kind(channels, k, strides=stride, padding="same")
        return lambda x: up(x)[:, *(slice(n) for n in x.shape[1:-1])] if stride > 1 else up(x)

    return factory


def _behind_zeros(channels: int) -> Callable[[Any], Any]:
    """A matrix product of each pixel and of zeros around them, which a crop takes off again."""
    conv = layers.Conv2D(channels, 1)
    return lambda x: conv(layers.ZeroPadding2D(1)(x))[:, 1:-1, 1:-1]


def _depthwise(k: int | tuple[int, int]) -> Factory:
    return lambda channels: layers.DepthwiseConv2D(k, padding="same")


def _normalise(channels: int) -> keras.Layer:
    return layers.BatchNormalization()


def _pool(channels: int) -> keras.Layer:
    return layers.AveragePooling2D(3, 1, padding="same")


def _multiply(channels: int) -> Callable[[Any], Any]:
    return lambda x: x * np.linspace(0.5, 1.5, channels, dtype="float32")


def _concatenate(channels: int) -> Callable[[Any], Any]:
    half = channels // 2
    return lambda x: layers.Concatenate()([x[..., half:], x[..., :half]])


def _gate(channels: int) -> Callable[[Any], Any]:
    """A mean over the image, which multiplies it, so that it keeps its shape."""
    return lambda x: x * layers.GlobalAveragePooling2D(keepdims=True)(x)


def _pad_and_crop(channels: int) -> Callable[[Any], Any]:
    """There and back, with a barrier between."""
    return lambda x: layers.Cropping2D(1)(layers.ReLU()(layers.ZeroPadding2D(1)(x)))


def _every_other(channels: int) -> Callable[[Any], Any]:
    """Of an image of twice the size, which a padding makes."""

    def step(x: Any) -> Any:
        rows, columns = x.shape[1:3]
        return layers.ZeroPadding2D(((0, rows), (0, columns)))(x)[:, ::2, ::2]

    return step


def chain(sizes: Sizes, channels: int, factory: Factory, count: int) -> keras.Model:
    """So many equal layers in a row, with a barrier between them."""
    x = inputs = keras.Input((*sizes, channels))
    for _ in range(count):
        x = layers.ReLU()(factory(channels)(x))
    return keras.Model(inputs, x)


def measure(runtime: str, kinds: Collection[Kind], rounds: int, seconds: float) -> list[Row]:
    """Median seconds of each case of some kinds, and what the roofline needs to know of it."""
    rows, roofline = [], ROOFLINES[runtime]
    for name, kind, sizes, channels, factory in cases():
        if kind not in kinds:
            continue
        models = [chain(sizes, channels, factory, count) for count in (1, 1 + CHAIN)]
        inputs = random_inputs(models[0])
        try:
            runs = [deploy(m, runtime, inputs) for m in models]
        except FoldError:
            continue
        times = paired_seconds(runs, rounds, seconds)
        each = float(np.median(times[:, 1] - times[:, 0])) / CHAIN / (2 if kind == "cut" else 1)
        image = moved_bytes(sizes, channels)
        nodes = lift(read(models[0])).program.nodes
        geometries = [n.geometry for n in nodes if n.geometry is not None and n.work != "copy"]
        single = len(geometries) == 1 and kind != "reduction"
        load = load_of(geometries[0]) if single else Load(2 * image, image)
        if kind == "reduction":  # beside the product that ends it
            load = Load(image)
            each -= roofline.seconds("elementwise", Load(2 * image))
        if kind == "strided":  # behind the padding
            each -= roofline.seconds("cut", Load(8 * image))
        rows.append(
            {
                "name": f"{name} {sizes[0]} {channels}",
                "kind": kind,
                "seconds": max(each, 1e-7),
                "load": load,
            }
        )
        keras.backend.clear_session()
    return rows


def fit(rows: list[Row], kind: Kind, roofline: Roofline) -> Rate:
    """The constants of one kind that minimise the squared error of log time."""
    in_use = roofline.rates[kind]
    names = [n for n, v in in_use._asdict().items() if 0 < v < math.inf]
    own = [row for row in rows if row["kind"] == kind]

    def rate(logs: np.ndarray) -> Rate:
        return in_use._replace(**dict(zip(names, map(float, np.exp(logs)), strict=True)))

    def loss(logs: np.ndarray) -> float:
        trial = replace(roofline, rates={kind: rate(logs)})
        return sum(math.log(trial.seconds(kind, r["load"]) / r["seconds"]) ** 2 for r in own)

    start = np.log([getattr(in_use, name) for name in names])
    best = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 5000, "maxfev": 5000})
    return rate(best.x)


def main(argv: list[str] | None = None) -> None:
    """Measure, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each layer, at most (2)")
    parser.add_argument("--runtimes", nargs="+", choices=ROOFLINES, default=list(ROOFLINES))
    kinds = list(dict.fromkeys(kind for _, kind, *_ in cases()))
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    console = Console()
    found = {}
    for runtime in args.runtimes:
        roofline = ROOFLINES[runtime]
        rows = measure(runtime, args.kinds, args.rounds, args.seconds)
        rates = {kind: fit(rows, kind, roofline) for kind in {row["kind"]: 0 for row in rows}}
        found[runtime] = {"rates": {k: r._asdict() for k, r in rates.items()}, "layers": rows}
        table = Table(title=f"microseconds per layer, {runtime}")
        for column in ("layer, size, channels", "measured", "roofline"):
            table.add_column(column)
        for row in rows:
            predicted = roofline.seconds(row["kind"], row["load"])
            table.add_row(row["name"], f"{1e6 * row['seconds']:.1f}", f"{1e6 * predicted:.1f}")
        console.print(table)
        for kind, rate in rates.items():
            console.print(f"{kind}: {rate}\n  in use: {roofline.rates[kind]}")
    if args.out:
        args.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

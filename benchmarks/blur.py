"""How many times as fast a Gaussian blur is as one along each axis: see `kerasfold.plan.numbers`.

    python benchmarks/blur.py
    python benchmarks/blur.py --taps 15 --size 256 --channels 8 --runtimes xla

The original and its fold run in turns, at batch 1: the median over rounds of original / fold with
its 95 % interval.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import kerasfold
from kerasfold.measure.runtimes import deploy, random_inputs
from kerasfold.measure.timing import paired_seconds, ratio

GOAL = 4.0  # on each runtime


def blur(taps: int, size: int, channels: int) -> keras.Model:
    """A model of one depthwise Gaussian, as wide as a sixth of its window."""
    t = np.arange(taps) - (taps - 1) / 2
    g = np.exp(-((6 * t / taps) ** 2) / 2)
    kernel = np.outer(g, g / g.sum() ** 2)[:, :, None, None]
    layer = keras.layers.DepthwiseConv2D(taps, padding="same", use_bias=False, name="blur")
    model = keras.Sequential([keras.Input((size, size, channels)), layer])
    layer.set_weights([np.repeat(kernel, channels, 2).astype("float32")])
    return model


def main() -> int:
    """Print a line for each runtime; 1 where the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--taps", type=int, default=31)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--runtimes", nargs="+", default=["tensorflow", "xla"])
    args = parser.parse_args()
    model = blur(args.taps, args.size, args.channels)
    folded = kerasfold.fold(model, verify=False)
    for merged in folded.fold_report.merged:
        print(f"{merged.kind}; {merged.grown}")
    inputs, met = random_inputs(model), True
    for runtime in args.runtimes:
        runs = [deploy(each, runtime, inputs) for each in (model, folded)]
        before, after = paired_seconds(runs, args.rounds).T
        found = ratio(before, after)
        took = " -> ".join(f"{1e3 * np.median(x):.2f}" for x in (before, after))
        print(f"{runtime}: {took} ms, {found.median:.2f} ({found.low:.2f} to {found.high:.2f})")
        met = met and found.low >= GOAL
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())

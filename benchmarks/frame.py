"""What a frame gains: two 3x3 'same' convolutions as one 5x5 with its border in strips.

python benchmarks/frame.py --pairs 31
"""

from __future__ import annotations

import argparse
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import kerasfold  # noqa: F401  (gives every model its fold method)


def measure(size: int, channels: int, width: int, pairs: int) -> dict[str, float]:
    """MACs and seconds of the model and of its fold, in paired alternating runs."""
    model = keras.Sequential(
        [
            keras.Input((size, size, channels)),
            keras.layers.Conv2D(width, 3, padding="same"),
            keras.layers.Conv2D(channels, 3, padding="same"),
        ]
    )
    folded = model.fold()
    data = tf.random.normal((1, size, size, channels))
    calls = [
        tf.function(lambda x, m=m: m(x, training=False), autograph=False) for m in (model, folded)
    ]
    for call in calls:
        call(data)
    times = np.empty((pairs, 2))
    for pair in range(pairs):
        for side in ((0, 1), (1, 0))[pair % 2]:
            start = time.perf_counter()
            calls[side](data)
            times[pair, side] = time.perf_counter() - start
    report = folded.fold_report
    return {
        "size": size,
        "macs_ratio": report.macs_after / report.macs_before,
        "seconds_before": float(np.median(times[:, 0])),
        "seconds_after": float(np.median(times[:, 1])),
        "speedup": float(np.median(times[:, 0] / times[:, 1])),
    }


def main(argv: list[str] | None = None) -> None:
    """Measure three sizes and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=31)
    args = parser.parse_args(argv)
    print(json.dumps([measure(n, 16, 256, args.pairs) for n in (56, 128)], indent=1))


if __name__ == "__main__":
    main()

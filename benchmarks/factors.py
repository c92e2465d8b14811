"""How often `kerasfold.factor` finds what a kernel is made of, in how many seconds.

Random kernels in each form, taken apart with the sizes they are made of; chains of several
channels from near their factors and from nothing, in `--budget` seconds each.

python benchmarks/factors.py --cases 200
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np

import kerasfold
from zoo.forms import CASES, MAKERS, chain_of, links

NEAR = 0.1  # of a factor's size: how far a start is from it
ONE_CHANNEL = (
    *("3-3", "2-4", "2-3-4", "5-5", "17-17", "3x3-3x3", "2x4-4x2", "2x2-2x2-2x2"),
    *("1x5-5x1", "3x3-5x5", "5x5-5x5", "3x3-3x3-3x3", "7x7-7x7"),
)
SEVERAL = (
    ("3-3", (2, 2, 2)),
    ("3-3", (4, 4, 4)),
    ("3-3-3", (2, 2, 2, 2)),
    ("3x3-3x3", (3, 1, 3)),
    ("3x3-3x3", (4, 2, 4)),
    ("3x3-3x3", (2, 2, 2)),
    ("3x3-3x3", (3, 3, 3)),
    ("3x3-3x3", (4, 4, 4)),
    ("3x3-3x3", (3, 8, 3)),
    ("2x2-2x2", (4, 4, 4)),
    ("5x5-5x5", (2, 2, 2)),
    ("3x3-3x3-3x3", (2, 2, 2, 2)),
    ("3x3x3-3x3x3", (1, 1, 1)),
    ("2x2x2-2x2x2", (2, 2, 2)),
)

Case = Callable[[np.random.Generator], kerasfold.Factors]


def windows(name: str) -> list[tuple[int, ...]]:
    """'3x3-5x5' as sizes."""
    return [tuple(map(int, size.split("x"))) for size in name.split("-")]


def made(into: str, rank: int) -> Case:
    """Of a form, with its sizes."""

    def case(rng: np.random.Generator) -> kerasfold.Factors:
        kernel, sizes = MAKERS[into](rng, rank)
        return kerasfold.factor(kernel, into, **sizes)

    return case


def chain(name: str, channels: tuple[int, ...], budget: float, near: bool) -> Case:
    """Of several channels, from near its links or from nothing."""
    sizes = windows(name)

    def case(rng: np.random.Generator) -> kerasfold.Factors:
        factors = links(rng, sizes, channels)
        start = None
        if near:
            start = []
            for factor in factors:
                noise = rng.standard_normal(factor.shape)
                start += [factor + NEAR * np.linalg.norm(factor) / np.linalg.norm(noise) * noise]
        return kerasfold.factor(
            chain_of(factors),
            "chain",
            sizes=sizes,
            filters=channels[1:-1] if start is None else None,
            start=start,
            restarts=100 if near else 10_000,
            budget=budget,
        )

    return case


def measure(case: Case, cases: int) -> dict[str, float]:
    """How many are exact, the largest error, and the median and the largest of seconds."""
    errors, seconds = [], []
    for seed in range(cases):
        start = time.perf_counter()
        errors.append(case(np.random.default_rng(seed)).relative_error)
        seconds.append(time.perf_counter() - start)
    return {
        "cases": cases,
        "exact": int(np.sum(np.array(errors) <= 1e-12)),
        "largest error": max(errors),
        "median seconds": float(np.median(seconds)),
        "most seconds": max(seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200, help="of each row")
    parser.add_argument("--from-nothing", type=int, default=20, help="of each chain searched for")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds for each search")
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument("--output", type=Path, default=Path("factors.json"))
    options = parser.parse_args()
    rows: dict[str, tuple[Case, int]] = {}
    for into, rank in CASES:
        rows[f"{into} {rank}-D"] = made(into, rank), options.cases
    for name in ONE_CHANNEL:
        channels = (1,) * (len(windows(name)) + 1)
        rows[f"one channel {name}"] = chain(name, channels, options.budget, False), options.cases
    for name, channels in SEVERAL:
        words = "-".join(map(str, channels))
        rows[f"near {name} of {words}"] = chain(name, channels, 60.0, True), options.cases
    for name, channels in SEVERAL:
        case = chain(name, channels, options.budget, False)
        words = "-".join(map(str, channels))
        rows[f"from nothing {name} of {words}"] = case, options.from_nothing
    results = {}
    for row, (case, cases) in rows.items():
        if options.only in row:
            results[row] = found = measure(case, cases)
            print(
                f"{row:40} {found['exact']:4.0f} of {cases:4}, error at most "
                f"{found['largest error']:.1e}, {found['median seconds']:.3f} s, at most "
                f"{found['most seconds']:.1f} s",
                flush=True,
            )
    options.output.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

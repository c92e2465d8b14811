"""How exactly and how fast a large kernel is divided by one of its factors, in float64.

    python benchmarks/inverse.py --channels 64 --cases 1000

A quotient of 63x63 taps is taken out of kernels of 78x78: by an average pooling of 16, and by a
kernel of 16x16 taps without any structure. Then small kernels are drawn at random, along one to
three axes, with up to 8 channels, 7 taps and strides of 3, and the factor that is found is
compared with the one that was drawn. Prints the relative error, the condition of the divisor,
seconds, and the most memory that the process had.
"""

from __future__ import annotations

import argparse
import resource
import time

import keras
import numpy as np
import scipy.fft
from rich.console import Console
from rich.table import Table

import kerasfold
from kerasfold.algebra.product import Array


def composed(first: Array, last: Array) -> Array:
    """The kernel of `last` after `first`, of strides of 1, in two dimensions."""
    taps = [m + n - 1 for m, n in zip(first.shape[:2], last.shape[:2], strict=True)]
    one, other = (scipy.fft.rfftn(kernel, taps, (0, 1)) for kernel in (first, last))
    return scipy.fft.irfftn(one @ other, taps, (0, 1))


def strided(first: Array, last: Array, strides: tuple[int, ...]) -> Array:
    """The kernel of `last` after `first`, a tap of `last` at a time."""
    sizes = zip(first.shape, last.shape, strides, strict=False)
    kernel = np.zeros((*(k + s * (n - 1) for k, n, s in sizes), first.shape[-2], last.shape[-1]))
    for at in np.ndindex(last.shape[:-2]):
        starts = [s * v for s, v in zip(strides, at, strict=True)]
        window = tuple(slice(n, n + k) for n, k in zip(starts, first.shape, strict=False))
        kernel[window] += first @ last[at]
    return kernel


def error(found: Array, true: Array) -> float:
    """Relative, in the Frobenius norm."""
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def drawn(rng: np.random.Generator) -> tuple[float, float]:
    """Error and condition of one division, of at least as many equations as unknowns a pixel."""
    rank = int(rng.integers(1, 4))
    strides = tuple(int(s) for s in rng.integers(1, 4, rank))
    inner, inputs, outputs = rng.integers(1, 9, 3)
    by_first = bool(rng.integers(2))
    inputs, outputs = (max(inputs, inner), outputs) if by_first else (inputs, max(outputs, inner))
    first = rng.normal(size=(*rng.integers(1, 8, rank), inputs, inner))
    last = rng.normal(size=(*rng.integers(1, 8, rank), inner, outputs))
    given = {"first": first} if by_first else {"last": last}
    result = kerasfold.deconvolve(strided(first, last, strides), **given, strides=strides)
    return error(result.kernel, last if by_first else first), result.condition


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, default=64, help="of the large kernels")
    parser.add_argument("--cases", type=int, default=1000, help="small kernels drawn at random")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    channels = (arguments.channels,) * 2
    table = Table("divisor", "error", "condition", "seconds", "GiB")
    first = rng.normal(size=(63, 63, *channels))
    pool = np.ones((16, 16, 1, 1)) * np.eye(arguments.channels) / 256
    dense = rng.normal(size=(16, 16, *channels))
    for name, last, given in (
        ("AveragePooling2D(16)", pool, keras.layers.AveragePooling2D(16)),
        ("a kernel of 16x16", dense, dense),
    ):
        kernel = composed(first, last)
        start = time.perf_counter()
        result = kerasfold.deconvolve(kernel, last=given)
        seconds = time.perf_counter() - start
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        row = (error(result.kernel, first), result.condition)
        table.add_row(name, *(f"{n:.1e}" for n in row), f"{seconds:.1f}", f"{most:.1f}")
    start = time.perf_counter()
    cases = np.array([drawn(rng) for _ in range(arguments.cases)])
    seconds = time.perf_counter() - start
    worst = (f"{n:.1e}" for n in np.max(cases, axis=0))
    table.add_row(f"the worst of {arguments.cases} drawn", *worst, f"{seconds:.1f}", "")
    Console().print(table)


if __name__ == "__main__":
    main()

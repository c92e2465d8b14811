"""How fast weights are composed, against NumPy's own product of two matrices, in float64.

    python benchmarks/compose.py --pairs 7

Counted are the operations of the order that needs the fewest: of kernels of `k_a` and `k_b`
taps, dense from `i` channels to `m` and to `o`, two for each of `k_a k_b i m o`, and none where
a depthwise factor only scales the other. Each chain and the product of two 2048x2048 matrices
are timed in turns; medians, and of the ratio of rates the median over pairs with its 95 %
interval.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from rich.console import Console
from rich.table import Table

from kerasfold.algebra.axis import Axis
from kerasfold.algebra.chain import chain, product_cost
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.measure.timing import ratio

SIDE = 2048  # of the matrices
IMAGE = 224

Link = Callable[[int, int], Geometry]  # from image size and channels


def conv(taps: int, outputs: int, dilation: int = 1) -> Link:
    """A convolution with a bias."""
    return lambda size, channels: Geometry(
        (Axis(size, taps, dilation=dilation).tight(),) * 2, (channels, outputs), biased=True
    )


def depthwise(taps: int, stride: int = 1) -> Link:
    """One kernel for each channel, as of an average pooling."""
    return lambda size, channels: Geometry(
        (Axis(size, taps, stride).tight(),) * 2, (channels, channels), channels
    )


def four_poolings(channels: int) -> list[Link]:
    """The seed that is one convolution of 78x78, stride 16 (examples/seeds.py)."""
    return [*[conv(3, channels), depthwise(2, 2)] * 4, conv(3, channels)]


CHAINS: dict[str, tuple[int, list[Link]]] = {
    "three 7x7, 256 channels": (256, [conv(7, 256)] * 3),
    "four poolings, 64 channels": (64, four_poolings(64)),
    "four poolings, 3 to 64": (3, four_poolings(64)),
    "1x1, 3x3, 1x1 in 512 channels": (128, [conv(1, 512), conv(3, 512), conv(1, 128)]),
    "depthwise 3x3, 1x1, twice, 256": (256, [depthwise(3), conv(1, 256)] * 2),
    "3x3 dilated by 1, 2, 4, 128": (128, [conv(3, 128, dilation=d) for d in (1, 2, 4)]),
}


def geometries(channels: int, links: Sequence[Link]) -> list[Geometry]:
    """The links, one after another."""
    made: list[Geometry] = []
    for link in links:
        size = made[-1].axes[0].out if made else IMAGE
        assert size is not None
        made.append(link(size, made[-1].channels[1] if made else channels))
    return made


def operations(links: Sequence[Geometry]) -> int:
    """Additions and multiplications of the order that needs fewest, scaling not counted."""

    @cache
    def best(first: int, last: int) -> tuple[int, Geometry]:
        if last - first == 1:
            return 0, links[first]
        ways = []
        for middle in range(first + 1, last):
            (cost_a, a), (cost_b, b) = best(first, middle), best(middle, last)
            scales = a.channels[1] == max(a.groups, b.groups)
            own = 0 if scales else 2 * product_cost(b, a)
            ways.append((cost_a + cost_b + own, a, b))
        cost, a, b = min(ways, key=lambda way: way[0])
        return cost, b @ a

    return best(0, len(links))[0]


def random_operator(geometry: Geometry, rng: np.random.Generator) -> Operator:
    """An operator with random weights."""
    bias = rng.standard_normal(geometry.channels[1]) * geometry.biased
    return Operator(geometry, rng.standard_normal(geometry.kernel_shape), bias)


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(argv: list[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--only", help="chains whose name contains this")
    args = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, SIDE, SIDE))
    table = Table(title="float64 GFLOP/s")
    table.add_column("chain", no_wrap=True)
    for column in ("kernel", "GFLOP", "composed", "matrices", "ratio", "95 %"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, (channels, links) in CHAINS.items():
        if args.only and args.only not in name:
            continue
        operators = [random_operator(g, rng) for g in geometries(channels, links)]
        flops = operations([operator.geometry for operator in operators])
        calls = (lambda: left @ right, lambda operators=operators: chain(operators))
        taps = calls[1]().geometry.taps
        calls[0]()
        times = np.empty((args.pairs, 2))
        for pair in range(args.pairs):
            for side in ((0, 1), (1, 0))[pair % 2]:
                times[pair, side] = seconds(calls[side])
        rates = np.array([2 * SIDE**3, flops]) / times / 1e9
        relative = ratio(rates[:, 1], rates[:, 0])
        table.add_row(
            name,
            "x".join(map(str, taps)),
            f"{flops / 1e9:.2f}",
            f"{np.median(rates[:, 1]):.0f}",
            f"{np.median(rates[:, 0]):.0f}",
            f"{relative.median:.2f}",
            f"{relative.low:.2f} to {relative.high:.2f}",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    main()

"""Options that several benchmarks take."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from kerasfold.measure.runtimes import RUNTIMES, check_runtime


def add_runtimes(parser: argparse.ArgumentParser) -> None:
    """Add `--runtimes`; all of them by default."""
    parser.add_argument(
        "--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES), metavar="RUNTIME"
    )


def require_runtimes(parser: argparse.ArgumentParser, runtimes: Iterable[str]) -> None:
    """End with the parser's message where a runtime is not installed."""
    try:
        for runtime in runtimes:
            check_runtime(runtime)
    except ValueError as error:  # as every `FoldError` is
        parser.error(str(error))

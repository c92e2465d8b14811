"""`kerasfold fold`: write the folded model, and print what was merged."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Literal

from kerasfold.commands.arguments import HERE, add_objective, add_runtime, seconds, start
from kerasfold.commands.output import CODES, DONE, show
from kerasfold.cost import OBJECTIVES
from kerasfold.errors import UnusableError
from kerasfold.files import check_input, checked_output, load, save
from kerasfold.pipeline import fold

MEASURED = "measured"  # an objective of fold alone: to measure is to build
BUDGET = 60.0  # seconds


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's commands."""
    command: argparse.ArgumentParser = commands.add_parser(
        "fold", help="write the folded model and print what was merged"
    )
    command.add_argument("input", metavar="IN", help="model to fold (.keras, .h5, .hdf5)")
    command.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help="where to write it (.keras, .h5, .hdf5)",
    )
    add_objective(command, tuple(OBJECTIVES))
    add_runtime(command, f"with --objective {MEASURED}: where to measure ({HERE})")
    command.add_argument(
        "--budget",
        type=seconds,
        metavar="SECONDS",
        help=f"with --objective {MEASURED}: how long to measure ({BUDGET:g})",
    )
    command.add_argument("--strict", action="store_true", help="refuse a model that is not linear")
    command.add_argument("--no-verify", action="store_true", help="write without comparing first")
    command.set_defaults(run=run)
    return command


def run(args: argparse.Namespace) -> int:
    """Run the command; its exit code."""
    measured = _measured(args)
    check_input(args.input)
    target = checked_output(args.output)
    custom = start(args.modules)
    model = load(args.input, custom)
    nonlinear: Literal["keep", "error"] = "error" if args.strict else "keep"
    folded: Any = fold(model, args.objective, nonlinear, not args.no_verify, **measured)
    save(folded, target, custom)
    found = folded.fold_report.equivalence
    show(folded.fold_report, args.json)
    return DONE if found is None else CODES[found.verdict]


def _measured(args: argparse.Namespace) -> dict[str, Any]:
    """What `fold` is told where it measures."""
    if OBJECTIVES[args.objective].is_timed:
        return {
            "runtime": args.runtime or HERE,
            "budget": args.budget or BUDGET,
            "progress": sys.stderr.isatty(),
        }
    for option in ("runtime", "budget"):
        if getattr(args, option) is not None:
            raise UnusableError(
                f"argument --{option}: only with --objective {MEASURED} (see kerasfold fold --help)"
            )
    return {}

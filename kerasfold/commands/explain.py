"""`kerasfold explain`: print what fold would merge, and draw it."""

from __future__ import annotations

import argparse
from typing import Any

from kerasfold.commands.arguments import add_objective, start
from kerasfold.commands.output import DONE, show
from kerasfold.cost import UNTIMED
from kerasfold.files import check_input, checked_output, load
from kerasfold.pipeline import explain
from kerasfold.plots.figure import FORMATS, require_matplotlib


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's commands."""
    command: argparse.ArgumentParser = commands.add_parser(
        "explain", help="print what fold would merge; build nothing"
    )
    command.add_argument("input", metavar="IN", help="model to read (.keras, .h5, .hdf5)")
    add_objective(command, UNTIMED)
    command.add_argument(
        "--plot",
        metavar="FILE",
        help="draw what becomes of the graph, and the kernel of its widest linear part "
        f"({', '.join(FORMATS)}; with the extra 'plot')",
    )
    command.set_defaults(run=run)
    return command


def run(args: argparse.Namespace) -> int:
    """Run the command; its exit code."""
    check_input(args.input)
    if args.plot is not None:
        checked_output(args.plot, FORMATS)
        require_matplotlib()
    custom = start(args.modules)
    report = explain(load(args.input, custom), args.objective)
    if args.plot is not None:
        report.plot(args.plot)
    show(report, args.json)
    return DONE

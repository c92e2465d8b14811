"""`kerasfold explain`: print what fold would merge, and draw it."""

from __future__ import annotations

import argparse

from kerasfold.commands.modules import imported
from kerasfold.commands.output import DONE, show_fold
from kerasfold.files import load
from kerasfold.pipeline import explain
from kerasfold.plots.figure import require_matplotlib
from kerasfold.stages import at


def run(args: argparse.Namespace) -> int:
    """Run the command; its exit code."""
    if args.plot is not None:
        require_matplotlib()
    at("loading the model")
    model = load(args.input, imported(args.modules))
    report = explain(
        model,
        args.objective,
        exact_numbers=args.exact_numbers,
        keep_channels=args.keep_channels,
        runtime=args.runtime,
        batch_size=args.batch_size,
    )
    if args.plot is not None:
        at("drawing")
        report.plot(args.plot)
    show_fold(report, args)
    return DONE

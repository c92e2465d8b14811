"""`kerasfold fold`: write the folded model, and print what was merged."""

from __future__ import annotations

import argparse
from typing import Any

from kerasfold.choices import NonlinearName
from kerasfold.commands.data import given
from kerasfold.commands.modules import imported
from kerasfold.commands.output import CODES, DONE, show_fold
from kerasfold.commands.parser import BUDGET, MEASURED
from kerasfold.files import load
from kerasfold.keeping import keep
from kerasfold.pipeline import COMPARING, fold
from kerasfold.stages import at


def run(args: argparse.Namespace) -> int:
    """Run the command; its exit code."""
    custom = imported(args.modules)
    at("loading the model")
    model = load(args.input, custom)
    nonlinear: NonlinearName = "error" if args.strict else "keep"
    told = {**_told(args), **given(args, model, COMPARING)}
    folded: Any = fold(model, args.objective, nonlinear, not args.no_verify, **told)
    at("writing")
    report = keep(folded, args.target, custom, args.input, args.output)
    found = report.equivalence
    show_fold(report, args)
    return DONE if found is None else CODES[found.verdict]


def _told(args: argparse.Namespace) -> dict[str, Any]:
    """What `fold` is told of numbers, of where the model will run, and of how to measure."""
    budget = (args.budget or BUDGET) if args.objective == MEASURED else None
    told = {"runtime": args.runtime, "batch_size": args.batch_size, "budget": budget}
    told["exact_numbers"] = args.exact_numbers or None
    told["keep_channels"] = args.keep_channels or None
    return {name: value for name, value in told.items() if value is not None}

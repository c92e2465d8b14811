"""`kerasfold report`: print the report that stands in a file."""

from __future__ import annotations

import argparse

from kerasfold.commands.output import DONE, show_fold
from kerasfold.reports.archive import report_in


def run(args: argparse.Namespace) -> int:
    """Run the command; its exit code."""
    show_fold(report_in(args.input), args)
    return DONE

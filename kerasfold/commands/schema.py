"""`kerasfold schema`: print the JSON Schema of a report."""

from __future__ import annotations

import argparse

from kerasfold.commands.output import DONE, say_json
from kerasfold.reports.stored import schema
from kerasfold.reports.views import FoldReport


def run(args: argparse.Namespace) -> int:
    """Run the command; its exit code."""
    say_json(schema(FoldReport))
    return DONE

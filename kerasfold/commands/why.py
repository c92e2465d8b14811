"""`kerasfold why`: explain the code of a reason."""

from __future__ import annotations

import argparse

from kerasfold.commands.output import DONE, say
from kerasfold.reasons import BY_CODE, listed


def run(args: argparse.Namespace) -> int:
    """Run the command; its exit code."""
    say(listed() if args.code is None else str(BY_CODE[args.code.upper()]))
    return DONE

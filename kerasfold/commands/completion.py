"""`kerasfold completion`: print a script that completes commands, options and names in a shell."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from kerasfold.commands.output import DONE, say_as_it_is
from kerasfold.commands.parser import parser
from kerasfold.errors import UnusableError


def run(args: argparse.Namespace) -> int:
    """Run the command; its exit code."""
    try:
        shtab: Any = importlib.import_module("shtab")
    except ImportError as error:
        raise UnusableError(
            "scripts for shells are made by shtab, which is not installed: "
            "pip install 'kerasfold[completion]'"
        ) from error
    if args.shell not in shtab.SUPPORTED_SHELLS:
        raise UnusableError(f"the shtab that is installed makes no script for {args.shell}")
    say_as_it_is(shtab.complete(parser(), args.shell))
    return DONE

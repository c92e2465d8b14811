"""`kerasfold verify`: compare two stored models."""

from __future__ import annotations

import argparse
from typing import Any

from kerasfold.commands.arguments import add_pair, start
from kerasfold.commands.output import DIFFERENT, DONE, show
from kerasfold.equivalence.models import verify
from kerasfold.files import check_file, check_input, load, read_data


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's commands."""
    command: argparse.ArgumentParser = commands.add_parser(
        "verify", help="compare two stored models"
    )
    add_pair(command)
    command.add_argument(
        "--data",
        metavar="X.npz",
        help="inputs in place of random ones: one array, or arrays named as the inputs",
    )
    command.set_defaults(run=run)
    return command


def run(args: argparse.Namespace) -> int:
    """Run the command; its exit code."""
    check_input(args.a)
    check_input(args.b)
    if args.data is not None:
        check_file(args.data, (".npz",))
    custom = start(args.modules)
    a, b = load(args.a, custom), load(args.b, custom)
    report = verify(a, b, None if args.data is None else read_data(args.data, a))
    show(report, args.json)
    return DONE if report.equivalent else DIFFERENT

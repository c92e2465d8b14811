"""`kerasfold verify`: compare two stored models."""

from __future__ import annotations

import argparse
from typing import Any

from kerasfold.commands.arguments import add_pair, start
from kerasfold.commands.output import DIFFERENT, DONE, show
from kerasfold.commands.progress import watched
from kerasfold.equivalence.models import verify
from kerasfold.equivalence.stored import check_data, read_data
from kerasfold.errors import UnusableError
from kerasfold.files import check_input, load


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's commands."""
    command: argparse.ArgumentParser = commands.add_parser(
        "verify", help="compare two stored models"
    )
    add_pair(command)
    command.add_argument(
        "--data",
        metavar="PATH",
        help="inputs in place of random ones: an .npy file; an .npz file of one array or of arrays "
        "named as the inputs; a folder of images (values from 0 to 255), with a folder for each "
        "class",
    )
    command.add_argument(
        "--labels",
        metavar="NAME",
        help="array of the .npz file that holds the labels ('y' or 'labels', if there is one)",
    )
    command.set_defaults(run=run)
    return command


def run(args: argparse.Namespace) -> int:
    """Run the command; its exit code."""
    check_input(args.a)
    check_input(args.b)
    if args.data is not None:
        check_data(args.data, args.labels)
    elif args.labels is not None:
        raise UnusableError("argument --labels: only with --data (see kerasfold verify --help)")
    custom = start(args.modules)
    a, b = load(args.a, custom), load(args.b, custom)
    data = None if args.data is None else watched(read_data(args.data, a, args.labels))
    report = verify(a, b, data)
    show(report, args.json)
    return DONE if report.equivalent else DIFFERENT

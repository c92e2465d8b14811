"""`kerasfold verify`: compare two stored models."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from kerasfold.commands.arguments import add_pair, amount, shape, start
from kerasfold.commands.output import CODES, show
from kerasfold.commands.progress import watched
from kerasfold.equivalence.formats import FOLDER, KINDS, kind_of
from kerasfold.equivalence.models import verify
from kerasfold.equivalence.report import EquivalenceReport
from kerasfold.equivalence.stored import NPZ, check_data, dump, read_data
from kerasfold.errors import UnusableError
from kerasfold.files import HDF5, KERAS, check_file, check_input, checked_output, load
from kerasfold.html import page
from kerasfold.junit import junit
from kerasfold.replacing import replacing


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's commands."""
    command: argparse.ArgumentParser = commands.add_parser(
        "verify",
        help="compare two stored models, or one with what was deployed of it",
        epilog="exit codes: 0 equivalent; 1 different; 2 unusable input or arguments; "
        "3 inconclusive: nothing was shown, for the reason that is printed",
    )
    add_pair(command, "the same, or a .tflite, .onnx or OpenVINO .xml file, or a SavedModel")
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
    command.add_argument(
        "--input-shape",
        type=shape,
        action="append",
        metavar="N,...",
        help="of one input, without the batch, where sizes are free; once for each input",
    )
    command.add_argument(
        "--atol", type=amount, metavar="X", help="error allowed, in place of measured bounds"
    )
    command.add_argument(
        "--rtol", type=amount, metavar="X", help="error allowed as a share of the value"
    )
    command.add_argument(
        "--loose-signature",
        action="store_true",
        help="names, dtypes, keys or a fixed batch that would break callers of A are no failure",
    )
    for option, metavar, what in (
        ("--junit", "FILE.xml", "write the report as JUnit XML"),
        ("--html", "FILE.html", "write the report as a page"),
        ("--dump", "X.npz", "write the inputs that show a difference, for --data"),
    ):
        command.add_argument(option, metavar=metavar, help=what)
    command.set_defaults(run=run)
    return command


def run(args: argparse.Namespace) -> int:
    """Run the command; its exit code."""
    check_input(args.a)
    if kind_of(args.b) is not FOLDER:
        check_file(args.b, (*KERAS, *HDF5, *KINDS))
    if args.data is not None:
        check_data(args.data, args.labels)
    elif args.labels is not None:
        raise UnusableError("argument --labels: only with --data (see kerasfold verify --help)")
    for name, extension in ((args.junit, ".xml"), (args.html, ".html"), (args.dump, *NPZ)):
        if name is not None:
            checked_output(name, (extension,))
    custom = start(args.modules)
    a = load(args.a, custom)
    b = load(args.b, custom) if kind_of(args.b) is None else args.b
    data = None
    if args.data is not None:
        data = watched(read_data(args.data, a, args.labels, args.input_shape))
    report = verify(
        a,
        b,
        data,
        args.input_shape,
        strict_signature=not args.loose_signature,
        atol=args.atol,
        rtol=args.rtol,
    )
    _write(args, report)
    show(report, args.json)
    return CODES[report.verdict]


def _write(args: argparse.Namespace, report: EquivalenceReport) -> None:
    """The files that were asked for, each whole or not at all."""
    title = f"{Path(args.a).name} against {Path(args.b).name}"
    if args.junit is not None:
        _put(args.junit, junit(report, title))
    if args.html is not None:
        _put(args.html, page(report, title).encode())
    if args.dump is not None and report.shown:
        dump(report.shown, checked_output(args.dump, NPZ))
    elif args.dump is not None:
        print(f"kerasfold: no inputs show a difference: {args.dump} not written", file=sys.stderr)


def _put(name: str, content: bytes) -> None:
    with replacing(checked_output(name, (Path(name).suffix,))) as written:
        written.write_bytes(content)

"""Kinds of arguments, and those that several commands take."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from kerasfold.choices import RuntimeName
from kerasfold.errors import UnusableError
from kerasfold.paths import check_data, checked_output

RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)
HERE = RUNTIMES[0]  # the runtime where none is named
MODEL = "(.keras, .h5, .hdf5)"


def add_objective(
    command: argparse.ArgumentParser,
    choices: Sequence[str],
    judged: Callable[[str], str] = str,
) -> None:
    """What to minimise; the first by default. `judged` says why one is none of the choices."""
    command.add_argument(
        "--objective",
        type=judged,
        choices=choices,
        default=choices[0],
        help=f"what to minimise ({choices[0]})",
    )


def add_exact_numbers(command: argparse.ArgumentParser) -> None:
    """Whether what is a product as stored alone stays."""
    command.add_argument(
        "--exact-numbers",
        action="store_true",
        help="take no kernel for a product that it is to one unit in the last place alone",
    )


def add_keep_channels(command: argparse.ArgumentParser) -> None:
    """Whether channels stay that nobody reads, or that are constant."""
    command.add_argument(
        "--keep-channels",
        action="store_true",
        help="keep channels that are not read, or constant",
    )


def add_runtime(command: argparse.ArgumentParser, what: str) -> None:
    """A runtime, and what it is for."""
    command.add_argument("--runtime", choices=RUNTIMES, help=what)


def add_target(command: argparse.ArgumentParser) -> None:
    """Where a fold will run."""
    add_runtime(command, "where the fold will run (whatever suits TensorFlow graphs and XLA)")
    command.add_argument(
        "--batch", dest="batch_size", type=positive, metavar="N", help="images at once there (1)"
    )


def add_pair(command: argparse.ArgumentParser, second: str) -> None:
    """Two models, and what the second may be."""
    command.add_argument("a", metavar="A", help=f"the reference {MODEL}")
    command.add_argument("b", metavar="B", help=second)


def add_modules(command: argparse.ArgumentParser) -> None:
    """Modules of the user's."""
    command.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="module that defines layers of the model, or lift rules; may be repeated",
    )


def add_loudness(command: argparse.ArgumentParser) -> None:
    """How much is said."""
    how = command.add_mutually_exclusive_group()
    how.add_argument("-q", "--quiet", action="store_true", help="say nothing of what is going on")
    how.add_argument("-v", "--verbose", action="store_true", help="say all")


def add_data(command: argparse.ArgumentParser) -> None:
    """What to compare two models on, or at which sizes."""
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


def check_given(args: argparse.Namespace) -> None:
    """Refuse data that cannot be read, or that has sizes already. Raises `UnusableError`."""
    if args.data is not None:
        check_data(args.data, args.labels)
        if args.input_shape is not None and not Path(args.data).is_dir():
            raise UnusableError(
                "argument --input-shape: for random inputs and for images, not with the arrays of "
                f"{args.data} (see kerasfold {args.command} --help)"
            )
    elif args.labels is not None:
        raise UnusableError(
            f"argument --labels: only with --data (see kerasfold {args.command} --help)"
        )


VIEWS = {
    "html": "write the report as a page, with the graph before and after",
    "dot": "write the graphs for Graphviz",
    "svg": "write the graphs as a picture",
}


def add_views(command: argparse.ArgumentParser) -> None:
    """Files that show the report of a fold."""
    for view, what in VIEWS.items():
        command.add_argument(f"--{view}", metavar=f"FILE.{view}", help=what)


def check_views(args: argparse.Namespace) -> None:
    """Refuse files that they cannot go to. Raises `UnusableError`."""
    for view in VIEWS:
        if (name := getattr(args, view)) is not None:
            checked_output(name, (f".{view}",))


def positive(text: str) -> int:
    """A whole number from 1 up."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up. Received: {text!r}")
    return number


def seconds(text: str) -> float:
    """A number above 0."""
    number = _number(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0. Received: {text!r}")
    return number


def amount(text: str) -> float:
    """A finite number, 0 or more."""
    number = _number(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number, 0 or more. Received: {text!r}")
    return number


def shape(text: str) -> tuple[int, ...]:
    """Whole numbers from 1 up, with commas between them."""
    return tuple(positive(part.strip()) for part in text.split(","))


def _number(text: str) -> float:
    """What a text says, NaN where that is no number."""
    try:
        return float(text)
    except ValueError:
        return math.nan

"""What a command gives: text, JSON, and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from kerasfold.errors import FoldError, UnusableError, words_of
from kerasfold.legible import legible
from kerasfold.paths import checked_output
from kerasfold.replacing import replacing
from kerasfold.stages import at

if TYPE_CHECKING:
    from kerasfold.reports.views import FoldReport

DONE, DIFFERENT, UNUSABLE, INCONCLUSIVE = 0, 1, 2, 3
CODES = {"equivalent": DONE, "different": DIFFERENT, "inconclusive": INCONCLUSIVE}  # of verdicts

GREEN, RED, YELLOW = 32, 31, 33
VERDICTS = {"equivalent": GREEN, "NOT equivalent": RED, "inconclusive": YELLOW}  # and their colours
ASCII = {  # for signs that we say, where an encoding lacks them; box drawing first
    **dict.fromkeys(range(0x2500, 0x2580), "+"),
    **{ord(sign): "-" for sign in "\u2500\u2501\u2550\u2574\u2576\u2578\u257a\u2013\u2014"},
    **{ord(sign): "|" for sign in "\u2502\u2503\u2551\u2575\u2577\u2579\u257b"},
    **{ord("\u00d7"): "x", ord("\u00b7"): "*", ord("\u00b1"): "+-", ord("\u2026"): "..."},
    **{ord("\u2190"): "<-", ord("\u2192"): "->", ord("\u2264"): "<=", ord("\u2265"): ">="},
}


def show(report: Any, args: argparse.Namespace) -> None:
    """Print a report as text, in full or its first line, or as JSON."""
    if args.json:
        say_json(report.to_dict())
        return
    text = str(report)
    say(text.split("\n")[0] if args.quiet else text)


def show_fold(report: FoldReport, args: argparse.Namespace) -> None:
    """Print the report of a fold, as a command was asked to, and write its pages and pictures."""
    for option, view in (("html", report.html), ("dot", report.dot), ("svg", report.svg)):
        name = getattr(args, option)
        if name is not None:
            with replacing(checked_output(name, (f".{option}",))) as written:
                written.write_text(view(), encoding="utf-8")
    if args.json:
        say_json(report.to_dict())
    elif args.quiet:
        say(report.headline)
    else:
        say(report.text(width(), args.verbose))


@contextlib.contextmanager
def junit_told(args: argparse.Namespace) -> Iterator[None]:
    """Write what goes wrong meanwhile to the file of `--junit`, which may be of an earlier run."""
    try:
        yield
    except Exception as problem:
        if args.junit is not None:
            from kerasfold.junit import failed  # which takes its time, and is not needed before

            said = str(problem) if isinstance(problem, FoldError) else words_of(problem)
            with contextlib.suppress(FoldError, OSError):
                put(args.junit, failed(said, title_of(args)))
        raise


def title_of(args: argparse.Namespace) -> str:
    """What `verify` compares, in words."""
    return f"{Path(args.a).name} against {Path(args.b).name}"


def put(name: str, content: bytes) -> None:
    """Write a file that was asked for, whole or not at all."""
    with replacing(checked_output(name, (Path(name).suffix,))) as written:
        written.write_bytes(content)


def say_json(value: Any) -> None:
    """Print plain values as JSON."""
    say_as_it_is(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    """The same with null for infinities and NaN, which JSON has not."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def say(text: str) -> None:
    """Print a text, in lines as wide as the terminal, and what that can say of it, in colour."""
    columns = width()
    lines = text.split("\n") if columns is None else list(_wrapped(text, columns))
    say_as_it_is("\n".join(map(_coloured, lines) if has_colour(sys.stdout) else lines))


def width() -> int | None:
    """Columns of what is printed to; None where nothing limits them."""
    set_by_user = os.environ.get("COLUMNS", "").isdigit()
    return shutil.get_terminal_size().columns if set_by_user or is_terminal(sys.stdout) else None


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal that understands more than lines."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colour(stream: TextIO) -> bool:
    """Whether a stream is shown in colour: a terminal, where NO_COLOR is not set."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def in_colour(text: str, colour: int) -> str:
    """A text in a colour of the terminal's."""
    return f"\x1b[{colour}m{text}\x1b[0m"


def _coloured(line: str) -> str:
    """A line with the verdict that it begins with, if it does, in its colour."""
    begins = re.match(rf"\s*({'|'.join(VERDICTS)})\b", line)
    if begins is None:
        return line
    start, end = begins.span(1)
    return line[:start] + in_colour(begins[1], VERDICTS[begins[1]]) + line[end:]


def _wrapped(text: str, columns: int) -> Iterator[str]:
    """Lines of a text, those that are too long as several, the others further in."""
    for line in text.split("\n"):
        if len(line) <= columns:
            yield line
        else:
            indent = line[: len(line) - len(line.lstrip())] + "  "
            yield from textwrap.wrap(
                line, columns, subsequent_indent=indent, break_long_words=False
            )


def say_as_it_is(text: str) -> None:
    """Print a text, but for signs that the encoding of stdout lacks, once nothing else is shown."""
    at("")
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(ASCII).encode(encoding, "replace").decode(encoding)
    try:
        print(text, flush=True)
    except BrokenPipeError:  # nobody reads it, which is no fault
        raise
    except OSError as error:
        close_stdout()
        raise UnusableError(
            f"stdout cannot be written ({words_of(error)}): the result is not printed, but files "
            "that were asked for are written"
        ) from error


def close_stdout() -> None:
    """Throw away what is still to be printed, at which the interpreter would fail as it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(text: str) -> None:
    """Say something beside what a command gives: on stderr."""
    at("")
    print(f"kerasfold: {legible(text)}", file=sys.stderr)

"""`kerasfold verify`: compare two stored models."""

from __future__ import annotations

import argparse

from kerasfold.commands.data import given
from kerasfold.commands.modules import imported
from kerasfold.commands.output import CODES, junit_told, note, put, show, title_of
from kerasfold.equivalence.formats import kind_of
from kerasfold.equivalence.models import verify
from kerasfold.equivalence.report import EquivalenceReport
from kerasfold.equivalence.stored import dump
from kerasfold.files import load
from kerasfold.junit import junit
from kerasfold.paths import NPZ, checked_output
from kerasfold.reports.compared import page
from kerasfold.stages import at

COMPARING = "comparing"


def run(args: argparse.Namespace) -> int:
    """Run the command; its exit code."""
    with junit_told(args):
        report = _compared(args)
    _write(args, report)
    show(report, args)
    return CODES[report.verdict]


def _compared(args: argparse.Namespace) -> EquivalenceReport:
    custom = imported(args.modules)
    at("loading the models")
    a = load(args.a, custom)
    b = load(args.b, custom) if kind_of(args.b) is None else args.b
    at(COMPARING)
    return verify(
        a,
        b,
        strict_signature=not args.loose_signature,
        atol=args.atol,
        rtol=args.rtol,
        **given(args, a, COMPARING),
    )


def _write(args: argparse.Namespace, report: EquivalenceReport) -> None:
    """The files that were asked for, each whole or not at all."""
    title = title_of(args)
    if args.junit is not None:
        put(args.junit, junit(report, title))
    if args.html is not None:
        put(args.html, page(report, title).encode())
    if args.dump is not None and report.shown:
        dump(report.shown, checked_output(args.dump, NPZ))
    elif args.dump is not None:
        checked_output(args.dump, NPZ).unlink(missing_ok=True)  # of a difference that is no more
        note(f"no inputs show a difference: {args.dump} not written")

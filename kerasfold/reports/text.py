"""A report in words: what a person asks first, then calls that fare alike by groups."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from kerasfold.legible import legible
from kerasfold.reasons import BY_CODE
from kerasfold.reports import attempts
from kerasfold.reports.record import Kept, Merged, Pace, Record

FEW = 3  # kinds, or names, that are listed before the rest is counted
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
EXACT = 10_000  # numbers below are written out


class Group(NamedTuple):
    """Calls that fare alike.

    Attributes:
        size: how many merges, or kept calls.
        what: what they are, and become.
        why: the reason of those that are kept, or what they grew by, or "".
        code: of the reason, or "".
        names: of the layers that they give.
    """

    size: int
    what: str
    why: str
    code: str
    names: tuple[str, ...]


def headline(report: Record) -> str:
    """What was asked first, on one line."""
    said = [*map(_pace, [report.measured] if report.measured else [])]
    said += [] if said else [_predicted(report)]
    uncounted = len(report.uncounted)
    left_out = f" (without {_counted(uncounted, 'layer')} kept whole)" if uncounted else ""
    more = report.objective == "latency" and report.macs_after > report.macs_before
    bench = " (more, where that is predicted faster: kerasfold bench times it)" if more else ""
    said.append(f"MACs {_change(report.macs_before, report.macs_after)}{left_out}{bench}")
    beside = f" and {_counted(report.constants, 'constant')}" if report.constants else ""
    said.append(f"parameters {_change(report.params_before, report.params_after)}{beside}")
    layers = f"layers that compute {_change(report.layers_before, report.layers_after)}"
    if report.keras_layers_after is not None:
        layers += f" (in Keras {_change(report.keras_layers_before, report.keras_layers_after)})"
    said.append(layers)
    if report.files is not None:
        sizes = map(in_bytes, (report.files.bytes_before, report.files.bytes_after))
        training = report.files.training
        state = f" ({in_bytes(training)} of the first: its optimizer)" if training else ""
        said.append(f"file {' -> '.join(sizes)}{state}")
    said.append("not verified" if report.equivalence is None else report.equivalence.verdict)
    if report.files is not None:
        said.append(f"written to {report.files.written}")
    return legible(f"{report.model}: {'; '.join(said)}")


def _predicted(report: Record) -> str:
    what = "" if report.is_linear else "its linear part "
    gains = [(pace.runtime, pace.gain) for pace in report.predicted if pace.before]
    if not gains:
        return "nothing linear in it"
    if not any(pace.after for pace in report.predicted):
        return "nothing linear left in it"
    if all(0.995 <= gain < 1.005 for _, gain in gains):
        return f"{what}predicted as fast as before"
    return f"{what}predicted " + " and ".join(
        f"{gain:.2f} times as fast {_on(runtime)}" for runtime, gain in gains
    )


def predictions(report: Record) -> list[tuple[str, str]]:
    """How many times as fast, and of what that is predicted, for each runtime."""
    what = "as fast" if report.is_linear else "as fast, of its linear part,"
    return [
        (f"{pace.gain:.2f} x", f"{what} {_on(pace.runtime)}, as predicted")
        for pace in report.predicted
        if pace.before and pace.after
    ]


def _pace(pace: Pace) -> str:
    return (
        f"measured {pace.before:.3g} ms -> {pace.after:.3g} ms {_on(pace.runtime)} "
        f"({pace.gain:.2f} times as fast)"
    )


def _on(runtime: str) -> str:
    return f"{'under' if runtime == 'XLA' else 'on'} {runtime}"


def short(number: float) -> str:
    """A count, in three digits where it is large."""
    for size, unit in UNITS:
        if number >= max(size, EXACT):
            return f"{number / size:.3g} {unit}" if number / size < 999.5 else f"{number:.3g}"
    return f"{number:,.0f}"


def in_bytes(number: int) -> str:
    """A size."""
    said = short(number)
    return f"{said}B" if said[-1].isalpha() else f"{said} B"


def _change(before: float, after: float) -> str:
    return f"{short(before)} -> {short(after)}"


def _counted(count: int, what: str) -> str:
    return f"{short(count)} {what}{'' if count == 1 else 's'}"


def text(report: Record, verbose: bool, width: int | None) -> str:
    """See `FoldReport.text`."""
    lines = [headline(report), f"objective {report.aim}"]
    merged, kept, apart = (_each if verbose else _grouped)(report)
    for title, rows in (
        (f"merged ({_counted(len(report.merged), 'step')} now)", merged),
        (f"kept ({_counted(len(report.kept), 'call')})", kept),
        ("merged, and no further", apart),
    ):
        if rows:
            lines += ["", f"{title}:", *rows]
    names = list if verbose else few
    if report.tried:
        lines += ["", f"{attempts.title(report.tried)} (* taken):", *_tried(report, verbose)]
    lines += channels(report, verbose)
    for title, called in (
        ("removed, as nothing depends on them at inference", report.removed),
        ("computed once with what they equal", report.repeated),
        ("computed for the pixels that are read alone", report.narrowed),
        ("opened (the layers inside them are listed)", report.opened),
        ("MACs not counted, before or after, inside", report.uncounted),
        (
            "random in the original where it is called without training=False, as in model(x), "
            "and not in the folded model",
            report.random,
        ),
    ):
        if called:
            lines += ["", f"{title}: {', '.join(names(called))}"]
    if report.note:
        lines += ["", report.note]
    if report.equivalence is not None:
        said = str(report.equivalence).splitlines()
        lines += ["", *(said if verbose else said[:1])]
    codes = sorted({k.code for k in (*report.kept, *report.apart)})
    if codes:
        more = "" if verbose else "; kerasfold report FILE -v, or .text(verbose=True), lists all"
        lines += ["", f"kerasfold why {codes[0]} explains a reason{more}"]
    lines = list(map(legible, lines))
    if width is None:
        return "\n".join(lines)
    return "\n".join(part for line in lines for part in _wrapped(line, width))


def _tried(report: Record, verbose: bool) -> Iterator[str]:
    """The parts that were timed, the ways of each under it."""
    found = attempts.parts(report.tried)
    shown = found if verbose else found[:FEW]
    for part in shown:
        alike = f", and {_counted(part.alike, 'part')} like it" if part.alike else ""
        yield f"  {' + '.join(part.names if verbose else few(part.names))}{alike}:"
        for attempt in part.attempts:
            sign = "*" if attempt.taken else " "
            yield f"    {sign} {attempts.milliseconds(attempt):>9}  {attempts.words(attempt)}"
        if not part.attempts:
            yield "      planned for latency: no time was left"
    if len(shown) < len(found):
        yield f"  and {_counted(len(found) - len(shown), 'part')} more"


def channels(report: Record, verbose: bool) -> list[str]:
    """The channels that are gone, and constant ones that stay, in words."""
    if not report.channels:
        return []
    had, unread, constant = (
        sum(getattr(each, name) for each in report.channels)
        for name in ("count", "unread", "constant")
    )
    lines = []
    if unread + constant:
        said = f"{unread:,} that nobody reads, {constant:,} constant"
        lines += ["", f"channels that are gone: {unread + constant:,} of {had:,} ({said})"]
    staying = [each for each in report.channels if each.staying]
    if staying:
        count = sum(each.staying for each in staying)
        reasons = list(dict.fromkeys(each.reason for each in staying))
        lines += ["", f"constant channels that stay: {count:,} ({'; '.join(few(reasons))})"]
    each_line = (
        f"  {each.layer}: {each.gone} of {each.count} gone"
        + (f", {each.staying} stay: {each.reason}" if each.staying else "")
        for each in report.channels
    )
    return [*lines, *(each_line if verbose else ())]


def _wrapped(line: str, width: int) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    wrapped = textwrap.wrap(
        line,
        max(width, 40),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )
    return wrapped or [""]


def few(names: Sequence[str]) -> list[str]:
    """The first of them, and how many there are besides."""
    if len(names) <= FEW + 1:
        return list(names)
    return [*names[:FEW], f"and {len(names) - FEW} more"]


def _grouped(report: Record) -> tuple[list[str], list[str], list[str]]:
    return (
        [_line(group) for group in merges(report.merged)],
        [_line(group) for group in keeps(report.kept)],
        [_line(group) for group in keeps(report.apart)],
    )


def _line(group: Group) -> str:
    names = f" ({', '.join(group.names)})" if len(group.names) <= FEW else ""
    why = f": {group.why}" if group.why else ""
    code = f" [{group.code}]" if group.code else ""
    return f"  {group.size:>3} x {group.what}{names}{why}{code}"


def _each(report: Record) -> tuple[list[str], list[str], list[str]]:
    merged = [
        f"  {m.into}: {' + '.join(m.layers)} -> {m.kind}" + (f"; {m.grown}" if m.grown else "")
        for m in report.merged
    ]
    kept, apart = (
        [f"  {k.layer} ({k.kind}): {k.reason} [{k.code}]" for k in rows]
        for rows in (report.kept, report.apart)
    )
    return merged, kept, apart


def merges(merged: Iterable[Merged]) -> list[Group]:
    """Merges by the classes of what became one, those of most first."""
    groups: dict[str, list[Merged]] = {}
    for one in merged:
        groups.setdefault(run_length(one.kinds), []).append(one)
    found = []
    for what, ones in groups.items():
        kinds = list(dict.fromkeys(one.kind for one in ones))
        grown = next((one.grown for one in ones if one.grown), "")
        names = tuple(one.into for one in ones)
        found.append(Group(len(ones), f"{what} -> {_kinds(kinds)}", grown, "", names))
    return sorted(found, key=lambda group: -group.size)


def run_length(kinds: Iterable[str]) -> str:
    """Classes one after another, those that repeat counted."""
    runs = ((kind, len(list(run))) for kind, run in groupby(kinds))
    return " + ".join(kind if count == 1 else f"{count} {kind}" for kind, count in runs)


def _kinds(kinds: Sequence[str]) -> str:
    """Kinds, the class that all of them begin with said once."""
    head = re.match(r"(.* \+ )?\w+ ", kinds[0])
    if len(kinds) > 1 and head and all(kind.startswith(head[0]) for kind in kinds):
        return head[0] + " | ".join(few([kind[len(head[0]) :] for kind in kinds]))
    return " | ".join(few(kinds))


def keeps(kept: Iterable[Kept]) -> list[Group]:
    """Kept calls by their class and the code of their reason, those of most first."""
    groups: dict[tuple[str, str], list[Kept]] = {}
    for one in kept:
        groups.setdefault((one.kind.split(" ")[0], one.code), []).append(one)
    found = []
    for (kind, code), ones in groups.items():
        reasons = {one.reason for one in ones}
        why = reasons.pop() if len(reasons) == 1 else BY_CODE[code].title
        found.append(Group(len(ones), kind, why, code, tuple(one.layer for one in ones)))
    return sorted(found, key=lambda group: -group.size)

"""What a comparison found, as one page: no script, and nothing that is loaded from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from kerasfold.equivalence.agreement import AgreementReport
from kerasfold.equivalence.report import EquivalenceReport, OutputReport

_STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1c1e21; --soft: #62676e; --line: #e2e4e8; --page: #f6f7f9; --card: #fff;
  --equivalent: #14804a; --different: #c02b37; --inconclusive: #a46208;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e7e9ec; --soft: #9aa1aa; --line: #31353b; --page: #15171a; --card: #1d2024;
    --equivalent: #4cc38a; --different: #ff7b84; --inconclusive: #f0b35a;
  }
}
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.3rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: 2rem 0 .5rem; }
section, .verdict { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: 1rem 1.2rem; overflow-x: auto; }
.verdict { border-left: .35rem solid var(--colour); }
.verdict strong { color: var(--colour); font-size: 1.5rem; text-transform: uppercase;
  letter-spacing: .04em; }
.verdict p { margin: .4rem 0 0; overflow-wrap: anywhere; }
.equivalent { --colour: var(--equivalent); }
.different { --colour: var(--different); }
.inconclusive { --colour: var(--inconclusive); }
.soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: right; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; font-size: .85rem; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; min-width: 7rem; overflow-wrap: break-word; }
tr:last-child td { border-bottom: 0; }
.mark { color: var(--colour); font-weight: 600; }
.gauge { display: inline-block; width: 6rem; height: .5rem; border-radius: .25rem;
  background: var(--line); vertical-align: middle; }
.gauge i { display: block; height: 100%; border-radius: .25rem; background: var(--colour); }
summary { cursor: pointer; color: var(--soft); }
"""


def page(report: EquivalenceReport, title: str) -> str:
    """An HTML document.

    Args:
        report: of the comparison.
        title: what was compared.
    """
    parts = [_verdict(report), _outputs(report.outputs)]
    deployed = [out for out in report.outputs if out.absolute is not None]
    if deployed:
        parts.append(_percentiles(deployed))
    parts += [_agreement(out.agreement) for out in report.outputs if out.agreement is not None]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.verdict)}: {escape(title)}</title>\n<style>{_STYLE}</style>\n"
        f"</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n" + "\n".join(parts) + "\n"
        "</main>\n</body>\n</html>\n"
    )


def _verdict(report: EquivalenceReport) -> str:
    said = [report.reason, report.where and str(report.where), report.note]
    if report.unreached:
        said.append(
            f"No input reached {report.unreached:.2%} of the units of ReLUs and their like."
        )
    return (
        f'<div class="verdict {report.verdict}"><strong>{report.verdict}</strong>'
        + "".join(f"<p>{escape(text)}</p>" for text in said if text)
        + f'<p class="soft">{report.inputs} inputs, {escape(report.dtype)}, '
        f"{escape(report.device)}; largest difference {_number(report.max_abs_error)}, "
        f"{_number(report.max_rel_error)} of the spread</p></div>"
    )


def _outputs(outputs: Sequence[OutputReport]) -> str:
    tolerance = next((out.tolerance for out in outputs), None)
    head = (
        "output",
        "verdict",
        "largest difference",
        "at the border",
        "inside",
        "judged difference",
        "bound",
        "how close",
        "own error of A",
        "of B",
        "bound" if tolerance is None else f"allowed ({escape(str(tolerance))})",
    )
    rows = [
        (
            escape(out.name),
            f'<span class="mark {out.verdict}">{out.verdict}</span>',
            _number(out.max_abs_error),
            _number(out.max_border_error),
            _number(out.max_inside_error),
            _number(out.error),
            _number(out.bound),
            _gauge(out),
            _number(out.original_error),
            _number(out.folded_error),
            _number(out.accuracy_bound),
        )
        for out in outputs
    ]
    return _section("Outputs", _table(head, rows))


def _gauge(out: OutputReport) -> str:
    """The share of its bound that an error takes: an eighth of the bar is a factor of ten."""
    pairs = ((out.error, out.bound), (out.folded_error, out.accuracy_bound))
    share = max(1.0 if error > bound else error / (bound or 1.0) for error, bound in pairs)
    full = max(0.0, 100 + 12.5 * math.log10(share)) if share > 0 else 0.0
    return f'<span class="gauge {out.verdict}"><i style="width:{full:.0f}%"></i></span>'


def _percentiles(outputs: Iterable[OutputReport]) -> str:
    head = ("output", "errors of B", "half of them", "90 %", "99 %", "all")
    rows = [
        (escape(out.name), kind, *map(_number, (p.p50, p.p90, p.p99, p.largest)))
        for out in outputs
        for kind, p in (("absolute", out.absolute), ("relative", out.relative))
        if p is not None
    ]
    return _section("Errors are at most", _table(head, rows))


def _agreement(found: AgreementReport) -> str:
    summary = ((f"{found.inputs} inputs", *map(_share, (found.top1, found.top5))),)
    body = _table(("", "same top class", "among B's best five"), summary)
    if found.accuracy_a is not None:
        accuracy = (("accuracy", *map(_share, (found.accuracy_a, found.accuracy_b))),)
        body += _table(("", "of A", "of B"), accuracy)
        classes = [
            (
                str(one.label),
                str(one.inputs),
                *map(_share, (one.top1, one.accuracy_a, one.accuracy_b)),
            )
            for one in sorted(found.per_class, key=lambda one: one.top1)
        ]
        head = ("class", "inputs", "same top class", "named by A", "named by B")
        body += (
            f"<details><summary>{len(classes)} classes</summary>{_table(head, classes)}</details>"
        )
    return _section(f"Classes of {escape(found.output)}", body)


def _section(title: str, body: str) -> str:
    return f"<h2>{title}</h2>\n<section>{body}</section>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of what is HTML already."""
    cells = "".join(f"<th>{name}</th>" for name in head)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>\n<thead><tr>{cells}</tr></thead>\n<tbody>{body}</tbody>\n</table>"


def _number(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.2g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"

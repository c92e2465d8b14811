"""What a comparison found, as one page without a script."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from kerasfold.equivalence.agreement import AgreementReport
from kerasfold.equivalence.report import EquivalenceReport, OutputReport
from kerasfold.reports.markup import document, escape, section, table


def page(report: EquivalenceReport, title: str) -> str:
    """An HTML document.

    Args:
        report: of the comparison.
        title: what was compared.
    """
    return document(f"{report.verdict}: {title}", f"<h1>{escape(title)}</h1>", *comparison(report))


def comparison(report: EquivalenceReport) -> list[str]:
    """What a page says of a comparison, as sections."""
    parts = [_verdict(report), _outputs(report.outputs)]
    deployed = [out for out in report.outputs if out.absolute is not None]
    if deployed:
        parts.append(_percentiles(deployed))
    parts += [_agreement(out.agreement) for out in report.outputs if out.agreement is not None]
    return parts


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
        "A against float64",
        "B against float64",
        "bound" if tolerance is None else f"allowed ({escape(str(tolerance))})",
    )
    rows = [
        (
            escape(out.name) + (f" (into its {out.ending})" if out.ending else ""),
            f'<span class="mark {out.verdict}">{out.verdict}</span>',
            _number(out.max_abs_error),
            _number(out.max_border_error) if out.tells_border else "-",
            _number(out.max_inside_error) if out.tells_border else "-",
            _number(out.error),
            _number(out.bound),
            _gauge(out),
            _number(out.original_error),
            _number(out.folded_error),
            _number(out.accuracy_bound),
        )
        for out in outputs
    ]
    return section("Outputs", table(head, rows))


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
    return section("Errors are at most", table(head, rows))


def _agreement(found: AgreementReport) -> str:
    summary = ((f"{found.inputs} inputs", *map(_share, (found.top1, found.top5))),)
    body = table(("", "same top class", "among B's best five"), summary)
    if found.accuracy_a is not None:
        accuracy = (("accuracy", *map(_share, (found.accuracy_a, found.accuracy_b))),)
        body += table(("", "of A", "of B"), accuracy)
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
            f"<details><summary>{len(classes)} classes</summary>{table(head, classes)}</details>"
        )
    return section(f"Classes of {escape(found.output)}", body)


def _number(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.2g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"

"""What a comparison found, as JUnit XML: what CI servers show of a test run."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from kerasfold.equivalence.report import EquivalenceReport

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# How a verdict is spelled; 'equivalent' needs no element.
_ELEMENTS = {"different": "failure", "inconclusive": "error"}


def junit(report: EquivalenceReport, title: str) -> bytes:
    """One suite: a test for each output, one for the signature, and one for what is none of these.

    Args:
        report: of the comparison.
        title: what was compared.

    Returns:
        An XML document in UTF-8.
    """
    suite = ElementTree.Element("testsuite", name=_text(title))
    properties = ElementTree.SubElement(suite, "properties")
    for name in ("dtype", "device", "inputs"):
        value = _text(str(getattr(report, name)))
        ElementTree.SubElement(properties, "property", name=name, value=value)
    tests = [(f"output {out.name}", out.verdict, out.reason) for out in report.outputs]
    tests.append(
        (
            "signature",
            "different" if report.signature else "equivalent",
            "; ".join(report.signature),
        )
    )
    if all(verdict == "equivalent" for _, verdict, _ in tests) and not report.equivalent:
        tests.append(("comparison", report.verdict, report.reason))
    for name, verdict, reason in tests:
        test = ElementTree.SubElement(suite, "testcase", name=_text(name), classname=_text(title))
        if verdict in _ELEMENTS:
            message = _text(reason)
            found = ElementTree.SubElement(test, _ELEMENTS[verdict], type=verdict, message=message)
            found.text = _text(str(report))
    suite.set("tests", str(len(tests)))
    for count, element in (("failures", "failure"), ("errors", "error")):
        suite.set(count, str(len(suite.findall(f"testcase/{element}"))))
    return _written(suite)


def failed(message: str, title: str) -> bytes:
    """One suite of one test, which is an error: nothing was compared, for the reason given."""
    suite = ElementTree.Element("testsuite", name=_text(title), tests="1", failures="0", errors="1")
    test = ElementTree.SubElement(suite, "testcase", name="comparison", classname=_text(title))
    found = ElementTree.SubElement(test, "error", type="unusable", message=_text(message))
    found.text = _text(message)
    return _written(suite)


def _written(suite: ElementTree.Element) -> bytes:
    ElementTree.indent(suite)
    written: bytes = ElementTree.tostring(suite, "utf-8", xml_declaration=True)
    return written


def _text(text: str) -> str:
    """Without the characters that XML does not have."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)

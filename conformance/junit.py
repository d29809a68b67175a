"""A report as JUnit XML: what was declined or expected to fail is skipped, what went wrong fails."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree

from omniop.conformance.choices import KINDS
from omniop.conformance.record import Report
from omniop.conformance.verdict import Result, Status

_ELEMENT: Mapping[Status, str] = {
    **{"fail": "failure", "xpass": "failure", "crash": "error", "timeout": "error", "unavailable": "error"},
    **{"unsupported": "skipped", "unjudged": "skipped", "xfail": "skipped"},
}
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(report: Report) -> str:
    """One test suite a kind, one test case a case."""
    root = ElementTree.Element("testsuites", name=f"omniop conformance on {report.target}")
    for kind in KINDS:
        found = [result for result in report.results if result.kind == kind]
        if found:
            root.append(_suite(kind, found, report))
    ElementTree.indent(root)
    return ElementTree.tostring(root, "unicode", xml_declaration=True) + "\n"


def _suite(kind: str, results: list[Result], report: Report) -> ElementTree.Element:
    elements = [_ELEMENT.get(result.verdict.status) for result in results]
    attributes = {
        "name": kind,
        "tests": str(len(results)),
        "failures": str(elements.count("failure")),
        "errors": str(elements.count("error")),
        "skipped": str(elements.count("skipped")),
        "timestamp": report.when.rstrip("Z"),
        "time": f"{sum(result.verdict.seconds for result in results):.3f}",
    }
    suite = ElementTree.Element("testsuite", attributes)
    for result, element in zip(results, elements, strict=True):
        verdict = result.verdict
        group = f"{report.target}.{kind}.{result.op or 'network'}"
        case = ElementTree.SubElement(
            suite, "testcase", classname=group, name=result.name, time=f"{verdict.seconds:.3f}"
        )
        if element:
            told = _clean(f"{verdict.status}: {verdict.reason}")
            found = ElementTree.SubElement(case, element, message=told.splitlines()[0])
            found.text = told if element == "skipped" else _clean(verdict.trace) or told
    return suite


def _clean(text: str) -> str:
    """Without the control characters that XML cannot hold."""
    return _NOT_XML.sub("?", text)

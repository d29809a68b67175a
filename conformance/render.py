"""The forms that a report is drawn in; JSON is the truth, and these add nothing to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from omniop.conformance.junit import junit_xml
from omniop.conformance.markdown import markdown_text
from omniop.conformance.page import html_page
from omniop.conformance.record import Report

FORMS: Mapping[str, Callable[..., str]] = {"html": html_page, "markdown": markdown_text, "junit": junit_xml}


def draw(*reports: Report, **paths: Path | None) -> None:
    """Write the report in each form of `FORMS` that is given a path. The page takes several, the others one."""
    for form, path in paths.items():
        if path is not None:
            path.write_text(FORMS[form](*reports))

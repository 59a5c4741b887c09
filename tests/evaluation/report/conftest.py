"""The golden report, whose statistics several modules of tests read."""

from __future__ import annotations

import pytest
from report_rows import golden_report

from raypipe.evaluation.report.contents import Report


@pytest.fixture(scope="session")
def full() -> Report:
    return golden_report()

"""A report as data: what its JSON holds, and what a search or a suite adds."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from report_rows import FULL, GOLDEN


def test_json_is_the_golden_file():
    got = json.loads(json.dumps(FULL.json(), allow_nan=False))
    golden = json.loads((GOLDEN / "report.json").read_text("utf-8"))
    assert nearly(got) == nearly(golden)


def nearly(value):
    """Rounded: the last bit is libm's."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {k: nearly(v) for k, v in value.items()}
    return [nearly(v) for v in value] if isinstance(value, list) else value


def test_suite_means_are_over_the_sets_of_a_suite():
    means = FULL.suite_means()
    assert means.keys() == {"trec-dl"}
    for line in FULL.lines["splade"]:
        if line.means:
            assert means["trec-dl"][line.row.name] == (pytest.approx(line.means["RR@10"]), 1)
    assert "broken" not in means["trec-dl"]


def test_importing_the_package_loads_no_heavy_library():
    modules = "ranking", "measures", "significance", "suites"
    modules += tuple(f"report.{m}" for m in ("contents", "page", "plots", "tables", "text"))
    heavy = (
        "scipy",
        "statsmodels",
        "matplotlib",
        "jinja2",
        "rich",
        "ir_measures",
        "pandas",
        "torch",
        "ray",
    )
    code = "".join(f"import raypipe.evaluation.{m}\n" for m in modules)
    code += f"import sys\nprint(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

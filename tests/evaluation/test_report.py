"""Regenerate the golden files with: python tests/evaluation/test_report.py"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from raypipe.evaluation.report import Row, compare, plot, print_table, to_markdown, to_rows_json
from raypipe.evaluation.significance import holm, interval, paired_test

GOLDEN = Path(__file__).parent / "golden"
MEASURES = ["nDCG@10", "RR@10", "Judged@10"]
TITLE = [
    "pydoc, test split",
    "12 test queries, 1,000 documents; BM25 re-ranked to depth 100.",
]


def row(name, kind, ndcg, rr, judged=1.0, stages=(), reused=False, pairs=None, seconds=None):
    values = {"nDCG@10": ndcg, "RR@10": rr, "Judged@10": [judged] * 12}
    per_query = {m: {f"q{i}": v for i, v in enumerate(vs)} for m, vs in values.items()}
    return Row(name, kind, tuple(stages), reused, per_query, pairs, seconds)


def rows() -> list[Row]:
    """Twelve queries; quarters and eighths, so that no figure hangs on the last bit."""
    base = [0.0, 0.25, 0.5, 0.75, 0.25, 0.5, 0.0, 1.0, 0.5, 0.25, 0.75, 0.5]
    small = [v + (0.125 if i % 3 == 0 and v < 1 else 0.0) for i, v in enumerate(base)]
    large = [min(1.0, v + 0.25 + 0.125 * (i % 2)) for i, v in enumerate(base)]
    both = ("contrastive", "distil")
    return [
        row("BM25", "first_stage", base, base, judged=0.5),
        row("MiniLM zero-shot", "zero_shot", base, base[::-1]),
        row("RankVicuna", "teacher", small, base),
        row("oracle", "oracle", [1.0] * 12, [1.0] * 12),
        row("MiniLM | mnrl", "trained", small, small, 0.75, ["contrastive"], False, 1234567, 9.4),
        row("MiniLM | mnrl > kl", "trained", large, small, 1.0, both, True, 2345678, 3671.0),
    ]


@pytest.fixture(scope="module")
def lines():
    return compare(rows(), "BM25")


def test_comparison_equals_the_single_functions(lines):
    by_name = {r.name: r.per_query for r in rows()}
    base = by_name["BM25"]

    def values(per_query, measure):
        return [v for _, v in sorted(per_query[measure].items())]

    family = ["MiniLM zero-shot", "RankVicuna", "MiniLM | mnrl", "MiniLM | mnrl > kl"]
    for measure in ("nDCG@10", "RR@10"):
        raw = [paired_test(values(by_name[n], measure), values(base, measure)).p for n in family]
        expected = dict(zip(family, holm(raw), strict=True))
        got = {line.name: line.p_holm[measure] for line in lines}
        assert got == {"BM25": None, "oracle": None, **expected}
    last = lines[-1]
    ndcg = values(by_name[last.name], "nDCG@10")
    assert last.metrics["nDCG@10"] == pytest.approx(sum(ndcg) / 12)
    assert last.intervals["nDCG@10"] == interval(ndcg)
    assert last.p_holm["nDCG@10"] < 0.05 < lines[1].p_holm["nDCG@10"]
    assert lines[1].p_holm["nDCG@10"] == 1.0  # the same values as the reference
    assert {line.p_holm["Judged@10"] for line in lines} == {None}


def test_queries_pair_by_id_whatever_their_order(lines):
    shuffled = rows()
    ndcg = shuffled[-1].per_query["nDCG@10"]
    shuffled[-1].per_query["nDCG@10"] = dict(reversed(ndcg.items()))
    assert compare(shuffled, "BM25") == lines


def test_an_oracle_does_not_weaken_the_others(lines):
    without = [r for r in rows() if r.kind != "oracle"]
    assert compare(without, "BM25") == [line for line in lines if line.kind != "oracle"]


def test_without_reference_nothing_is_tested():
    lines = compare(rows(), None, level=0.5)
    ndcg = [v for _, v in sorted(rows()[0].per_query["nDCG@10"].items())]
    assert lines[0].intervals["nDCG@10"] == interval(ndcg, 0.5)
    assert {p for line in lines for p in line.p_holm.values()} == {None}
    text = to_markdown(TITLE, lines, MEASURES, None)
    assert "p (" not in text
    assert "t-test" not in text
    assert "50 % percentile bootstrap" in text


def test_compare_refuses():
    some = rows()
    with pytest.raises(ValueError, match="'BM52': no such row; did you mean 'BM25'"):
        compare(some, "BM52")
    with pytest.raises(ValueError, match="'oracle' is an oracle"):
        compare(some, "oracle")
    with pytest.raises(ValueError, match="found 'BM25' several times"):
        compare([some[0], *some], "BM25")
    fewer = {m: {q: v for q, v in qs.items() if q != "q3"} for m, qs in some[1].per_query.items()}
    with pytest.raises(ValueError, match=r"'MiniLM zero-shot', nDCG@10: .*found 1 .*'q3'"):
        compare([some[0], replace(some[1], per_query=fewer)], "BM25")
    other = {"AP": some[1].per_query["RR@10"]}
    with pytest.raises(ValueError, match=r"'MiniLM zero-shot': expected the measures .*'AP'"):
        compare([some[0], replace(some[1], per_query=other)], "BM25")


def test_markdown_is_the_golden_file(lines):
    assert to_markdown(TITLE, lines, MEASURES, "BM25") == (GOLDEN / "report.md").read_text("utf-8")


def test_rows_json_is_the_golden_file(lines):
    text = json.dumps(to_rows_json(lines), indent=1, allow_nan=False) + "\n"
    got, golden = json.loads(text), json.loads((GOLDEN / "rows.json").read_text("utf-8"))
    for one, other in zip(got, golden, strict=True):
        assert one["p_holm"] == pytest.approx(other.pop("p_holm"))  # the last bit is libm's
        assert one == other | {"p_holm": one["p_holm"]}


def test_unknown_measures_and_references_are_refused(lines):
    with pytest.raises(ValueError, match="no measure 'nDCG@1'; did you mean 'nDCG@10'"):
        to_markdown(TITLE, lines, ["nDCG@1"], "BM25")
    with pytest.raises(ValueError, match="reference 'BM2': no such row"):
        to_markdown(TITLE, lines, MEASURES, "BM2")


@pytest.mark.parametrize("width", [120, 80])
def test_terminal_table_loses_nothing(lines, width):
    def printed(width):
        out = io.StringIO()
        print_table(TITLE, lines, MEASURES, "BM25", Console(file=out, width=width))
        return out.getvalue()

    narrow, wide = printed(width), printed(300)
    assert max(map(len, narrow.splitlines())) <= width
    assert sorted("".join(narrow.split())) == sorted("".join(wide.split()))
    assert "[.552, .844]" in wide
    if width == 120:
        assert narrow == (GOLDEN / "table.txt").read_text("utf-8")


def test_plot_is_a_png_with_its_rows(tmp_path, lines):
    plot(tmp_path / "a.png", lines, MEASURES, "BM25")
    plot(tmp_path / "b.png", lines, MEASURES, "BM25")
    plot(tmp_path / "c.png", lines[:2], MEASURES[:1])
    first = (tmp_path / "a.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    assert first == (tmp_path / "b.png").read_bytes()
    size = {n: (tmp_path / n).read_bytes()[16:24] for n in ("a.png", "c.png")}
    assert int.from_bytes(size["c.png"][:4]) < int.from_bytes(size["a.png"][:4])  # one panel
    assert int.from_bytes(size["c.png"][4:]) < int.from_bytes(size["a.png"][4:])  # two rows
    with pytest.raises(ValueError, match="no measure 'AP'"):
        plot(tmp_path / "d.png", lines, ["AP"])


def test_importing_the_package_loads_no_heavy_library():
    modules = "runs", "measures", "significance", "report"
    heavy = "scipy", "statsmodels", "matplotlib", "rich", "ir_measures", "pandas", "torch", "ray"
    code = "".join(f"import raypipe.evaluation.{m}\n" for m in modules)
    code += f"import sys\nprint(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _regenerate() -> None:
    lines = compare(rows(), "BM25")
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "report.md").write_text(to_markdown(TITLE, lines, MEASURES, "BM25"), "utf-8")
    (GOLDEN / "rows.json").write_text(json.dumps(to_rows_json(lines), indent=1) + "\n", "utf-8")
    out = io.StringIO()
    print_table(TITLE, lines, MEASURES, "BM25", Console(file=out, width=120))
    (GOLDEN / "table.txt").write_text(out.getvalue(), "utf-8")


if __name__ == "__main__":
    _regenerate()

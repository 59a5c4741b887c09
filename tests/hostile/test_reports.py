"""Reports tell one truth: rows of one run, sets of other jobs, names that look like others.

Every row of the tables is an input that no other test tries.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracked_jobs import BASE, QUERIES, failed, report, row

from raypipe.commands.report import beside
from raypipe.evaluation.report.contents import Report, SetFacts
from raypipe.evaluation.report.page import to_html
from raypipe.evaluation.report.text import to_markdown
from raypipe.evaluation.results import Row
from raypipe.evaluation.same_run import one_row_per_run, same_run

quick = settings(deadline=None, max_examples=40, database=None)


def run(one: Row, **digests: str) -> Row:
    """The row with the digests of its runs, a letter per seed."""
    return replace(one, runs={name: list(text) for name, text in digests.items()})


def on(one: Row, *names: str) -> Row:
    return replace(one, results=dict.fromkeys(names, one.results["test"]))


CL, KD = row("cl", "trained", 0.4, [1]), row("kd", "trained", 0.3, [1])
TWO = row("cl", "trained", 0.4, [1, 2])
PAIRS = {
    "one run as first stage and as teacher": (
        run(BASE, test="a"), run(replace(BASE, kind="teacher", name="gpt"), test="a"), True,
    ),
    "one digest, values of another version of a measure": (
        run(BASE, test="a"), run(row("BM25", "first_stage", 0.21), test="a"), True,
    ),
    "the seeds of the one in another order": (run(TWO, test="xy"), run(TWO, test="yx"), True),
    "one of two seeds": (run(TWO, test="xy"), run(CL, test="x"), False),
    "a seed twice": (run(TWO, test="xx"), run(TWO, test="xy"), False),
    "equal on one set, other on the second": (
        run(on(CL, "test", "dl"), test="a", dl="b"), run(on(CL, "test", "dl"), test="a", dl="c"),
        False,
    ),
    "equal on the set that both have": (
        run(on(CL, "test", "dl"), test="a", dl="b"), run(on(CL, "dl", "x"), dl="b", x="c"), True,
    ),
    "a failed row and the row that it would have been": (run(CL, test="a"), failed("cl", 1, "x"),
                                                         False),
    "two failed rows": (failed("cl", 1, "x"), failed("cl", 1, "x"), False),
    "digests of the one alone, equal values": (run(CL, test="a"), CL, True),
    "digests of the one alone, values apart by 1e-9": (
        run(CL, test="a"), row("cl", "trained", 0.4 + 1e-9, [1]), False,
    ),
    "no digests, other queries": (CL, row("cl", "trained", 0.4, [1], queries=QUERIES[:5]), False),
}  # fmt: skip


@pytest.mark.parametrize("case", PAIRS)
def test_rows(case):
    one, two, same = PAIRS[case]
    assert same_run(one, two) is same and same_run(two, one) is same
    kept, standing = one_row_per_run([one, two])
    assert len(kept) == 2 - same and len(standing) <= same


@quick
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=9))
def test_any_rows_stand_once_by_digest(digests):
    """Property: whatever they are called and in whatever order."""
    rows = [run(replace(CL, name=f"r{i}"), test=d) for i, d in enumerate(digests)]
    kept, standing = one_row_per_run(rows)
    assert [r.runs["test"] for r in kept] == [[d] for d in dict.fromkeys(digests)]
    assert len(kept) + len(standing) == len(rows)
    assert set(standing.values()) <= {r.name for r in kept}


# --- several jobs ---------------------------------------------------------------------------------


def test_three_jobs_with_one_first_stage():
    """Holm corrects for the rows that there are, not for copies of the first stage."""
    first = run(BASE, test="a")
    jobs = [report(n, first, run(r, test=n)) for n, r in (("x", CL), ("y", KD), ("z", CL))]
    together = beside(beside(jobs[0], jobs[1], "y"), jobs[2], "z")
    assert [r.name for r in together.rows] == ["BM25", "cl", "kd", "cl (z)"]
    alone = report(
        "w", first, run(CL, test="x"), run(KD, test="y"), run(replace(CL, name="c"), test="z")
    )
    alone = replace(alone, references=("cl",))
    p = [
        [line.versus.get("cl", {}).get("nDCG@10") for line in r.lines["test"]]
        for r in (together, alone)
    ]
    assert p[0] == p[1] and sum(test is not None for test in p[0]) == 3


def test_a_reused_job_beside_the_first_is_that_job():
    one = report("a", run(BASE, test="a"), run(CL, test="b"))
    again = report("b", run(BASE, test="a"), run(replace(CL, reused=True), test="b"))
    both = beside(one, again, "b")
    assert [r.name for r in both.rows] == ["BM25", "cl"] and not both.rows[1].reused
    assert both.references == ("cl",)


def test_jobs_whose_sets_have_one_name_and_other_queries():
    """Means over other queries are no columns of one table."""
    few = [row(n, k, s, seeds, queries=QUERIES[1:]) for n, k, s, seeds in (
        ("BM25", "first_stage", 0.2, ()), ("kd", "trained", 0.3, [1]))]  # fmt: skip
    both = beside(report("a", BASE, CL), report("b", *few), "b")
    assert set(both.lines) == {"test", "test (b)"}
    sizes = [len(line.row.results[name][0]["nDCG@10"])
             for name, lines in both.lines.items() for line in lines]  # fmt: skip
    assert sizes == [6, 6, 5, 5]


NAMES = {
    "a row that looks like a table's end": "cl | .999 |",
    "a row of HTML": "<b>best</b><script>alert(1)</script>",
    "a row that is a difference": "kd minus BM25",
    "a row of Markdown": "**cl** [x](http://y)",
    "a row of two scripts": "cl אבג",
}


@pytest.mark.parametrize("case", NAMES)
def test_names_of_rows_are_names(case):
    """In page and text alike, with the difference named after the two rows."""
    name = NAMES[case]
    facts = (SetFacts("test", ("a",), ("nDCG@10",)),)
    one: Report = replace(
        report("a", BASE, replace(CL, name=name)), references=("BM25",), sets=facts
    )
    text = to_markdown(one)
    if "<" in name:  # a page takes a second
        page = to_html(one)
        assert "<script>alert" not in page and "<b>best" not in page
    table = [line for line in text.splitlines() if line.startswith("|")]
    widths = {}
    for line in table:
        cells = line.replace(r"\|", "").count("|")
        widths.setdefault(cells, []).append(line)
    assert any("BM25" in line for line in table)
    assert all(len(group) >= 3 for group in widths.values())  # no row has cells of its own
    assert "minus BM25" in text


def test_equal_alarms_of_two_jobs_stand_once_and_in_order():
    notes = ("scores are constant", "lr is low"), ("lr is low", "scores are constant", "new")
    one, two = (
        replace(report(n, BASE, run(CL, test=n)), notes=said)
        for n, said in zip("ab", notes, strict=True)
    )
    assert beside(one, two, "b").notes == ("scores are constant", "lr is low", "new")

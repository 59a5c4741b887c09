"""Comparisons of tracked jobs side by side, and the job that prints them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from slim import run
from tracked_jobs import BASE, QUERIES, report, row, track

from raypipe.commands.report import beside, report_of
from raypipe.config import ConfigError
from raypipe.evaluation.report import writing
from raypipe.evaluation.report.contents import Report, SetFacts
from raypipe.evaluation.report.page import to_html
from raypipe.evaluation.report.text import to_markdown
from raypipe.evaluation.results import Row
from raypipe.tracking.recorder import Recorder
from raypipe.tracking.stored_runs import TrackingStore

ROOT = Path(__file__).resolve().parents[2]


def test_equal_baselines_stand_once_and_taken_names_get_the_jobs(tmp_path):
    one = report("a", BASE, row("cl", "trained", 0.4, [1]))
    two = report("b", BASE, row("cl", "trained", 0.5, [1]), row("kd", "trained", 0.3, [1]))
    both = beside(one, two, "b")
    assert [r.name for r in both.rows] == ["BM25", "cl", "cl (b)", "kd"]
    assert both.references == ("cl",) and both.name == "a, b"
    assert len(both.lines["test"]) == 4


def test_jobs_with_other_queries_get_a_table_each():
    one = report("a", BASE, row("cl", "trained", 0.4, [1]))
    bm25 = row("BM25", "first_stage", 0.2, queries=QUERIES[:5])
    two = report("b", bm25, row("kd", "trained", 0.3, [1], queries=QUERIES[:5]))
    both = beside(one, two, "b")
    tables = {name: [line.row.name for line in lines] for name, lines in both.lines.items()}
    assert tables == {"test": ["BM25", "cl"], "test (b)": ["BM25 (b)", "kd"]}
    assert [both.references_on(facts) for facts in both.sets] == [("cl",), ("kd",)]
    assert both.lines["test (b)"][0].versus["kd"]["nDCG@10"].difference == pytest.approx(-0.1)
    assert both.json()["families"] == {"nDCG@10": 2}  # one per table, corrected together
    text = to_markdown(both)
    assert "x references, 2 tests of nDCG@10" in text
    assert "model minus cl" in text and "model minus kd" in text
    assert "| kd | – | .380 |" in text  # noqa: RUF001 - the overview has a dash where none is
    assert to_html(both).count("Against ") == 2


def with_sets(one: Row, *names: str, digest: str = "") -> Row:
    """The row on these test sets, with a digest of its run on each."""
    runs = {name: [f"{digest or one.name}-{name}"] for name in names}
    return replace(one, results=dict.fromkeys(names, one.results["test"]), runs=runs)


def on_sets(one: Report, *names: str) -> Report:
    return replace(one, sets=tuple(SetFacts(n, (n,), ("nDCG@10",)) for n in names))


def test_a_run_of_two_jobs_is_one_row_by_digest_under_any_name():
    """Twice in the table, Holm would correct for it twice."""
    first, second = with_sets(BASE, "test"), with_sets(replace(BASE, name="first stage"), "test")
    second = replace(second, runs=first.runs)
    cl, kd = (with_sets(row(n, "trained", v, [1]), "test") for n, v in (("cl", 0.4), ("kd", 0.3)))
    both = beside(report("a", first, cl), report("b", second, replace(cl, name="x"), kd), "b")
    assert [r.name for r in both.rows] == ["BM25", "cl", "kd"]
    alone = report("c", first, kd, cl)
    versus = [{line.row.name: line.versus for line in r.lines["test"]} for r in (both, alone)]
    assert versus[0] == versus[1]


def test_equal_values_of_another_run_are_another_row():
    one = with_sets(row("cl", "trained", 0.4, [1]), "test", digest="a")
    two = with_sets(row("cl", "trained", 0.4, [1]), "test", digest="b")
    both = beside(report("a", one), report("b", two), "b")
    assert [r.name for r in both.rows] == ["cl", "cl (b)"]


def test_a_row_has_the_test_sets_of_both_jobs():
    base = with_sets(BASE, "test", "dl19"), with_sets(BASE, "test", "dl20")
    kd = with_sets(row("kd", "trained", 0.3, [1]), "test", "dl20")
    one = on_sets(report("a", base[0]), "test", "dl19")
    two = on_sets(report("b", base[1], kd), "test", "dl20")
    both = beside(one, two, "b")
    tables = {name: [line.row.name for line in lines] for name, lines in both.lines.items()}
    assert tables == {"test": ["BM25", "kd"], "dl19": ["BM25"], "dl20": ["BM25", "kd"]}
    third = beside(both, on_sets(report("c", with_sets(BASE, "dl19")), "dl19"), "c")
    assert [r.name for r in third.rows] == ["BM25", "kd"]


def test_jobs_with_other_measures_show_those_of_both():
    more = {**BASE.results["test"][0], "AP@100": dict.fromkeys(QUERIES, 0.5)}
    other = replace(BASE, results={"test": [more]})
    two = replace(report("b", other), sets=(SetFacts("test", ("b",), ("AP@100", "nDCG@10")),))
    both = beside(report("a", BASE), two, "b")
    assert [r.name for r in both.rows] == ["BM25"] and both.sets[0].measures == ("nDCG@10",)
    lone = replace(two, sets=(SetFacts("test", ("b",), ("AP@100",)),))
    with pytest.raises(ConfigError, match="a and b have no measure in common on 'test'"):
        beside(report("a", BASE), lone, "b")


def test_notes_of_both_jobs_stand_once():
    one = replace(report("a", BASE), notes=("lr is low", "a is slow"))
    two = replace(report("b", BASE), notes=("b is slow", "lr is low"))
    assert beside(one, two, "b").notes == ("lr is low", "a is slow", "b is slow")


def test_slices_of_both_jobs_stand_beside_each_other():
    def sliced(one: Report, **slices: dict[str, str]) -> Report:
        return replace(one, sets=(replace(one.sets[0], slices=slices),))

    halves = {query: "head" if i < 3 else "tail" for i, query in enumerate(QUERIES)}
    one = sliced(report("a", BASE), half=halves, intent={"q0": "buy"})
    two = sliced(report("b", row("kd", "trained", 0.3, [1])), half=halves, intent={"q0": "learn"})
    both = beside(one, two, "b")
    groups = both.sliced(both.sets[0])
    assert list(groups) == ["half", "intent", "intent (b)"]
    assert list(groups["half"].means) == ["BM25", "kd"]
    apart = sliced(report("c", row("x", "trained", 0.3, [1], queries=QUERIES[:5])), half=halves)
    assert [list(facts.slices) for facts in beside(one, apart, "c").sets] == [
        ["half", "intent"],
        ["half"],
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    """Two finished jobs, one that was killed before it said what it compares, and three of one
    experiment."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('reports')}/mlflow.db"
    for one, finish in (
        (report("a", BASE, row("cl", "trained", 0.4, [1, 2])), True),
        (report("b", BASE, row("kd", "trained", 0.3, [1])), True),
        (report("killed", BASE, row("cl", "trained", 0.4, [1, 2])), False),
    ):
        recorder = Recorder(uri, one.name)
        track(recorder, one, finish=finish)
        assert recorder.drain() == (0, 0)
        recorder.close()
    for number in (1, 2, 3):
        recorder = Recorder(uri, "again")
        one = report("again", BASE, row("cl", "trained", 0.1 * number, [1]))
        track(recorder, one, number=number)
        assert recorder.drain() == (0, 0)
        recorder.close()
    return uri


def test_one_job(store):
    one = report_of(["a"], store)
    assert [(r.name, r.seeds) for r in one.rows] == [("BM25", ()), ("cl", (1, 2))]
    expected = report("a", BASE, row("cl", "trained", 0.4, [1, 2]))
    assert one.json()["sets"] == expected.json()["sets"]


def test_several_jobs_another_reference_another_margin(store):
    one = report_of(["a", "b"], store, references=["kd"], margin=0.2)
    assert [r.name for r in one.rows] == ["BM25", "cl", "kd"]
    verdicts = {x.row.name: x.versus for x in one.lines["test"]}
    assert verdicts["kd"] == {} and verdicts["cl"]["kd"]["nDCG@10"].verdict == "equivalent"
    with pytest.raises(ConfigError, match="--reference: no row 'kdd'; did you mean 'kd'"):
        report_of(["a", "b"], store, references=["kdd"])


def test_several_references(store, command):
    one = report_of(["a", "b"], store, references=["kd", "BM25"])
    versus = {x.row.name: list(x.versus) for x in one.lines["test"]}
    assert versus == {"BM25": ["kd"], "cl": ["kd", "BM25"], "kd": ["BM25"]}
    with pytest.raises(ConfigError, match="--reference: found 'kd' twice; name it once"):
        report_of(["a", "b"], store, references=["kd", "BM25", "kd"])
    words = ["--reference", "kd", "--reference", "BM25", "--tracking", store]
    done = command("report.py", "a", "b", *words)
    assert "against kd" in done.stdout and "against BM25" in done.stdout


def test_jobs_of_one_experiment_stand_side_by_side(store):
    runs = TrackingStore(store).client.search_runs(
        [TrackingStore(store).job("again").experiment_id], "tags.`raypipe.kind` = 'job'"
    )
    first, *others = jobs = [run.info.run_id for run in runs]
    one = report_of(jobs, store)
    named = [f"cl (again {run_id[:6]})" for run_id in others]
    assert [r.name for r in one.rows] == ["BM25", "cl", *named] and len(named) == 2
    assert report_of([first, first], store).json() == report_of([first], store).json()


def test_a_killed_job_has_what_it_finished(store):
    one = report_of(["killed"], store)
    assert [r.name for r in one.rows] == ["BM25", "cl"] and one.references == ("cl",)
    assert one.notes == ("the job is RUNNING: rows may be missing",)
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d UTC", one.origin["date"])
    assert [x.means["nDCG@10"] for x in one.lines["test"]] == pytest.approx([0.3, 0.5])


def test_the_job(command, store, tmp_path):
    files = ["--html", str(tmp_path / "r.html"), "--markdown", str(tmp_path / "r.md")]
    words = [str(ROOT / "jobs" / "report.py"), "a", "--tracking", store, *files]
    job = f"import runpy\nsys.argv = {words!r}\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    done = run(job, extras=["track"])  # no torch, no Ray
    assert (done.returncode, done.stderr) == (0, "")
    assert "cl †" in done.stdout and "queries seen" in done.stdout
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert "| cl † |" in (tmp_path / "r.md").read_text()
    wrong = command("report.py", "c", "--tracking", store)
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: no tracked experiment 'c'")
    assert "--margin" in command("report.py", "--help").stdout


def test_files_are_written_before_the_report_is_printed(tmp_path, monkeypatch):
    page, text = tmp_path / "page.html", tmp_path / "text.md"
    there = []
    monkeypatch.setattr(
        writing, "print_report", lambda report: there.append((page.exists(), text.exists()))
    )
    writing.write(report("a", BASE), page, text)
    assert there == [(True, True)]

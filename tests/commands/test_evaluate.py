"""jobs/evaluate.py: run files and judgements in, the whole report out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.commands.evaluate import report_of
from raypipe.config import ConfigError
from raypipe.evaluation.report.text import explanation
from raypipe.records import RUN
from raypipe.tables.trec_run import read_trec_run

QUERIES, DEPTH = 40, 20


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Judgements of 40 queries and two runs: `good` has the relevant document higher."""
    folder, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(5)
    judged = [f"q{q} 0 d{q}-0 1\n" for q in range(QUERIES)]
    (folder / "qrels.txt").write_text("".join(judged))
    for name, reach in (("good", 4), ("poor", 20)):
        lines = []
        for query in range(QUERIES):
            others = [f"d{query}-{i}" for i in range(1, DEPTH)]
            docs = np.insert(others, rng.integers(reach), f"d{query}-0")
            lines += [f"q{query} Q0 {d} {r} {-r} {name}\n" for r, d in enumerate(docs, start=1)]
        (folder / f"{name}.run").write_text("".join(lines))
    return folder


def report(files: Path, *runs: str, **other):
    given = [run if "/" in run else str(files / run) for run in runs]
    return report_of(str(files / "qrels.txt"), None, given, **other)


def test_values_and_tests_are_those_of_the_files(files):
    import ir_measures
    from ir_measures import RR, nDCG

    made = report(files, "poor.run", "good.run", references=["poor"], measures=("nDCG@10", "RR@10"))
    poor, good = made.lines["test"]
    for name, line in (("poor", poor), ("good", good)):
        expected = ir_measures.calc_aggregate(
            [nDCG @ 10, RR @ 10],
            list(ir_measures.read_trec_qrels(str(files / "qrels.txt"))),
            list(ir_measures.read_trec_run(str(files / f"{name}.run"))),
        )
        assert line.means["nDCG@10"] == pytest.approx(expected[nDCG @ 10])
        assert line.means["RR@10"] == pytest.approx(expected[RR @ 10])
    assert good.versus["poor"]["nDCG@10"].verdict == "better"
    assert poor.versus.get("poor", {}).get("nDCG@10") is None
    assert good.letters["nDCG@10"] == poor.label
    assert json.dumps(made.json())
    said = " ".join(explanation(made))
    assert "TOST" in said and "another seed" not in said and "oracle" not in said


def test_a_query_that_a_run_lacks_counts_as_nothing_and_is_said(files, tmp_path):
    short = tmp_path / "short.run"
    text = (files / "good.run").read_text().splitlines(keepends=True)
    strange = "unknown Q0 d 1 1 x\n"
    short.write_text("".join(line for line in text if not line.startswith("q1 ")) + strange)
    made = report(files, "good.run", str(short), measures=("RR@10",))
    whole, less = made.lines["test"]
    one = whole.row.results["test"][0]["RR@10"]["q1"]
    assert less.means["RR@10"] == pytest.approx(whole.means["RR@10"] - one / QUERIES)
    assert any(note.startswith("short: 1 of 40 judged queries are not in") for note in made.notes)
    assert "short: lines of queries that nobody judged: 1" in made.notes


def test_what_tells_the_order_of_a_run_is_said(files, tmp_path):
    """Ranks that contradict scores stay the order; ranks that tell none leave it to scores."""
    lines = [line.split() for line in (files / "good.run").read_text().splitlines()]
    text = {
        "rising": "".join(f"{q} Q0 {d} {r} {r} t\n" for q, _, d, r, _, _ in lines),
        "zero": "".join(f"{q} Q0 {d} 0 {s} t\n" for q, _, d, _, s, _ in lines),
    }
    for name, content in text.items():
        (tmp_path / f"{name}.run").write_text(content)
    runs = ["good.run", *(str(tmp_path / f"{name}.run") for name in text)]
    made = report(files, *runs, measures=("RR@10",))
    assert len({line.means["RR@10"] for line in made.lines["test"]}) == 1
    assert made.notes == (
        "rising: scores contradict the ranks in 40 lists; the rank column is the order",
        "zero: documents share a rank or have none; these are ordered by score",
    )


def test_rows_have_the_names_that_are_given(files):
    made = report(files, "poor.run", f"mine={files}/good.run", references=[f"{files}/good.run"])
    assert [row.name for row in made.rows] == ["poor", "mine"] and made.references == ("mine",)


@pytest.mark.parametrize(
    ("runs", "other", "words"),
    [
        ((), {}, "at least one run"),
        (("none.run",), {}, r"none\.run: no file there"),
        (("good.run", "good.run"), {}, "both called 'good'"),
        (("good.run",), {"references": ["god"]}, "no run 'god'; did you mean 'good'"),
        (("good.run",), {"measures": ("ndgc@10",)}, "there is no 'ndgc'"),
        (("good.run",), {"measures": ()}, "name at least one"),
        (("good.run",), {"positive_relevance": 2}, "no judgement of .* reaches it"),
        (("good.run",), {"split": "test"}, "--split belongs to --dataset"),
    ],
)
def test_what_cannot_be_compared(files, runs, other, words):
    with pytest.raises(ConfigError, match=words):
        report(files, *runs, **other)


def test_judgements_have_one_source(files):
    for qrels, dataset in ((None, None), (str(files / "qrels.txt"), "pydoc")):
        with pytest.raises(ConfigError, match="either --qrels FILE or --dataset ID"):
            report_of(qrels, dataset, [str(files / "good.run")])


def test_a_run_of_other_queries_is_refused(files, tmp_path):
    (tmp_path / "other.run").write_text("x Q0 d1 1 1 t\n")
    with pytest.raises(ConfigError, match="none of its queries is judged"):
        report(files, str(tmp_path / "other.run"))


def test_a_data_set_has_judgements(beir_folder, tmp_path):
    (tmp_path / "a.run").write_text("q50 Q0 d1 1 1.0 t\n")
    made = report_of(
        None, f"beir:{beir_folder}", [str(tmp_path / "a.run")], "test", measures=("RR@10",)
    )
    (line,) = made.lines["test"]
    assert len(line.row.results["test"][0]["RR@10"]) == 12


def test_the_job_loads_no_heavy_library(files, tmp_path):
    """As a user starts it: neither Ray, torch nor, without a page, matplotlib."""
    root = Path(__file__).resolve().parents[2]
    script = (
        "import runpy, sys\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as ended: assert not ended.code, ended.code\n"
        "loaded = {'ray', 'torch', 'matplotlib', 'mlflow', 'transformers'} & set(sys.modules)\n"
        "print('LOADED', sorted(loaded))\n"
    )
    job = [str(root / "jobs/evaluate.py"), "--qrels", str(files / "qrels.txt")]
    words = [
        *job,
        "--runs",
        str(files / "poor.run"),
        str(files / "good.run"),
        "--reference",
        "poor",
    ]
    code = f"import sys; sys.argv = {words!r}\n{script}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "better" in done.stdout and done.stdout.endswith("LOADED []\n")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "is a folder"),
        ("run.parquet", "expected a Parquet table"),
        ("empty.run", "the file is empty"),
    ],
)
def test_files_that_are_no_runs(files, tmp_path, name, words):
    if name:
        (tmp_path / name).write_text("x" * name.endswith("parquet"))
    with pytest.raises(ConfigError, match=words):
        report(files, str(tmp_path / name))


def test_a_table_of_rerank_is_judged_in_its_order(files, tmp_path):
    """As the TREC run of the same lists, though scores rise where the re-ranked documents end."""
    lists, _ = read_trec_run(files / "good.run")
    rising = [list(map(float, range(len(docs)))) for docs in lists["doc_ids"].to_pylist()]
    columns = [*lists["query_id"].to_pylist(), "other"], [*lists["doc_ids"].to_pylist(), ["d1"]]
    table = pa.table([*columns, [*rising, [0.0]]], schema=RUN)
    pq.write_table(table, tmp_path / "mine.parquet")
    made = report(files, str(files / "good.run"), str(tmp_path / "mine.parquet"))
    good, mine = made.rows
    assert mine.name == "mine" and mine.results == good.results
    assert made.notes == ("mine: lines of queries that nobody judged: 1",)


@pytest.mark.parametrize("option", ["--html", "--markdown"])
def test_a_file_that_cannot_be_written_is_refused_before_work(command, files, tmp_path, option):
    job = ("evaluate.py", "--qrels", files / "qrels.txt", "--runs", files / "poor.run")
    done = command(*job, option, tmp_path / "none" / "x")
    assert done.returncode == 2 and "no directory" in done.stderr and done.stdout == ""
    done = command(*job, option, tmp_path)
    assert done.returncode == 2 and "is a folder" in done.stderr and done.stdout == ""


def test_a_page_and_markdown(command, files, tmp_path):
    done = command(
        *("evaluate.py", "--qrels", files / "qrels.txt", "--runs", files / "poor.run"),
        *(files / "good.run", "--reference", "poor", "--resamples", 200),
        *("--html", tmp_path / "page.html", "--markdown", tmp_path / "table.md"),
    )
    assert done.returncode == 0, done.stderr
    assert "<svg" in (tmp_path / "page.html").read_text()
    assert "| good " in (tmp_path / "table.md").read_text()

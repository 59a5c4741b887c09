"""Run files as teachers: ranks or scores, and the figures of published re-rankings."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from six_documents import PUBLISHED

from raypipe.candidates.trec_run import TrecRun
from raypipe.config import ConfigError
from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.inference.lists import Lists
from raypipe.runs.baselines import TeacherRun
from raypipe.runs.metrics import Metrics
from raypipe.tables import spill
from raypipe.tables import text_columns as columns
from raypipe.teachers.published.run_file import RunFile

RUN = "q1 Q0 d4 1 0.5 x\nq1 Q0 dX 2 9 x\nq1 Q0 d0 3 7.25 x\nq9 Q0 d0 1 1 x\n"


def test_run_files_give_ranks_or_scores(make):
    ranks, counts = make(RunFile, RUN, column="rank")
    scores, _ = make(RunFile, RUN, column="score")
    assert ranks == {"q1": {"d4": 1.0, "d0": 2.0}, "q2": {}, "q3": {}}
    assert scores == {"q1": {"d4": 0.5, "d0": 7.25}, "q2": {}, "q3": {}}
    assert counts["unknown_documents"] == 1
    assert counts["queries_without_list"] == 2


@pytest.mark.parametrize("rank", ["0 ", "1 ", ""])
def test_ranks_that_tell_nothing_are_counted_by_score(make, rank):
    text = f"q1 Q0 d4 {rank}0.5 x\nq1 Q0 d0 {rank}7.25 x\nq1 Q0 d2 {rank}3 x\n"
    with pytest.warns(UserWarning, match="documents of 1 queries share a rank or have none"):
        ranks, counts = make(RunFile, text, column="rank", name=f"a{rank}.run")
    assert ranks["q1"] == {"d0": 1.0, "d2": 2.0, "d4": 3.0}
    assert counts["queries_ordered_by_score"] == 1
    scores, _ = make(RunFile, text, column="score", name=f"b{rank}.run")
    assert scores["q1"] == {"d4": 0.5, "d0": 7.25, "d2": 3.0}


def test_a_run_file_of_any_length_is_read_in_parts(make, monkeypatch, builder, lists):
    """500,000 lists do not fit into memory as Python objects: they are spilled by query."""
    text = "".join(f"q{q} Q0 d{d} {9 - d} {d / 4} x\n" for d in range(6) for q in (3, 1, 2))
    whole, counts = make(RunFile, text, column="score", name="whole.run")
    monkeypatch.setattr(spill, "CHUNK", 2)
    monkeypatch.setattr(spill, "PENDING", 0)
    monkeypatch.setattr(columns, "BLOCK", 64)
    again, parted = make(RunFile, text + "\n", column="score", name="parts.run")
    assert again == whole == {q: {f"d{d}": d / 4 for d in range(6)} for q in ("q1", "q2", "q3")}
    assert parted == counts and counts["lines"] == counts["kept"] == 18
    ranks, _ = make(RunFile, text, column="rank", name="ranks.run")
    assert ranks["q2"] == {f"d{d}": 6.0 - d for d in range(6)}
    found = Path(builder.store.root).glob("teacher/run_file-*/attempt-*/part-*")
    assert len([p for p in found if p.name == "part-00001.parquet"]) == 2  # score, then rank


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q9 Q0 d0 1 1 x\n", "none of the 3 queries is in it"),
        ("q1 Q0 dX 1 1 x\n", "none of its 1 documents is in the collection"),
        ("q1 Q0 d0 one 1 x\n", r"file\.tsv, line 1: expected an integer rank"),
        (
            gzip.compress(RUN.encode() * 99, mtime=0)[:-9],
            r"file\.tsv: expected a complete gzip file",
        ),
    ],
)
def test_run_files_that_are_refused(make, text, message):
    with pytest.raises(ConfigError, match=message):
        make(RunFile, text, column="rank")


README = [
    ("gpt-3.5.bm25", "bm25", "dl19", 0.6938),
    ("gpt-3.5.bm25", "bm25", "dl20", 0.6385),
    ("rankvicuna.bm25", "bm25", "dl19", 0.6840),
    ("rankvicuna.bm25", "bm25", "dl20", 0.6648),
    ("rankvicuna.splade", "splade", "dl19", 0.7644),
    ("rankvicuna.splade", "splade", "dl20", 0.7551),
]


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="no shared data here")
@pytest.mark.parametrize(("teacher", "first", "split", "expected"), README)
def test_published_rerankings_reach_their_figures(builder, teacher, first, split, expected):
    sets = QuerySet(dataset=f"beir:{PUBLISHED}", split=split)
    collection, queries = Collection(sets), Queries(sets, require_positive=False)
    run = str(PUBLISHED / "runs" / f"{first}.{split}.run.gz")
    source = TrecRun(paths=(run,), name=first)
    candidates = source.candidates(collection, queries, "fp32")
    lists = Lists(candidates, None, collection, queries, 100)
    file = str(PUBLISHED / "llm" / f"{teacher}.{split}.run.gz")
    ranks = RunFile(paths=(file,)).scores(lists, "fp32")
    order = TeacherRun(ranks, "rank", candidates, queries, 100)
    metrics = builder.get(Metrics(order, queries, ("nDCG@10",)))
    assert metrics.counts["means"]["nDCG@10"] == pytest.approx(expected, abs=5e-5)

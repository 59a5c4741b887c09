"""Bars of long reads: who has one, where it stands, and that nothing is shown unasked."""

from __future__ import annotations

import gzip
import io
import json
import threading
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from raypipe import progress
from raypipe.artifacts import Builder, Store
from raypipe.data.collection import IrDataset
from raypipe.data.sets import Collection, Queries, QuerySet
from raypipe.files import open_bytes
from raypipe.inference.lists import Lists
from raypipe.inference.published import RankGptOrders, RunFileValues, ScoreFile
from raypipe.resources import Context, Resources
from raypipe.sources.scored_docs import ScoredDocs
from raypipe.sources.triples import Triples

CONTEXT = Context(Resources(), "fp32", progress_bars=True)
Scored = namedtuple("Scored", "query_id doc_id score")
Pair = namedtuple("Pair", "query_id doc_id_a doc_id_b")


@pytest.fixture
def bars(monkeypatch) -> dict[str, Any]:
    """The total of every bar that a thread would show, by its label."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(
        progress, "_show", lambda label, total, position, over: found.update({label: total})
    )
    return found


@pytest.fixture
def data(tmp_path) -> QuerySet:
    folder = tmp_path / "small"
    (folder / "qrels").mkdir(parents=True)
    for name in ("corpus", "queries"):
        (folder / f"{name}.jsonl").write_text(json.dumps({"_id": "1", "text": name}) + "\n")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\t1\t1\n")
    return QuerySet(dataset=f"beir:{folder}", split="test")


def test_a_bar_stands_where_the_reader_is(monkeypatch, tmp_path):
    """Polled in a thread while the reader waits for it, in bytes of the packed file."""
    screen = io.StringIO()
    monkeypatch.setattr(progress, "DELAY_S", 0)
    monkeypatch.setattr(progress, "POLL_S", 0.001)
    console = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr(progress, "_console", lambda: console)
    path = tmp_path / "long.run.gz"
    path.write_bytes(gzip.compress(b"q1 Q0 d1 1 1 x\n" * 100_000))
    seen = threading.Event()
    positions: list[int] = []
    lseek = progress.os.lseek

    def asked(*args):
        positions.append(lseek(*args))
        if positions[-2:] == [path.stat().st_size] * 2:  # so the first of them is on the screen
            seen.set()
        return positions[-1]

    monkeypatch.setattr(progress.os, "lseek", asked)
    with progress.shown("colbert", True), open_bytes(path) as stream:
        assert len(stream.read()) == 1_500_000
        assert seen.wait(20)
    assert "colbert: long.run.gz" in screen.getvalue() and "100%" in screen.getvalue()


def test_nothing_is_shown_unasked(bars, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"x")
    with open_bytes(path):
        pass
    with progress.shown("x", False), open_bytes(path):
        pass
    assert bars == {}


def test_what_is_over_soon_shows_nothing(monkeypatch):
    monkeypatch.setattr(progress, "_console", lambda: pytest.fail("shown"))
    with progress.shown("x", True), progress.watched("y", 1, lambda: 0):
        pass


def test_every_long_read_has_a_bar(bars, data, tmp_path, monkeypatch):
    files = {
        "a.run": "1 Q0 1 1 1 x\n",
        "scores.tsv": "1\t1\t0.5\n",
        "lists.jsonl": '{"query_id": "1", "retrieved_passages": [{"docid": "1", "rank": 1}]}\n',
        "orders.json": '["[1]"]\n',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    collection, queries = Collection(data), Queries(data, True)
    lists = Lists(collection, None, collection, queries, 0)
    run, scores, asked, orders = (str(tmp_path / name) for name in files)
    builder = Builder(Store(str(tmp_path / "store")), CONTEXT)
    builder.get(RunFileValues((run,), "rank", lists))
    builder.get(RankGptOrders(asked, orders, "drop", lists))
    first = RunFileValues((run,), "score", lists)
    builder.get(ScoreFile("mono_scores", (scores,), Lists(first, first, collection, queries, 0)))
    found = {label.split(": ")[1]: total for label, total in bars.items()}
    assert {name: found[name] for name in files} == {n: len(t) for n, t in files.items()}
    corpus = Path(data.dataset.removeprefix("beir:")) / "corpus.jsonl"
    assert found["corpus.jsonl"] == corpus.stat().st_size
    assert all(label.startswith(("small", "run_file-", "rankgpt-", "mono_")) for label in bars)


def test_what_ir_datasets_reads_is_counted_in_rows(bars, data, tmp_path, monkeypatch):
    monkeypatch.setattr(IrDataset, "scoreddocs", lambda self: iter([Scored("1", "1", 1.0)]))
    monkeypatch.setattr(IrDataset, "docpairs", lambda self: iter([Pair("1", "1", "1")] * 2))
    monkeypatch.setattr(IrDataset, "docs", lambda self: iter([("1", "text"), ("2", "other")]))
    builder = Builder(Store(str(tmp_path / "store")), CONTEXT)
    collection, queries = Collection(data), Queries(data, True)
    source = ScoredDocs(dataset="msmarco-passage/dev/small")
    builder.get(source.candidates(collection, queries, "fp32"))
    triples = Triples(dataset="msmarco-passage/train/triples-small")
    with pytest.raises(ValueError, match="no triple is of a query"):
        builder.get(triples.negatives(collection, queries))
    builder.get(Collection(QuerySet(dataset="msmarco-passage/dev/small")))
    found = {label.split(": ")[1]: total for label, total in bars.items()}
    assert found["scoreddocs"] == 6_668_967 and found["docpairs"] == 39_780_811
    assert found["documents"] == 8_841_823

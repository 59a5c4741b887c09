"""Bars of long reads: who has one, where it stands, and that nothing is shown unasked."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live
from rich.progress import Progress

from raypipe import progress
from raypipe.candidates.scored_docs import ScoredDocs
from raypipe.datasets.ir import IrDataset
from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.groups.triples import Triples
from raypipe.inference.lists import Lists
from raypipe.resources import Context, Resources
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.storage.files import open_bytes
from raypipe.teachers.published.rankgpt import RankGptFile
from raypipe.teachers.published.run_file import RunFile
from raypipe.teachers.published.scores import MonoScores

CONTEXT = Context(Resources(), "fp32", progress_bars=True)
Scored = namedtuple("Scored", "query_id doc_id score")
Pair = namedtuple("Pair", "query_id doc_id_a doc_id_b")


@pytest.fixture
def bars(monkeypatch) -> dict[str, Any]:
    """The total of every bar, by its label."""
    totals: dict[str, Any] = {}
    add_task = Progress.add_task

    def noted(self: Progress, label: str, total: float | None = None) -> Any:
        totals[label] = total
        return add_task(self, label, total=total)

    monkeypatch.setattr(Progress, "add_task", noted)
    return totals


@pytest.fixture
def screen(monkeypatch) -> io.StringIO:
    """What a terminal shows of bars that do not wait."""
    written = io.StringIO()
    monkeypatch.setattr(progress, "DELAY_S", 0)
    terminal = {"file": written, "force_terminal": True, "force_interactive": True, "width": 100}
    monkeypatch.setattr(progress, "_console", lambda: Console(**terminal))
    return written


@pytest.fixture
def drawing(monkeypatch, screen) -> Callable[[str], str]:
    """What the screen shows once a pattern stands there; rich draws in its own thread."""
    drawn = threading.Condition()
    refresh = Live.refresh

    def refreshed(self: Live) -> None:
        refresh(self)
        with drawn:
            drawn.notify_all()

    def awaited(pattern: str) -> str:
        with drawn:
            assert drawn.wait_for(lambda: re.search(pattern, screen.getvalue()), 20), pattern
        return screen.getvalue()

    monkeypatch.setattr(Live, "refresh", refreshed)
    return awaited


@pytest.fixture
def data(tmp_path) -> QuerySet:
    folder = tmp_path / "small"
    (folder / "qrels").mkdir(parents=True)
    for name in ("corpus", "queries"):
        (folder / f"{name}.jsonl").write_text(json.dumps({"_id": "1", "text": name}) + "\n")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\t1\t1\n")
    return QuerySet(dataset=f"beir:{folder}", split="test")


@pytest.mark.parametrize("packed", [True, False])
def test_a_bar_stands_where_the_reader_is(screen, drawing, tmp_path, packed):
    """In bytes of the file as it lies there, packed or not."""
    text = random.Random(7).randbytes(3 << 20)  # noise: half of the text is half of the packed file
    path = tmp_path / "long[1].run.gz"
    path.write_bytes(gzip.compress(text) if packed else text)
    with progress.shown("colbert", True), open_bytes(path) as stream:
        assert stream.read(len(text) // 2) == text[: len(text) // 2]
        assert "colbert: long[1].run.gz" in drawing(r"\b5\d%")
        assert stream.read() == text[len(text) // 2 :]
        drawing("100%")


def test_what_runs_stands_at_the_foot_and_bars_below_it(screen, drawing):
    with progress.shown("x", True, "step 2 of 9: tokens \x1b[31m[red]x"):
        drawing(r"step 2 of 9: tokens \ufffd\[31m\[red\]x")
        with progress.counting("rows", 200) as at:
            at(50)
            assert "x: rows" in drawing("25%")
        with progress.counting("texts", 10) as at:
            at(9)
            drawing("90%")
    assert progress._FOOT.get() is None


def test_a_files_name_steers_no_terminal(screen, drawing, tmp_path):
    path = tmp_path / "a\x1b[31m[red]b"
    path.write_bytes(b"x" * 8)
    with progress.shown("[/red]", True), open_bytes(path) as stream:
        stream.read(4)
        assert "[/red]: a\ufffd[31m[red]b" in drawing("100%|50%")


def test_a_count_stands_where_the_reader_says(screen, drawing):
    with progress.shown("x", True), progress.counting("rows", 200) as at:
        at(50)
        assert "x: rows" in drawing("25%")


def test_nothing_is_drawn_where_no_terminal_is(monkeypatch, screen, tmp_path):
    monkeypatch.setattr(progress, "_console", lambda: Console(file=screen))
    path = tmp_path / "x"
    path.write_bytes(b"x")
    with progress.shown("x", True), open_bytes(path) as stream:
        assert stream.read() == b"x"
    with progress.shown("x", True), progress.counting("y", 1) as at:
        at(1)
    assert screen.getvalue() == ""


def test_rich_is_loaded_only_for_a_bar():
    code = (
        "import sys, raypipe.config, raypipe.storage.files, raypipe.recipe.experiment\n"
        "with raypipe.storage.files.open_bytes(raypipe.storage.files.__file__) as f: f.read()\n"
        "print('rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_nothing_is_shown_unasked(bars, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"x")
    with open_bytes(path):
        pass
    with progress.shown("x", False), open_bytes(path):
        pass
    assert bars == {}


def test_what_is_over_soon_draws_nothing(monkeypatch, screen):
    monkeypatch.setattr(progress, "DELAY_S", 600)
    with progress.shown("x", True), progress.counting("y", 1) as at:
        at(1)
    assert screen.getvalue() == ""


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
    builder.get(RunFile(paths=(run,)).scores(lists, "fp32"))
    builder.get(RankGptFile(lists=asked, permutations=orders).scores(lists, "fp32"))
    first = RunFile(paths=(run,), column="score").scores(lists, "fp32")
    pairs = Lists(first, first, collection, queries, 0)
    builder.get(MonoScores(paths=(scores,)).scores(pairs, "fp32"))
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

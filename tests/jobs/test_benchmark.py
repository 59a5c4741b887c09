"""jobs/benchmark.py: its arithmetic, what it mines, and that each way does the same work."""

from __future__ import annotations

import argparse
import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load

JOBS = Path(__file__).resolve().parents[2] / "jobs"
SPLITS = {"train": 20, "validation": 5, "test": 5}


@pytest.fixture
def part(monkeypatch) -> Callable[[str], ModuleType]:
    """Imports a module of jobs/, as the script does."""
    monkeypatch.syspath_prepend(str(JOBS))
    return importlib.import_module


@pytest.mark.parametrize(
    ("unit", "raypipe", "other", "ratio"),
    [
        *(("pairs/s", 30.0, 10.0, 3.0), ("s", 10.0, 30.0, 3.0), ("MB", 600.0, 300.0, 0.5)),
        ("s", 10.0, None, None),
    ],
)
def test_a_ratio_above_one_is_raypipes(part, unit, raypipe, other, ratio):
    rows = part("benchmarks.rows")
    row = rows.Measured("work", unit, raypipe, "another way", other)
    assert row.ratio == ratio
    cells = [cell.strip() for cell in rows.line(row).split("|")]
    shown = ["", ""] if other is None else [f"{other:.1f}", f"{ratio:.2f}"]
    assert cells[1:-1] == ["work", unit, f"{raypipe:.1f}", "another way", *shown]
    written = json.loads(rows.as_json({"cpus": 2}, [row]))
    assert written["machine"] == {"cpus": 2} and written["rows"][0]["ratio"] == ratio


def test_rates_are_the_best_of_rounds_in_turns(part, monkeypatch):
    benchmark = part("benchmark")
    clock = iter([0.0, 0.5, 2.0, 2.0] * 2 + [0.0, 0.5, 1.0, 1.0] * 2)
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(clock))
    calls: list[str] = []

    def work(name: str, done: int) -> Callable[[], int]:
        return lambda: calls.append(name) or done

    assert benchmark.rates(work("a", 8), work("b", 2), 1.0, 2) == (8.0, 2.0)
    assert calls == ["a", "a", "b", "b"] * 2  # each first one warms up


def test_only_the_parts_that_are_asked_for_are_measured(part, monkeypatch):
    benchmark, rows = part("benchmark"), part("benchmarks.rows")
    asked: list[tuple[str, tuple]] = []

    def named(name: str) -> argparse.Namespace:
        def measured(*arguments: object) -> list:
            asked.append((name, arguments))
            return [rows.Measured(name, "s", 1.0)]

        return argparse.Namespace(rows=measured)

    monkeypatch.setattr(benchmark.importlib, "import_module", named)
    options = argparse.Namespace(
        only=["mining", "fixed"], passages=[7], repeats=2, seconds=1, rounds=1, choices=False
    )
    works = [row.work for row in benchmark.measured(options)]
    assert works == ["benchmarks.mining", "benchmarks.fixed"]
    assert asked == [("benchmarks.mining", ([7], 2)), ("benchmarks.fixed", ())]


def test_the_collection_is_the_same_every_time_and_answers_its_queries(part, tmp_path):
    mining = part("benchmarks.mining")
    for name in ("a", "b"):
        mining.write_collection(tmp_path / name, 200, SPLITS)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 5
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    docs, queries = (
        {row["_id"]: row["text"].split() for row in map(json.loads, (tmp_path / "a" / name).open())}
        for name in ("corpus.jsonl", "queries.jsonl")
    )
    judged: list[tuple[str, str]] = []
    for split, count in SPLITS.items():
        head, *lines = (tmp_path / "a" / "qrels" / f"{split}.tsv").read_text().splitlines()
        assert head == "query-id\tcorpus-id\tscore" and len(lines) == count
        judged += [tuple(line.split("\t")[:2]) for line in lines]
    assert len({query for query, _ in judged}) == sum(SPLITS.values()) == len(queries)
    assert all(len(queries[q]) == 5 and set(queries[q]) <= set(docs[d]) for q, d in judged)


def test_its_recipes_are_recipes(part, tmp_path):
    mining, fixed = part("benchmarks.mining"), part("benchmarks.fixed")
    mining.write_collection(tmp_path / "passages", 200, SPLITS)
    mined = load(Experiment, mining.write_recipe(tmp_path / "passages"))
    assert mined.candidates.depth == mining.DEPTH and mined.teacher is None
    small = load(Experiment, fixed.write_recipe(tmp_path / "passages"))
    assert small.stages["contrastive"].steps == 3


def test_the_plain_script_runs_and_its_cost_is_counted(part, tmp_path):
    import sys

    mining = part("benchmarks.mining")
    mining.write_collection(tmp_path / "passages", 200, SPLITS)
    script = [sys.executable, "-c", mining.PLAIN, str(tmp_path / "passages")]
    cost = mining.watched([*script, "10"], tmp_path / "home")
    assert cost.seconds > 0 and cost.cpu_seconds > 0 and cost.peak_mb > 0
    with pytest.raises(SystemExit, match="exit 1 of 1000"):  # more than there are documents
        mining.watched([*script, "1000"], tmp_path / "home")


def test_exact_search_finds_what_faiss_finds(part):
    pytest.importorskip("faiss")
    dense = part("benchmarks.dense")

    def once(raypipe: Callable[[], int], other: Callable[[], int]) -> tuple[float, float]:
        return float(raypipe()), float(other())

    (row,) = dense.rows(once, docs=300, queries=4)
    assert (row.unit, row.raypipe, row.other) == ("queries/s", 4.0, 4.0)


def test_every_way_of_scoring_and_training_takes_the_same_pairs(part, monkeypatch):
    models = part("benchmarks.models")
    for name, value in {"LENGTH": 16, "SCORED": 8, "TRAINED": 8, "SIZES": (4,)}.items():
        monkeypatch.setattr(models, name, value)
    monkeypatch.setattr(models.gpu, "DOCS", 4)
    pairs = [(f"what is number {n}", f"it is {n} " * n) for n in range(1, 9)]
    monkeypatch.setattr(models, "texts", lambda: pairs)
    monkeypatch.setattr(models.gpu.Bench, "rate", lambda bench, work: float(work()))

    def once(raypipe: Callable[[], int], other: Callable[[], int]) -> tuple[float, float]:
        return float(raypipe()), float(other())

    rows = list(models.rows(once))
    assert [row.work.split(",")[0] for row in rows] == ["scoring"] * 2 + ["training"] * 3
    assert {(row.raypipe, row.other) for row in rows} == {(8.0, 8.0)}
    assert [row.against.partition(", ")[2] for row in rows] == [
        *("as shipped: fp32, batches of 32", "at its best: bf16, batches of 4"),
        *("as shipped: fp32, dropout .1", "as shipped, in bf16", "at its best: bf16, no dropout"),
    ]


def test_encoding_gives_the_vectors_of_sentence_transformers(part, monkeypatch):
    vectors, models = part("benchmarks.vectors"), part("benchmarks.models")
    for name, value in {"SIZES": (2, 4), "ENCODED": 4, "LONGEST": 16}.items():
        monkeypatch.setattr(vectors, name, value)
    pairs = [(f"what is number {n}", f"it is {n} " * n) for n in range(1, 9)]
    monkeypatch.setattr(models, "texts", lambda: pairs)
    gpu = part("benchmarks.gpu")
    monkeypatch.setattr(gpu.Bench, "rate", lambda bench, work: float(work()))

    def once(raypipe: Callable[[], int], other: Callable[[], int]) -> tuple[float, float]:
        return float(raypipe()), float(other())

    rows = list(vectors.encoding(once))  # which compares the vectors itself
    assert [(row.unit, row.raypipe, row.other) for row in rows] == [("texts/s", 4.0, 4.0)] * 2
    assert [row.against.partition(", ")[2] for row in rows] == [
        "batches of 32, its default",
        "batches of 2, its best",
    ]


def test_a_step_in_parts_has_the_gradients_of_the_plain_step(part, monkeypatch):
    """Here in one process, of a few short texts."""
    import numpy as np

    vectors = part("benchmarks.vectors")
    for name, value in {"QUERIES": 4, "DOCS": 2, "LENGTH": 8, "STEPS": 1}.items():
        monkeypatch.setattr(vectors, name, value)

    def here(share: int, folder: Path) -> dict:
        folder.mkdir()
        figures = vectors.one_step(share, folder)
        return {**figures, "gradients": np.load(folder / "gradients.npy")}

    monkeypatch.setattr(vectors, "_in_a_process", here)
    rows = list(vectors.caching((1, 4)))
    assert [row.unit for row in rows] == ["MB", "s", "ppm"]
    _, seconds, off = rows
    assert seconds.raypipe > 0 < seconds.other and 0 < off.raypipe < 100


def test_growing_asks_only_what_is_new_and_ends_with_the_bytes_of_a_fresh_start(
    part, tmp_path, monkeypatch
):
    """Eight new passages of 80 and two new queries of 12; what is known is neither read by a model
    nor asked again."""
    increments = part("benchmarks.increments")
    monkeypatch.setattr(increments, "DEPTH", 6)
    grown, fresh = increments.both(tmp_path, 72, 10, 8, 2)
    assert len(fresh.files) == 9 and all(fresh.files.values())
    other = {name.split()[0] for name in fresh.files if grown.files[name] != fresh.files[name]}
    if torch.backends.cpu.get_cpu_capability() == "AVX2":  # where it was measured
        assert other == set()
    assert other <= {"vectors", "cross-encoder"}
    assert fresh.questions == 12 * 3 and 2 * 3 <= grown.questions < 12 * 3 / 2
    counts = {
        manifest["kind"]: manifest["counts"]
        for path in sorted((tmp_path / "storage").glob("*/*/manifest.json"), key=os.path.getmtime)
        for manifest in [json.loads(path.read_text())]
        if manifest["kind"] in ("tokens", "embeddings", "teacher")
    }
    assert counts["tokens"]["texts_taken_over"] == counts["embeddings"]["texts_taken_over"] == 10
    assert counts["teacher"]["requests_taken_over"] == fresh.questions - grown.questions

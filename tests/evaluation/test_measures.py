from __future__ import annotations

import math
from pathlib import Path

import ir_measures
import pyarrow as pa
import pytest

from raypipe.evaluation.measures import (
    _with_relevance,
    bounded,
    evaluate,
    means,
    parse_measures,
    unjudged_queries,
)
from raypipe.evaluation.ranking import ranking
from raypipe.records import METRICS, QRELS, RUN
from raypipe.tables.trec_run import read_trec_run

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "data" / "msmarco-dl"


def run(lists: dict[str, list[str]]) -> pa.Table:
    rows = [{"query_id": q, "doc_ids": d, "scores": [0.0] * len(d)} for q, d in lists.items()]
    return pa.Table.from_pylist(rows, schema=RUN)


def qrels(rows: list[tuple[str, str, int]]) -> pa.Table:
    keys = ("query_id", "doc_id", "relevance")
    return pa.Table.from_pylist([dict(zip(keys, r, strict=True)) for r in rows], schema=QRELS)


def per_query(table: pa.Table) -> dict[tuple[str, str], float]:
    return {(r["query_id"], r["measure"]): r["value"] for r in table.to_pylist()}


JUDGED = qrels([("q1", "a", 1), ("q1", "b", 2), ("q1", "n", 0), ("q2", "a", 3), ("q3", "z", 0)])


# --- names -------------------------------------------------------------------


def test_valid_names_parse():
    names = ["nDCG@10", "RR@10", "R@100", "AP", "Judged@10", "RR(rel=2)@10", "P@5", "MRR@10"]
    assert [str(m) for m in parse_measures(names)] == [*names[:-1], "RR@10"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ndcg@10", "'ndcg@10': there is no 'ndcg'; did you mean 'nDCG'"),
        ("Sucess@5", "there is no 'Sucess'; did you mean 'Success'"),
        ("zzz", "there is no 'zzz'; valid: AP, .*nDCG"),
        ("nDCG@", "'nDCG@': .*expected a form such as nDCG@10"),
        ("R", "'R': .*R needs cutoff"),
        ("RR(rex=2)@10", "unsupported params found: .'rex'"),
        ("RR@0", "expected a cutoff of at least 1"),
        ("NumRet", "is a count"),
        ("BPM(max_rel=3)@10", "no installed provider"),
        ("", "there is no ''"),
    ],
)
def test_wrong_names_say_what_is_valid(name, message):
    with pytest.raises(ValueError, match=message):
        parse_measures([name])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AP", "AP@100"),
        ("AP(rel=2)", "AP(rel=2)@100"),
        ("MAP", "MAP@100"),
        ("AP@10", "AP@10"),
        ("nDCG@10", "nDCG@10"),
        ("APx", "APx"),
    ],
)
def test_ap_is_named_by_the_depth_of_the_lists(name, expected):
    assert bounded(name, 100) == expected


def test_ap_of_lists_is_ap_at_their_depth():
    lists, judged = {"q": ["x", "a", "b"]}, qrels([("q", d, 1) for d in "abcdef"])
    got = per_query(evaluate(run(lists), judged, ["AP", "AP@3", "AP(rel=1)@3"]))
    assert len(set(got.values())) == 1


# --- values ------------------------------------------------------------------


def test_values_by_hand_and_rows_in_order():
    table = evaluate(run({"q1": ["n", "b", "u", "a"]}), JUDGED, ["nDCG@10", "RR@10", "Judged@3"])
    assert table.schema == METRICS
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    got = per_query(table)
    assert got["q1", "nDCG@10"] == pytest.approx((2 / math.log2(3) + 1 / math.log2(5)) / ideal)
    assert got["q1", "RR@10"] == 0.5
    assert got["q1", "Judged@3"] == pytest.approx(2 / 3)
    assert table["query_id"].to_pylist() == ["q1"] * 3 + ["q2"] * 3 + ["q3"] * 3
    assert table["measure"].to_pylist() == ["nDCG@10", "RR@10", "Judged@3"] * 3


def test_queries_without_results_or_relevant_documents_count_zero():
    names = ["nDCG@10", "RR@10", "RR", "R@100", "AP", "P@5", "Success@5", "Judged@10"]
    table = evaluate(run({"q1": ["b", "a"], "q2": []}), JUDGED, names)
    got = per_query(table)
    assert len(got) == 3 * len(names)
    assert {got[q, n] for q in ("q2", "q3") for n in names} == {0.0}
    assert means(table)["nDCG@10"] == pytest.approx(1 / 3)  # q1 is perfect


def test_the_order_counts_even_where_scores_contradict_it():
    table = pa.Table.from_pylist(
        [{"query_id": "q2", "doc_ids": ["x", "a"], "scores": [0.0, 9.0]}], schema=RUN
    )
    assert per_query(evaluate(table, JUDGED, ["RR@10"]))["q2", "RR@10"] == 0.5


def test_positive_relevance_applies_where_the_name_gives_none():
    names = ["RR@10", "RR(rel=1)@10", "RR(rel=2)@10", "P@1", "R@1", "AP", "Success@1", "nDCG@1"]
    got = per_query(evaluate(run({"q1": ["a", "b"]}), JUDGED, names, positive_relevance=2))
    assert [got["q1", n] for n in names] == [0.5, 1.0, 0.5, 0.0, 0.0, 0.5, 0.0, 0.5]
    got = per_query(evaluate(run({"q1": ["a", "b"]}), JUDGED, names))
    assert [got["q1", n] for n in names] == [1.0, 1.0, 0.5, 1.0, 0.5, 1.0, 1.0, 0.5]


def test_positive_relevance_leaves_graded_measures_alone():
    """RBP takes the grades as gains unless `rel` is given; its provider may be missing here."""
    graded = ir_measures.parse_measure("RBP(p=0.8)@10")
    assert str(_with_relevance(graded, 2)) == "RBP@10"
    assert str(_with_relevance(ir_measures.parse_measure("P@5"), 2)) == "P(rel=2)@5"


def test_names_stay_as_given_and_repeats_count_once():
    table = evaluate(run({"q1": ["a"]}), qrels([("q1", "a", 1)]), ["MRR@10", "RR@10", "MRR@10"])
    assert per_query(table) == {("q1", "MRR@10"): 1.0, ("q1", "RR@10"): 1.0}
    assert table.num_rows == 2


def test_negative_relevance_is_not_relevant_yet_judged():
    judged = qrels([("q", "spam", -2), ("q", "a", 1)])
    got = per_query(evaluate(run({"q": ["spam", "a"]}), judged, ["nDCG@10", "RR@10", "Judged@10"]))
    assert got["q", "nDCG@10"] == pytest.approx(1 / math.log2(3))
    assert (got["q", "RR@10"], got["q", "Judged@10"]) == (0.5, 1.0)


@pytest.mark.parametrize("measure", ["nDCG@10", "nDCG", "RR@10", "AP"])
def test_a_query_judged_only_negative_counts_zero(measure, monkeypatch):
    """trec_eval's nDCG hangs on such a query now and then: no provider gets to see one."""
    seen = []
    calc = ir_measures.iter_calc
    monkeypatch.setattr(
        ir_measures, "iter_calc", lambda m, qrels, r: seen.append(qrels) or calc(m, qrels, r)
    )
    judged = qrels([("bad", "a", -1), ("bad", "b", -2), ("q", "a", 1)])
    got = per_query(evaluate(run({"bad": ["a", "x", "b"], "q": ["a"]}), judged, [measure]))
    assert got == {("bad", measure): 0.0, ("q", measure): pytest.approx(1.0)}
    assert min(r for judged in seen for docs in judged.values() for r in docs.values()) == 0


def test_infap_knows_a_negative_relevance(monkeypatch):
    seen = []
    calc = ir_measures.iter_calc
    monkeypatch.setattr(
        ir_measures, "iter_calc", lambda m, qrels, r: seen.append(qrels) or calc(m, qrels, r)
    )
    evaluate(run({"q": ["a"]}), qrels([("q", "a", -1)]), ["infAP"])
    assert seen == [{"q": {"a": -1}}]


def test_queries_without_judgement_are_left_out_and_counted():
    table = run({"q1": ["b", "a"], "new": ["a"], "newer": []})
    assert set(evaluate(table, JUDGED, ["AP"])["query_id"].to_pylist()) == {"q1", "q2", "q3"}
    assert unjudged_queries(table, JUDGED) == 2


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="found empty qrels"):
        evaluate(run({"q1": ["a"]}), QRELS.empty_table(), ["AP"])
    with pytest.raises(ValueError, match="positive_relevance of at least 1, found 0"):
        evaluate(run({"q1": ["a"]}), JUDGED, ["AP"], positive_relevance=0)
    with pytest.raises(ValueError, match="ranks document 'a' twice"):
        evaluate(run({"q1": ["a", "a"]}), JUDGED, ["AP"])


# --- published runs ----------------------------------------------------------

FIGURES = {
    "runs/bm25": (0.5058, 0.4796),
    "runs/splade": (0.7308, 0.7197),
    "runs/tasb": (0.7210, 0.6854),
    "runs/colbert": (0.7316, 0.7254),
    "llm/gpt-3.5.bm25": (0.6938, 0.6385),
    "llm/rankvicuna.bm25": (0.6840, 0.6648),
    "llm/rankvicuna.splade": (0.7644, 0.7551),
}


@pytest.fixture(scope="module")
def judgements() -> dict[str, pa.Table]:
    if not PUBLISHED.is_dir():
        pytest.skip(f"no published runs at {PUBLISHED}")
    out = {}
    for year in ("dl19", "dl20"):
        lines = (PUBLISHED / "qrels" / f"{year}.tsv").read_text("utf-8").splitlines()[1:]
        rows = [line.split("\t") for line in lines]
        out[year] = qrels([(q, d, int(r)) for q, d, r in rows])
    return out


@pytest.mark.parametrize("name", FIGURES)
def test_published_figures_to_four_decimals(name, judgements):
    got = []
    for year, judged in judgements.items():
        table, _ = read_trec_run(PUBLISHED / f"{name}.{year}.run.gz")
        assert unjudged_queries(table, judged) == 0
        got.append(round(means(evaluate(table, judged, ["nDCG@10"]))["nDCG@10"], 4))
    assert tuple(got) == FIGURES[name]


def test_reciprocal_rank_at_relevance_two_equals_a_naive_loop(judgements):
    judged = judgements["dl19"]
    table, _ = read_trec_run(PUBLISHED / "runs/bm25.dl19.run.gz")
    relevant = {(r["query_id"], r["doc_id"]) for r in judged.to_pylist() if r["relevance"] >= 2}
    naive = {}
    for query_id, doc_ids in ranking(table).items():
        hits = [rank for rank, d in enumerate(doc_ids[:10], 1) if (query_id, d) in relevant]
        naive[query_id, "RR@10"] = 1 / hits[0] if hits else 0.0
    assert len(naive) == 43
    assert per_query(evaluate(table, judged, ["RR@10"], positive_relevance=2)) == naive

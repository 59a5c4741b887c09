"""Metrics of a run, and the run file beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import ir_measures
import pyarrow as pa
import pytest
import pytrec_eval

from raypipe.datasets.steps import Queries, QuerySet
from raypipe.records import RUN
from raypipe.runs.metrics import Metrics
from raypipe.storage.artifacts import Attempt, Step, Store
from raypipe.storage.builder import Builder
from raypipe.tables.trec_run import read_trec_run


@dataclass(frozen=True)
class OneList(Step):
    """A run of one query under any name."""

    label: str
    query_id: str

    kind: ClassVar[str] = "run"

    @property
    def name(self) -> str:
        return self.label

    def run(self, attempt: Attempt, context: Any) -> dict[str, int]:
        columns = [[self.query_id], [["d1", "d2"]], [[2.0, 1.0]]]
        attempt.put_table(pa.table(columns, schema=RUN))
        return {"rows": 1}


@pytest.mark.parametrize(
    ("name", "tag"),
    [("bm25-tiny", "bm25-tiny"), ("bert-first pass", "bert-first_pass"), ("a\n\tb", "a_b")],
)
def test_a_name_is_one_column_of_the_run_file(beir_folder, tmp_path, name, tag):
    queries = Queries(QuerySet(dataset=f"beir:{beir_folder}", split="test"), False)
    builder = Builder(Store(str(tmp_path)))
    query_id = str(queries.select().queries["query_id"][0])
    metrics = builder.get(Metrics(OneList(name, query_id), queries, ("nDCG@10",)))
    table, counts = read_trec_run(metrics.local() / "run.trec")
    assert table["scores"].to_pylist() == [[2.0, 1.0]]
    assert counts["kept"] == 2 and set(table["sources"].to_pylist()[0]) == {tag}


# --- what others read from the file ---------------------------------------------------------------

LISTS = {
    "ties": (["a", "b", "c", "d"], [0.0, 0.0, 0.0, 0.0]),
    "tail": (["d", "c", "b", "a"], [-3.5, -3.5, 20.0, 19.0]),
    "rise": (["b", "a", "d", "c"], [1.0, 2.0, 3.0, 4.0]),
    "plain": (["a", "d"], [7.0, 6.0]),
}
"""The re-ranked head has two documents."""
RELEVANT = {"ties": "bd", "tail": "ca", "rise": "ad", "plain": "d", "nothing": "a"}
MEASURES = ("nDCG@10", "nDCG@2", "RR@10", "AP", "P@2", "R@3")


@dataclass(frozen=True)
class Reranked(Step):
    """Two documents of every list are re-ranked, the others follow."""

    depth: int = 2
    kind: ClassVar[str] = "run"
    name: ClassVar[str] = "model"  # type: ignore[misc]

    def run(self, attempt: Attempt, context: Any) -> dict[str, int]:
        rows = [{"query_id": q, "doc_ids": d, "scores": s} for q, (d, s) in LISTS.items()]
        attempt.put_table(pa.Table.from_pylist(rows, schema=RUN))
        return {"rows": len(rows)}


def judged_folder(folder: Path) -> str:
    (folder / "qrels").mkdir()
    docs = [{"_id": d, "title": "", "text": f"text of {d}"} for d in "abcd"]
    queries = [{"_id": q, "text": f"what is {q}"} for q in RELEVANT]
    for name, lines in (("corpus", docs), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    qrels = [f"{q}\t{d}\t{1 + i}" for q, docs in RELEVANT.items() for i, d in enumerate(docs)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *qrels]))
    return f"beir:{folder}"


def test_pytrec_eval_and_ir_measures_find_the_reported_values_in_the_file(tmp_path):
    """Both order by score, which the file lets fall strictly, ties and tail included."""
    queries = Queries(QuerySet(dataset=judged_folder(tmp_path), split="test"), False)
    builder = Builder(Store(str(tmp_path / "storage")))
    metrics = builder.get(Metrics(Reranked(), queries, MEASURES))
    reported = {(r["query_id"], r["measure"]): r["value"] for r in metrics.table().to_pylist()}
    qrels = {q: {d: 1 + i for i, d in enumerate(docs)} for q, docs in RELEVANT.items()}
    path = metrics.local() / "run.trec"

    ran = list(ir_measures.read_trec_run(str(path)))
    found = ir_measures.iter_calc([ir_measures.parse_measure(m) for m in MEASURES], qrels, ran)
    values = {(m.query_id, str(m.measure)): m.value for m in found}
    assert values == pytest.approx(reported)

    with path.open() as lines:
        run = pytrec_eval.parse_run(lines)
    names = {"ndcg_cut_10": "nDCG@10", "map": "AP", "recip_rank": "RR@10", "ndcg_cut_2": "nDCG@2"}
    evaluated = pytrec_eval.RelevanceEvaluator(
        qrels, {"ndcg_cut.2,10", "map", "recip_rank"}
    ).evaluate(run)
    assert set(evaluated) == set(LISTS)
    for query_id, values_by_name in evaluated.items():
        for name, measure in names.items():
            assert values_by_name[name] == pytest.approx(reported[query_id, measure]), measure
    assert reported["nothing", "AP"] == 0.0


def test_lowered_scores_and_lists_that_say_nothing_are_counted(tmp_path):
    queries = Queries(QuerySet(dataset=judged_folder(tmp_path), split="test"), False)
    metrics = Builder(Store(str(tmp_path / "storage"))).get(Metrics(Reranked(), queries, ("AP",)))
    assert metrics.counts["scores_lowered"] == 3 + 3 + 3
    assert metrics.counts["queries_with_constant_scores"] == 2  # ties and tail: their head
    lines = (metrics.local() / "run.trec").read_text().splitlines()
    tags = {line.split()[2]: line.split()[5] for line in lines if line.startswith("tail")}
    assert tags == {"d": "model", "c": "model"} | dict.fromkeys("ba", "model-first-stage")

"""Six documents, three queries and their lists, and what a teacher gives for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from raypipe.candidates.trec_run import TrecRun
from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.inference.lists import Lists
from raypipe.storage.artifacts import Artifact, Step

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "data" / "msmarco-dl"
DOCS = [f"d{i}" for i in range(6)]
CANDIDATES = {"q1": ["d0", "d1", "d2", "d3"], "q2": ["d2", "d0"], "q3": []}
DEPTH = 3
"""So d3 is a candidate of q1 that no teacher is asked for."""
EXTRA = {"q1": ["d5"], "q2": ["d0"]}
GOOD = {"query_id": "q1", "retrieved_passages": ["d0", "d1"]}
"""A line of RankGPT's lists."""


@dataclass(frozen=True)
class Extra(Step):
    """What training adds to the lists."""

    kind: ClassVar[str] = "negatives"
    name = "extra"

    def run(self, attempt: Any, context: Any) -> Mapping[str, Any]:
        rows = [{"query_id": q, "doc_ids": d} for q, d in EXTRA.items()]
        attempt.put_table(pa.Table.from_pylist(rows))
        return {}


def six_lists(root: Path) -> Lists:
    """Writes the data set into `root`, a folder named six, with its first stage."""
    (root / "qrels").mkdir(parents=True)
    corpus = [{"_id": d, "title": "", "text": f"text of {d}"} for d in DOCS]
    queries = [{"_id": q, "text": f"text of {q}"} for q in CANDIDATES]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    judged = "".join(f"{q}\td0\t1\n" for q in CANDIDATES)
    (root / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    lines = [f"{q} Q0 {d} {r} 1 x" for q, ds in CANDIDATES.items() for r, d in enumerate(ds)]
    (root / "first.run").write_text("\n".join(lines))
    sets = QuerySet(dataset=f"beir:{root}", split="test")
    collection, queries = Collection(sets), Queries(sets, require_positive=False)
    run = TrecRun(paths=(str(root / "first.run"),), depth=10, name="first")
    first = run.candidates(collection, queries, "fp32")
    return Lists(first, Extra(), collection, queries, DEPTH)


def said(artifact: Artifact) -> dict[str, dict[str, float]]:
    rows = artifact.table().to_pylist()
    assert [r["query_id"] for r in rows] == query_order(artifact)
    return {r["query_id"]: dict(zip(r["doc_ids"], r["values"], strict=True)) for r in rows}


def query_order(artifact: Artifact) -> list[str]:
    """Of the query set: by hash of the id."""
    path = next(Path(artifact.store.root).glob("queries/six*/attempt-*/queries.arrow"))
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()["query_id"].to_pylist()


def tabs(*lines: str) -> str:
    return "".join("\t".join(line.split()) + "\n" for line in lines)


def passages(*docs: str, start: int = 1) -> list[dict[str, Any]]:
    return [{"docid": d, "rank": r} for r, d in enumerate(docs, start)]


def json_lines(lines: list[Any]) -> bytes:
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


MANY = json_lines([{**GOOD, "query_id": f"x{i}"} for i in range(200)])
"""200 lists of other queries, as RankGPT writes them."""

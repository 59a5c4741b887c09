"""A data set of eight documents and six queries, and what a source of candidates gives for them."""

from __future__ import annotations

import json
from pathlib import Path

from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.storage.builder import Builder

DOCS = [f"d{i}" for i in range(8)]
QUERIES = [f"q{i}" for i in range(6)]


def small_data(root: Path) -> QuerySet:
    """A BEIR folder below `root`."""
    folder = root / "small"
    (folder / "qrels").mkdir(parents=True)
    docs = [{"_id": d, "title": "", "text": f"text of {d}"} for d in DOCS]
    queries = [{"_id": q, "text": f"about {q}"} for q in QUERIES]
    for name, rows in (("corpus", docs), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    lines = ["query-id\tcorpus-id\tscore", *(f"{q}\td0\t1" for q in QUERIES)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    return QuerySet(dataset=f"beir:{folder}", split="test")


def read(builder: Builder, data: QuerySet, source) -> tuple[dict[str, list[str]], dict, list]:
    """Lists by query in the artifact's order, counts, rows."""
    artifact = builder.get(source.candidates(Collection(data), Queries(data, False), "fp32"))
    rows = artifact.table().to_pylist()
    assert all(r["ranks"] == list(range(1, len(r["doc_ids"]) + 1)) for r in rows)
    return {r["query_id"]: r["doc_ids"] for r in rows}, artifact.counts, rows

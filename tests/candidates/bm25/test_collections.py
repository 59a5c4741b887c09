"""BM25 on three public collections: any number of shards gives bm25s' ranking of the whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from bm25_tiny import METHODS, Made, best, got, index_of, terms_of, whole

from raypipe.candidates.bm25.search import Bm25Search
from raypipe.candidates.bm25.vocabulary import Bm25Options
from raypipe.evaluation.measures import evaluate, means
from raypipe.records import QRELS, RUN

SHARED = Path(__file__).resolve().parents[4] / "shared" / "ir_home"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared collections are not here")

DEPTH = 100
NDCG = {"vaswani": 0.428, "cranfield": 0.341, "beir/scifact/test": 0.686}
"""nDCG@10 of bm25s and ir_measures alone; scifact's is published."""

DUMP = """
import json, sys
from raypipe.datasets.ir import open_dataset
for name in sys.argv[2:]:
    data = open_dataset(name)
    data.check()
    docs = {doc_id: text for doc_id, text in data.docs() if text}
    parts = [docs, dict(data.queries()), list(data.qrels())]
    with open(f"{sys.argv[1]}/{name.replace('/', '-')}.json", "w") as out:
        json.dump(parts, out)
"""


@dataclass
class Data:
    docs: dict[str, str]
    queries: dict[str, str]
    qrels: pa.Table
    terms: Made
    root: Path


@pytest.fixture(scope="module")
def dumped(tmp_path_factory) -> Path:
    """ir_datasets reads its home when it is imported, so this needs a process of its own."""
    folder = tmp_path_factory.mktemp("collections")
    shutil.copytree(SHARED, folder / "ir", copy_function=shutil.copyfile)
    environment = {**os.environ, "IR_DATASETS_HOME": str(folder / "ir")}
    subprocess.run([sys.executable, "-c", DUMP, str(folder), *NDCG], env=environment, check=True)
    return folder


def read(dumped: Path, name: str) -> Data:
    file = dumped / f"{name.replace('/', '-')}.json"
    docs, queries, judged = json.loads(file.read_text())
    qrels = pa.table([list(c) for c in zip(*judged, strict=True)], schema=QRELS)
    root = dumped / file.stem
    return Data(docs, queries, qrels, terms_of(root, docs, Bm25Options(), size=1500), root)


def same_as_whole(data: Data, options: Bm25Options, shards: list[int]) -> list:
    """Ids, ranks and scores, bit for bit; returns them per query."""
    ids, index = list(data.docs), whole(data.docs, options)
    terms = options.tokenize(data.queries.values())
    expected = [best(index, ids, one, DEPTH) for one in terms]
    for count in shards:
        made, _ = index_of(data.root, data.terms, len(ids), options, -(-len(ids) // count))
        assert len(list(made.path.glob("part-*"))) == count
        assert got(Bm25Search(made.local(), options), ids, terms, DEPTH) == expected
    return expected


@pytest.mark.parametrize("name", NDCG)
def test_shards_rank_as_bm25s_does_on_the_whole(dumped, name):
    data = read(dumped, name)
    found = same_as_whole(data, Bm25Options(), [1, 3, 7])
    rows = [
        {"query_id": q, "doc_ids": [d for d, _ in row], "scores": [s for _, s in row]}
        for q, row in zip(data.queries, found, strict=True)
    ]
    run = pa.Table.from_pylist(rows, schema=RUN)
    value = means(evaluate(run, data.qrels, ["nDCG@10"]))["nDCG@10"]
    print(f"{name}: nDCG@10 {value:.4f}")
    assert value == pytest.approx(NDCG[name], abs=0.001)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_on_cranfield(dumped, method):
    assert same_as_whole(read(dumped, "cranfield"), Bm25Options(method=method), [3, 7])

"""Pairs scored in batches and passages are pairs scored one at a time."""

from __future__ import annotations

import json
import types
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.inference.pairs import Template
from raypipe.inference.scoring import PairScorer, ready_to_score
from raypipe.inference.token_reader import TokenReader, token_table
from raypipe.inference.truncation import Budgets, LongestFirst, MaxP, Pair, Truncation
from raypipe.models.cross_encoder import CrossEncoder, save
from raypipe.models.tokenizer import load_tokenizer
from raypipe.records import CANDIDATES, DOCS, QUERIES
from raypipe.runs.rerank import _Score

MAX_P = MaxP(query=3, length=10, stride=6, max_passages=4)
CUTS = [LongestFirst(max_length=20), Budgets(query=3, doc=10), MAX_P]
every_cut = pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.type)
QUERY_SIZES, DOC_SIZES = [1, 3, 5], [0, 1, 9, 10, 11, 16, 17, 28, 29, 60]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_backbone) -> Path:
    """A saved model whose scores lie far apart."""
    path = tmp_path_factory.mktemp("scorer") / "tiny-scorer"
    model = CrossEncoder(backbone="").load(tiny_backbone, 1, training=False, device="cpu")
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 2:
                value.mul_(6)
    save(model, path, tiny_backbone, 64)
    return path


@pytest.fixture(scope="module")
def pairs(folder) -> list[Pair]:
    rng = np.random.default_rng(3)
    size = len(load_tokenizer(folder))
    return [
        (rng.integers(5, size, q).astype(np.uint16), rng.integers(5, size, d).astype(np.uint16))
        for q in QUERY_SIZES
        for d in DOC_SIZES
    ]


def scorer_of(folder: Path, cut: Truncation, budget: int = 200) -> PairScorer:
    model = CrossEncoder(backbone="").load(folder, 9, training=False, device="cpu")
    return PairScorer(model, Template.of(load_tokenizer(folder)), cut, budget, "fp32", "cpu")


def windows(n: int, cut: Truncation) -> list[slice]:
    if not isinstance(cut, MaxP):
        return [slice(0, n)]
    last = max(n - cut.length, 0)
    starts = [s for s in range(0, n + cut.stride, cut.stride) if s < last + cut.stride]
    return [slice(s, s + cut.length) for s in starts[: cut.max_passages]]


def naive(scorer: PairScorer, pair: Pair) -> float:
    """The best of the pair's passages, each a forward of its own without padding."""
    query, doc = pair
    found = []
    for window in windows(len(doc), scorer.truncation):
        if isinstance(scorer.truncation, MaxP):
            q, d = query[: scorer.truncation.query], doc[window]
        else:
            kept = scorer.truncation.cut(len(query), len(doc), 3)
            q, d = query[: kept[0]], doc[: kept[1]]
        inputs = scorer.template.pad([(q, d)])
        with torch.inference_mode():
            logits = scorer.model(**{k: torch.from_numpy(v) for k, v in inputs.items()}).logits
        found.append(float(logits[0, 0]))
    return max(found)


@every_cut
@pytest.mark.parametrize("budget", [1, 200, 100_000])
def test_scores_are_those_of_single_forwards(folder, pairs, cut, budget):
    scorer = scorer_of(folder, cut, budget)
    found = scorer(pairs)
    assert found.dtype == np.float32 and found.shape == (30,)
    np.testing.assert_allclose(found, [naive(scorer, p) for p in pairs], rtol=0, atol=1e-5)
    assert len({round(float(s), 4) for s in found}) > 20
    assert scorer([]).shape == (0,)


@every_cut
def test_the_order_of_the_pairs_does_not_matter(folder, pairs, cut):
    scorer = scorer_of(folder, cut)
    order = np.random.default_rng(1).permutation(len(pairs))
    again = scorer([pairs[i] for i in order])
    np.testing.assert_allclose(again, scorer(pairs)[order], rtol=0, atol=1e-5)


def test_short_documents_score_as_with_budgets_to_the_bit(folder, pairs):
    short = [(q, d[:10]) for q, d in pairs]
    one, two = (scorer_of(folder, cut)(short) for cut in (MAX_P, Budgets(query=3, doc=10)))
    assert one.tobytes() == two.tobytes()


def test_the_maximum_is_no_less_than_the_beginnings_score(folder, pairs):
    best, first = (scorer_of(folder, cut)(pairs) for cut in (MAX_P, MAX_P.replace(max_passages=1)))
    assert (best > first + 1e-3).sum() >= 5
    assert (best >= first - 1e-5).all()


@pytest.mark.parametrize(
    ("cut", "counts"),
    [  # documents over 10 tokens are cut; max_p reads up to 10 + 3 * 6 = 28 of them
        (Budgets(query=3, doc=10), {"pairs": 30, "documents_cut": 18}),
        (MAX_P, {"pairs": 30, "documents_cut": 6, "passages": 3 * (4 + 2 + 2 + 3 + 4 + 4 + 4)}),
        (MAX_P.replace(max_passages=None), {"pairs": 30, "documents_cut": 0, "passages": 90}),
    ],
)
def test_counts_by_hand(folder, pairs, cut, counts):
    assert scorer_of(folder, cut).counts(pairs) == counts


def test_chunks_without_long_documents_count_their_passages_too(folder, pairs):
    """Counters of chunks are added up: a key that one of them lacks would be short."""
    scorer = scorer_of(folder, MAX_P)
    parts = [scorer.counts(pairs[i : i + 5]) for i in range(0, 30, 5)]
    total = {key: sum(part[key] for part in parts) for key in parts[0]}
    assert total == scorer.counts(pairs)
    assert scorer.counts([]) == {"pairs": 0, "documents_cut": 0, "passages": 0}


# --- the job and the logged model ---------------------------------------------------------------


class Folder:
    """Stands for an artifact."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def local(self) -> Path:
        return self._path

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self._path.iterdir())


def write(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(exist_ok=True)
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def test_a_run_counts_what_it_read(folder, tmp_path, pairs):
    docs, queries = [d for _, d in pairs[:10]], [q for q, _ in pairs[::10]]
    write(tmp_path / "c" / DOCS_FILE, pa.table([list("abcdefghij"), ["text"] * 10], schema=DOCS))
    write(tmp_path / "q" / QUERIES_FILE, pa.table([list("123"), ["text"] * 3], schema=QUERIES))
    write(tmp_path / "dt" / "part-00000.arrow", token_table([d.tolist() for d in docs], 1000))
    write(tmp_path / "qt" / "part-00000.arrow", token_table([q.tolist() for q in queries], 1000))
    lists = [
        {
            "query_id": q,
            "doc_ids": ids,
            "ranks": range(1, len(ids) + 1),
            "sources": ["x"] * len(ids),
        }
        | {"scores": [-float(place) for place in range(len(ids))]}
        for q, ids in (("1", list("abcdefghij")), ("2", list("aj")), ("3", []))
    ]
    (tmp_path / "l").mkdir()
    table = pa.Table.from_pylist(lists, schema=CANDIDATES)
    pq.write_table(table, tmp_path / "l" / "part-00000.parquet")
    inputs = {
        "weights": Folder(folder),
        "candidates": Folder(tmp_path / "l"),
        "collection": Folder(tmp_path / "c"),
        "queries": Folder(tmp_path / "q"),
        "query_tokens": Folder(tmp_path / "qt"),
        "doc_tokens": Folder(tmp_path / "dt"),
    }
    model = CrossEncoder(backbone="")
    work = _Score(inputs, model, MAX_P, 9, "fp32", 200, "cpu").build()
    table, counts = work(range(3))
    assert counts == {
        "pairs": 11,  # the tenth document of query 1 is below the depth
        "documents_cut": 2,  # of 29 tokens for query 1, of 60 for query 2
        "passages": 4 + 2 + 2 + 3 + 4 + 4 + 1 + 4,
        "queries_with_constant_scores": 0,
    }
    scorer = scorer_of(folder, MAX_P)
    row = table.to_pylist()[1]
    values = {
        doc: naive(scorer, (TokenReader(tmp_path / "qt")[1], TokenReader(tmp_path / "dt")[place]))
        for doc, place in (("a", 0), ("j", 9))
    }
    assert dict(zip(row["doc_ids"], row["scores"], strict=True)) == pytest.approx(values, abs=1e-5)


@pytest.mark.parametrize("cut", [*CUTS, None], ids=lambda cut: cut.type if cut else "unknown")
def test_the_logged_model_reads_what_the_scorer_reads(folder, beir_folder, tmp_path, cut):
    import shutil

    import pandas as pd

    from raypipe.tracking.pyfunc import Reranker

    here = tmp_path / "checkpoint"
    shutil.copytree(folder, here)
    tokenizer = load_tokenizer(folder)
    settings = json.loads((here / "config.json").read_text())
    if cut is not None:
        settings["raypipe"] = {"truncation": cut.model_dump()}
        (here / "config.json").write_text(json.dumps(settings))
    tokenizer.model_max_length = 20
    tokenizer.save_pretrained(here)
    texts = [json.loads(line)["text"] for line in (beir_folder / "corpus.jsonl").open()]
    asked = [" ".join(text.split()[: 1 + i % 5]) for i, text in enumerate(texts[:45])]
    read = [" ".join(texts[i : i + 1 + i % 4]) for i in range(44)] + [""]
    reranker = Reranker()
    reranker.load_context(types.SimpleNamespace(artifacts={"checkpoint": str(here)}))
    frame = pd.DataFrame({"query": asked, "text": read}, index=range(7, 52))
    found = reranker.predict(None, frame)
    ids = [
        [
            np.array(row, dtype=np.int64)
            for row in tokenizer(s, add_special_tokens=False)["input_ids"]
        ]
        for s in (asked, read)
    ]
    expected = scorer_of(folder, cut or LongestFirst(max_length=20))(list(zip(*ids, strict=True)))
    np.testing.assert_allclose(found["score"], expected, rtol=0, atol=1e-5)
    assert found["score"].dtype == "float32" and list(found.index) == list(range(7, 52))
    assert np.ptp(expected) > 0.01 and len(reranker.predict(None, frame[:0])) == 0


def test_a_head_computes_one_text_at_a_time():
    """A product of few rows adds up in another order than one of many."""
    torch.manual_seed(0)
    model = torch.nn.ModuleDict(
        {"encoder": torch.nn.Linear(384, 384), "pooler": torch.nn.Linear(384, 384)}
    )
    states, plain = torch.randn(5, 384), torch.nn.functional.linear
    pooler = model["pooler"]
    expected = torch.cat([plain(row, pooler.weight, pooler.bias) for row in states.split(1)])
    assert ready_to_score(model, "cpu", "fp32") is model
    assert torch.equal(pooler(states), expected)
    tokens = torch.randn(2, 3, 384)
    assert torch.equal(pooler(tokens), plain(tokens, pooler.weight, pooler.bias))
    assert torch.equal(model["encoder"](states), plain(states, *model["encoder"].parameters()))

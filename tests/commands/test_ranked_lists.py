"""Own lists ranked by a model that exists: the values of sentence-transformers, from own files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from raypipe.commands.named_data import query_set
from raypipe.commands.ranked_lists import Workplace, rerank, retrieve, texts_as_trained
from raypipe.config import ConfigError
from raypipe.datasets.steps import QuerySet
from raypipe.resources import Resources
from raypipe.tables.trec_run import read_trec_run


@pytest.fixture(scope="module")
def scorer(tmp_path_factory, tiny_backbone) -> Path:
    """A cross-encoder of somebody else's: a head with drawn weights, saved by transformers."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("scorer")
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_backbone, num_labels=1)
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_backbone).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory, beir_folder) -> dict[str, Path]:
    """The tiny collection as a user has it: a corpus, queries that nobody judged, a run."""
    folder = tmp_path_factory.mktemp("own")
    docs, queries = (
        {row["_id"]: row["text"] for row in map(json.loads, (beir_folder / name).open())}
        for name in ("corpus.jsonl", "queries.jsonl")
    )
    files = {name: folder / f"{name}.tsv" for name in ("corpus", "queries")}
    files["corpus"].write_text("".join(f"{d}\t{text}\n" for d, text in docs.items()))
    asked = dict(list(queries.items())[:7])
    files["queries"].write_text("".join(f"{q}\t{text}\n" for q, text in asked.items()))
    lines = [
        f"{q} Q0 {d} {r} {10 - r} first\n"
        for i, q in enumerate(asked)
        for r, d in enumerate([f"d{i:03d}", f"d{60 + i:03d}", "d119", "d118", "d117"], start=1)
    ]
    files["run"] = folder / "first.run"
    files["run"].write_text("".join(lines))
    return files


@pytest.fixture
def place(cluster, tmp_path) -> Workplace:
    return Workplace(str(tmp_path / "storage"), "fp32", Resources())


def of_files(own: dict[str, Path]) -> QuerySet:
    return query_set(None, None, str(own["corpus"]), str(own["queries"]), None)


def texts(path: Path) -> dict[str, str]:
    return dict(line.split("\t") for line in path.read_text().splitlines())


def silent(line: str) -> None:
    pass


@pytest.mark.ray
def test_a_cross_encoder_re_ranks_own_files_as_sentence_transformers_does(
    own, scorer, place, tmp_path
):
    from sentence_transformers import CrossEncoder

    ranked = rerank(
        str(scorer), of_files(own), str(own["run"]), 3, place, max_length=24, say=silent
    )
    assert ranked.pairs == 21 and ranked.values == {} and "pairs/s" in ranked.lines()[0]
    assert ranked.write(tmp_path / "out.run.gz") == 7
    table, _ = read_trec_run(tmp_path / "out.run.gz")
    theirs = CrossEncoder(str(scorer), max_length=24, device="cpu")
    docs, queries = texts(own["corpus"]), texts(own["queries"])
    first, _ = read_trec_run(own["run"])
    before = dict(zip(first["query_id"].to_pylist(), first["doc_ids"].to_pylist(), strict=True))
    for row in table.to_pylist():
        head, tail = row["doc_ids"][:3], row["doc_ids"][3:]
        assert sorted(head) == sorted(before[row["query_id"]][:3])
        assert tail == before[row["query_id"]][3:]
        assert (np.diff(row["scores"]) < 0).all()
        pairs = [(queries[row["query_id"]], docs[d]) for d in head]
        expected = theirs.predict(pairs, activation_fn=lambda x: x)
        np.testing.assert_allclose(row["scores"][:3], expected, rtol=0, atol=1e-5)
    again = rerank(str(scorer), of_files(own), str(own["run"]), 3, place, max_length=24, say=silent)
    assert again.seconds == 0 and "nothing was scored again" in again.lines()[0]


@pytest.mark.ray
def test_what_a_run_lacks_is_said(own, tiny_backbone, place, tmp_path):
    lines = own["run"].read_text().splitlines()
    queries = list(texts(own["queries"]))
    partial = [f"{line}\n" for line in lines if not line.startswith(f"{queries[0]} ")]
    alien = [f"{queries[1]} Q0 nowhere{r} {r} {-r} t\n" for r in (8, 9)]
    (tmp_path / "part.run").write_text("".join([*partial, *alien]))
    run = str(tmp_path / "part.run")
    ranked = rerank(str(tiny_backbone), of_files(own), run, 3, place, say=silent)
    assert ranked.write(tmp_path / "out.run") == 6
    assert ranked.lines()[-2:] == [
        f"1 of 7 queries have no list in {run}; they count as 0",
        f"lines of {run} that name documents which the corpus lacks: 2",
    ]


@pytest.mark.ray
def test_a_bi_encoder_re_ranks_and_is_judged(beir_folder, tiny_backbone, place, tmp_path):
    data = QuerySet(dataset=f"beir:{beir_folder}", split="test")
    ranked = rerank(str(tiny_backbone), data, None, 5, place, say=silent)  # of BM25's lists
    assert ranked.judged == 12 and 0 <= ranked.values["nDCG@10"] <= 1
    words = retrieve("bm25", data, 100, place, say=silent)
    assert ranked.before is not None and ranked.before.values == words.values
    assert ranked.lines()[-1].startswith("before, of BM25: nDCG@10 0.")
    assert ranked.write(tmp_path / "out.parquet") == 11  # q59 has no word of the collection
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 12


@pytest.mark.ray
def test_retrieval_with_a_bi_encoder_and_with_bm25(beir_folder, tiny_backbone, place, tmp_path):
    from sentence_transformers import SentenceTransformer

    data = QuerySet(dataset=f"beir:{beir_folder}", split="test")
    dense = retrieve(str(tiny_backbone), data, 4, place, say=silent)
    assert dense.write(tmp_path / "dense.run") == 12
    table, _ = read_trec_run(tmp_path / "dense.run")
    theirs = SentenceTransformer(str(tiny_backbone), device="cpu")
    docs = {
        row["_id"]: row["text"] for row in map(json.loads, (beir_folder / "corpus.jsonl").open())
    }
    queries = {r["_id"]: r["text"] for r in map(json.loads, (beir_folder / "queries.jsonl").open())}
    vectors = theirs.encode(list(docs.values()), normalize_embeddings=True)
    for row in table.to_pylist():
        similar = vectors @ theirs.encode(queries[row["query_id"]], normalize_embeddings=True)
        np.testing.assert_allclose(row["scores"], np.sort(similar)[::-1][:4], rtol=0, atol=1e-4)
    words = retrieve("bm25", data, 4, place, say=silent)
    assert words.values["nDCG@10"] > dense.values["nDCG@10"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((None, None, None, None, None), "either --dataset ID, or --corpus FILE and --queries"),
        (("pydoc", None, "c.tsv", None, None), "name one kind of data"),
        (("pydoc", None, None, None, "q.txt"), "--qrels belongs to --corpus"),
        ((None, None, "c.tsv", None, None), "--queries FILE is missing"),
        ((None, "test", "c.tsv", "q.tsv", None), "--split belongs to --dataset"),
    ],
)
def test_data_has_one_source(given, words):
    with pytest.raises(ConfigError, match=words):
        query_set(*given)


def test_what_cannot_rank_is_refused_before_work(own, tiny_backbone, tmp_path):
    data = of_files(own)
    with pytest.raises(ConfigError, match=r"no\.run: not there"):  # before the model is looked at
        rerank(str(tmp_path / "no-model"), data, str(tmp_path / "no.run"), 3, Workplace())
    with pytest.raises(ConfigError, match="no-model"):
        rerank(str(tmp_path / "no-model"), data, None, 3, Workplace(str(tmp_path)))
    with pytest.raises(ConfigError, match="is a bi-encoder and has no labels"):
        rerank(str(tiny_backbone), data, None, 3, Workplace(str(tmp_path)), label=1)
    with pytest.raises(ConfigError, match="bm25 is for retrieve"):
        rerank("bm25", data, None, 3, Workplace(str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_the_command_lines_name_their_options(command):
    for name in ("rerank.py", "retrieve.py"):
        done = command(name, "--help")
        assert done.returncode == 0 and "--corpus" in done.stdout and "--out" in done.stdout
        done = command(name, "--model", "m", "--dataset", "pydoc", "--precision", "fp8")
        assert done.returncode == 2 and "--precision fp8" in done.stderr
        done = command(name, "--model", "m", "--dataset", "pydoc", "--out", "/nowhere/x.run")
        assert done.returncode == 2 and "no directory /nowhere" in done.stderr


def test_texts_are_made_as_in_training(tiny_backbone, tmp_path):
    folder = shutil.copytree(tiny_backbone, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "raypipe": {"text": "{a}: {b}"}}))
    (tmp_path / "c.csv").write_text("id,a,b\nd1,one,two\n")
    (tmp_path / "c.tsv").write_text("d1\tone\n")
    (tmp_path / "q.tsv").write_text("q1\twhat\n")
    said: list[str] = []
    for name, text in (("c.csv", "one: two"), ("c.tsv", "one")):
        data = query_set(None, None, str(tmp_path / name), str(tmp_path / "q.tsv"), None)
        made = texts_as_trained(str(folder), data, said.append)
        assert list(made.open().docs()) == [("d1", text)]
    assert said[0] == "texts of documents are made as in training: {a}: {b}"
    assert "not made as in training, of {a}: {b}" in said[1] and "c.tsv:1" in said[1]
    own = query_set(None, None, str(tmp_path / "c.csv"), str(tmp_path / "q.tsv"), None, "{b}")
    assert texts_as_trained(str(folder), own, said.append) is own and len(said) == 2

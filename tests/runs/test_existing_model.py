"""Models that exist as rows: last month's best on today's test queries."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from chunks_here import builder_here
from drawn_ranker import drawn_ranker

from raypipe.commands.existing_rows import look_at_run_rows
from raypipe.commands.query_sets import contents
from raypipe.config import ConfigError
from raypipe.evaluation.results import MAIN
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.resources import Context, Resources
from raypipe.runs.baselines import TeacherRun
from raypipe.storage.builder import Builder
from raypipe.sweep.table_rows import baseline_runs, baselines
from raypipe.teachers.bi_encoder import VectorScores
from raypipe.teachers.cross_encoder import CrossEncoderScores

TRUNCATION = {"type": "budgets", "query": 4, "doc": 9}


@pytest.fixture(scope="module")
def ranker(tmp_path_factory, tiny_backbone) -> Path:
    """A cross-encoder with drawn weights that names how it was trained, as raypipe's do."""
    folder = tmp_path_factory.mktemp("ranker") / "checkpoint"
    said = {"truncation": TRUNCATION, "text": "{text} {title}"}
    return drawn_ranker(folder, tiny_backbone, said)


@pytest.fixture(scope="module")
def registered(tmp_path_factory, ranker) -> tuple[str, str]:
    """A store with the model as version 1 of `last month`; its address, and the model's."""
    from raypipe.tracking.recorder import Recorder

    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    recorder = Recorder(uri, "before")
    recorder.start("job", "job", "job")
    recorder.log_model("job", ranker, "reranker", "last month", digest="abc")
    recorder.finish("job")
    assert recorder.drain(60) == (0, 0)
    recorder.close()
    return uri, "models:/last month@best"


def with_model(recipe: Path, uri: str | Path, *more: str) -> Experiment:
    row = json.dumps({"last": {"type": "model", "uri": str(uri)}})
    return load(Experiment, recipe, [f"evaluation.rows={row}", *more])


def looked_at(experiment: Experiment) -> list[str]:
    read = contents(Builder(experiment.store()), make=False)
    return list(look_at_run_rows(experiment, read))


def test_the_weights_decide_the_row_and_not_where_they_are(recipe, ranker, tmp_path):
    def digest(folder: Path) -> str:
        run = with_model(recipe, folder).existing_run("last")
        assert isinstance(run, TeacherRun)
        return run.digest

    same = shutil.copytree(ranker, tmp_path / "same")
    other = shutil.copytree(ranker, tmp_path / "other")
    content = bytearray((other / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (other / "model.safetensors").write_bytes(content)
    assert digest(ranker) == digest(same) != digest(other)


def test_a_registered_model_is_fetched_and_reads_as_it_was_trained(recipe, ranker, registered):
    tracking, uri = registered
    experiment = with_model(recipe, uri, f"tracking={tracking}", "reference=last")
    experiment.check()
    assert expand(experiment)
    run = experiment.existing_run("last")
    assert run.digest == with_model(recipe, ranker).existing_run("last").digest
    assert isinstance(run.teacher, CrossEncoderScores)
    assert run.teacher.teacher.truncation.model_dump(exclude_none=True).items() >= (
        TRUNCATION.items()
    )
    assert run.depth == experiment.depth() == 10
    (line,) = looked_at(experiment)
    assert line.startswith(
        "evaluation.rows.last: models:/last month@best (version 1) re-ranks as a cross-encoder, "
    )
    assert "texts made of {text} {title}" in line


def test_its_template_makes_the_texts_of_files(ranker, beir_folder, recipe, tmp_path):
    docs = map(json.loads, (beir_folder / "corpus.jsonl").open())
    table = [f"{d['_id']},seen,{d['text']}\n" for d in docs]
    (tmp_path / "corpus.csv").write_text("".join(["id,title,text\n", *table]))
    queries = map(json.loads, (beir_folder / "queries.jsonl").open())
    tests = [q for q in queries if q["_id"] in ("q48", "q49")]
    (tmp_path / "queries.tsv").write_text("".join(f"{q['_id']}\t{q['text']}\n" for q in tests))
    (tmp_path / "qrels.txt").write_text("q48 0 d048 1\nq49 0 d049 1\n")
    files = {n: str(tmp_path / f) for n, f in (("corpus", "corpus.csv"),
             ("queries", "queries.tsv"), ("qrels", "qrels.txt"))}  # fmt: skip
    data = json.dumps({"dataset": {**files, "text": "{title}: {text}"}})
    experiment = with_model(recipe, ranker, f"data.test={data}")
    run = experiment.existing_run("last")
    assert next(iter(experiment.query_set(MAIN).open().docs()))[1].startswith("seen: ")
    read = run.teacher.lists.collection.collection.queries
    assert next(iter(read.open().docs()))[1].endswith(" seen")


def test_a_bi_encoder_compares_vectors(recipe, tiny_backbone):
    run = with_model(recipe, tiny_backbone).existing_run("last")
    assert isinstance(run.teacher, VectorScores)
    assert "a bi-encoder, texts as long as" in looked_at(with_model(recipe, tiny_backbone))[0]


def test_a_model_that_is_not_there_is_refused_before_work(recipe, registered, tmp_path):
    tracking, _ = registered
    missing = with_model(recipe, tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"^evaluation\.rows\.last: backbone .*no directory"):
        missing.check()
    unknown = with_model(recipe, "models:/lost month@best", f"tracking={tracking}")
    with pytest.raises(ConfigError) as caught:
        unknown.check()
    said = str(caught.value)
    assert said.startswith("evaluation.rows.last: models:/lost month@best: not found at sqlite://")
    assert "\n" not in said and "page of registered models" in said


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{type: model}", "evaluation.rows.last.uri: field required"),
        ("{type: model, url: x}", "unknown key 'url'; did you mean 'uri'"),
        ("{type: model, uri: ' '}", "expected a model, found nothing"),
    ],
)
def test_a_wrong_row_is_refused_when_it_is_read(recipe, row, words):
    with pytest.raises(ConfigError, match=words):
        load(Experiment, recipe, [f"evaluation.rows={{last: {row}}}"])


def test_a_model_that_was_mixed_is_shown_alone_and_that_is_said(recipe, ranker, tmp_path):
    folder = shutil.copytree(ranker, tmp_path / "mixed")
    config = json.loads((folder / "config.json").read_text())
    config["raypipe"]["interpolation"] = {"weight": 0.7, "columns": {"BM25": 1.0}}
    (folder / "config.json").write_text(json.dumps(config))
    (line,) = looked_at(with_model(recipe, folder))
    assert line.endswith("alone, though it was registered mixed with its first stage (weight 0.7)")


def test_the_row_ranks_as_the_model_scores(recipe, ranker, tmp_path, monkeypatch):
    """Its ten candidates with transformers' own scores of the pairs, cut alike."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    lines = [f"q{q} Q0 d{(q + 7 * r) % 120:03d} {r} {-r} t\n" for q in range(48, 60)
             for r in range(12)]  # fmt: skip
    (tmp_path / "first.run").write_text("".join(lines))
    source = f"candidates={{type: trec_run, paths: ['{tmp_path}/first.run'], depth: 20}}"
    experiment = with_model(recipe, ranker, "reference=last", source)
    monkeypatch.setattr(Resources, "use_gpu", lambda self: False)  # which asks a cluster
    monkeypatch.setattr(Context, "need_ray", lambda self: None)
    builder = builder_here(experiment.store(), monkeypatch)
    only = [row for row in baseline_runs(experiment) if row[0] == "last"]
    monkeypatch.setattr("raypipe.sweep.table_rows.baseline_runs", lambda _: iter(only))
    (row,) = baselines(experiment, builder, [MAIN], print)
    assert row.kind == "model" and len(row.results[MAIN][0]["nDCG@10"]) == 12

    tokenizer = AutoTokenizer.from_pretrained(ranker)
    model = AutoModelForSequenceClassification.from_pretrained(ranker).eval()
    data = experiment.query_set(MAIN).open()
    texts = dict(data.docs())
    queries = dict(zip(*(experiment.queries(MAIN).select().queries[c].to_pylist()
                         for c in ("query_id", "text")), strict=True))  # fmt: skip
    run = builder.get(experiment.existing_run("last")).table().to_pylist()
    (first,) = [one for one in run if one["query_id"] == "q48"]
    for doc_id, score in list(zip(first["doc_ids"], first["scores"], strict=True))[:10]:
        sides = tokenizer([queries["q48"], texts[doc_id]], add_special_tokens=False).encodings
        for side, most in zip(sides, (TRUNCATION["query"], TRUNCATION["doc"]), strict=True):
            side.truncate(most)
        pair = tokenizer.backend_tokenizer.post_process(*sides)
        inputs = {"input_ids": torch.tensor([pair.ids])}
        if "token_type_ids" in tokenizer.model_input_names:
            inputs["token_type_ids"] = torch.tensor([pair.type_ids])
        with torch.no_grad():
            np.testing.assert_allclose(score, model(**inputs).logits.item(), rtol=0, atol=1e-5)

"""A job on Ray that trains retrievers: rows, report, tracked runs, and the commands behind it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tracked_jobs import own_name

from raypipe.commands.compare import plan_of, run
from raypipe.commands.ranked_lists import Workplace, rerank, retrieve
from raypipe.datasets.steps import QuerySet
from raypipe.evaluation.results import MAIN
from raypipe.program.rerank import model_folder
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.resources import Resources
from raypipe.storage.builder import Builder
from raypipe.sweep.plan import Plan
from raypipe.tracking.stored_runs import TrackingStore

LENGTHS = "max_length: 32, query_length: 16"
GIVEN = [
    "truncation={type: longest_first, max_length: 256}",
    "teacher=null",
    "stages.contrastive.loss={type: infonce, over: step}",
    "stages.distil.loss={type: infonce}",
    "evaluation.retrieval=20",
    "evaluation.measures=[nDCG@10, R@20]",
]


@pytest.fixture
def path(mined_recipe, tiny_backbone) -> Path:
    """The small recipe of two trials, as one of a bi-encoder."""
    text = mined_recipe.read_text()
    old = f'model: {{backbone: "{tiny_backbone}", hidden_dropout: 0.0}}'
    new = f"""model: {{type: bi_encoder, backbone: "{tiny_backbone}", hidden_dropout: 0.0,
  query_prefix: "draft ", {LENGTHS}}}"""
    assert old in text
    mined_recipe.write_text(text.replace(old, new))
    return mined_recipe


def means(result, name: str) -> dict[str, float]:
    (row,) = [row for row in result.report.rows if row.name == name]
    assert not row.error
    return {
        measure: float(np.mean([np.mean(list(seed[measure].values())) for seed in values]))
        for values in [row.results[MAIN]]
        for measure in values[0]
    }


@pytest.mark.ray
def test_retrievers_are_trained_judged_and_handed_out(path, unprobed, beir_folder, tiny_backbone):
    experiment, said = load(Experiment, path, GIVEN), []
    result = run(experiment, said.append)
    assert result.failed == {} and result.status == "FINISHED"
    last = "contrastive -> distil"
    names = {row.name: row.kind for row in result.report.rows}
    assert {"contrastive": "trained", last: "trained"}.items() <= names.items()
    assert {f"{n}, retrieving": "derived" for n in ("contrastive", last)}.items() <= names.items()
    assert names[f"{tiny_backbone.name}, retrieving, untrained"] == "zero_shot"
    first, trained = means(result, "BM25"), means(result, "contrastive")
    assert trained.keys() == {"nDCG@10", "R@20"}
    assert trained["nDCG@10"] > first["nDCG@10"]  # drafts are told from what is relevant
    untrained = means(result, f"{tiny_backbone.name}, retrieving, untrained")
    assert means(result, "contrastive, retrieving")["nDCG@10"] > untrained["nDCG@10"]

    # the second trial began where the first one's stage ended, which was trained once
    assert result.counts["stages"] == {"distinct": 2, "trained": 2}
    store = TrackingStore(str(experiment.tracking_uri()))
    runs = store.client.search_runs(
        [store.client.get_experiment_by_name("tiny").experiment_id], max_results=100
    )
    tracked = {own_name(run): run for run in runs}
    retrieving = tracked["contrastive, retrieving"].data.metrics
    expected = means(result, "contrastive, retrieving")["nDCG@10"]
    assert retrieving["nDCG_10"] == pytest.approx(expected, abs=1e-9)
    assert all(one.info.status == "FINISHED" for one in runs)
    # the registry has the best one, which opens by its alias
    folder = Path(model_folder("models:/tiny@best", str(experiment.tracking_uri())))
    best = next(trial for trial in expand(experiment) if trial.row == result.best)
    checkpoint = Builder(experiment.store()).find(Plan.of([best]).last(best))
    for name in ("model.safetensors", "modules.json", "1_Pooling/config.json"):
        assert (folder / name).read_bytes() == (checkpoint.local() / name).read_bytes()
    assert json.loads((folder / "config.json").read_text())["raypipe"]["truncation"] == {
        "type": "texts", "query": 16, "doc": 32
    }  # fmt: skip

    # it alone gives the rows again: over the corpus, and of the first stage's lists
    place = Workplace(str(experiment.store().uri), "fp32", Resources())
    data = QuerySet(dataset=f"beir:{beir_folder}", split="test")
    names_of = ("nDCG@10", "R@20")
    found = retrieve(str(folder), data, 20, place, measures=names_of, say=said.append)
    assert found.values == pytest.approx(means(result, f"{result.best}, retrieving"), abs=1e-9)
    out = path.parent / "mine.run"
    assert found.write(out) == 12
    ranked = rerank(str(folder), data, str(out), 10, place, measures=names_of, say=said.append)
    assert ranked.values["nDCG@10"] == pytest.approx(found.values["nDCG@10"], abs=1e-9)


ENCODER = """{{model: {{type: bi_encoder, backbone: "{backbone}", hidden_dropout: 0.0, {lengths}}},
  groups: {{candidates: {{type: bm25, depth: 20}},
    negatives: {{type: random_window, count: 3, low: 1, high: 20}}}},
  loss: {{type: infonce}}, lr: 3.0e-3, queries_per_step: 6, steps: 12, validations: 1}}"""


@pytest.mark.ray
def test_a_re_ranker_is_trained_on_lists_of_a_retriever_that_is_trained_before(
    mined_recipe, unprobed, tiny_backbone
):
    """The encoder is no row: it makes the first stage and the negatives, once for both trials."""
    stage = ENCODER.format(backbone=tiny_backbone, lengths=LENGTHS)
    text = mined_recipe.read_text().replace("stages:\n", f"stages:\n  vectors: {stage}\n", 1)
    mined_recipe.write_text(text)
    words = [
        "teacher=null",
        "candidates={type: dense, of: vectors, depth: 20}",
        "stages.distil.loss={type: infonce}",
        "stages.contrastive.steps=3",
        "stages.distil.steps=2",
    ]
    experiment, said = load(Experiment, mined_recipe, words), []
    comparison, builder = plan_of(experiment)
    planned = comparison.plan_lines(builder)
    assert "before, as lists are made of them: vectors of vectors" in planned
    # of 12, 3 and 2 steps of 6 groups of 4 documents
    assert any(line.startswith("to do: 408 pairs to train on, ") for line in planned)
    result = run(experiment, said.append)
    assert result.failed == {} and result.status == "FINISHED"
    assert result.counts["stages"] == {"distinct": 3, "trained": 3}
    names = [row.name for row in result.report.rows]
    assert names[0] == "dense of vectors" and "contrastive -> distil" in names
    assert not any(name.startswith("vectors of") for name in names)
    assert means(result, "dense of vectors")["nDCG@10"] > 0.3
    assert result.counts["groups/vectors"]["groups"] == 36
    assert "tiny-bert-contrastive" in result.artifacts["checkpoint"]  # not that of the vectors
    store = TrackingStore(str(experiment.tracking_uri()))
    found = store.client.search_runs(
        [store.client.get_experiment_by_name("tiny").experiment_id], max_results=100
    )
    (encoder,) = [one for one in found if own_name(one) == "vectors of vectors"]
    assert encoder.data.tags["raypipe.phase"] == "encoder"
    assert all(one.info.status == "FINISHED" for one in found)

    again = run(experiment, said.append)  # everything stands
    assert again.counts["stages"] == {"distinct": 3, "trained": 0}
    assert means(again, "contrastive") == means(result, "contrastive")

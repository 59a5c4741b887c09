"""The bare loop: a tiny model, no Ray. Losses must not depend on how the work is cut up."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
from processes import start
from tiny_training import CUT, STAGE, VALIDATION, batcher_of, column, fit, same, weights
from torch.nn.parallel import DistributedDataParallel

from raypipe.inference.pairs import Template
from raypipe.inference.scoring import PairScorer
from raypipe.inference.token_reader import TokenReader
from raypipe.losses.listwise import InfoNCE
from raypipe.losses.preference import MarginMSE
from raypipe.models.cross_encoder import CrossEncoder, save
from raypipe.models.tokenizer import load_tokenizer
from raypipe.records import CANDIDATES, QRELS
from raypipe.stages.validation import Validation
from raypipe.train.alarms import Alarms
from raypipe.train.filtering import Filtering
from raypipe.train.selection import TrainingOutcome
from raypipe.train.settings import Freeze


@pytest.mark.parametrize("loss", [InfoNCE(), MarginMSE()], ids=lambda loss: loss.type)
def test_losses_do_not_depend_on_the_token_budget(data, tiny_backbone, loss):
    stage = STAGE.replace(loss=loss)
    counts = {
        budget: sum(
            1 for _ in batcher_of(data, tiny_backbone, budget, loss.uses).blocks([*range(6)])
        )
        for budget in (100_000, 128, 64)
    }
    assert counts[100_000] == 1 < counts[128] < counts[64] == 6  # one block, some, one per group
    outcomes = {budget: fit(data, tiny_backbone, stage, budget=budget)[0] for budget in counts}
    whole = outcomes[100_000]
    assert len(column(whole, "loss")) == 8 and len(set(column(whole, "loss"))) == 8
    for budget in (128, 64):
        for name in ("loss", "grad_norm"):
            np.testing.assert_allclose(
                column(outcomes[budget], name), column(whole, name), rtol=0, atol=1e-5
            )
        for name in ("pairs", "tokens", "lr"):
            assert column(outcomes[budget], name) == column(whole, name)


FILTER = Filtering(mode="backward_forward", warmup_queries=12, window=8, memory=32)
LONGER = STAGE.replace(steps=12, validations=1)
STAGES = {"plain": STAGE, "filtered": LONGER.replace(filtering=FILTER)}


def two_workers(rank: int, folder: str, backbone: str, data: str) -> None:
    """One of two processes, wrapped as raypipe.stages.worker does it through Ray Train."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    results = {}
    for name, stage in STAGES.items():
        sentences: list[str] = []
        outcome, model, _ = fit(
            Path(data),
            Path(backbone),
            stage,
            budget=128,
            wrap=lambda model: DistributedDataParallel(model, broadcast_buffers=False),
            say=sentences.append,
        )
        kept = {"history": outcome.history, "filtering": outcome.filtering, "said": sentences}
        results[name] = {**kept, "weights": weights(model)}
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def pair(data, tiny_backbone, tmp_path_factory) -> list[dict]:
    """What two processes found, by stage."""
    folder = tmp_path_factory.mktemp("pair")
    start(two_workers, (str(folder), str(tiny_backbone), str(data)), 2)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", STAGES)
def test_two_processes_train_like_one(data, tiny_backbone, pair, name):
    first, second = (results[name] for results in pair)
    assert first["history"] == second["history"]
    assert same(first["weights"], second["weights"])
    alone, model, _ = fit(data, tiny_backbone, STAGES[name], budget=128)
    both = TrainingOutcome(first["history"])
    np.testing.assert_allclose(column(both, "loss"), column(alone, "loss"), rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        column(both, "grad_norm"), column(alone, "grad_norm"), rtol=1e-4, atol=1e-6
    )
    for key in ("pairs", "tokens", "lr", "kept"):
        assert column(both, key) == column(alone, key)
    for weight, value in weights(model).items():
        if weight.endswith(("classifier.bias", "key.bias")):
            continue  # no difference of scores sees them: Adam makes steps of rounding errors
        # a sixth of one of up to twelve steps; half a 1e-4 was seen under AVX-512 kernels
        torch.testing.assert_close(first["weights"][weight], value, rtol=0, atol=5e-4, msg=weight)


def test_two_processes_filter_as_one_does(data, tiny_backbone, pair):
    """Rank 0 decides for both; an odd share of the groups is left, at times none for a worker."""
    first, second = (results["filtered"] for results in pair)
    sentences: list[str] = []
    alone, _, _ = fit(data, tiny_backbone, STAGES["filtered"], budget=128, say=sentences.append)
    kept = column(alone, "kept")
    assert kept[:2] == [6, 6] and min(kept) < 2 and sum(kept) < 6 * 12
    assert first["filtering"] == second["filtering"] == pytest.approx(alone.filtering, rel=1e-4)
    assert first["filtering"]["skipped_forward"] > 0 < first["filtering"]["skipped_backward"]
    assert first["said"] == sentences and len(sentences) == 2 and second["said"] == []


def test_filtering_is_refused_on_spread_weights(data, tiny_backbone, monkeypatch):
    """Workers with unequal work would wait for each other for ever."""
    monkeypatch.setattr("raypipe.train.loop.sharded", lambda model: True)
    with pytest.raises(ValueError, match=r"filtering: .*resources\.strategy=fsdp cannot have"):
        fit(data, tiny_backbone, STAGES["filtered"])


def test_the_best_checkpoint_is_kept(data, tiny_backbone):
    script, seen = iter([0.1, 0.9, 0.9]), []

    def validate(model):
        seen.append(weights(model))
        return {"nDCG@10": next(script), "RR@10": float(len(seen))}

    stage = STAGE.replace(steps=7, validations=3)
    outcome, model, reports = fit(data, tiny_backbone, stage, validate=validate)
    assert outcome.best_step == 5 and outcome.best == {"nDCG@10": 0.9, "RR@10": 2.0}
    assert same(weights(model), seen[1])
    assert not same(seen[0], seen[1]) and not same(seen[1], seen[2])
    validated = [row["step"] for row in outcome.history if "val/nDCG@10" in row]
    assert validated == [3, 5, 7]
    assert [row for report in reports for row in report["rows"]] == outcome.history
    assert outcome.pairs == sum(column(outcome, "pairs"))
    assert outcome.tokens == sum(column(outcome, "tokens"))


def test_a_loss_that_is_not_finite_stops_with_the_remedy(data, tiny_backbone):
    stage = STAGE.replace(loss=InfoNCE(temperature=1e-45))  # any score divided by it is infinite
    with pytest.raises(FloatingPointError, match=r"the loss is nan.*lower lr.*fp32"):
        fit(data, tiny_backbone, stage)


def test_the_same_seed_gives_the_same_bits(data, tiny_backbone):
    runs = {}
    for attempt, seed in (("first", 1), ("again", 1), ("other", 2)):
        outcome, model, _ = fit(data, tiny_backbone, seed=seed, dropout=0.1)
        runs[attempt] = (column(outcome, "loss"), weights(model))
    assert runs["first"][0] == runs["again"][0]
    assert same(runs["first"][1], runs["again"][1])
    assert runs["first"][0] != runs["other"][0]


def validation_of(data: Path, backbone: Path) -> Validation:
    """Every validation query with its relevant document, the draft, and 18 others."""
    rng = np.random.default_rng(1)
    tops = []
    for i in VALIDATION:
        others = [d for d in rng.permutation(120) if d not in (i, 60 + i)]
        tops.append([int(d) for d in rng.permutation([i, 60 + i, *others[:18]])])
    rows = [
        {
            "query_id": f"q{i}",
            "doc_ids": [f"d{d:03d}" for d in top],
            "ranks": range(1, 21),
            "scores": [-float(place) for place in range(20)],
            "sources": ["test"] * 20,
        }
        for i, top in zip(VALIDATION, tops, strict=True)
    ]
    qrels = [{"query_id": f"q{i}", "doc_id": f"d{i:03d}", "relevance": 1} for i in VALIDATION]
    return Validation(
        pa.Table.from_pylist(rows, schema=CANDIDATES),
        pa.Table.from_pylist(qrels, schema=QRELS),
        list(VALIDATION),
        tops,
        TokenReader(data / "queries"),
        TokenReader(data / "corpus"),
        ("nDCG@10",),
        1,
        20,
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_ranks_better(data, tiny_backbone, precision):
    validation = validation_of(data, tiny_backbone)
    template = Template.of(load_tokenizer(tiny_backbone))

    def validate(model):
        return validation.run(model, lambda m: PairScorer(m, template, CUT, 1024, precision, "cpu"))

    config = CrossEncoder(backbone=str(tiny_backbone))
    fresh = config.load(tiny_backbone, 1, training=False, device="cpu")
    before = validate(fresh)["nDCG@10"]
    stage = STAGE.replace(steps=40, validations=4)
    outcome, model, _ = fit(data, tiny_backbone, stage, validate=validate, precision=precision)
    after = outcome.best["nDCG@10"]
    assert after > before + 0.1
    assert model.training  # validation hands the model back with its dropout
    assert validate(model)["nDCG@10"] == after == max(column(outcome, "val/nDCG@10"))
    losses = column(outcome, "loss")
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])


def test_a_harmful_second_stage_does_not_ship(data, tiny_backbone, tmp_path):
    """The start of a stage is a choice of selection where it ranks already."""
    validation = validation_of(data, tiny_backbone)
    template = Template.of(load_tokenizer(tiny_backbone))

    def validate(model):
        return validation.run(model, lambda m: PairScorer(m, template, CUT, 1024, "fp32", "cpu"))

    good = STAGE.replace(steps=40, validations=2)
    first, model, _ = fit(data, tiny_backbone, good, validate=validate)
    save(model, tmp_path, tiny_backbone, CUT.max_length)
    harmful, saved = STAGE.replace(lr=0.5, weight_decay=0.0), weights(model)
    outcomes = {}
    for offers_start in (True, False):
        sentences: list[str] = []
        alarms = Alarms(sentences.append, "nDCG@10", None)
        outcome, second, _ = fit(
            *(data, tmp_path, harmful),
            validate=validate,
            offers_start=offers_start,
            alarms=alarms,
        )
        alarms.on_end({"drift": 0.0, "drift_unchanged": 1.0, "drift_unchanged_layers": 1.0})
        said = [text for text in sentences if "No step was better than the start" in text]
        outcomes[offers_start] = outcome, same(weights(second), saved), said
    shipped, is_the_start, said = outcomes[True]
    assert (shipped.best_step, shipped.best, is_the_start) == (0, first.best, True)
    assert shipped.history[0] == {"step": 0, "val/nDCG@10": first.best["nDCG@10"]}
    assert len(said) == 1
    without, is_the_start, said = outcomes[False]
    assert without.best["nDCG@10"] < first.best["nDCG@10"] - 0.1
    assert without.best_step > 0 and not is_the_start and said == []
    # else nothing differs: validation draws no random number
    assert column(without, "loss") == column(shipped, "loss")


def test_a_worker_without_validation_queries(data, tiny_backbone, monkeypatch):
    """One query for two workers: the second scores nothing and gets the first one's values."""
    full = validation_of(data, tiny_backbone)
    validation = dataclasses.replace(
        full,
        candidates=full.candidates.slice(0, 1),
        query_rows=full.query_rows[:1],
        doc_rows=full.doc_rows[:1],
    )
    template = Template.of(load_tokenizer(tiny_backbone))
    model = CrossEncoder(backbone=str(tiny_backbone)).load(
        tiny_backbone, 1, training=False, device="cpu"
    )
    scored = []

    def scorer(model):
        def score(pairs):
            scored.append(len(pairs))
            return PairScorer(model, template, CUT, 1024, "fp32", "cpu")(pairs)

        return score

    alone = validation.run(model, scorer)
    assert scored == [20]
    first = [float(20 - place) for place in range(20)]

    def gather(parts, value):
        parts[:] = [{"q36": first}, value]
        assert value == {}

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    # the other worker's scores fall along the candidates
    assert validation.run(model, scorer) == validation.first_stage()
    assert scored == [20] and alone.keys() == validation.first_stage().keys()


def test_frozen_weights_do_not_move(data, tiny_backbone):
    stage = STAGE.replace(freeze=Freeze(embeddings=True, layers=1))
    start = CrossEncoder(backbone=str(tiny_backbone), hidden_dropout=0.0).load(
        tiny_backbone, 1, training=True, device="cpu"
    )
    _, model, _ = fit(data, tiny_backbone, stage)
    moved = {n for n, v in weights(model).items() if not torch.equal(v, start.state_dict()[n])}
    assert moved and not {n for n in moved if "embeddings" in n or "layer.0." in n}
    assert any("layer.1." in n for n in moved) and "classifier.weight" in moved


def test_fewer_queries_than_workers(data, tiny_backbone, monkeypatch):
    monkeypatch.setattr("raypipe.train.loop.rank_and_world", lambda: (0, 7))
    with pytest.raises(ValueError, match=r"queries_per_step: 6 .*resources\.workers=7"):
        fit(data, tiny_backbone, STAGE)

"""Losses over a step: by hand, in any cut, in two processes, and beside a loss over the group."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from processes import start
from tiny_encoder import ROWS, TEMPERATURE, batcher_of, fits, loaded
from tiny_training import STAGE, TRAINING, column, write_data
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from raypipe.inference.transfer import to_tensors
from raypipe.losses.base import Loss
from raypipe.losses.combination import Term, WeightedSum, over_group_and_step
from raypipe.losses.listwise import KL, InfoNCE
from raypipe.train.alarms import Alarms
from raypipe.train.filtering import Filtering
from raypipe.train.gradients import Gradients
from raypipe.train.loop import train
from raypipe.train.step_terms import step_losses
from raypipe.train.step_texts import StepTexts

STEP = InfoNCE(over="step", temperature=0.5)
SUM = WeightedSum(terms={"all": Term(loss=STEP, weight=0.3), "own": Term(loss=KL())})
TAUGHT = WeightedSum(
    terms={
        "own": Term(loss=InfoNCE()),
        "first": Term(loss=InfoNCE(over="step", positive="teacher_top"), weight=0.2),
        "order": Term(loss=KL(over="step"), weight=0.5),
    }
)
"""Over the group it fits labels, over the step a teacher."""
LOSSES = {"alone": STEP, "beside kl": SUM, "kl": KL(over="step"), "beside labels": TAUGHT}


@pytest.fixture(scope="module")
def data(tmp_path_factory, beir_folder, tiny_backbone) -> Path:
    return write_data(tmp_path_factory.mktemp("groups"), beir_folder, tiny_backbone)


def step(data, backbone, loss: Loss, *, budget=100_000, limit=100_000, rows=ROWS, wrap=None):
    """(loss, gradients) of this worker's share of a step of six queries."""
    model = loaded(backbone)
    called = model if wrap is None else wrap(model)
    blocks = list(batcher_of(data, backbone, budget, fits(loss)).blocks(rows))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    totals = Gradients(called, loss, "fp32", limit, scaler).add(
        blocks, len(ROWS), lambda block, scores: None, blocks[0]
    )
    return totals, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def same_gradient(one: dict, two: dict) -> None:
    assert one.keys() == two.keys() and len(one) > 30
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=name)


def by_hand(data, backbone):
    """The loss of every query, text by text, with a graph through plain forward passes."""
    model, batcher = loaded(backbone), batcher_of(data, backbone, 100_000)
    template = batcher.template

    def vector(ids):
        tokens = [*template.before, *map(int, ids), *template.after]
        inputs = torch.tensor([tokens])
        return model(input_ids=inputs, attention_mask=torch.ones_like(inputs))[0]

    groups = [batcher.groups[row] for row in ROWS]
    rows = sorted({int(doc) for _, docs, *_ in groups for doc in docs})
    docs = {row: vector(batcher.doc_tokens[row][:8]) for row in rows}
    losses = []
    for query, own, relevance, _ in groups:
        asked = vector(batcher.query_tokens[query][:6])
        logit = {row: asked @ docs[row] / TEMPERATURE / 0.5 for row in rows}
        positives = [int(d) for d, grade in zip(own, relevance, strict=True) if grade > 0]
        negatives = torch.stack([logit[row] for row in rows if row not in positives]).exp().sum()
        parts = [-(logit[p].exp() / (logit[p].exp() + negatives)).log() for p in positives]
        losses.append(torch.stack(parts).mean())
    loss = torch.stack(losses).mean()
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return float(loss.detach()), gradients, len(rows)


def test_every_document_of_the_step_is_a_negative_once(data, tiny_backbone):
    expected, gradients, documents = by_hand(data, tiny_backbone)
    totals, found = step(data, tiny_backbone, STEP)
    assert documents > 10  # a group has at most five
    assert float(totals[0]) == pytest.approx(expected, rel=1e-5)
    same_gradient(gradients, found)
    group, _ = step(data, tiny_backbone, InfoNCE(temperature=0.5))
    assert float(totals[0]) > float(group[0])  # more negatives


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_the_cut_into_blocks_and_batches_changes_nothing(data, tiny_backbone, loss):
    whole, gradients = step(data, tiny_backbone, loss)
    for budget in (40, 160):  # a block per group, and two blocks
        totals, found = step(data, tiny_backbone, loss, budget=budget, limit=budget)
        torch.testing.assert_close(totals[:2], whole[:2], rtol=1e-5, atol=1e-5)
        same_gradient(gradients, found)


def test_a_sum_over_step_and_group_is_the_sum_of_both(data, tiny_backbone):
    (both, gradients), (over_step, of_step), (over_group, of_group) = (
        step(data, tiny_backbone, loss) for loss in (SUM, STEP, KL())
    )
    assert float(both[0]) == pytest.approx(0.3 * float(over_step[0]) + float(over_group[0]))
    same_gradient(gradients, {n: 0.3 * of_step[n] + of_group[n] for n in gradients})


def test_terms_of_a_sum_keep_their_own_targets(data, tiny_backbone):
    """Labels over the group stay labels beside a teacher over the step."""
    totals, gradients = step(data, tiny_backbone, TAUGHT)
    parts = [step(data, tiny_backbone, term.loss) for term in TAUGHT.terms.values()]
    weights = [term.weight for term in TAUGHT.terms.values()]
    expected = sum(w * float(of[0]) for w, (of, _) in zip(weights, parts, strict=True))
    assert float(totals[0]) == pytest.approx(expected, rel=1e-5)
    summed = {
        name: sum(w * found[name] for w, (_, found) in zip(weights, parts, strict=True))
        for name in gradients
    }
    same_gradient(gradients, summed)


def test_kl_over_the_step_reads_what_the_teacher_has_seen(data, tiny_backbone):
    """Each query has one group, whose documents alone have values for it."""
    (over_step, of_step), (over_group, of_group) = (
        step(data, tiny_backbone, loss) for loss in (KL(over="step"), KL())
    )
    assert float(over_step[0]) == pytest.approx(float(over_group[0]), rel=1e-5)
    same_gradient(of_group, of_step)


def two_workers(rank: int, folder: str, backbone: str, data: str) -> None:
    """A step's share of one of two processes."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    wrap = lambda model: DistributedDataParallel(model, broadcast_buffers=False)  # noqa: E731
    results = {}
    for name, loss in LOSSES.items():
        rows = ROWS[rank::2]
        budget = 100_000 if rank else 60  # workers cut their shares into unlike numbers of blocks
        cut = {"budget": budget, "limit": budget}
        totals, found = step(Path(data), Path(backbone), loss, **cut, rows=rows, wrap=wrap)
        dist.all_reduce(totals)
        results[name] = (totals, found)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_workers_have_the_gradient_of_one(data, tiny_backbone, tmp_path):
    start(two_workers, (str(tmp_path), str(tiny_backbone), str(data)), 2)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for name, loss in LOSSES.items():
        totals, gradients = step(data, tiny_backbone, loss)
        for of_worker in results:
            torch.testing.assert_close(of_worker[name][0][:2], totals[:2], rtol=1e-5, atol=1e-5)
            same_gradient(gradients, of_worker[name][1])


def test_a_loss_falls_into_its_parts():
    assert over_group_and_step(InfoNCE()) == (InfoNCE(), ())
    rest, (term,) = over_group_and_step(SUM)
    assert rest == WeightedSum(terms={"own": Term(loss=KL())})
    assert (term.loss, term.weight) == (STEP, 0.3)
    assert over_group_and_step(STEP)[0] is None
    rest, terms = over_group_and_step(TAUGHT)
    assert rest is not None and (rest.uses, TAUGHT.uses) == ("labels", "teacher")
    assert [type(term.loss) for term in terms] == [InfoNCE, KL]
    assert STEP.of_equal_scores(4) is None and InfoNCE().of_equal_scores(4) == math.log(4)
    assert "over" not in InfoNCE().semantic() and np.isclose(STEP.temperature, 0.5)


class Flat(nn.Module):
    """Gives every text one vector."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.full((4,), number))

    def forward(self, input_ids, **more):
        return self.vector.expand(len(input_ids), 4)


def trained(model, data, backbone, stage=STAGE, loss: Loss = STEP, **more):
    alarms = Alarms(lambda sentence: None, "nDCG@10", None)
    return train(
        model,
        batcher_of(data, backbone, 4096, fits(loss)),
        stage.replace(loss=loss),
        len(TRAINING),
        seed=1,
        precision="fp32",
        selection="nDCG@10",
        validate=lambda model: {"nDCG@10": 0.0},
        report=lambda report: None,
        alarms=alarms,
        **more,
    )


@pytest.mark.parametrize("loss", [STEP, SUM], ids=["alone", "beside kl"])
def test_equal_vectors_are_an_alarm_and_infinite_ones_an_error(data, tiny_backbone, loss):
    messages = trained(Flat(0.5), data, tiny_backbone, loss=loss).alarms
    assert any("all documents of a group have the same score in 100%" in m for m in messages)
    with pytest.raises(FloatingPointError, match=r"vectors of \d+ of the step's"):
        trained(Flat(math.inf), data, tiny_backbone, loss=loss)


def test_the_history_counts_texts_and_what_is_masked(data, tiny_backbone):
    """Every document has one text: of six queries each masks its copies alone, there and back."""
    texts = StepTexts(np.zeros(120, np.uint64), np.empty(0, np.int64), np.empty(0, np.uint64))
    batcher = replace(batcher_of(data, tiny_backbone, 4096), texts=texts)
    (block,) = batcher.blocks(ROWS)
    documents = len(set(block.pairing.doc_rows_T))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    made = Gradients(loaded(tiny_backbone), STEP, "fp32", 4096, scaler, texts=True)
    totals = made.add([block], len(ROWS), lambda block, scores: None, block)
    assert made.further == ("texts", "masked")
    assert totals[3:].tolist() == [documents + 6, 6 * (documents - 1)]  # all but the positive
    assert float(totals[0]) == 0  # nothing is a negative
    outcome = trained(loaded(tiny_backbone), data, tiny_backbone)
    assert outcome.masked == sum(column(outcome, "masked")) == 0
    assert outcome.texts == sum(column(outcome, "texts")) > outcome.pairs


def test_what_takes_a_step_apart_is_refused(data, tiny_backbone, monkeypatch):
    filtering = STAGE.replace(filtering=Filtering())
    with pytest.raises(ValueError, match=r"over=step reads all queries .* which filtering takes"):
        trained(Flat(0.5), data, tiny_backbone, filtering)
    monkeypatch.setattr("raypipe.train.loop.sharded", lambda model: True)
    with pytest.raises(ValueError, match=r"which resources\.strategy=fsdp takes apart"):
        trained(Flat(0.5), data, tiny_backbone)


def test_a_weight_of_two_is_twice_the_loss_of_its_query(data, tiny_backbone):
    model = loaded(tiny_backbone)
    (block,) = batcher_of(data, tiny_backbone, 100_000, STEP.uses).blocks(ROWS)
    given = [to_tensors(inputs, "cpu") for _, inputs in block.batches]
    vectors = torch.cat([model(**tensors) for tensors in given]).detach()
    order = np.concatenate([chosen for chosen, _ in block.batches])
    vectors = vectors[torch.from_numpy(np.argsort(order))]
    _, terms = over_group_and_step(STEP)
    alike = step_losses(terms, [block], [vectors]).own_Q
    weights_Q = np.arange(1.0, block.queries + 1, dtype=np.float32)
    weighted = step_losses(terms, [replace(block, weights_Q=weights_Q)], [vectors]).own_Q
    torch.testing.assert_close(weighted, alike * torch.from_numpy(weights_Q))

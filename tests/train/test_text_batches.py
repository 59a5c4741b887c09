"""Groups through a bi-encoder: distinct texts, scores by hand, one gradient for every budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_encoder import LENGTHS, TEMPERATURE, batcher_of, loaded
from tiny_training import (
    ROWS,
    STAGE,
    TRAINING,
    OneStep,
    check_gradients,
    column,
    one_step,
    same,
    weights,
)

from raypipe.inference.scoring import TextEncoder
from raypipe.inference.vector_pairs import VectorPairScorer
from raypipe.losses.listwise import InfoNCE
from raypipe.losses.preference import MarginMSE
from raypipe.train.gradients import block_scores
from raypipe.train.loop import train


def test_a_block_has_every_text_once(data, tiny_backbone):
    """Groups 0 and 3 to 5 share documents by chance; the texts are those of all groups."""
    batcher = batcher_of(data, tiny_backbone, 100_000)
    (block,) = batcher.blocks([*ROWS, 0])  # a step that runs across the end of an epoch
    groups = [batcher.groups[row] for row in [*ROWS, 0]]
    docs = [int(doc) for _, docs, *_ in groups for doc in docs]
    queries = {query for query, *_ in groups}
    assert block.passages == len(queries) + len(set(docs)) < len(queries) + len(docs)
    assert block.pairs == len(docs) and block.queries == 7
    read = {}
    for positions, inputs in block.batches:
        for place, ids, mask in zip(
            positions, inputs["input_ids"], inputs["attention_mask"], strict=True
        ):
            read[int(place)] = ids[mask.astype(bool)][1:-1]
    assert block.pairing is not None
    for pair, place in enumerate(block.pairing.doc_T):
        np.testing.assert_array_equal(read[int(place)], batcher.doc_tokens[docs[pair]][:8])
    owners = [query for query, docs, *_ in groups for _ in docs]
    for owner, place in zip(owners, block.pairing.query_T, strict=True):
        np.testing.assert_array_equal(read[int(place)], batcher.query_tokens[owner][:6])


def test_a_score_is_the_cosine_over_the_temperature_in_training_and_in_ranking(data, tiny_backbone):
    model, batcher = loaded(tiny_backbone).eval(), batcher_of(data, tiny_backbone, 100_000)
    (block,) = batcher.blocks(ROWS)
    scores_QD = block_scores(model, block, "fp32", torch.device("cpu")).detach().numpy()
    encode = TextEncoder(model, batcher.template, 10, 64, "fp32", "cpu", prefixed=True)
    ranked = VectorPairScorer(encode, LENGTHS, TEMPERATURE)
    for number, row in enumerate(ROWS):
        query, docs, *_ = batcher.groups[row]
        query_ids = batcher.query_tokens[query]
        pairs = [(query_ids, batcher.doc_tokens[int(doc)]) for doc in docs]
        query_vector = encode([query_ids[:6]])[0]
        cosines = [
            float(np.dot(query_vector, encode([ids[:8]])[0]))
            / float(np.linalg.norm(query_vector))  # 1: the vectors are normalised
            for _, ids in pairs
        ]
        expected = np.array(cosines) / 0.05
        np.testing.assert_allclose(scores_QD[number, : len(docs)], expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(ranked(pairs), expected, rtol=1e-4, atol=1e-4)
        assert not scores_QD[number, len(docs) :].any()
    assert ranked.counts(pairs) == {
        "pairs": len(pairs),
        "documents_cut": sum(len(ids) > 8 for _, ids in pairs),
    }


def gradient(data, backbone, *, budget, limit, dropout, loss) -> OneStep:
    """A step of the tiny bi-encoder, whose blocks are cut for `budget` tokens."""
    model = loaded(backbone, dropout)
    return one_step(model, batcher_of(data, backbone, budget, loss.uses), loss, limit)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("loss", [InfoNCE(), MarginMSE()], ids=lambda loss: loss.type)
def test_vectors_that_are_computed_twice_give_the_same_gradient(data, tiny_backbone, loss, dropout):
    """Two blocks a step, several batches in each; with dropout the same masks fall again."""
    assert len(list(batcher_of(data, tiny_backbone, 160, loss.uses).blocks(ROWS))) == 2
    settings = {"budget": 160, "dropout": dropout, "loss": loss}
    whole = gradient(data, tiny_backbone, limit=10_000, **settings)
    pieces = gradient(data, tiny_backbone, limit=1, **settings)
    torch.testing.assert_close(pieces.totals, whole.totals, rtol=1e-6, atol=1e-6)
    check_gradients(whole, pieces, atol=1e-5)
    assert torch.equal(pieces.random_state, whole.random_state)


def test_without_dropout_every_budget_gives_one_gradient(data, tiny_backbone):
    settings = {"dropout": 0.0, "loss": InfoNCE()}
    whole = gradient(data, tiny_backbone, budget=100_000, limit=100_000, **settings)
    for budget in (40, 160):
        cut = gradient(data, tiny_backbone, budget=budget, limit=budget, **settings)
        check_gradients(whole, cut, atol=1e-5)


def fit(data: Path, backbone: Path, **more):
    torch.manual_seed(1)
    model = loaded(backbone, dropout=0.1)
    saved: list = []
    outcome = train(
        model,
        batcher_of(data, backbone, 4096),
        STAGE.replace(checkpoint_every=1),
        len(TRAINING),
        seed=1,
        precision="fp32",
        selection="nDCG@10",
        validate=lambda model: {"nDCG@10": 0.0},
        report=lambda report: None,
        save=lambda step, snapshot: saved.append(snapshot),
        **more,
    )
    return outcome, weights(model), saved


def test_a_resumed_stage_ends_with_the_same_bits_and_learns(data, tiny_backbone):
    outcome, trained, saved = fit(data, tiny_backbone)
    resumed, again, _ = fit(data, tiny_backbone, resume=saved[4])
    assert resumed.resumed_from == [saved[4].step] and same(trained, again)
    assert column(resumed, "loss") == column(outcome, "loss")
    # texts of a block are distinct, and fewer than a query and a document per pair
    texts, pairs = column(outcome, "texts"), column(outcome, "pairs")
    assert column(resumed, "texts") == texts and resumed.texts == outcome.texts == sum(texts)
    assert all(p < t < 2 * p for t, p in zip(texts, pairs, strict=True))
    assert not outcome.masked and "masked" not in outcome.history[1]
    losses = column(outcome, "loss")
    assert np.mean(losses[-2:]) < 0.8 * np.mean(losses[:2])

"""Training on long documents: a pair scores as its best passage, and only that one learns."""

from __future__ import annotations

import types
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.inference.pairs import Template
from raypipe.inference.scoring import PairScorer
from raypipe.inference.token_reader import TokenReader, token_table
from raypipe.inference.truncation import Budgets, MaxP, Truncation
from raypipe.losses.listwise import InfoNCE
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.models.tokenizer import load_tokenizer
from raypipe.records import GROUPS
from raypipe.train.batches import Batcher, Targets
from raypipe.train.gradients import block_loss
from raypipe.train.group_reader import GroupReader
from raypipe.train.loop import train
from raypipe.train.settings import TrainingSettings

CLS, SEP, VOCABULARY = 1, 2, 60
TEMPLATE = Template((CLS,), (SEP,), (SEP,), None, pad_id=0, pad_type=0)
CPU = torch.device("cpu")
SIZES = [1, 5, 6, 7, 9, 10, 11, 17, 23, 40]
"""Document lengths, by document number modulo 10."""


def write_store(
    root: Path, queries: list[list[int]], docs: list[list[int]], groups: list[list[int]]
) -> Path:
    """Token stores and groups as the jobs write them; a group's first document is relevant."""
    rows = [
        {
            "query_index": query,
            "doc_indices": members,
            "relevance": [1] + [0] * (len(members) - 1),
            "teacher_values": None,
            "ranks": range(1, len(members) + 1),
        }
        for query, members in enumerate(groups)
    ]
    tables = {
        "queries": token_table(queries, 1000),
        "docs": token_table(docs, 1000),
        "groups": pa.Table.from_pylist(rows, schema=GROUPS),
    }
    for name, table in tables.items():
        (root / name).mkdir()
        with pa.ipc.new_file(str(root / name / "part-00000.arrow"), table.schema) as writer:
            writer.write_table(table)
    return root


def batcher_of(folder: Path, cut: Truncation, budget: int, template: Template = TEMPLATE):
    return Batcher(
        GroupReader(folder / "groups"),
        TokenReader(folder / "queries"),
        TokenReader(folder / "docs"),
        template,
        cut,
        Targets("labels", "score", 1),
        budget,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """8 groups of 2 to 5 documents of 1 to 40 random tokens."""
    rng = np.random.default_rng(0)
    queries = [rng.integers(3, VOCABULARY, 2 + q % 5).tolist() for q in range(8)]
    docs = [rng.integers(3, VOCABULARY, SIZES[d % 10]).tolist() for d in range(30)]
    groups = [rng.permutation(30)[: 2 + q % 4].tolist() for q in range(8)]
    return write_store(tmp_path_factory.mktemp("max-p"), queries, docs, groups)


class Toy(torch.nn.Module):
    """The mean of tanh over a pair's tokens, weighted by place: padding does not touch it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.embedding = torch.nn.Embedding(VOCABULARY, 6)
        self.head = torch.nn.Linear(6, 1)
        self.forwards = 0

    def forward(self, input_ids, attention_mask):
        self.forwards += 1
        weight_BL = attention_mask * torch.linspace(1, 3, 64)[: input_ids.shape[1]]
        mean_BH = (weight_BL[..., None] * self.embedding(input_ids)).sum(1) / weight_BL.sum(1)[
            :, None
        ]
        return types.SimpleNamespace(logits=self.head(torch.tanh(mean_BH)))


def naive_windows(n: int, cut: MaxP) -> list[tuple[int, int]]:
    windows, start = [], 0
    while True:
        windows.append((start, start + cut.length))
        if start + cut.length >= n:
            return windows[: cut.max_passages]
        start += cut.stride


def naive_loss(model: torch.nn.Module, batcher: Batcher, rows: list[int]) -> torch.Tensor:
    """InfoNCE of the first document against the others; every passage is a forward of its own."""
    losses = []
    for row in rows:
        query, docs, *_ = batcher.groups[row]
        asked = batcher.query_tokens[query][: batcher.truncation.query].tolist()
        scores = []
        for doc in docs:
            tokens = batcher.doc_tokens[int(doc)].tolist()
            passages = []
            for start, stop in naive_windows(len(tokens), batcher.truncation):
                ids = torch.tensor([[CLS, *asked, SEP, *tokens[start:stop], SEP]])
                passages.append(model(ids, torch.ones_like(ids)).logits[0, 0])
            scores.append(max(passages, key=torch.Tensor.item))
        losses.append(-torch.log_softmax(torch.stack(scores), 0)[0])
    return torch.stack(losses).mean()


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


CUTS = [
    MaxP(query=4, length=6, stride=3),
    MaxP(query=4, length=5, stride=5, max_passages=None),
    MaxP(query=9, length=7, stride=2, max_passages=3),
    MaxP(query=2, length=1, stride=1, max_passages=None),
]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("budget", [1, 500, 1 << 20])
def test_loss_and_gradient_are_those_of_separate_forwards(folder, cut, budget):
    model, batcher = Toy(), batcher_of(folder, cut, budget)
    blocks, at = list(batcher.blocks(list(range(8)))), 0
    assert len(blocks) == 8 if budget == 1 else len(blocks) < 8
    for block in blocks:
        loss = block_loss(model, block, InfoNCE(), "fp32", CPU)
        expected = naive_loss(model, batcher, list(range(at, at + block.queries)))
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
        for gradient, naive_gradient in zip(
            gradients(model, loss), gradients(model, expected), strict=True
        ):
            torch.testing.assert_close(gradient, naive_gradient, rtol=1e-4, atol=1e-6)
        at += block.queries
    assert at == 8


@settings(deadline=None, max_examples=40, database=None)
@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=8), st.sampled_from(CUTS), st.integers(4, 900)
)
def test_blocks_hold_every_passage_once(folder, rows, cut, budget):
    batcher = batcher_of(folder, cut, budget)
    expected, passages = [], []
    for row in rows:
        query, docs, *_ = batcher.groups[row]
        asked = batcher.query_tokens[query][: cut.query].tolist()
        tokens = [batcher.doc_tokens[int(doc)].tolist() for doc in docs]
        expected += [
            [[CLS, *asked, SEP, *doc[a:b], SEP] for a, b in naive_windows(len(doc), cut)]
            for doc in tokens
        ]
    for block in batcher.blocks(rows):
        read = {}
        for positions, inputs in block.batches:
            for position, ids, mask in zip(
                positions, inputs["input_ids"], inputs["attention_mask"], strict=True
            ):
                assert position not in read
                read[int(position)] = ids[mask == 1].tolist()
            assert inputs["input_ids"].size <= max(budget // 4, 1) or len(positions) == 1
        assert sorted(read) == list(range(block.passages))
        assert block.tokens == sum(map(len, read.values()))
        assert block.tokens <= budget or block.queries == 1
        pairs = [[] for _ in range(block.pairs)]
        for position, (pair, column) in enumerate(zip(*block.cells_P, strict=True)):
            assert len(pairs[pair]) == column  # in the order of the document
            pairs[pair].append(read[position])
        passages += pairs
    assert passages == expected


def test_documents_of_one_passage_are_batched_as_budgets_batch_them(folder):
    rows = list(range(8))
    max_p = batcher_of(folder, MaxP(query=3, length=40, stride=7), 200).blocks(rows)
    plain = batcher_of(folder, Budgets(query=3, doc=40), 200).blocks(rows)
    model = Toy()
    for passages, whole in zip(max_p, plain, strict=True):
        assert passages.passages == whole.passages == passages.pairs
        assert passages.tokens == whole.tokens
        for (rows_a, a), (rows_b, b) in zip(passages.batches, whole.batches, strict=True):
            assert rows_a.tolist() == rows_b.tolist()
            assert {k: v.tobytes() for k, v in a.items()} == {k: v.tobytes() for k, v in b.items()}
        blocks = (passages, whole)
        losses = [block_loss(model, block, InfoNCE(), "fp32", CPU).item() for block in blocks]
        assert losses[0] == losses[1]


class FirstToken(torch.nn.Module):
    """A score per id of the document's first token, so that gradients name the passage."""

    def __init__(self, scores: dict[int, float]) -> None:
        super().__init__()
        self.score = torch.nn.Parameter(torch.zeros(VOCABULARY))
        with torch.no_grad():
            for token, value in scores.items():
                self.score[token] = value

    def forward(self, input_ids, attention_mask):
        return types.SimpleNamespace(logits=self.score[input_ids[:, 3]][:, None])


@pytest.mark.parametrize(
    ("scores", "winner"),
    [
        ({14: 1.0}, 14),
        ({14: 1.0, 18: 1.0}, 14),
        ({}, 10),
        ({10: -1, 14: -2, 18: -0.5, 30: -0.7}, 18),  # 30 has no second passage that scores 0
    ],
)
def test_the_first_of_the_best_passages_alone_gets_the_gradient(tmp_path, scores, winner):
    """Passages begin with tokens 10, 14 and 18; the other document is one passage, token 30."""
    docs = [list(range(10, 22)), [30, 31]]
    folder = write_store(tmp_path, [[5]], docs, [[0, 1]])
    model = FirstToken(scores)
    (block,) = batcher_of(folder, MaxP(query=1, length=4, stride=4), 1 << 20).blocks([0])
    assert (block.pairs, block.passages, block.tokens) == (2, 4, 3 * 8 + 6)
    block_loss(model, block, InfoNCE(), "fp32", CPU).backward()
    best = max(scores.get(token, 0.0) for token in (10, 14, 18))
    expected = torch.zeros(VOCABULARY)
    expected[30] = torch.sigmoid(torch.tensor(scores.get(30, 0.0) - best))
    expected[winner] = -expected[30]
    torch.testing.assert_close(model.score.grad, expected)


def test_a_loss_that_is_not_finite_is_not_hidden_by_the_maximum(tmp_path):
    folder = write_store(tmp_path, [[5]], [list(range(10, 22)), [30]], [[0, 1]])
    (block,) = batcher_of(folder, MaxP(query=1, length=4, stride=4), 1 << 20).blocks([0])
    model = FirstToken({14: float("nan")})
    assert not torch.isfinite(block_loss(model, block, InfoNCE(), "fp32", CPU))


# --- learning ------------------------------------------------------------------------------------

HALF, STEPS, GROUPS_HERE, TRAINED = 20, 60, 60, 48


@pytest.fixture(scope="module")
def long_documents(tmp_path_factory, tiny_backbone) -> Path:
    """Groups of one relevant document and two others, all with the same first half.

    Somewhere in the second half a relevant document says the word that the others lack, and they
    another one. All other tokens are noise.
    """
    rng = np.random.default_rng(5)
    size = len(load_tokenizer(tiny_backbone))
    noise = np.arange(7, size)
    queries, docs, groups = [], [], []
    for query in range(GROUPS_HERE):
        queries.append(rng.choice(noise, 3).tolist())
        beginning = rng.choice(noise, HALF).tolist()
        groups.append(list(range(3 * query, 3 * query + 3)))
        for member in range(3):
            rest = rng.choice(noise, HALF)
            rest[rng.integers(HALF)] = 5 if member == 0 else 6
            docs.append(beginning + rest.tolist())
    return write_store(tmp_path_factory.mktemp("long"), queries, docs, groups)


def test_max_p_learns_what_stands_in_the_second_half(long_documents, tiny_backbone):
    """Of 12 groups that were held out, by chance 4 have the relevant document first.

    The best of four validations was 12 with each of 24 seeds. Further training can lose one group
    again, on some processors, so the claim is the best validation, with a margin of three groups.
    """
    template = Template.of(load_tokenizer(tiny_backbone))
    stage = TrainingSettings(
        loss=InfoNCE(), lr=5e-3, queries_per_step=6, steps=STEPS, validations=4
    )
    config = CrossEncoder(backbone=str(tiny_backbone), hidden_dropout=0.0)
    best, spread = {}, {}
    for cut in (MaxP(query=4, length=HALF, stride=HALF // 2), Budgets(query=4, doc=HALF)):
        batcher = batcher_of(long_documents, cut, 4096, template)
        pairs = [
            (batcher.query_tokens[query], batcher.doc_tokens[int(doc)])
            for query, docs, *_ in map(batcher.groups.__getitem__, range(TRAINED, GROUPS_HERE))
            for doc in docs
        ]

        def validate(model, cut=cut, pairs=pairs):
            model.eval()
            scores = PairScorer(model, template, cut, 1024, "fp32", "cpu")(pairs).reshape(-1, 3)
            model.train()
            spread[cut.type] = float(np.ptp(scores, axis=1).max())
            return {"first": float((scores[:, :1] > scores[:, 1:] + 1e-4).all(axis=1).mean())}

        outcome = train(
            config.load(tiny_backbone, 1, training=True, device="cpu"),
            batcher,
            stage,
            TRAINED,
            seed=1,
            precision="fp32",
            selection="first",
            validate=validate,
            report=lambda row: None,
        )
        best[cut.type] = outcome.best["first"]
        assert outcome.pairs == STEPS * 6 * 3
        per_pair = outcome.tokens / outcome.pairs
        assert per_pair == (3 * (3 + 3 + HALF) if cut.type == "max_p" else 3 + 3 + HALF)
    assert best["max_p"] >= 9 / 12 and best["budgets"] == 0.0
    assert spread["budgets"] < 1e-5 < 0.1 < spread["max_p"]

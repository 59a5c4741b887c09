"""A tiny model on the small collection, trained on the bare loop: what several tests share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from raypipe.inference.pairs import Template
from raypipe.inference.token_reader import TokenReader, token_table
from raypipe.inference.truncation import LongestFirst
from raypipe.losses.listwise import InfoNCE
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.models.freeze import freeze
from raypipe.models.tokenizer import load_tokenizer
from raypipe.records import GROUPS
from raypipe.train.batches import Batcher, Targets
from raypipe.train.gradients import Gradients
from raypipe.train.group_reader import GroupReader
from raypipe.train.loop import train
from raypipe.train.selection import TrainingOutcome
from raypipe.train.settings import TrainingSettings

CUT = LongestFirst(max_length=48)
STAGE = TrainingSettings(loss=InfoNCE(), lr=3e-3, queries_per_step=6, steps=8, validations=2)
ROWS = range(6)
"""The groups of one step."""
TRAINING, VALIDATION = range(36), range(36, 48)


def write_data(folder: Path, beir_folder: Path, tiny_backbone: Path) -> Path:
    """Token stores of all texts, and one group per training query, as the jobs write them."""
    tokenizer = load_tokenizer(tiny_backbone)
    for name in ("corpus", "queries"):
        texts = [json.loads(line)["text"] for line in (beir_folder / f"{name}.jsonl").open()]
        token_folder(
            folder / name, tokenizer(texts, add_special_tokens=False)["input_ids"], len(tokenizer)
        )
    rng = np.random.default_rng(0)
    rows = []
    for i in TRAINING:
        others = [d for d in rng.permutation(120) if d not in (i, 60 + i)]
        docs = [i, 60 + i, *others[: 1 + i % 3]]  # three sizes: groups are padded to the largest
        rows.append(
            {
                "query_index": i,
                "doc_indices": docs,
                "relevance": [1] + [0] * (len(docs) - 1),
                "teacher_values": [float(4 - place) for place in range(len(docs))],
                "ranks": range(1, len(docs) + 1),
            }
        )
    _write(folder / "groups", pa.Table.from_pylist(rows, schema=GROUPS))
    return folder


def token_folder(folder: Path, rows: list[list[int]], vocabulary: int) -> None:
    """A token store of one shard."""
    _write(folder, token_table(rows, vocabulary))


def _write(folder: Path, table: pa.Table) -> None:
    folder.mkdir()
    with pa.ipc.new_file(str(folder / "part-00000.arrow"), table.schema) as writer:
        writer.write_table(table)


def batcher_of(
    data: Path, backbone: Path, budget: int, uses: str = "labels", *, drawn: bool = False
) -> Batcher:
    return Batcher(
        GroupReader(data / "groups"),
        TokenReader(data / "queries"),
        TokenReader(data / "corpus"),
        Template.of(load_tokenizer(backbone)),
        CUT,
        Targets(uses, "score", 1),
        budget,
        drawn,
    )


def fit(
    data: Path,
    backbone: Path,
    stage: TrainingSettings = STAGE,
    *,
    budget: int = 4096,
    seed: int = 1,
    dropout: float = 0.0,
    precision: str = "fp32",
    validate=lambda model: {"nDCG@10": 0.0},
    wrap=lambda model: model,
    device: str = "cpu",
    drawn: bool = False,
    selection: str = "nDCG@10",
    **more,
) -> tuple[TrainingOutcome, torch.nn.Module, list[dict]]:
    """Train the tiny model; returns outcome, bare model and what was reported."""
    config = CrossEncoder(backbone=str(backbone), hidden_dropout=dropout, attention_dropout=dropout)
    torch.manual_seed(seed)
    model = config.load(backbone, seed, training=True, device=device)
    freeze(model, **stage.freeze.model_dump())
    reports: list[dict] = []
    outcome = train(
        wrap(model),
        batcher_of(data, backbone, budget, stage.loss.uses, drawn=drawn),
        stage,
        len(TRAINING),
        seed=seed,
        precision=precision,
        selection=selection,
        validate=validate,
        report=reports.append,
        **more,
    )
    return outcome, model, reports


class OneStep(NamedTuple):
    """What a step computed: scores of each block; the random state is that after it."""

    totals: torch.Tensor
    gradients: dict[str, torch.Tensor]
    random_state: torch.Tensor
    scores: list[torch.Tensor]


def one_step(model, batcher, loss, limit: int, *, rows=ROWS, queries: int = 6) -> OneStep:
    """A step of some groups and of `queries` in all, as if `limit` tokens fitted into memory."""
    scaler, scores = torch.amp.GradScaler("cpu", enabled=False), []
    torch.manual_seed(7)
    blocks = list(batcher.blocks(rows))
    totals = Gradients(model, loss, "fp32", limit, scaler).add(
        blocks, queries, lambda block, found: scores.append(found), blocks[0]
    )
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return OneStep(totals, gradients, torch.get_rng_state(), scores)


def check_gradients(one: OneStep, two: OneStep, atol: float) -> None:
    """Fail unless both have the same gradients, of more than 30 weights."""
    assert one.gradients.keys() == two.gradients.keys() and len(one.gradients) > 30
    for name, value in one.gradients.items():
        torch.testing.assert_close(two.gradients[name], value, rtol=1e-4, atol=atol, msg=name)


def column(outcome: TrainingOutcome, name: str) -> list[float]:
    return [row[name] for row in outcome.history if name in row]


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)

"""What every Ray Train worker runs: load, train, and on rank 0 write the checkpoint."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import nn

from raypipe.artifacts import Artifact
from raypipe.data.collection import index_of, read_docs
from raypipe.data.groups import GroupReader
from raypipe.data.pairs import Template
from raypipe.data.sets import DOCS_FILE, QRELS_FILE, QUERIES_FILE
from raypipe.data.tokens import TokenReader
from raypipe.inference.scoring import PairScorer
from raypipe.inference.tokens import load_tokenizer
from raypipe.models.cross_encoder import save
from raypipe.train.batches import Batcher, Targets
from raypipe.train.loop import Outcome, train
from raypipe.train.validation import Validation


def train_worker(config: Mapping[str, Any]) -> None:
    """`train_loop_per_worker` of Ray Train. `config`: see `Stage.run`."""
    import ray.train
    from ray.train.torch import get_device, prepare_model

    stage, attempt = config["stage"], config["attempt"]
    inputs: dict[str, Artifact] = attempt.inputs
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    start = inputs["start"].local()
    device = str(get_device()) if config["use_gpu"] else "cpu"
    torch.manual_seed(stage.seed * 1000 + rank)  # dropout masks differ between workers
    model = stage.model.load(start, stage.seed, training=True, device=device)
    budget = config["budget"]
    template = Template.of(load_tokenizer(start))
    groups = GroupReader(inputs["groups"].local())
    used = min(len(groups), stage.config.limit or len(groups))
    batcher = Batcher(
        groups,
        TokenReader(inputs["query_tokens"].local()),
        TokenReader(inputs["doc_tokens"].local()),
        template,
        stage.truncation,
        Targets(stage.config.loss.uses, stage.teacher_kind, stage.positive_relevance),
        budget,
    )
    validation = _validation(stage, inputs)

    def validate(bare: nn.Module) -> dict[str, float]:
        return validation.run(
            bare,
            lambda m: PairScorer(
                m, template, stage.truncation, config["batch_tokens"], stage.precision, device
            ),
        )

    def report(row: dict[str, Any]) -> None:
        if rank == 0:
            print(_line(stage.name, row), flush=True)
        ray.train.report(row)

    wrapped = prepare_model(model, parallel_strategy_kwargs={"broadcast_buffers": False})
    outcome = train(
        wrapped if world > 1 else model,
        batcher,
        stage.config,
        used,
        seed=stage.seed,
        precision=stage.precision,
        selection=stage.selection,
        validate=validate,
        report=report,
    )
    if rank == 0:
        _write(model, start, stage, attempt, outcome)


def _validation(stage: Any, inputs: dict[str, Artifact]) -> Validation:
    candidates = inputs["validation_candidates"].table()
    doc_ids = read_docs(inputs["validation_collection"].local() / DOCS_FILE).ids()
    folder = inputs["validation_queries"].local()
    query_ids = read_docs(folder / QUERIES_FILE).ids()
    tops = [ids[: stage.depth] for ids in candidates.column("doc_ids").to_pylist()]
    flat = iter(index_of([d for ids in tops for d in ids], doc_ids).tolist())
    return Validation(
        candidates,
        pq.read_table(folder / QRELS_FILE),
        index_of(candidates.column("query_id").to_pylist(), query_ids).tolist(),
        [[next(flat) for _ in ids] for ids in tops],
        TokenReader(inputs["validation_query_tokens"].local()),
        TokenReader(inputs["validation_doc_tokens"].local()),
        stage.measures,
        stage.validation.queries.queries.positive_relevance,
        stage.depth,
    )


def _line(label: str, row: Mapping[str, Any]) -> str:
    text = f"{label}: step {row['step']}/{row['total']}"
    for one in row["rows"]:
        known = {k.removeprefix("val/"): v for k, v in one.items() if k.startswith("val/")}
        if known:
            text += "  validation " + " ".join(f"{k} {v:.3f}" for k, v in known.items())
    losses = [one["loss"] for one in row["rows"] if "loss" in one]
    if losses:
        text += f"  loss {sum(losses) / len(losses):.4f}"
    return f"{text}  {row['pairs_per_second']:.0f} pairs/s"


def _write(model: nn.Module, start: Path, stage: Any, attempt: Any, outcome: Outcome) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save(model, folder, start, stage.truncation.longest)
        facts = {key: value for key, value in asdict(outcome).items() if key != "history"}
        facts["parameters"] = sum(
            p.numel() for n, p in model.named_parameters() if "embeddings" not in n
        )
        facts["flops"] = 6 * facts["parameters"] * outcome.tokens  # forward and backward
        (folder / "trainer.json").write_text(
            json.dumps({**facts, "stage": stage.stage_name, "seed": stage.seed}, indent=1)
        )
        lines = [json.dumps(row) for row in outcome.history]
        (folder / "history.jsonl").write_text("\n".join(lines) + "\n")
        attempt.put_directory(folder)

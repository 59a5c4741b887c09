"""Writes what a finished stage leaves: a Hugging Face directory, its history and its facts."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors import SafetensorError
from torch import nn

from raypipe.train.batches import Batcher
from raypipe.train.checkpoint import Checkpoints
from raypipe.train.selection import TrainingOutcome

SAMPLE = 1000
"""So many groups tell how many documents the token limits cut."""


def write_checkpoint(
    model: nn.Module,
    start: Path,
    stage: Any,
    attempt: Any,
    outcome: TrainingOutcome,
    facts: dict[str, Any],
    unfinished: Checkpoints,
) -> None:
    """Put all files of the stage's checkpoint artifact into the attempt.

    Args:
        unfinished: the checkpoints of the unfinished stage; another attempt goes on from them.

    Raises:
        OSError: the storage or the directory for temporary files cannot be written to.
    """
    # the checkpoint's pyfunc cuts pairs, and makes texts of columns, as training did
    model.config.raypipe = {"truncation": stage.truncation.model_dump(mode="json")}
    if stage.text_template is not None:
        model.config.raypipe["text"] = stage.text_template
    facts = {**_facts_of(outcome), **facts, **_size(model, outcome.tokens)}
    facts |= {"stage": stage.stage_name, "seed": stage.seed}
    lines = [json.dumps(row) for row in outcome.history]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            stage.model.save(model, folder, start, stage.truncation.longest)
            (folder / "trainer.json").write_text(json.dumps(facts, indent=1))
            (folder / "history.jsonl").write_text("\n".join(lines) + "\n")
            attempt.put_directory(folder)
    except (OSError, pa.ArrowException, SafetensorError) as error:
        where = f"{attempt.base} by way of {tempfile.gettempdir()}"
        raise unfinished.not_written(f"the trained {stage.stage_name}", where, error) from None


def _size(model: nn.Module, tokens: int) -> dict[str, int]:
    """Parameters outside the embeddings, and floating-point operations of training on `tokens`."""
    parameters = sum(p.numel() for n, p in model.named_parameters() if "embeddings" not in n)
    return {"parameters": parameters, "flops": 6 * parameters * tokens}  # forward and backward


def _facts_of(outcome: TrainingOutcome) -> dict[str, Any]:
    """The outcome without its history; figures of a filter by `filtering/NAME`. Texts, and what a
    loss over the step masks, where there are any."""
    facts = asdict(outcome)
    for name in ("history", *(n for n in ("texts", "masked") if not facts[n])):
        del facts[name]
    return facts | {f"filtering/{name}": value for name, value in facts.pop("filtering").items()}


def documents_cut(batcher: Batcher, groups: int) -> tuple[int, int]:
    """(documents of the groups that are not read to their end, documents looked at).

    A document counts in every group that has it; about `SAMPLE` groups, evenly spread, are looked
    at.
    """
    cut = documents = 0
    for row in range(0, groups, max(groups // SAMPLE, 1)):
        query, docs, *_ = batcher.groups[row]
        query_length = len(batcher.query_tokens[query])
        for doc in docs:
            length = len(batcher.doc_tokens[int(doc)])
            passages = batcher.truncation.passages(query_length, length, batcher.template.n_special)
            cut += passages[-1][2] < length
            documents += 1
    return cut, documents

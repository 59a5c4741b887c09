"""What a finished stage leaves: a Hugging Face directory, its history and its facts."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors import SafetensorError
from torch import nn

from raypipe.models.cross_encoder import save
from raypipe.train.batches import Batcher
from raypipe.train.checkpoint import Checkpoints
from raypipe.train.selection import Outcome

SAMPLE = 1000
"""Groups whose documents are looked at for what the token limits cut."""


def write_checkpoint(
    model: nn.Module,
    start: Path,
    stage: Any,
    attempt: Any,
    outcome: Outcome,
    facts: dict[str, Any],
    unfinished: Checkpoints,
) -> None:
    """Everything of the stage's checkpoint artifact, into the attempt.

    Args:
        unfinished: the stage's own checkpoints, from which another attempt goes on.

    Raises:
        OSError: the storage or the directory for temporary files does not take it.
    """
    # what the pyfunc of this checkpoint reads of a pair
    model.config.raypipe = {"truncation": stage.truncation.model_dump(mode="json")}
    facts = {**_told(outcome), **facts, **_size(model, outcome.tokens)}
    facts |= {"stage": stage.stage_name, "seed": stage.seed}
    lines = [json.dumps(row) for row in outcome.history]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            save(model, folder, start, stage.truncation.longest)
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


def _told(outcome: Outcome) -> dict[str, Any]:
    """The outcome without its history; figures of a filter by `filtering/NAME`."""
    told = asdict(outcome)
    del told["history"]
    return told | {f"filtering/{name}": value for name, value in told.pop("filtering").items()}


def documents_cut(batcher: Batcher, groups: int) -> tuple[int, int]:
    """(documents of the groups that are not read to their end, documents looked at).

    A document counts in every group that has it; of many groups, evenly spread ones are looked at.
    """
    cut = seen = 0
    for row in range(0, groups, max(groups // SAMPLE, 1)):
        query, docs, *_ = batcher.groups[row]
        asked = len(batcher.query_tokens[query])
        for doc in docs:
            length = len(batcher.doc_tokens[int(doc)])
            read = batcher.truncation.passages(asked, length, batcher.template.n_special)
            cut += read[-1][2] < length
            seen += 1
    return cut, seen

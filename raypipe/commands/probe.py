"""A short measurement of one kind of training: what a pair and a worker's memory cost here.

The measurement runs in a process of its own, so that its peak memory is a training worker's. What
it found counts for a day on this machine: the same question is not measured again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from raypipe.forks import forked
from raypipe.storage.files import home, make_folder, open_own

_WAIT_S = 300.0
_REMEMBERED_S = 86_400.0


@dataclass(frozen=True)
class Cost:
    """Measured with every pair as long as the recipe lets it be: upper bounds."""

    train_s: float
    """Seconds per pair of a forward and backward pass."""
    score_s: float
    """Seconds per pair of re-ranking."""
    memory: int
    """Peak bytes of a worker's process."""


def probe(stage: Any, threads: int, budget: int, batch_tokens: int) -> Cost | None:
    """Measure the model and group size of a stage on this machine's CPU; None if that failed."""
    folder = stage_folder(stage)
    if folder is None:
        return None
    question = {
        "folder": folder,
        "model": stage.model.model_dump(mode="json"),
        "pairs": group_size(stage),
        "length": stage.truncation.longest,
        "precision": stage.precision,
        "gradient_checkpointing": stage.config.gradient_checkpointing,
        "threads": threads,
        "budget": budget,
        "batch_tokens": batch_tokens,
    }
    if (known := _remembered(file := _file_of(question))) is not None:
        return known
    command, environment = forked("raypipe.commands.probe")
    try:
        process = subprocess.run(
            command,
            input=json.dumps(question),
            env=environment,
            capture_output=True,
            text=True,
            timeout=_WAIT_S,
            check=True,
        )
        cost = Cost(**json.loads(process.stdout.splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
    with contextlib.suppress(OSError):  # a full disk only costs the next job a measurement
        make_folder(file.parent)
        with open_own(file, "w") as memo:
            memo.write(json.dumps(vars(cost)))
    return cost


def _file_of(question: dict[str, Any]) -> Path:
    """Where the answer is kept: it depends on the machine, torch, and the folder's model."""
    import importlib.metadata

    machine = [socket.gethostname(), os.cpu_count(), importlib.metadata.version("torch")]
    changed = [p.stat().st_mtime_ns for p in Path(question["folder"]).glob("config.json")]
    text = json.dumps([question, machine, changed], sort_keys=True)
    return home() / "probes" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def _remembered(file: Path) -> Cost | None:
    try:
        if time.time() - file.stat().st_mtime < _REMEMBERED_S:
            return Cost(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        pass
    return None


def stage_folder(stage: Any) -> str | None:
    """The backbone's directory, for a hub model in the hub client's cache; None if the backbone is
    not on this machine."""
    return folder_of(stage.chain()[0].start)


def folder_of(backbone: Any) -> str | None:
    """As `stage_folder`, of a backbone."""
    return str(backbone.folder) if backbone.folder is not None else _cached(backbone)


def _cached(backbone: Any) -> str | None:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            backbone.source, revision=backbone.revision, local_files_only=True
        )
    except Exception:  # the hub client's errors have no common base; none is worth stopping for
        return None
    return folder if list(Path(folder).glob("*.safetensors")) else None


def group_size(stage: Any) -> int:
    """Documents per group, at most."""
    form = getattr(stage.groups.negatives, "groups", None)
    return 2 if form is None else 1 + int(form.negatives.count)


def measure(question: dict[str, Any], train_s: float = 2.0, score_s: float = 1.0) -> Cost:
    """What `probe` asks for, in this process.

    Args:
        train_s: seconds that training is measured for at least, after one warm-up.
        score_s: the same of scoring.
    """
    import resource

    import torch

    from raypipe.inference.scoring import autocast, mixed, ready_to_score
    from raypipe.models.any_model import AnyModel
    from raypipe.models.freeze import enable_gradient_checkpointing
    from raypipe.train.token_budget import token_types

    torch.set_num_threads(question["threads"])
    config: Any = TypeAdapter(AnyModel).validate_python(question["model"])
    model = config.load(Path(question["folder"]), 1, training=True, device="cpu")
    if question["gradient_checkpointing"]:
        enable_gradient_checkpointing(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9, fused=True)
    length = question["length"]

    def batch(tokens: int) -> dict[str, Any]:
        rows = max(min(tokens // length, 64), 1)
        ids = torch.randint(5, model.config.vocab_size, (rows, length))
        mask = torch.ones_like(ids)
        return {"input_ids": ids, "attention_mask": mask, **token_types(model, ids)}

    # a block of the token budget in batches of a quarter, as training computes it
    quarter, blocks = batch(question["budget"] // 4), 4

    def train() -> int:
        optimizer.zero_grad(set_to_none=True)
        with autocast("cpu", question["precision"]):
            outputs = [model(**quarter) for _ in range(blocks)]
            given = [o if isinstance(o, torch.Tensor) else o.logits for o in outputs]
            scores = [values.float().sum() for values in given]
        torch.stack(scores).sum().backward()
        optimizer.step()
        return blocks * len(quarter["input_ids"])

    few = batch(question["batch_tokens"])

    def score() -> int:
        with torch.inference_mode(), mixed(model, "cpu", question["precision"]):
            model(**few)
        return len(few["input_ids"])

    model.train()
    train_cost = _seconds_per_pair(train, train_s)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    ready_to_score(model.eval(), "cpu", question["precision"])
    return Cost(train_cost, _seconds_per_pair(score, score_s), memory)


def _seconds_per_pair(work: Any, seconds: float) -> float:
    work()
    started, pairs = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds or not pairs:
        pairs += work()
    return passed / pairs if pairs else 0.0


def main(arguments: Sequence[str] = ()) -> None:
    """Answer one question from standard input."""
    print(json.dumps(vars(measure(json.loads(sys.stdin.read())))))


if __name__ == "__main__":
    main()

"""What a training worker does around the loop, in this process: Ray Train's calls are stood in for.

What it says and writes down, which switches reach the model, and what a full disk leaves behind.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import types
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs as pafs
import pytest
import ray.train
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tiny_training import CUT, STAGE, batcher_of, write_data

from raypipe.inference.truncation import Budgets, MaxP
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.progress import OWN
from raypipe.resources import CancelledWorkError
from raypipe.stages import worker
from raypipe.stages.output import documents_cut
from raypipe.stages.stage import StageConfig
from raypipe.storage.artifacts import Attempt, Store
from raypipe.train.checkpoint import Checkpoints
from raypipe.train.filtering import Filtering
from raypipe.train.group_reader import GroupReader

FILTER = Filtering(warmup_queries=12, window=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory, beir_folder, tiny_backbone) -> Path:
    return write_data(tmp_path_factory.mktemp("groups"), beir_folder, tiny_backbone)


class Bench:
    """One worker of one; `models` are those that were validated."""

    def __init__(self, data: Path, backbone: Path, folder: Path) -> None:
        self.data, self.backbone, self.folder = data, backbone, folder
        self.models: list[torch.nn.Module] = []
        self.reports: list[dict[str, Any]] = []
        self.wanted = 10**6
        """So many reports are asked for."""
        self.offers_start, self.rise = False, 1.0

    def tell(self, report: dict[str, Any]) -> bool:
        self.reports.append(report)
        return len(self.reports) < self.wanted

    def validation(self, stage: Any, inputs: Any) -> Any:
        def run(model: torch.nn.Module, scorer: Any) -> dict[str, float]:
            self.models.append(model)
            return {"nDCG@10": self.rise * len(self.models)}

        return types.SimpleNamespace(first_stage=lambda: {"nDCG@10": 99.0}, run=run)

    def work(self, config: StageConfig, **other: Any) -> dict[str, Any]:
        """Runs the worker; returns the trainer.json that it wrote."""
        places = {
            "start": self.backbone,
            "groups": self.data / "groups",
            "query_tokens": self.data / "queries",
            "doc_tokens": self.data / "corpus",
        }
        inputs: Any = {
            name: types.SimpleNamespace(local=lambda path=path: path)
            for name, path in places.items()
        }
        step: Any = types.SimpleNamespace(path="checkpoint/tiny")
        attempt = Attempt(Store(str(self.folder / "storage")), step, "attempt", inputs)
        Path(attempt.base).mkdir(parents=True, exist_ok=True)
        stage = types.SimpleNamespace(
            name="tiny-contrastive",
            stage_name="contrastive",
            config=config,
            model=CrossEncoder(backbone=str(self.backbone), hidden_dropout=0.0),
            truncation=CUT.replace(max_length=12),
            seed=1,
            precision="fp32",
            selection="nDCG@10",
            teacher_kind="score",
            positive_relevance=1,
            offers_start=self.offers_start,
            text_template="{title}: {body}",
            has_dropout=False,
            pool=None,
        )
        settings = {
            "stage": stage,
            "attempt": attempt,
            "checkpoints": self.files(),
            "budget": 4096,
            "batch_tokens": 2048,
            "use_gpu": False,
            "strategy": "ddp",
            "label": "tiny-contrastive",
        }
        worker.train_worker({**settings, **other}, self.tell)
        config_file = json.loads((Path(attempt.base) / "config.json").read_text())
        assert config_file["raypipe"]["text"] == "{title}: {body}"  # texts are served alike
        facts: dict[str, Any] = json.loads((Path(attempt.base) / "trainer.json").read_text())
        return facts

    def files(self) -> Checkpoints:
        base = str(self.folder / "storage" / "checkpoint" / "tiny" / "train")
        return Checkpoints(pafs.LocalFileSystem(), base, {"groups": "abc"}, 2)


@pytest.fixture
def bench(data, tiny_backbone, tmp_path, monkeypatch) -> Bench:
    worker_bench = Bench(data, tiny_backbone, tmp_path)
    alone = types.SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)

    monkeypatch.setattr(ray.train, "get_context", lambda: alone)
    monkeypatch.setattr(worker, "validation_of", worker_bench.validation)
    return worker_bench


# --- what is said and written down ---------------------------------------------------------------


def test_what_a_filter_left_out_is_said_and_written_down(bench, capsys):
    facts = bench.work(STAGE.replace(filtering=FILTER))
    sentences = [line for line in capsys.readouterr().out.splitlines() if "Filtering" in line]
    assert len(sentences) == 2
    label = f"{OWN}tiny-contrastive: "
    assert sentences[0].startswith(f"{label}Filtering begins after step 2: from now on groups")
    assert "(the mean of the last 8 losses)" in sentences[0]
    assert sentences[1].startswith(f"{label}Filtering trained on ")
    names = ("queries", "warmup", "skipped_forward", "probes", "skipped_backward")
    assert {f"filtering/{name}" for name in (*names, "kept_share", "compute", "threshold")} == {
        name for name in facts if name.startswith("filtering")
    }
    assert (facts["filtering/queries"], facts["filtering/warmup"]) == (48, 12)
    skipped = facts["filtering/skipped_backward"]
    assert skipped > 0 and facts["filtering/kept_share"] == pytest.approx(1 - skipped / 48)
    lines = (bench.folder / "storage/checkpoint/tiny/attempt/history.jsonl").read_text()
    kept = [row["kept"] for row in map(json.loads, lines.splitlines()) if "kept" in row]
    assert sum(kept) == 48 - skipped and kept[:2] == [6, 6]


def test_a_filter_that_never_began_says_so(bench, capsys):
    facts = bench.work(STAGE.replace(filtering=Filtering(warmup_queries=500)))
    sentences = [line for line in capsys.readouterr().out.splitlines() if "Filtering" in line]
    assert (
        len(sentences) == 1
        and "skipped nothing: all 48 queries belong to its warm-up" in sentences[0]
    )
    assert facts["filtering/threshold"] is None and facts["filtering/kept_share"] == 1


def test_without_a_filter_nothing_is_said_of_one(bench, capsys):
    facts = bench.work(STAGE)
    assert "Filtering" not in capsys.readouterr().out
    assert not [name for name in facts if name.startswith("filtering")]


def test_the_share_of_documents_cut_is_said_and_written_down(bench, capsys):
    facts = bench.work(STAGE)
    batcher = batcher_of(bench.data, bench.backbone, 4096)
    shorter = dataclasses.replace(batcher, truncation=CUT.replace(max_length=12))
    cut, seen = documents_cut(shorter, 36)
    assert seen == batcher.groups.documents and 0 < cut <= seen
    assert facts["documents_cut"] == cut / seen
    assert f"({cut:,} of {seen:,}) are cut" in capsys.readouterr().out
    assert documents_cut(batcher, 36) == (0, seen)


def test_documents_cut_counts_what_is_not_read_to_its_end(bench, monkeypatch):
    batcher = batcher_of(bench.data, bench.backbone, 4096)
    docs = batcher.groups[0][1]
    lengths = [len(batcher.doc_tokens[int(doc)]) for doc in docs]
    room = max(lengths)
    for read in (room, room - 1):
        by_budget = dataclasses.replace(batcher, truncation=Budgets(query=1, doc=read))
        longer = sum(length > read for length in lengths)
        assert documents_cut(by_budget, 1) == (longer, len(docs))
        assert longer == 0 if read == room else longer > 0
    passages = MaxP(query=1, length=room - 1, stride=1, max_passages=2)  # the second one ends later
    assert documents_cut(dataclasses.replace(batcher, truncation=passages), 1) == (0, len(docs))
    monkeypatch.setattr("raypipe.stages.output.SAMPLE", 12)  # every third group
    sizes = [len(batcher.groups[row][1]) for row in range(0, 36, 3)]
    assert documents_cut(batcher, 36) == (0, sum(sizes))


def test_alarms_are_said_and_written_down(bench, capsys):
    """Validation stays below this first stage, which is said after the last step."""
    facts = bench.work(STAGE)
    (below,) = [text for text in facts["alarms"] if "below the first stage's" in text]
    (pooler,) = [text for text in facts["alarms"] if "pooler was never trained" in text]
    printed = capsys.readouterr().out.splitlines()
    assert f"{OWN}tiny-contrastive: {below}" in printed
    assert printed[0] == f"{OWN}tiny-contrastive: {pooler}"  # at the start, before any step


def test_a_start_that_no_step_beats_is_written(bench, capsys):
    bench.offers_start, bench.rise = True, -1.0
    facts = bench.work(STAGE)
    assert (facts["best_step"], facts["best"], facts["steps"]) == (0, {"nDCG@10": -1.0}, 8)
    (said,) = [text for text in facts["alarms"] if text.startswith("No step was better than the")]
    assert f"{OWN}tiny-contrastive: {said}" in capsys.readouterr().out.splitlines()
    written = load_file(bench.folder / "storage/checkpoint/tiny/attempt/model.safetensors")
    model = CrossEncoder(backbone=str(bench.backbone), hidden_dropout=0.0)
    start = model.load(bench.backbone, 1, training=False, device="cpu").state_dict()
    assert all(torch.equal(start[name], weight) for name, weight in written.items())


# --- switches ------------------------------------------------------------------------------------


def test_switches_that_are_off_reach_nothing(bench, monkeypatch):
    for name in ("enable_gradient_checkpointing", "compiled"):
        monkeypatch.setattr(worker, name, lambda *_: pytest.fail("not asked for"))
    worker.make_deterministic(True)  # by the stage before in the same process
    bench.work(STAGE)
    assert not bench.models[0].is_gradient_checkpointing
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_stage_that_nobody_waits_for_ends_at_its_next_report(bench):
    bench.wanted = 2
    with pytest.raises(CancelledWorkError):
        bench.work(STAGE.replace(steps=8))
    assert [report["step"] for report in bench.reports] == [1, 2]
    assert not Path(bench.folder / "storage/checkpoint/tiny/attempt/trainer.json").exists()


def test_alarms_know_the_loss_of_a_model_that_ranks_nothing(bench, monkeypatch):
    begun = []
    monkeypatch.setattr(worker.Alarms, "on_start", lambda alarms, model, *rest: begun.append(rest))
    bench.work(STAGE.replace(steps=8))
    ((lr, plateau, steps, _),) = begun
    sizes = GroupReader(bench.data / "groups").sizes
    assert (lr, steps) == (STAGE.lr, 8) and plateau == pytest.approx(np.log(sizes).mean())
    assert len(set(sizes)) > 1


def test_deterministic_refuses_other_kernels(bench, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", asked.append)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    bench.work(STAGE.replace(deterministic=True))
    assert asked == [True] and torch.backends.cudnn.benchmark is False
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_gradient_checkpointing_and_compile_reach_the_model(bench, monkeypatch):
    taken = []
    monkeypatch.setattr(worker, "compiled", taken.append)  # the compiler itself takes minutes
    bench.work(STAGE.replace(gradient_checkpointing=True, compile=True))
    assert taken == [bench.models[0]] and bench.models[0].is_gradient_checkpointing


# --- a full disk ---------------------------------------------------------------------------------


@pytest.mark.parametrize("saved", [None, 3])
@pytest.mark.parametrize("full", ["storage", "scratch"])
def test_a_full_disk_at_the_end_names_the_storage_and_loses_little(
    bench, tmp_path, monkeypatch, full, saved
):
    """What was saved before remains, and the same command goes on from it."""
    stage = STAGE.replace(checkpoint_every=saved)
    no_space = OSError(errno.ENOSPC, "No space left on device")

    def refuse(*arguments):
        raise SafetensorError(str(no_space)) if full == "scratch" else no_space

    where = {
        "storage": "raypipe.storage.attempts.AttemptFolder.put_file",
        "scratch": "raypipe.models.cross_encoder.save",
    }
    with monkeypatch.context() as patch:
        patch.setattr(where[full], refuse)
        with pytest.raises(OSError, match="No space left") as raised:
            bench.work(stage)
    message = str(raised.value)
    base = f"{tmp_path}/storage/checkpoint/tiny/attempt"
    assert message.startswith(f"storage: the trained contrastive could not be written to {base} by")
    last = "step 6" if saved else "the beginning of the stage"
    assert message.endswith(f"or set another storage; the same command goes on from {last}")
    assert bench.work(stage)["resumed_from"] == ([6] if saved else [])
    broken = (Path(base) / "model.safetensors").read_bytes()
    whole = Bench(bench.data, bench.backbone, tmp_path / "whole")
    monkeypatch.setattr(worker, "validation_of", whole.validation)
    whole.work(stage)
    written = tmp_path / "whole/storage/checkpoint/tiny/attempt/model.safetensors"
    assert written.read_bytes() == broken

"""n steps == k steps + restart + the rest, to the last bit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.fs as pafs
import pytest
import torch
import torch.distributed as dist
from processes import start
from tiny_training import STAGE, column, fit, same, weights
from torch.nn.parallel import DistributedDataParallel

from raypipe.train.alarms import Alarms
from raypipe.train.checkpoint import Checkpoints
from raypipe.train.filtering import Filtering
from raypipe.train.settings import EarlyStopping, Freeze, TrainingSettings
from raypipe.train.snapshot import Snapshot

LONG = STAGE.replace(steps=12, validate_every=1, checkpoint_every=1)


def falling(model) -> dict[str, float]:
    """A validation that depends on the weights alone and is best early."""
    return {"nDCG@10": -float(sum(p.detach().abs().sum() for p in model.parameters()))}


def rising(model) -> dict[str, float]:
    """Best after the last step: Adam's first steps are long beside the initial weights."""
    return {"nDCG@10": -falling(model)["nDCG@10"]}


def best_at(data: Path, backbone: Path, stage: TrainingSettings, step: int):
    """Depends on the weights alone, and is best after the given step of this stage, on any machine:
    it is how near the weights are to those of that step."""
    seen: list[float] = []

    def record(model) -> dict[str, float]:
        seen.append(falling(model)["nDCG@10"])
        return {"nDCG@10": 0.0}

    fit(data, backbone, stage, dropout=0.1, validate=record)
    goal = seen[step - 1]
    return lambda model: {"nDCG@10": -abs(falling(model)["nDCG@10"] - goal)}


def validation_of(data: Path, backbone: Path, stage: TrainingSettings):
    if stage.early_stopping is not None:
        return falling
    return best_at(data, backbone, stage, 12 if stage.freeze.layers else 8)


def checkpoints(folder: Path, keep: int = 99) -> Checkpoints:
    return Checkpoints(pafs.LocalFileSystem(), str(folder), {"groups": "abc"}, keep)


class Killed(Exception):  # noqa: N818
    pass


def run(
    data, backbone, stage, files: Checkpoints, kill_at: int | None = None, validate=rising, **more
):
    """Train from the newest checkpoint, saving as the stage says; killed after a step's save."""
    name = files.newest()
    alarms = Alarms(lambda sentence: None, "nDCG@10", None)

    def save(step: int, snapshot: Snapshot | None) -> None:
        assert snapshot is not None
        files.write(snapshot, files.new_name(step))
        if step == kill_at:
            raise Killed

    return fit(
        data,
        backbone,
        stage,
        dropout=0.1,
        validate=validate,
        save=save,
        resume=None if name is None else files.read(name),
        alarms=alarms,
        **more,
    )


STAGES = {
    "plain": LONG,
    "stopped early": LONG.replace(early_stopping=EarlyStopping(patience=2), validate_every=2),
    "frozen, cosine": LONG.replace(
        freeze=Freeze(embeddings=True, layers=1), schedule={"type": "cosine"}, warmup_steps=5
    ),
    "filtered": LONG.replace(
        filtering=Filtering(mode="backward_forward", warmup_queries=18, window=8, memory=32)
    ),
}


def test_a_start_that_nothing_beats_comes_through_a_restart(data, tiny_backbone, tmp_path):
    start, seen = {}, []

    def validate(model) -> dict[str, float]:
        start.setdefault("weights", weights(model))
        seen.append(model)
        return {"nDCG@10": -float(len(seen))}

    files, chosen = checkpoints(tmp_path), {"validate": validate, "offers_start": True}
    with pytest.raises(Killed):
        run(data, tiny_backbone, LONG, files, kill_at=5, **chosen)
    outcome, model, _ = run(data, tiny_backbone, LONG, files, **chosen)
    assert (outcome.best_step, outcome.best, outcome.resumed_from) == (0, {"nDCG@10": -1.0}, [5])
    assert len(seen) == 1 + 12 and same(weights(model), start["weights"])


@pytest.mark.parametrize("name", STAGES)
def test_a_restart_after_any_step_changes_no_bit(data, tiny_backbone, tmp_path, name):
    stage = STAGES[name]
    chosen = {"validate": validation_of(data, tiny_backbone, stage)}
    whole, model, _ = run(data, tiny_backbone, stage, checkpoints(tmp_path / "whole"), **chosen)
    assert 0 < whole.best_step <= whole.steps and whole.resumed_from == []
    assert whole.steps == (6 if name == "stopped early" else 12)
    # the best weights come after every break
    assert name == "stopped early" or whole.best_step == (12 if stage.freeze.layers else 8)
    if name == "filtered":
        kept = column(whole, "kept")
        assert len(kept) == 12 and kept[:3] == [6, 6, 6] and 0 < sum(kept[3:]) < 6 * 9
        skipped = [whole.filtering[f"skipped_{way}"] for way in ("forward", "backward")]
        assert min(skipped) > 0 and sum(skipped) == 6 * 12 - sum(kept)
    for kill_at in (1, 2, 4, 5) if name == "plain" else (3, 5):
        files = checkpoints(tmp_path / str(kill_at))
        with pytest.raises(Killed):
            run(data, tiny_backbone, stage, files, kill_at, **chosen)
        torch.manual_seed(999)  # a new process
        again, other, reports = run(data, tiny_backbone, stage, files, **chosen)
        assert same(weights(model), weights(other))
        assert again.history == whole.history
        assert (again.best, again.best_step) == (whole.best, whole.best_step)
        assert (again.steps, again.pairs, again.tokens) == (whole.steps, whole.pairs, whole.tokens)
        assert again.alarms == whole.alarms
        assert again.filtering == pytest.approx(whole.filtering, nan_ok=True, rel=0, abs=0)
        assert again.resumed_from == [kill_at]
        rows = [row for report in reports for row in report["rows"]]
        assert rows == whole.history  # told from the beginning: the tracker may be another


def constant(model: torch.nn.Module) -> torch.nn.Module:
    """A head that gives every pair one score and is not trained."""
    with torch.no_grad():
        model.classifier.weight.zero_()
    model.classifier.weight.requires_grad_(False)
    return model


@pytest.mark.parametrize("kill_at", [1, 2, 4])
def test_an_interruption_neither_hides_nor_repeats_an_alarm(data, tiny_backbone, tmp_path, kill_at):
    """Constant scores are said at the third step in a row, and again at ten times as many."""
    stage = LONG.replace(steps=32, validate_every=16)
    whole, _, _ = run(data, tiny_backbone, stage, checkpoints(tmp_path / "whole"), wrap=constant)
    sentences = [text for text in whole.alarms if "the same score" in text]
    assert [text.split(":")[0] for text in sentences] == ["Step 3", "Step 30"]
    files = checkpoints(tmp_path / "broken")
    with pytest.raises(Killed):
        run(data, tiny_backbone, stage, files, kill_at, wrap=constant)
    again, _, _ = run(data, tiny_backbone, stage, files, wrap=constant)
    assert again.resumed_from == [kill_at] and again.alarms == whole.alarms


def test_two_interruptions(data, tiny_backbone, tmp_path):
    whole, model, _ = run(data, tiny_backbone, LONG, checkpoints(tmp_path / "whole"))
    assert whole.best_step == 12  # else the weights of before the break would be compared
    files = checkpoints(tmp_path / "broken")
    for kill_at in (3, 8):
        with pytest.raises(Killed):
            run(data, tiny_backbone, LONG, files, kill_at)
    again, other, _ = run(data, tiny_backbone, LONG, files)
    assert again.resumed_from == [3, 8] and same(weights(model), weights(other))


def test_what_the_comparison_sees(data, tiny_backbone, tmp_path):
    """Dropout's random state matters here: without it the weights differ."""
    _, model, _ = run(data, tiny_backbone, LONG, checkpoints(tmp_path / "whole"))
    files = checkpoints(tmp_path / "broken")
    with pytest.raises(Killed):
        run(data, tiny_backbone, LONG, files, 4)
    snapshot = files.read(files.newest())
    rng = {"0|cpu": torch.Generator().manual_seed(1).get_state()}
    shifted = dataclasses.replace(snapshot, tensors={**snapshot.tensors, "rng": rng})
    assert shifted.tensors["rng"]["0|cpu"].shape == snapshot.tensors["rng"]["0|cpu"].shape
    outcome, other, _ = fit(data, tiny_backbone, LONG, dropout=0.1, validate=rising, resume=shifted)
    assert outcome.steps == 12 and not same(weights(model), weights(other))


def test_a_stage_that_was_complete_is_only_written(data, tiny_backbone, tmp_path):
    """Killed between its last step and its commit, having saved the step before."""
    stage = LONG.replace(steps=6)
    _, model, _ = run(data, tiny_backbone, stage, checkpoints(tmp_path / "a"))
    files = checkpoints(tmp_path / "a")
    assert files.read(files.newest()).step == 5  # the last step is committed, not saved
    again, other, _ = run(data, tiny_backbone, stage, files)
    assert again.resumed_from == [5] and same(weights(model), weights(other))


def test_short_stages_write_no_checkpoint(data, tiny_backbone):
    saved = []
    stage = STAGE.replace(validations=8)
    fit(data, tiny_backbone, stage, save=lambda step, snapshot: saved.append(step))
    assert saved == []


def test_long_stages_save_at_reports(data, tiny_backbone, monkeypatch):
    monkeypatch.setattr("raypipe.train.loop.SAVE_AFTER_S", 0.0)
    saved = []
    stage = STAGE.replace(steps=60, validations=2)
    _, _, reports = fit(data, tiny_backbone, stage, save=lambda step, snapshot: saved.append(step))
    assert saved == [report["step"] for report in reports][:-1] and len(saved) == 19


def test_another_model_is_refused(data, tiny_backbone, tmp_path):
    files = checkpoints(tmp_path)
    with pytest.raises(Killed):
        run(data, tiny_backbone, LONG, files, 2)
    snapshot = files.read(files.newest())
    del snapshot.tensors["weights"]["classifier.weight"]
    with pytest.raises(ValueError, match=r"another model: classifier\.weight"):
        fit(data, tiny_backbone, LONG, resume=snapshot)


# --- several processes ---------------------------------------------------------------------------


COLUMNS = ("loss", "lr", "pairs", "tokens")


def worker(
    rank: int, world: int, folder: str, backbone: str, data: str, dropouts: tuple[float, ...]
) -> None:
    """One of `world` processes."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world
    )
    for dropout in dropouts:
        here = Path(folder) / str(dropout)
        here.mkdir(exist_ok=True)
        interrupt(rank, here, Path(backbone), Path(data), dropout)
    dist.destroy_process_group()


def interrupt(rank: int, here: Path, backbone: Path, data: Path, dropout: float) -> None:
    """Trains whole, then with a restart after step 4."""
    files, results = checkpoints(here / "files"), {}

    def save(step: int, snapshot: Snapshot | None) -> None:
        assert (snapshot is not None) == (rank == 0)
        if step == 4:
            if snapshot is not None:
                files.write(snapshot, files.new_name(step))
            raise Killed

    def once(label: str, **more) -> None:
        torch.manual_seed(rank)
        try:
            outcome, model, _ = fit(
                data,
                backbone,
                LONG.replace(steps=8),
                seed=5,
                budget=128,
                dropout=dropout,
                validate=rising,
                wrap=lambda model: DistributedDataParallel(model, broadcast_buffers=False),
                **more,
            )
            assert outcome.best_step == 8  # these are the weights that are compared
            columns = {name: column(outcome, name) for name in COLUMNS}
            results[label] = {**columns, "weights": weights(model)}
        except Killed:
            pass

    once("whole")
    once("killed", save=save)
    dist.barrier()
    once("again", resume=files.read(files.newest()))
    torch.save(results, here / f"{rank}.pt")


@pytest.fixture(scope="module")
def processes(data, tiny_backbone, tmp_path_factory) -> dict[int, Path]:
    """What two and what three processes left, by their number; two without dropout as well."""
    left = {2: (0.1, 0.0), 3: (0.1,)}
    folders = {world: tmp_path_factory.mktemp(f"processes-{world}") for world in left}
    for world, dropouts in left.items():
        arguments = (world, str(folders[world]), str(tiny_backbone), str(data), dropouts)
        start(worker, arguments, world)
    return folders


@pytest.mark.parametrize("world", [2, 3])
def test_processes_go_on_with_their_own_random_state(processes, world):
    """With three, the order in which gradients are added depends on DDP's buckets as well."""
    found = [torch.load(processes[world] / "0.1" / f"{rank}.pt") for rank in range(world)]
    for one in found:
        assert "killed" not in one
        assert one["again"]["loss"] == one["whole"]["loss"] == found[0]["whole"]["loss"]
        assert same(one["again"]["weights"], found[0]["whole"]["weights"])
        assert same(one["whole"]["weights"], found[0]["whole"]["weights"])


def test_two_workers_are_continued_by_one(data, tiny_backbone, processes):
    """The same groups in the same order at the same rates and so, without dropout, losses equal up
    to rounding."""
    pair = torch.load(processes[2] / "0.0" / "0.pt")["whole"]
    files = checkpoints(processes[2] / "0.0" / "files")
    snapshot = files.read(files.newest())
    assert snapshot.facts["world"] == 2 and snapshot.step == 4
    outcome, _, _ = fit(
        data,
        tiny_backbone,
        LONG.replace(steps=8),
        seed=5,
        budget=128,
        validate=rising,
        resume=snapshot,
    )
    assert outcome.resumed_from == [4] and outcome.steps == 8
    for name in ("pairs", "tokens", "lr"):
        assert column(outcome, name) == pair[name]
    assert column(outcome, "loss")[:4] == pair["loss"][:4]
    np.testing.assert_allclose(column(outcome, "loss"), pair["loss"], rtol=0, atol=1e-4)


def test_another_number_of_workers_draws_other_dropout(data, tiny_backbone, tmp_path):
    """A snapshot that says it is of two workers, continued by one."""
    files = checkpoints(tmp_path)
    with pytest.raises(Killed):
        run(data, tiny_backbone, LONG, files, 4)
    snapshot, other = (files.read(files.newest()) for _ in range(2))  # training goes on in them
    of_two = dataclasses.replace(other, facts={**other.facts, "world": 2})
    same_size, _, _ = fit(data, tiny_backbone, LONG, dropout=0.1, validate=rising, resume=snapshot)
    resized, _, _ = fit(data, tiny_backbone, LONG, dropout=0.1, validate=rising, resume=of_two)
    for name in ("pairs", "tokens", "lr"):
        assert column(resized, name) == column(same_size, name)
    assert column(resized, "loss")[:4] == column(same_size, "loss")[:4]
    assert column(resized, "loss")[4:] != column(same_size, "loss")[4:]


def test_facts_are_json(data, tiny_backbone, tmp_path):
    files = checkpoints(tmp_path)
    with pytest.raises(Killed):
        run(data, tiny_backbone, STAGES["filtered"], files, 5)
    facts = files.read(files.newest()).facts
    assert facts == json.loads(json.dumps(facts)) and facts["outcome"]["steps"] == 5

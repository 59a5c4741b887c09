"""The jobs' command line, as a user meets it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from raypipe.commands.command_line import _run
from raypipe.commands.compare import run
from raypipe.interrupts import SENTENCE
from raypipe.program import train
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load, validate

ROOT = Path(__file__).resolve().parents[2]


def job(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "jobs" / name, *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


@pytest.mark.parametrize("name", ["sweep.py", "train.py"])
def test_help_names_every_option(command, name):
    done = command(name, "--help")
    assert done.returncode == 0
    for option in ("RECIPE", "key=value", "--print-config", "--dry-run", "--summary"):
        assert option in done.stdout


def test_jobs_are_executable_with_a_shebang():
    found = sorted((ROOT / "jobs").glob("*.py"))
    assert {"sweep.py", "train.py", "benchmark.py"} <= {path.name for path in found}
    for path in found:
        assert path.read_text().startswith("#!/usr/bin/env python\n")
        assert path.stat().st_mode & stat.S_IXUSR, path.name


def test_the_printed_config_is_the_config(command, recipe, tmp_path):
    done = command("sweep.py", recipe, "seed=5", "stages.distil.lr=1e-5", "--print-config")
    printed = tmp_path / "printed.yaml"
    printed.write_text(done.stdout)
    again = load(Experiment, printed)
    assert again == load(Experiment, recipe, ["seed=5", "stages.distil.lr=1e-5"])
    assert (again.seed, again.stages["distil"].lr) == (5, 1e-5)


def test_without_a_recipe_the_default_runs(command):
    done = command("sweep.py", "seed=3", "--print-config")
    import yaml

    printed = validate(Experiment, yaml.safe_load(done.stdout), "printed")
    assert (printed.name, printed.seed) == ("pydoc-demo", 3)


def test_a_dry_run_prints_the_plan_and_writes_nothing(command, unprobed, recipe):
    done = command("sweep.py", recipe, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "2 trials, 2 distinct stages instead of 3" in done.stdout
    assert "contrastive -> distil: contrastive -> distil" in done.stdout
    assert not list((recipe.parent / "storage").iterdir())
    assert not (recipe.parent / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("stages.distil.los.type=infonce", "did you mean 'loss'?"),
        ("stages.distill.lr=1e-4", "did you mean 'distil'?"),
        ("stages.distil.loss.type=margin_msee", "did you mean 'margin_mse'?"),
        ("evaluation.depth=0", "evaluation.depth: input should be greater than or equal to 1"),
        ("model.backbone=./nowhere", "backbone ./nowhere: no directory"),
        ("data.test={dataset: beir/scifat/test}", "beir/scifa"),
        ("data.test.split=tset", "did you mean 'test'?"),
        ("candidates={type: trec_run, paths: [/no/such.run]}", "/no/such.run"),
        ("teacher={type: run_file, paths: [x.run]}", "margin_mse cannot use the run_file teacher"),
        ("reference=contrastiv", "did you mean 'contrastive'?"),
        ("evaluation.measures=[nDCG@10, RRR@10]", "RRR"),
    ],
)
def test_bad_input_is_one_plain_error_before_any_work(recipe, change, expected, capsys):
    with pytest.raises(typer.Exit) as stopped:
        _run(lambda experiment, dry: run(experiment), recipe, [change], False, False, None)
    assert stopped.value.exit_code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert expected in said
    assert not (recipe.parent / "mlflow.db").exists()


class Done:
    """What a job's work returns."""

    def __init__(self, failed: dict[str, str]) -> None:
        self.failed = failed


def test_the_first_line_comes_before_anything_is_read(recipe, capsys):
    """What a recipe needs is imported for seconds."""
    with pytest.raises(typer.Exit):
        _run(lambda experiment, dry: None, recipe, ["sed=4"], False, False, None)
    assert capsys.readouterr().out == f"recipe: {recipe}\n"
    with pytest.raises(typer.Exit):
        _run(lambda experiment, dry: None, recipe, ["sed=4"], False, True, None)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("result", "code", "written"),
    [(Done({}), None, True), (Done({"one": "error"}), 1, False), (None, None, False)],
)
def test_export_follows_work_that_succeeded(recipe, tmp_path, result, code, written):
    """Not a failure, nor a dry run, whose work returns None."""
    calls: list[tuple] = []
    target = (
        lambda experiment: lambda folder: calls.append((experiment, folder)),
        tmp_path / "out",
    )
    try:
        _run(lambda experiment, dry: result, recipe, ["seed=4"], False, False, None, target)
        stopped = None
    except typer.Exit as exit_:
        stopped = exit_.exit_code
    assert stopped == code
    expected = [(load(Experiment, recipe, ["seed=4"]), tmp_path / "out")]
    assert calls == (expected if written else [])


def test_export_refuses_a_folder_that_is_not_empty(command, recipe, tmp_path):
    done = command("train.py", recipe, "--export", tmp_path)  # the recipe is in it
    assert (done.returncode, done.stdout) == (2, f"recipe: {recipe}\n")
    assert done.stderr == f"error: --export {tmp_path}: the folder is not empty; name a new one\n"


def test_export_is_of_one_model(command, recipe, tmp_path):
    done = command("sweep.py", recipe, "--export", tmp_path / "out")
    assert done.returncode == 2 and "one model is written by jobs/train.py" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--form", "onnx"], "names the form of --export FOLDER"),
        (["--form", "onxx", "--export", "out"], "error: --form onxx: expected transformers, "),
        (["--form", "classifier", "--export", "out"], "error: --form classifier: distils a "),
    ],
)
def test_a_form_is_refused_before_work(command, recipe, tmp_path, words, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command("train.py", recipe, "reference=contrastive", *words)
    assert done.returncode == 2 and said in done.stderr
    assert not (tmp_path / "storage").exists() and not (tmp_path / "out").exists()


def test_train_exports_its_last_stage_without_the_sweep(recipe, tmp_path, monkeypatch, capsys):
    calls: list[tuple] = []
    monkeypatch.setattr("raypipe.commands.export.export", lambda *given: calls.append(given))
    experiment = load(Experiment, recipe, ["seed=4"])
    write = train.export(experiment, "transformers")
    assert calls == []
    write(tmp_path / "out")
    ((trial, builder, folder, form),) = calls
    assert form == "transformers"
    assert trial.experiment == train.alone(experiment) and trial.name == "contrastive -> distil"
    assert trial.experiment.trained().digest == experiment.trained().digest
    assert builder.store == experiment.store() and folder == tmp_path / "out"
    assert str(tmp_path / "out") in capsys.readouterr().out


def test_storage_that_cannot_be_written(command, recipe, tmp_path):
    (tmp_path / "file").write_text("not a directory")
    done = command("sweep.py", recipe, f"storage={tmp_path}/file/below")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "storage=" in done.stderr


def test_an_empty_split_is_found_before_ray_starts(command, recipe):
    done = command("sweep.py", recipe, "data.test.skip=500")
    assert done.returncode == 2
    assert "500" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.ray
def test_train_writes_a_summary(mined_recipe, tmp_path):
    import json

    target = tmp_path / "summary.json"
    assert os.environ["RAY_ADDRESS"] == "local"  # the job starts its own Ray
    done = job("train.py", mined_recipe, "order=[contrastive]", "--summary", target)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {row["name"]: row for row in json.loads(target.read_text())["rows"]}
    assert rows["contrastive"]["kind"] == "trained"
    assert (
        rows["BM25"]["versus"]["contrastive"]["nDCG@10"]["p_holm"] is not None
    )  # tested against the trained row
    assert "12 test queries" in done.stdout and "12 validation queries" in done.stdout
    assert "36 training groups" in done.stdout


def test_a_terminal_without_the_characters_costs_nothing(recipe):
    ascii_only = {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"}
    command = [sys.executable, ROOT / "jobs" / "sweep.py", recipe, "name=日本語", "--print-config"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ascii_only})
    assert (done.returncode, done.stderr) == (0, "") and "name: ???" in done.stdout


INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
from pathlib import Path
from raypipe.program import run, sweep

def work(experiment, dry_run):
    os.kill(os.getpid(), int(os.environ["SIGNAL"]))

sweep.work = work
run("sweep")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_job_says_one_sentence(recipe, number):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, recipe],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "SIGNAL": str(int(number))},
    )
    said = (f"recipe: {recipe}\n", f"{SENTENCE}\n")
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, *said)

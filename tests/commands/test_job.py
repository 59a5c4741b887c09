"""What a job leaves in the tracking store, written by its own steps; needs no cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from denying_server import denying_server
from report_rows import report as given

from raypipe.commands import result as results
from raypipe.commands.compare import run
from raypipe.commands.job import log_inputs, tracked
from raypipe.commands.mine import Mined
from raypipe.commands.note import note_of
from raypipe.commands.result import line_of, record_best
from raypipe.config import ConfigError
from raypipe.evaluation.report.text import to_markdown
from raypipe.evaluation.report.verdict import verdict_sentence
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.runs.combined import InterpolatedRun
from raypipe.storage.artifacts import Artifact, Store
from raypipe.sweep.best import Best
from raypipe.sweep.derived import derived_rows
from raypipe.sweep.plan import Plan
from raypipe.sweep.run_trial import Work, run_trial
from raypipe.tracking import stored_runs as stores
from raypipe.tracking.recorder import Kind, Recorder
from raypipe.tracking.relay import Relay, _Writer

STORAGE = "s3://AKIA:hush@hush/hush@bucket/x?secret_key=hush"
SHOWN = "s3://***@bucket/x"
TRACKING = "postgresql://me:hush@hush/hush@host/db?password=hush"
RUNS = {"seed": 1}


class Near(Relay):
    """A relay to a recorder in this process; the address that it is given is not used."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.sent: list[tuple[Any, ...]] = []

    def start(self, name: str, kind: Kind, parent: str | None, params: Any, tags: Any) -> str:
        run = f"run {len(self.sent)}"
        self.send("start", run, name, kind, parent, params, tags)
        return run

    def send(self, verb: str, *args: Any, **kwargs: Any) -> None:
        self.sent.append((verb, *args))
        if verb not in ("watch", "log_model", "written"):
            getattr(self.recorder, verb)(*args, **kwargs)

    def drain(self, say: Callable[[str], None], patience: float = 5.0) -> dict[str, Any]:
        assert self.recorder.drain() == (0, 0)
        return {"runs": dict(self.recorder.spool.runs)}

    def stored(self) -> None:
        self.send("written")

    def close(self) -> None:
        self.recorder.close()


class Standing:
    """A builder whose every artifact stands in a storage behind a password."""

    store = Store(STORAGE)

    def get(self, step: Any) -> Artifact:
        return Artifact(self.store, step.path, {"digest": step.digest, "counts": {"means": {}}})

    find = get


class Silent(Standing):
    """One whose storage does not say what stands."""

    def find(self, step: Any) -> Artifact:
        raise OSError(f"no answer from {STORAGE}")


@pytest.fixture
def relay(tmp_path, monkeypatch) -> Near:
    one = Near(Recorder(f"sqlite:///{tmp_path}/tracked/mlflow.db", "tiny"))
    monkeypatch.setattr(Relay, "open", lambda uri, experiment, tags: one)
    return one


def left(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def runs(folder: Path) -> dict[str, Any]:
    """By name."""
    client = stores.TrackingStore(f"sqlite:///{folder}/tracked/mlflow.db").client
    experiment = client.get_experiment_by_name("tiny").experiment_id
    return {run.info.run_name: run for run in client.search_runs([experiment])}


def test_nothing_that_is_recorded_holds_a_password(recipe, relay, tmp_path, monkeypatch):
    monkeypatch.setenv("HUSH", "hush")  # the recipe names it, the job knows it
    given = [f"tracking={TRACKING.replace('hush', '${HUSH}')}", f"storage={STORAGE}"]
    experiment = load(Experiment, recipe, given)
    assert (experiment.tracking.uri, experiment.store().uri) == (TRACKING, STORAGE)
    (trial, *_), builder = expand(experiment), Silent()

    def work(relay: Relay, run: str) -> Any:
        log_inputs(experiment, ["test"], builder, relay, run)
        run_trial(trial, builder, relay, run, Work(Plan.of([trial])))

    with pytest.raises(OSError):
        tracked(experiment, print, work)
    found = left(tmp_path / "tracked")
    assert any(
        f"storage: {SHOWN}?secret_key=***\n".encode() in content for content in found.values()
    )
    assert [name for name, content in found.items() if b"hush" in content] == []
    one = runs(tmp_path)[trial.name]
    assert one.data.params["tracking.uri"] == "postgresql://***@host/db?password=***"
    assert one.data.tags["raypipe.error"] == f"OSError: no answer from {SHOWN}?secret_key=***"
    assert one.info.status == "FAILED"
    relay.close()


def test_a_run_whose_recipe_cannot_be_recorded_ends_as_failed(recipe, relay, tmp_path, monkeypatch):
    def broken(self, run: str, text: str, name: str) -> None:
        raise OSError("no room")

    monkeypatch.setattr(Recorder, "log_text", broken)
    with pytest.raises(OSError, match="no room"):
        tracked(load(Experiment, recipe), print, lambda relay, run: pytest.fail("began"))
    assert runs(tmp_path)["tiny"].info.status == "FAILED"
    relay.close()


def test_no_summary_holds_a_password(recipe):
    (trial, *_) = expand(load(Experiment, recipe, [f"storage={STORAGE}"]))
    line = line_of(Plan.of([trial]).metrics(trial), Standing())
    assert line["checkpoint"].startswith(f"{SHOWN}/checkpoint/")
    mined = Mined({"queries": Standing().get(trial.experiment.queries("test"))}, [])
    assert "hush" not in f"{line} {mined.summary()}"


def test_no_message_holds_a_password():
    with pytest.raises(
        ConfigError, match=r"storage s3://\*\*\*@bucket/x\?secret_key=\*\*\*: expected"
    ) as error:
        Store(STORAGE).check_writable()
    assert "hush" not in str(error.value)
    uri = "http://me:hush@127.0.0.1:9"
    with pytest.raises(ConfigError, match=r"in http://\*\*\*@127.0.0.1:9") as error:
        stores.TrackingStore(uri).job("0" * 32)
    assert "hush" not in str(error.value)
    writer = _Writer(uri, "x")
    assert writer.drain(0.1)["uri"] == "http://***@127.0.0.1:9"
    writer.close()


def test_trials_that_were_stopped_end_before_the_job(recipe, relay, tmp_path):
    """Tune ends the actor of a pruned trial, which says nothing any more."""

    def work(relay: Relay, run: str) -> Any:
        trial = relay.start("pruned", "trial", run, {}, RUNS)
        relay.start("distil", "stage", trial, {}, RUNS)
        relay.send("finish", relay.start("whole", "trial", run, {}, RUNS))
        return SimpleNamespace(tracked_run="", status="FINISHED")

    result = tracked(load(Experiment, recipe), print, work)
    status = {name: run.info.status for name, run in runs(tmp_path).items()}
    assert status == {
        "tiny": "FINISHED",
        "pruned": "KILLED",
        "distil": "KILLED",
        "whole": "FINISHED",
    }
    assert result.tracked_run == runs(tmp_path)["tiny"].info.run_id


def test_the_best_model_is_always_sent_with_its_digest(recipe, relay, tmp_path, monkeypatch):
    """A job that was killed just before trained everything; the server knows what it has."""
    (trial, *_), builder = expand(load(Experiment, recipe)), Standing()
    monkeypatch.setattr(results, "card_of", lambda *_: "# Card")
    monkeypatch.setattr(Artifact, "local", lambda artifact: tmp_path)
    run = relay.start("tiny", "job", None, {}, RUNS)
    assert record_best(Best(trial, Plan.of([trial])), builder, relay, run) == []
    experiment = trial.experiment
    first = experiment.metrics(experiment.first_stage("test")).digest
    contest = {"test": f"nDCG@10 {first}", "value": 0.0}
    digest = experiment.trained().digest
    expected = ("log_model", run, str(tmp_path), "reranker", "tiny", {}, digest, contest, None)
    assert relay.sent[-1] == expected
    relay.close()


@pytest.mark.parametrize(("alone", "mixed"), [(0.2, 0.4), (0.2, 0.5), (0.6, 0.7)])
def test_a_smoke_run_below_its_first_stage_is_no_version(
    recipe, relay, tmp_path, monkeypatch, alone, mixed
):
    """Of a model alone as of one that is mixed: what is handed out counts."""

    class Judged(Standing):
        def get(self, step: Any) -> Artifact:
            measured = getattr(step, "run_step", step)
            value = alone if measured.kind == "run" else 0.5
            means = {"nDCG@10": mixed if isinstance(measured, InterpolatedRun) else value}
            counts = {"means": means, "weight": 0.6}
            return Artifact(self.store, step.path, {"digest": step.digest, "counts": counts})

    monkeypatch.setattr(results, "card_of", lambda *_: "# Card")
    monkeypatch.setattr(Artifact, "local", lambda artifact: tmp_path)
    given = ["evaluation.ensembles=[interpolation]"]
    plan = Plan.of(expand(load(Experiment, recipe, given))[:1])
    run = relay.start("tiny", "job", None, {}, RUNS)
    for row, value in ((None, alone), (derived_rows(plan, ("interpolation",))[0], mixed)):
        best = Best(plan.trials[0], plan, row)
        said = record_best(best, Judged(), relay, run)
        *_, registered, means, digest, contest, interpolation = relay.sent[-1]
        assert registered == ("tiny" if value >= 0.5 else None) and contest["value"] == value
        assert (means, digest) == ({"nDCG@10": value}, best.digest())
        assert (interpolation or {}).get("weight") == (None if row is None else 0.6)
        assert len(said) == (value < 0.5)
        assert not said or f"{best.name} is not registered as the best model of tiny" in said[0]
    relay.close()


# --- reports are stored before they are printed ---------------------------------------------------


@pytest.fixture
def order(monkeypatch) -> list[str]:
    """What is sent, stored and printed, in order."""
    done: list[str] = []
    monkeypatch.setattr(results, "print_report", lambda report, notes: done.append("printed"))
    return done


class Ordered:
    """A relay that writes down what it is told."""

    def __init__(self, done: list[str], broken: str = "") -> None:
        self.done, self.broken = done, broken

    def send(self, verb: str, run: str, content: Any, name: str) -> None:
        if name == self.broken:
            raise OSError("no disk")
        assert content
        self.done.append(name)

    def stored(self) -> None:
        self.done.append("stored")


FILES = [
    *("comparison.json", "report.json", "first_documents.json"),
    *("report.md", "report.html", "report.png"),
]


def test_a_report_is_on_disk_before_it_is_printed(order):
    results.publish(given(), Ordered(order), "run")
    assert order == [*FILES, "stored", "printed"]


def test_a_report_that_cannot_be_stored_is_printed(order):
    with pytest.raises(OSError, match="no disk"):
        results.publish(given(), Ordered(order, "report.md"), "run")
    assert order == [*FILES[:3], "printed"]


def test_a_server_that_denies_the_experiment_ends_the_job_before_work(recipe, monkeypatch):
    monkeypatch.setattr("raypipe.commands.job.start_cluster", lambda *_: pytest.fail("it began"))
    with denying_server() as (uri, _):
        experiment = load(Experiment, recipe, [f"tracking={uri}", "tracking.experiment=ours"])
        with pytest.raises(ConfigError, match=r"^tracking: the experiment 'ours' could not be had"):
            run(experiment, lambda line: None)


def test_a_job_s_note_fits_a_tag_and_ends_with_a_whole_line():
    short, long = given(), given(notes=tuple(f"note {n} {'x' * 90}" for n in range(90)))
    for report in (short, long):
        note = note_of(report, "")
        assert note.startswith(f"**{verdict_sentence(report, '')}**\n\n# ")
        assert note.endswith("`report.html` among the artifacts.") and len(note) <= 5000
    kept, cut, _ = note_of(long, "").partition("\n\n...\n\n")
    assert cut and kept.splitlines()[-1] in to_markdown(long).splitlines()

"""What costs a row does not cost the table."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace

import pytest

from raypipe.commands import job as jobs
from raypipe.commands.compare import Comparison, _made, plan_of
from raypipe.commands.job import StudyJob
from raypipe.config import ConfigError
from raypipe.evaluation.results import Row
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.resources import Context, Resources
from raypipe.runs.metrics import Metrics
from raypipe.stages.stage import Stage
from raypipe.storage.builder import Builder
from raypipe.storage.copies import CopyError
from raypipe.sweep import run_trial as trial
from raypipe.sweep import runner
from raypipe.sweep import table_rows as rows
from raypipe.sweep.best import best_of
from raypipe.sweep.derived import DerivedRow, derived_rows, needed
from raypipe.sweep.plan import Plan
from raypipe.sweep.report_facts import alarms_of, curves_of
from raypipe.sweep.run_trial import Work, missing, run_trial
from raypipe.sweep.runner import Runner

RELAY = SimpleNamespace(
    links=dict, start=lambda *_: "run", send=lambda *_, **__: None, stored=lambda: None
)
VALUES = {"q1": 0.25, "q2": 0.75}
PER_QUERY = dict.fromkeys(("nDCG@10", "RR@10", "Judged@10"), VALUES)


class Deleted:
    """A builder in whose store every metric stands and some checkpoints no more."""

    def __init__(self, *standing: str) -> None:
        self.standing, self.context = standing, Context(Resources())

    def find(self, step):
        if isinstance(step, Metrics):
            return SimpleNamespace(counts={"means": {"nDCG@10": 0.5}})
        if isinstance(step, Stage) and step.stage_name in self.standing:
            return SimpleNamespace(counts={"best": {"nDCG@10": 0.6}})
        return None

    def get(self, step):
        found = self.find(step)
        assert found is not None, f"{step.kind} {step.name} is made again"
        return found


def job(recipe, *more: str, say=lambda line: None) -> StudyJob:
    comparison, builder = plan_of(load(Experiment, recipe, more))
    return StudyJob(comparison, builder, RELAY, "job", say)


# --- a trial that fails ---------------------------------------------------------------------------


def broken(errors):
    """A `run_trial` that raises these, one after the other."""
    left = iter(errors)

    def run(*_):
        raise next(left)

    return run


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ([ConfigError("stages.contrastive: wrong")], "ConfigError: stages.contrastive: wrong"),
        ([RuntimeError("once"), RuntimeError("twice")], "RuntimeError: twice"),
    ],
)
def test_one_trial_alone_fails_as_two_do(recipe, monkeypatch, errors, said):
    found = expand(load(Experiment, recipe))[:1]
    monkeypatch.setattr(runner, "run_trial", broken(errors))
    monkeypatch.setattr(Runner, "settle", lambda self, count: 1)
    monkeypatch.setattr(Runner, "slots", lambda self, shared: contextlib.nullcontext())
    builder = Builder(found[0].experiment.store())
    failed = Runner(builder, RELAY, "job", retries=1).run(found, Work(Plan.of(found)))
    assert failed.keys() == {"contrastive"} and failed["contrastive"].endswith(said)


def test_a_trial_that_stands_but_cannot_be_read_is_a_failed_row(recipe, monkeypatch):
    found = expand(load(Experiment, recipe))[:1]
    monkeypatch.setattr(runner, "run_trial", broken(OSError("unreadable") for _ in range(2)))
    monkeypatch.setattr(Work, "done", lambda *_: True)
    monkeypatch.setattr(Runner, "settle", lambda self, count: 1)
    monkeypatch.setattr(Runner, "slots", lambda self, shared: contextlib.nullcontext())
    builder = Builder(found[0].experiment.store())
    failed = Runner(builder, RELAY, "job", retries=0).run(found, Work(Plan.of(found)))
    assert failed == {"contrastive": "OSError: unreadable"}


def test_when_every_trial_fails_there_is_a_report(recipe, monkeypatch, capsys):
    results = {"test": [PER_QUERY]}
    counts = {"queries/test": {"queries": 2}, "collection/test": {"docs": 3}}
    counts["queries/validation"] = {"queries": 2}
    fixed = [Row("BM25", "first_stage", results), Row("oracle", "oracle", results)]
    errors = {"contrastive": "NaN", "contrastive -> distil": "out of memory"}
    lost = SimpleNamespace(run=lambda trials, work: errors)
    for name, stub in {
        "available": lambda *_: (("test",), {}),
        "teacher_quality": lambda *_: [],
        "mine_shared": lambda *_: counts,
        "log_inputs": lambda *_: None,
        "baselines": lambda *_: fixed,
        "log_plain_row": lambda *_: None,
        "Runner": lambda *_: lost,
    }.items():
        monkeypatch.setattr(jobs, name, stub)
    said: list[str] = []
    result = job(recipe, say=said.append).run()
    assert result.failed == errors and result.status == "FAILED" and result.artifacts == {}
    assert {row.name: row.error for row in result.report.failed} == errors
    assert json.dumps(result.summary())
    printed = capsys.readouterr().out
    assert "FAILED contrastive: NaN" in printed
    assert any(line.startswith("every trial failed") for line in said)
    assert "BM25" in printed and ".500" in printed


def test_a_derived_row_that_fails_is_a_note(recipe, monkeypatch):
    one = job(recipe, "evaluation.ensembles=[interpolation]")
    made = Row("contrastive -> distil + first stage", "derived", {"test": [PER_QUERY]})

    def row(self, *_):
        if self.name == made.name:
            return made
        raise OSError("disk full")

    monkeypatch.setattr(DerivedRow, "measured", row)
    monkeypatch.setattr(jobs, "log_plain_row", lambda *_: None)
    (derived,), shown = one.study._derived(one, one.study.plan, {}, set(), ("test",))
    assert derived.name == made.name and shown == [made]
    assert one.notes == ["no row 'contrastive + first stage': OSError: disk full"]


def test_a_run_file_of_suites_is_looked_for_before_work(recipe):
    given = 'evaluation.suite_candidates={"type": "trec_run", "paths": ["/no/such.run"]}'
    load(Experiment, recipe, [given]).check()  # no suite reads it
    one = load(Experiment, recipe, [given, "evaluation.suites=[nanobeir]"])
    with pytest.raises(ConfigError, match=r"evaluation\.suite_candidates: .*/no/such\.run"):
        one.check()


# --- a checkpoint that was deleted ----------------------------------------------------------------


def test_a_measured_trial_is_done_without_its_checkpoints(recipe, monkeypatch):
    (_, two) = expand(load(Experiment, recipe))
    plan = Plan.of([two])
    chain = plan.chain(two)
    for standing in ((), ("contrastive",), ("distil",)):
        assert Work(plan).done(two, Deleted(*standing))
        needs = Work(plan, needed=frozenset({chain[-1].digest}))
        assert needs.done(two, Deleted(*standing)) == ("distil" in standing)
    monkeypatch.setattr(rows, "per_query", lambda _: PER_QUERY)
    logged = []
    monkeypatch.setattr(trial, "log_row", lambda relay, run, row, metrics: logged.append(row))
    assert run_trial(two, Deleted(), RELAY, "job", Work(plan)) == {"nDCG@10": 0.5}
    (row,) = logged
    assert row.results == {"test": [PER_QUERY]} and row.reused
    assert (row.stages, row.pairs, row.seconds) == ((), None, None)


def test_only_what_the_last_stage_goes_on_from_is_trained(recipe):
    (_, two) = expand(load(Experiment, recipe))
    chain = Plan.of([two]).chain(two)
    names = [[s.stage_name for s in missing(chain, Deleted(*there))] for there in STANDING]
    assert names == [["contrastive", "distil"], ["distil"], [], []]


STANDING = [(), ("contrastive",), ("distil",), ("contrastive", "distil")]


def test_the_report_says_what_is_gone_and_the_best_is_one_that_stands(recipe):
    plan = Plan.of(expand(load(Experiment, recipe)))
    first = plan.only(plan.trials[:1])
    assert alarms_of(first, Deleted()) == [
        "contrastive: its checkpoint was deleted; the values are stored, so nothing "
        "was trained again"
    ]
    assert curves_of(first, Deleted()) == {"contrastive": []}
    assert best_of(plan, [], Deleted()) is None
    assert best_of(plan, [], Deleted("contrastive")).trial == plan.trials[0]


def test_who_needs_a_deleted_checkpoint(recipe):
    given = ['sweep.space={"seed": [1, 2]}', "order=contrastive"]
    comparison, builder = plan_of(
        load(Experiment, recipe, [*given, "evaluation.ensembles=[average]"])
    )
    plan = comparison.plan
    stages = plan.stages.keys()
    mean = derived_rows(plan, ("average",))
    assert needed(mean, builder, ("test",)) == stages  # the row is not there yet
    assert needed(mean, Deleted(), ("test",)) == frozenset()  # it is
    assert comparison.work(plan, Deleted(), ("test",)).needed == frozenset()
    # a job of one trial is there for its model
    (only,) = expand(load(Experiment, recipe, ["sweep.space={}", "order=contrastive"]))
    comparison = Comparison(only.experiment, [only])
    needs = comparison.work(comparison.plan, Deleted(), ("test",)).needed
    assert needs == {only.experiment.trained().digest}


def test_a_stage_that_another_job_trained_meanwhile_is_reused(recipe):
    """This job waited for it, so `find` said before that it is not there."""
    stage = load(Experiment, recipe, ["order=contrastive"]).trained()
    sent = []
    relay = SimpleNamespace(start=lambda *_: "run", send=lambda verb, _, *more: sent.append(more))
    facts = dict.fromkeys(["pairs", "tokens", "seconds", "flops", "workers"], 1)
    (recipe.parent / "trainer.json").write_text(json.dumps(facts))
    (recipe.parent / "history.jsonl").write_text("")
    checkpoint = SimpleNamespace(counts=facts, local=lambda: recipe.parent)
    builder = SimpleNamespace(
        context=Context(Resources()), get=lambda _: checkpoint, made=set(), find=lambda _: None
    )
    assert not trial._run_stage(stage, "trial", builder, relay, "parent", None)
    assert any(more and isinstance(more[0], dict) and more[0].get("reused") == 1 for more in sent)
    builder.made.add(stage.digest)
    assert trial._run_stage(stage, "trial", builder, relay, "parent", None)


def test_a_comparison_counts_the_stages_that_it_trained_itself(recipe):
    comparison, builder = plan_of(load(Experiment, recipe))
    by = {"contrastive": "job", "distil": "another job"}
    stages = comparison.plan.stages.values()
    builder._done.update(
        {
            stage.digest: SimpleNamespace(manifest={"used": {"job": by[stage.stage_name]}})
            for stage in stages
        }
    )
    one = StudyJob(comparison, builder, RELAY, "job", lambda line: None)
    assert {s.stage_name for s in stages if s.digest in _made(comparison.plan, one)} == {
        "contrastive"
    }


def test_a_teacher_that_this_node_has_no_room_for_is_no_missing_row(monkeypatch):
    def no_room(*_):
        raise CopyError("no room")

    monkeypatch.setattr(rows, "baseline_runs", lambda _: [("teacher", "teacher", no_room)])
    monkeypatch.setattr(rows, "_baseline", no_room)
    with pytest.raises(CopyError, match="no room"):
        rows.baselines(None, None, ["test"], print)

"""What is said of a teacher before anything is trained on it; needs no cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypipe.commands import job as jobs
from raypipe.commands import teacher_quality as quality_module
from raypipe.commands.compare import plan_of
from raypipe.commands.job import StudyJob
from raypipe.commands.result import Result
from raypipe.commands.search import SettingsSearch
from raypipe.commands.teacher_quality import TeacherQuality, teacher_quality
from raypipe.evaluation.report.contents import Report, SetFacts
from raypipe.evaluation.results import MAIN
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand, representatives
from raypipe.storage.builder import Builder
from raypipe.storage.copies import CopyError
from raypipe.sweep.plan import training_sets

VALIDATION = range(36, 48)
SECOND = 1 / 1.584962500721156  # 1 / log2(3), the only relevant document at rank 2


def trec(path: Path, rankings: dict[int, list[str]]) -> str:
    path.write_text(
        "".join(
            f"q{i:02d} Q0 {d} {rank} {-rank} x\n"
            for i, docs in rankings.items()
            for rank, d in enumerate(docs, start=1)
        )
    )
    return str(path)


def draft_first(queries: range) -> dict[int, list[str]]:
    """The relevant document second, one more behind it."""
    return {i: [f"d{60 + i:03d}", f"d{i:03d}", "d119"] for i in queries}


def measured(recipe: Path, lists: dict[int, list[str]], teacher: dict[int, list[str]]):
    """The quality of a teacher that is a file, on lists that are a file too."""
    first = trec(recipe.parent / "first.trec", draft_first(range(60)))
    own = trec(recipe.parent / "own.trec", lists)
    orders = trec(recipe.parent / "teacher.trec", teacher)
    experiment = load(
        Experiment,
        recipe,
        [
            f"candidates={{type: trec_run, paths: [{first}], name: first, depth: 10}}",
            f"groups.candidates={{type: trec_run, paths: [{own}], name: own, depth: 10}}",
            "groups.negatives={type: top_k, count: 2}",
            f"teacher={{type: run_file, paths: [{orders}]}}",
            "stages.distil.loss={type: ranknet, targets: teacher}",
            "sweep.space={}",
            "reference=null",
        ],
    )
    sets = training_sets(expand(experiment))
    (found,) = teacher_quality(experiment, sets, Builder(experiment.store()))
    return found


def test_a_file_that_covers_some_queries_is_judged_by_those(recipe):
    covered = range(36, 43)  # 7 of 12
    relevant_first = {i: [f"d{i:03d}", f"d{60 + i:03d}", "d119"] for i in covered}
    found = measured(recipe, draft_first(covered), relevant_first)
    assert (found.queries, found.of_queries) == (7, 12)
    assert found.teacher_value == 1.0  # the five queries without a list are no zeros
    assert found.lists_value == pytest.approx(SECOND)
    assert found.evaluated_value == pytest.approx(SECOND)
    (line,) = found.lines()
    assert "nDCG@10 on 7 of 12 validation queries 1.000, own itself 0.631" in line


def test_lists_of_all_queries_but_a_file_of_some(recipe):
    relevant_first = {i: [f"d{i:03d}", f"d{60 + i:03d}"] for i in range(36, 42)}
    found = measured(recipe, draft_first(VALIDATION), relevant_first)
    assert (found.queries, found.teacher_value) == (6, 1.0)
    # and the first stages are judged by the same queries
    weak = {i: docs if i < 42 else docs[::-1] for i, docs in draft_first(VALIDATION).items()}
    assert measured(recipe, weak, relevant_first).lists_value == pytest.approx(SECOND)


@pytest.mark.parametrize("covered", [range(36, 41), range(36, 36)])
def test_under_half_of_the_queries_is_no_measurement(recipe, covered):
    known = covered or range(3)  # a file of training queries alone
    relevant_first = {i: [f"d{i:03d}", f"d{60 + i:03d}", "d119"] for i in known}
    found = measured(recipe, draft_first(VALIDATION), relevant_first)
    assert found.teacher_value is None and found.queries == len(covered)
    (line,) = found.lines()
    why = (
        "it knows the lists of 5 of 12 validation queries only"
        if covered
        else "none of the 12 queries is in it"
    )
    assert "not measured" in line and why in line


def test_a_teacher_that_knows_little_of_a_list_does_not_know_it(recipe):
    relevant_first = {i: [f"d{i:03d}"] for i in VALIDATION}  # one of three documents
    found = measured(recipe, draft_first(VALIDATION), relevant_first)
    assert found.teacher_value is None and found.queries == 0


def quality(**changes) -> TeacherQuality:
    fields = {
        "stages": "distil",
        "teacher": "T",
        "lists": "weak",
        "depth": 10,
        "teacher_value": 0.5,
        "lists_value": 0.4,
        "evaluated": "strong",
        "evaluated_value": 0.4,
        "queries": 11,
        "of_queries": 12,
    }
    return TeacherQuality(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "warnings"),
    [
        ({}, []),
        ({"teacher_value": 0.39}, ["not better than the first stage"]),
        ({"teacher_value": 0.4}, ["not better than the first stage"]),  # and no better than any
        ({"teacher_value": 0.5, "lists_value": 0.5}, []),  # lists in the teacher's order
        ({"evaluated_value": 0.45}, ["weak (0.400), weaker than the evaluated first stage strong"]),
        (
            {"teacher_value": 0.3, "evaluated_value": 0.6},
            ["not better than the first stage", "weaker than the evaluated"],
        ),
    ],
)
def test_warnings(changes, warnings):
    figures, *found = quality(**changes).lines()
    assert "nDCG@10 on 11 of 12 validation queries" in figures and len(found) == len(warnings)
    for line, part in zip(found, warnings, strict=True):
        assert line.startswith("WARNING") and part in line


def test_what_could_not_be_measured_says_why():
    (line,) = quality(teacher_value=None, why="the file holds training queries").lines()
    assert line == "teacher of distil (T): not measured, the file holds training queries"


# --- what a comparison and a search hand on -------------------------------------------------------


class MinedError(Exception):
    """Raised where a job begins to mine: what stands before it was done."""


def comparison(recipe: Path, say) -> StudyJob:
    return StudyJob(*plan_of(load(Experiment, recipe)), None, "", say)


def searching(recipe: Path, say) -> StudyJob:
    given = "sweep={mode: search, space: {stages.contrastive.lr: [1.0e-4, 1.0e-3]}}"
    experiment = load(Experiment, recipe, [given, "reference=null"])
    study = SettingsSearch(experiment, representatives(experiment))
    return StudyJob(study, Builder(experiment.store()), None, "", say)


@pytest.mark.parametrize("job_of", [comparison, searching])
def test_the_report_notes_what_was_said_of_a_teacher(recipe, monkeypatch, job_of):
    bad = quality(teacher_value=0.3)

    def measure(experiment, sets, builder, say):
        for line in bad.lines():
            say(line)
        return [bad]

    def mine(*given):
        raise MinedError

    said: list[str] = []
    job = job_of(recipe, said.append)
    monkeypatch.setattr(jobs, "teacher_quality", measure)
    monkeypatch.setattr(jobs, "mine_shared", mine)
    with pytest.raises(MinedError):
        job.run()
    assert job.notes == said == bad.lines() and len(said) == 2  # noted, and not said again


def test_the_summary_has_every_teacher():
    bad = quality(teacher_value=0.3)
    plain = Report("x", (), (SetFacts(MAIN, ("x",), ("nDCG@10",)),))
    (found,) = Result("", plain, {}, {}, {}, [bad]).summary()["teachers"]
    assert (found["stages"], found["teacher_value"]) == ("distil", 0.3)
    assert found["warnings"] == bad.lines()[1:] != []


def test_a_full_node_is_no_teacher_without_queries(recipe, monkeypatch):
    def no_room(*_):
        raise CopyError("no room")

    monkeypatch.setattr(quality_module, "covered", no_room)
    orders = draft_first(range(60))
    with pytest.raises(CopyError, match="no room"):
        measured(recipe, orders, orders)

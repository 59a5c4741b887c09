"""The mining job on the small collection: counts, quality of the teacher, the command line."""

from __future__ import annotations

import shutil

import pytest

from raypipe.commands.mine import plan_lines, plan_of, run
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.storage.claims import Claims
from raypipe.sweep.counters import counts_line
from raypipe.train.group_reader import GroupReader

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, write_recipe) -> Experiment:
    here = write_recipe(tmp_path_factory.mktemp("mine"))
    mixed = (
        "groups.negatives={type: mixed, count: 4, parts: {candidates: {share: 2, sampler: "
        "{type: log_random, high: 20}}, corpus: {share: 1, sampler: {type: uniform}}, "
        "dense: {share: 1, sampler: {type: top_k}}}}"
    )
    backbone = load(Experiment, here).model.backbone
    return load(
        Experiment,
        here,
        [
            f"groups.sources={{dense: {{type: dense, backbone: {backbone}, depth: 5}}}}",
            mixed,
            "groups.filters=[{type: max_score, score: 3}, {type: near_duplicate}]",
            "teacher.max_length=8",  # some documents are longer
        ],
    )


@pytest.fixture(scope="module")
def mined(mined, experiment, said):
    """After the job, on a storage in which collection, queries and first stage stood before."""
    shutil.copytree(mined, experiment.storage)
    return run(experiment, said.append)


def test_everything_stands(mined, experiment):
    groups = mined.artifacts["groups of contrastive, distil"]
    reader = GroupReader(groups.local())
    assert len(reader) == 36 and reader.has_teacher and reader.largest == 5
    counts = mined.artifacts["negatives of contrastive, distil"].counts
    assert counts["groups"] == 36 and counts["pairs"] == 36 * 5
    assert counts["negatives_from_corpus"] >= 36
    assert counts["negatives_from_dense"] + counts["negatives_from_candidates"] <= 36 * 3
    steps, builder = plan_of(experiment)
    assert all(line.startswith("there") for line in plan_lines(steps, builder))


def test_every_count_is_said(mined, said):
    for name, artifact in mined.artifacts.items():
        assert counts_line(name, artifact.counts) in said
    (line,) = [s for s in said if s.startswith("test candidates")]
    assert "1 query without candidates" in line


def test_what_nested_steps_drop_is_said_too(mined, said):
    """Of the sources of a mixture, of a teacher's vectors, of the counted terms."""
    assert mined.behind and not mined.behind.keys() & mined.artifacts.keys()
    digests = [one.digest for one in (*mined.behind.values(), *mined.artifacts.values())]
    assert len(set(digests)) == len(digests)

    def line(name: str) -> str:
        (found,) = {s for s in said if s.startswith(f"{name}: ")}
        assert found == counts_line(name, mined.behind[name].counts)
        return found

    training = "of contrastive, distil"
    assert "180 candidates" in line(f"other dense of negatives {training}")
    assert "cut" in line(f"doc vectors of filter scores {training}")
    terms = "terms of index of validation candidates"  # nothing but sizes, which are not said
    assert not any(s.startswith(terms) for s in said)
    assert mined.summary()["counts"][terms]["rows"] == 120


def test_the_teacher_is_judged_before_it_scores_what_is_trained_on(mined, said):
    (quality,) = mined.qualities
    scored = [i for i, s in enumerate(said) if s.startswith("teacher ") and "-train" in s]
    judged = said.index(quality.lines()[0])
    assert scored and judged < min(scored)
    scores = "validation scores of the teacher of contrastive, distil: 120 pairs, 12 rows"
    assert scores in said[:judged]
    assert said.count(quality.lines()[0]) == 2  # and once more in the summary at the end


class WaitedError(Exception):
    """Raised as soon as the job under test waits for another one."""


def test_a_job_waits_for_what_another_one_makes(cluster, experiment, tmp_path):
    apart = experiment.replace(storage=str(tmp_path))
    path = apart.store().shown_path(apart.collection("test").path)

    def say(line: str) -> None:
        if line == f"waiting for another job that makes {path}":
            raise WaitedError

    with Claims(print)(path, lambda: False), pytest.raises(WaitedError):
        run(apart, say)


def test_the_teacher_is_measured_on_validation_queries(mined, said):
    (quality,) = mined.qualities
    assert quality.teacher == "bi-encoder + first stage"
    assert 0 < quality.teacher_value <= 1 and 0 < quality.lists_value <= 1
    assert quality.lists_value == quality.evaluated_value
    assert quality.lines()[0] in said
    summary = mined.summary()
    assert summary["teachers"][0]["teacher_value"] == quality.teacher_value
    assert summary["counts"]["groups of contrastive, distil"]["groups"] == 36


def test_again_nothing_is_made(mined, experiment):
    lines: list[str] = []
    again = run(experiment, lines.append)
    uris = {name: one.uri for name, one in mined.artifacts.items()}
    assert {name: one.uri for name, one in again.artifacts.items()} == uris
    assert not [line for line in lines if line.startswith("negatives mixed")]

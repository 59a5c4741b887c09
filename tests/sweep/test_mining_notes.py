"""What mining lost, in sentences, from the counts of standing artifacts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.sweep.mining_notes import mining_notes
from raypipe.sweep.plan import training_sets

NGRAMS = "; analyser=ngrams reads scripts without spaces"
WHERE = "groups of contrastive, distil"


@pytest.fixture
def notes(recipe):
    """Of counts by kind of artifact; the first stage's are those of all three query sets."""

    def of(*overrides: str, **counts: dict[str, int]) -> list[str]:
        experiment = load(Experiment, recipe, overrides)
        builder = SimpleNamespace(
            find=lambda step: SimpleNamespace(counts={"queries": 9, **counts.get(step.kind, {})})
        )
        return mining_notes(experiment, ["test"], training_sets(expand(experiment)), builder)

    return of


def test_nothing_lost_nothing_said(notes):
    counts = {"rows": 9, "queries": 9, "positives": 9, "judged_positives": 9}
    assert notes(negatives=counts, groups={"rows": 9, "groups_without_teacher": 0}) == []


def test_queries_without_candidates(notes):
    assert notes(candidates={"queries_without_candidates": 4}) == [
        f"BM25 has no document for 4 of 9 test queries{NGRAMS}",
        f"BM25 has no document for 4 of 9 training queries of contrastive, distil{NGRAMS}",
    ]
    (note, _) = notes("candidates.analyser=ngrams", candidates={"queries_without_candidates": 4})
    assert note == "BM25 has no document for 4 of 9 test queries"
    counts = {"queries_without_candidates": 4}
    assert not any("ngrams" in n for n in notes(candidates=counts, queries={"queries": 41}))


def test_queries_without_a_group(notes):
    counts = {
        "rows": 9,
        "queries": 4,
        "queries_without_negatives": 3,
        "queries_without_positive": 2,
    }
    assert notes(negatives=counts) == [
        f"{WHERE}: 5 of 9 training queries form none (no positive with text 2, no negative left 3)"
    ]


def test_copies_and_the_query_itself(notes):
    counts = {"removed_as_copies_of_relevant_documents": 1200, "removed_as_the_query_itself": 1}
    assert notes(negatives=counts) == [
        f"{WHERE}: kept out of the negatives: copies of relevant documents 1,200, "
        "documents that are the query itself 1"
    ]


def test_positives_that_training_does_not_use(notes):
    counts = {"positives": 9, "judged_positives": 31}
    (note,) = notes(negatives=counts)
    assert note.startswith(f"{WHERE} use 9 of 31 judged positives; max_positives")
    kept = ["order=distil", "sweep.space={}", "reference=null", "groups.positives=any"]
    kept.append("stages.distil.loss={type: ranknet, targets: teacher}")
    assert notes(*kept, negatives=counts) == []


def test_groups_that_a_teacher_costs(notes):
    (note,) = notes(groups={"rows": 100, "groups_without_teacher": 79})
    assert note.startswith(f"{WHERE}: 79 of 100 are lost (79%), since the teacher (bi-encoder")


def test_what_a_small_set_trains_on(notes):
    counts = {"rows": 9, "queries": 9, "groups": 30, "auto_chose_each_positive": 1}
    assert notes(negatives=counts) == [
        f"{WHERE}: small, so each of 30 positives of 9 queries has one; groups_per_query=one makes "
        "one per query"
    ]


def test_a_stage_of_two_steps(notes):
    given = ["stages.distil.lr=2e-5", "stages.distil.steps=2", "order=distil"]
    (note,) = notes(*given, "sweep.space={}", "reference=null", groups={"groups": 30})
    assert note.startswith("stages.distil: 2 optimizer steps at lr 2e-05: too few to move")

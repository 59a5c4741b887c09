"""A judge of negatives: planted false ones are found, answers are counted, a page is written."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
from chat_server import completion, prompt_in, running
from chunks_here import builder_here

from raypipe.config import ConfigError
from raypipe.groups.judged_page import PAGE, ROWS, JudgedRow, chosen
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.sweep.mining_notes import mining_notes
from raypipe.sweep.plan import training_sets

ALONE = (
    *("teacher=null", "order=contrastive", "sweep.space={}", "reference=null"),
    *("evaluation.depth=5", "evaluation.validation_depth=5"),
)
NEGATIVES = "groups.negatives={type: top_k, count: 4}"
PASSAGE, QUERY = (re.compile(rf"^{name}: (.*)$", re.M) for name in ("Passage", "Query"))


@pytest.fixture
def first_stage(tmp_path) -> str:
    """A run of every query: its draft, another query's draft, two documents, the relevant one."""
    lines = []
    for i in range(60):
        docs = [60 + i, 60 + (i + 1) % 60, (i + 2) % 60, (i + 3) % 60, i]
        lines += [f"q{i:02d} Q0 d{d:03d} {r} {9 - r} x\n" for r, d in enumerate(docs, 1)]
    (tmp_path / "first.run").write_text("".join(lines))
    named = f"paths: ['{tmp_path / 'first.run'}'], name: first, depth: 5"
    return f"candidates={{type: trec_run, {named}}}"


def words_of(body) -> tuple[set[str], list[str]]:
    """Those of the passage, and the things that the query names."""
    text = prompt_in(body)
    return set(PASSAGE.findall(text)[0].split()), QUERY.findall(text)[0].split()[:2]


def strong(handler, body, number) -> None:
    """Yes to the drafts, which speak of both things and nobody has judged."""
    passage, things = words_of(body)
    handler.reply(200, completion("Yes" if passage >= set(things) else "No."))


def cheap(handler, body, number) -> None:
    """Yes to all drafts, those of other queries too."""
    handler.reply(200, completion("Yes" if "draft" in words_of(body)[0] else "No"))


def silent(handler, body, number) -> None:
    """An answer that is none, to all."""
    handler.reply(200, completion("Perhaps"))


def engine(server, model: str) -> str:
    return f"{{type: http, url: '{server.url}', model: {model}, retries: 0, retry_wait_s: 0}}"


@pytest.fixture
def judged(recipe, first_stage, monkeypatch):
    """The recipe with a judge, its builder, the groups before and after, and their artifact."""
    return partial(_judged, recipe, first_stage, monkeypatch)


def _judged(recipe: Path, first_stage: str, monkeypatch, judge: str):
    given = [*ALONE, first_stage, NEGATIVES, f"groups.judge={judge}"]
    experiment = load(Experiment, recipe, given)
    data = experiment.training()
    builder = builder_here(experiment.store(), monkeypatch)
    after = builder.get(data.negatives())
    before = builder.get(data.sampled()).table().to_pylist()
    return experiment, builder, before, after.table().to_pylist(), after


def is_draft(row) -> list[bool]:
    """Of each document, whether it is the draft that names the things of the query."""
    return [int(doc[1:]) == 60 + int(row["query_id"][1:]) for doc in row["doc_ids"]]


def planted(rows) -> int:
    return sum(sum(is_draft(row)) for row in rows)


def test_a_planted_false_negative_is_promoted(judged):
    with running(cheap) as first, running(strong) as last:
        judge = f"{{engine: {engine(last, 'big')}, filter_engine: {engine(first, 'small')}, "
        judge += "relabel: promote}"
        experiment, builder, before, after, artifact = judged(judge)
        asked = [len(server.bodies) for server in (first, last)]
    assert planted(before) == 36  # one of every query
    assert [row["query_id"] for row in after] == [row["query_id"] for row in before]
    for old, new in zip(before, after, strict=True):
        grades = dict(zip(old["doc_ids"], old["relevance"], strict=True))
        drafts = {d for d, draft in zip(old["doc_ids"], is_draft(old), strict=True) if draft}
        assert sorted(new["doc_ids"]) == sorted(old["doc_ids"])
        assert new["relevance"] == sorted(new["relevance"], reverse=True)  # positives first
        changed = dict(zip(new["doc_ids"], new["relevance"], strict=True))
        assert changed == grades | dict.fromkeys(drafts, 1)
    counts = artifact.counts
    negatives = sum(row["relevance"].count(0) for row in before)
    assert counts["asked_first"] == negatives == asked[0]
    assert negatives == 4 * 36
    assert counts["asked"] == counts["relevant_first"] == asked[1] == 2 * 36
    assert counts["relevant"] == counts["negatives_promoted"] == 36
    assert counts["unanswered"] == counts["unanswered_first"] == 0
    (note,) = [
        line
        for line in mining_notes(experiment, [], training_sets(expand(experiment)), builder)
        if "judged" in line
    ]
    assert (
        f"small calls {counts['relevant_first']} of {negatives} relevant; big calls 36 of " in note
    )
    assert "36 promoted" in note and note.endswith(f": {PAGE}")


@pytest.mark.parametrize(
    ("relabel", "past", "left"), [("drop", "dropped", 0), ("keep", "kept", 36)]
)
def test_what_becomes_of_false_negatives(judged, relabel, past, left):
    with running(strong) as last:
        judge = f"{{engine: {engine(last, 'big')}, relabel: {relabel}}}"
        _, _, before, after, artifact = judged(judge)
    assert planted(before) == 36 and planted(after) == left
    counts = artifact.counts
    assert counts[f"negatives_{past}"] == 36 and "asked_first" not in counts
    assert counts["pairs"] == sum(len(row["doc_ids"]) for row in after)
    assert all(grade in (0, 1) for row in after for grade in row["relevance"])
    assert sum(sum(row["relevance"]) for row in after) == 36


def test_the_page_has_fifty_rows_with_the_verdict_beside_the_label(judged):
    with running(strong) as last:
        _, _, _, _, artifact = judged(f"{{engine: {engine(last, 'big')}}}")
    page = (artifact.local() / PAGE).read_text()
    rows = page.count("<tr>") + page.count('<tr class="relevant">') - 1
    assert rows == ROWS and page.count('<tr class="relevant">') == ROWS // 2
    assert page.count("not judged relevant") == ROWS
    assert "<th>big</th>" in page and page.count("<td>relevant (1.0)</td>") == ROWS // 2
    assert page.count("<td>not relevant (0.0)</td>") == ROWS // 2


def test_a_page_of_few_overturned_labels_is_filled_with_others():
    rows = [JudgedRow("q", f"d{n}", None, 1.0 if n < 10 else 0.0, True) for n in range(100)]
    shown = chosen(rows)
    assert len(shown) == ROWS and [row.is_relevant for row in shown] == [True] * 10 + [False] * 40
    assert chosen(reversed(rows)) == shown
    assert len(chosen(rows[:10])) == 10


def test_a_first_model_that_suspects_nothing_leaves_the_second_unasked(judged):
    def no(handler, body, number):
        handler.reply(200, completion("No"))

    with running(no) as first, running(strong) as last:
        judge = f"{{engine: {engine(last, 'big')}, filter_engine: {engine(first, 'small')}}}"
        _, _, before, after, artifact = judged(judge)
        assert not last.bodies
    assert after == before
    assert artifact.counts["relevant_first"] == 0 and "asked" not in artifact.counts
    assert "not asked" in (artifact.local() / PAGE).read_text()


def test_a_judge_without_an_answer_is_an_error(judged):
    with running(silent) as last, pytest.raises(ConfigError, match="no document got a value"):
        judged(f"{{engine: {engine(last, 'big')}}}")


def test_a_judge_that_leaves_no_negative_is_an_error(judged):
    def yes(handler, body, number):
        handler.reply(200, completion("Yes"))

    with running(yes) as last, pytest.raises(ConfigError, match="leaves no group with a negative"):
        judged(f"{{engine: {engine(last, 'big')}}}")


def test_ready_made_groups_are_judged_too(recipe, tmp_path, monkeypatch):
    path = tmp_path / "triples.tsv"
    path.write_text("q00\td000\td060\nq00\td000\td001\n")
    with running(strong) as last:
        triples = f"{{triples: {{type: triples, path: {path}}}, judge: "
        given = [*ALONE, f"groups={triples}{{engine: {engine(last, 'big')}}}}}"]
        experiment = load(Experiment, recipe, given)
        builder = builder_here(experiment.store(), monkeypatch)
        artifact = builder.get(experiment.training().negatives())
    assert [row["doc_ids"] for row in artifact.table().to_pylist()] == [["d000", "d001"]]
    assert artifact.counts["groups_without_negatives"] == 1
    assert list(experiment.training().steps()) == [
        "collection",
        "queries",
        "negatives",
        "verdicts",
        "judged negatives",
        "groups",
    ]


def test_without_a_judge_nothing_changes(recipe):
    experiment = load(Experiment, recipe, ALONE)
    data = experiment.training()
    assert data.negatives().digest == data.sampled().digest
    assert "judge" not in experiment.groups.semantic()

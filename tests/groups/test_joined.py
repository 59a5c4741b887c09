"""Groups of several collections as one set: shares, row numbers, counts, contradictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from chunks_here import builder_here

from raypipe.commands import compare
from raypipe.commands.query_sets import training_queries
from raypipe.config import ConfigError
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.groups.joined import drawn_rows, mixed_order, wanted_groups, weighted_alike
from raypipe.inference.token_reader import joined_reader
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.records import WEIGHT
from raypipe.sweep.mining_notes import mining_notes
from raypipe.sweep.plan import training_sets
from raypipe.sweep.report_facts import set_facts
from raypipe.tables.text_table import TextTable
from raypipe.train.group_reader import GroupReader


@pytest.fixture
def other(tmp_path) -> Path:
    """A collection of eight documents about other things; its ids are the tiny collection's."""
    root = tmp_path / "other"
    (root / "qrels").mkdir(parents=True)
    words = ["river", "stone", "cloud", "bread", "music", "winter", "garden", "iron"]
    docs = [
        {"_id": f"d{i:03d}", "title": "", "text": f"{w} and water"} for i, w in enumerate(words)
    ]
    queries = [{"_id": f"q{i:02d}", "text": f"{w} water"} for i, w in enumerate(words)]
    for name, rows in (("corpus", docs), ("queries", queries)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = "".join(f"q{i:02d}\td{i:03d}\t1\n" for i in range(8))
    (root / "qrels" / "train.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    lists = {i: [*range(8)] for i in range(8)}
    _write_run(root / "first.run", lists)
    return root


def _write_run(path: Path, lists: dict[int, list[int]]) -> None:
    lines = [
        f"q{i:02d} Q0 d{d:03d} {rank} {9 - rank} x\n"
        for i, docs in lists.items()
        for rank, d in enumerate(docs, 1)
    ]
    path.write_text("".join(lines))


def _run_of(path: Path) -> str:
    return f"{{type: trec_run, paths: ['{path}'], name: first, depth: 5}}"


@pytest.fixture
def without_ray(recipe, other, tmp_path, monkeypatch):
    """The recipe and another collection over ready-made first stages, and a builder."""
    lists = {i: [60 + i, i, (i + 1) % 60, (i + 2) % 60, (i + 3) % 60] for i in range(60)}
    _write_run(tmp_path / "first.run", lists)
    more = f"weight: 0.25, candidates: {_run_of(other / 'first.run')}"
    experiment = read(
        recipe,
        f"candidates={_run_of(tmp_path / 'first.run')}",
        "groups.negatives={type: random_window, count: 2, low: 1, high: 5}",
        "evaluation.depth=5",
        "evaluation.validation_depth=5",
        further(other, more),
    )
    return experiment, builder_here(experiment.store(), monkeypatch)


def further(root: Path, more: str = "weight: 0.25") -> str:
    queries = f"{{dataset: 'beir:{root}', split: train}}"
    negatives = "{type: random_window, count: 2, low: 1, high: 5}"
    return f"groups.further={{public: {{queries: {queries}, negatives: {negatives}, {more}}}}}"


ALONE = ("teacher=null", "order=contrastive", "sweep.space={}", "reference=null")


def read(recipe: Path, *overrides: str) -> Experiment:
    return load(Experiment, recipe, [*ALONE, *overrides])


def test_how_many_groups_a_set_gives():
    assert [wanted_groups(w, 40, 100) for w in (None, 0.25, 2.0, 0.001)] == [40, 25, 200, 1]


def test_which_rows_are_taken():
    some, again = (drawn_rows(6, 4, [0, 1]) for _ in range(2))
    assert len(set(some)) == 4 and (some == again).all()
    assert (drawn_rows(6, 6, [0, 1]) == np.arange(6)).all()
    repeated = drawn_rows(3, 7, [0, 1])
    assert sorted(np.bincount(repeated)) == [2, 2, 3]
    assert (repeated[:3] == repeated[3:6]).all()


def test_every_stretch_has_the_shares():
    assert mixed_order([2, 4]).tolist() == [2, 0, 3, 4, 1, 5]
    order = mixed_order([90, 30])
    assert sorted(order) == list(range(120))
    assert {int((order[at : at + 4] >= 90).sum()) for at in range(0, 120, 4)} == {1}


def test_a_set_without_weights_counts_1_beside_one_of_clicks():
    clicks = pa.table({"n": [1, 2]}).append_column(WEIGHT, pa.array([0.5, 1.5], WEIGHT.type))
    plain = pa.table({"n": [3]})
    both = pa.concat_tables(weighted_alike([clicks, plain]))
    assert both["weight"].to_pylist() == [0.5, 1.5, 1.0] and both["n"].to_pylist() == [1, 2, 3]
    assert weighted_alike([plain, plain]) == [plain, plain]


def test_two_collections_are_one_training_set(without_ray):
    """Row numbers lead to the texts of the set that a group came from."""
    experiment, builder = without_ray
    data = experiment.training()
    joined = builder.get(data.joined_groups())
    groups = GroupReader(joined.local())
    sets = [data, data.further["public"]]
    queries, docs = [], []
    for one in sets:
        table = TextTable(builder.get(one.queries()).local() / QUERIES_FILE)
        queries += table.texts(range(len(table)))
        table = TextTable(builder.get(one.collection()).local() / DOCS_FILE)
        docs += table.texts(range(len(table)))
    own = len(GroupReader(builder.get(data.groups()).local()))
    seen = [0, 0]
    for query, doc_indices, relevance, _ in (groups[row] for row in range(len(groups))):
        of_public = "water" in queries[query]
        seen[of_public] += 1
        texts = [docs[int(doc)] for doc in doc_indices]
        assert all(("water" in text) == of_public for text in texts)
        asked = set(queries[query].split()) - {"water"}
        answers = [text for text, grade in zip(texts, relevance, strict=True) if grade]
        assert answers and all(asked & set(text.split()) for text in answers)
    assert seen == [own, round(own / 4)]
    counts = joined.counts
    assert counts["groups"] == sum(seen)
    assert (counts["groups_of_own"], counts["groups_of_public"]) == tuple(seen)
    taken, there = seen[1], len(GroupReader(builder.get(sets[1].groups()).local()))
    change = {f"groups_{'repeated' if taken > there else 'left_out'}_of_public": abs(taken - there)}
    assert taken != there and change.items() <= counts.items()
    sets_by_stage = training_sets(expand(experiment))
    assert list(sets_by_stage) == ["contrastive", "contrastive (public)"]
    notes = mining_notes(experiment, [], sets_by_stage, builder)
    assert any(
        line.startswith(f"groups of contrastive with further sets: own {own:,} (80%), public")
        for line in notes
    )


def test_a_model_reads_the_tokens_of_all_sets(without_ray):
    experiment, builder = without_ray
    (stage,) = experiment.trained().chain()
    inputs = stage.inputs()
    assert stage.text_template is None and stage.positive_relevance == 1
    assert [name for name in inputs if name.endswith(" of public")] == [
        "query_tokens of public",
        "doc_tokens of public",
    ]
    artifacts = {
        name: builder.get(step)
        for name, step in inputs.items()
        if name == "groups" or "tokens" in name
    }
    queries, docs = (joined_reader(artifacts, kind) for kind in ("query_tokens", "doc_tokens"))
    groups = GroupReader(artifacts["groups"].local())
    own_docs = artifacts["doc_tokens"].counts["rows"]
    assert len(docs) == own_docs + 8
    last = {int(doc) for row in range(len(groups)) for doc in groups[row][1]}
    assert any(doc >= own_docs for doc in last) and max(last) < len(docs)
    assert all(groups[row][0] < len(queries) for row in range(len(groups)))


@pytest.mark.ray
def test_a_sweep_trains_on_both_collections(recipe, other, cluster):
    """From two collections to a report: its trained row, and how much each set gave."""
    said: list[str] = []
    experiment = read(recipe, further(other), "stages.contrastive.epochs=1")
    result = compare.run(experiment, said.append)
    assert result.status == "FINISHED" and not result.failed
    (trained,) = [row for row in result.report.rows if row.kind == "trained"]
    assert trained.pairs == 159 and len(trained.results["test"]) == 1
    lines = [line for line in result.report.sets[0].title if "training groups" in line]
    assert lines == [
        "45 training groups of contrastive (36 of own, 9 of public), 171 pairs per epoch"
    ]
    assert any("with further sets: own 36 (80%), public 9 from 8 repeated (20%)" in n for n in said)


def test_without_further_sets_nothing_changes(recipe):
    experiment = read(recipe)
    data = experiment.training()
    assert data.joined_groups().digest == data.groups().digest
    assert "further" not in experiment.groups.semantic()
    assert experiment.mined_sets().keys() == experiment.training_sets().keys()


def test_training_queries_of_every_set_are_held_apart(recipe, other):
    named = training_queries(read(recipe, further(other)))
    assert [one.field for one in named] == ["data.train", "groups.further.public.queries"]


def test_the_report_has_the_counts_of_each_set(recipe):
    groups = {"groups": 125, "pairs": 500, "groups_of_own": 100, "groups_of_public": 25}
    counts = {
        "queries/test": {"queries": 9},
        "collection/test": {"docs": 9},
        "queries/validation": {"queries": 9},
        "groups/contrastive": {"groups": 100, "pairs": 400},
        "joined_groups/contrastive": groups,
        "groups/contrastive (public)": {"groups": 8, "pairs": 32},
    }
    (facts,) = set_facts(read(recipe), counts, ["test"])
    assert facts.title[-1] == (
        "125 training groups of contrastive (100 of own, 25 of public), 500 pairs per epoch"
    )
    assert not any("32 pairs" in line or "400 pairs" in line for line in facts.title)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("weight: 0", "groups.further.public.weight: input should be greater than 0"),
        (
            "weight: 1, positives: any",
            "infonce needs a positive in every group, but groups.further.public.positives is any",
        ),
        (
            "candidates: {type: bm25, depth: 3}",
            "groups.further.public.negatives: the window reaches rank 5, "
            "groups.further.public.candidates.depth is 3; raise that depth",
        ),
    ],
)
def test_contradictions_name_the_further_set(recipe, other, more, message):
    with pytest.raises(ConfigError) as error:
        read(recipe, further(other, more))
    assert message in str(error.value)


def test_grades_mean_one_thing_in_a_stage(recipe, other):
    least = "groups.further.public.queries.positive_relevance=2"
    with pytest.raises(ConfigError, match="expected 1 as in the set's own queries, found 2"):
        read(recipe, further(other), least)


def test_the_sets_own_name_is_taken(recipe, other):
    with pytest.raises(ConfigError, match="expected another name than own"):
        read(recipe, further(other).replace("public:", "own:"))

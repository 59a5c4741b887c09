"""From documents alone to mined groups: the command, and the jobs that use what it wrote."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from raypipe.commands import mine, synthesize
from raypipe.config import ConfigError
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.storage.builder import Builder
from raypipe.tables.text_table import TextTable
from raypipe.train.group_reader import GroupReader


@pytest.fixture
def corpus_only(recipe, beir_folder, tiny_backbone, tmp_path):
    """The small recipe, trained and validated on queries that are taken from the corpus alone."""
    folder = tmp_path / "corpus-only"
    folder.mkdir()
    (folder / "corpus.jsonl").write_bytes((beir_folder / "corpus.jsonl").read_bytes())
    generator = "generator: {type: extractive, queries: [title, keywords]}"
    plain = f"type: synthetic, dataset: 'beir:{folder}', passages: 60, validation_share: 0.2"
    given = f"{plain}, hold_out: {{passages: 20}}, {generator}"
    teacher = f"{{type: fusion, backbone: '{tiny_backbone}', max_length: 32}}"
    rules = f"{{teacher: {teacher}, shortest: 2, percentile: 10, lists: {{count: 5}}}}"
    return load(
        Experiment,
        recipe,
        [
            f"data.train={{{given}, filter: {rules}}}",
            f"data.validation={{{given}, split: validation}}",
            f"data.test={{{given}, split: test}}",
            "teacher={type: list_scores}",
        ],
    )


def test_a_recipe_without_synthetic_queries_is_told_so(recipe):
    with pytest.raises(ConfigError, match=r"no synthetic queries; set data\.train="):
        synthesize.run(load(Experiment, recipe))


def test_a_dry_run_makes_nothing(corpus_only):
    said: list[str] = []
    synthesize.dry_run(corpus_only, said.append)
    assert [line.split()[:3] for line in said] == [
        ["to", "do", f"data.{role}"] for role in ("train", "validation", "test")
    ]


def test_sets_of_several_trials_are_all_made(corpus_only):
    space = {"data.train.generator": {"all": {}, "titles": {"queries": ["title"]}}}
    sets = synthesize.sets_of(corpus_only.replace(sweep={"space": space}, reference=None))
    first, second, *others = sets
    assert (first, second.split()[0]) == ("data.train", "data.train")
    assert sets[first].digest != sets[second].digest
    assert others == ["data.validation", "data.test"]


@pytest.mark.ray
def test_documents_alone_become_groups(corpus_only, cluster):
    said: list[str] = []
    done = synthesize.run(corpus_only, said.append)
    summary = json.loads(json.dumps(done.summary()))
    counts = summary["counts"]
    written = counts["generated of data.validation"]
    assert written["passages_without_title"] == written["rows"] == 80
    assert written["queries"] + written["dropped_copies_of_the_passage"] == 80
    sizes = [counts[f"data.{role}"]["queries"] for role in ("train", "validation", "test")]
    kept = counts["data.train"]
    asked = counts["written of retrieved of data.train"]["queries"]
    assert asked + sum(sizes[1:]) == written["queries"] > 70
    assert all(map(int.__le__, sizes, (asked, 12, 20))) and sizes[0] > 10
    found = counts["retrieved of data.train"]
    lost = {**found, **kept}
    drops = sum(value for name, value in lost.items() if name.startswith("dropped_"))
    assert asked - drops == sizes[0]
    assert any("hold_out: 20 passages" in line for line in summary["notes"])
    builder = Builder(corpus_only.store())
    train = builder.find(corpus_only.training().queries())
    docs = TextTable(builder.find(corpus_only.collection("train")).local() / DOCS_FILE)
    stored = pa.ipc.open_file(str(train.local() / QUERIES_FILE)).read_all().to_pylist()
    for row in stored:
        text = docs.text(docs.row_of(row["query_id"].removesuffix("#keywords")))
        assert len(row["text"].split()) == 5 and set(row["text"].split()) <= set(text.split())

    made = mine.run(corpus_only, said.append)
    groups = GroupReader(made.artifacts["groups of contrastive, distil"].local())
    assert len(groups) == sizes[0]
    rows = made.artifacts["candidates of contrastive, distil"].table().to_pylist()
    for row in rows:  # the teacher's lists: the query's own passage first, five documents
        assert row["doc_ids"][0] == row["query_id"].removesuffix("#keywords")
        assert len(row["doc_ids"]) <= 5 and row["scores"] == sorted(row["scores"], reverse=True)
        assert 0 <= row["scores"][-1] <= row["scores"][0] <= 1
    held_out = {
        row["query_id"].removesuffix("#keywords")
        for row in pa.ipc.open_file(
            str(builder.find(corpus_only.queries("test")).local() / QUERIES_FILE)
        )
        .read_all()
        .to_pylist()
    }
    trained = made.artifacts["negatives of contrastive, distil"].table()["doc_ids"].to_pylist()
    assert len(held_out) == sizes[2] and not held_out & {d for ids in trained for d in ids}
    assert any(line.startswith("synthetic queries over beir:") for line in said)

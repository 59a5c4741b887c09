"""Mined groups as other libraries' training files, and back."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from raypipe.commands.group_forms import GROUP_FORMS, TextGroup, export_groups
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE, QuerySet
from raypipe.datasets.training_forms import FileEntry
from raypipe.datasets.training_reader import form_of, read_groups
from raypipe.records import DOCS, GROUPS, QUERIES
from raypipe.storage.parts import part_name

GROUP = TextGroup("q1", "what is four", ["4", "1", "2"], ["four", "one", "two"], 1, [2.5, 1.0, -1])


@pytest.mark.parametrize(
    ("form", "read_as", "ids", "scores"),
    [
        ("flagembedding", "FlagEmbedding", False, True),
        ("tevatron", "Tevatron", True, False),
        ("sentence-transformers", "sentence-transformers lists", False, True),
    ],
)
def test_what_is_written_is_read(tmp_path: Path, form, read_as, ids, scores):
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(GROUP_FORMS[form](GROUP)) + "\n")
    told = form_of(path)
    assert told is not None and told.name == read_as and told.has_scores == scores
    (group,) = read_groups(path)
    names = GROUP.doc_ids if ids else [None] * 3
    docs = [FileEntry(name, text) for name, text in zip(names, GROUP.docs, strict=True)]
    assert group.query == FileEntry("q1" if ids else None, "what is four")
    assert list(group.docs) == docs and group.positives == 1
    assert group.scores == (GROUP.scores if scores else None)


def test_groups_that_are_not_mined(recipe, tmp_path, monkeypatch, capsys):
    from raypipe.program import program

    words = ["raypipe", "export", str(tmp_path / "out"), str(recipe), "reference=contrastive"]
    monkeypatch.setattr("sys.argv", [*words, "--form", "tevatron"])
    with pytest.raises(SystemExit) as ended:
        program()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "mine them first: raypipe mine" in said
    assert not (tmp_path / "out").exists()


def test_stored_groups_as_text(tmp_path, monkeypatch):
    """A teacher's ranks become scores; a group without a positive has no place."""
    docs = pa.table([["d0", "d1", "d2"], ["zero", "one", "two"]], schema=DOCS)
    queries = pa.table([["q0", "q1"], ["what", "who"]], schema=QUERIES)
    rows = [
        {"query_index": 1, "doc_indices": [2, 0, 1], "relevance": [0, 2, 0],
         "teacher_values": [2.0, 1.0, 3.0], "ranks": [1, 2, 3]},
        {"query_index": 0, "doc_indices": [1, 0], "relevance": [1, 0],
         "teacher_values": [float("nan"), 1.0], "ranks": [1, 2]},
        {"query_index": 0, "doc_indices": [1, 2], "relevance": [0, 0],
         "teacher_values": [1.0, 2.0], "ranks": [1, 2]},
    ]  # fmt: skip
    stored = {
        DOCS_FILE: docs,
        QUERIES_FILE: queries,
        part_name(0, "arrow"): pa.Table.from_pylist(rows, schema=GROUPS),
    }
    for name, table in stored.items():
        with pa.ipc.new_file(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table)
    artifact = SimpleNamespace(local=lambda: tmp_path)
    builder = SimpleNamespace(get=lambda step: artifact, find=lambda step: artifact)
    data = SimpleNamespace(
        groups=lambda: None, queries=lambda: None, collection=lambda: None,
        query_set=QuerySet(dataset="pydoc"), teacher=SimpleNamespace(values="rank"),
    )  # fmt: skip
    experiment = SimpleNamespace(store=lambda: None, mined_sets=lambda: {("a b", "c"): data})
    monkeypatch.setattr("raypipe.commands.group_forms.Builder", lambda store: builder)
    said: list[str] = []
    export_groups(experiment, tmp_path / "out", "flagembedding", said.append)
    (path,) = (tmp_path / "out").iterdir()
    assert said == [
        f"{path}: 2 groups as flagembedding reads them; 1 without a positive have no place there"
    ]
    found = list(map(json.loads, path.read_text().splitlines()))
    scores = {"pos_scores": [-1.0], "neg_scores": [-2.0, -3.0]}
    assert found == [
        {"query": "who", "pos": ["zero"], "neg": ["two", "one"], **scores},
        {"query": "what", "pos": ["one"], "neg": ["zero"]},
    ]


@pytest.mark.ray
def test_mined_groups_are_written(mined_recipe, tmp_path):
    from raypipe.commands.group_forms import text_groups
    from raypipe.recipe.experiment import Experiment
    from raypipe.recipe.reading import load
    from raypipe.storage.builder import Builder

    experiment, said = load(Experiment, mined_recipe), []
    export_groups(experiment, tmp_path / "out", "tevatron", said.append)
    (path,) = (tmp_path / "out").iterdir()
    (data,) = experiment.training_sets().values()
    expected = list(text_groups(data, Builder(experiment.store())))
    found = list(read_groups(path))
    assert said == [f"{path}: {len(found):,} groups as tevatron reads them"]
    assert [g.query.text_id for g in found] == [g.query_id for g in expected]
    assert [[e.text_id for e in g.docs] for g in found] == [list(g.doc_ids) for g in expected]
    assert all(g.positives == 1 and len(g.docs) > 1 for g in found)

"""Own files in a recipe: a mapping, a training file, and what the stage keeps of them."""

from __future__ import annotations

import json

import pytest

from raypipe.config import ConfigError
from raypipe.groups.file_groups import FileGroups
from raypipe.groups.triples import TripleGroups
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load

ALONE = ["sweep.space={}", "reference=null", "order=contrastive"]


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    """By part of a data set."""
    (tmp_path / "c.csv").write_text("sku,title,body\nd1,one,two\n")
    (tmp_path / "q.tsv").write_text("q1\twhat\n")
    (tmp_path / "j.txt").write_text("q1 0 d1 1\n")
    named = {"corpus": "c.csv", "queries": "q.tsv", "qrels": "j.txt"}
    paths = {part: str(tmp_path / name) for part, name in named.items()}
    return {**paths, "text": "{title}: {body}", "doc_id": "sku"}


def test_a_mapping_is_a_data_set(recipe, files):
    given = f"data.train={{dataset: {json.dumps(files)}}}"
    experiment = load(Experiment, recipe, [*ALONE, given])
    assert list(experiment.data.train.open().docs()) == [("d1", "one: two")]
    assert experiment.trained().text_template == "{title}: {body}"
    again = load(Experiment, recipe, [*ALONE, given, "data.train.dataset.text=body"])
    assert list(again.data.train.open().docs()) == [("d1", "two")]
    assert again.collection("train").digest != experiment.collection("train").digest
    assert load(Experiment, recipe, ALONE).trained().text_template is None


def test_a_part_that_is_none_is_told_with_its_field(recipe):
    with pytest.raises(
        ConfigError, match=r"text: expected text, found .*; put a template in quotes"
    ):
        load(Experiment, recipe, [*ALONE, "data.train={dataset: {corpus: /c, text: {body}}}"])
    with pytest.raises(ConfigError, match=r"data\.train\.dataset.*no part 'corps'.*'corpus'"):
        load(Experiment, recipe, [*ALONE, "data.train={dataset: {corps: /c, queries: /q}}"])


def test_a_training_file_is_data_groups_and_teacher(recipe, tmp_path):
    path = tmp_path / "train.jsonl"
    line = {"query": "what", "pos": ["one"], "neg": ["two"], "pos_scores": [1], "neg_scores": [0]}
    path.write_text(json.dumps(line) + "\n")
    given = [*ALONE, f"data.train={{dataset: 'training:{path}'}}",
             f"groups={{triples: {{path: {path}}}}}",
             f"teacher={{type: training_file, paths: [{path}]}}"]  # fmt: skip
    data = load(Experiment, recipe, given).training("contrastive")
    data.check()
    assert isinstance(data.negatives(), FileGroups)
    assert data.teacher is not None and data.teacher.values == "score"
    path.write_text("q1\td1\td2\n")
    ids = [*ALONE, f"groups={{triples: {{path: {path.rename(tmp_path / 't.tsv')}}}}}"]
    data = load(Experiment, recipe, ids).training("contrastive")
    assert isinstance(data.negatives(), TripleGroups)

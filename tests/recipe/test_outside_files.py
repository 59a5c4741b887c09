"""Every reader of the user's files refuses a file that was edited after the plan."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_source import small_data

from raypipe.candidates.rankgpt import RankGptLists
from raypipe.candidates.trec_run import TrecRun
from raypipe.config import ConfigError
from raypipe.datasets.steps import Collection, Queries
from raypipe.groups.triples import Triples
from raypipe.inference.lists import Lists
from raypipe.inference.llm.local import GgufWeights
from raypipe.models.backbone import Backbone
from raypipe.storage.artifacts import Step, Store
from raypipe.storage.builder import Builder
from raypipe.teachers.published.pair_scores import DuoScores
from raypipe.teachers.published.rankgpt import RankGptFile
from raypipe.teachers.published.run_file import RunFile
from raypipe.teachers.published.scores import MonoScores

RUN = "q1 Q0 d1 1 2 t\n"
LISTS = '{"query_id": "q1", "retrieved_passages": [{"docid": "d1", "rank": 1}]}\n'


def reader(name: str, folder: Path) -> tuple[Step, Path]:
    """A step that reads files of the folder, and the file that will be edited."""
    data = small_data(folder)
    file = folder / "file"
    collection, queries = Collection(data), Queries(data, False)
    plain = (collection, queries, "fp32")

    def source() -> Step:
        (folder / "run").write_text(RUN)
        return TrecRun(paths=(str(folder / "run"),)).candidates(*plain)

    def teacher(config: Any) -> Step:
        step: Step = config.scores(Lists(source(), None, collection, queries, 10), "fp32")
        return step

    match name:
        case "corpus.jsonl" | "queries.jsonl" | "qrels/test.tsv":
            return (collection if name == "corpus.jsonl" else queries), folder / "small" / name
        case "trec_run":
            return source(), folder / "run"
        case "rankgpt lists":
            file.write_text(LISTS)
            return RankGptLists(path=str(file)).candidates(*plain), file
        case "triples":
            file.write_text("q1 d0 d1\n")
            return Triples(path=str(file)).negatives(collection, queries), file
        case "run_file":
            file.write_text(RUN)
            return teacher(RunFile(paths=(str(file),))), file
        case "mono_scores":
            file.write_text("q1\td1\t0.5\n")
            return teacher(MonoScores(paths=(str(file),))), file
        case "duo_scores":
            file.write_text("q1\td1\td0\t-0.5\n")
            return teacher(DuoScores(paths=(str(file),))), file
        case "rankgpt":
            (folder / "lists").write_text(LISTS)
            file.write_text('["[1]"]')
            return teacher(RankGptFile(lists=str(folder / "lists"), permutations=str(file))), file
        case "gguf":
            (folder / "m.gguf").write_bytes(b"GGUF and more")
            return GgufWeights(str(folder), "m.gguf"), folder / "m.gguf"
    raise AssertionError(name)


READERS = (
    *("corpus.jsonl", "queries.jsonl", "qrels/test.tsv", "trec_run", "rankgpt lists", "triples"),
    *("run_file", "mono_scores", "duo_scores", "rankgpt", "gguf"),
)


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_was_edited_after_the_plan(name, tmp_path):
    step, file = reader(name, tmp_path)
    refused(step, file, Builder(Store(str(tmp_path / "storage"))))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_model_folder_that_was_edited_after_the_plan(name, tiny_backbone, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_backbone, folder)
    refused(Backbone(str(folder)), folder / name, Builder(Store(str(tmp_path / "storage"))))


def refused(step: Step, file: Path, builder: Builder) -> None:
    for other in step.inputs().values():
        builder.get(other)
    _ = step.digest
    file.write_bytes(file.read_bytes() + b"\n")
    with pytest.raises(ConfigError, match=rf"{re.escape(str(file))}: expected the content"):
        builder.get(step)
    assert builder.find(step) is None


def test_a_file_that_joins_a_model_folder_after_the_plan_is_not_copied(tiny_backbone, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_backbone, folder)
    backbone = Backbone(str(folder))
    _ = backbone.digest
    (folder / "vocab.txt").write_text("late")
    made = Builder(Store(str(tmp_path / "storage"))).get(backbone)
    assert set(made.files) == set(backbone.spec()["files"]) - {"vocab.txt"}


def test_a_corpus_that_joins_a_packed_one_after_the_plan_is_not_read(tmp_path):
    import gzip

    data = small_data(tmp_path)
    plain = tmp_path / "small" / "corpus.jsonl"
    plain.with_suffix(".jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    step = Collection(data)
    _ = step.digest
    plain.write_text('{"_id": "other", "title": "", "text": "other"}\n')
    assert Builder(Store(str(tmp_path / "storage"))).get(step).counts["docs"] == 8

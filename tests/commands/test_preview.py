"""What a dry run reads and says before anything is measured; no cluster, nothing stored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from raypipe.commands import preview as previews
from raypipe.commands.preview import preview
from raypipe.config import ConfigError
from raypipe.datasets import beir
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.storage.builder import Builder


def lines(recipe: Path, *overrides: str, model: bool = False) -> list[str]:
    experiment = load(Experiment, recipe, overrides)
    said = list(preview(expand(experiment), Builder(experiment.store()), model=model))
    folder = Path(str(experiment.store().root))
    assert not folder.exists() or not any(folder.iterdir())
    return said


def refused(recipe: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        lines(recipe, *overrides)
    return str(error.value)


@pytest.fixture
def own(recipe, beir_folder, tmp_path) -> Path:
    """The recipe on a copy of the data that the test may change: `tmp_path / "own"`."""
    shutil.copytree(beir_folder, tmp_path / "own")
    recipe.write_text(recipe.read_text().replace(str(beir_folder), str(tmp_path / "own")))
    return recipe


def test_a_line_for_each_thing(recipe):
    said = lines(recipe, model=True)
    documents = said.pop(1)
    assert documents.startswith("documents of tiny-beir: 120 with text, of about ")
    assert said[:4] == [
        "data.train: 36 queries, 36 judgements",
        "data.validation: 12 queries, 12 judgements",
        "data.test: 12 queries, 12 judgements",
        "groups of contrastive, distil: at most 36",
    ]
    tokens, pooler = said[4:]
    assert tokens.startswith("tokens of tiny-bert: queries 4 (95 % up to")
    assert "% of 120 pairs are cut (pairs of up to 48 tokens); 0.0% of the tokens" in tokens
    assert ": The backbone's pooler was never trained (bias 0, " in pooler
    similarity = lines(recipe, "model.head=similarity", model=True)
    assert not [line for line in similarity if "pooler" in line]


def test_drops_are_counted(own, tmp_path):
    with (tmp_path / "own" / "qrels" / "test.tsv").open("a") as file:
        file.write("q48\td048\t1\nnobody\td001\t1\nq49\tgone\t1\n")
    said = lines(own)
    assert "data.test: 12 queries, 13 judgements (qrels without query 1, duplicate qrels 1)" in said
    assert any(line.startswith("data.test: 1 of 13 judged documents are not in") for line in said)


def test_everything_that_fails_is_said_at_once(own, tmp_path):
    """And what can be read is said before."""
    train = (tmp_path / "own" / "qrels" / "train.tsv").read_text()
    (tmp_path / "own" / "qrels" / "test.tsv").write_text(train.replace("\td", "\tMED-"))
    message = refused(own, "stages.contrastive.queries_per_step=40")
    assert "36 of its 36 queries are in data.test too" in message
    assert "data.test: 36 of 36 judged documents are not in the collection" in message
    assert "stages.contrastive.queries_per_step: at most 36 groups are fewer than one" in message


def test_a_malformed_line_of_judgements(own, tmp_path):
    with (tmp_path / "own" / "qrels" / "validation.tsv").open("a") as file:
        file.write("q36\td036\n")
    assert "validation.tsv:14: expected three tab-separated fields" in refused(own)


def test_a_large_corpus_by_its_beginning_and_its_end(own, tmp_path, monkeypatch):
    monkeypatch.setattr(beir, "SMALL", 1000)
    monkeypatch.setattr(beir, "END", 300)
    monkeypatch.setattr(previews, "FIRST", 10)
    assert any("the first 10 with text" in line for line in lines(own))
    corpus = tmp_path / "own" / "corpus.jsonl"
    whole = corpus.read_bytes()
    corpus.write_bytes(whole[:-20])
    assert "found in the last lines" in refused(own)
    corpus.write_bytes(whole.replace(b'"_id": "d003"', b'"id": "d003"'))
    assert "corpus.jsonl:4" in refused(own)


def test_a_script_without_spaces(own, tmp_path):
    rows = [{"_id": f"d{i:03d}", "text": "黄山是名山"} for i in range(120)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "own" / "corpus.jsonl").write_text(text)
    assert any(line.endswith("characters; a script without spaces") for line in lines(own))


# --- files of first stages and teachers -----------------------------------------------------------


def run_file(path: Path, queries: range, doc: str = "d{:03d}") -> str:
    rows = [f"q{i:02d} Q0 {doc.format(i)} 1 1.5 x" for i in queries]
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def test_a_run_file(recipe, tmp_path):
    path = run_file(tmp_path / "a.run", range(40))
    source = f"candidates={{type: trec_run, paths: ['{path}'], depth: 20, name: mine}}"
    message = refused(recipe, source)  # it has training and some validation queries, no test query
    assert message.startswith("data.test: trec_run mine: has 0 of 12 queries of data.test")
    path = run_file(tmp_path / "a.run", range(50))
    said = lines(recipe, source)
    assert (
        "data.test: trec_run mine: has 2 of 12 queries of data.test, and 50 of its 50 documents "
        "are in the collection"
    ) in said


def test_a_run_file_of_other_documents(recipe, tmp_path):
    path = run_file(tmp_path / "a.run", range(60), "MED-{}")
    message = refused(recipe, f"candidates={{type: trec_run, paths: ['{path}'], depth: 20}}")
    assert "0 of its 60 documents are in the collection: it has 'MED-0'" in message


@pytest.mark.parametrize(
    ("teacher", "text"),
    [
        ("{type: run_file, paths: [PATH]}", "q{i:02d} Q0 d{i:03d} 1 2.5 x"),
        ("{type: mono_scores, paths: [PATH]}", "q{i:02d}\td{i:03d}\t0.5"),
        ("{type: ensemble_scores, paths: [PATH]}", "1.5\t0.5\tq{i:02d}\td{i:03d}\td001"),
        ("{type: duo_scores, paths: [PATH]}", "q{i:02d}\td{i:03d}\td001\t-0.5"),
    ],
)
def test_a_teachers_file_bounds_the_groups(recipe, tmp_path, teacher, text):
    """79 % of the groups are lost where the file knows 8 of 36 training queries."""
    path = tmp_path / "t.txt"
    path.write_text("".join(text.format(i=i) + "\n" for i in range(8)))
    kept = [
        "stages.distil.loss={type: ranknet, targets: teacher}",
        "stages.distil.queries_per_step=6",
    ]
    kept.append(f"teacher={teacher.replace('PATH', str(path))}")
    said = lines(recipe, *kept)
    assert any("has 8 of 36 queries of groups of contrastive, distil" in line for line in said)
    assert "groups of contrastive, distil: at most 8" in said
    message = refused(recipe, *kept, "stages.distil.queries_per_step=9")
    assert "stages.distil.queries_per_step: at most 8 groups are fewer than one step" in message
    path.write_text("".join(text.format(i=i) + "\n" for i in range(50, 60)))
    assert "has 0 of 36 queries of groups of" in refused(recipe, *kept)


@pytest.mark.parametrize("scores", ["", "0.5 0.1 "])
def test_triples(recipe, tmp_path, scores):
    path = tmp_path / "t.tsv"
    path.write_text("".join(f"{scores}q{i:02d} d{i:03d} d{i + 1:03d}\n" for i in range(30)))
    kept = ["order=contrastive", "sweep.space={}", "reference=null",
            f"groups={{triples: {{type: triples, path: {path}}}}}"]  # fmt: skip
    said = lines(recipe, *kept)
    assert any("triples of contrastive: has 30 of 36 queries" in line for line in said)
    assert "groups of contrastive: at most 30" in said
    assert "at most 4 groups are fewer" in refused(recipe, *kept, "groups.triples.limit=4")
    path.write_text("\ufeff" + path.read_text().replace(" ", "\t  "))  # read line by line
    assert "groups of contrastive: at most 30" in lines(recipe, *kept)
    path.write_text("q00 d001\n")
    assert "expected" in refused(recipe, *kept) and "t.tsv, line 1" in refused(recipe, *kept)


def test_a_file_that_is_too_long_to_be_read_to_its_end(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("raypipe.tables.text_columns.BLOCK", 100)
    monkeypatch.setattr("raypipe.commands.listed_files.BLOCK", 100)
    monkeypatch.setattr("raypipe.commands.listed_files.MOST", 200)
    path = run_file(tmp_path / "a.run", range(60))
    said = lines(recipe, f"candidates={{type: trec_run, paths: ['{path}'], depth: 20, name: x}}")
    assert any("has 0 of 12 queries of data.test, of what was read of them" in s for s in said)


def test_each_positive_has_a_group(own, tmp_path):
    with (tmp_path / "own" / "qrels" / "train.tsv").open("a") as file:
        file.write("q00\td001\t1\nq00\td002\t0\n")
    said = lines(own, "groups.groups_per_query=one")
    assert "groups of contrastive, distil: at most 36" in said
    for chosen in ("each_positive", "auto"):
        said = lines(own, f"groups.groups_per_query={chosen}")
        assert "groups of contrastive, distil: at most 37" in said
    assert (
        "groups of contrastive, distil: small, so each of 37 positives of 36 queries has one; "
        "groups_per_query=one makes one per query" in said
    )


def test_a_stage_that_is_too_short_to_move_anything(recipe):
    given = ["stages.contrastive.lr=2e-5", "stages.contrastive.queries_per_step=16"]
    said = lines(recipe, *given, "stages.contrastive.steps=null")
    assert (
        "stages.contrastive: 2 optimizer steps (36 groups, 16 per step) at lr 2e-05: too few to "
        "move the weights; lower queries_per_step, raise epochs, or set steps to some hundreds"
    ) in said
    assert not any("too few to move" in line for line in lines(recipe))


def test_a_tokenizer_that_fails(recipe, monkeypatch):
    def broken(folder):
        raise RuntimeError("no such piece")

    monkeypatch.setattr("raypipe.inference.tokens.load_tokenizer", broken)
    with pytest.raises(ConfigError, match=r"its tokenizer fails on .* \(no such piece\)"):
        lines(recipe, model=True)

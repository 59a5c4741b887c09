"""data and export: a data set looked at before work, a trained model written after it."""

from __future__ import annotations

import pytest

from raypipe.commands.look import look
from raypipe.config import ConfigError
from raypipe.datasets.own_files import files_id
from raypipe.datasets.steps import QuerySet


def lines(data: QuerySet) -> list[str]:
    return list(look(data))


def test_a_folder_as_people_have_it(beir_folder):
    told = lines(QuerySet(dataset=f"beir:{beir_folder}", split="test"))
    assert told[0] == "tiny-beir-test: 12 queries, 4 words (95 % up to 4)"
    assert told[1] == "judgements: 12 for 12 queries, by relevance: 12 of 1"
    assert told[2].startswith("documents: 120, ")
    assert "judged documents that the collection lacks: 0" in told
    assert told[-2].startswith("a query, q") and told[-1].startswith("a document, d000: verified ")


def test_what_is_missing_is_counted(tmp_path):
    (tmp_path / "c.tsv").write_text("d1\tone two\nd2\t\n")
    (tmp_path / "q.tsv").write_text("q1\twhat\nq2\twho\n")
    (tmp_path / "qrels.txt").write_text("q1 0 d1 2\nq1 0 gone 1\n")
    files = {name: tmp_path / f"{name[0]}.tsv" for name in ("corpus", "queries")}
    told = lines(QuerySet(dataset=files_id(**files, qrels=tmp_path / "qrels.txt")))
    assert "judgements: 2 for 1 queries, by relevance: 1 of 1, 1 of 2" in told
    assert "documents without text, which are left out: 1" in told
    assert "judged documents that the collection lacks: 1" in told
    assert "counted: unjudged_queries_kept 1" in told
    assert "judgements: none" in lines(QuerySet(dataset=files_id(**files)))


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="no folder at"):
        lines(QuerySet(dataset=f"beir:{tmp_path}/none", split="test"))


def test_a_model_that_is_not_trained_yet_cannot_be_exported(recipe, tmp_path, monkeypatch, capsys):
    from raypipe.program import program

    words = ["raypipe", "export", str(tmp_path / "out"), str(recipe), "reference=contrastive"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        program()
    assert ended.value.code == 2 and "train it first: raypipe train" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_program_has_every_command(monkeypatch, capsys):
    from raypipe.program import COMMANDS, program

    monkeypatch.setattr("sys.argv", ["raypipe", "--help"])
    with pytest.raises(SystemExit):
        program()
    shown = capsys.readouterr().out
    assert all(f" {name} " in shown for name in COMMANDS)
    assert {"mine", "train", "sweep", "rerank", "retrieve", "evaluate", "report"} <= set(COMMANDS)

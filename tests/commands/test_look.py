"""data and export: a data set looked at before work, a trained model written after it."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.commands.look import look
from raypipe.commands.named_data import query_set
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


def test_columns_of_own_names_and_a_log_are_named_on_the_command_line(tmp_path):
    """The error of a table without a usual name shows its columns."""
    rows = {"sku": ["a", "b"], "title": ["red shoe", "blue hat"], "brand": ["x", "y"]}
    pq.write_table(pa.table(rows), tmp_path / "docs.parquet")
    pq.write_table(pa.table({"nr": ["1"], "words": ["shoes"]}), tmp_path / "asked.parquet")
    (tmp_path / "log.csv").write_text("query,doc_id,position,clicked\nhats,b,1,1\n")
    corpus, queries = (str(tmp_path / f"{name}.parquet") for name in ("docs", "asked"))
    names = ["doc_id=sku", "query_id=nr", "query=words"]
    said = list(look(query_set(None, None, corpus, queries, None, "{title} | {brand}", names)))
    assert "a query, 1: shoes" in said and "a document, a: red shoe | x" in said
    with pytest.raises(ConfigError, match=r"asked.parquet:1: expected an id .* 'words': 'shoes'"):
        list(look(query_set(None, None, corpus, queries, None, None, ["doc_id=sku"])))
    log = ["doc_id=sku", f"clicks={tmp_path / 'log.csv'}", "least_impressions=1"]
    assert any(
        "judged_by_clicks 1" in line
        for line in look(query_set(None, None, corpus, None, None, "{title}", log))
    )
    with pytest.raises(ConfigError, match="--queries FILE is missing"):
        query_set(None, None, corpus, None, None, None, ["doc_id=sku"])
    with pytest.raises(ConfigError, match=r"there is no part 'queryid'.*did you mean 'query_id'"):
        query_set(None, None, corpus, queries, None, None, ["queryid=nr"])
    with pytest.raises(ConfigError, match="--part belongs to --corpus"):
        query_set("pydoc", "test", None, None, None, None, ["doc_id=sku"])

"""A log of clicks as judgements and weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chunks_here import builder_here

from raypipe.commands.look import look
from raypipe.config import ConfigError
from raypipe.datasets.click_log import CLIP, ClickLog
from raypipe.datasets.clicks import BIASED, Clicks
from raypipe.datasets.ir import open_dataset
from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.datasets.text_match import hash_id
from raypipe.groups.training_groups import TrainingGroups
from raypipe.groups.triples import Triples
from raypipe.storage.artifacts import Store
from raypipe.train.group_reader import GroupReader

HEADER = "query,doc_id,position,clicked"
LOG = f"""{HEADER}
red shoe,d1,1,0
red shoe,d2,2,1
red shoe,d3,3,0
blue hat,d3,1,1
blue hat,d1,2,0
"""


def clicks(folder: Path, log: str = LOG, **parts: str) -> Clicks:
    rows = [{"_id": f"d{i}", "text": f"text {i}"} for i in range(5)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "log.csv").write_text(log)
    named = {"corpus": folder / "corpus.jsonl", "clicks": folder / "log.csv", **parts}
    return open_dataset("files:" + ",".join(f"{k}={v}" for k, v in named.items()))


def judged(dataset: Clicks) -> set[tuple[str, str, int]]:
    texts = dict(dataset.queries())
    return {(texts[query], doc, relevance) for query, doc, relevance in dataset.qrels()}


def test_clicked_documents_are_relevant_and_passed_ones_are_not(tmp_path):
    dataset = clicks(tmp_path)
    assert dict(dataset.queries()) == {hash_id(t): t for t in ("red shoe", "blue hat")}
    # d3 stood below the click, and d1 below that of blue hat: nobody knows whether they were seen
    assert judged(dataset) == {("red shoe", "d1", 0), ("red shoe", "d2", 1), ("blue hat", "d3", 1)}
    assert list(dataset.docpairs()) == [(hash_id("red shoe"), "d2", "d1")]
    assert [row[1:] for row in dataset.scoreddocs()] == [("d1", -1.0), ("d2", -2.0), ("d3", -1.0)]
    assert dataset.judgement_counts() == {
        "judged_by_clicks": 3,
        "clicked_documents": 2,
        "passed_documents": 1,
        "clicked_too_rarely_shown": 0,
    }


def test_a_session_says_what_was_above_a_click(tmp_path):
    rows = ["a,s1,d1,1,0", "a,s1,d2,2,1", "a,s2,d3,1,0", "a,s2,d4,2,0"]
    log = "query,session,doc_id,position,clicked\n" + "\n".join(rows)
    assert judged(clicks(tmp_path, log)) == {("a", "d1", 0), ("a", "d2", 1)}
    # without sessions d3 counts as shown above the click on d2
    plain = "\n".join([HEADER, *(row.replace(",s1", "").replace(",s2", "") for row in rows)])
    assert judged(clicks(tmp_path, plain)) >= {("a", "d3", 0)}


def test_documents_that_were_shown_rarely_are_not_judged(tmp_path):
    log = "query,doc_id,position,clicks,impressions\na,d1,1,1,3\na,d2,2,9,40\n"
    assert judged(clicks(tmp_path, log)) == {("a", "d1", 1), ("a", "d2", 1)}
    dataset = clicks(tmp_path, log, least_impressions="10")
    assert judged(dataset) == {("a", "d2", 1)}
    assert dataset.judgement_counts()["clicked_too_rarely_shown"] == 1


def test_propensities_of_the_log_are_weights_clipped_and_1_in_the_mean(tmp_path):
    rows = ["a,d1,1,1,1.0", "a,d2,5,1,0.25", "a,d3,9,1,0.001"]
    log = "query,doc_id,position,clicked,propensity\n" + "\n".join(rows)
    weights = {doc: weight for _, doc, weight in clicks(tmp_path, log).weights()}
    assert weights == pytest.approx({"d1": 1 / 5, "d2": 4 / 5, "d3": CLIP / 5})  # 1, 4, 10: mean 5


def test_propensities_are_estimated_by_position(tmp_path):
    """Rates of clicks .8, .2, .4 and 0 by position: as shares of the best 1, .25, .25 (never
    rising) and .1 (the clip)."""
    log = "query,doc_id,position,clicks,impressions\n"
    log += "a,d1,1,8,10\na,d2,2,2,10\na,d3,3,4,10\na,d4,4,0,10\n"
    dataset = clicks(tmp_path, log)
    estimated = ClickLog(tmp_path / "log.csv", {}).propensities()
    assert estimated == pytest.approx({1: 1.0, 2: 0.25, 3: 0.25, 4: 0.1})
    weights = {doc: weight for _, doc, weight in dataset.weights()}
    assert weights == pytest.approx({"d1": 1 / 3, "d2": 4 / 3, "d3": 4 / 3})


def test_queries_of_a_file_go_by_their_ids(tmp_path):
    (tmp_path / "queries.tsv").write_text("q1\tred shoe\nq2\tunseen\n")
    log = "qid,document,rank,clicked\nq1,d1,1,false\nq1,d2,2,true\n"
    dataset = clicks(tmp_path, log, queries=str(tmp_path / "queries.tsv"))
    assert list(dataset.qrels()) == [("q1", "d1", 0), ("q1", "d2", 1)]
    assert dict(dataset.queries()) == {"q1": "red shoe", "q2": "unseen"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a,d1,0,1,1,1", "log.csv:2: expected a whole number from 1 as position, found '0'"),
        ("a,d1,1,maybe,1,1", "log.csv:2: expected a whole number from 0 as clicked, found 'maybe'"),
        ("a,d1,1,3,2,1", "log.csv:2: expected at most as many clicks as impressions, which are 2"),
        ("a,d1,1,1,1,0", "log.csv:2: expected a propensity above 0 and up to 1, found '0'"),
        ("a,d1,true,1,1,1", "log.csv:2: expected a whole number from 1 as position, found 'true'"),
        ("a,d1,1,\u0661,1,1", "log.csv:2: expected a whole number from 0 as clicked, found '"),
        ("a,d1,1,1,1_0,1", "log.csv:2: expected a whole number from 1 as impressions, found '1_0'"),
        ("a,d1,1,1,1,0.2_5", "log.csv:2: expected a propensity above 0 and up to 1, found '0.2_5'"),
        ("a,d1,1,1,1,nan", "log.csv:2: expected a propensity above 0 and up to 1, found 'nan'"),
        ("a,d1,1,1,1,.5\na,d2,2,1,1,", "log.csv:3: expected a propensity in every row or in none"),
        ("a,d1,1,1,1,\na,d2,2,1,1,1", "log.csv:3: expected a propensity in every row or in none"),
        ("a,,1,1,1,1", "log.csv:2: expected a document in a column such as doc_id"),
        (",d1,1,1,1,1", "log.csv:2: expected a query in a column such as query"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, row, words):
    log = f"{HEADER},impressions,propensity\n{row}\n"
    with pytest.raises(ConfigError) as caught:
        list(clicks(tmp_path, log).qrels())
    assert words in str(caught.value)


def test_ids_that_do_not_fit(tmp_path):
    with pytest.raises(ConfigError, match="clicks are its judgements; leave qrels out"):
        clicks(tmp_path, qrels=str(tmp_path / "log.csv"))
    with pytest.raises(ConfigError, match="whole number from 1 as least_impressions, found '0'"):
        clicks(tmp_path, least_impressions="0")
    with pytest.raises(ConfigError, match="expected absolute paths"):
        open_dataset("files:corpus=/c.jsonl,clicks=log.csv")
    with pytest.raises(ConfigError, match=r"clicks .*gone.csv: no file there"):
        clicks(tmp_path, clicks=str(tmp_path / "gone.csv")).check()


def test_the_digest_is_that_of_the_files_and_of_how_they_are_read(tmp_path):
    plain = clicks(tmp_path).identity()
    assert str(tmp_path) not in json.dumps(plain)
    assert clicks(tmp_path, least_impressions="2").identity() != plain
    assert clicks(tmp_path, LOG + "blue hat,d4,3,1\n").identity() != plain


def test_groups_carry_the_weights_and_every_report_says_biased(tmp_path, monkeypatch):
    log = "query,doc_id,position,clicked,propensity\n"
    log += "a,d1,1,0,1\na,d2,2,1,0.25\nb,d3,1,0,1\nb,d4,2,1,0.75\n"
    clicks(tmp_path, log)
    parts = {"corpus": str(tmp_path / "corpus.jsonl"), "clicks": str(tmp_path / "log.csv")}
    data = QuerySet(dataset={**parts, "least_impressions": 1})
    builder = builder_here(Store(str(tmp_path / "storage")), monkeypatch)
    collection, queries = Collection(data), Queries(data, require_positive=True)
    triples = Triples(dataset=data.dataset)
    artifact = builder.get(TrainingGroups(triples.negatives(collection, queries), None))
    reader = GroupReader(artifact.local())
    found = reader.weights([0, 1])
    assert found is not None and sorted(found) == pytest.approx([0.5, 1.5])  # 4/3 and 4: mean 8/3
    (alarm,) = builder.alarms
    assert alarm.endswith(BIASED) and "biased towards the logged ranking" in BIASED
    assert any("judged_by_clicks 4" in line for line in look(data))

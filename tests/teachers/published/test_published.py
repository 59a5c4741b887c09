"""Published teacher files, from text to teacher tables, on a collection of six documents."""

from __future__ import annotations

import gzip
import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from raypipe.candidates.rankgpt import RankGptLists
from raypipe.candidates.trec_run import TrecRun
from raypipe.config import ConfigError
from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.inference.lists import ListReader, Lists
from raypipe.records import CANDIDATES as CANDIDATE_SCHEMA
from raypipe.records import PAIRWISE, TEACHER
from raypipe.runs.baselines import TeacherRun
from raypipe.runs.metrics import Metrics
from raypipe.storage.artifacts import Artifact, Step, Store
from raypipe.storage.builder import Builder
from raypipe.tables import spill
from raypipe.tables import text_columns as columns
from raypipe.tables import text_columns as tsv
from raypipe.tables.text_columns import Columns, blocks
from raypipe.teachers.published import wanted
from raypipe.teachers.published.pair_scores import DuoScores, aggregate
from raypipe.teachers.published.rankgpt import RankGptFile
from raypipe.teachers.published.run_file import RunFile
from raypipe.teachers.published.scores import EnsembleScores, MonoScores
from raypipe.teachers.published.wanted import PairMeans, WantedPairs

PUBLISHED = Path(__file__).resolve().parents[4] / "shared" / "data" / "msmarco-dl"
DOCS = [f"d{i}" for i in range(6)]
CANDIDATES = {"q1": ["d0", "d1", "d2", "d3"], "q2": ["d2", "d0"], "q3": []}
DEPTH = 3
"""So d3 is a candidate of q1 that no teacher is asked for."""
EXTRA = {"q1": ["d5"], "q2": ["d0"]}


@dataclass(frozen=True)
class Extra(Step):
    """What training adds to the lists."""

    kind: ClassVar[str] = "negatives"
    name = "extra"

    def run(self, attempt: Any, context: Any) -> Mapping[str, Any]:
        rows = [{"query_id": q, "doc_ids": d} for q, d in EXTRA.items()]
        attempt.put_table(pa.Table.from_pylist(rows))
        return {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("six") / "six"
    (root / "qrels").mkdir(parents=True)
    corpus = [{"_id": d, "title": "", "text": f"text of {d}"} for d in DOCS]
    queries = [{"_id": q, "text": f"text of {q}"} for q in CANDIDATES]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    judged = "".join(f"{q}\td0\t1\n" for q in CANDIDATES)
    (root / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    lines = [f"{q} Q0 {d} {r} 1 x" for q, ds in CANDIDATES.items() for r, d in enumerate(ds)]
    (root / "first.run").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def lists(folder) -> Lists:
    sets = QuerySet(dataset=f"beir:{folder}", split="test")
    collection, queries = Collection(sets), Queries(sets, require_positive=False)
    run = TrecRun(paths=(str(folder / "first.run"),), depth=10, name="first")
    first = run.candidates(collection, queries, "fp32")
    return Lists(first, Extra(), collection, queries, DEPTH)


@pytest.fixture(scope="module")
def builder(tmp_path_factory) -> Builder:
    return Builder(Store(str(tmp_path_factory.mktemp("storage"))))


@pytest.fixture
def make(builder, lists, tmp_path):
    """Writes a file and lets the teacher read it; (values by query and document, counts)."""

    def build(cls: type[Any], text: str | bytes, name: str = "file.tsv", **fields: Any):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        artifact = builder.get(cls(paths=(str(path),), **fields).scores(lists, "fp32"))
        return said(artifact), artifact.counts

    return build


def said(artifact: Artifact) -> dict[str, dict[str, float]]:
    rows = artifact.table().to_pylist()
    assert [r["query_id"] for r in rows] == query_order(artifact)
    return {r["query_id"]: dict(zip(r["doc_ids"], r["values"], strict=True)) for r in rows}


def query_order(artifact: Artifact) -> list[str]:
    """Of the query set: by hash of the id."""
    path = next(Path(artifact.store.root).glob("queries/six*/attempt-*/queries.arrow"))
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()["query_id"].to_pylist()


def tabs(*lines: str) -> str:
    return "".join("\t".join(line.split()) + "\n" for line in lines)


@pytest.mark.parametrize("depth", [0, 1, 3, 10])
@pytest.mark.parametrize("extra", [True, False])
def test_the_lists_are_those_of_the_list_reader(builder, lists, depth, extra):
    steps = {k: v for k, v in lists.inputs().items() if extra or k != "extra"}
    inputs = {name: builder.get(step) for name, step in steps.items()}
    reader = ListReader(inputs, depth)
    expected = sorted(reader.read(range(len(reader))), key=lambda one: one.query_index)
    found = WantedPairs(inputs, depth)
    assert found.query_ids.to_pylist() == [listed.query_id for listed in expected]
    numbers = [np.arange(a, b) for a, b in pairwise(found.bounds.tolist())]
    doc_ids = [found.doc_ids(of_query).to_pylist() for of_query in numbers]
    assert doc_ids == [listed.doc_ids for listed in expected]
    assert len(found) == sum(map(len, doc_ids))


# --- scores ------------------------------------------------------------------


def test_mono_scores_are_log_softmax_of_true_and_all_else_is_counted(make):
    text = tabs(
        "q1 d0 1.0 0.0",
        "q9 d0 5.0 0.0",  # another query
        "q1 d3 1.0 0.0",  # below the depth
        "q1 dX 1.0 0.0",  # nowhere
        "q1 d1 -0.1 -3.0",
        "q1 d5 800 -800",  # extra; no overflow
        "q1 d2 nan 0",
        "q2 d2 0 -inf",
        "q2 d0 2 2",
    )
    values, counts = make(MonoScores, text)
    assert values["q1"] == pytest.approx(
        {"d0": -math.log(1 + math.exp(-1)), "d1": -math.log(1 + math.exp(-2.9)), "d5": 0.0}
    )
    assert values["q2"] == pytest.approx({"d0": math.log(0.5)})
    assert values["q3"] == {}
    assert counts == {
        "rows": 9,
        "rows_other_queries": 1,
        "rows_unknown_documents": 2,
        "values": 4,
        "values_not_finite": 2,
        "documents_without_value": 2,
        "queries_without_values": 1,
        "scores_averaged": 0,
    }


def test_three_columns_are_scores_as_they_are(make):
    values, counts = make(MonoScores, tabs("q2 d0 0.1", "q2 d2 -7e3"))
    assert values["q2"] == {"d0": 0.1, "d2": -7000.0}
    assert counts["documents_without_value"] == 4


def test_documents_keep_the_order_of_the_list(make):
    text = tabs("q1 d5 1", "q1 d2 1", "q1 d0 1", "q1 d1 1")  # all tied
    values, _ = make(MonoScores, text)
    assert list(values["q1"]) == ["d0", "d1", "d2", "d5"]


def test_a_document_scored_twice_has_the_mean(make):
    text = tabs("q1 d0 1", "q1 d0 2", "q1 d0 6", "q1 d1 .1", "q1 d1 .1", "q1 d1 .1", "q1 d2 1")
    values, counts = make(MonoScores, text + tabs("q1 d2 1.0005"))
    assert values["q1"] == {"d0": 3.0, "d1": 0.1, "d2": pytest.approx(1.00025)}
    assert counts["scores_averaged"] == 1


def test_ensemble_rows_score_their_positive_and_their_negative(make):
    text = tabs(
        "9.5 -1.0 q1 d0 d1",
        "9.5 3.0 q1 d0 dX",  # the negative is not listed, the positive is
        "9.5 -2.0 q1 d0 d1",
        "inf 2.0 q2 d2 d0",
        "1.0 1.0 q7 d0 d1",
    )
    values, counts = make(EnsembleScores, text)
    assert values["q1"] == {"d0": 9.5, "d1": -1.5}
    assert values["q2"] == {"d0": 2.0}
    assert counts == {
        "rows": 5,
        "rows_other_queries": 1,
        "rows_unknown_documents": 1,
        "values": 6,
        "values_not_finite": 1,
        "documents_without_value": 3,
        "queries_without_values": 1,
        "scores_averaged": 1,
    }


@pytest.mark.parametrize("small", [False, True])
def test_many_rows_against_a_naive_reader(make, monkeypatch, small):
    if small:  # many blocks, many lookups, many parts
        monkeypatch.setattr(tsv, "BLOCK", 512)
        monkeypatch.setattr(wanted, "CHUNK", 2)
    rng = random.Random(3)
    rows = [
        (
            rng.choice(["q1", "q2", "q3", "q4"]),
            rng.choice([*DOCS, "dX"]),
            rng.gauss(0, 2),
            rng.gauss(0, 2),
        )
        for _ in range(2000)
    ]
    text = "".join(f"{q}\t{d}\t{t!r}\t{f!r}\n" for q, d, t, f in rows)
    values, counts = make(MonoScores, text, name=f"many{small}.tsv")
    listed = {q: [*d[:DEPTH], *EXTRA.get(q, [])] for q, d in CANDIDATES.items()}
    naive: dict[str, dict[str, list[float]]] = {q: {} for q in listed}
    for q, d, t, f in rows:
        if d in listed.get(q, []):
            naive[q].setdefault(d, []).append(t - math.log(math.exp(t) + math.exp(f)))
    means = {q: {d: sum(v) / len(v) for d, v in said.items()} for q, said in naive.items()}
    for query_id, expected in means.items():
        assert values[query_id] == pytest.approx(expected)
    assert counts["rows"] == 2000
    assert counts["rows_other_queries"] == sum(q == "q4" for q, *_ in rows)
    kept = sum(len(v) for said in naive.values() for v in said.values())
    assert counts["values"] == kept
    assert counts["rows_unknown_documents"] == 2000 - counts["rows_other_queries"] - kept


def test_gzip_by_content_windows_lines_quotes_and_a_mark(make):
    text = b'\xef\xbb\xbfq1\td0\t1.5\r\n\r\nq1\t"d1\t2\r\nq1\td1\t3'
    values, counts = make(MonoScores, gzip.compress(text), name="packed.tsv")
    assert values["q1"] == {"d0": 1.5, "d1": 3.0}
    assert counts["rows"] == 3
    assert counts["rows_unknown_documents"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1\td0\n", r"line 1: expected 4 columns .*query_id doc_id score_true.* found 2"),
        ("q1 d0 1.0\n", "line 1: expected 4 columns parted by tabs .* found 1"),
        (
            tabs("query_id doc_id score", "q1 d0 1"),
            "line 1: expected a number as score, found 'score'.*if it is a header, delete it",
        ),
        (tabs("q1 d0 1", "q1 d1"), "line 2: expected 3 columns .* found 2: 'q1"),
        (tabs("q1 d0 1", "q1 d1 x"), "line 2: expected a number as score, found 'x'"),
        (tabs("q1 d0 1") + "\nq1\td1\t\n", "line 3: expected a number as score, found ''"),
        (tabs("q1 d0 1 2", "q1 d1 1_0 2"), "line 2: expected a number as score_true"),
        (b"q1\td0\t1\nq1\t\xff\t1\n", "line 2: expected UTF-8, found invalid start byte at byte 3"),
        (gzip.compress(tabs("q1 d0 1").encode() * 999, mtime=0)[:-20], "complete gzip file"),
        (b"\x1f\x8bno", "complete gzip file"),
        ("", "line 1: expected 4 columns .* or 3 columns .*, found 0"),
        (tabs("q1 d0 nan", "q2 d0 -inf"), "all 2 values of wanted documents are NaN or infinite"),
        (
            tabs("x7 d0 1", "x8 d0 1"),
            "none of its 2 rows is of one of the 3 queries; it has 'x7', the data set 'q",
        ),
        (
            tabs("q7 d0 1", "q2 D0 1"),
            "none of its documents .* for query 'q2' the file has 'D0', the list has 'd2'",
        ),
        (tabs("q3 d0 1"), "for query 'q3' the file has 'd0', the list is empty"),
    ],
)
def test_files_that_are_refused(make, text, message):
    with pytest.raises(ConfigError, match=message):
        make(MonoScores, text, name="bad.tsv")


def test_a_bad_line_far_down_a_packed_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tsv, "BLOCK", 256)
    path = tmp_path / "scores.gz"
    path.write_bytes(gzip.compress(("q\td\t1\n" * 4000 + "q\td\n" + "q\td\t1\n" * 4000).encode()))
    columns = Columns(("query_id", "doc_id", "score"), ("doc_id",), ("score",))
    read = 0
    with pytest.raises(ConfigError, match="line 4001: expected 3 columns"):
        for block in blocks(path, columns):
            read += len(block)
    assert 0 < read <= 4000


def test_means_in_several_passes():
    means = PairMeans(4)
    means.add(np.array([2, 0, 2]), np.array([1.0, 5.0, 2.0]))
    means.add(np.array([], np.int64), np.array([]))
    means.add(np.array([2, 3]), np.array([6.0, -1.0]))
    np.testing.assert_array_equal(means.values(), [5.0, np.nan, 3.0, -1.0])
    assert means.averaged() == 1


# --- pairs -------------------------------------------------------------------


def test_aggregation_by_hand():
    """P(0 over 1) = .9, P(0 over 2) = .5; document 3 is never compared."""
    pairs = np.array([0, 0]), np.array([1, 2]), np.array([0.9, 0.5])
    expected = [1.4, 0.1, 0.5, np.nan]
    np.testing.assert_allclose(aggregate(*pairs, 4, "sum"), expected)
    np.testing.assert_allclose(aggregate(*pairs, 4, "mean"), [0.7, 0.1, 0.5, np.nan])


def duo(*rows: tuple[str, str, str, float | str]) -> str:
    def shown(p: float | str) -> str:
        return p if isinstance(p, str) else repr(math.log(p))

    return "".join(f"{q}\t{a}\t{b}\t{shown(p)}\n" for q, a, b, p in rows)


DUO = duo(
    ("q2", "d2", "d0", 0.25),
    ("q1", "d5", "d1", 0.9),
    ("q1", "d1", "d5", 0.2),
    ("q1", "d5", "d2", 0.5),
    ("q1", "d5", "d1", 0.7),  # again: the mean .8
    ("q1", "d5", "d5", 0.5),
    ("q1", "d5", "d3", 0.5),  # d3 is below the depth
    ("q1", "d0", "d1", "nan"),
    ("q1", "d2", "d1", "5e-7"),  # rounding: 1.0
    ("q8", "d2", "d1", 0.5),
)


@pytest.mark.parametrize("parts", [1, 2])
def test_duo_scores_keep_their_pairs(make, builder, lists, tmp_path, monkeypatch, parts):
    monkeypatch.setattr(wanted, "CHUNK", {1: 8192, 2: 1}[parts])
    path = tmp_path / f"duo{parts}.tsv"
    path.write_text(DUO + "\n" * parts)  # another file, another artifact
    artifact = builder.get(DuoScores(paths=(str(path),)).scores(lists, "fp32"))
    table = artifact.table()
    assert table.schema == PAIRWISE
    assert len(artifact.files) == {1: 1, 2: 3}[parts]
    rows = {row["query_id"]: row for row in table.to_pylist()}
    found = {
        q: {
            (r["doc_ids"][a], r["doc_ids"][b]): p
            for a, b, p in zip(r["first"], r["second"], r["probabilities"], strict=True)
        }
        for q, r in rows.items()
    }
    assert found["q1"] == pytest.approx(
        {("d5", "d1"): 0.8, ("d1", "d5"): 0.2, ("d5", "d2"): 0.5, ("d2", "d1"): 1.0}
    )
    assert found["q2"] == pytest.approx({("d2", "d0"): 0.25})
    assert found["q3"] == {}
    values = said(artifact)
    # d1: loses to d5 with .8, wins with .2, loses to d2 with 1.0
    assert values["q1"] == pytest.approx(
        {"d1": (0.2 + 0.2 + 0) / 3, "d2": (0.5 + 1) / 2, "d5": (0.8 + 0.8 + 0.5) / 3}
    )
    assert list(values["q1"]) == ["d1", "d2", "d5"]
    assert values["q2"] == pytest.approx({"d2": 0.25, "d0": 0.75})
    assert artifact.counts == {
        "rows": 10,
        "rows_other_queries": 1,
        "rows_unknown_documents": 1,
        "values": 6,
        "values_not_finite": 1,
        "pairs": 5,
        "pairs_with_itself": 1,
        "scores_averaged": 1,
        "documents_without_value": 1,
        "queries_without_values": 1,
    }


def test_duo_sums(make):
    values, _ = make(DuoScores, DUO, aggregation="sum", name="sums.tsv")
    assert values["q1"] == pytest.approx({"d1": 0.4, "d2": 1.5, "d5": 2.1})


def test_probabilities_where_logs_belong_are_refused_with_the_line(make):
    text = tabs("q1 d0 d1 -0.1") + "\n" + tabs("q1 d0 d2 0.7")
    with pytest.raises(ConfigError, match="line 3: expected the log of a probability"):
        make(DuoScores, text, aggregation="mean")
    with pytest.raises(ConfigError, match="all 1 values of wanted documents are NaN"):
        make(DuoScores, tabs("q1 d0 d1 nan"), aggregation="mean", name="nan.tsv")


# --- orders ------------------------------------------------------------------


def passages(*docs: str, start: int = 1) -> list[dict[str, Any]]:
    return [{"docid": d, "rank": r} for r, d in enumerate(docs, start)]


def json_lines(lines: list[Any]) -> bytes:
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


@pytest.fixture
def rankgpt(builder, lists, tmp_path):
    def build(lines: list[Any] | bytes, answers: Any, unparsable: str = "drop"):
        here, there = tmp_path / "lists.jsonl", tmp_path / "answers.json"
        here.write_bytes(lines if isinstance(lines, bytes) else json_lines(lines))
        text = answers if isinstance(answers, str | bytes) else json.dumps(answers)
        there.write_bytes(text if isinstance(text, bytes) else text.encode())
        files = {"lists": str(here), "permutations": str(there)}
        teacher = RankGptFile(**files, unparsable=unparsable)
        artifact = builder.get(teacher.scores(lists, "fp32"))
        assert artifact.table().schema == TEACHER
        return said(artifact), artifact.counts

    return build


def test_rankgpt_orders_repairs_and_drops(rankgpt):
    lines = [
        {"query_id": "q8", "retrieved_passages": passages("d0", "d1")},
        {"query_id": "q1", "retrieved_passages": passages("d3", "dX", "d1", "d0", "d4")},
        {"query_id": "q2", "retrieved_passages": passages("d0", "d2", "d1")},
    ]
    answers = ["junk", "[2] > [4] > [4] > [9] > [1]", "I cannot."]
    values, counts = rankgpt(lines, answers)
    # positions 2 4 1, then 3 and 5: dX (not in the collection) d0 d3 d1 d4
    assert values == {"q1": {"d0": 1.0, "d3": 2.0, "d1": 3.0, "d4": 4.0}, "q2": {}, "q3": {}}
    expected = {
        "lists": 3,
        "lists_other_queries": 1,
        "permutations_repaired": 1,
        "permutations_unparsable": 1,
        "ids_repeated": 1,
        "ids_out_of_range": 1,
        "ids_missing": 2,
        "duplicates": 0,
        "unknown_documents": 1,
        "queries_without_list": 2,
    }
    assert counts == expected
    values, counts = rankgpt(lines, answers, "keep")
    assert values["q2"] == {"d0": 1.0, "d2": 2.0, "d1": 3.0}
    assert counts == {**expected, "queries_without_list": 1}


@pytest.mark.parametrize(
    "line",
    [
        {
            "query_id": "q1",
            "retrieved_passages": [{"docid": "d5", "rank": 7}, *passages("d3", "d4")],
        },
        {"qid": "q1", "retrieved_passages": [{"docid": d} for d in ("d3", "d4", "d5")]},
        {"qid": "q1", "hits": passages("d3", "d4", "d5", start=0)},
        {"query": "?", "hits": [{"qid": "q1", "docid": d} for d in ("d3", "d4", "d5")]},
        {"query_id": "q1", "retrieved_passages": ["d3", "d4", "d5"]},
    ],
)
def test_rankgpt_lists_in_their_variants(rankgpt, line):
    values, counts = rankgpt([line], ["[3] > [1] > [2]"])
    assert values["q1"] == {"d5": 1.0, "d3": 2.0, "d4": 3.0}
    assert counts["permutations_repaired"] == 0


@pytest.mark.parametrize("answers", ['"[2] > [1]"\n"[1] > [2]"\n', '["[2] > [1]", "[1] > [2]"]'])
def test_rankgpt_answers_in_a_list_or_by_line(rankgpt, answers):
    lines = [{"query_id": q, "retrieved_passages": ["d0", "d1"]} for q in ("q1", "q2")]
    values, _ = rankgpt(lines, answers)
    assert values == {"q1": {"d1": 1.0, "d0": 2.0}, "q2": {"d0": 1.0, "d1": 2.0}, "q3": {}}


def test_rankgpt_a_document_listed_twice_keeps_its_best_place(rankgpt):
    line = {"query_id": "q1", "retrieved_passages": ["d0", "d1", "d0"]}
    values, counts = rankgpt([line], ["[3] > [2] > [1]"])
    assert values["q1"] == {"d0": 1.0, "d1": 2.0}
    assert counts["duplicates"] == 1


GOOD = {"query_id": "q1", "retrieved_passages": ["d0", "d1"]}


@pytest.mark.parametrize(
    ("lines", "answers", "message"),
    [
        ([GOOD], ["[1]", "[2]"], "has 1 lists, .* has 2 permutations"),
        ([GOOD, {**GOOD, "query_id": "q2"}], ["[1]"], "has 2 lists, .* has 1 permutations"),
        ([GOOD, GOOD], ["[1]", "[2]"], "line 2: query 'q1' has two lists"),
        ([{**GOOD, "query_id": "7"}], ["[1]"], "none of its 1 lists .* it has '7', the data set"),
        (
            [{**GOOD, "retrieved_passages": ["D0", "D1"]}],
            ["[1] > [2]"],
            "none of its 2 documents is in the collection; query 'q1' has 'D0', the collection 'd",
        ),
        ([[1]], ["[1]"], "line 1: expected an object"),
        ([{"query_id": "q1"}], ["[1]"], "line 1: expected a list retrieved_passages"),
        ([{"hits": ["d0"]}], ["[1]"], "line 1: expected a query_id"),
        ([{"qid": "q1", "hits": [{"rank": 1}]}], ["[1]"], "expected a docid in every passage"),
        (
            [{"qid": "q1", "hits": [{"docid": "d0", "rank": 1}, {"docid": "d1"}]}],
            ["[1]"],
            "line 1: expected a number as every rank",
        ),
        ([GOOD], [["[1]"]], "expected a JSON list of strings"),
        ([GOOD], {"a": "[1]"}, "expected a JSON list of strings"),
        ([GOOD], "[1] > [2]\n", "line 1: expected JSON"),
    ],
)
def test_rankgpt_files_that_are_refused(rankgpt, lines, answers, message):
    with pytest.raises(ConfigError, match=message):
        rankgpt(lines, answers)


MANY = json_lines([{**GOOD, "query_id": f"x{i}"} for i in range(200)])


@pytest.mark.parametrize(
    ("lines", "answers", "message"),
    [
        (
            gzip.compress(MANY, mtime=0)[:-9],
            ["[1]"],
            r"lists\.jsonl: expected a complete gzip file",
        ),
        (
            [GOOD],
            gzip.compress(b'["[1]"]', mtime=0)[:-9],
            r"answers\.json: expected a complete gzip file",
        ),
        (json_lines([GOOD]) + b'{"query_id": "q\xff"}\n', ["[1]"], "line 2: expected JSON.*utf-8"),
        ([GOOD], b'"[1]"\n"[\xff]"\n', r"answers\.json, line 2: expected JSON, found .*utf-8"),
        ([GOOD], b'["[1]", "\xff"]', r"answers\.json, line 1: expected JSON, found .*utf-8"),
    ],
)
def test_rankgpt_files_that_are_damaged(rankgpt, lines, answers, message):
    with pytest.raises(ConfigError, match=message):
        rankgpt(lines, answers)


def test_rankgpt_files_may_be_packed(rankgpt):
    values, _ = rankgpt(gzip.compress(json_lines([GOOD])), gzip.compress(b'["[2] > [1]"]'))
    assert values["q1"] == {"d1": 1.0, "d0": 2.0}


# --- RankGPT's lists as candidates ---------------------------------------------------------------


def shown_lists(builder, lists, path: Path, content: list[Any] | bytes, depth: int = 3):
    path.write_bytes(content if isinstance(content, bytes) else json_lines(content))
    source = RankGptLists(path=str(path), depth=depth, name="theirs")
    return builder.get(source.candidates(lists.collection, lists.queries, "fp32"))


def test_rankgpt_lists_are_candidates_and_every_drop_is_counted(builder, lists, tmp_path):
    content = [
        {"query_id": "q8", "retrieved_passages": passages("d0", "d1")},
        {"query_id": "q2", "retrieved_passages": passages("dX", "d1", "d0", "d1", "d5", "d4")},
    ]
    artifact = shown_lists(builder, lists, tmp_path / "lists.jsonl", content)
    rows = {row.pop("query_id"): row for row in artifact.table().to_pylist()}
    assert artifact.table().schema == CANDIDATE_SCHEMA
    assert list(rows) == query_order(artifact)
    assert rows["q2"] == {
        "doc_ids": ["d1", "d0"],  # the first three, less the one that is not in the collection
        "ranks": [1, 2],
        "scores": [-1.0, -2.0],
        "sources": ["theirs", "theirs"],
    }
    assert rows["q1"]["doc_ids"] == rows["q3"]["doc_ids"] == []
    assert artifact.counts == {
        "lists": 2,
        "lists_other_queries": 1,
        "duplicates": 1,
        "beyond_depth": 2,
        "unknown_documents": 1,
        "candidates": 2,
        "queries_without_candidates": 2,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([GOOD, GOOD], "line 2: query q1 has a second list; keep one"),
        ([{**GOOD, "query_id": "7"}], "none of its 1 lists has a query and a document of the data"),
        ([{**GOOD, "retrieved_passages": ["D0"]}], "none of its 1 lists has a query and a documen"),
        (gzip.compress(MANY, mtime=0)[:-9], "expected a complete gzip file"),
        (b'{"query_id": "\xff"}\n', "line 1: expected JSON"),
    ],
)
def test_rankgpt_lists_that_are_refused(builder, lists, tmp_path, content, message):
    with pytest.raises(ConfigError, match=message):
        shown_lists(builder, lists, tmp_path / "lists.jsonl", content)


def test_rankgpt_answers_without_any_order_are_refused(rankgpt):
    with pytest.raises(ConfigError, match="none of the 1 answers for queries of the data set has"):
        rankgpt([GOOD], ["I cannot."])


RUN = "q1 Q0 d4 1 0.5 x\nq1 Q0 dX 2 9 x\nq1 Q0 d0 3 7.25 x\nq9 Q0 d0 1 1 x\n"


def test_run_files_give_ranks_or_scores(make):
    ranks, counts = make(RunFile, RUN, column="rank")
    scores, _ = make(RunFile, RUN, column="score")
    assert ranks == {"q1": {"d4": 1.0, "d0": 2.0}, "q2": {}, "q3": {}}
    assert scores == {"q1": {"d4": 0.5, "d0": 7.25}, "q2": {}, "q3": {}}
    assert counts["unknown_documents"] == 1
    assert counts["queries_without_list"] == 2


def test_a_run_file_of_any_length_is_read_in_parts(make, monkeypatch, builder, lists):
    """500,000 lists do not fit into memory as Python objects: they are spilled by query."""
    text = "".join(f"q{q} Q0 d{d} {9 - d} {d / 4} x\n" for d in range(6) for q in (3, 1, 2))
    whole, counts = make(RunFile, text, column="score", name="whole.run")
    monkeypatch.setattr(spill, "CHUNK", 2)
    monkeypatch.setattr(spill, "PENDING", 0)
    monkeypatch.setattr(columns, "BLOCK", 64)
    again, parted = make(RunFile, text + "\n", column="score", name="parts.run")
    assert again == whole == {q: {f"d{d}": d / 4 for d in range(6)} for q in ("q1", "q2", "q3")}
    assert parted == counts and counts["lines"] == counts["kept"] == 18
    ranks, _ = make(RunFile, text, column="rank", name="ranks.run")
    assert ranks["q2"] == {f"d{d}": 6.0 - d for d in range(6)}
    found = Path(builder.store.root).glob("teacher/run_file-*/attempt-*/part-*")
    assert len([p for p in found if p.name == "part-00001.parquet"]) == 2  # score, then rank


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q9 Q0 d0 1 1 x\n", "none of the 3 queries is in it"),
        ("q1 Q0 dX 1 1 x\n", "none of its 1 documents is in the collection"),
        ("q1 Q0 d0 one 1 x\n", r"file\.tsv, line 1: expected an integer rank"),
        (
            gzip.compress(RUN.encode() * 99, mtime=0)[:-9],
            r"file\.tsv: expected a complete gzip file",
        ),
    ],
)
def test_run_files_that_are_refused(make, text, message):
    with pytest.raises(ConfigError, match=message):
        make(RunFile, text, column="rank")


# --- identity ----------------------------------------------------------------


def test_what_decides_the_values_is_in_the_digest(lists, tmp_path):
    for name, text in (("a", "one"), ("copy", "one"), ("b", "two")):
        (tmp_path / name).write_text(text)
    a, copy, b = (str(tmp_path / name) for name in ("a", "copy", "b"))
    deeper = Lists(lists.candidates, lists.extra, lists.collection, lists.queries, DEPTH + 1)
    mono, duo, run = MonoScores(paths=(a,)), DuoScores(paths=(a,)), RunFile(paths=(a,))
    orders = RankGptFile(lists=a, permutations=b)

    def digest(teacher: Any, lists: Lists = lists) -> str:
        step: Step = teacher.scores(lists, "fp32")
        return step.digest

    assert digest(mono) == digest(MonoScores(paths=(copy,)))
    others = [
        digest(mono),
        digest(MonoScores(paths=(b,))),
        digest(MonoScores(paths=(a, b))),
        digest(EnsembleScores(paths=(a,))),
        digest(mono, deeper),
        digest(duo),
        digest(duo.replace(aggregation="sum")),
        digest(duo.replace(aggregation="sum"), deeper),
        digest(run),
        digest(run.replace(column="score")),
        digest(orders),
        digest(orders.replace(unparsable="keep")),
        digest(RankGptFile(lists=b, permutations=a, unparsable="keep")),
    ]
    assert len(set(others)) == len(others)
    # orders are of whole lists: the candidates do not decide them
    assert digest(run) == digest(run, deeper)


# --- published data ----------------------------------------------------------

README = [
    ("gpt-3.5.bm25", "bm25", "dl19", 0.6938),
    ("gpt-3.5.bm25", "bm25", "dl20", 0.6385),
    ("rankvicuna.bm25", "bm25", "dl19", 0.6840),
    ("rankvicuna.bm25", "bm25", "dl20", 0.6648),
    ("rankvicuna.splade", "splade", "dl19", 0.7644),
    ("rankvicuna.splade", "splade", "dl20", 0.7551),
]


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="no shared data here")
@pytest.mark.parametrize(("teacher", "first", "split", "expected"), README)
def test_published_rerankings_reach_their_figures(builder, teacher, first, split, expected):
    sets = QuerySet(dataset=f"beir:{PUBLISHED}", split=split)
    collection, queries = Collection(sets), Queries(sets, require_positive=False)
    run = str(PUBLISHED / "runs" / f"{first}.{split}.run.gz")
    source = TrecRun(paths=(run,), name=first)
    candidates = source.candidates(collection, queries, "fp32")
    lists = Lists(candidates, None, collection, queries, 100)
    file = str(PUBLISHED / "llm" / f"{teacher}.{split}.run.gz")
    ranks = RunFile(paths=(file,)).scores(lists, "fp32")
    order = TeacherRun(ranks, "rank", candidates, queries, 100)
    metrics = builder.get(Metrics(order, queries, ("nDCG@10",)))
    assert metrics.counts["means"]["nDCG@10"] == pytest.approx(expected, abs=5e-5)

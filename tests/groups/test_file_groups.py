"""Groups of other libraries' training files: found by id or text; what is dropped is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raypipe.config import ConfigError
from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.datasets.text_match import hash_id
from raypipe.groups.triples import Triples
from raypipe.inference.lists import Lists
from raypipe.records import NEGATIVES
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.teachers.published.file_scores import TrainingFileScores

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven"]
JUDGED = {"10": {"4": 1, "3": 1}, "11": {"5": 2}}


def text(word: str) -> str:
    return f"{word} is a number"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> QuerySet:
    folder = tmp_path_factory.mktemp("data") / "numbers"
    (folder / "qrels").mkdir(parents=True)
    docs = [{"_id": str(i), "title": "", "text": text(word)} for i, word in enumerate(WORDS)]
    queries = [{"_id": "10", "text": "what is four"}, {"_id": "11", "text": "who is five"}]
    for name, rows in (("corpus", docs), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"{q}\t{d}\t{r}\n" for q, docs in JUDGED.items() for d, r in docs.items()]
    (folder / "qrels" / "train.tsv").write_text("".join(["query-id\tcorpus-id\tscore\n", *lines]))
    return QuerySet(dataset=f"beir:{folder}", split="train")


@pytest.fixture
def builder(tmp_path) -> Builder:
    return Builder(Store(str(tmp_path / "storage")))


def write(folder: Path, *lines: Any, name: str = "") -> str:
    """Values as JSON lines, texts as lines of a TSV."""
    name = name or ("train.tsv" if isinstance(lines[0], str) else "train.jsonl")
    rows = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / name).write_text("".join(f"{row}\n" for row in rows))
    return str(folder / name)


def formed(builder: Builder, data: QuerySet, path: str, **fields: Any):
    step = Triples(path=path, **fields).negatives(Collection(data), Queries(data, True))
    artifact = builder.get(step)
    table = artifact.table()
    assert table.schema == NEGATIVES
    rows = table.to_pylist()
    assert all(set(row["ranks"]) == {0} and set(row["sources"]) == {"triples"} for row in rows)
    return [(r["query_id"], r["doc_ids"], r["relevance"]) for r in rows], artifact.counts


# The files of ../shared/cases/training-files, in the forms of the real ones.
PASSAGES = {
    "positive_passages": [{"docid": "4", "title": "", "text": text("four")}],
    "negative_passages": [{"docid": "1", "title": "", "text": text("one")}],
}
CASES = {
    "ColBERT triples": ([[10, 4, 1], [10, 4, 2], [11, 5, 3]], ["1", "2"], True),
    "ColBERT n-way": ([[10, [4, 12.5], [1, 3.25], [2, -1.0]]], ["1", "2"], False),
    "hard negatives": (
        [{"qid": 10, "pos": [4], "neg": {"bm25": [1, 2], "tas-b": [2, 4]}}],
        ["1", "2"],
        False,
    ),
    "FlagEmbedding": (
        [{"query": "What is  four", "pos": [text("Four")], "neg": [text("one"), text("two")]}],
        ["1", "2"],
        False,
    ),
    "Tevatron": ([{"query_id": "10", "query": "what is four", **PASSAGES}], ["1"], True),
    "text triples": (
        [f"what is four\t{text('four')}\t{text(word)}" for word in ("one", "two")],
        ["1", "2"],
        True,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_form_gives_the_same_groups(builder, data, tmp_path, case):
    lines, negatives, is_triples = CASES[case]
    path = write(tmp_path, *lines)
    found, counts = formed(builder, data, path)
    each = [[n] for n in negatives] if is_triples else [negatives]
    mine = [row for row in found if row[0] == "10"]
    assert mine == [("10", ["4", *docs], [1, *([0] * len(docs))]) for docs in each]
    assert counts["lines"] == len(lines) and counts["groups"] == len(found)
    assert counts["unknown_documents"] == counts["unknown_queries"] == 0
    filled, _ = formed(builder, data, path, per_group=2)
    assert filled[0] == ("10", ["4", *negatives], [1, *([0] * len(negatives))])
    one, _ = formed(builder, data, path, per_group=1, limit=1)
    assert one == [("10", ["4", negatives[0]], [1, 0])]


def test_what_is_left_out_is_counted(builder, data, tmp_path):
    path = write(
        tmp_path,
        {
            "query": "who is five",
            "pos": [text("five"), text("seven"), "nowhere", text("five")],
            "neg": [text("one"), text("one"), "not there", text("seven"), ""],
        },
        {"query": "what is four", "pos": [text("four")], "neg": [text("three"), text("two")]},
        {"query": "what is four", "pos": ["nowhere"], "neg": [text("two")]},
        {"query": "what is four", "pos": [text("four")], "neg": [text("three")]},
        {"query": "unknown", "pos": [text("four")], "neg": [text("two")]},
    )
    found, counts = formed(builder, data, path)
    assert found == [
        ("11", ["5", "1"], [2, 0]),
        ("11", ["7", "1"], [1, 0]),  # not judged, but the file calls it positive
        ("10", ["4", "2"], [1, 0]),
    ]
    assert counts == {
        "lines": 5,
        "unknown_queries": 1,
        "unknown_documents": 4,  # of known queries
        "negatives_judged_relevant": 2,  # 3 is judged for 10
        "repeated_documents": 2,  # one twice, and the positive seven
        "lines_without_positive": 1,
        "positives_without_negative": 1,
        "groups": 3,
        "pairs": 6,
        "short_groups": 0,
        "queries_without_group": 0,
        "queries_matched_by_text": 4,
        "queries_with_another_text": 0,
        "documents_matched_by_text": 14,
        "documents_with_another_text": 0,
    }


def test_a_text_counts_more_than_an_id(builder, data, tmp_path):
    """Ids of another collection are numbers too: 4 is five there."""
    other = {"docid": "4", "title": "", "text": text("five")}
    changed = {"docid": "1", "title": "One", "text": "is a number indeed"}
    line = {"query_id": "10", "query": "who is five"}
    lines = {**line, "positive_passages": [other], "negative_passages": [changed]}
    found, counts = formed(builder, data, write(tmp_path, lines))
    assert found == [("11", ["5", "1"], [2, 0])]
    assert counts["documents_matched_by_text"] == counts["documents_with_another_text"] == 1


def test_a_file_is_its_own_collection(builder, tmp_path):
    path = write(tmp_path, *CASES["FlagEmbedding"][0])
    found, _ = formed(builder, QuerySet(dataset=f"training:{path}"), path)
    docs = [hash_id(text(word)) for word in ("four", "one", "two")]
    assert found == [(hash_id("what is four"), docs, [1, 0, 0])]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            [[99, 4, 1]],
            r"ColBERT triples.*'unknown_queries': 1.*:1 has query 99 and document 4; the data set "
            r"has query '1\d' .'wh.* and document '0' .'zero is a number'",
        ),
        (["99\t4\t1"], r"no triple is of .*; its first is 99 4 1, the data set has query '1\d'"),
        (
            [{"query": "no", "pos": ["nowhere"], "neg": ["gone"]}],
            r"FlagEmbedding.*has query 'no' and document 'nowhere'.*training:.*if it has texts",
        ),
    ],
)
def test_a_file_of_another_data_set_shows_both_sides(builder, data, tmp_path, lines, words):
    with pytest.raises(ConfigError, match=words):
        formed(builder, data, write(tmp_path, *lines))


def test_the_content_decides_the_digest(data, tmp_path):
    def digest(path: str, **fields: Any) -> str:
        step = Triples(path=path, **fields).negatives(Collection(data), Queries(data, True))
        return step.digest

    path = write(tmp_path, *CASES["ColBERT n-way"][0])
    same = write(tmp_path, *CASES["ColBERT n-way"][0], name="renamed.json")
    assert digest(path) == digest(same) != digest(path, per_group=1)
    assert digest(path) != digest(write(tmp_path, [10, [4, 1], [1, 0]], name="other.jsonl"))


# --- scores as a teacher -------------------------------------------------------------------------


def values(builder: Builder, data: QuerySet, path: str, groups: str):
    collection, queries = Collection(data), Queries(data, True)
    negatives = Triples(path=groups).negatives(collection, queries)
    teacher = TrainingFileScores(paths=(path,))
    teacher.check()
    lists = Lists(negatives, negatives, collection, queries, 0)
    artifact = builder.get(teacher.scores(lists, "fp32"))
    rows = artifact.table().to_pylist()
    return {r["query_id"]: dict(zip(r["doc_ids"], r["values"], strict=True)) for r in rows}, (
        artifact.counts
    )


def test_scores_of_ids(builder, data, tmp_path):
    path = write(
        tmp_path, [10, [4, 12.5], [1, 3.25]], [10, [4, 13.5], [2, -1]], [9, [4, 1], [1, 0]]
    )
    found, counts = values(builder, data, path, path)
    assert found == {"10": {"4": 13.0, "1": 3.25, "2": -1.0}, "11": {}}
    assert (counts["lines"], counts["unknown_queries"], counts["values"]) == (3, 1, 4)
    assert counts["scores_averaged"] == 1


def test_scores_of_texts(builder, data, tmp_path):
    line = {"query": "what is four", "pos": [text("four")], "neg": [text("one"), "nowhere"]}
    path = write(tmp_path, {**line, "pos_scores": [0.9], "neg_scores": [float("nan"), 0.1]}, line)
    found, counts = values(builder, data, path, path)
    assert found == {"10": {"4": 0.9}, "11": {}}
    assert counts["values_not_finite"] == counts["unknown_documents"] == 1
    assert counts["lines_without_scores"] == 1


def test_a_file_without_scores_teaches_nothing(tmp_path):
    for line, name in (([10, 4, 1], "ColBERT triples"), ("10\t4\t1", "lines of ids")):
        with pytest.raises(ConfigError, match=f"found {name} without any"):
            TrainingFileScores(paths=(write(tmp_path, line),)).check()
    with pytest.raises(ConfigError, match="no file there"):
        TrainingFileScores(paths=(str(tmp_path / "none.jsonl"),)).check()

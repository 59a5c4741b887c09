"""Published triples as groups; no cluster is needed."""

from __future__ import annotations

import gzip
import json
from collections import Counter, namedtuple
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.config import ConfigError
from raypipe.datasets.ir import IrDataset
from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.groups import triple_groups
from raypipe.groups.triples import Triples, _file_blocks
from raypipe.recipe.reading import validate
from raypipe.records import NEGATIVES
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.tables import text_columns as columns

DOCS = [f"d{i}" for i in range(6)]
JUDGED = {"q0": {"d0": 1}, "q1": {"d1": 3, "d2": 1, "d3": 0, "gone": 2}, "q2": {"d2": 2}}
Pair = namedtuple("Pair", "query_id doc_id_a doc_id_b")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> QuerySet:
    folder = tmp_path_factory.mktemp("data") / "small"
    (folder / "qrels").mkdir(parents=True)
    docs = [{"_id": d, "title": "", "text": f"text of {d}"} for d in DOCS]
    queries = [{"_id": q, "text": f"about {q}"} for q in JUDGED]
    for name, rows in (("corpus", docs), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    lines = [f"{q}\t{d}\t{r}" for q, docs in JUDGED.items() for d, r in docs.items()]
    text = "\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n"
    (folder / "qrels" / "train.tsv").write_text(text)
    return QuerySet(dataset=f"beir:{folder}", split="train")


@pytest.fixture
def builder(tmp_path) -> Builder:
    return Builder(Store(str(tmp_path / "storage")))


def form(builder: Builder, data: QuerySet, config: Triples):
    artifact = builder.get(config.negatives(Collection(data), Queries(data, True)))
    assert artifact.table().schema == NEGATIVES
    return artifact


def groups(artifact) -> list[tuple[str, list[str], list[int]]]:
    rows = artifact.table().to_pylist()
    for row in rows:
        assert row["ranks"] == [0] * len(row["doc_ids"])
        assert row["sources"] == ["triples"] * len(row["doc_ids"])
    return [(r["query_id"], r["doc_ids"], r["relevance"]) for r in rows]


def file(folder: Path, text: str | bytes, name: str = "triples.tsv", **fields) -> Triples:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Triples(path=str(path), **fields)


TEXT = (
    "q1\td1\td4\n"
    "q1 d1  d5\r\n"
    "\n"
    "q0\td0\tnowhere\n"
    "q1\td1\td0\n"
    "q1\td1\td4\n"
    "other\td1\td0\n"
    "q1\td1\td2\n"  # judged 1: no negative
    "q1\td1\td3\n"  # judged 0
    "q0\td5\td1\n"  # d5 is not judged, but the file calls it positive
    "q0\td5\td5\n"
    "q1\td1\td4\n"
)
DROPS = {
    "triples": 11,
    "unknown_queries": 1,
    "unknown_documents": 1,
    "negatives_judged_relevant": 1,
}


@pytest.mark.parametrize("packed", [False, True])
def test_every_triple_is_a_group(builder, data, tmp_path, packed):
    text = gzip.compress(TEXT.encode()) if packed else TEXT
    artifact = form(builder, data, file(tmp_path, text))
    first = [("q1", ["d1", d], [3, 0]) for d in ("d4", "d5", "d0", "d4", "d3")]
    assert groups(artifact) == [*first, ("q0", ["d5", "d1"], [1, 0]), ("q1", ["d1", "d4"], [3, 0])]
    assert artifact.counts == {
        **DROPS,
        "repeated_documents": 1,
        "groups": 7,
        "pairs": 14,
        "short_groups": 0,
        "queries_without_group": 1,
    }


def test_consecutive_triples_fill_a_group(builder, data, tmp_path):
    artifact = form(builder, data, file(tmp_path, TEXT, per_group=3))
    assert groups(artifact) == [
        ("q1", ["d1", "d4", "d5", "d0"], [3, 0, 0, 0]),
        ("q1", ["d1", "d3"], [3, 0]),
        ("q0", ["d5", "d1"], [1, 0]),
        ("q1", ["d1", "d4"], [3, 0]),
    ]
    rest = {"repeated_documents": 2, "groups": 4, "pairs": 10, "short_groups": 3}
    assert artifact.counts == {**DROPS, **rest, "queries_without_group": 1}


def naive(rows: list[tuple[str, str, str]], per_group: int) -> list[tuple[str, list[str]]]:
    out: list[tuple[str, list[str]]] = []
    run, seen = None, set()
    for q, p, n in rows:
        if q not in JUDGED or p not in DOCS or n not in DOCS or n == p:
            continue
        if JUDGED[q].get(n, 0) > 0:
            continue
        if run != (q, p):
            run, seen, room = (q, p), set(), 0
        if n in seen and per_group > 1:
            continue
        seen.add(n)
        if not room:
            out.append((q, [p]))
            room = per_group
        out[-1][1].append(n)
        room -= 1
    return out


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from([*JUDGED, "r"]),
            st.sampled_from(["d0", "d1", "x"]),
            st.sampled_from([*DOCS, "y"]),
        ),
        max_size=40,
    ),
    per_group=st.integers(1, 4),
    limit=st.none() | st.integers(1, 12),
    part=st.integers(1, 5),
    block=st.integers(20, 100),
)
def test_groups_equal_naive_ones_however_they_are_cut(
    rows, per_group, limit, part, block, data, tmp_path_factory
):
    rows = [*rows, ("q2", "d2", "d5")]
    folder = tmp_path_factory.mktemp("triples")
    config = file(
        folder, "".join("\t".join(r) + "\n" for r in rows), per_group=per_group, limit=limit
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triple_groups, "PART", part)
        patch.setattr(columns, "BLOCK", block)
        artifact = form(Builder(Store(str(folder / "storage"))), data, config)
    expected = naive(rows, per_group)[:limit]
    assert [(q, docs) for q, docs, _ in groups(artifact)] == expected
    assert len(artifact.files) == -(-len(expected) // part)
    counts = artifact.counts
    assert counts["groups"] == len(expected)
    assert counts["pairs"] == sum(len(docs) for _, docs in expected)
    assert counts["short_groups"] == sum(len(docs) <= per_group for _, docs in expected)
    assert counts["queries_without_group"] == 3 - len({q for q, _ in expected})
    if limit is None:
        names = [*DROPS, "repeated_documents"]
        used = counts["triples"] - sum(counts[name] for name in names[1:])
        assert used == counts["pairs"] - counts["groups"]
        assert counts["triples"] == len(rows)


def test_docpairs_of_a_data_set(builder, data, monkeypatch):
    rows = [("q1", "d1", "d4"), ("q1", "d1", "d5"), ("q2", "d2", "d1")]
    monkeypatch.setattr(IrDataset, "docpairs", lambda self: iter(rows))
    artifact = form(builder, data, Triples(dataset="vaswani", per_group=2))
    assert groups(artifact) == [("q1", ["d1", "d4", "d5"], [3, 0, 0]), ("q2", ["d2", "d1"], [2, 0])]


def test_a_data_set_may_be_a_mapping_of_files():
    named = {"corpus": "/c.csv", "clicks": "/log.csv", "least_impressions": 2}
    one_line = "files:corpus=/c.csv,clicks=/log.csv,least_impressions=2"
    assert Triples(dataset=named) == Triples(dataset=one_line)
    with pytest.raises(ValueError, match=r"there is no part 'click'.*did you mean 'clicks'"):
        Triples(dataset={"corpus": "/c.csv", "click": "/log.csv"})


def test_ir_datasets_records_become_tuples(monkeypatch):
    dataset = QuerySet(dataset="msmarco-passage/train/triples-small").open()
    rows = [Pair("q1", "d1", "d2")]
    monkeypatch.setattr(dataset._data, "docpairs_iter", lambda: iter(rows), raising=False)
    assert list(dataset.docpairs()) == [("q1", "d1", "d2")]


def test_two_scores_may_stand_before_the_ids(builder, data, tmp_path):
    text = "1.5\t-2\tq1\td1\td4\n0.5 nan q1 d1 d5\n"
    artifact = form(builder, data, file(tmp_path, text))
    assert groups(artifact) == [("q1", ["d1", d], [3, 0]) for d in ("d4", "d5")]
    wrong = file(tmp_path, text + "q1\td1\td4\n", name="wrong.tsv")
    with pytest.raises(ConfigError, match=r"line 3: expected five columns .*, found 3"):
        form(builder, data, wrong)


def test_what_the_file_calls_positive_counts_as_positive(builder, data, tmp_path):
    graded = data.replace(positive_relevance=2)
    artifact = form(builder, graded, file(tmp_path, "q2\td5\td1\nq1\td1\td4\n"))
    assert groups(artifact) == [("q2", ["d5", "d1"], [2, 0]), ("q1", ["d1", "d4"], [3, 0])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1\td1\td4\nq1\td1\n", r"triples .*tsv, line 2: expected three columns .*, found 2"),
        ("q1\td1\tmy doc\n", r"line 1: expected three columns \(query_id pos_id neg_id\), found 4"),
        ("q1\td1\t1\nq1\td4\t2\nq2\td5\t1\n", "line 1: .* looks like a run: name it as candid"),
        ("q1\td1\t1\t21.3\n", "expected triples, query_id pos_id neg_id, found what looks like"),
        ("q1 Q0 d1 1 21.3 bm25\n", "looks like a run: name it as candidates .type: trec_run"),
        (b"q1\td1\td4\nother\td\xe9\td1\n", "line 2: expected UTF-8"),
        (gzip.compress(b"q1\td1\td4\n" * 99, mtime=0)[:-9], "expected a complete gzip file"),
        ("", "no triple is of a query and documents that are used here; found .*'triples': 0"),
        ("Q1\td1\td2\nq1\td1\tx\n", "no triple is of .*'unknown_queries': 1, 'unknown_docum"),
    ],
)
def test_bad_files_are_errors(text, message, builder, data, tmp_path):
    config = file(tmp_path, text)
    with pytest.raises(ConfigError, match=message):
        form(builder, data, config)
    assert builder.find(config.negatives(Collection(data), Queries(data, True))) is None


def test_what_is_checked_before_work(tmp_path):
    file(tmp_path, "").check()
    with pytest.raises(ConfigError, match=r"triples file .*tripels\.tsv: not there; did you mean"):
        Triples(path=str(tmp_path / "tripels.tsv")).check()
    with pytest.raises(ConfigError, match="has no docpairs; ids with docpairs below it: msmarco"):
        Triples(dataset="msmarco-passage").check()
    with pytest.raises(ConfigError, match="no dataset 'vaswanni'; did you mean 'vaswani'"):
        Triples(dataset="vaswanni").check()
    Triples(dataset="msmarco-passage/train/triples-small").check()  # reads nothing
    for tree, found in (({}, "neither"), ({"dataset": "a", "path": "b"}, "both")):
        with pytest.raises(ConfigError, match=f"either `dataset` or `path`, found {found}"):
            validate(Triples, tree, "here")


def test_the_digest_follows_the_content(data, tmp_path):
    def digest(config: Triples) -> str:
        return config.negatives(Collection(data), Queries(data, True)).digest

    same = {digest(file(tmp_path, TEXT, name)) for name in ("a.tsv", "b.tsv")}
    assert len(same) == 1
    others = {
        digest(file(tmp_path, TEXT + "\n", "c.tsv")),
        digest(file(tmp_path, TEXT, "a.tsv", per_group=2)),
        digest(file(tmp_path, TEXT, "a.tsv", limit=5)),
    }
    assert len(others | same) == 4


@pytest.mark.parametrize("scores", ["", "1.5\t-2\t"])
@pytest.mark.parametrize("before", ["", "\ufeff", "\n", "\ufeff\r\n\n"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_packed_files_marks_and_ends_of_lines_change_nothing(tmp_path, scores, before, ends, pack):
    lines = [f"{scores}q1\td1\t{negative}{ends}" for negative in ("d4", "d5")]
    path = tmp_path / "triples.tsv"
    path.write_bytes(pack((before + "".join(lines)).encode()))
    tables = list(_file_blocks(path, Counter()))
    rows = [tuple(row.values()) for table in tables for row in table.to_pylist()]
    assert rows == [("q1", "d1", "d4"), ("q1", "d1", "d5")]

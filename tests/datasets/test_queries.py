import hashlib

import pytest
from fixed_dataset import Fixed

from raypipe.config import ConfigError
from raypipe.datasets.queries import select_queries
from raypipe.records import QRELS, QUERIES


class Judged(Fixed):
    def __init__(self, queries, qrels):
        self._queries, self._qrels = queries, qrels

    def queries(self):
        yield from self._queries

    def qrels(self):
        yield from self._qrels


def many(n=40):
    queries = [(f"q{i}", f"text {i}") for i in range(n)]
    return Judged(queries, [(f"q{i}", f"d{i}", 1) for i in range(n)])


def ids(dataset, *args, **kwargs):
    return select_queries(dataset, *args, **kwargs).queries["query_id"].to_pylist()


def test_hash_order_does_not_depend_on_file_order():
    expected = sorted(
        (f"q{i}" for i in range(40)), key=lambda i: hashlib.sha256(i.encode()).hexdigest()
    )
    data = many()
    assert ids(data) == expected
    data._queries.reverse()
    assert ids(data) == expected != sorted(expected)


def test_a_larger_limit_only_adds_and_slices_do_not_overlap():
    everything = ids(many())
    for limit in (1, 7, 40, 99):
        assert ids(many(), limit) == everything[:limit]
    assert ids(many(), 10, skip=7) == everything[7:17]
    assert not set(ids(many(), 7)) & set(ids(many(), None, skip=7))
    assert ids(many(39), 5) == [i for i in everything if i != "q39"][:5]


DIRTY = Judged(
    [
        ("good", "a"),
        ("empty", ""),
        ("good", "again"),
        ("unjudged", "b"),
        ("negative", "c"),
        ("weak", "d"),
    ],
    [
        ("good", "d1", 0),
        ("good", "d2", 3),
        ("good", "d2", 1),
        ("empty", "d1", 1),
        ("negative", "d1", 0),
        ("negative", "d2", -2),
        ("weak", "d1", 1),
        ("gone", "d1", 1),
    ],
)


def test_every_drop_is_counted():
    chosen = select_queries(DIRTY, positive_relevance=2)
    assert chosen.queries.schema == QUERIES and chosen.qrels.schema == QRELS
    assert chosen.queries.to_pylist() == [{"query_id": "good", "text": "a"}]
    assert [tuple(row.values()) for row in chosen.qrels.to_pylist()] == [
        ("good", "d1", 0),
        ("good", "d2", 3),
    ]
    assert chosen.counts == {
        "queries": 1,
        "usable_queries": 1,
        "qrels": 2,
        "empty_queries": 1,
        "duplicate_queries": 1,
        "queries_without_qrels": 1,
        "queries_without_positive": 2,
        "qrels_without_query": 1,
        "duplicate_qrels": 1,
    }


def test_positive_relevance_and_require_positive():
    assert set(ids(DIRTY)) == {"good", "weak"}
    judged = select_queries(DIRTY, require_positive=False)
    assert set(judged.queries["query_id"].to_pylist()) == {"good", "weak", "negative"}
    assert judged.counts["queries_without_positive"] == 0
    order = judged.queries["query_id"].to_pylist()
    assert list(dict.fromkeys(judged.qrels["query_id"].to_pylist())) == order


def test_unjudged_queries_stay_where_nobody_looks_at_judgements():
    chosen = select_queries(DIRTY, positive_relevance=2, keep_unjudged=True)
    assert set(chosen.queries["query_id"].to_pylist()) == {"good", "weak", "negative", "unjudged"}
    assert set(chosen.qrels["query_id"].to_pylist()) == {"good", "weak", "negative"}
    counts = chosen.counts
    assert (counts["usable_queries"], counts["unjudged_queries_kept"]) == (4, 1)
    assert counts["queries_without_qrels"] == counts["queries_without_positive"] == 0
    assert counts["empty_queries"] == 1
    nobody = select_queries(Judged([("q", "text")], []), keep_unjudged=True)
    assert nobody.qrels.schema == QRELS and nobody.qrels.num_rows == 0
    assert len(nobody.queries) == 1


def test_errors():
    with pytest.raises(
        ConfigError, match=r"no query left \(skip 40\); found.*'usable_queries': 40"
    ):
        select_queries(many(), 5, skip=40)
    with pytest.raises(ConfigError, match="no query left"):
        select_queries(Judged([], []), None)
    with pytest.raises(ConfigError, match="expected limit >= 1 and skip >= 0, found limit 0"):
        select_queries(many(), 0)
    with pytest.raises(ConfigError, match="skip -1"):
        select_queries(many(), 1, skip=-1)
    with pytest.raises(ConfigError, match=r"expected a query id without white .*, found 'a b'"):
        select_queries(Judged([("a b", "t")], [("a b", "d", 1)]), None)

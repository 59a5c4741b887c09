"""Files of pairwise probabilities: the pairs, and the documents' values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from six_documents import said, tabs

from raypipe.config import ConfigError
from raypipe.records import PAIRWISE
from raypipe.teachers.published import wanted
from raypipe.teachers.published.pair_scores import DuoScores, aggregate


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

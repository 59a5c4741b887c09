"""Means over suites: which rows are tested on which sets, in one family, and how it is shown."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from report_rows import printed

from raypipe.evaluation.comparison import values_of
from raypipe.evaluation.report.contents import Report, SetFacts
from raypipe.evaluation.report.page import to_html
from raypipe.evaluation.report.tables import suites_against
from raypipe.evaluation.report.text import to_markdown
from raypipe.evaluation.results import Row, Statistics
from raypipe.evaluation.significance import holm
from raypipe.evaluation.suite_comparison import suite_family_sizes
from raypipe.evaluation.suite_test import suite_test

NANO = [f"nano {k}" for k in range(8)]
DL = ["DL 2019", "DL 2020", "DL hard"]
FEW = Statistics(resamples=300)


def row(name: str, kind: str, shift: float, seeds=(), sets=(*NANO, *DL), lost=()) -> Row:
    """Twelve queries per set, better by the shift, more or less of it on other sets, and a little
    worse on the sets in `lost`."""

    def values(test_set: str, seed: int) -> dict[str, dict[str, float]]:
        base = np.random.default_rng([len(test_set), ord(test_set[-1])]).uniform(0.3, 0.6, 12)
        own = np.random.default_rng([len(name), ord(test_set[-1]), seed]).normal(0, 0.01, 12)
        part = -0.25 if test_set in lost else 0.5 + 0.15 * (ord(test_set[-1]) % 8)
        found = base + own + shift * part
        return {"nDCG@10": {f"q{i}": float(v) for i, v in enumerate(found)}}

    results = {name: [values(name, seed) for seed in seeds or (0,)] for name in sets}
    return Row(name, kind, results, tuple(seeds))


ROWS = (
    row("BM25", "first_stage", 0.0),
    row("good", "trained", 0.1, (1, 2, 3), lost=NANO[:1]),
    row("alike", "trained", 0.0, (1,)),
    row("mixed", "trained", 0.1, (1, 2), lost=NANO[::2]),
)


def report(rows=ROWS, references=("BM25",), sets=(*NANO, *DL)) -> Report:
    facts = [
        SetFacts(name, (name,), ("nDCG@10",), suite="trec-dl" if name in DL else "nanobeir")
        for name in sets
    ]
    return Report("suites", tuple(rows), tuple(facts), references, FEW)


FULL = report()


def test_a_suite_s_mean_is_tested_over_its_sets():
    nano = FULL.suite_tests["nanobeir"]["BM25"]
    good, alike, mixed = (nano[name] for name in ("good", "alike", "mixed"))
    assert (good.won, good.tied, good.lost) == (7, 0, 1)
    assert (alike.won, alike.tied, alike.lost) == (0, 8, 0)
    assert (mixed.won, mixed.tied, mixed.lost) == (4, 0, 4)
    assert [test.verdict for test in (good, alike, mixed)] == [
        "better",
        "equivalent",
        "inconclusive",
    ]
    means = FULL.suite_means()["nanobeir"]
    for name, test in nano.items():
        assert test.difference == pytest.approx(means[name][0] - means["BM25"][0])
        left, right = (
            [values_of(one, test_set, "nDCG@10") for test_set in NANO]
            for one in (next(r for r in ROWS if r.name == n) for n in (name, "BM25"))
        )
        alone = suite_test(left, right, 300)
        assert (test.p, test.interval) == (alone.p, alone.interval(0.95))
        assert test.p_equivalence == alone.equivalence(0.01)


def test_one_family_over_suites_rows_and_references():
    both = report(references=("BM25", "alike")).suite_tests
    pairs = {
        (suite, frozenset({name, reference})): test
        for suite, references in both.items()
        for reference, rows in references.items()
        for name, test in rows.items()
    }
    assert suite_family_sizes(both) == {"nDCG@10": len(pairs)} == {"nDCG@10": 2 * (3 + 2)}
    expected = holm([test.p for test in pairs.values()])
    assert [test.p_holm for test in pairs.values()] == pytest.approx(expected)
    there, back = both["nanobeir"]["BM25"]["alike"], both["nanobeir"]["alike"]["BM25"]
    assert (there.difference, there.p) == (-back.difference, back.p)
    assert there.interval == (-back.interval[1], -back.interval[0])
    assert both["nanobeir"].keys() == {"BM25", "alike"}  # no row is a reference but these


def test_a_row_is_tested_on_the_sets_that_it_has():
    some = row("some", "trained", 0.1, (1,), sets=NANO[:5])
    facts = report().sets
    shown = tuple(
        replace(one, rows=tuple(r.name for r in (*ROWS, some) if one.name in r.results))
        for one in facts
    )
    found = replace(report((*ROWS, some)), sets=shown).suite_tests
    assert (
        found["nanobeir"]["BM25"]["some"].sets == 5 and found["nanobeir"]["BM25"]["good"].sets == 8
    )
    assert "some" not in found["trec-dl"]["BM25"]


def test_two_sets_are_counted_and_not_tested():
    two = report(sets=NANO[:2])
    test = two.suite_tests["nanobeir"]["BM25"]["good"]
    assert (test.won, test.lost, test.verdict) == (1, 1, "inconclusive") and math.isnan(test.p)
    assert suite_family_sizes(two.suite_tests) == {}
    table = suites_against(two, "BM25")
    assert table.body[0][-1] == "the recipe, these sets"
    assert "nanobeir has 2 sets, too few to say anything of other sets." in to_markdown(two)
    json.dumps(two.json(), allow_nan=False)


def test_one_set_and_a_search_have_no_such_test():
    for none in (report(sets=NANO[:1]), replace(report(), mode="search"), report(references=())):
        assert none.suite_tests == {}
        assert "Means over suites" not in to_markdown(
            none
        ) and "bootstrap over test" not in "".join(to_markdown(none))


def test_every_form_of_the_report_has_the_tests():
    text, page, out = to_markdown(FULL), to_html(FULL), printed(FULL, 170)
    assert "Means over suites, against BM25:" in text
    assert "<h3>Means over suites, against BM25</h3>" in page
    assert "means over suites, against BM25" in out
    cells = "| good | nanobeir nDCG@10 | 8 | +.0"
    assert cells in text and "7 / 0 / 1" in page and "7 / 0 / 1" in out
    assert "| the recipe, other sets |" in text and "| this checkpoint, other sets |" in text
    for said in (
        "speaks of other test sets like these",
        "in a family of their own, 6 tests of nDCG@10.",
        "trec-dl has 3 sets, which is few",
    ):
        assert said in text and said in page, said
    assert "nanobeir has" not in text
    plain = json.loads(json.dumps(FULL.json(), allow_nan=False))
    good = plain["suites"]["nanobeir"]["good"]
    assert good["sets"] == 8 and good["versus"]["BM25"]["won"] == 7
    assert plain["suite_families"] == {"nDCG@10": 6}

"""Rows against the single functions they are made of."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from report_rows import MEASURES, SETS, row, rows

from raypipe.evaluation.bootstrap import interval
from raypipe.evaluation.comparison import JudgedSet, compare, family_sizes
from raypipe.evaluation.equivalence import smallest_margin, tost
from raypipe.evaluation.results import Row, Statistics
from raypipe.evaluation.significance import effect_size, holm, paired_test, permutation_test

REFERENCE = "MiniLM | mnrl"
REFERENCES = [REFERENCE]
FEW = Statistics(resamples=200)


def lines_of(some, measures=MEASURES, references=(), statistics=FEW, test_set="test"):
    """The lines of one test set."""
    return compare([JudgedSet(test_set, some, measures, references)], statistics)[test_set]


@pytest.fixture(scope="module")
def lines():
    return lines_of(rows(), MEASURES, REFERENCES)


def seeds(one: Row, measure: str) -> list[list[float]]:
    return [[v for _, v in sorted(s[measure].items())] for s in one.results["test"]]


@pytest.mark.parametrize("measure", ["nDCG@10", "RR@10"])
def test_a_family_equals_the_single_functions(lines, measure):
    family = ["BM25", "MiniLM zero-shot", "RankVicuna", "MiniLM | mnrl > kl", "tiny"]
    by_name = {r.name: r for r in rows()}
    base = seeds(by_name[REFERENCE], measure)
    values = {name: seeds(by_name[name], measure) for name in family}
    tests = {name: paired_test(values[name], base) for name in family}
    found = {line.row.name: line.versus.get(REFERENCE) for line in lines}
    expected_p = holm([tests[n].p for n in family])
    expected_flips = holm([permutation_test(values[n], base, FEW.resamples) for n in family])
    expected_tost = holm([tost(tests[n], 0.01) for n in family])
    for i, name in enumerate(family):
        versus = found[name][measure]
        assert versus.difference == pytest.approx(np.mean(values[name]) - np.mean(base))
        assert versus.p == tests[name].p
        assert versus.interval == tests[name].interval()
        assert versus.effect == effect_size(values[name], base)
        assert versus.smallest_margin == smallest_margin(tests[name])
        assert versus.p_holm == pytest.approx(expected_p[i])
        assert versus.p_permutation_holm == pytest.approx(expected_flips[i])
        assert versus.p_equivalence_holm == pytest.approx(expected_tost[i])
    assert found[REFERENCE] is None and found["oracle"] is None


def test_means_and_intervals_are_over_seeds_and_queries(lines):
    by_name = {r.name: r for r in rows()}
    for line in lines:
        if line.row.error:
            assert line.means == {} and line.intervals == {}
            continue
        values = seeds(by_name[line.row.name], "nDCG@10")
        assert line.means["nDCG@10"] == pytest.approx(np.mean(values))
        assert line.seed_means["nDCG@10"] == pytest.approx(np.mean(values, axis=1).tolist())
        assert line.intervals["nDCG@10"] == interval(values, resamples=FEW.resamples)
    assert not any("Judged@10" in tests for line in lines for tests in line.versus.values())


def test_letters_name_the_rows_that_are_beaten(lines):
    by_name = {line.row.name: line for line in lines}
    best = by_name["MiniLM | mnrl > kl"]
    assert by_name["BM25"].label in best.letters["nDCG@10"]
    names = [r.name for r in rows() if r.kind != "oracle" and not r.error]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    values = {r.name: seeds(r, "nDCG@10") for r in rows() if r.name in names}
    tests = [paired_test(values[a], values[b]) for a, b in pairs]
    beaten = {name: set() for name in names}
    for (a, b), test, p in zip(pairs, tests, holm([t.p for t in tests]), strict=True):
        if p < 0.05:
            beaten[a if test.difference > 0 else b].add(
                by_name[b if test.difference > 0 else a].label
            )
    assert any(beaten.values())
    for name in names:
        assert set(by_name[name].letters["nDCG@10"]) == beaten[name]
    assert by_name["oracle"].letters["nDCG@10"] == ""


def test_many_rows_have_distinct_labels():
    many = [replace(row(f"r{i}", "trained", [0.1, 0.2, 0.3]), seeds=(1,)) for i in range(60)]
    found = [line.label for line in lines_of(many, ["nDCG@10"])]
    assert len(set(found)) == 60 and found[:2] == ["a", "b"] and found[26] == "a1"


def test_queries_pair_by_id_whatever_their_order(lines):
    shuffled = rows()
    last = next(r for r in shuffled if r.name == "MiniLM | mnrl > kl")
    turned = [
        {m: dict(reversed(values.items())) for m, values in seed.items()}
        for seed in last.results["test"]
    ]
    shuffled[shuffled.index(last)] = replace(last, results={**last.results, "test": turned})
    for one, other in zip(lines_of(shuffled, MEASURES, REFERENCES), lines, strict=True):
        assert (one.means, one.intervals, one.versus) == (
            other.means,
            other.intervals,
            other.versus,
        )


def test_an_oracle_or_a_failed_row_does_not_weaken_the_others(lines):
    without = [r for r in rows() if r.kind != "oracle" and not r.error]
    found = {x.row.name: x.versus for x in lines_of(without, MEASURES, REFERENCES)}
    assert found == {x.row.name: x.versus for x in lines if x.row.name in found}


def test_a_family_holds_all_rows_test_sets_and_references_of_a_measure():
    """4 rows against 2 references are 3 + 2 pairs, as two references are one test."""
    both = [REFERENCE, "BM25"]
    names = ["BM25", "oracle", REFERENCE, "MiniLM | mnrl > kl", "tiny"]
    some = [r for r in rows() if r.name in names]
    sets = [JudgedSet("test", some, MEASURES, both), JudgedSet("splade", some, ["RR@10"], both)]
    found = compare(sets, FEW)
    assert family_sizes(found) == {"nDCG@10": 5, "RR@10": 10}
    assert family_sizes(compare(sets[:1], FEW)) == {"nDCG@10": 5, "RR@10": 5}
    pairs = {
        (name, frozenset({line.row.name, reference})): tests["RR@10"]
        for name, lines in found.items()
        for line in lines
        for reference, tests in line.versus.items()
    }
    assert len(pairs) == 10
    for raw, corrected in (
        ("p", "p_holm"),
        ("p_permutation", "p_permutation_holm"),
        ("p_equivalence", "p_equivalence_holm"),
    ):
        expected = holm([getattr(test, raw) for test in pairs.values()])
        assert [getattr(test, corrected) for test in pairs.values()] == pytest.approx(expected)


def test_a_test_without_a_p_is_in_no_family():
    one = [row("a", "trained", [0.1], seeds=[1]), row("b", "trained", [0.4], seeds=[1])]
    found = lines_of(one, ["nDCG@10"], ["a"])
    assert math.isnan(found[1].versus["a"]["nDCG@10"].p) and family_sizes({"test": found}) == {}


def test_a_failed_reference_tests_nothing():
    found = lines_of(rows(), MEASURES, ["broken"])
    assert not any(line.versus for line in found)
    assert any(line.letters["nDCG@10"] for line in found)


def test_settings_count():
    strict = lines_of(rows(), MEASURES, REFERENCES, FEW.replace(margin=0.9, alpha=0.01))
    verdicts = {x.row.name: x.versus.get(REFERENCE) for x in strict}
    assert verdicts["tiny"]["nDCG@10"].verdict == "equivalent"
    wide = lines_of(rows(), MEASURES, REFERENCES, FEW.replace(level=0.99))
    narrow = lines_of(rows(), MEASURES, REFERENCES, FEW.replace(level=0.6))
    assert wide[0].intervals["nDCG@10"][0] < narrow[0].intervals["nDCG@10"][0]


def test_compare_refuses():
    some = rows()
    with pytest.raises(ValueError, match="'BM52': no such row; did you mean 'BM25'"):
        lines_of(some, MEASURES, ["BM52"])
    with pytest.raises(ValueError, match="'oracle' is an oracle"):
        lines_of(some, MEASURES, ["oracle"])
    with pytest.raises(ValueError, match="found 'BM25' several times"):
        lines_of([some[0], *some], MEASURES)
    with pytest.raises(ValueError, match="row 'BM25' has no results on 'tset'"):
        lines_of(some, test_set="tset")
    with pytest.raises(ValueError, match="no measure 'nDCG@1'; did you mean 'nDCG@10'"):
        lines_of(some, ["nDCG@1"])
    (given,) = some[1].results["test"]
    fewer = {m: {q: v for q, v in qs.items() if q != "q3"} for m, qs in given.items()}
    with pytest.raises(ValueError, match=r"'MiniLM zero-shot', nDCG@10: .*found 1 .*'q3'"):
        lines_of([some[0], replace(some[1], results={"test": [fewer]})], MEASURES)
    assert [one.name for one in SETS] == ["test", "splade"]


def test_each_reference_has_its_tests_and_no_row_is_compared_with_itself():
    both = [REFERENCE, "BM25"]
    lines = {x.row.name: x for x in lines_of(rows(), MEASURES, both)}
    assert list(lines["tiny"].versus) == both
    assert list(lines[REFERENCE].versus) == ["BM25"] and list(lines["BM25"].versus) == [REFERENCE]
    assert lines["oracle"].versus == lines["broken"].versus == {}
    with pytest.raises(ValueError, match="found 'BM25' twice; name it once"):
        lines_of(rows(), MEASURES, ["BM25", REFERENCE, "BM25"])


def test_two_references_are_one_test_that_both_show():
    both = [REFERENCE, "BM25"]
    lines = {x.row.name: x for x in lines_of(rows(), MEASURES, both)}
    there, back = lines["BM25"].versus[REFERENCE], lines[REFERENCE].versus["BM25"]
    for measure in ("nDCG@10", "RR@10"):
        one, other = there[measure], back[measure]
        assert one.difference == -other.difference and one.effect == -other.effect
        assert one.interval == (-other.interval[1], -other.interval[0])
        shared = ("p", "p_holm", "p_permutation_holm", "p_equivalence_holm", "smallest_margin")
        assert [getattr(one, name) for name in shared] == [getattr(other, name) for name in shared]
    values = {r.name: seeds(r, "nDCG@10") for r in rows() if not r.error}
    test = paired_test(values[REFERENCE], values["BM25"])
    assert back["nDCG@10"].difference == pytest.approx(test.difference)
    assert back["nDCG@10"].p == pytest.approx(test.p)
    flips = permutation_test(values[REFERENCE], values["BM25"], FEW.resamples)
    assert back["nDCG@10"].p_permutation == pytest.approx(flips)


def test_a_verdict_of_two_references_is_turned_too():
    weak = row("weak", "trained", [0.1, 0.12, 0.15, 0.11], seeds=[1])
    strong = row("strong", "trained", [0.8, 0.84, 0.83, 0.8], seeds=[1])
    lines = lines_of([weak, strong], ["nDCG@10"], ["weak", "strong"])
    verdicts = [v["nDCG@10"].verdict for line in lines for v in line.versus.values()]
    assert verdicts == ["worse", "better"]

"""Rows of one run are one row."""

from __future__ import annotations

from dataclasses import replace

from tracked_jobs import BASE, failed, row

from raypipe.evaluation.same_run import joined, one_row_per_run, same_run


def known(one, **runs):
    return replace(one, runs={name: list(digests) for name, digests in runs.items()})


def test_rows_are_the_same_by_digest_whatever_they_are_called():
    one = known(BASE, test="a")
    assert same_run(one, known(replace(BASE, name="other", kind="teacher"), test="a"))
    assert not same_run(one, known(BASE, test="b"))
    assert not same_run(one, failed("x", 1, "died"))
    seeds = row("cl", "trained", 0.4, [1, 2])
    assert same_run(known(seeds, test="ab"), known(seeds, test="ba"))
    assert not same_run(known(seeds, test="ab"), known(seeds, test="ac"))


def test_rows_without_digests_are_the_same_by_name_kind_and_values():
    assert same_run(BASE, known(BASE, test="a"))  # 0.1 kept none
    assert not same_run(BASE, replace(BASE, name="bm25"))
    assert not same_run(BASE, row("BM25", "first_stage", 0.3))
    assert not same_run(row("cl", "trained", 0.4, [1, 2]), row("cl", "trained", 0.4, [1]))


def test_rows_without_a_common_test_set_are_two():
    elsewhere = replace(BASE, results={"dl19": BASE.results["test"]})
    assert not same_run(known(BASE, test="a"), known(elsewhere, dl19="a"))


def test_joined_rows_have_the_test_sets_of_both():
    more = replace(BASE, results={**BASE.results, "dl19": BASE.results["test"]}, tied={"dl19": 2})
    both = joined(BASE, more)
    assert both.results.keys() == {"test", "dl19"} and both.tied == {"dl19": 2}
    assert both.name == BASE.name


def test_one_row_per_run_keeps_the_first_and_says_which():
    one, two = known(BASE, test="a"), known(row("cl", "trained", 0.4, [1]), test="b")
    again = known(row("twin", "trained", 0.4, [1]), test="b")
    rows, standing = one_row_per_run([one, two, again, failed("x", 1, "died")])
    assert [r.name for r in rows] == ["BM25", "cl", "x"] and standing == {"twin": "cl"}

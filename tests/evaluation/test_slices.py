"""Test queries in groups, and how the report shows them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raypipe.config import ConfigError
from raypipe.evaluation.report.contents import Report, SetFacts
from raypipe.evaluation.report.tables import sliced
from raypipe.evaluation.report.text import to_markdown
from raypipe.evaluation.results import Row, Statistics
from raypipe.evaluation.slices import NO_GROUP, Slices, slice_means, slice_sizes
from raypipe.sweep.report_facts import with_slices, without_queries

GROUPS = {"q0": "head", "q1": "head", "q2": "tail"}
SET = SetFacts("test", ("a set",), ("RR@10",))


def row(name: str, *seeds: list[float]) -> Row:
    results = [{"RR@10": {f"q{i}": v for i, v in enumerate(values)}} for values in seeds]
    return Row(name, "trained", {"test": results}, seeds=tuple(range(len(seeds))))


def report(slices: dict[str, dict[str, str]]) -> Report:
    rows = (
        row("good", [1.0, 0.5, 0.5, 0.0], [1.0, 0.5, 0.0, 0.0]),
        row("bad", [0.0, 0.5, 1.0, 1.0]),
    )
    facts = replace(SET, slices=slices)
    return Report("x", rows, (facts,), statistics=Statistics(resamples=100))


def test_a_column_and_bands_part_the_queries(tmp_path):
    table = tmp_path / "queries.csv"
    table.write_text("qid,intent,asked\nq1,buy,5\nq2,learn,10\nq3,,250\nq4,buy,\n")
    intent = Slices(path=str(table), column="intent")
    assert intent.group_of() == {"q1": "buy", "q2": "learn", "q3": NO_GROUP, "q4": "buy"}
    asked = Slices(path=str(table), column="asked", bands=(10, 100))
    assert asked.group_of() == {
        "q1": "under 10",
        "q2": "10 up to 100",
        "q3": "100 and more",
        "q4": NO_GROUP,
    }


def test_what_cannot_be_read_is_named_before_work(tmp_path):
    table = tmp_path / "queries.csv"
    table.write_text("query_id,intent\nq1,buy\n")
    with pytest.raises(ConfigError, match=r"queries.csv:2: expected a number as intent, found 'b"):
        Slices(path=str(table), column="intent", bands=(1,)).check()
    for number in ("nan", "1_0", "\u0661"):
        table.write_text(f"query_id,intent\nq1,{number}\n")
        with pytest.raises(ConfigError, match="expected a number as intent"):
            Slices(path=str(table), column="intent", bands=(1,)).check()
    table.write_text("query_id,intent\nq1,buy\nq1,buy\nq1,learn\n")
    with pytest.raises(ConfigError, match=r"queries.csv:4: expected one group per query, .*'buy'"):
        Slices(path=str(table), column="intent").check()
    with pytest.raises(ConfigError, match="a first line that names query_id and kind"):
        Slices(path=str(table), column="kind").check()
    with pytest.raises(ConfigError, match=r"slices .*gone.csv: no file there"):
        Slices(path=str(tmp_path / "gone.csv"), column="intent").check()
    with pytest.raises(ValueError, match="expected rising limits"):
        Slices(path=str(table), column="intent", bands=(3, 1))


def test_means_are_over_queries_and_seeds():
    seeds = ({"RR@10": {"q0": 1.0, "q2": 0.5, "q9": 0.0}}, {"RR@10": {"q0": 0.5, "q2": 0.0}})
    means = slice_means(GROUPS, seeds, "RR@10")
    assert means == {"head": 0.75, "tail": 0.25, NO_GROUP: 0.0}
    assert slice_sizes(GROUPS, seeds[0], "RR@10") == {NO_GROUP: 1, "head": 1, "tail": 1}


def test_the_report_has_a_table_per_slice_and_names_the_worst():
    one = report({"band": GROUPS})
    table = sliced(one.sliced(one.sets[0])["band"])
    assert table.heads == ["model", "worst", "head (2)", f"{NO_GROUP} (1)", "tail (1)"]
    assert table.body == [
        ["good", "tail", ".750", ".000", ".250"],
        ["bad", "head", ".250", "1.000", "1.000"],
    ]
    text = to_markdown(report({"band": GROUPS}))
    assert "RR@10 by band (queries), with each row's worst group; not tested:" in text
    nobody = report({"band": {"other": "x"}})
    assert nobody.sliced(nobody.sets[0]) == {}
    assert "by band" not in to_markdown(nobody)


def test_plain_values_have_means_sizes_and_the_worst_group():
    found = report({"band": GROUPS}).json()["sets"]["test"]["slices"]["band"]
    assert found["measure"] == "RR@10"
    assert found["queries"] == {"head": 2, NO_GROUP: 1, "tail": 1}
    assert found["rows"]["good"] == {
        "means": {"head": 0.75, "tail": 0.25, NO_GROUP: 0.0},
        "worst": "tail",
    }
    assert report({}).json()["sets"]["test"]["slices"] == {}


def test_a_set_keeps_the_groups_of_its_own_judged_queries(tmp_path):
    table = tmp_path / "queries.csv"
    table.write_text("query_id,intent\nq0,buy\nq3,learn\nelsewhere,buy\n")
    slices = {"intent": Slices(path=str(table), column="intent")}
    other = SetFacts("dl19", ("another set",), ("RR@10",))
    sets = with_slices((SET, other), report({}).rows, slices)
    assert [facts.slices for facts in sets] == [{"intent": {"q0": "buy", "q3": "learn"}}, {}]
    assert without_queries(sets, slices) == []
    table.write_text("query_id,intent\nelsewhere,buy\n")
    sets = with_slices((SET, other), report({}).rows, slices)
    (said,) = without_queries(sets, slices)
    assert said.startswith("evaluation.slices.intent: no test query is in ")


def test_the_page_has_it_too():
    from raypipe.evaluation.report.page import to_html

    page = to_html(report({"band": GROUPS}))
    assert "RR@10 by band (queries)" in page and "head (2)" in page

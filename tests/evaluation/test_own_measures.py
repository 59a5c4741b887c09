"""Measures of one's own: names, fields, values, and every list that the others are given."""

from __future__ import annotations

import pickle
import sys

import pyarrow as pa
import pytest
from own_packages import forget, work_in, write

from raypipe.commands.evaluate import report_of
from raypipe.config import ConfigError
from raypipe.evaluation.measures import evaluate, means, parse_measures
from raypipe.evaluation.own_measures import fit_to_travel, own_code
from raypipe.records import QRELS, RUN

MEASURES = '''
from pydantic import Field
from raypipe.evaluation.own_measures import OwnMeasure

class Place(OwnMeasure):
    """1 / rank of the first relevant document, to a power."""
    power: float = Field(1.0, gt=0)
    def per_query(self, ranked, relevance, positive_relevance):
        hits = [i for i, d in enumerate(ranked, 1) if relevance.get(d, 0) >= positive_relevance]
        return hits[0] ** -self.power if hits else 0

class Odd(OwnMeasure):
    def per_query(self, ranked, relevance, positive_relevance):
        return float("nan")

class Word(OwnMeasure):
    def per_query(self, ranked, relevance, positive_relevance):
        return "0.5"
'''
NAME = "my_package.measures:Place"


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write(tmp_path, {"my_package/__init__.py": "", "my_package/measures.py": MEASURES})
    work_in(tmp_path, monkeypatch)
    yield
    forget()


def judged(run: dict[str, list[str]], *measures: str, relevance: int = 1):
    rows = [{"query_id": q, "doc_ids": d, "scores": [0.0] * len(d)} for q, d in run.items()]
    qrels = [("q1", "a", 1), ("q1", "b", 2), ("q2", "a", 1), ("q3", "c", 2)]
    columns = [list(column) for column in zip(*qrels, strict=True)]
    table = evaluate(
        pa.Table.from_pylist(rows, schema=RUN), pa.table(columns, schema=QRELS), measures, relevance
    )
    return {(row["query_id"], row["measure"]): row["value"] for row in table.to_pylist()}, table


def test_values_are_those_of_the_class_beside_those_of_ir_measures():
    run = {"q1": ["x", "a", "b"], "q2": [], "q9": ["a"]}
    own, deep = NAME, f"{NAME}(power=2)@1"
    values, table = judged(run, own, "RR", deep)
    assert values == {
        ("q1", own): 0.5, ("q1", "RR"): 0.5, ("q1", deep): 0.0,
        ("q2", own): 0.0, ("q2", "RR"): 0.0, ("q2", deep): 0.0,
        ("q3", own): 0.0, ("q3", "RR"): 0.0, ("q3", deep): 0.0,
    }  # fmt: skip
    assert list(means(table)) == [own, "RR", deep]


def test_the_lowest_relevance_is_that_of_the_set():
    run = {"q1": ["a", "b"]}
    assert judged(run, NAME, relevance=2)[0]["q1", NAME] == 0.5
    assert judged(run, NAME, relevance=1)[0]["q1", NAME] == 1.0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my_package.measures:Place(power=0)", "power: Input should be greater than 0"),
        ("my_package.measures:Place(pwer=1)", "pwer: Extra inputs are not permitted"),
        ("my_package.measures:Place(1)", "expected fields such as p=0.8, found '1'"),
        ("my_package.measures:Place@0", "cutoff: Input should be greater than or equal to 1"),
        ("my_package.measures:Place@ten", "expected a form such as"),
        ("my_package.measures:Plaec", "did you mean 'Place'"),
        ("other.measures:Place", "expected a package that RAYPIPE_ALLOW_PLUGINS names"),
        ("my_package.measures:Field", "a class that extends one of raypipe's"),
        ("my_package.measures:OwnMeasure", "expected a measure with per_query"),
    ],
)
def test_a_name_that_is_no_measure_is_an_error(name, words):
    with pytest.raises(ValueError) as caught:
        parse_measures([name])
    assert str(caught.value).startswith(f"measure {name!r}: ") and words in str(caught.value)


@pytest.mark.parametrize("name", ["Odd", "Word"])
def test_a_value_that_is_no_number_is_an_error(name):
    with pytest.raises(ValueError, match=rf"measures:{name}: query 'q1': expected a finite number"):
        judged({"q1": ["a"]}, f"my_package.measures:{name}")


def test_names_in_steps_are_names_with_the_code_in_the_digest():
    plain, own = fit_to_travel(["nDCG@10", f"{NAME}@3"])
    assert (plain, own) == ("nDCG@10", f"{NAME}@3") and pickle.loads(pickle.dumps(own)) == own
    (fields,) = own_code([plain, own]).values()
    assert fields[own]["cutoff"] == 3 and len(fields[own]["code"]) == 32
    assert own_code([plain]) == {}


def test_evaluate_takes_it(tmp_path):
    (tmp_path / "qrels").write_text("q1 0 a 1\nq2 0 a 1\n")
    for run, docs in (("x", "ab"), ("y", "ba")):
        lines = [f"{q} Q0 {d} {r} 1 t\n" for q in ("q1", "q2") for r, d in enumerate(docs, 1)]
        (tmp_path / f"{run}.run").write_text("".join(lines))
    runs = [str(tmp_path / f"{name}.run") for name in "xy"]
    report = report_of(str(tmp_path / "qrels"), None, runs, measures=(f"{NAME}(power=2)@5",))
    assert [list(line.means.values()) for line in report.lines["test"]] == [[1.0], [0.25]]
    with pytest.raises(ConfigError, match="expected a measure with per_query"):
        report_of(str(tmp_path / "qrels"), None, runs, measures=("my_package.measures:OwnMeasure",))

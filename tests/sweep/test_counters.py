"""Counters of nested steps, by the way to them; needs no cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from raypipe.storage.artifacts import Attempt, Step, Store
from raypipe.storage.builder import Builder
from raypipe.sweep.counters import behind, behind_lines, counts_line, said_once


@dataclass(frozen=True)
class Node(Step):
    """A step of any place: inputs, needs and counters as given."""

    label: str
    parts: Mapping[str, Step] = field(default_factory=dict)
    weights: Mapping[str, Step] = field(default_factory=dict)
    counts: Mapping[str, Any] = field(default_factory=dict)

    kind: ClassVar[str] = "nodes"

    @property
    def name(self) -> str:
        return self.label

    def spec(self) -> Mapping[str, Any]:
        return {"label": self.label}

    def inputs(self) -> Mapping[str, Step]:
        return self.parts

    def needs(self) -> Mapping[str, Step]:
        return self.weights

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        return self.counts


QUERIES = Node("queries", counts={"queries": 12})
RUN = Node("run", {"queries": QUERIES}, counts={"unknown_documents": 7, "duplicates": 0})
VECTORS = Node("vectors", weights={"backbone": Node("weights", counts={"source": "hub/name"})},
               counts={"texts_cut": 3})  # fmt: skip
FUSED = Node("fused", {"queries": QUERIES, "member their run": RUN, "member_dense": VECTORS})
GROUPS = Node("groups", {"candidates": FUSED, "vectors": VECTORS, "queries": QUERIES})


def test_every_distinct_artifact_once_by_the_shortest_way(tmp_path):
    builder = Builder(Store(str(tmp_path)))
    steps: dict[str, Step] = {"queries": QUERIES, "groups of distil": GROUPS}
    for step in steps.values():
        builder.get(step)
    found = behind(steps, builder)
    assert list(found) == [
        "candidates of groups of distil",
        "vectors of groups of distil",
        "member their run of candidates of groups of distil",
        "backbone of vectors of groups of distil",
    ]
    assert behind_lines(found) == [  # what counts nothing has no line
        "vectors of groups of distil: 3 texts cut",
        "member their run of candidates of groups of distil: 7 unknown documents",
    ]


def test_an_artifact_of_several_names_is_one_line(tmp_path):
    builder = Builder(Store(str(tmp_path)))
    found = {"collection/test": builder.get(QUERIES), "groups": builder.get(GROUPS)}
    found["collection"] = builder.get(QUERIES)
    assert list(said_once(found)) == ["collection/test, collection", "groups"]


def test_sizes_of_what_is_behind_are_left_out(tmp_path):
    builder = Builder(Store(str(tmp_path)))
    tokens = builder.get(Node("tokens", counts={"rows": 9, "tokens": 81, "empty": 0}))
    cut = builder.get(Node("vectors", counts={"rows": 9, "texts_cut": 1}))
    assert behind_lines({"tokens": tokens, "vectors": cut}) == ["vectors: 9 rows, 1 text cut"]


def test_what_is_not_there_any_more_is_left_out(tmp_path):
    """Finished groups need their inputs no more, and somebody may have deleted them."""
    assert behind({"groups": GROUPS}, Builder(Store(str(tmp_path)))) == {}


def test_a_line():
    assert counts_line("x", {"drops": 0, "groups": 1234}) == "x: 1,234 groups"
    one = {"queries_without_terms": 1, "texts_cut": 1, "docs": 1, "qrels": 2, "auto_chose_one": 1}
    words = "1 query without terms, 1 text cut, 1 document, 2 judgements, auto chose one 1"
    assert counts_line("x", one) == f"x: {words}"
    assert counts_line("x", {"recall": 0.5, "source": "hub/name"}) == "x: recall 0.5"
    assert counts_line("x", {}) == "x: empty"

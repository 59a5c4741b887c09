"""Test sets that the field reports together, by name: ids, measures, relevance, depth.

Ids are those of ir_datasets. BM25 is a set's first stage unless a recipe names another. Binary
measures count relevance 2 and 3 on TREC DL (its own guideline), and 1 and above everywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

SuiteName = Literal["trec-dl", "dev-small", "beir", "nanobeir", "lotte", "robust04"]


@dataclass(frozen=True)
class SuiteSet:
    """One test set of a suite."""

    name: str
    """The name that tables show."""
    dataset: str
    measures: tuple[str, ...]
    positive_relevance: int = 1
    depth: int = 100
    """Candidates that are re-ranked per query, as published comparisons have it."""


_RANKED = ("nDCG@10", "RR@10", "Judged@10")
_BEIR = (
    *("arguana", "climate-fever", "dbpedia-entity/test", "fever/test", "fiqa/test"),
    *("hotpotqa/test", "nfcorpus/test", "nq", "quora/test", "scidocs", "scifact/test"),
    *("trec-covid", "webis-touche2020/v2"),
)
_NANO = (
    *("arguana", "climate-fever", "dbpedia-entity", "fever", "fiqa", "hotpotqa", "msmarco"),
    *("nfcorpus", "nq", "quora", "scidocs", "scifact", "webis-touche2020"),
)
_LOTTE = ("lifestyle", "recreation", "science", "technology", "writing")

SUITES: Mapping[SuiteName, tuple[SuiteSet, ...]] = {
    "trec-dl": (
        SuiteSet("DL 2019", "msmarco-passage/trec-dl-2019/judged", (*_RANKED, "AP"), 2),
        SuiteSet("DL 2020", "msmarco-passage/trec-dl-2020/judged", (*_RANKED, "AP"), 2),
        SuiteSet("DL hard", "msmarco-passage/trec-dl-hard", (*_RANKED, "AP"), 2),
    ),
    "dev-small": (SuiteSet("dev small", "msmarco-passage/dev/small", ("RR@10", "nDCG@10")),),
    "beir": tuple(
        SuiteSet(f"BEIR {name.split('/')[0]}", f"beir/{name}", ("nDCG@10", "RR@10", "Judged@10"))
        for name in _BEIR
    ),
    "nanobeir": tuple(SuiteSet(f"Nano {name}", f"nano-beir/{name}", _RANKED) for name in _NANO),
    "lotte": tuple(
        SuiteSet(f"LoTTE {topic}", f"lotte/{topic}/test/search", ("Success@5", "nDCG@10"))
        for topic in _LOTTE
    ),
    "robust04": (
        SuiteSet("Robust04", "disks45/nocr/trec-robust-2004", ("nDCG@10", "nDCG@20", "AP", "P@20")),
    ),
}
"""BEIR is the 13 collections that anyone may fetch, without MS MARCO, which models are trained on.
Robust04's topics are read by their titles; its documents come from NIST on request."""

assert set(SUITES) == set(get_args(SuiteName))

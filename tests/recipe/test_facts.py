"""What manifests say of where things came from: paths, addresses, the kind of values; no keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raypipe.candidates.rankgpt import RankGptCandidates
from raypipe.candidates.scored_docs import ScoredDocsCandidates
from raypipe.candidates.trec_run import RunFileCandidates
from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.groups.triples import TripleGroups
from raypipe.inference.lists import Lists
from raypipe.inference.truncation import LongestFirst
from raypipe.models.backbone import Backbone
from raypipe.recipe.reading import validate
from raypipe.teachers.bi_encoder import BiEncoderTeacher
from raypipe.teachers.cross_encoder import CrossEncoderScores
from raypipe.teachers.ensemble import CombinedScores, Member
from raypipe.teachers.llm.teacher import ListwiseLLM, PairwiseLLM, PointwiseLLM
from raypipe.teachers.published.pair_scores import PairScores
from raypipe.teachers.published.rankgpt import RankGptOrders
from raypipe.teachers.published.run_file import RunFileValues
from raypipe.teachers.published.scores import ScoreFile

SETS = QuerySet(dataset="beir:/data/small", split="test")
COLLECTION, QUERIES = Collection(SETS), Queries(SETS, False)
LISTS = Lists(Backbone("first/stage"), None, COLLECTION, QUERIES, 10)
HOME = str(Path("~/a.run").expanduser())
READ = {"paths": ["/b.run", HOME]}
MODEL = "some/reranker"
HTTP = {
    "type": "http",
    "url": "https://llm.example:8443/v1?api-version=2#part",
    "model": "m",
    "api_key_env": "FACTS_TEST_KEY",
}


def llm(cls: Any) -> Any:
    return validate(cls, {"engine": HTTP}, "teacher").scores(LISTS, "bf16")


@pytest.mark.parametrize(
    ("step", "facts"),
    [
        (COLLECTION, {"dataset": "beir:/data/small", "split": "test"}),
        (QUERIES, {"dataset": "beir:/data/small", "split": "test"}),
        (Backbone(MODEL), {"source": MODEL}),
        (RunFileCandidates(("/b.run", "~/a.run"), 5, "x", COLLECTION, QUERIES), READ),
        (ScoredDocsCandidates("x/y", 5, "x", COLLECTION, QUERIES), {"dataset": "x/y"}),
        (ScoredDocsCandidates(None, 5, "x", COLLECTION, QUERIES), {"dataset": SETS.dataset}),
        (TripleGroups(None, "/t", 1, None, "x", COLLECTION, QUERIES), {"paths": ["/t"]}),
        (TripleGroups("x/y", None, 1, None, "x", COLLECTION, QUERIES), {"dataset": "x/y"}),
        (RankGptCandidates("/l", 5, "x", COLLECTION, QUERIES), {"paths": ["/l"]}),
        (RunFileValues(("/b.run", "~/a.run"), "rank", LISTS), {"values": "rank", **READ}),
        (RunFileValues(("/b.run", "~/a.run"), "score", LISTS), {"values": "score", **READ}),
        (RankGptOrders("/l", "/p", "drop", LISTS), {"values": "rank", "paths": ["/l", "/p"]}),
        (ScoreFile("mono_scores", ("/s",), LISTS), {"values": "score", "paths": ["/s"]}),
        (PairScores(("/s",), "mean", LISTS), {"values": "score", "paths": ["/s"]}),
        (
            CrossEncoderScores(LISTS, Backbone(MODEL), LongestFirst(), "bf16"),
            {"values": "score", "backbone": MODEL},
        ),
        (
            BiEncoderTeacher(backbone=MODEL).scores(LISTS, "bf16"),
            {"values": "score", "backbone": MODEL},
        ),
        (CombinedScores(LISTS, {"a": Member(QUERIES, "rank", 1)}, "z"), {"values": "score"}),
        *(
            (
                llm(cls),
                {
                    "values": values,
                    "model": "m",
                    "url": "https://llm.example:8443/v1/chat/completions",
                },
            )
            for cls, values in (
                (ListwiseLLM, "rank"),
                (PairwiseLLM, "score"),
                (PointwiseLLM, "score"),
            )
        ),
    ],
    ids=lambda one: type(one).__name__,
)
def test_facts(step, facts, monkeypatch):
    monkeypatch.setenv("FACTS_TEST_KEY", "sk-secret")
    assert dict(step.facts()) == facts
    assert "secret" not in json.dumps(facts) and "api-version" not in json.dumps(facts)

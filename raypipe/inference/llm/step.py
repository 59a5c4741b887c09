"""Base of the steps whose rows a language model makes: chunk by chunk, wherever its engine runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from raypipe.inference.llm import AnyEngine
from raypipe.inference.llm.answers import AnswerStore, Remembering
from raypipe.inference.llm.base import Engine, Generator
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import Counts, Keep, Work, built_late, run_chunks, run_chunks_here

Ask = Callable[[Generator], Work]
"""Given the engine's generator, the work on a chunk; it can be pickled."""
CHUNK_OF_MODEL, CHUNK_OF_SERVICE = 8, 64
"""Rows per chunk where the engine loads a model, and where it calls a service."""


class LlmStep(Step):
    """A step that asks a language model.

    An engine that loads a model works in the actors of a Ray Data job; one that calls a service
    works on the driver, chunk after chunk.
    """

    precision: str

    @property
    def engine(self) -> AnyEngine:
        """Where the model runs."""
        raise NotImplementedError

    @property
    def libraries(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("torch", "transformers") if self.engine.in_actor else ()

    def spec(self) -> Mapping[str, Any]:
        """What decides the answers; a subclass adds what is asked."""
        precision = self.precision if self.engine.uses_precision else None
        return {"engine": self.engine.identity(), "precision": precision}

    def facts(self) -> Mapping[str, Any]:
        return self.engine.facts()

    def needs(self) -> Mapping[str, Step]:
        return self.engine.needs()

    def ask_in_chunks(
        self,
        ask: Ask,
        rows: int,
        chunk_rows: int | None,
        attempt: Attempt,
        context: Context,
        keep: Keep = lambda counts: True,
    ) -> Counts:
        """Do the work on all input rows; see `run_chunks`.

        Args:
            chunk_rows: None takes `CHUNK_OF_MODEL` or `CHUNK_OF_SERVICE`.
        """
        engine, answers = self.engine, AnswerStore.of(attempt.store, self.engine, self.precision)
        size = chunk_rows or (CHUNK_OF_MODEL if engine.in_actor else CHUNK_OF_SERVICE)
        if engine.in_actor:
            inputs, device = dict(attempt.inputs), context.device()
            job = ModelJob(ask, engine, inputs, device, self.precision, answers)
            return run_chunks(job, rows, size, attempt, context, model=True, keep=keep)
        work = built_late(lambda: remembering(ask, engine.open(context), answers))
        return run_chunks_here(work, rows, size, attempt, context, keep=keep)


@dataclass(frozen=True)
class ModelJob:
    """The job of an engine that loads its model: every actor loads it once."""

    ask: Ask
    engine: Engine
    inputs: Mapping[str, Artifact]
    """Of the step, those of the engine's `needs` among them."""
    device: str
    precision: str
    answers: AnswerStore | None = None
    """Where answers are kept; None keeps none."""

    def build(self) -> Work:
        generate = self.engine.at(self.inputs).build(self.device, self.precision)
        return remembering(self.ask, generate, self.answers)


def remembering(ask: Ask, generate: Generator, answers: AnswerStore | None) -> Work:
    """The work on a chunk, which asks only what is not kept in `answers`."""
    if answers is None:
        return ask(generate)
    remembers = Remembering(generate, answers)
    return remembers.around(ask(remembers))

"""Queries that a language model writes: one per passage and type, each from a seed of its own."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from raypipe.config import NOT_SEMANTIC, Config, ConfigError, twice_in
from raypipe.datasets.dataset import file_safe
from raypipe.datasets.steps import DOCS_FILE
from raypipe.inference.llm import AnyEngine
from raypipe.inference.llm.asked import Asked
from raypipe.inference.llm.base import Answer, Generator, Prompt, Sampling
from raypipe.inference.llm.step import LlmStep
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.storage.files import file_checksum
from raypipe.synthesis.demonstrations import Demonstration, Pool, leaked_share, read_demonstrations
from raypipe.synthesis.generated import GENERATED, rows_of, why_dropped
from raypipe.synthesis.passages import Passages, body_of, read_passages
from raypipe.synthesis.query_prompts import INSTRUCTIONS, QueryType, cleaned, is_refusal, request
from raypipe.tables.chunks import Counts, Work
from raypipe.tables.text_table import TextTable

_ASIDE = ("engine", "demonstrations", "max_failed")
"""Fields that the digest knows by their content, or not at all."""


class Written(Config):
    """A language model writes a query of each type for each passage (CADET, 2505.19274)."""

    type: Literal["llm"] = "llm"
    engine: AnyEngine
    """Where the model runs: `transformers`, `http` or `vllm`."""
    queries: tuple[QueryType, ...] = Field(("title", "keywords", "web"), min_length=1)
    """What is asked for. The default types need no demonstrations, which weak models copy."""
    instructions: dict[QueryType, str] = Field(default_factory=dict)
    """Your own wording of the request by type, instead of ours."""
    demonstrations: str | None = None
    """A file of JSON lines with `passage`, `query` and `type`, shown to the model with requests of
    that type; `few_shot_web` needs some."""
    shown: int = Field(3, ge=1)
    """Demonstrations per prompt, drawn anew for each."""
    temperature: float = Field(0.8, gt=0)
    """Of the sampling; 1 is the model's own distribution."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Only the likeliest tokens that together have this probability are drawn."""
    max_new_tokens: int = Field(50, ge=1)
    """Tokens of an answer, of which the first line counts."""
    longest: int = Field(32, ge=1)
    """Most words of a query; a longer one is dropped."""
    leak: float = Field(0.5, ge=0, le=1)
    """A query is dropped of whose content words more than this share stands in the request or its
    demonstrations, and not in the passage; 1 drops none."""
    passages_per_chunk: int | None = Field(None, ge=1)
    """The unit of work and of resume. None is 8 where a model is loaded, and 64 where a service is
    called."""
    max_failed: Annotated[float, NOT_SEMANTIC] = Field(0.01, ge=0, le=1)
    """Share of a chunk's requests that may fail; above it the job stops, finished chunks stay."""

    @field_validator("queries")
    @classmethod
    def _each_once(cls, names: tuple[QueryType, ...]) -> tuple[QueryType, ...]:
        if twice := twice_in(names):
            raise ValueError(f"expected every type once, found {twice!r} twice; name it once")
        return names

    @model_validator(mode="after")
    def _shown_something(self) -> Written:
        if "few_shot_web" in self.queries and self.demonstrations is None:
            raise ValueError("demonstrations: few_shot_web shows some; name a file, or ask for web")
        if (
            self.demonstrations is not None
            and not Path(self.demonstrations).expanduser().is_absolute()
        ):
            raise ValueError(
                "demonstrations: expected an absolute path (a submitted job runs elsewhere), found "
                f"{self.demonstrations!r}; name the file from the root"
            )
        return self

    @property
    def path(self) -> Path | None:
        """The file of demonstrations."""
        return None if self.demonstrations is None else Path(self.demonstrations).expanduser()

    def pool(self) -> Pool:
        """The demonstrations by type; zero-shot `web` shows none.

        Raises:
            ConfigError: the file is wrong, or has none of `few_shot_web` where these are asked for.
        """
        if self.path is None:
            return {}
        pool = read_demonstrations(self.path, INSTRUCTIONS)
        if "few_shot_web" in self.queries and not pool.get("few_shot_web"):
            raise ConfigError(
                f"demonstrations {self.path}: expected some of the type few_shot_web, found "
                f"{sorted(pool)}; add them, or ask for web"
            )
        return {name: found for name, found in pool.items() if name != "web"}

    def check(self) -> None:
        """The engine has what it needs, as far as can be told, and the demonstrations are there.

        Raises:
            ConfigError: something is missing.
        """
        self.engine.check()
        self.pool()

    def generated(self, passages: Passages, seed: int, precision: str) -> Step:
        """The step that asks the model."""
        return WrittenQueries(self, passages, seed, precision)


@dataclass(frozen=True)
class WrittenQueries(LlmStep):
    """`generated.GENERATED` rows from a language model."""

    generator: Written
    passages: Passages
    seed: int
    precision: str

    kind: ClassVar[str] = "generated"

    @property
    def name(self) -> str:
        return file_safe(f"{self.engine.label}-{self.passages.name}", 90)

    @property
    def engine(self) -> AnyEngine:
        return self.generator.engine

    def spec(self) -> Mapping[str, Any]:
        path = self.generator.path
        plain = self.generator.model_dump(mode="json", exclude=set(_ASIDE))
        shown = None if path is None else file_checksum(path)
        return {**plain, **super().spec(), "demonstrations": shown, "seed": self.seed}

    def inputs(self) -> Mapping[str, Step]:
        return {"passages": self.passages, "collection": self.passages.collection}

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        rows = len(read_passages(attempt.inputs["passages"]))
        pool, size = self.generator.pool(), self.generator.passages_per_chunk
        # the pool is read here: other nodes may not have the file
        ask = partial(writing_work, self.generator, pool, self.seed, dict(attempt.inputs))
        counts = self.ask_in_chunks(ask, rows, size, attempt, context)
        if not counts.get("queries"):
            raise ConfigError(
                f"{self.name}: no text of the model is a query, found {dict(counts)}; look at the "
                "counters, or ask another model"
            )
        return counts


@dataclass(frozen=True)
class _Request:
    """One text that is asked for."""

    passage: int
    """Of the chunk."""
    query_type: str
    demonstrations: tuple[Demonstration, ...]
    prompt: Prompt | None
    """None where the passage finds no room."""


def writing_work(
    generator: Written,
    pool: Pool,
    seed: int,
    inputs: Mapping[str, Artifact],
    generate: Generator,
) -> Work:
    """The work on a chunk of passages: a table of `GENERATED`.

    Args:
        pool: demonstrations by type.
        inputs: passages and collection.
    """
    docs = TextTable(inputs["collection"].local() / DOCS_FILE)
    passages = read_passages(inputs["passages"])

    def work(chunk: range) -> tuple[pa.Table, Counts]:
        part = passages.slice(chunk.start, len(chunk)).to_pylist()
        rows = docs.rows_of([passage["doc_id"] for passage in part])
        bodies = [
            body_of(docs.text(int(row)), passage["title"])
            for row, passage in zip(rows, part, strict=True)
        ]
        asked = Asked(generate, generator.engine.context_tokens, generator.max_failed)
        ids = [passage["doc_id"] for passage in part]
        requests = [
            _request(generator, seed, pool, at, doc_id, body, name, asked)
            for at, (doc_id, body) in enumerate(zip(ids, bodies, strict=True))
            for name in generator.queries
        ]
        texts = _texts(generator, requests, bodies, asked)
        found: list[dict[str, str]] = []
        for passage, own in zip(part, texts, strict=True):
            found += rows_of(passage, own, asked.counts)
        asked.counts["queries"] = len(found)
        counts = {name: int(count) for name, count in asked.counts.items()}
        return pa.Table.from_pylist(found, schema=GENERATED), counts

    return work


def _request(
    generator: Written,
    seed: int,
    pool: Pool,
    at: int,
    doc_id: str,
    body: str,
    name: QueryType,
    asked: Asked,
) -> _Request:
    own = seed_of(seed, doc_id, name)
    some = pool.get(name, ())
    drawn = tuple(random.Random(own).sample(some, min(generator.shown, len(some))))
    sampling = Sampling(generator.temperature, generator.top_p, own, one_line=True)
    instruction = generator.instructions.get(name, INSTRUCTIONS[name])
    make = request(instruction, drawn, sampling)
    return _Request(at, name, drawn, asked.fit(make, [body], generator.max_new_tokens))


def _texts(
    generator: Written, requests: list[_Request], bodies: list[str], asked: Asked
) -> list[list[tuple[str, str]]]:
    """Per passage the (type, query) that are kept."""
    sent = [request for request in requests if request.prompt is not None]
    asked.counts["dropped_without_room"] += len(requests) - len(sent)
    asked.expect(len(sent))
    prompts = [request.prompt for request in sent if request.prompt is not None]
    kept: list[list[tuple[str, str]]] = [[] for _ in bodies]
    for one, answer in zip(sent, asked(prompts, generator.max_new_tokens), strict=True):
        query = _query(generator, one, answer, bodies[one.passage], asked.counts)
        if query is not None:
            kept[one.passage].append((one.query_type, query))
    return kept


def _query(
    generator: Written, one: _Request, answer: Answer, body: str, counts: Counter[str]
) -> str | None:
    """The query of an answer, or None, which is counted."""
    if answer.error is not None:
        counts["dropped_unanswered"] += 1
        return None
    query = cleaned(answer.text, one.query_type, counts)
    reason = why_dropped(query, body, generator.longest)
    if reason is None and is_refusal(query):
        reason = "dropped_refusals"
    if reason is None:
        instruction = generator.instructions.get(one.query_type, INSTRUCTIONS[one.query_type])  # type: ignore[call-overload]
        shown = [text for d in one.demonstrations for text in (d.query, d.passage)]
        if leaked_share(query, body, [instruction, *shown]) > generator.leak:
            reason = "dropped_copies_of_what_was_shown"
    if reason is not None:
        counts[reason] += 1
        return None
    return query


def seed_of(seed: int, doc_id: str, query_type: str) -> int:
    """The seed of one text, in 63 bits, which no other text of the job changes."""
    content = hashlib.sha256(f"{seed}:{doc_id}:{query_type}".encode()).digest()
    return int.from_bytes(content[:8], "big") >> 1

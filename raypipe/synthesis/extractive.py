"""Queries without a model: a passage's title, its first sentence, its most telling words.

The floor that a language model must beat. Such queries repeat words of their passage, so they teach
a model to match words, and a test over them measures little else.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, field_validator

from raypipe.config import Config, twice_in
from raypipe.datasets.steps import DOCS_FILE
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.storage.parts import part_name
from raypipe.synthesis.generated import GENERATED, KEYWORDS, rows_of, why_dropped
from raypipe.synthesis.passages import Passages, body_of, read_passages
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.plain_text import words
from raypipe.tables.text_table import TextTable

CHUNK = 4096
"""Passages per file."""
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])|\n\s*\n")

ExtractType = Literal["title", "first_sentence", "keywords"]


class Extractive(Config):
    """Title, first sentence and telling words of each passage, as they stand there."""

    type: Literal["extractive"] = "extractive"
    queries: tuple[ExtractType, ...] = Field(("title", "first_sentence", "keywords"), min_length=1)
    """What is taken, at most one query of each type per passage. `keywords` are the five words with
    the highest frequency in the passage times log(documents / documents with the word)."""
    longest: int = Field(32, ge=1)
    """Most words of a query; a longer sentence is dropped."""

    @field_validator("queries")
    @classmethod
    def _each_once(cls, names: tuple[ExtractType, ...]) -> tuple[ExtractType, ...]:
        if twice := twice_in(names):
            raise ValueError(f"expected every type once, found {twice!r} twice; name it once")
        return names

    def check(self) -> None:
        """There is nothing outside."""

    def generated(self, passages: Passages, seed: int, precision: str) -> Step:
        """The step that takes the queries; the same for every seed and precision."""
        return ExtractiveQueries(self, passages)


@dataclass(frozen=True)
class WordCounts(Step):
    """In how many documents of the collection each word of the drawn passages stands."""

    passages: Passages

    kind: ClassVar[str] = "word_counts"

    @property
    def name(self) -> str:
        return self.passages.name

    def inputs(self) -> Mapping[str, Step]:
        return {"passages": self.passages, "collection": self.passages.collection}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        docs = TextTable(attempt.inputs["collection"].local() / DOCS_FILE)
        drawn = read_passages(attempt.inputs["passages"])["doc_id"].to_pylist()
        texts = docs.texts(map(int, docs.rows_of(drawn)))
        wanted = {word for text in texts for word in words(text)}
        counted: Counter[str] = Counter()
        for text in docs.iter_texts():
            counted.update(wanted.intersection(words(text)))
        names = sorted(counted)
        table = pa.table({"word": names, "documents": [counted[name] for name in names]})
        attempt.put_table(table, part_name(0))
        return {"words": len(names), "documents": len(docs)}


@dataclass(frozen=True)
class ExtractiveQueries(Step):
    """`generated.GENERATED` rows taken from the passages."""

    generator: Extractive
    passages: Passages

    kind: ClassVar[str] = "generated"

    @property
    def name(self) -> str:
        return f"extractive-{self.passages.name}"

    def spec(self) -> Mapping[str, Any]:
        return self.generator.semantic()

    def inputs(self) -> Mapping[str, Step]:
        steps: dict[str, Step] = {
            "passages": self.passages,
            "collection": self.passages.collection,
        }
        asked = "keywords" in self.generator.queries
        return {**steps, "words": WordCounts(self.passages)} if asked else steps

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        rows = len(read_passages(attempt.inputs["passages"]))
        job = Extraction(self.generator, dict(attempt.inputs))
        return run_chunks(job, rows, CHUNK, attempt, context, model=False)


@dataclass(frozen=True)
class Extraction:
    """The job of `ExtractiveQueries`: rows of passages become rows of queries."""

    generator: Extractive
    inputs: dict[str, Artifact]

    def build(self) -> Work:
        docs = TextTable(self.inputs["collection"].local() / DOCS_FILE)
        passages = read_passages(self.inputs["passages"])
        idf = _idf(self.inputs["words"], len(docs)) if "words" in self.inputs else {}

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            part = passages.slice(chunk.start, len(chunk)).to_pylist()
            rows: list[dict[str, str]] = []
            counts: Counter[str] = Counter()
            for passage, row in zip(part, docs.rows_of([p["doc_id"] for p in part]), strict=True):
                text = docs.text(int(row))
                texts = self.texts(text, passage["title"], idf, counts)
                rows += rows_of(passage, texts, counts)
            counts["queries"] = len(rows)
            return pa.Table.from_pylist(rows, schema=GENERATED), dict(counts)

        return work

    def texts(
        self, text: str, title: str, idf: Mapping[str, float], counts: Counter[str]
    ) -> list[tuple[str, str]]:
        """(type, query) of one document, without those that are dropped."""
        body = body_of(text, title)
        taken = {
            "title": lambda: title,
            "first_sentence": lambda: first_sentence(body),
            "keywords": lambda: keywords(body, idf),
        }
        texts = []
        for query_type in self.generator.queries:
            query = taken[query_type]()
            if query_type == "title" and not query:
                counts["passages_without_title"] += 1
            elif reason := why_dropped(query, text, self.generator.longest):
                counts[reason] += 1
            else:
                texts.append((query_type, query))
        return texts


def first_sentence(text: str) -> str:
    """The text up to its first full stop before white space, or its first blank line."""
    return " ".join(_SENTENCE.split(text.strip(), maxsplit=1)[0].split())


def keywords(text: str, idf: Mapping[str, float], count: int = KEYWORDS) -> str:
    """The words with the highest frequency times idf, in the order of the text; of equal ones the
    earlier. Numbers alone are no keywords."""
    found = Counter(word for word in words(text) if not word.isdigit())
    weight = {word: number * idf.get(word, 0.0) for word, number in found.items()}
    best = sorted(found, key=lambda word: -weight[word])[:count]  # stable: first come, first kept
    return " ".join(word for word in found if word in best)


def _idf(counts: Artifact, documents: int) -> dict[str, float]:
    table = pq.read_table(counts.local() / part_name(0))
    columns = (table[name].to_pylist() for name in ("word", "documents"))
    return {word: math.log(documents / number) for word, number in zip(*columns, strict=True)}

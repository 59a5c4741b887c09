"""Token stores: every text of a collection or query set tokenised once per tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE, Collection, Listed, Queries
from raypipe.inference.known_rows import EarlierRows, earlier_rows, known_texts, split_rows
from raypipe.inference.token_reader import TokenReader, token_table
from raypipe.models.backbone import Backbone
from raypipe.models.tokenizer import load_tokenizer
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import TAKEN, Counts, Work, run_chunks
from raypipe.tables.text_table import TextTable

CHUNK = 8192
MANY_UNKNOWN = 0.05
"""Share of tokens or texts above which people are told: signs and emojis make up less."""


@dataclass(frozen=True)
class Tokens(Step):
    """Token ids without special tokens. Models with the same tokenizer share one store."""

    texts: Collection | Listed | Queries
    backbone: Backbone
    prefix: str = ""
    """Put before every text: its last tokens may depend on the text after it."""

    kind: ClassVar[str] = "tokens"
    libraries: ClassVar[tuple[str, ...]] = ("tokenizers", "transformers")

    @property
    def name(self) -> str:
        return f"{self.texts.name}-{self.backbone.name}"

    def spec(self) -> Mapping[str, Any]:
        prefix = {"prefix": self.prefix} if self.prefix else {}
        return {"tokenizer": self.backbone.tokenizer_identity, **prefix}

    def inputs(self) -> Mapping[str, Step]:
        return {"texts": self.texts}

    def needs(self) -> Mapping[str, Step]:
        return {"backbone": self.backbone}

    def alarms(self, counts: Mapping[str, Any]) -> Sequence[str]:
        unknown, tokens = counts.get("unknown_tokens", 0), max(counts["tokens"], 1)
        empty, rows = counts.get("texts_without_tokens", 0), max(counts["rows"], 1)
        sentences, known = [], f"the vocabulary of {self.backbone.source}"
        remedy = "take a model of this language, or a multilingual one"
        if unknown / tokens > MANY_UNKNOWN:
            sentences.append(
                f"{100 * unknown / tokens:.0f} % of the tokens ({unknown:,} of {tokens:,}) are "
                f"unknown to {known}, so that different texts look alike to the model; {remedy}"
            )
        if empty / rows > MANY_UNKNOWN:
            sentences.append(
                f"{100 * empty / rows:.0f} % of the texts ({empty:,} of {rows:,}) have no token in "
                f"{known}, so that the model reads nothing of them; {remedy}"
            )
        return sentences

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        file = text_file(self.texts)
        rows = len(TextTable(attempt.inputs["texts"].local() / file))
        job = _Tokenise(
            attempt.inputs["texts"],
            file,
            attempt.inputs["backbone"],
            self.prefix,
            earlier_rows(attempt.store, self, "texts"),
        )
        return run_chunks(job, rows, CHUNK, attempt, context, model=False, suffix="arrow")


def text_file(texts: Collection | Listed | Queries) -> str:
    """The file of the artifact that has the texts."""
    return QUERIES_FILE if isinstance(texts, Queries) else DOCS_FILE


@dataclass(frozen=True)
class _Tokenise:
    texts: Artifact
    file: str
    backbone: Artifact
    prefix: str = ""
    earlier: tuple[EarlierRows, ...] = ()
    """Token stores of other texts, whose tokens of the same texts are these."""

    def build(self) -> Work:
        texts = TextTable(self.texts.local() / self.file)
        known = known_texts(self.earlier)
        stored = TokenReader(*(each.rows.local() for each in self.earlier))
        tokenizer = load_tokenizer(self.backbone.local())
        unknown = tokenizer.unk_token_id

        def encoded(new: list[str]) -> list[list[int]]:
            if not new:
                return []
            ids: list[list[int]] = tokenizer(
                [self.prefix + text for text in new],
                add_special_tokens=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )["input_ids"]
            return ids

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            read = texts.texts(chunk)
            found = known.rows_of(read)
            there, new = split_rows(found)
            rows: list[list[int]] = [[]] * len(read)
            for i in there:
                rows[i] = stored[int(found[i])].tolist()
            for i, ids in zip(new, encoded([read[i] for i in new]), strict=True):
                rows[i] = ids
            counts = {
                f"texts{TAKEN}": len(there),
                "tokens": sum(map(len, rows)),
                "unknown_tokens": sum(row.count(unknown) for row in rows),
                "texts_without_tokens": sum(not row for row in rows),
            }
            return token_table(rows, len(tokenizer)), counts

        return work

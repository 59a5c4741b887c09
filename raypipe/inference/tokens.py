"""Token stores: every text of a collection or query set tokenised once per tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.inference.token_reader import token_table
from raypipe.models.backbone import Backbone
from raypipe.models.tokenizer import load_tokenizer
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.text_table import TextTable

CHUNK = 8192


@dataclass(frozen=True)
class Tokens(Step):
    """Token ids without special tokens. Models with the same tokenizer share one store."""

    texts: Collection | Queries
    backbone: Backbone

    kind: ClassVar[str] = "tokens"
    libraries: ClassVar[tuple[str, ...]] = ("tokenizers", "transformers")

    @property
    def name(self) -> str:
        return f"{self.texts.name}-{self.backbone.name}"

    def spec(self) -> Mapping[str, Any]:
        return {"tokenizer": self.backbone.tokenizer_identity}

    def inputs(self) -> Mapping[str, Step]:
        return {"texts": self.texts}

    def needs(self) -> Mapping[str, Step]:
        return {"backbone": self.backbone}

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        file = text_file(self.texts)
        rows = len(TextTable(attempt.inputs["texts"].local() / file))
        job = _Tokenise(attempt.inputs["texts"], file, attempt.inputs["backbone"])
        return run_chunks(job, rows, CHUNK, attempt, context, model=False, suffix="arrow")


def text_file(texts: Collection | Queries) -> str:
    """The file of the artifact that has the texts."""
    return DOCS_FILE if isinstance(texts, Collection) else QUERIES_FILE


@dataclass(frozen=True)
class _Tokenise:
    texts: Artifact
    file: str
    backbone: Artifact

    def build(self) -> Work:
        texts = TextTable(self.texts.local() / self.file)
        tokenizer = load_tokenizer(self.backbone.local())

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            encoded = tokenizer(
                texts.texts(chunk),
                add_special_tokens=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )
            rows = encoded["input_ids"]
            return token_table(rows, len(tokenizer)), {"tokens": sum(map(len, rows))}

        return work

"""What the card of a bi-encoder says of its vectors: how they are made, and who makes the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypipe.models.bi_encoder import trained_lengths
from raypipe.models.sentence_modules import folder_reader, read_modules
from raypipe.names import markdown_code

SENTENCE_TRANSFORMERS = """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(folder)
query_vector = model.encode_query([query])  # [1, {width}]
document_vectors = model.encode_document(documents)  # [documents, {width}]
scores = model.similarity(query_vector, document_vectors)[0].tolist()
"""
RAYPIPE = """\
raypipe retrieve --model FOLDER --corpus docs.tsv --queries queries.tsv --depth 100 --out mine.run
"""


@dataclass(frozen=True)
class VectorFacts:
    """What decides a bi-encoder's vectors beside its weights."""

    width: int
    """Numbers per vector."""
    pooling: tuple[str, ...]
    """Several are joined to one vector."""
    unit: bool
    """Vectors have length 1."""
    query_prompt: str
    doc_prompt: str
    query_length: int
    """Tokens of the longest query that is read whole, special tokens and prompt included."""
    doc_length: int
    """The same of a document."""

    @classmethod
    def of(cls, folder: Path) -> VectorFacts:
        """Of a checkpoint that a stage of a bi-encoder wrote."""
        read = folder_reader(folder)
        modules, lengths = read_modules(read, str(folder)), trained_lengths(read)
        width = int(read("config.json")["hidden_size"]) * len(modules.pooling)
        widths = [layer.settings.get("out_features") for layer in modules.layers]
        return cls(
            width=([width] + [int(n) for n in widths if n])[-1],
            pooling=modules.pooling,
            unit=modules.normalizes,
            query_prompt=modules.prompts.get("query", ""),
            doc_prompt=modules.prompts.get("document", ""),
            query_length=lengths["query"],
            doc_length=lengths["doc"],
        )

    @property
    def product(self) -> str:
        """What compares two vectors, in words."""
        return "the cosine" if self.unit else "the dot product"


def examples(facts: VectorFacts) -> list[tuple[str, str, str]]:
    """(sentence, code, its language) of each way to load the folder."""
    return [
        (
            "sentence-transformers, which makes the vectors of the training:",
            SENTENCE_TRANSFORMERS.format(width=facts.width),
            "python",
        ),
        (
            "raypipe, over a corpus (`FOLDER`: this directory), with the lengths and prompts of "
            "the training:",
            RAYPIPE,
            "sh",
        ),
    ]


def vectors_in_words(facts: VectorFacts) -> str:
    """How a text becomes a vector, for who does it without sentence-transformers."""
    prompts = {"queries": facts.query_prompt, "documents": facts.doc_prompt}
    said = [
        f"{markdown_code(json.dumps(text, ensure_ascii=False))} before {side}"
        for side, text in prompts.items()
        if text
    ]
    unit = ", divided by its length" if facts.unit else ""
    return (
        f"A vector has {facts.width} numbers: {' and '.join(facts.pooling)} pooling of the token "
        f"states{unit}. Prompts: {', '.join(said) or 'none'}. `encode_query` and "
        "`encode_document` put them there; `encode` puts none."
    )


def description(facts: VectorFacts) -> str:
    """The first sentences of the card."""
    return (
        "A bi-encoder for retrieval: it reads each text alone and gives one vector; "
        f"{facts.product} of the vectors of a query and a document says how relevant the document "
        "is, higher is better."
    )


def limit(facts: VectorFacts, reads: str) -> str:
    """What is read, and which texts are read otherwise by sentence-transformers."""
    longest = max(facts.query_length, facts.doc_length)
    shorter = {"queries": facts.query_length, "documents": facts.doc_length}
    cut = [f"{side} at {n}" for side, n in shorter.items() if n < longest]
    if not cut:
        return f"It reads {reads}. What is beyond never counts, by either way to load."
    return (
        f"It reads {reads}. What is beyond never counts. sentence-transformers cuts all texts at "
        f"{longest} tokens and raypipe, as in training, {' and '.join(cut)}: longer ones have "
        "other vectors there."
    )


def metadata(base_model: str | None) -> Mapping[str, Any]:
    """The fields of the card's head that tell what the model is."""
    return {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "base_model": base_model,
        "tags": ["sentence-transformers", "sentence-similarity", "feature-extraction", "raypipe"],
    }

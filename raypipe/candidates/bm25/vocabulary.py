"""The vocabulary of an index: every term of the collection with its weights, bm25s' own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from raypipe.candidates.bm25.terms import Array, TermCounts, TermOptions, TermSlice
from raypipe.config import NOT_SEMANTIC, ConfigError
from raypipe.datasets.steps import DOCS_FILE
from raypipe.storage.artifacts import Attempt
from raypipe.tables.text_table import TextTable

IDS_ORDER = "ids_order.npy"
"""Per document the position of its id among all sorted ids, which breaks ties."""
VOCABULARY_FILE = "vocabulary.arrow"
VOCABULARY = pa.schema(
    [
        ("term", pa.string()),
        ("documents", pa.int64()),
        ("idf", pa.float32()),
        ("absent", pa.float32()),
    ]
)
"""Sorted by term, row number = term id. `absent` is what a document scores that lacks the term: 0,
but in bm25l and bm25+; a shard holds what the others score beyond it, as bm25s does."""


class Bm25Options(TermOptions):
    """How the index weighs terms; the defaults are bm25s' own."""

    k1: float = Field(1.5, ge=0)
    """Term-frequency saturation."""
    b: float = Field(0.75, ge=0, le=1)
    """Length normalisation."""
    method: Literal["lucene", "robertson", "atire", "bm25l", "bm25+"] = "lucene"
    """Variant of the formula."""
    shard_docs: Annotated[int, NOT_SEMANTIC] = Field(2_000_000, ge=1, lt=2**31)
    """Most documents per part of the index; parts are built in parallel, each in the memory of one
    actor (about 20 bytes per distinct term of a document), and give the scores of one index."""


def write_vocabulary(attempt: Attempt, options: Bm25Options) -> dict[str, int]:
    """All terms with their weights, and the order of the document ids.

    Memory: the vocabulary twice, 4 bytes per entry of the parts' vocabularies, the ids' order.

    Raises:
        ConfigError: no document has a term.
    """
    counts_of_terms = attempt.inputs["terms"].counts
    counts = {name: counts_of_terms[name] for name in ("tokens", "documents_without_terms")}
    terms = TermCounts(attempt.inputs["terms"].local())
    if not counts["tokens"]:
        raise ConfigError(
            f"{attempt.step.name}: no term is left in any of {len(terms)} documents; BM25 reads "
            "words of two letters or more (with analyser: ngrams, parts of scripts without spaces "
            f"too) that are not in the list stopwords: {options.stopwords}"
        )
    words, documents = _document_frequencies(terms)
    idf, absent = _weights(documents, len(terms), mean_length_of(counts, len(terms)), options)
    with (
        attempt.open(VOCABULARY_FILE) as sink,
        pa.ipc.new_file(sink, VOCABULARY) as writer,
    ):
        writer.write_batch(pa.record_batch([words, documents, idf, absent], VOCABULARY))
    docs = TextTable(attempt.inputs["collection"].local() / DOCS_FILE)
    with attempt.open(IDS_ORDER) as sink:
        np.save(sink, docs.places())
    return {"docs": len(terms), "terms": len(words), **counts}


def mean_length_of(counts: Mapping[str, int], docs: int) -> np.float64:
    """Terms per document, of the type that bm25s has: with it the formulas run in float64."""
    return np.float64(counts["tokens"] / docs)


def _document_frequencies(terms: TermCounts) -> tuple[pa.Array, Array]:
    """Every term, sorted, and the number of documents that have it, int64."""
    local = terms.vocabularies
    coded = pa.chunked_array(local, pa.string()).dictionary_encode().combine_chunks()
    words, codes = coded.dictionary, _split(coded.indices.to_numpy(), local)
    documents = np.zeros(len(words), np.int64)
    for part in terms.slices(range(len(terms))):
        ids = codes[part.part]  # a part's vocabulary names each term once: no id is there twice
        documents[ids] += np.bincount(part.terms, minlength=len(ids))
    order = pc.sort_indices(words)
    return words.take(order), documents[order.to_numpy()]


def _weights(
    documents: Array, docs: int, mean_length: np.float64, options: Bm25Options
) -> tuple[Array, Array]:
    """bm25s' idf and non-occurrence scores, float32, computed once per distinct frequency."""
    from bm25s.scoring import (
        _build_idf_array,
        _build_nonoccurrence_array,
        _select_idf_scorer,
        _select_tfc_scorer,
    )

    model = model_of(options)
    distinct, position = np.unique(documents, return_inverse=True)
    frequencies, idf_of = dict(enumerate(distinct.tolist())), _select_idf_scorer(options.method)
    idf = _build_idf_array(frequencies, docs, idf_of)
    absent = np.zeros_like(idf)
    if options.method in model.methods_requiring_nonoccurrence:
        absent = _build_nonoccurrence_array(
            frequencies,
            docs,
            idf_of,
            _select_tfc_scorer(options.method),
            l_d=mean_length,
            l_avg=mean_length,
            k1=model.k1,
            b=model.b,
            delta=model.delta,
        )
    return idf[position], absent[position]


def model_of(options: Bm25Options) -> Any:
    """An empty index of bm25s, for its constants."""
    import bm25s

    return bm25s.BM25(k1=options.k1, b=options.b, method=options.method)


def global_ids(
    terms: TermCounts, parts: list[TermSlice], vocabulary: pa.RecordBatch
) -> list[Array]:
    """Per part the term ids of its vocabulary; the whole vocabulary is hashed once for all."""
    local = [terms.vocabularies[part.part] for part in parts]
    whole = pa.chunked_array(local, pa.string())
    return _split(pc.index_in(whole, value_set=vocabulary.column("term")).to_numpy(), local)


def _split(values: Array, like: Sequence[pa.Array]) -> list[Array]:
    """The values cut into arrays of the lengths of `like`, some of which may be empty."""
    return np.split(values, np.cumsum([len(array) for array in like])[:-1])

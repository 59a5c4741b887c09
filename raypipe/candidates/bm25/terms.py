"""The terms of every document, counted once and in parallel: what any weighting starts from."""

from __future__ import annotations

import functools
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import field_validator

from raypipe.config import Config
from raypipe.datasets.steps import DOCS_FILE, Collection, QuerySet
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.storage.parts import arrow_parts
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.plain_text import ngrams, parted
from raypipe.tables.text_table import TextTable

CHUNK = 32_768
"""Documents per task; the built-in collection is one, and starts no actor pool (5 s on 2 cores)."""
BLOCK = 4096
"""Documents that are counted at a time; counting takes 60 bytes per token."""

Array = np.ndarray[Any, Any]

# fmt: off
StopWords = Literal[
    "en", "english", "en_plus", "english_plus", "da", "danish", "de", "german", "es", "spanish",
    "fr", "french", "it", "italian", "ko", "korean", "nl", "dutch", "no", "norwegian",
    "pt", "portuguese", "ru", "russian", "sv", "swedish", "tr", "turkish", "zh", "chinese",
]
# fmt: on
"""The lists of bm25s, which has no list of their names; importing it would take a second."""


_WORD = re.compile(r"\b\w\w+\b")
"""bm25s' own pattern: words of two letters and more."""
_PARTED = re.compile(r"\S+")


class TermOptions(Config):
    """What a term is, in documents and queries alike."""

    analyser: Literal["auto", "words", "ngrams"] = "auto"
    """words: what spaces and punctuation part. ngrams: the same, and of scripts without spaces
    every character and every two neighbours (Chinese, Japanese) or every three (Thai, Lao,
    Burmese, Khmer). auto is ngrams for collections that begin in such a script, or that
    ir_datasets says are in one."""
    stemmer: str | None = "english"
    """Snowball algorithm of PyStemmer, or null."""
    stopwords: StopWords | None = "en"
    """bm25s' list of words that are left out, before stemming, or null."""

    @field_validator("stemmer")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        import Stemmer

        if value is not None:
            try:
                Stemmer.Stemmer(value)
            except KeyError:
                names = ", ".join(Stemmer.algorithms())
                raise ValueError(f"expected an algorithm of PyStemmer ({names}) or null") from None
        return value

    def tokenize(self, texts: Iterable[str]) -> list[list[str]]:
        """Terms of every text, as strings."""
        import bm25s
        import Stemmer

        apart = self.analyser == "ngrams"
        terms: list[list[str]] = bm25s.tokenize(
            [_apart(text) for text in texts] if apart else texts,
            **({"token_pattern": _PARTED.pattern} if apart else {}),
            stopwords=self.stopwords or [],
            stemmer=Stemmer.Stemmer(self.stemmer) if self.stemmer else None,
            return_ids=False,
            show_progress=False,
        )
        return terms

    def numbered(self, texts: Iterable[str]) -> NumberedTerms:
        """The same terms as numbers: each distinct word is looked up among the stop words and
        stemmed once, and no text's terms are Python objects, as they are in bm25s, which takes half
        as long again."""
        import Stemmer
        from bm25s.tokenization import _infer_stopwords

        apart = self.analyser == "ngrams"
        split = (_PARTED if apart else _WORD).findall
        numbers, words, lengths = _Numbers(), array("i"), array("i")
        for text in texts:
            found = split((_apart(text) if apart else text).lower())
            words.extend(map(numbers.__getitem__, found))
            lengths.append(len(found))
        left_out = set(_infer_stopwords(self.stopwords or []))
        kept = [word for word in numbers if word not in left_out]
        stems = Stemmer.Stemmer(self.stemmer).stemWords(kept) if self.stemmer else kept
        terms = sorted(set(stems))
        place = {term: rank for rank, term in enumerate(terms)}
        ranks = np.full(len(numbers), -1, np.int64)
        ranks[[numbers[word] for word in kept]] = [place[stem] for stem in stems]
        return NumberedTerms(np.array(words), np.array(lengths), ranks, terms)

    def settled(self, collection: Collection) -> Self:
        """The options with the analyser that this collection gets."""
        if self.analyser != "auto":
            return self
        unspaced = _is_unspaced(_Beginning(collection.digest, collection.queries))
        return self.model_copy(update={"analyser": "ngrams" if unspaced else "words"})


class _Numbers(dict[str, int]):
    """A number for every word, in the order in which they come."""

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        return number


@dataclass(frozen=True)
class NumberedTerms:
    """The words of some texts, one text after the other, and the terms that they stand for."""

    words: Array
    """The number of every word of every text, int32."""
    lengths: Array
    """Words of each text."""
    ranks: Array
    """Per word's number the rank of its term in `terms`, int64; -1 of a stop word."""
    terms: list[str]
    """Distinct terms, sorted."""


@dataclass(frozen=True)
class _Beginning:
    digest: str
    queries: QuerySet = field(compare=False)


@functools.lru_cache(maxsize=64)
def _is_unspaced(corpus: _Beginning) -> bool:
    """Whether it begins in such a script; the beginning is read once."""
    return corpus.queries.open().unspaced


def _apart(text: str) -> str:
    """The terms of a text of any script, parted by spaces."""
    return " ".join(
        term
        for spaced, run in parted(text.lower())
        for term in [*_WORD.findall(spaced), *(ngrams(run) if run else ())]
    )


def term_spec(options: TermOptions, collection: Collection) -> dict[str, Any]:
    """What decides the terms; words need no mention, so that indexes of earlier versions stay."""
    spec = options.settled(collection).semantic()
    if spec["analyser"] == "words":
        del spec["analyser"]
    return spec


@dataclass(frozen=True)
class Bm25Terms(Step):
    """How often each document has each of its terms; indexes with different weights share it.

    Files part-NNNNN.arrow, one row per document: `terms`, distinct, with the part's own vocabulary
    as their dictionary, and `counts` of the same length. Both are empty after stop words alone.
    """

    collection: Collection
    options: TermOptions

    kind: ClassVar[str] = "bm25_terms"
    libraries: ClassVar[tuple[str, ...]] = ("bm25s", "PyStemmer")

    @property
    def name(self) -> str:
        return self.collection.name

    def spec(self) -> Mapping[str, Any]:
        return term_spec(self.options.part(TermOptions), self.collection)

    def inputs(self) -> Mapping[str, Step]:
        return {"collection": self.collection}

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        collection = attempt.inputs["collection"]
        rows = len(TextTable(collection.local() / DOCS_FILE))
        job = CountTerms(collection, self.options.settled(self.collection))
        return run_chunks(job, rows, CHUNK, attempt, context, model=False, suffix="arrow")


@dataclass(frozen=True)
class CountTerms:
    """The job of `Bm25Terms`."""

    collection: Artifact
    options: TermOptions

    def build(self) -> Work:
        docs = TextTable(self.collection.local() / DOCS_FILE)

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            return terms_table(self.options.numbered(docs.iter_texts(chunk)))

        return work


def terms_table(numbered: NumberedTerms) -> tuple[pa.Table, Counts]:
    """Distinct terms and their counts per document, as `Bm25Terms` stores them, and its counters.

    The dictionary is sorted, so that no two processes write different files.
    """
    ends = np.concatenate([[0], np.cumsum(numbered.lengths)])
    blocks = []
    for at in range(0, len(numbered.lengths), BLOCK):
        lengths = numbered.lengths[at : at + BLOCK]
        words = numbered.words[ends[at] : ends[at + len(lengths)]]
        blocks.append(_counted(numbered.ranks[words], lengths, len(numbered.terms)))
    sizes, terms, counts = (np.concatenate(column) for column in zip(*blocks, strict=True))
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int64())
    coded = pa.DictionaryArray.from_arrays(pa.array(terms), pa.array(numbered.terms, pa.string()))
    columns = [pa.LargeListArray.from_arrays(offsets, flat) for flat in (coded, pa.array(counts))]
    found = {
        "tokens": int(counts.sum(dtype=np.int64)),
        "documents_without_terms": int((sizes == 0).sum()),
    }
    return pa.table(columns, names=["terms", "counts"]), found


def _counted(terms: Array, lengths: Array, width: int) -> tuple[Array, Array, Array]:
    """Per document the number of its distinct terms; per distinct term its rank and count, int32.

    Args:
        terms: the rank of every document's terms, -1 of a stop word.
        lengths: words of each document, stop words among them.
        width: more than any rank.
    """
    docs = np.repeat(np.arange(len(lengths)), lengths)
    kept, width = terms >= 0, max(width, 1)
    distinct, counts = np.unique(docs[kept] * width + terms[kept], return_counts=True)
    sizes = np.bincount(distinct // width, minlength=len(lengths))
    return sizes, (distinct % width).astype(np.int32), counts.astype(np.int32)


@dataclass(frozen=True)
class TermSlice:
    """Documents of one part: `sizes` and `lengths` have an entry per document, `terms` and `counts`
    an entry per distinct term of every document."""

    part: int
    terms: Array
    """Rank in the part's vocabulary."""
    counts: Array
    sizes: Array
    """Distinct terms of each document."""
    lengths: Array
    """All terms of each document."""


class TermCounts:
    """Reads what `Bm25Terms` wrote, from its memory map."""

    def __init__(self, folder: Path) -> None:
        self._parts = [reader.get_batch(0) for reader in arrow_parts(folder)]
        self.vocabularies = [part.column("terms").values.dictionary for part in self._parts]
        """Per part its documents' terms: strings, sorted."""

    def __len__(self) -> int:
        """Documents."""
        return sum(part.num_rows for part in self._parts)

    def slices(self, rows: range) -> Iterator[TermSlice]:
        """The documents `rows`, a run of neighbours, in order."""
        start = 0
        for number, part in enumerate(self._parts):
            low, high = max(rows.start - start, 0), min(rows.stop - start, part.num_rows)
            start += part.num_rows
            if low >= high:
                continue
            offsets = part.column("terms").offsets.to_numpy()[low : high + 1]
            span = slice(offsets[0], offsets[-1])
            counts = part.column("counts").values.to_numpy()[span]
            ends = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
            yield TermSlice(
                number,
                part.column("terms").values.indices.to_numpy()[span],
                counts,
                np.diff(offsets),
                np.diff(ends[offsets - offsets[0]]),
            )

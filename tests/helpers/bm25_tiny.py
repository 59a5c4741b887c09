"""BM25 steps in this process: terms, an index and a search of a few documents."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from raypipe.candidates.bm25.index import BuildShard
from raypipe.candidates.bm25.search import Bm25Search
from raypipe.candidates.bm25.terms import CountTerms
from raypipe.candidates.bm25.vocabulary import Bm25Options, write_vocabulary
from raypipe.datasets.steps import DOCS_FILE
from raypipe.records import DOCS
from raypipe.storage.artifacts import Attempt, Store
from raypipe.tables.chunks import Chunk, ChunkJob, Counts

PLAIN = Bm25Options(stemmer=None, stopwords=None)


@dataclass
class Made:
    """Stands in for a committed artifact."""

    path: Path
    counts: Counts = field(default_factory=dict)

    def local(self) -> Path:
        return self.path


def in_chunks(job: ChunkJob, rows: int, size: int, attempt: Attempt) -> Made:
    """What `run_chunks` does, in this process."""
    work, total = job.build(), Counter()
    for number, start in enumerate(range(0, rows, size)):
        chunk = Chunk(number, start, min(start + size, rows), "arrow")
        total.update(chunk.write(work, attempt))
    return Made(Path(attempt.base), dict(total))


def attempt_at(root: Path, kind: str, **inputs: Made) -> Attempt:
    return Attempt(Store(str(root)), SimpleNamespace(path=kind, name="tiny"), "attempt", inputs)


def terms_of(root: Path, docs: dict[str, str], options: Bm25Options, size: int = 9) -> Made:
    """Documents and their terms below an emptied `root`."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    table = pa.table([list(docs), list(docs.values())], schema=DOCS)
    with pa.ipc.new_file(str(root / DOCS_FILE), DOCS) as writer:
        writer.write_table(table, max_chunksize=7)
    job = CountTerms(Made(root), options)
    return in_chunks(job, len(docs), size, attempt_at(root, "terms"))


def index_of(
    root: Path, terms: Made, docs: int, options: Bm25Options, shard_docs: int
) -> tuple[Made, Counts]:
    """An index of the terms below `root`, and what its vocabulary counted."""
    shutil.rmtree(root / "index", ignore_errors=True)
    attempt = attempt_at(root, "index", collection=Made(root), terms=terms)
    counts = write_vocabulary(attempt, options)
    return in_chunks(BuildShard(attempt, options), docs, shard_docs, attempt), counts


def search_of(
    folder: Path, docs: dict[str, str], options: Bm25Options = PLAIN, shard_docs: int = 10_000
) -> Bm25Search:
    terms = terms_of(folder, docs, options)
    index, counts = index_of(folder, terms, len(docs), options, shard_docs)
    assert counts["docs"] == len(docs)
    return Bm25Search(index.local(), options)


METHODS = ["lucene", "robertson", "atire", "bm25l", "bm25+"]


def whole(docs: dict[str, str], options: Bm25Options):
    """bm25s' own index of all documents at once."""
    import bm25s

    index = bm25s.BM25(k1=options.k1, b=options.b, method=options.method)
    index.index(options.tokenize(docs.values()), show_progress=False)
    return index


def best(index, ids: list[str], terms: list[str], depth: int) -> list[tuple[str, float]]:
    """(document id, score) of the documents that score more than one without the terms."""
    known = [term for term in terms if term in index.vocab_dict]
    if not known:
        return []
    scores = index.get_scores(known)
    absent = index.nonoccurrence_array
    floor = 0 if absent is None else absent[index.get_tokens_ids(known)].sum()
    rows = [(ids[i], float(scores[i])) for i in np.flatnonzero(scores > floor)]
    return sorted(rows, key=lambda row: (-row[1], row[0]))[:depth]


def got(search: Bm25Search, ids: list[str], terms: list[list[str]], depth: int):
    return [
        [(ids[p], float(s)) for p, s in zip(positions, scores, strict=True)]
        for positions, scores in search.ranked(terms, depth)
    ]

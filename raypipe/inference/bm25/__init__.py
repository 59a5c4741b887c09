"""BM25: terms are counted once, weighed into an index of shards, and searched exactly.

In this order: `terms`, read by `term_counts`, `vocabulary`, `index`, `search`, `candidates`.
"""

from raypipe.inference.bm25.candidates import Bm25Candidates
from raypipe.inference.bm25.index import SHARD_DOCS, Bm25Index
from raypipe.inference.bm25.vocabulary import Bm25Options

__all__ = ["SHARD_DOCS", "Bm25Candidates", "Bm25Index", "Bm25Options"]

"""BM25: terms are counted once, weighed into an index of shards, and searched exactly.

In this order: `terms`, `vocabulary`, `index`, `search`; `source` is what a recipe names.
"""

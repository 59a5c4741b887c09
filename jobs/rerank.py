#!/usr/bin/env python
"""Re-rank a run with a model that exists, a cross-encoder or a bi-encoder, anybody's."""

from raypipe.program import run

if __name__ == "__main__":
    run("rerank")

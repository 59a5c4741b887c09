#!/usr/bin/env python
"""Re-rank a run with a model that exists, a cross-encoder or a bi-encoder, anybody's."""

from raypipe.interrupts import one_sentence

with one_sentence():
    from raypipe.program import run

if __name__ == "__main__":
    run("rerank")

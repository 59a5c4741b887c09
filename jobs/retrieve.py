#!/usr/bin/env python
"""Retrieve from a corpus with a bi-encoder that exists, or with BM25."""

from raypipe.interrupts import one_sentence

with one_sentence():
    from raypipe.program import run

if __name__ == "__main__":
    run("retrieve")

#!/usr/bin/env python
"""Retrieve from a corpus with a bi-encoder that exists, or with BM25."""

from raypipe.program import run

if __name__ == "__main__":
    run("retrieve")

#!/usr/bin/env python
"""Write a recipe's synthetic queries: passages are drawn, queries written, cleaned and filtered."""

from raypipe.interrupts import one_sentence

with one_sentence():
    from raypipe.program import run

if __name__ == "__main__":
    run("synthesize")

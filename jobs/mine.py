#!/usr/bin/env python
"""Mine what a recipe trains on: candidates, negatives, teacher scores, groups; count drops."""

from raypipe.interrupts import one_sentence

with one_sentence():
    from raypipe.program import run

if __name__ == "__main__":
    run("mine")

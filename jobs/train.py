#!/usr/bin/env python
"""Train one model through its stages, in order, and evaluate it beside first stage and teacher."""

from raypipe.interrupts import one_sentence

with one_sentence():
    from raypipe.program import run

if __name__ == "__main__":
    run("train")

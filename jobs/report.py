#!/usr/bin/env python
"""Report what tracked jobs found: terminal table, Markdown, and one HTML page with plots."""

from raypipe.interrupts import one_sentence

with one_sentence():
    from raypipe.program import run

if __name__ == "__main__":
    run("report")

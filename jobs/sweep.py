#!/usr/bin/env python
"""Compare losses, backbones and stage orders: mine once, train each distinct stage once, report."""

from raypipe.interrupts import one_sentence

with one_sentence():
    from raypipe.program import run

if __name__ == "__main__":
    run("sweep")

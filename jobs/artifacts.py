#!/usr/bin/env python
"""See what stands in a storage, where it comes from, whether it is whole; remove what is left over.

python jobs/artifacts.py list
python jobs/artifacts.py prune --keep jobs/recipes/pydoc.yaml
"""

from raypipe.interrupts import one_sentence

with one_sentence():
    from raypipe.program import run

if __name__ == "__main__":
    run("artifacts")

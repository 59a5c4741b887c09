#!/usr/bin/env python
"""Compare run files on judgements: measures, intervals, paired tests, letters, one page with plots.

python jobs/evaluate.py --qrels qrels.txt --runs bm25.run mine.run --reference bm25.run
python jobs/evaluate.py --dataset beir:data/scifact --split test --runs BM25=a.run.gz ours=b.run
"""

from raypipe.interrupts import one_sentence

with one_sentence():
    from raypipe.program import run

if __name__ == "__main__":
    run("evaluate")

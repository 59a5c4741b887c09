"""Published files with a teacher's judgements: streamed, joined with the lists, counted.

One module per idea: `tsv` and `rankgpt` read files, `wanted` knows what to keep, `join` puts blocks
and lists together; `scores`, `pairs` and `orders` are the steps.
"""

from raypipe.inference.published.orders import RankGptOrders, RunFileValues
from raypipe.inference.published.pairs import PairScores
from raypipe.inference.published.scores import ScoreFile

__all__ = ["PairScores", "RankGptOrders", "RunFileValues", "ScoreFile"]

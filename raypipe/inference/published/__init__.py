"""Published files with a teacher's judgements: streamed, joined with the lists, counted.

One module per idea: `tsv` and `rankgpt` read files, `wanted` knows what to keep, `join` puts blocks
and lists together; `scores`, `pairs`, `orders` and `run_values` are the steps.
"""

from raypipe.inference.published.orders import RankGptOrders
from raypipe.inference.published.pairs import PairScores
from raypipe.inference.published.run_values import RunFileValues
from raypipe.inference.published.scores import ScoreFile

__all__ = ["PairScores", "RankGptOrders", "RunFileValues", "ScoreFile"]

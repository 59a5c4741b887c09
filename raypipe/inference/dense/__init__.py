"""Dense vectors: made by `embeddings`, read by `vectors`, searched for candidates, and compared
with a teacher's lists by `vector_scores`."""

from raypipe.inference.dense.candidates import DenseCandidates, ExactIndex, Index
from raypipe.inference.dense.embeddings import Embeddings
from raypipe.inference.dense.vector_scores import VectorScores

__all__ = ["DenseCandidates", "Embeddings", "ExactIndex", "Index", "VectorScores"]

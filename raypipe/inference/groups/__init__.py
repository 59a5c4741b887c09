"""The Ray Data jobs behind a training set: negatives per query, then groups of indices."""

from raypipe.inference.groups.indices import TrainingGroups
from raypipe.inference.groups.negatives import Negatives
from raypipe.inference.groups.positives import Positives

__all__ = ["Negatives", "Positives", "TrainingGroups"]

"""Stages on Ray Train: groups and weights become a checkpoint."""

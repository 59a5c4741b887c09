"""Artifacts: stored once, found by digest, the only interface between steps."""

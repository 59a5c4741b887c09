"""Runs and what they are worth: re-ranked, baselines, combinations, metrics per query."""

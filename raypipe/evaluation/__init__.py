"""Runs, measures, statistics and the comparison printed at the end. No cluster, no model."""

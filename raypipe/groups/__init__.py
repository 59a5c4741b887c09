"""Training groups: one query, its positives and its negatives, mined and stored by index."""

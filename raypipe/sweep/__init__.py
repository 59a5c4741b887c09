"""Sweeps: which trials run, in what order, each distinct stage trained once."""

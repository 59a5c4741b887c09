"""Rows, ids and text tables: how artifacts are cut, read and looked up."""

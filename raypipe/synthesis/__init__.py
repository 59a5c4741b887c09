"""Queries that nobody asked: passages are drawn, texts written for them, the sound ones kept."""

"""Recipes: read, checked, and turned into the steps that they stand for."""

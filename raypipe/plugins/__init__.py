"""Choices that a recipe takes from the user's own packages: found, allowed, loaded, digested."""

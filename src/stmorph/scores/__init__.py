"""Scores: a number, its uncertainty and the qualifiers that make it comparable."""

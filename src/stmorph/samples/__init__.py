"""Draws of trained methods for test units, and the file that holds them."""

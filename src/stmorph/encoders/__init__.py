"""Encoders: a tile becomes a vector. One interface for measured morphology and for pretrained networks."""

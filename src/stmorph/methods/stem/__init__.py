"""Stem (Zhu et al., ICLR 2025, arXiv 2501.15598): a diffusion transformer from tile embeddings to expression."""

from .method import Stem, StemOptions

METHOD = Stem

__all__ = ["METHOD", "Stem", "StemOptions"]

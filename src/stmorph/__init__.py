"""stmorph links spatial transcriptomics and H&E histology in both directions."""

__version__ = "0.1.0"

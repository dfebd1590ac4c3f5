"""Methods: one module each, found by its file name (see `registry.py`)."""

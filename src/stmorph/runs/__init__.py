"""The steps of a run (train, sample, score) and of gene importance, from files to files: what the scripts call."""

"""Failures that a user can mend: one sentence that says what, where, what was expected and what to do."""


class StmorphError(Exception):
    """Base of every failure with a sentence for the user; scripts print it without a traceback."""


class ConfigError(StmorphError):
    """The configuration asks for something that does not exist or cannot be."""


class DataError(StmorphError):
    """A file that was given is missing, damaged or contradicts another."""


class WeightsError(StmorphError):
    """A pretrained network's weights are absent, gated or of the wrong shape."""


class CheckpointError(StmorphError):
    """A training checkpoint is damaged or belongs to another run."""


class LeakError(StmorphError):
    """Something measured on test units would reach training."""

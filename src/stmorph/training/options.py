"""How the shared loop trains: a closed object, and the schedules that follow from it as functions of the step."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Accelerator = Literal["auto", "cpu", "cuda"]
Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class TrainingOptions(BaseModel):
    """What a run says under `training`.

    steps: number of optimiser steps. batch_size: units in a step, over all devices together.
    schedule: the learning rate after `warmup_steps` of linear rise: constant, or a half cosine down to
    `min_lr_fraction` of it. ema_warmup: use min(ema_decay, (1 + s) / (10 + s)) after s steps, so that a short run
    forgets its initial weights. decay_norm_and_bias: False spares vectors and scalars (norms, biases) the weight decay.
    gradient_clip: largest norm of the whole gradient, or None.
    precision: 32, bf16 (autocast), or auto: bf16 where a CUDA device has it, else 32.
    checkpoint_share: largest part of the time that is spent on checkpoints; the first comes after half a minute.
    checkpoint_minutes: longest time between checkpoints, whatever they take (0: after every step).
    log_every: steps whose mean losses make one line of the log. picture_every: steps between sample pictures (0: none).
    devices: GPUs, or processes on a CPU, that share a batch, on each of the `nodes`; dropout draws for each by itself.
    views: the first so many of a tile's eight views take part in training (1: no augmentation).
    cpu_threads: a fixed number, because sums on a CPU depend on it and results must not depend on the cores granted.
    prefetch: batches made beforehand in another thread; changes no result.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: Positive = 10_000
    batch_size: Positive = 64
    optimizer: Literal["adamw"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    decay_norm_and_bias: bool = True
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    schedule: Literal["constant", "cosine"] = "constant"
    min_lr_fraction: Fraction = 0.01
    warmup_steps: Natural = 0
    ema_decay: Fraction = 0.9999
    ema_warmup: bool = True
    gradient_clip: Annotated[float, Field(gt=0)] | None = 1.0
    precision: Literal["32", "bf16", "auto"] = "auto"
    checkpoint_share: Annotated[float, Field(gt=0, le=1)] = 0.01
    checkpoint_minutes: Annotated[float, Field(ge=0)] = 10.0
    log_every: Positive = 50
    picture_every: Natural = 1000
    views: Annotated[int, Field(ge=1, le=8)] = 1
    accelerator: Accelerator = "auto"
    devices: Positive = 1
    nodes: Positive = 1
    cpu_threads: Positive = 1
    prefetch: Natural = 2

    @model_validator(mode="after")
    def _even(self) -> "TrainingOptions":
        if self.batch_size % (self.devices * self.nodes):
            of_nodes = f" on each of {self.nodes} nodes" if self.nodes > 1 else ""
            raise ValueError(
                f"batch_size is {self.batch_size} over {self.devices} devices{of_nodes}; expected a multiple, "
                "so that every device has the same share"
            )
        return self


HARMLESS = frozenset({"checkpoint_share", "checkpoint_minutes", "picture_every", "prefetch", "devices", "nodes"})
"""Options that change no result (`devices`, `nodes`: but for the order of sums); a checkpoint made with others may be
continued."""

SOONEST_S = 30.0
"""Seconds between two checkpoints, at least: a training of half a minute writes its last only."""


def checkpoint_pause_s(options: TrainingOptions, last_save_s: float) -> float:
    """Return the seconds from one checkpoint to the next, when the last took `last_save_s` to save (0: none yet)."""
    share_kept = last_save_s / options.checkpoint_share
    return min(60 * options.checkpoint_minutes, max(SOONEST_S, share_kept))


def learning_rate_at(options: TrainingOptions, step: int) -> float:
    """Return the learning rate of step 0, 1, ..., steps - 1.

    The rise reaches the full rate at step `warmup_steps`; the cosine starts there and the last step has exactly
    `min_lr_fraction` of the full rate.
    """
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / (options.warmup_steps + 1)
    if options.schedule == "constant":
        return options.learning_rate
    progress = (step - options.warmup_steps) / max(1, options.steps - 1 - options.warmup_steps)
    cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
    return options.learning_rate * (options.min_lr_fraction + (1 - options.min_lr_fraction) * cosine)


def ema_decay_at(options: TrainingOptions, step: int) -> float:
    """Return the weight of the old average in the update after step 0, 1, ..."""
    return min(options.ema_decay, (1 + step) / (10 + step)) if options.ema_warmup else options.ema_decay

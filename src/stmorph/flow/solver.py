"""Solve dx/dt = v(x, t) from t = 0 to 1 for a batch in which no sample influences another.

torchdiffeq and the authors' sampler measure one error over the whole batch and take one step size for all, so a sample
would depend on its batch mates and on the batch size. Here every sample has its own error, step size and acceptance;
a finished sample leaves the batch. torchdiffeq and SciPy are the references that the tests compare with.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

Solver = Literal["dopri5", "rk4", "euler"]
Velocity = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""v(x [k, ...], t [k], rows int64 [k]) -> [k, ...]; `rows` says which samples of the batch these are."""

# Dormand and Prince (1980), the 5(4) pair. The last row of A is the fifth-order solution itself, so the seventh stage
# is the first of the next step (FSAL).
_C = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_A = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_FOURTH = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
_ERROR = tuple(fifth - fourth for fifth, fourth in zip((*_A[6], 0.0), _FOURTH))
_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 10.0


class TooManySteps(RuntimeError):
    """Some samples did not reach t = 1 within the steps allowed."""


@dataclass(frozen=True)
class Solution:
    """x: the samples [B, ...] at t = 1. accepted, rejected: int64 [B], each sample's steps."""

    x: torch.Tensor
    accepted: torch.Tensor
    rejected: torch.Tensor


@torch.no_grad()
def solve(
    velocity: Velocity,
    x0: torch.Tensor,
    solver: Solver = "dopri5",
    *,
    steps: int = 20,
    rtol: float = 1e-3,
    atol: float = 1e-4,
    first_step: float = 0.01,
    max_steps: int = 1000,
) -> Solution:
    """Follow `velocity` from x0 [B, ...] at t = 0 to t = 1.

    Parameters
    ----------
    velocity
        v(x, t, rows): the velocity of samples `rows` of the batch.
    x0
        Where the samples start, [B, ...].
    solver
        `dopri5`: adaptive, of fifth order, per sample; `rk4` and `euler`: `steps` equal steps.
    steps
        Number of steps of `rk4` (4 evaluations each) and `euler` (1 evaluation each).
    rtol, atol
        A step of `dopri5` is accepted where the root mean square over the sample's elements of
        error / (atol + rtol max(|x|, |x_new|)) is at most 1.
    first_step
        The first step that `dopri5` tries.
    max_steps
        Most steps, accepted and rejected together, a sample may take.

    Raises
    ------
    TooManySteps
        A sample needs more than `max_steps`, or its velocity is not finite; the message counts them.
    """
    if solver == "dopri5":
        return _dopri5(velocity, x0, rtol, atol, first_step, max_steps)
    return _fixed(velocity, x0, solver, steps)


def _fixed(velocity: Velocity, x0: torch.Tensor, solver: Solver, steps: int) -> Solution:
    rows = torch.arange(len(x0), device=x0.device)
    x, h = x0, 1 / steps

    def v(x: torch.Tensor, t: float) -> torch.Tensor:
        return velocity(x, torch.full((len(x),), t, dtype=x.dtype, device=x.device), rows)

    for step in range(steps):
        t = step * h
        k1 = v(x, t)
        if solver == "euler":
            x = x + h * k1
            continue
        k2 = v(x + h / 2 * k1, t + h / 2)
        k3 = v(x + h / 2 * k2, t + h / 2)
        k4 = v(x + h * k3, t + h)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    taken = torch.full((len(x0),), steps, dtype=torch.int64)
    return Solution(x, taken, torch.zeros_like(taken))


def _dopri5(
    velocity: Velocity, x0: torch.Tensor, rtol: float, atol: float, first_step: float, max_steps: int
) -> Solution:
    device = x0.device
    result = x0.clone()
    accepted = torch.zeros(len(x0), dtype=torch.int64, device=device)
    rejected = torch.zeros_like(accepted)
    # Times and steps are float64: many small float32 steps would miss t = 1.
    rows = torch.arange(len(x0), device=device)
    x, t = x0, torch.zeros(len(x0), dtype=torch.float64, device=device)
    h = torch.full_like(t, first_step)
    after_rejection = torch.zeros(len(x0), dtype=torch.bool, device=device)
    k1 = velocity(x, t.to(x.dtype), rows) if len(x0) else x0
    while len(rows):
        h = torch.minimum(h, 1 - t)
        last = h >= 1 - t
        proposal, k7, ratio = _try_step(velocity, x, t, h, k1, rows, rtol, atol)
        # A NaN ratio compares as False: such a step is rejected until max_steps ends it.
        good = ratio <= 1
        factor = (_SAFETY * ratio.clamp(min=1e-10) ** -0.2).clamp(_SHRINK, _GROW).nan_to_num(_SHRINK)
        # Growing right after a rejection would only be rejected again (Hairer, Norsett and Wanner, II.4).
        factor = torch.where(after_rejection | ~good, factor.clamp(max=1.0), factor)
        accepted[rows] += good
        rejected[rows] += ~good
        x, k1 = torch.where(_beside(good, x), proposal, x), torch.where(_beside(good, x), k7, k1)
        done = good & last
        t, h, after_rejection = torch.where(good, t + h, t), h * factor, ~good
        result[rows[done]] = x[done]
        stuck = ~done & (accepted[rows] + rejected[rows] >= max_steps)
        if stuck.any():
            raise TooManySteps(
                f"{int(stuck.sum())} of {len(x0)} samples did not reach t = 1 in {max_steps} steps of dopri5; "
                "raise max_steps or rtol, use solver rk4, or look whether training diverged"
            )
        if done.any():
            x, t, h, k1, rows, after_rejection = (a[~done] for a in (x, t, h, k1, rows, after_rejection))
    return Solution(result, accepted.cpu(), rejected.cpu())


def _try_step(
    velocity: Velocity,
    x: torch.Tensor,
    t: torch.Tensor,
    h: torch.Tensor,
    k1: torch.Tensor,
    rows: torch.Tensor,
    rtol: float,
    atol: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the proposed x, its velocity and the error ratio [k] of one step of each sample's own size."""
    ks, hx = [k1], _beside(h, x).to(x.dtype)
    for c, weights in zip(_C[1:], _A[1:]):
        point = x + hx * sum(w * k for w, k in zip(weights, ks) if w)
        ks.append(velocity(point, (t + c * h).to(x.dtype), rows))
    error = hx * sum(w * k for w, k in zip(_ERROR, ks) if w)
    scaled = error / (atol + rtol * torch.maximum(x.abs(), point.abs()))
    return point, ks[-1], scaled.flatten(1).double().square().mean(1).sqrt()


def _beside(value: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return value.reshape(-1, *([1] * (x.ndim - 1)))

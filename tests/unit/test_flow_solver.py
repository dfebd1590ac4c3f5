import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from stmorph.flow import solver as module
from stmorph.flow.solver import TooManySteps, solve

RATES = torch.tensor([0.5, 3.0, 12.0, 60.0], dtype=torch.float64)


def forced_decay(x, t, rows, rates=RATES):
    """Decay towards a moving target, from gentle to stiff-ish, by row."""
    return -rates[rows, None] * (x - torch.cos(5 * t)[:, None])


def start(n=4):
    return torch.linspace(-1, 2, 3 * n, dtype=torch.float64).reshape(n, 3)


def test_solution_agrees_with_torchdiffeq_and_scipy():
    import torchdiffeq

    ours = solve(forced_decay, start(), rtol=1e-7, atol=1e-9).x
    rows = torch.arange(4)
    theirs = torchdiffeq.odeint(
        lambda t, x: forced_decay(x, t.expand(4), rows),
        start(),
        torch.tensor([0.0, 1.0], dtype=torch.float64),
        rtol=1e-9,
        atol=1e-11,
        method="dopri5",
    )[1]
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    for row in range(4):

        def f(t, x, row=row):
            return -RATES[row].item() * (x - math.cos(5 * t))

        reference = solve_ivp(f, (0, 1), start()[row].numpy(), method="RK45", rtol=1e-9, atol=1e-11).y[:, -1]
        np.testing.assert_allclose(ours[row].numpy(), reference, rtol=1e-6, atol=1e-7)


def test_error_follows_the_tolerance():
    exact = start() * torch.exp(-RATES)[:, None]
    errors = [
        (solve(lambda x, t, rows: -RATES[rows, None] * x, start(), rtol=tol, atol=tol).x - exact).abs().max().item()
        for tol in (1e-3, 1e-6, 1e-9)
    ]
    assert errors[0] < 1e-2 and errors[1] < 1e-5 and errors[2] < 1e-8


def test_one_step_is_of_fifth_order_and_its_error_estimate_of_the_same_order():
    def f(x, t, rows):
        return x * torch.cos(t)[:, None]

    one = torch.ones(1, 1, dtype=torch.float64)
    errors, estimates = [], []
    for h in (0.4, 0.2):
        step = torch.tensor([h], dtype=torch.float64)
        zero = torch.zeros(1, dtype=torch.float64)
        x, k7, ratio = module._try_step(f, one, zero, step, f(one, zero, None), torch.arange(1), 0.0, 1.0)
        errors.append(abs(x.item() - math.exp(math.sin(h))))
        estimates.append(ratio.item())
        # First same as last: the seventh stage is the velocity at the step's end.
        torch.testing.assert_close(k7, f(x, step, None))
    # A method of order p makes a local error of order p + 1: 6 for the step, 5 for the estimate of the embedded fourth.
    assert math.log2(errors[0] / errors[1]) == pytest.approx(6, abs=0.5)
    assert math.log2(estimates[0] / estimates[1]) == pytest.approx(5, abs=0.5)


def test_a_sample_does_not_depend_on_its_batch_mates():
    together = solve(forced_decay, start(), rtol=1e-5, atol=1e-7)
    for row in range(4):
        alone = solve(
            lambda x, t, rows, row=row: forced_decay(x, t, rows + row), start()[row : row + 1], rtol=1e-5, atol=1e-7
        )
        assert torch.equal(alone.x[0], together.x[row])
        assert alone.accepted[0] == together.accepted[row] and alone.rejected[0] == together.rejected[row]
    assert together.accepted[3] > 2 * together.accepted[0], "the stiff sample takes its own, smaller steps"


def test_finished_samples_leave_the_batch():
    sizes = []

    def counted(x, t, rows):
        sizes.append(len(rows))
        return forced_decay(x, t, rows)

    solution = solve(counted, start())
    # The first stage of every sample once, then six stages a try (FSAL).
    assert sum(sizes) == 4 + 6 * int((solution.accepted + solution.rejected).sum())
    assert sizes[0] == 4 and sizes[-1] == 1


def test_steps_with_too_large_an_error_are_rejected():
    def burst(x, t, rows):
        return torch.exp(-(((t - 0.5) / 0.05) ** 2))[:, None].expand_as(x)

    solution = solve(burst, torch.zeros(1, 2, dtype=torch.float64), rtol=1e-6, atol=1e-8)
    assert solution.rejected.item() > 0
    torch.testing.assert_close(
        solution.x, torch.full((1, 2), 0.05 * math.sqrt(math.pi), dtype=torch.float64), rtol=1e-4, atol=0
    )


def test_running_out_of_steps_raises_with_the_count():
    with pytest.raises(TooManySteps, match="1 of 4 samples"):
        taken = solve(forced_decay, start(), rtol=1e-6, atol=1e-6)
        tries = (taken.accepted + taken.rejected).sort().values
        solve(forced_decay, start(), rtol=1e-6, atol=1e-6, max_steps=int(tries[-1]) - 1)


def test_a_velocity_that_is_not_finite_ends():
    with pytest.raises(TooManySteps):
        solve(lambda x, t, rows: x * float("nan"), start(), max_steps=20)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("rk4", 4)])
def test_fixed_steps_have_their_order(solver, order):
    exact = math.exp(math.sin(1))
    one = torch.ones(1, 1, dtype=torch.float64)
    errors = [
        abs(solve(lambda x, t, rows: x * torch.cos(t)[:, None], one, solver, steps=steps).x.item() - exact)
        for steps in (16, 32)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.3)


def test_no_samples_give_no_samples():
    for solver in ("dopri5", "rk4", "euler"):
        assert solve(forced_decay, start()[:0], solver).x.shape == (0, 3)

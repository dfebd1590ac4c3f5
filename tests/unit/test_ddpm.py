"""The diffusion shared by methods: schedule, forward process, samplers, per-row noise and the learned variance."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from stmorph.diffusion import learned_variance
from stmorph.diffusion.ddpm import NoiseSchedule, denoising_loss, sample
from stmorph.diffusion.noise import RowNoise
from stmorph.errors import ConfigError
from stmorph.randomness import normal_rows

MEAN, SD = 1.5, 0.6


def optimal(schedule, target="noise"):
    """The denoiser that knows the data are N(MEAN, SD^2)."""

    def predict(x, t):
        bar = schedule.alpha_bar[t].reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        x0 = MEAN + SD**2 * bar.sqrt() / (bar * SD**2 + 1 - bar) * (x - bar.sqrt() * MEAN)
        noise = (x - bar.sqrt() * x0) / (1 - bar).sqrt()
        return {"x0": x0, "noise": noise, "v": bar.sqrt() * noise - (1 - bar).sqrt() * x0}[target]

    return predict


def test_schedule_equals_the_reference_library():
    reference = DDPMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    ours = NoiseSchedule.linear()
    np.testing.assert_allclose(ours.alpha_bar.numpy(), reference.alphas_cumprod.numpy(), rtol=1e-4)
    assert float(ours.alpha_bar[-1]) == pytest.approx(4.04e-5, rel=1e-2)
    noise, x0 = torch.randn(5, 3), torch.randn(5, 3)
    t = torch.tensor([0, 10, 500, 998, 999])
    torch.testing.assert_close(ours.add_noise(x0, t, noise), reference.add_noise(x0, noise, t), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("steps", [100, 250, 4000])
def test_terminal_signal_is_alike_at_any_length(steps):
    assert float(NoiseSchedule.linear(steps).alpha_bar[-1].log()) == pytest.approx(np.log(4.04e-5), rel=0.15)


def test_x0_and_noise_are_inverses_of_adding_noise():
    schedule = NoiseSchedule.linear(50)
    x0, noise, t = torch.randn(50, 2, 3).double(), torch.randn(50, 2, 3).double(), torch.arange(50)
    x_t = schedule.add_noise(x0, t, noise)
    torch.testing.assert_close(schedule.x0_of(x_t, t, noise), x0)
    torch.testing.assert_close(schedule.noise_of(x_t, t, x0), noise)
    torch.testing.assert_close(schedule.x0_of_v(x_t, t, schedule.v_of(x0, t, noise)), x0)


def test_respaced_schedule_keeps_ends_and_power():
    schedule = NoiseSchedule.linear()
    short = schedule.respaced(25)
    assert short.timesteps[0] == 0 and short.timesteps[-1] == 999 and len(short) == 25
    torch.testing.assert_close(short.alpha_bar, schedule.alpha_bar[short.timesteps])
    torch.testing.assert_close((1 - short.beta).cumprod(0), short.alpha_bar)
    torch.testing.assert_close(schedule.respaced(1000).beta, schedule.beta)
    assert schedule.respaced(1).timesteps.tolist() == [999]
    with pytest.raises(ConfigError, match="sampling steps are 1001; expected 1 to 1000"):
        schedule.respaced(1001)


@pytest.mark.parametrize("target", ["noise", "x0", "v"])
def test_optimal_denoiser_recovers_the_gaussian(target):
    schedule = NoiseSchedule.linear(200)
    drawn = sample(schedule, optimal(schedule, target), range(300), (50,), target=target).double()
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(drawn.std()) == pytest.approx(SD, rel=0.03)


def expected_sd(schedule, eta):
    """The exact standard deviation a sampler leaves for N(MEAN, SD^2): each step is linear, so variances recur."""
    variance = 1.0
    tables = (schedule.alpha_bar, schedule.alpha_bar_before, schedule.beta, schedule.posterior_variance)
    for bar, before, beta, posterior in reversed(list(zip(*(table.tolist() for table in tables)))):
        slope = SD**2 * bar**0.5 / (bar * SD**2 + 1 - bar)  # of the estimate of x0 on x_t
        if eta:
            gain = (before**0.5 * beta * slope + (1 - beta) ** 0.5 * (1 - before)) / (1 - bar)
        else:
            gain = before**0.5 * slope + ((1 - before) / (1 - bar)) ** 0.5 * (1 - bar**0.5 * slope)
        variance = gain**2 * variance + eta * posterior
    return variance**0.5


@pytest.mark.parametrize("eta", [1.0, 0.0])
@pytest.mark.parametrize("steps", [10, 50])
def test_respaced_sampling_leaves_the_exact_spread_and_approaches_the_whole(steps, eta):
    schedule = NoiseSchedule.linear(1000)
    drawn = sample(schedule, optimal(schedule), range(300), (50,), steps=steps, eta=eta).double()
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(drawn.std()) == pytest.approx(expected_sd(schedule.respaced(steps), eta), rel=0.03)
    assert expected_sd(schedule, eta) == pytest.approx(SD, rel=0.02)
    assert abs(expected_sd(schedule.respaced(250), eta) - SD) < abs(expected_sd(schedule.respaced(10), eta) - SD)


def test_deterministic_sampler_equals_the_reference_library():
    schedule = NoiseSchedule.linear(1000)
    predict = optimal(schedule)
    reference = DDIMScheduler(
        1000, beta_start=1e-4, beta_end=0.02, clip_sample=False, timestep_spacing="linspace", set_alpha_to_one=True
    )
    reference.set_timesteps(1000)
    x = normal_rows(range(6), (5,))
    for t in reference.timesteps:
        x = reference.step(predict(x, t.expand(len(x))), t, x, eta=0.0).prev_sample
    torch.testing.assert_close(sample(schedule, predict, range(6), (5,), eta=0.0), x, atol=2e-3, rtol=2e-3)


def test_clip_bounds_the_clean_sample():
    schedule = NoiseSchedule.linear(100)
    drawn = sample(schedule, optimal(schedule), range(200), (3,), steps=20, clip=(1.0, 1.6))
    assert drawn.min() >= 1.0 - 1e-6 and drawn.max() <= 1.6 + 1e-6
    free = sample(schedule, optimal(schedule), range(200), (3,), steps=20)
    assert free.min() < 1.0 and free.max() > 1.6
    low, high = torch.tensor([1.0, -9.0, 1.4]), torch.tensor([1.6, 9.0, 1.4])
    each = sample(schedule, optimal(schedule), range(200), (3,), steps=20, clip=(low, high))
    torch.testing.assert_close(each[:, 2], torch.full((200,), 1.4))
    torch.testing.assert_close(each[:, 0], drawn[:, 0])


def test_a_row_depends_on_its_seed_alone():
    schedule = NoiseSchedule.linear(50)
    together = sample(schedule, optimal(schedule), [5, 6, 7, 8], (2, 3))
    alone = sample(schedule, optimal(schedule), [7], (2, 3))
    torch.testing.assert_close(together[2:3], alone)
    assert not torch.allclose(together[0], together[1])


def test_row_noise_is_exact_beside_any_mates_and_starts_as_named():
    first, others = RowNoise([3, 4, 5], (7,)), RowNoise([5], (7,))
    assert torch.equal(RowNoise([3, 4], (7,)).next(), normal_rows([3, 4], (7,)))
    one, two = (first.next(), first.next())
    assert torch.equal(one[2:], others.next()) and torch.equal(two[2:], others.next())
    assert not torch.equal(one, two)


@pytest.mark.parametrize("target", ["noise", "x0", "v"])
def test_loss_is_zero_only_for_what_it_targets(target):
    schedule = NoiseSchedule.linear(20)
    x0, noise, t = torch.randn(8, 3), torch.randn(8, 3), torch.arange(8)
    wanted = {"noise": noise, "x0": x0, "v": schedule.v_of(x0, t, noise)}
    assert denoising_loss(schedule, lambda x, t: wanted[target], x0, t, noise, target) == 0
    off = denoising_loss(schedule, lambda x, t: wanted[target] + 2.0, x0, t, noise, target)
    assert float(off) == pytest.approx(4.0)


def test_learned_variance_lies_between_its_ends():
    schedule = NoiseSchedule.linear(100)
    t = torch.tensor([0, 1, 50, 99])
    posterior = schedule.posterior_variance.clone()
    posterior[0] = posterior[1]
    for v, expected in ((-1.0, posterior), (1.0, schedule.beta)):
        predicted, log_variance = learned_variance.split(torch.full((4, 3, 2), v), schedule, t)
        torch.testing.assert_close(log_variance.exp(), expected[t].float()[:, None].expand(4, 3), rtol=1e-4, atol=0)
        assert torch.equal(predicted, torch.full((4, 3), v))


def test_bound_is_zero_for_the_posterior_and_spares_the_noise_output():
    schedule = NoiseSchedule.linear(100)
    x0, noise, t = torch.randn(6, 3), torch.randn(6, 3), torch.tensor([5, 20, 40, 60, 80, 99])
    x_t = schedule.add_noise(x0, t, noise)
    output = torch.stack([noise, torch.full_like(noise, -1.0)], -1).requires_grad_()
    bound = learned_variance.bound_bits(schedule, output, x0, x_t, t, "continuous")
    assert float(bound.detach()) == pytest.approx(0.0, abs=1e-4)
    wrong = torch.stack([noise + 1, torch.full_like(noise, -1.0)], -1).requires_grad_()
    loss = learned_variance.bound_bits(schedule, wrong, x0, x_t, t, "continuous")
    loss.backward()
    assert float(loss.detach()) > 1e-3
    assert wrong.grad[..., 0].abs().max() == 0 and wrong.grad[..., 1].abs().min() > 0


def test_density_at_time_zero_equals_the_reference_and_the_picture_likelihood_saturates():
    schedule = NoiseSchedule.linear(100)
    x0, t = torch.tensor([[3.0, 0.2]]), torch.tensor([0])
    x_t = schedule.add_noise(x0, t, torch.randn(1, 2))
    output = torch.zeros(1, 2, 2)
    _, log_variance = learned_variance.split(output, schedule, t)
    mean = schedule.x0_of(x_t, t, output[..., 0])
    expected = -torch.distributions.Normal(mean, (log_variance / 2).exp()).log_prob(x0).mean() / np.log(2)
    density = learned_variance.bound_bits(schedule, output, x0, x_t, t, "continuous")
    assert float(density) == pytest.approx(float(expected), rel=1e-4)
    # A count beyond the picture's range of [-1, 1] is scored by one open tail: moving it further out costs nothing.
    exact = schedule.noise_of(x_t, t, x0)
    far = torch.stack([exact - 5, torch.zeros(1, 2)], -1)[:, :1]
    picture = learned_variance.bound_bits(schedule, far, x0[:, :1], x_t[:, :1], t, "8bit")
    assert float(picture) == pytest.approx(0.0, abs=1e-3)


def test_sampling_with_a_learned_variance_at_its_lower_end_is_the_ancestral_sampler():
    schedule = NoiseSchedule.linear(60)
    predict = optimal(schedule)

    def two(x, t):
        return torch.stack([predict(x, t), torch.full_like(x, -1.0)], -1)

    learned = sample(schedule, two, range(50), (3,), variance=learned_variance.split)
    plain = sample(schedule, predict, range(50), (3,))
    # The first step adds no noise, so the variance that stands in there is never used.
    torch.testing.assert_close(learned, plain, atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match="eta is 0"):
        sample(schedule, two, [1], (3,), eta=0, variance=learned_variance.split)

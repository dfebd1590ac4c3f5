import pytest
import torch

from stmorph.flow.path import Path
from stmorph.flow.solver import solve


def _inputs(n=5):
    generator = torch.Generator().manual_seed(0)
    x1, noise, z = torch.randn(3, n, 2, 3, generator=generator, dtype=torch.float64)
    return x1, noise, z, torch.rand(n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", ["sine", "linear"])
def test_fixed_velocity_is_the_derivative_of_the_path(shape):
    path, (x1, noise, z, t) = Path(shape, sigma=0.3), _inputs()
    _, derivative = torch.func.jvp(lambda t: path.point(x1, noise, z, t), (t,), (torch.ones_like(t),))
    torch.testing.assert_close(path.velocity(x1, noise, z, t), derivative)
    h = 1e-6
    finite = (path.point(x1, noise, z, t + h) - path.point(x1, noise, z, t - h)) / (2 * h)
    torch.testing.assert_close(derivative, finite, rtol=1e-6, atol=1e-7)


def test_papers_and_codes_velocities_differ_from_the_derivative_by_the_perturbation():
    x1, noise, z, t = _inputs()
    fixed, code, paper = (Path("sine", 0.3, which).velocity(x1, noise, z, t) for which in ("fixed", "code", "paper"))
    torch.testing.assert_close(code - fixed, 0.3 * z)
    torch.testing.assert_close(paper - fixed, 0.6 * z)


@pytest.mark.parametrize("shape", ["sine", "linear"])
def test_path_leads_from_noise_to_the_picture(shape):
    path, (x1, noise, z, t) = Path(shape, sigma=0.05), _inputs()
    torch.testing.assert_close(path.point(x1, noise, z, torch.ones_like(t)), x1)
    torch.testing.assert_close(path.point(x1, noise, z, torch.zeros_like(t)), noise + 0.05 * z)


def test_start_scale_is_the_paths_spread_at_its_start():
    generator = torch.Generator().manual_seed(1)
    noise, z = torch.randn(2, 200_000, 1, generator=generator)
    path = Path(sigma=0.5)
    start = path.point(torch.zeros_like(noise), noise, z, torch.zeros(len(noise)))
    assert start.std().item() == pytest.approx(path.start_scale(), rel=5e-3)


def test_linear_velocity_is_the_regression_of_the_derivative_on_x():
    generator = torch.Generator().manual_seed(2)
    path, n = Path(sigma=0.3), 400_000
    x1, noise, z = torch.randn(3, n, 1, generator=generator, dtype=torch.float64)
    x1 = 0.7 + 0.4 * x1
    for time in (0.1, 0.6, 0.95):
        t = torch.full((n,), time, dtype=torch.float64)
        x, v = path.point(x1, noise, z, t)[:, 0], path.velocity(x1, noise, z, t)[:, 0]
        slope = ((x - x.mean()) * v).mean() / x.var()
        guess = path.linear_velocity(
            torch.tensor([[-1.0], [2.0]]).double(), t[:2], torch.tensor(0.7), torch.tensor(0.4)
        )
        assert (guess[1] - guess[0]).item() / 3 == pytest.approx(slope.item(), abs=0.02)
        assert guess[0].item() == pytest.approx((v.mean() + slope * (-1 - x.mean())).item(), abs=0.02)


@pytest.mark.parametrize("shape", ["sine", "linear"])
def test_velocity_follows_from_the_picture(shape):
    path, (x1, noise, z, t) = Path(shape, sigma=0), _inputs()
    x, error = path.point(x1, noise, z, t), torch.ones_like(x1)
    torch.testing.assert_close(path.velocity_of_data(x, t, x1), path.velocity(x1, noise, z, t))
    wrong = path.velocity_of_data(x, t, x1 + error) - path.velocity_of_data(x, t, x1)
    torch.testing.assert_close(wrong, path.data_gain(t)[:, None, None].expand_as(wrong))


@pytest.mark.parametrize("which", ["paper", "code", "fixed"])
def test_velocity_of_a_picture_is_the_mean_over_the_two_noises(which):
    # Regressed on x over many noises, for one picture: the mean is linear in x.
    generator = torch.Generator().manual_seed(3)
    path, n, x1 = Path(sigma=0.4, noise_derivative=which), 400_000, 0.7
    noise, z = torch.randn(2, n, 1, generator=generator, dtype=torch.float64)
    for time in (0.0, 0.5, 0.9):
        t = torch.full((n,), time, dtype=torch.float64)
        picture = torch.full_like(noise, x1)
        x, v = path.point(picture, noise, z, t), path.velocity(picture, noise, z, t)
        slope = ((x - x.mean()) * v).mean() / x.var()
        guess = path.velocity_of_data(x[:2], t[:2], picture[:2])
        torch.testing.assert_close(guess, v.mean() + slope * (x[:2] - x.mean()), atol=0.03, rtol=0.02)


def test_following_the_linear_velocity_gives_pictures_with_the_right_mean_and_spread():
    path = Path()
    start = path.start_scale() * torch.randn(2000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, sd = torch.tensor(0.5), torch.tensor(0.2)
    x = solve(lambda x, t, rows: path.linear_velocity(x, t, mean, sd), start, rtol=1e-5).x
    assert x.mean().item() == pytest.approx(0.5, abs=0.01) and x.std().item() == pytest.approx(0.2, abs=0.01)

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from stmorph.errors import ConfigError
from stmorph.methods.base import Batch, DataSpec
from stmorph.methods.geneflow import GeneFlow
from stmorph.methods.geneflow_diffusion import GeneFlowDiffusion, cosine_schedule
from stmorph.randomness import BatchRandom
from stmorph.units import Units

GENES, PX = 12, 8
TINY = {
    "relation_rank": 2,
    "widths": (16, 16),
    "embedding_dim": 16,
    "heads": 2,
    "base": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "head_channels": 8,
    "dropout": 0.0,
    "encoder_dropout": 0.0,
}
FLOW = TINY | {"solver": "rk4", "steps": 3}
DIFFUSION = TINY | {"timesteps": 50, "sampling_steps": 5}


def spec() -> DataSpec:
    return DataSpec(tuple(f"GENE{i}" for i in range(GENES)), "log1p_counts", tile_px=PX, max_cells=5)


def build(method=GeneFlow, **options):
    torch.manual_seed(0)
    base = FLOW if method is GeneFlow else DIFFUSION
    return method(method.Options(**(base | options)), spec()).eval()


def awake(network, std=0.1):
    """Fill the layers that start at zero, so that the condition matters before training."""
    torch.manual_seed(1)
    for weight in network.unet.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=std)
    return network


def cells_batch(n=16, seed=0) -> tuple[Batch, torch.Tensor]:
    """Patches whose redness is the mean over their cells of one gene."""
    rng = np.random.default_rng(seed)
    mask = np.arange(5) < rng.integers(1, 6, (n, 1))
    cells = (rng.random((n, 5, GENES)) * mask[..., None]).astype(np.float32)
    red = cells[..., 0].sum(1) / mask.sum(1)
    image = np.full((n, 3, PX, PX), -0.5, np.float32)
    image[:, 0] = (4 * red - 2)[:, None, None]
    expression = cells.sum(1)
    return Batch(
        *map(torch.from_numpy, (expression,)), None, *map(torch.from_numpy, (image, cells, mask))
    ), torch.from_numpy(red)


@pytest.mark.parametrize("method", [GeneFlow, GeneFlowDiffusion])
def test_draws_have_the_promised_form_and_depend_on_their_seed_alone(method):
    network = awake(build(method))
    batch = Batch(torch.rand(3, GENES))
    seeds = torch.tensor([[1, 2], [3, 4], [1, 2]])
    pictures = network.draw(batch, seeds)
    assert pictures.shape == (3, 2, PX, PX, 3) and pictures.dtype == torch.uint8
    assert not torch.equal(pictures[0, 0], pictures[0, 1])
    alone = network.draw(batch.take(torch.tensor([1])), seeds[1:2, 1:])
    # The last bit of a convolution may differ with the batch's size, and a value lie on a rounding edge.
    assert (alone[0, 0].int() - pictures[1, 1].int()).abs().max() <= 1


def test_adaptive_draws_do_not_depend_on_batch_mates():
    network = awake(build(solver="dopri5"), std=0.03)
    batch, seeds = Batch(torch.rand(4, GENES) * torch.tensor([[0.1], [1.0], [5.0], [30.0]])), torch.arange(4)[:, None]
    together = network.draw(batch, seeds)
    for row in range(4):
        alone = network.draw(batch.take(torch.tensor([row])), seeds[row : row + 1])
        assert (alone[0].int() - together[row].int()).abs().max() <= 1


@pytest.mark.parametrize("method", [GeneFlow, GeneFlowDiffusion])
def test_draws_read_the_condition_but_no_picture(method):
    network, seeds = awake(build(method)), torch.tensor([[5], [6]])
    x = torch.rand(2, GENES)
    plain = network.draw(Batch(x), seeds)
    assert torch.equal(network.draw(Batch(x, image=torch.rand(2, 3, PX, PX)), seeds), plain)
    assert not torch.equal(network.draw(Batch(x * 5 + 1), seeds), plain)


@pytest.mark.parametrize("method", [GeneFlow, GeneFlowDiffusion])
def test_losses_come_from_the_given_generator(method):
    network, (batch, _) = build(method), cells_batch()
    losses = [
        network.training_step(batch, BatchRandom(torch.Generator().manual_seed(s), len(batch))) for s in (0, 0, 1)
    ]
    assert torch.equal(losses[0]["loss"], losses[1]["loss"]) and not torch.equal(losses[0]["loss"], losses[2]["loss"])
    parts = [value for name, value in losses[0].items() if name != "loss"]
    torch.testing.assert_close(sum(parts), losses[0]["loss"].detach())
    assert not any(part.requires_grad for part in parts)


def test_untrained_velocity_is_zero_so_the_loss_is_the_targets_size():
    network, (batch, _) = build(sparsity=0.0), cells_batch(256)
    loss = network.training_step(batch, BatchRandom(torch.Generator().manual_seed(0), len(batch)))["loss"].item()
    # Mean of (pi/2 cos)^2 over t is pi^2/8; noise has variance 1, the perturbation sigma^2.
    expected = np.pi**2 / 8 * (1 + batch.image.square().mean().item()) + 0.05**2
    assert loss == pytest.approx(expected, rel=0.1)


def test_multi_cell_model_learns_a_colour_from_the_mean_of_cells():
    network = build(encoder="multi", guide=1.0, sparsity=0.0, sigma=0.0)
    batch, _ = cells_batch(128)
    rows = [cells[mask].numpy() for cells, mask in zip(batch.cells, batch.cell_mask)]
    names = np.array([str(i) for i in range(128)])
    units = Units(names, names, np.zeros((128, 2)), spec().genes, batch.expression.numpy(), cells=rows)
    network.prepare(units)
    np.testing.assert_allclose(network.expression_mean.numpy(), np.concatenate(rows).mean(0), rtol=1e-4)
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3)
    losses = []
    for step in range(150):
        loss = network.training_step(batch, BatchRandom(torch.Generator().manual_seed(step), len(batch)))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.4 * np.mean(losses[:5])
    test, red = cells_batch(32, seed=1)
    pictures = network.draw(test, torch.arange(32)[:, None])[:, 0].float()
    assert np.corrcoef(pictures[..., 0].mean((1, 2)).numpy(), red.numpy())[0, 1] > 0.7


def test_state_dict_holds_all_that_was_learned():
    one = awake(build())
    names = np.array(["a", "b", "c"])
    one.prepare(
        Units(names, names, np.zeros((3, 2)), spec().genes, np.random.default_rng(0).random((3, GENES)).astype("f4"))
    )
    other = build()
    other.load_state_dict(one.state_dict())
    batch, seeds = Batch(torch.rand(2, GENES)), torch.tensor([[1], [2]])
    assert torch.equal(one.draw(batch, seeds), other.draw(batch, seeds))


@pytest.mark.parametrize("which", ["code", "fixed"])
def test_picture_range_is_mapped_there_and_back(which):
    network = build(image_range=which)
    pictures = torch.arange(PX * PX * 3).reshape(1, PX, PX, 3).to(torch.uint8)
    image = pictures.permute(0, 3, 1, 2) / 127.5 - 1
    assert torch.equal(network.to_pictures(network.to_model(image)), pictures)


def test_multi_needs_cells_and_single_does_not():
    assert build().needs == {"tiles"} and build(encoder="multi").needs == {"tiles", "cells"}


def test_tile_size_that_cannot_be_halved_is_refused():
    with pytest.raises(ConfigError, match="multiple of 16"):
        build(multipliers=(1, 1, 1, 1), patch=2)


def test_cosine_schedule_keeps_and_then_loses_the_signal():
    schedule = cosine_schedule(1000)
    signal = schedule.alpha_bar
    assert signal[0] > 0.999 and signal[-1] < 1e-4 and (signal.diff() < 0).all()
    assert signal[499].item() == pytest.approx(0.5, abs=0.02) and schedule.beta.max() <= 0.999 + 1e-9


@pytest.mark.parametrize("method", [GeneFlow, GeneFlowDiffusion])
@pytest.mark.parametrize("scale", ["full", "small", "smoke"])
def test_configured_options_name_every_option_and_are_valid_at_every_scale(method, scale):
    name = "geneflow" if method is GeneFlow else "geneflow_diffusion"
    config = yaml.safe_load((Path(__file__).parents[2] / f"config/methods/{name}.yaml").read_text())
    assert set(config["options"]) == set(method.Options.model_fields)
    method.Options(**(config["options"] | config["scales"][scale].get("options", {})))


def test_preconditioned_flow_measures_the_training_pictures():
    network = build(precondition=True)
    pictures = np.random.default_rng(0).integers(100, 200, (40, PX, PX, 3), dtype=np.uint8)

    class Tiles:
        def read(self, index):
            return pictures[index]

    names = np.array([str(i) for i in range(40)])
    x = np.random.default_rng(1).random((40, GENES)).astype("f4")
    network.prepare(Units(names, names, np.zeros((40, 2)), spec().genes, x, tiles=Tiles()))
    drawn = network.draw(Batch(torch.from_numpy(x)), torch.arange(40)[:, None]).float()
    # The untrained network adds nothing: what is drawn has the training pictures' mean and spread.
    assert drawn.mean().item() == pytest.approx(pictures.mean(), abs=2)
    assert drawn.std().item() == pytest.approx(pictures.std(), rel=0.1)


def knowing(pictures: torch.Tensor, **options) -> GeneFlow:
    """A flow whose network estimates these pictures without error."""
    network = build(predicts="data", sparsity=0.0, **options)
    network.unet.forward = lambda x, t, condition: pictures[: len(x)]
    return network


@pytest.mark.parametrize(
    "solver", [{"solver": "euler", "steps": 2}, {"solver": "rk4", "steps": 3}, {"solver": "dopri5"}]
)
def test_flow_that_predicts_data_lands_on_its_estimate(solver):
    batch, _ = cells_batch(3)
    network = knowing(batch.image, **solver)
    drawn = network.draw(batch, torch.arange(3)[:, None])[:, 0]
    assert torch.equal(drawn, network.to_pictures(batch.image))


def test_exact_estimate_gives_the_exact_velocity_and_no_loss():
    batch, _ = cells_batch(3)
    network = knowing(batch.image, sigma=0.0)
    noise, t = torch.randn(3, 3, PX, PX, generator=torch.Generator().manual_seed(0)), torch.tensor([0.0, 0.5, 0.9])
    x, exact = (f(batch.image, noise, noise, t) for f in (network.path.point, network.path.velocity))
    torch.testing.assert_close(network.velocity(x, t, network.condition(batch)), exact, rtol=1e-4, atol=1e-5)
    energy = network.conditional_energy(batch, t, torch.stack([noise, noise], 1))
    torch.testing.assert_close(energy, exact.square().sum((1, 2, 3)), rtol=1e-4, atol=1e-4)
    assert network.training_step(batch, BatchRandom(torch.Generator().manual_seed(0), len(batch)))["loss"].item() == 0
    assert network.velocity(x, torch.ones(3), network.condition(batch)).isfinite().all()


def test_loss_of_data_is_the_velocitys_up_to_a_constant_where_its_weight_is_not_bounded():
    batch, _ = cells_batch(64)
    # Times this near to the noise have weights below the bound.
    network = awake(build(predicts="data", sparsity=0.0, sigma=0.0, time_power=50), std=0.02)
    loss = network.training_step(batch, BatchRandom(torch.Generator().manual_seed(0), len(batch)))["loss"].item()
    rng = torch.Generator().manual_seed(0)
    t = torch.rand(64, generator=rng) ** 50
    assert t.max() < 0.9
    keep = t < 0.4
    noise = torch.randn(batch.image.shape, generator=rng)
    x, exact = (f(batch.image, noise, noise, t) for f in (network.path.point, network.path.velocity))
    error = (network.velocity(x, t, network.condition(batch)) - exact).square().mean((1, 2, 3))
    assert loss >= (error * keep).mean().item() * 0.999
    assert loss <= error.mean().item() * 1.001


def test_preconditioned_data_is_refused():
    with pytest.raises(ConfigError, match="precondition"):
        build(predicts="data", precondition=True)

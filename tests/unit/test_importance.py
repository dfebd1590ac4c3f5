import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from stmorph.errors import ConfigError
from stmorph.importance.gradients import energy_gradients, integrated_gradients
from stmorph.methods.base import Batch, DataSpec
from stmorph.methods.geneflow import GeneFlow

GENES, CAUSAL = 20, (2, 5, 11)
SPEC = DataSpec(tuple(f"G{i}" for i in range(GENES)), "log1p_counts", tile_px=4)


class Toy:
    """A model whose energy depends on three genes, on the time, and on noise or picture."""

    spec = SPEC
    expression_mean = torch.full((GENES,), 0.5)

    def energy_noise_shape(self):
        return (1, 4, 4)

    def conditional_energy(self, batch, t, noise, at):
        x = batch.expression if batch.cells is None else (batch.cells * batch.cell_mask.unsqueeze(-1)).sum(1)
        size = noise.square().mean((1, 2, 3)) if at == "noise" else 1 + t
        return size * (3 * x[:, 2] - 2 * x[:, 5] + torch.sin(x[:, 11]))


def batch(n=40, seed=0):
    x = torch.rand(n, GENES, generator=torch.Generator().manual_seed(seed))
    return [(tuple(f"u{i}" for i in range(n)), Batch(x))]


def cut(batches, at):
    ((names, whole),) = batches
    rows = torch.arange(len(whole))
    return [(names[:at], whole.take(rows[:at])), (names[at:], whole.take(rows[at:]))]


@pytest.mark.parametrize("importance", [energy_gradients, integrated_gradients])
@pytest.mark.parametrize("at", ["path", "noise"])
def test_causal_genes_come_first(importance, at):
    genes = importance(Toy(), batch(), at=at).genes
    assert roc_auc_score(np.isin(np.arange(GENES), CAUSAL), genes["importance"]) == 1
    assert set(genes.sort_values("rank")["gene"][:3]) == {"G2", "G5", "G11"}
    assert sorted(genes["rank"]) == list(range(1, GENES + 1)) and (genes["n"] == 40).all()


def test_gradients_have_their_known_values():
    genes = energy_gradients(Toy(), batch(), times=(0.2, 0.6), scaling="none").genes.set_index("gene")
    assert genes.loc["G2", "importance"] == pytest.approx(3 * 1.4) == genes.loc["G2", "signed"]
    assert genes.loc["G5", "importance"] == pytest.approx(2 * 1.4) == -genes.loc["G5", "signed"]
    assert genes.loc["G2", "se"] == pytest.approx(0, abs=1e-6) and genes.loc["G0", "importance"] == 0
    scaled = energy_gradients(Toy(), batch(), times=(0.2, 0.6)).genes.set_index("gene")
    sd = batch()[0][1].expression[:, 2].std(correction=0).item()
    assert scaled.loc["G2", "importance"] == pytest.approx(3 * 1.4 * sd)


def test_integrated_gradients_of_a_linear_part_are_known_and_complete():
    attribution = integrated_gradients(Toy(), batch(), times=(0.5,))
    assert attribution.completeness < 1e-3
    x = batch()[0][1].expression
    expected = 1.5 * 3 * (x[:, 2] - 0.5)
    row = attribution.genes.set_index("gene").loc["G2"]
    assert row["importance"] == pytest.approx(expected.abs().mean().item(), rel=1e-4)
    assert row["signed"] == pytest.approx(expected.mean().item(), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("importance", [energy_gradients, integrated_gradients])
def test_importance_is_deterministic_and_does_not_depend_on_batches(importance):
    whole, again = (importance(Toy(), batch(), at="noise", draws=2, seed=3).genes for _ in range(2))
    assert whole.equals(again)
    parts = importance(Toy(), cut(batch(), 13), at="noise", draws=2, seed=3).genes
    np.testing.assert_allclose(parts["importance"], whole["importance"], rtol=1e-5, atol=1e-8)
    other = importance(Toy(), batch(), at="noise", draws=2, seed=4).genes
    assert not np.allclose(other["importance"], whole["importance"])


@pytest.mark.parametrize("importance", [energy_gradients, integrated_gradients])
def test_cells_of_a_unit_are_summed(importance):
    cells = torch.rand(8, 4, GENES, generator=torch.Generator().manual_seed(2))
    mask = torch.arange(4) < torch.tensor([1, 2, 3, 4] * 2)[:, None]
    cells = cells * mask.unsqueeze(-1)
    names = tuple("abcdefgh")
    attribution = importance(Toy(), [(names, Batch(cells.sum(1), cells=cells, cell_mask=mask))])
    assert set(attribution.genes.sort_values("rank")["gene"][:3]) == {"G2", "G5", "G11"}
    if importance is integrated_gradients:
        assert attribution.completeness < 1e-3
    else:
        raw = energy_gradients(
            Toy(), [(names, Batch(cells.sum(1), cells=cells, cell_mask=mask))], scaling="none", times=(0.0,)
        )
        # 3 a cell, 2.5 cells a unit on average.
        assert raw.genes.set_index("gene").loc["G2", "signed"] == pytest.approx(7.5, rel=1e-5)


def test_geneflow_gives_its_importance_on_the_path_with_complete_integrals():
    torch.manual_seed(0)
    options = {"relation_rank": 2, "widths": (16, 16), "embedding_dim": 16, "base": 8, "multipliers": (1,), "blocks": 1}
    method = GeneFlow(GeneFlow.Options(**options), SPEC).eval()
    for weight in method.unet.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    with torch.no_grad():  # genes from the tenth on are cut off from the network
        for weight in (method.encoder.first_block.first.weight, method.encoder.first_block.skip.weight):
            weight[:, 10:] = 0
        method.encoder.relation.base[0].weight[:, 10:] = 0
    ((names, units),) = batch(6)
    batches = [(names, Batch(units.expression, image=torch.rand(6, 3, 4, 4) * 2 - 1))]
    genes = energy_gradients(method, batches, times=(0.1, 0.9)).genes
    assert (genes["importance"][:10] > 0).all() and (genes["importance"][10:] == 0).all()
    attribution = integrated_gradients(method, batches, times=(0.1, 0.9), steps=48)
    assert attribution.completeness < 1e-3 and (attribution.genes["importance"][10:].abs() < 1e-9).all()


def test_nothing_to_average_over_is_refused():
    for importance in (energy_gradients, integrated_gradients):
        with pytest.raises(ConfigError, match="times"):
            importance(Toy(), batch(), times=())

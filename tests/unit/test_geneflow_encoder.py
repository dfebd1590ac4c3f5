import numpy as np
import pytest
import torch

from stmorph.errors import ConfigError
from stmorph.methods.geneflow.encoder import ExpressionEncoder
from stmorph.methods.geneflow.options import PictureOptions

GENES = 30
SMALL = {"relation_rank": 3, "widths": (32, 16), "embedding_dim": 24, "heads": 2, "base": 8}
SWITCHES = [name for name in PictureOptions.model_fields if PictureOptions.model_fields[name].default == "fixed"]


def encoder(**options) -> ExpressionEncoder:
    torch.manual_seed(0)
    return ExpressionEncoder(PictureOptions(**(SMALL | options)), GENES).eval()


def patches(n=5, most=6):
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(most) < torch.randint(1, most + 1, (n, 1), generator=generator)
    return torch.rand(n, most, GENES, generator=generator) * mask.unsqueeze(-1), mask


@pytest.mark.parametrize("which", ["paper", "code", "fixed"])
@pytest.mark.parametrize("heads", [True, False])
def test_padding_changes_nothing(which, heads):
    cells, mask = patches()
    network = encoder(
        encoder="multi", cell_attention=which, head_projection=which, cell_count=which, head_mixture=heads
    )
    z = network(cells, mask)
    junk = torch.full((5, 3, GENES), 7.0)
    more = network(torch.cat([cells, junk], 1), torch.cat([mask, torch.zeros(5, 3, dtype=torch.bool)], 1))
    torch.testing.assert_close(more, z, rtol=1e-5, atol=1e-6)


def test_order_of_cells_changes_nothing():
    cells, mask = patches()
    network = encoder(encoder="multi")
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(network(cells[:, order], mask[:, order]), network(cells, mask), rtol=1e-5, atol=1e-6)


def test_patches_do_not_mix():
    cells, mask = patches()
    network = encoder(encoder="multi")
    torch.testing.assert_close(network(cells, mask)[2:3], network(cells[2:3], mask[2:3]), rtol=1e-5, atol=1e-6)


def test_a_patch_without_cells_is_finite_and_so_are_its_gradients():
    cells, mask = patches()
    mask[1] = False
    network = encoder(encoder="multi")
    z = network(cells, mask)
    z.square().sum().backward()
    assert z.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in network.parameters() if weight.grad is not None)


def test_cell_weights_sum_to_one_over_the_cells_that_are_there():
    cells, mask = patches()
    network = encoder(encoder="multi")
    embedded = network.embed_cells(cells.flatten(0, 1)).unflatten(0, mask.shape)
    weights = network.pool.weights(embedded, mask)
    assert weights.shape == (5, 6, 2)
    torch.testing.assert_close(weights.sum(1), torch.ones(5, 2))
    assert (weights[~mask] == 0).all()


def test_number_of_cells_is_seen_only_where_it_is_told():
    one, mask = torch.rand(1, 1, GENES).expand(2, 4, GENES), torch.tensor([[True] * 4, [True] + [False] * 3])
    blind, told = (encoder(encoder="multi", cell_count=which)(one, mask) for which in ("code", "fixed"))
    torch.testing.assert_close(blind[0], blind[1], rtol=1e-5, atol=1e-6)
    assert (told[0] - told[1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("which", ["paper", "code", "fixed"])
def test_gradient_reaches_every_weight(kind, which):
    cells, mask = patches()
    switches = {name: which for name in SWITCHES}
    network = encoder(encoder=kind, relation_start="random", **switches)
    z = network(cells, mask) if kind == "multi" else network(cells[:, 0])
    (z * torch.randn_like(z)).sum().backward()
    without = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    # A shift of all heads' scores, like one of all genes' logits, cancels in the softmax.
    assert without == []


@pytest.mark.parametrize("flag", ["gene_relation", "gene_attention", "head_mixture", "feature_gate"])
def test_an_ablation_removes_its_weights(flag):
    whole, ablated = (sum(w.numel() for w in encoder(**{flag: on}).parameters()) for on in (True, False))
    assert ablated < whole
    assert encoder(**{flag: False})(torch.rand(2, GENES)).shape == (2, 24)


def test_relation_is_the_papers_formula():
    relation = encoder(relation_start="random").relation
    x = torch.rand(4, GENES)
    h = relation.base(x)
    for i in range(4):
        u = relation.factor_u(h[i]).reshape(GENES, 3)
        v = relation.factor_v(h[i]).reshape(3, GENES)
        torch.testing.assert_close(relation(x)[i], x[i] + 0.1 * ((x[i] @ u) @ v))


def test_relation_that_starts_at_zero_is_the_identity_and_learns():
    relation = encoder().relation
    x = torch.rand(4, GENES)
    torch.testing.assert_close(relation(x), x)
    relation(x).square().sum().backward()
    assert relation.factor_v.weight.grad.abs().sum() > 0


def test_gene_attention_keeps_the_scale_only_when_fixed():
    x = torch.rand(4, GENES)
    torch.testing.assert_close(encoder().gene_attention(x), x)
    torch.testing.assert_close(encoder(gene_attention_scale="code").gene_attention(x), x / GENES)


def test_standardised_input_does_not_see_a_genes_units_and_survives_a_constant_gene():
    x = torch.rand(50, GENES)
    x[:, 3] = 2.0
    scale = torch.linspace(0.5, 20, GENES)
    ones, others = encoder(), encoder()
    ones.standardise_by(x)
    others.standardise_by(x * scale)
    torch.testing.assert_close(ones(x), others(x * scale), rtol=1e-4, atol=1e-5)
    assert ones(x).isfinite().all()


def test_rows_in_parts_and_genes_in_parts_give_the_scale_of_all_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    x = np.log1p(rng.poisson(0.6, (500, GENES))).astype(np.float32)
    x[:, 3], x[:, 4] = 2.1, 0.0
    whole, rows, genes = encoder(), encoder(), encoder()
    whole.standardise_by(torch.from_numpy(x))
    cuts = np.sort(rng.integers(0, 500, 40))  # some parts are empty
    rows.standardise_by_parts(np.split(x, cuts))
    monkeypatch.setattr("stmorph.methods.geneflow.encoder._MOST_VALUES", 1500)
    genes.standardise_by(torch.from_numpy(x))
    for other in (rows, genes):
        assert torch.equal(other.mean, whole.mean) and torch.equal(other.sd, whole.sd)
    assert whole.sd[3] == whole.sd[4] == 1
    torch.testing.assert_close(whole.sd[:3], torch.from_numpy(x[:, :3].std(axis=0)))


def test_sparsity_is_of_the_layer_the_switch_names():
    paper, code = encoder(sparsity_of="paper"), encoder(sparsity_of="code", first_norm="code")
    torch.testing.assert_close(paper.sparsity(), paper.first_block.first.weight.abs().sum())
    assert code.sparsity().item() == GENES
    fixed = encoder()
    fixed.sparsity().backward()
    reading = [n for n, w in fixed.named_parameters() if w.ndim == 2 and w.shape[1] == GENES]
    assert sorted(n for n, w in fixed.named_parameters() if w.grad is not None) == sorted(reading)
    with pytest.raises(ConfigError, match="first_norm"):
        encoder(sparsity_of="code")


def test_weights_that_start_at_zero_know_no_gene_until_they_learn():
    torch.manual_seed(0)
    options = PictureOptions(reading_start="zero", widths=(16, 8), embedding_dim=8, heads=2, relation_rank=2)
    encoder = ExpressionEncoder(options, 12).eval()
    x = torch.randn(5, 12, requires_grad=True)
    embedding = encoder(x)
    assert torch.autograd.grad(embedding.sum(), x)[0].abs().max() == 0
    (encoder(x)[:, 0] * x[:, 3].detach()).sum().backward()
    assert encoder.first_block.first.weight.grad.abs().max() > 0  # and they can learn

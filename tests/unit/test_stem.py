"""Stem: its network is the paper's, every switch does what it says, and it learns a known conditional distribution."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from stmorph.errors import ConfigError
from stmorph.methods.base import Batch, DataSpec
from stmorph.methods.stem import Stem, StemOptions
from stmorph.methods.stem.network import time_features
from stmorph.randomness import BatchRandom
from stmorph.units import Units

TINY = {"blocks": 2, "heads": 2, "width": 16, "mlp_ratio": 2, "sampling_steps": 6}
GENES, DIM = 5, 3


def model_of(genes=GENES, dim=DIM, seed=0, **options) -> Stem:
    torch.manual_seed(seed)
    spec = DataSpec(genes=tuple(f"G{i}" for i in range(genes)), target_space="log1p_cp10k", embedding_dim=dim)
    return Stem(StemOptions(**{**TINY, **options}), spec)


def woken(model: Stem, seed=1) -> Stem:
    """Give the layers that start at zero some weight, as training would."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


def units_of(expression, embedding, views=2) -> Units:
    n, genes = expression.shape
    return Units(
        slide=np.full(n, "s"),
        barcode=np.array([f"b{i}" for i in range(n)]),
        spatial_um=np.zeros((n, 2)),
        genes=tuple(f"G{i}" for i in range(genes)),
        expression=expression.astype(np.float32),
        embedding=np.repeat(embedding[:, None], views, axis=1).astype(np.float32),
    )


def batch_of(n=4, dim=DIM, genes=GENES, seed=0) -> Batch:
    """Conditions with expression hidden behind NaN: a predictor must not read it when it draws."""
    rng = torch.Generator().manual_seed(seed)
    return Batch(expression=torch.full((n, genes), torch.nan), embedding=torch.randn(n, dim, generator=rng))


def loss_of(model, seed=0):
    rng = torch.Generator().manual_seed(seed)
    batch = Batch(expression=torch.rand(8, GENES, generator=rng) * 4, embedding=torch.randn(8, DIM, generator=rng))
    return model.training_step(batch, BatchRandom(torch.Generator().manual_seed(3), len(batch)))


def seeds(n, draws):
    return torch.arange(n * draws).reshape(n, draws) + 100


def test_size_is_the_papers():
    """Counted for 198 genes and UNI + CONCH (1536); the public code's second output adds 384 weights and a bias."""
    for variance, expected in (("paper", 35_637_889), ("code", 35_638_274)):
        spec = DataSpec(genes=tuple(map(str, range(198))), target_space="log2_counts", embedding_dim=1536)
        with torch.device("meta"):
            model = Stem(StemOptions(variance=variance), spec)
        counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.network.named_children()}
        assert sum(p.numel() for p in model.parameters()) == expected
        assert counts["blocks"] == 12 * (12 * 384**2 + 9 * 384 + 6 * 384 * 385)
        assert counts["image"] == 1536 * 1537 + 384 * 1537 and model.network.gene_type.shape == (198, 384)


@pytest.mark.parametrize(("genes_per_token", "tokens"), [(1, 5), (2, 3), (8, 1)])
@pytest.mark.parametrize("variance", ["paper", "fixed"])
def test_tokens_and_output_have_their_shapes_and_start_at_zero(genes_per_token, tokens, variance):
    model = model_of(genes_per_token=genes_per_token, variance=variance)
    network, x, t = model.network, torch.randn(4, GENES), torch.tensor([0, 10, 500, 999])
    image = model.condition(torch.randn(4, DIM))
    assert network.tokens(x).shape == (4, tokens, 16)
    channels = () if variance == "paper" else (2,)
    assert torch.equal(network(x, t, image), torch.zeros(4, GENES, *channels))
    for block in network.blocks:
        assert torch.equal(block(network.tokens(x), image), network.tokens(x))
    assert woken(model).network(x, t, image).shape == (4, GENES, *channels)


def test_a_token_is_its_value_and_its_type():
    network = model_of().network
    same = network.tokens(torch.full((1, GENES), 2.0))[0]
    torch.testing.assert_close(same - network.gene_type, same[:1] - network.gene_type[:1] + torch.zeros_like(same))
    assert not torch.allclose(same[0], same[1])


def test_genes_attend_to_each_other_and_the_condition_reaches_every_gene():
    network = woken(model_of()).network
    x, t, image = torch.randn(1, GENES), torch.tensor([5]), torch.randn(1, 16)
    changed = x.clone()
    changed[0, 2] += 3
    assert ((network(x, t, image) - network(changed, t, image)).abs() > 1e-6).all()
    assert ((network(x, t, image) - network(x, t, image + 1)).abs() > 1e-6).all()
    assert ((network(x, t, image) - network(x, t + 400, image)).abs() > 1e-6).all()


def test_time_features_are_cosines_then_sines():
    features = time_features(torch.tensor([0, 7]))
    assert features.shape == (2, 256)
    torch.testing.assert_close(features[0], torch.cat([torch.ones(128), torch.zeros(128)]))
    torch.testing.assert_close(features[1, [0, 128]], torch.tensor([np.cos(7.0), np.sin(7.0)], dtype=torch.float32))
    assert float(features[1, 255]) == pytest.approx(7 / 10_000 ** (127 / 128), rel=1e-4)


def test_draws_depend_on_their_own_seed_alone():
    model, batch = woken(model_of()), batch_of()
    result = model.draw(batch, seeds(4, 3))
    assert result.shape == (4, 3, GENES) and result.dtype == torch.float32 and torch.isfinite(result).all()
    assert torch.equal(result, model.draw(batch, seeds(4, 3)))
    alone = model.draw(batch.take(torch.tensor([2])), seeds(4, 3)[2:3, 1:2])
    torch.testing.assert_close(alone[0, 0], result[2, 1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(result[0, 0], result[0, 1])


def test_state_is_all_that_a_model_is():
    rng = np.random.default_rng(0)
    model = woken(model_of(clip="training_range"))
    model.prepare(units_of(rng.gamma(2, size=(30, GENES)), rng.normal(size=(30, DIM)) * 9))
    fresh = model_of(seed=5, clip="training_range")
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.draw(batch_of(), seeds(4, 2)), model.draw(batch_of(), seeds(4, 2)))


def test_a_training_step_is_a_function_of_its_generator():
    assert loss_of(model_of())["loss"] == loss_of(model_of())["loss"]
    untrained = float(loss_of(model_of())["loss"].detach())
    assert untrained == pytest.approx(1.0, abs=0.5), "at the start the prediction is 0 and the noise has variance 1"


def test_expression_scaling():
    rng = np.random.default_rng(0)
    expression = rng.normal(size=(50, GENES)) * [1, 2, 3, 4, 0] + [5, 6, 7, 8, 9]
    units = units_of(expression, rng.normal(size=(50, DIM)))
    fixed, paper, code = (model_of(expression_scaling=s) for s in ("fixed", "paper", "code"))
    for model in (fixed, paper, code):
        model.prepare(units)
    np.testing.assert_allclose(fixed.expression_mean, units.expression.mean(0), rtol=1e-5)
    np.testing.assert_allclose(fixed.expression_sd, [*units.expression.std(0)[:4], 1.0], rtol=1e-5)
    assert torch.equal(paper.expression_sd, torch.ones(GENES)) and torch.equal(code.expression_mean, torch.zeros(GENES))
    # The network that predicts nothing but its clean target's mean shows the space it works in.
    still = model_of(predicts="x0", expression_scaling="fixed")
    still.prepare(units)
    np.testing.assert_allclose(still.draw(batch_of(1), seeds(1, 1))[0, 0], units.expression.mean(0), rtol=1e-5)
    raw = model_of(predicts="x0", expression_scaling="code")
    raw.prepare(units)
    assert torch.equal(raw.draw(batch_of(1), seeds(1, 1))[0, 0], torch.zeros(GENES))


@pytest.mark.parametrize("switch", ["paper", "code", "fixed"])
def test_embedding_scaling(switch):
    rng = np.random.default_rng(0)
    embedding = (rng.normal(size=(40, DIM)) * [1, 100, 0] + [0, 500, 3]).astype(np.float32)
    model = model_of(embedding_scaling=switch)
    model.prepare(units_of(rng.normal(size=(40, GENES)), embedding))
    seen = []
    model.network.image.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.condition(torch.from_numpy(embedding))
    if switch == "fixed":
        np.testing.assert_allclose(seen[0].std(0, correction=0), [1, 1, 0], atol=1e-4)
        np.testing.assert_allclose(seen[0].mean(0), 0, atol=1e-4)
    else:
        np.testing.assert_array_equal(seen[0], embedding)


def test_activation():
    values = torch.linspace(-3, 3, 13)
    by = {s: model_of(activation=s).network.blocks[0].activation(values) for s in ("paper", "code", "fixed")}
    torch.testing.assert_close(by["paper"], values * values.sigmoid())
    torch.testing.assert_close(by["code"], torch.nn.GELU(approximate="tanh")(values))
    assert torch.equal(by["code"], by["fixed"]) and not torch.allclose(by["paper"], by["code"])


def test_variance():
    paper, code, fixed = (woken(model_of(variance=v)) for v in ("paper", "code", "fixed"))
    assert set(loss_of(paper)) == {"loss"}
    parts = {name: loss_of(model) for name, model in (("code", code), ("fixed", fixed))}
    for name, weight in (("code", 1.0), ("fixed", 0.001)):
        of = parts[name]
        torch.testing.assert_close(of["loss"], of["noise_error"] + weight * of["bound_bits"])
    torch.testing.assert_close(parts["code"]["noise_error"], parts["fixed"]["noise_error"])
    wide = code.draw(batch_of(), seeds(4, 50)).std()
    with torch.no_grad():
        code.network.final.weight[1].zero_()
        code.network.final.bias[1] = -1.0  # the lower end: the posterior variance
    assert code.draw(batch_of(), seeds(4, 50)).std() < wide


def test_picture_likelihood_is_used_at_time_zero_by_code_alone():
    draw_zero = {"diffusion_steps": 2, "sampling_steps": 2}
    bounds = [loss_of(model_of(variance=v, **draw_zero))["bound_bits"].item() for v in ("code", "fixed")]
    assert bounds[0] != pytest.approx(bounds[1], rel=1e-3)


def test_clip():
    rng = np.random.default_rng(0)
    units = units_of(rng.normal(size=(50, GENES)), rng.normal(size=(50, DIM)))
    result = {}
    for clip in ("none", "training_range", "nonnegative"):
        model = model_of(clip=clip)
        model.prepare(units)
        with torch.no_grad():
            model.network.final.bias.fill_(-0.5)
        result[clip] = model.draw(batch_of(), seeds(4, 30))
    low, high = units.expression.min(0) - 1e-5, units.expression.max(0) + 1e-5
    assert not ((result["none"] >= torch.from_numpy(low)) & (result["none"] <= torch.from_numpy(high))).all()
    assert (
        (result["training_range"] >= torch.from_numpy(low)) & (result["training_range"] <= torch.from_numpy(high))
    ).all()
    assert torch.equal(result["nonnegative"], result["none"].clamp_min(0))


def test_sampling_steps_and_eta_change_the_draws():
    batch = batch_of()
    states = model_of()
    woken(states)
    drawn = []
    for options in ({}, {"sampling_steps": 12}, {"eta": 0.0}):
        model = model_of(**options)
        model.load_state_dict(states.state_dict())
        drawn.append(model.draw(batch, seeds(4, 2)))
    assert not torch.allclose(drawn[0], drawn[1]) and not torch.allclose(drawn[0], drawn[2])


@pytest.mark.parametrize("embedding_dim", [1, 7, 60])
def test_any_embedding_will_do(embedding_dim):
    model = woken(model_of(dim=embedding_dim))
    assert model.draw(batch_of(dim=embedding_dim), seeds(4, 1)).shape == (4, 1, GENES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 15}, "expected a width that heads divides"),
        ({"sampling_steps": 2000}, "expected at most diffusion_steps"),
        ({"variance": "code", "eta": 0.0}, "expects predicts: noise and eta: 1"),
        ({"variance": "fixed", "predicts": "x0"}, "expects predicts: noise and eta: 1"),
        ({"depth": 3}, "Extra inputs are not permitted"),
    ],
)
def test_contradictory_options_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        StemOptions(**{**TINY, **options})


def test_nothing_to_condition_on_is_refused():
    with pytest.raises(ConfigError, match="embedding of 0 dimensions"):
        Stem(StemOptions(), DataSpec(genes=("G",), target_space="log1p_cp10k"))


@pytest.mark.parametrize("options", [{"predicts": "noise"}, {"predicts": "v", "genes_per_token": 2}])
def test_it_learns_a_known_conditional_mean_and_spread(options):
    """Two genes: y = (3 + 2e, 5 - e) + noise of sd (0.5, 1.0); the draws must show the mean and the spread."""
    rng = np.random.default_rng(0)
    e = rng.normal(size=(2000, 1))
    y = np.hstack([3 + 2 * e, 5 - e]) + rng.normal(size=(2000, 2)) * [0.5, 1.0]
    model = model_of(2, 1, **{**TINY, "width": 32, "sampling_steps": 30, **options})
    model.prepare(units_of(y, e))
    y, e = torch.from_numpy(y).float(), torch.from_numpy(e).float()
    optimiser, steps = torch.optim.AdamW(model.parameters(), lr=4e-3), 400
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(len(y), (128,), generator=generator)
        loss = model.training_step(Batch(expression=y[rows], embedding=e[rows]), BatchRandom(generator, len(rows)))[
            "loss"
        ]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
    asked = torch.tensor([[-1.0], [0.0], [1.0]])
    drawn = model.draw(Batch(expression=torch.full((3, 2), torch.nan), embedding=asked), seeds(3, 300))
    expected = torch.hstack([3 + 2 * asked, 5 - asked])
    assert (drawn.mean(1) - expected).abs().max() < 0.35, drawn.mean(1)
    ratio = drawn.std(1).mean(0) / torch.tensor([0.5, 1.0])
    assert (ratio > 0.7).all() and (ratio < 1.35).all(), ratio

"""Training mean, nearest neighbours and ridge against scikit-learn and their own definitions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler, normalize

from stmorph.errors import ConfigError
from stmorph.methods.base import Batch, DataSpec
from stmorph.methods.registry import load_method
from stmorph.units import Units

GENES = tuple(f"G{i}" for i in range(7))
DIM = 5


def made(n=90, slides=3, seed=0):
    rng = np.random.default_rng(seed)
    embedding = (rng.normal(size=(n, 2, DIM)) * [1, 10, 100, 0.1, 1] + 3).astype(np.float32)
    signal = (embedding[:, 0] - 3) / [1, 10, 100, 0.1, 1] @ rng.normal(size=(DIM, len(GENES)))
    return Units(
        slide=np.array([f"s{i % slides}" for i in range(n)]),
        barcode=np.array([f"b{i:03d}" for i in range(n)]),
        spatial_um=np.zeros((n, 2)),
        genes=GENES,
        expression=(signal + rng.normal(size=signal.shape)).astype(np.float32),
        embedding=embedding,
    )


def fitted(name, units, **options):
    method = load_method(name)
    model = method(method.Options(**options), DataSpec(genes=GENES, target_space="log1p_cp10k", embedding_dim=DIM))
    model.fit(units)
    return model


def drawn(model, units, draws=2):
    """Draw with expression hidden behind NaN: a predictor must not read it."""
    hidden = torch.full((len(units), len(GENES)), torch.nan)
    seeds = torch.arange(len(units) * draws).reshape(-1, draws)
    result = model.draw(Batch(expression=hidden, embedding=torch.from_numpy(units.embedding[:, 0])), seeds)
    assert result.shape == (len(units), draws, len(GENES)) and result.dtype == torch.float32
    return result


def test_training_mean_is_the_mean_for_every_unit_and_draw():
    train, test = made(), made(20, seed=1)
    result = drawn(fitted("training_mean", train), test).numpy()
    np.testing.assert_allclose(result, np.broadcast_to(train.expression.mean(0), result.shape), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_nearest_neighbours_equal_sklearn(metric):
    train, test = made(), made(20, seed=1)
    scale = StandardScaler().fit(train.embedding[:, 0].astype(np.float64))
    known, asked = (scale.transform(u.embedding[:, 0].astype(np.float64)) for u in (train, test))
    if metric == "cosine":
        known, asked = normalize(known), normalize(asked)
    expected = KNeighborsRegressor(9).fit(known, train.expression).predict(asked)
    result = drawn(fitted("nearest_neighbour", train, k=9, metric=metric), test)
    np.testing.assert_allclose(result[:, 0], expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(result[:, 0], result[:, 1])


def test_a_neighbour_draw_is_one_neighbour_and_all_of_them_average_to_the_mean():
    train, test = made(), made(20, seed=1)
    mean = drawn(fitted("nearest_neighbour", train, k=6), test, 1)[:, 0]
    result = drawn(fitted("nearest_neighbour", train, k=6, draw="neighbour"), test, 6)
    np.testing.assert_allclose(result.mean(1), mean, rtol=1e-4, atol=1e-5)
    known = {tuple(row) for row in train.expression.tolist()}
    assert all(tuple(row) in known for row in result.flatten(0, 1).tolist())


def test_too_many_neighbours_are_refused():
    with pytest.raises(ConfigError, match=r"options\.k of nearest_neighbour is 50 but there are 10 training units"):
        fitted("nearest_neighbour", made(10))


def test_ridge_equals_sklearn():
    train, test = made(), made(20, seed=1)
    scale = StandardScaler().fit(train.embedding[:, 0].astype(np.float64))
    known, asked = (scale.transform(u.embedding[:, 0].astype(np.float64)) for u in (train, test))
    expected = SklearnRidge(alpha=50).fit(known, train.expression.astype(np.float64)).predict(asked)
    np.testing.assert_allclose(drawn(fitted("ridge", train, penalty=50), test)[:, 0], expected, rtol=1e-4, atol=1e-4)


def test_ridge_within_slides_is_blind_to_a_slide_offset():
    train = made()
    offset = np.array([{"s0": 0.0, "s1": 50.0, "s2": -20.0}[s] for s in train.slide], dtype=np.float32)[:, None]
    train.expression[:] += offset * 2
    train.embedding[:] += (offset * [3, 0, 0, 0, 0])[:, None].astype(np.float32)
    within, pooled = (fitted("ridge", train, standardise=s, penalty=1.0) for s in ("slide", "train"))
    assert pooled.weights[0].abs().min() > 5 * pooled.weights[1:].abs().max()
    assert within.weights[0].abs().max() < 5 * within.weights[1:].abs().max()


def test_ridge_chooses_the_penalty_that_suits_the_data():
    """Noise asks for a strong penalty, a clean linear map for a weak one; the choice looks at training slides alone."""
    rng = np.random.default_rng(0)
    train = made()
    noise = replace(train, expression=rng.normal(size=train.expression.shape).astype(np.float32))
    clean = train.embedding[:, 0] @ rng.normal(size=(5, train.expression.shape[1]))
    linear = replace(train, expression=clean.astype(np.float32))
    strong, weak = fitted("ridge", noise), fitted("ridge", linear)
    assert strong.weights.norm() < fitted("ridge", noise, penalty=50.0).weights.norm()
    np.testing.assert_array_equal(weak.weights, fitted("ridge", linear, penalty=5.0).weights)


def test_ridge_without_a_penalty_on_a_repeated_feature_is_refused():
    train = made()
    train.embedding[:, :, 1] = 3.0
    with pytest.raises(ConfigError, match=r"options\.penalty of ridge is 0"):
        fitted("ridge", train, penalty=0)
    assert torch.isfinite(fitted("ridge", train).weights).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [("training_mean", {}), ("nearest_neighbour", {"k": 5}), ("ridge", {}), ("ridge", {"standardise": "slide"})],
)
def test_state_is_all_that_a_model_is_and_mates_do_not_matter(name, options):
    train, test = made(), made(20, seed=1)
    model = fitted(name, train, **options)
    fresh = type(model)(model.options, model.spec)
    fresh.load_state_dict(model.state_dict())
    result = drawn(model, test)
    assert torch.equal(drawn(fresh, test), result)
    np.testing.assert_allclose(drawn(model, test.take(np.array([3])))[0], result[3], rtol=1e-6, atol=1e-6)

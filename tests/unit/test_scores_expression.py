import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import mean_absolute_error, mean_squared_error

from stmorph.errors import ConfigError, DataError
from stmorph.scores.estimators import half_sample_mode, point_prediction
from stmorph.scores.expression import moments, score_predictor
from stmorph.scores.resample import bootstrap_counts
from stmorph.scores.rows import to_frame


def tissue(n=60, genes=12, slides=("a", "b"), noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(2, rng.uniform(0.5, 2, genes), (n * len(slides), genes))
    draws = truth[:, None] + rng.normal(0, noise, (len(truth), 7, genes)) * np.linspace(0.3, 3, genes)
    train = rng.normal(2, np.linspace(0.5, 2, genes), (80, genes))
    return draws, truth, np.repeat(slides, n), [f"g{i}" for i in range(genes)], train


def score(*data, **options):
    rows, table = score_predictor(*data, **{"target_space": "log1p_cp10k", "k": (3, 5), "resamples": 50} | options)
    return to_frame(rows), table


def one(frame, **selector):
    chosen = frame
    for name, value in selector.items():
        chosen = chosen[chosen[name].isna() if value is None else (chosen[name] == value).fillna(False)]
    assert len(chosen) == 1
    return chosen.iloc[0]


def test_a_perfect_prediction_is_perfect():
    _, truth, slide, genes, train = tissue()
    frame, _ = score(truth[:, None], truth, slide, genes, train, k=(3, 12))
    assert frame[frame.metric.str.startswith("pcc")].value.to_numpy() == pytest.approx(1)
    assert frame[frame.metric.isin(["mae", "mse", "rvd", "rvd_median"])].value.to_numpy() == pytest.approx(0)
    assert set(frame.slide) == {"a", "b", "all"}


def test_a_case_by_hand():
    truth = np.array([[0.0, 1], [1, 1], [2, 4]])
    predicted = np.array([[0.0, 2], [2, 0], [1, 1]])
    frame, table = score(
        predicted[:, None], truth, np.array(["s"] * 3), ["x", "y"], truth, k=(1, 2), estimators=("mean",)
    )
    # x: covariance 1/3, variances 2/3 and 2/3; y: covariance 0.
    assert table.pcc.to_list() == pytest.approx([0.5, 0])
    at = {"slide": "s"}
    assert one(frame, metric="pcc", k=1, gene_choice="oracle", **at).value == pytest.approx(0.5)
    assert one(frame, metric="pcc", k=1, gene_choice="train", **at).value == pytest.approx(0)  # y varies most
    assert one(frame, metric="pcc", gene_choice="all", **at).value == pytest.approx(0.25)
    assert one(frame, metric="mae", **at).value == pytest.approx(7 / 6)
    assert one(frame, metric="mse", **at).value == pytest.approx(13 / 6)
    # x: (2/3 - 2/3)^2; y: (2/3 - 2)^2 / 2^2 = 4/9.
    assert one(frame, metric="rvd", **at).value == pytest.approx(2 / 9)


def test_values_agree_with_scipy_and_sklearn_and_all_is_the_mean_over_slides():
    draws, truth, slide, genes, train = tissue()
    frame, table = score(draws, truth, slide, genes, train, estimators=("median",))
    predicted = np.median(draws, axis=1)
    for name in ("a", "b"):
        here = slide == name
        pcc = [scipy.stats.pearsonr(predicted[here, g], truth[here, g])[0] for g in range(len(genes))]
        assert table[table.slide == name].pcc.to_numpy() == pytest.approx(pcc)
        oracle = one(frame, metric="pcc", k=3, gene_choice="oracle", slide=name)
        assert oracle.value == pytest.approx(np.sort(pcc)[-3:].mean())
        assert one(frame, metric="pcc_median", slide=name).value == pytest.approx(np.median(pcc))
        assert one(frame, metric="mae", slide=name).value == pytest.approx(
            mean_absolute_error(truth[here], predicted[here])
        )
        assert one(frame, metric="mse", slide=name).value == pytest.approx(
            mean_squared_error(truth[here], predicted[here])
        )
        assert oracle.n == 60
    per_slide = frame[(frame.metric == "rvd") & (frame.slide != "all")].value
    total = one(frame, metric="rvd", slide="all")
    assert total.value == pytest.approx(per_slide.mean())
    assert total.n == 120


def test_the_oracle_is_never_below_the_genes_fixed_on_training_units():
    frame, _ = score(*tissue(noise=3), k=(1, 3, 5, 12))
    pcc = frame[frame.metric == "pcc"].pivot_table(
        index=["estimator", "slide", "k"], columns="gene_choice", values="value"
    )
    assert (pcc.oracle >= pcc.train - 1e-12).all()
    assert (pcc.oracle > pcc.train + 0.01).any()
    assert pcc.xs(12, level="k").oracle.to_numpy() == pytest.approx(pcc.xs(12, level="k").train.to_numpy())


def test_test_truth_does_not_choose_the_train_genes():
    draws, truth, slide, genes, train = tissue()
    truth[:, 0] *= 100  # now the most variable gene of the test units, not of the training units
    frame, table = score(draws, truth, slide, genes, train, estimators=("mean",))
    chosen = [genes[i] for i in np.argsort(train.var(axis=0))[-3:]]
    assert "g0" not in chosen
    expected = table[table.gene.isin(chosen) & (table.slide == "a")].pcc.mean()
    assert one(frame, metric="pcc", k=3, gene_choice="train", slide="a").value == pytest.approx(expected)


def test_constant_genes_are_left_out_and_counted():
    draws, truth, slide, genes, train = tissue()
    truth[:, 4], draws[:, :, 7] = 0.1, 0.3
    frame, table = score(draws, truth, slide, genes, train, estimators=("mean",))
    assert sorted(table[table.pcc.isna()].gene.unique()) == ["g4", "g7"]
    row = one(frame, metric="pcc", gene_choice="all", slide="a")
    assert row.value == pytest.approx(table[table.slide == "a"].pcc.mean())
    assert row.note == "truth constant in 1 and prediction constant in 1 of 12 genes, left out as undefined"
    assert "truth constant in 1 of 12 genes" in one(frame, metric="rvd", slide="a").note
    assert np.isfinite(one(frame, metric="rvd", slide="a").value)


def test_a_constant_prediction_has_no_correlation_rather_than_none_at_all():
    _, truth, slide, genes, train = tissue()
    draws = np.broadcast_to(train.mean(axis=0), (len(truth), 1, 12)).astype(np.float32)
    frame, _ = score(draws, truth, slide, genes, train, estimators=("mean",))
    pcc = frame[frame.metric == "pcc"]
    assert pcc.value.isna().all()
    assert pcc.note.str.contains("prediction constant").all()
    assert one(frame, metric="rvd", slide="all").value == pytest.approx(1)


def test_more_genes_than_the_panel_holds_is_undefined_and_says_so():
    frame, _ = score(*tissue(), k=(13,))
    rows = frame[(frame.metric == "pcc") & frame.k.notna()]
    assert rows.value.isna().all()
    assert rows.note.str.contains("the panel has 12 genes").all()


def test_values_do_not_depend_on_the_order_of_units():
    draws, truth, slide, genes, train = tissue()
    order = np.random.default_rng(5).permutation(len(truth))
    first, _ = score(draws, truth, slide, genes, train)
    second, _ = score(draws[order], truth[order], slide[order], genes, train[::-1])
    assert second.value.to_numpy() == pytest.approx(first.value.to_numpy())


def test_duplicated_units_change_no_value():
    draws, truth, slide, genes, train = tissue()
    first, _ = score(draws, truth, slide, genes, train)
    second, _ = score(np.repeat(draws, 2, 0), np.repeat(truth, 2, 0), np.repeat(slide, 2), genes, train)
    assert second.value.to_numpy() == pytest.approx(first.value.to_numpy())


def test_weighted_moments_are_those_of_the_repeated_units():
    draws, truth, *_ = tissue()
    predicted, truth = draws[:60].mean(axis=1), truth[:60]
    counts = bootstrap_counts(60, 4, 0, "a")
    assert counts.sum(axis=1).tolist() == [60] * 4
    together = moments(predicted, truth, counts)
    for b in range(4):
        index = np.repeat(np.arange(60), counts[b].astype(int))
        alone = moments(predicted[index], truth[index])
        assert together.pcc[b] == pytest.approx(alone.pcc)
        assert together.var_true[b] == pytest.approx(alone.var_true)


def test_a_gene_seen_in_one_unit_is_undefined_where_a_resample_misses_it():
    truth = np.zeros((30, 2))
    truth[:, 1], truth[3, 0] = np.arange(30), 4
    counts = bootstrap_counts(30, 40, 0, "s")
    pcc = moments(truth + 0.1 * np.arange(30)[:, None], truth, counts).pcc
    assert (np.isnan(pcc[:, 0]) == (counts[:, 3] == 0)).all()


def test_the_interval_covers_the_truth():
    """Correlation .6 of normal pairs: some 95 of 100 intervals hold it (binomial: 85 to 99 in all but 1 of 10,000)."""
    rng, held = np.random.default_rng(1), 0
    for trial in range(100):
        x = rng.normal(size=(150, 1))
        y = 0.6 * x + 0.8 * rng.normal(size=(150, 1))
        frame, _ = score(
            x[:, None], y, np.full(150, "s"), ["g"], y, k=(), estimators=("mean",), resamples=200, seed=trial
        )
        row = one(frame, metric="pcc", slide="s")
        held += row.ci_low <= 0.6 <= row.ci_high
    assert 85 <= held <= 99


def test_the_standard_error_of_a_mean_is_that_of_the_textbook():
    draws, truth, slide, genes, train = tissue(n=400)
    frame, _ = score(draws, truth, slide, genes, train, estimators=("draw",), resamples=2000)
    error = np.abs(draws[:, 0] - truth)[slide == "a"].mean(axis=1)
    assert one(frame, metric="mae", slide="a").se == pytest.approx(error.std(ddof=1) / 20, rel=0.08)
    parts = [one(frame, metric="mae", slide=s).se for s in "ab"]
    assert one(frame, metric="mae", slide="all").se == pytest.approx(np.hypot(*parts) / 2, rel=0.08)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    first, second, third = (score(*tissue(), seed=s)[0] for s in (1, 1, 2))
    assert first.equals(second)
    assert (first.ci_low != third.ci_low).any()


def naive_mode(values):
    values = np.sort(values)
    while len(values) > 3:
        half = -(-len(values) // 2)
        start = min(range(len(values) - half + 1), key=lambda i: values[i + half - 1] - values[i])
        values = values[start : start + half]
    if len(values) < 3:
        return values.mean()
    low, high = values[1] - values[0], values[2] - values[1]
    return values[1] if low == high else values[:2].mean() if low < high else values[1:].mean()


@pytest.mark.parametrize("draws", [1, 2, 3, 4, 5, 20, 21])
def test_the_mode_is_the_half_sample_mode(draws):
    values = np.random.default_rng(draws).gamma(1.5, size=(30, draws, 3)).round(2)
    mode = half_sample_mode(values, chunk=7)
    assert mode == pytest.approx(np.array([[naive_mode(values[i, :, g]) for g in range(3)] for i in range(30)]))


def test_the_mode_finds_the_peak_where_mean_and_median_do_not():
    rng = np.random.default_rng(0)
    values = np.where(
        rng.random((1, 3000, 4)) < 0.6, rng.normal(1, 0.1, (1, 3000, 4)), rng.uniform(2, 20, (1, 3000, 4))
    )
    assert point_prediction(values, "mode") == pytest.approx(1, abs=0.15)
    assert (point_prediction(values, "mean") > 3).all()
    zeros = np.where(np.arange(20) < 11, 0.0, np.linspace(1, 9, 20))[None, :, None]
    assert point_prediction(zeros, "mode") == pytest.approx(0)


def test_bad_input_is_refused():
    draws, truth, slide, genes, train = tissue()
    with pytest.raises(DataError, match="sample again"):
        score(draws[:-1], truth, slide, genes, train)
    with pytest.raises(DataError, match="panel has 11 genes"):
        score(draws, truth, slide, genes[:-1], train)
    draws[3, 0, 0] = np.nan
    with pytest.raises(DataError, match="not finite in 1 of 120 units"):
        score(draws, truth, slide, genes, train)
    with pytest.raises(ConfigError, match="'average'; expected one of mean"):
        score(truth[:, None], truth, slide, genes, train, estimators=("average",))

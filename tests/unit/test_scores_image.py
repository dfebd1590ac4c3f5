import numpy as np
import pytest
from skimage.metrics import structural_similarity

from stmorph.errors import ConfigError, DataError, WeightsError
from stmorph.scores.conditioning import Programmes, paired_ranks, programme_activity
from stmorph.scores.features import EncoderFeatures, InceptionFeatures, choose_extractor, scale_by
from stmorph.scores.frechet import frechet_of_features
from stmorph.scores.image import ReferenceTiles, names_of_features, score_generator, ssim
from stmorph.scores.rows import to_frame

STATISTICS = ("darkness", "redness", "spread", "flat")


class Colours:
    """A stand-in with the interface of an encoder: four named statistics of very different size."""

    name, dim, features = "colours", 4, STATISTICS

    def encode(self, tiles, um_per_px):
        values = tiles.astype(np.float64)
        darkness, redness = 1e4 * (255 - values.mean(axis=(1, 2, 3))), values[..., 0].mean(axis=(1, 2)) / 255
        return np.stack([darkness, redness, values.std(axis=(1, 2, 3)), np.full(len(tiles), um_per_px)], axis=1)


EXTRACT = EncoderFeatures(Colours(), 0.5, batch=7)


def slides(n=40, names=("a", "b"), px=16, seed=0):
    """Tiles whose darkness follows gene 0 (and its programme) and nothing else."""
    rng = np.random.default_rng(seed)
    slide = np.repeat(names, n)
    expression = rng.normal(size=(len(slide), 5))
    level = 128 - 20 * expression[:, 0]
    tiles = level[:, None, None, None] + rng.normal(0, 15, (len(slide), px, px, 3))
    return np.clip(tiles, 0, 255).astype(np.uint8), slide, expression


def score(generated, real, slide, **options):
    return to_frame(score_generator(generated, real, slide, EXTRACT, resamples=40, **options))


def value(frame, metric, slide="all", **more):
    chosen = frame[(frame.metric == metric) & (frame.slide == slide)]
    for name, wanted in more.items():
        chosen = chosen[chosen[name] == wanted]
    assert len(chosen) == 1
    return chosen.iloc[0].value


def programmes(expression, pairs=(("dark", "darkness"),)):
    members = {"dark": ["g0"], "elsewhere": ["nowhere"]}
    return Programmes(expression, [f"g{i}" for i in range(5)], members, pairs, STATISTICS)


def test_the_real_tiles_themselves_score_best():
    real, slide, expression = slides()
    frame = score(real[:, None], real, slide, programmes=programmes(expression))
    assert value(frame, "ssim") == pytest.approx(1)
    assert value(frame, "feature_distance") == 0
    assert value(frame, "fid", "a") == value(frame, "fid", "pooled") == pytest.approx(0, abs=1e-9)
    assert value(frame, "retrieval_rank") == 0
    assert value(frame, "retrieval_top1") == value(frame, "retrieval_top5pct") == 1
    assert value(frame, "programme_rho_difference") == 0
    assert value(frame, "statistic_rho") == pytest.approx(1)
    assert set(frame[frame.metric == "fid"].features) == {"colours(z)"}
    assert set(frame[frame.metric == "fid"].slide) == {"a", "b", "all", "pooled"}
    assert set(frame.estimator) == {"draw"}


def test_shuffled_pictures_keep_their_distribution_and_lose_their_condition():
    real, slide, expression = slides(n=150)
    order = np.concatenate([np.random.default_rng(1).permutation(150) + start for start in (0, 150)])
    frame = score(real[order][:, None], real, slide, programmes=programmes(expression))
    assert value(frame, "fid") == pytest.approx(0, abs=1e-9)
    assert value(frame, "retrieval_rank") == pytest.approx(0.5, abs=0.08)
    assert abs(value(frame, "programme_rho")) < 0.25
    assert value(frame, "programme_rho_real") > 0.9
    assert value(frame, "ssim") < 0.5


def test_a_generator_that_ignores_its_condition_is_at_chance():
    real, slide, _ = slides()
    frame = score(np.repeat(real[:1], 80, axis=0)[:, None], real, slide)
    assert value(frame, "retrieval_rank") == pytest.approx(0.5, abs=0.01)
    assert value(frame, "retrieval_top1") == pytest.approx(1 / 40, abs=1e-9)
    # All real tiles alike: nothing can be told apart, whatever the order of rows.
    nearer, ties = paired_ranks(np.ones((9, 3)), np.full((9, 3), 2.0))
    assert nearer.tolist() == [0] * 9
    assert ties.tolist() == [8] * 9


def test_ranks_agree_with_the_distances_sorted():
    rng = np.random.default_rng(2)
    real, generated = rng.normal(size=(1100, 6)), rng.normal(size=(1100, 6))
    nearer, ties = paired_ranks(generated, real)
    distance = np.linalg.norm(generated[:, None] - real[None], axis=2)
    assert nearer.tolist() == (distance < np.diag(distance)[:, None]).sum(axis=1).tolist()
    assert not ties.any()


def test_a_picture_that_follows_the_programme_has_its_sign_and_rank():
    real, slide, expression = slides(n=100)
    follows = slides(n=100, seed=0)[0]
    against = (255 - follows).astype(np.uint8)
    good, bad = (score(g[:, None], real, slide, programmes=programmes(expression), seed=1) for g in (follows, against))
    assert value(good, "programme_rho") > 0.95
    assert value(bad, "programme_rho") < -0.95
    assert (value(good, "programme_sign"), value(bad, "programme_sign")) == (1, 0)
    assert value(good, "programme_rho_binned") == pytest.approx(1)
    assert value(bad, "programme_rho_difference") == pytest.approx(
        value(bad, "programme_rho") - value(bad, "programme_rho_real")
    )
    row = good[good.metric == "programme_rho"].iloc[0]
    assert (row.features, row.reference, row.note) == (
        "colours: darkness",
        "programme: dark",
        "programme=dark; statistic=darkness",
    )
    assert row.ci_low < row.value <= row.ci_high


def test_a_programme_outside_the_panel_or_a_flat_statistic_is_undefined():
    real, slide, expression = slides()
    asked = programmes(expression, (("elsewhere", "darkness"), ("dark", "flat")))
    frame = score(real[:, None], real, slide, programmes=asked)
    rows = frame[frame.metric == "programme_rho"]
    assert rows.value.isna().all()
    assert rows[rows.reference == "programme: elsewhere"].note.str.contains("in the panel").all()
    with pytest.raises(ConfigError, match=r"'brightness'.*expected one of darkness, redness"):
        score(real[:, None], real, slide, programmes=programmes(expression, (("dark", "brightness"),)))
    with pytest.raises(ConfigError, match="'bright' does not exist"):
        score(real[:, None], real, slide, programmes=programmes(expression, (("bright", "darkness"),)))


def test_activity_is_the_mean_of_z_scores():
    expression = np.array([[0.0, 5, 1], [2, 5, 3], [4, 5, 8]])
    activity = programme_activity(expression, ["x", "flat", "y"], ["x", "flat"])
    assert activity == pytest.approx([-np.sqrt(1.5), 0, np.sqrt(1.5)])
    with pytest.raises(DataError, match="in the panel and varies"):
        programme_activity(expression, ["x", "flat", "y"], ["flat"])


def test_features_are_scaled_by_the_real_tiles_alone():
    real, slide, _ = slides()
    generated = np.clip(real.astype(int) + 30, 0, 255).astype(np.uint8)
    raw = EXTRACT(real)
    frame = score(generated[:, None], real, slide)
    mean, sd = raw.mean(axis=0), np.where(raw.std(axis=0) > 0, raw.std(axis=0), 1)
    x, y = (EXTRACT(generated) - mean) / sd, (raw - mean) / sd
    assert value(frame, "fid", "pooled") == pytest.approx(frechet_of_features(x, y))
    assert value(frame, "feature_distance_sd", "a") == pytest.approx(np.linalg.norm((x - y)[:40], axis=1).std())
    untouched = scale_by(InceptionFeatures.name, raw)
    assert untouched(raw) == pytest.approx(raw)
    assert untouched.name == InceptionFeatures.name
    raw[3, 0] = np.nan
    with pytest.raises(DataError, match="not finite in 1 of 80 pictures"):
        scale_by("colours", EXTRACT(real))(raw)


def test_the_reference_set_is_the_one_given():
    real, slide, _ = slides()
    other, other_slide, _ = slides(n=60, names=("train",), seed=9)
    frame = score(real[:, None], real, slide, reference=ReferenceTiles("training tiles", other, other_slide))
    scale = scale_by("colours", EXTRACT(other))
    expected = frechet_of_features(scale(EXTRACT(real[:40])), scale(EXTRACT(other)))
    assert value(frame, "fid", "a") == pytest.approx(expected)
    assert set(frame[frame.metric == "kid"].reference) == {"training tiles"}
    assert frame[(frame.metric == "fid") & (frame.slide == "a")].note.item() == "m=60 of the reference"


def test_ssim_is_skimages_and_its_window_fits_small_tiles():
    a, b = slides(px=32)[0][:6], slides(px=32, seed=1)[0][:6]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    values, window = ssim(a, b)
    assert window == 11
    assert values == pytest.approx([structural_similarity(x, y, channel_axis=-1, **options) for x, y in zip(a, b)])
    values, window = ssim(a[:, :8, :8], b[:, :8, :8])
    assert window == 7
    assert np.isfinite(values).all()
    note = score(a[:, None, :8, :8], a[:, :8, :8], np.array(["a"] * 6)).query("metric == 'ssim'").note
    assert set(note) == {"Gaussian window of 7 px"}


def test_pictures_that_do_not_belong_together_are_refused():
    real, slide, _ = slides()
    with pytest.raises(DataError, match="sample again"):
        score(real, real, slide)
    with pytest.raises(DataError, match="sample again"):
        score(real[:-1, None], real, slide)
    with pytest.raises(DataError, match="79 slide labels"):
        score(real[:, None], real, slide[:-1])


def test_inception_goes_through_clean_fids_own_code(tmp_path):
    import torch
    from cleanfid.resize import build_resizer

    class Layers(torch.nn.Module):
        def forward(self, x):
            return x[:, :1].mean(dim=(2, 3)).repeat(1, 2048)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = Layers()

        def forward(self, x):
            return self.layers(x)

    torch.jit.script(Network()).save(tmp_path / "inception-2015-12-05.pt")
    tiles = slides()[0][:5]
    extractor = choose_extractor(tmp_path / "inception-2015-12-05.pt", Colours(), 0.5)
    assert extractor.name == "inception (clean-fid)"
    features = extractor(tiles)
    resized = np.stack([build_resizer("clean")(tile) for tile in tiles])
    assert features.shape == (5, 2048)
    assert features[:, 7] == pytest.approx((resized[..., 0].mean(axis=(1, 2)) - 128) / 128, abs=1e-5)
    assert InceptionFeatures(tmp_path, batch=2)(tiles) == pytest.approx(features)


def test_absent_weights_are_an_error_where_named_and_the_encoder_where_not(tmp_path):
    with pytest.raises(WeightsError, match=r"inception-2015-12-05\.pt does not exist"):
        choose_extractor(tmp_path, Colours(), 0.5)
    (tmp_path / "inception-2015-12-05.pt").write_bytes(b"not a network")
    with pytest.raises(WeightsError, match="is not clean-fid's network"):
        choose_extractor(tmp_path, Colours(), 0.5)
    extractor = choose_extractor(None, Colours(), 0.5)
    assert extractor.name == "colours"
    assert names_of_features(extractor) == STATISTICS
    assert extractor(np.empty((0, 8, 8, 3), dtype=np.uint8)).shape == (0, 4)

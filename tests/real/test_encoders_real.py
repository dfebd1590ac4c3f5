"""The measuring encoder on real sections: its numbers say something about expression on a section it has not seen."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stmorph.encoders.load import load_encoder

DATA = Path(os.environ.get("STMORPH_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "her2st"
UM_PER_PX = {"C2": 0.6961, "C3": 0.6691, "C4": 0.6901, "C5": 0.6907}
FIELD_UM, SIDE_PX = 160, 96

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is absent; set STMORPH_TEST_DATA to the folder of real data"),
]


def section(name, monkeypatch):
    """Tiles around the spots (about 1.67 um a pixel) and log-normalised counts, in the order of the spots."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    counts = pd.read_csv(DATA / "ST-cnts" / f"{name}.tsv.gz", sep="\t", index_col=0)
    spots = pd.read_csv(DATA / "ST-spotfiles" / f"{name}_selection.tsv", sep="\t")
    spots.index = [f"{x}x{y}" for x, y in zip(spots.x, spots.y)]
    spots = spots.loc[spots.index.intersection(counts.index)]
    counts = counts.loc[spots.index]
    (file,) = (DATA / "ST-imgs" / "C" / name).glob("*.jpg")
    half = FIELD_UM / UM_PER_PX[name] / 2
    with Image.open(file) as image:
        full = image.width
        image.draft("RGB", (image.width // 2, image.height // 2))  # decoded at half size, still finer than the tiles
        scale = image.width / full
        image = image.convert("RGB")
        boxes = [(x - half, y - half, x + half, y + half) for x, y in zip(spots.pixel_x, spots.pixel_y)]
        tiles = [
            np.asarray(image.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS, np.multiply(box, scale)))
            for box in boxes
        ]
    expression = np.log1p(counts.div(counts.sum(1), axis=0) * 1e4)
    return np.stack(tiles), expression


def standard(values):
    return (values - values.mean(0)) / np.maximum(values.std(0), 1e-6)


def test_ridge_on_measured_features_reaches_the_floor_on_an_unseen_section(monkeypatch):
    encoder = load_encoder("morphometric")
    sections = {name: section(name, monkeypatch) for name in ("C2", "C3", "C4")}
    features = {}
    for name, (tiles, _) in sections.items():
        measured = encoder.encode(tiles, FIELD_UM / SIDE_PX)
        assert np.isfinite(measured).all()
        features[name] = standard(measured.astype(np.float64))
    genes = sorted(set.intersection(*(set(e.columns) for _, e in sections.values())))
    train = ["C2", "C4"]
    mean = pd.concat([sections[name][1][genes] for name in train]).mean()
    genes = mean.nlargest(300).index
    x = np.vstack([features[name] for name in train])
    y = np.vstack([standard(sections[name][1][genes].to_numpy()) for name in train])
    weights = np.linalg.solve(x.T @ x + 50 * np.eye(x.shape[1]), x.T @ y)
    predicted, truth = features["C3"] @ weights, standard(sections["C3"][1][genes].to_numpy())
    correlation = (standard(predicted) * truth).mean(0)
    # Ridge on two windows of colour statistics alone has .27 here (README of the data); chance is 0.
    assert np.median(correlation) > 0.2
    shuffled = np.random.default_rng(0).permutation(len(truth))
    assert abs(np.median((standard(predicted)[shuffled] * truth).mean(0))) < 0.1

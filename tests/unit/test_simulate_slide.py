import gzip
import hashlib
import json

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
import tifffile
from scipy.stats import spearmanr

from stmorph.simulate import PROGRAMMES, SimulationOptions, catalogue, draw_slide, simulate_slide, visium_files
from stmorph.simulate.visium_outs import mtx_files, write_visium

SMALL = SimulationOptions(spots=150, um_per_px=2.0)
OTHER = SimulationOptions(spots=150, um_per_px=2.0, organ_layout="layers", patient_sd=0.3)


@pytest.fixture(scope="module")
def slides():
    return [draw_slide(SMALL, "A1", "P1", 7), draw_slide(OTHER, "B1", "P2", 7)]


def _log_counts(slide):
    counts = slide.visium.counts.toarray()
    return np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)


def _h5(path):
    with h5py.File(path) as file:
        group = file["matrix"]
        parts = tuple(group[name][:] for name in ("data", "indices", "indptr"))
        matrix = scipy.sparse.csc_matrix(parts, shape=tuple(group["shape"][:]))
        return matrix, group["barcodes"][:].astype(str), group["features/name"][:].astype(str)


@pytest.mark.parametrize("spots", [40, 150, 300])
@pytest.mark.parametrize("organ_layout", ["lobules", "layers"])
def test_a_slide_has_the_spots_asked_for_and_glass_beside_them(spots, organ_layout):
    options = SimulationOptions(spots=spots, um_per_px=2.0, organ_layout=organ_layout)
    slide = draw_slide(options, "A1", "P1", 3)
    assert spots <= slide.visium.in_tissue.sum() <= 1.25 * spots + 5
    assert (~slide.visium.in_tissue).sum() > 0.05 * spots


def test_spots_lie_on_the_hexagonal_visium_array(slides):
    visium = slides[0].visium
    distance = np.linalg.norm(visium.spot_um[:, None] - visium.spot_um[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert distance.min() == pytest.approx(100, abs=1e-6)
    assert np.median((distance < 100.01).sum(axis=1)) == 6
    assert ((visium.array_row + visium.array_col) % 2 == 0).all()
    same_row = (visium.array_row[:, None] == visium.array_row[None]) & (distance < 100.01)
    assert (np.abs(visium.array_col[:, None] - visium.array_col[None])[same_row] == 2).all()
    assert len(set(visium.barcode)) == len(visium.barcode)


def test_nuclei_grow_and_crowd_with_proliferation_and_lymphocytes_come_with_inflammation(slides):
    for slide in slides:
        truth = slide.truth.dropna()
        truth = truth[truth["tissue_fraction"] > 0.99]
        assert spearmanr(truth["PROLIFERATION"], truth["resident_radius_um"])[0] > 0.8
        assert spearmanr(truth["INFLAMMATION"], truth["lymphocyte_share"])[0] > 0.6
        # Lymphocytes stay small whatever else is active, so they pull the mean of all nuclei towards 2.5 um.
        share = truth["lymphocyte_share"]
        mixed = (1 - share) * truth["resident_radius_um"] + share * 2.5
        np.testing.assert_allclose(truth["nuclear_radius_um"], mixed, atol=0.45)
        assert np.abs(truth["nuclear_radius_um"] - mixed).mean() < 0.06
        few = truth["INFLAMMATION"] < 0.4  # lymphocytes also take the room that residents would crowd into
        assert spearmanr(truth["PROLIFERATION"][few], truth["nuclei_per_mm2"][few])[0] > 0.15


def test_nuclei_do_not_overlap_pools_or_each_other(slides):
    cells, pools = slides[0].section.cells, slides[0].section.pools_um
    for start in range(0, len(cells), 500):
        part = slice(start, start + 500)
        away = np.linalg.norm(cells.xy_um[part, None] - pools[None, :, :2], axis=-1) - pools[None, :, 2]
        assert away.min() > 0
        apart = np.linalg.norm(cells.xy_um[part, None] - cells.xy_um[None], axis=-1)
        assert np.sort(apart, axis=1)[:, 1].min() > 4


def test_programme_genes_follow_their_activity_and_noise_genes_do_not(slides):
    genes = catalogue(SMALL.noise_genes)
    for slide in slides:
        truth = slide.truth[list(PROGRAMMES)].to_numpy()
        values = _log_counts(slide)
        own, noise = [], []
        for g, (programme, kind) in enumerate(zip(genes.programme, genes.kind)):
            if programme:
                own.append(np.corrcoef(values[:, g], truth[:, list(PROGRAMMES).index(programme)])[0, 1])
            elif kind == "noise":
                noise += [abs(np.corrcoef(values[:, g], truth[:, k])[0, 1]) for k in range(6)]
        assert np.median(own) > 0.65
        assert np.median(noise) < 0.2
        assert 3000 < slide.visium.counts.sum(axis=1).mean() < 9000


def test_optical_density_lies_in_the_plane_of_the_slides_own_stains(slides):
    first, second = (slide.stain.matrix for slide in slides)
    assert np.abs(first - second).max() > 0.02
    assert (first > 0).all()
    for slide in slides:
        density = -np.log((slide.visium.image.reshape(-1, 3)[::17].astype(float) + 0.5) / 243)
        density = density[density.sum(axis=1) > 0.45]
        amounts, *_ = np.linalg.lstsq(slide.stain.matrix.T, density.T, rcond=None)
        left = density - amounts.T @ slide.stain.matrix
        assert np.sqrt((left**2).mean()) < 0.03
        # The other slide's stains explain this slide's picture less well.
        wrong = (second if slide is slides[0] else first).T
        off = density.T - wrong @ np.linalg.lstsq(wrong, density.T, rcond=None)[0]
        assert (off**2).mean() > 1.5 * (left**2).mean()
        # Nuclei, where the truth puts them, hold more hematoxylin and less eosin than the whole.
        xy = (slide.section.cells.xy_um / 2.0).astype(int)
        xy = np.minimum(xy, np.array(slide.visium.image.shape[1::-1]) - 1)
        nuclear = -np.log((slide.visium.image[xy[:, 1], xy[:, 0]].astype(float) + 0.5) / 243)
        inside = np.linalg.lstsq(slide.stain.matrix.T, nuclear.T, rcond=None)[0].mean(axis=1)
        whole = amounts.mean(axis=1)
        assert inside[0] > 1.8 * whole[0]
        assert inside[1] < whole[1]


def _colour_statistics(slide):
    rows, index = [], []
    for i, (x, y) in enumerate(slide.truth[["x_um", "y_um"]].to_numpy()):
        left, top = round(x / 2 - 16), round(y / 2 - 16)
        tile = slide.visium.image[max(top, 0) : top + 32, max(left, 0) : left + 32]
        if tile.shape != (32, 32, 3) or slide.truth["tissue_fraction"][i] < 0.9:
            continue
        density = -np.log((tile.astype(float) + 1) / 244)
        flat = density.reshape(-1, 3)
        edge = [np.abs(np.diff(density.sum(-1), axis=a)).mean() for a in (0, 1)]
        rows.append(
            np.r_[flat.mean(0), flat.std(0), np.quantile(flat, [0.1, 0.3, 0.5, 0.7, 0.9], axis=0).ravel(), edge]
        )
        index.append(i)
    rows = np.array(rows)
    return (rows - rows.mean(0)) / rows.std(0), np.array(index)


def test_a_ridge_on_the_colours_of_a_small_tile_predicts_programme_genes_of_another_slide():
    genes = catalogue(SMALL.noise_genes)
    options = SMALL.model_copy(update={"spots": 260})
    train, test = draw_slide(options, "A1", "P1", 5), draw_slide(options, "A2", "P2", 5)
    (x, i), (z, j) = _colour_statistics(train), _colour_statistics(test)
    y, truth = _log_counts(train)[i], _log_counts(test)[j]
    weights = np.linalg.solve(x.T @ x + 30 * np.eye(x.shape[1]), x.T @ (y - y.mean(0)))
    r = np.array([np.corrcoef(p, t)[0, 1] for p, t in zip((z @ weights).T, truth.T)])
    for programme in PROGRAMMES:
        assert np.median(r[[p == programme for p in genes.programme]]) > 0.3, programme
    assert np.median(r[[bool(p) for p in genes.programme]]) > 0.45
    assert np.median(np.abs(r[[k == "noise" for k in genes.kind]])) < 0.2


@pytest.mark.parametrize("version", [1, 2, 4])
def test_the_files_hold_what_was_drawn_in_each_space_rangers_layout(slides, tmp_path, version):
    visium = slides[0].visium
    write_visium(visium, tmp_path, version, mtx=True)
    files = visium_files(tmp_path, version)
    matrix, barcodes, names = _h5(files["counts"])
    assert (visium.counts != matrix.T).nnz == 0
    assert matrix.sum() == visium.counts.sum()
    assert barcodes.tolist() == visium.barcode[visium.in_tissue].tolist()
    assert tuple(names) == visium.genes.name
    text = mtx_files(tmp_path)
    with gzip.open(text["matrix"]) as file:
        assert (scipy.sparse.csr_matrix(scipy.io.mmread(file)) != matrix.tocsr()).nnz == 0
    assert gzip.decompress(text["barcodes"].read_bytes()).decode().split() == barcodes.tolist()

    if version == 1:
        positions = pd.read_csv(files["positions"], header=None)
    else:
        positions = (pd.read_csv if version == 2 else pd.read_parquet)(files["positions"])
        assert positions.columns[4] == "pxl_row_in_fullres"
    assert positions.iloc[:, 0].tolist() == visium.barcode.tolist()
    assert positions.iloc[:, 1].sum() == visium.in_tissue.sum()
    np.testing.assert_allclose(positions.iloc[:, [5, 4]], visium.spot_um / 2.0, atol=0.51)
    factors = json.loads(files["scalefactors"].read_text())
    assert factors["spot_diameter_fullres"] == pytest.approx(27.5)
    with tifffile.TiffFile(files["image"]) as tiff:
        page = tiff.pages[0]
        assert page.is_tiled
        above, below = page.tags["XResolution"].value
        assert 1e4 / (above / below) == pytest.approx(2.0, rel=1e-4)
        stored = page.asarray()
    assert stored.shape == visium.image.shape
    assert np.abs(stored.astype(int) - visium.image).mean() < 6


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    options = SimulationOptions(spots=40, um_per_px=2.0, write_mtx=True)

    def digests(folder, slide, seed):
        simulate_slide(options, folder, slide, "P1", seed)
        paths = sorted(p for p in folder.rglob("*") if p.is_file())
        return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}

    first = digests(tmp_path / "a", "A1", 1)
    assert digests(tmp_path / "b", "A1", 1) == first
    expected = [*visium_files(tmp_path / "a", 2).values(), *mtx_files(tmp_path / "a").values()]
    assert sorted(first) == sorted(p.relative_to(tmp_path / "a").as_posix() for p in expected)
    for other in (digests(tmp_path / "c", "A2", 1), digests(tmp_path / "d", "A1", 2)):
        assert set(other) == set(first)
        changing = ("image.tif", "truth.parquet", "truth.json", "outs/filtered_feature_bc_matrix.h5")
        assert all(other[name] != first[name] for name in changing)


def test_a_patients_programmes_are_shared_by_the_patients_slides():
    options = SimulationOptions(spots=20, um_per_px=2.5, patient_sd=3.0, slide_sd=0.0)
    means = {
        (patient, slide): draw_slide(options, slide, patient, 1).truth[list(PROGRAMMES)].mean().to_numpy()
        for patient, slide in (("P1", "A"), ("P1", "B"), ("P2", "A"))
    }
    within = np.abs(means["P1", "A"] - means["P1", "B"]).max()
    assert within < np.abs(means["P1", "A"] - means["P2", "A"]).max()


def test_an_unknown_option_is_refused():
    with pytest.raises(ValueError, match="umm_per_px"):
        SimulationOptions(umm_per_px=1.0)

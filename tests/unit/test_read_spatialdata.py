import json
import shutil
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest

from stmorph.errors import ConfigError, DataError
from stmorph.image.source import open_image
from stmorph.read import READERS, SlideInfo, read_slide
from stmorph.read.spatialdata_zarr import Options

INFO = SlideInfo(dataset="own", slide="A", platform="own", organ="brain", species="human", patient="P1")
KNOWN = replace(INFO, um_per_px=2.0)
SPOTS = Options(unit="spot")


def test_without_the_library_the_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "spatialdata", None)  # as if it were not there
    with pytest.raises(ConfigError, match=r"not installed .*run `make setup-spatialdata` in .*--sdm conda"):
        READERS["spatialdata"].read({"counts": tmp_path}, INFO, SPOTS)


def test_the_unit_must_be_told(tmp_path):
    with pytest.raises(
        ConfigError, match=r"reader_options\.unit is not given; expected spot, pseudo-spot, bin or cell"
    ):
        READERS["spatialdata"].read({"counts": tmp_path}, INFO, Options())


# --- pictures in zarr: no library but zarr ----------------------------------------------------------------------------


def write_ome(folder, pixels, levels=2, version=3, axes="cyx", unit=None, scale=1.0):
    import zarr

    group = zarr.open_group(folder, mode="w", zarr_format=version)
    datasets = []
    for level in range(levels):
        step = 2**level
        part = pixels[::step, ::step]
        part = part.transpose(["yxc".index(axis) for axis in axes])
        group.create_array(str(level), data=np.ascontiguousarray(part), chunks=tuple(min(32, n) for n in part.shape))
        factors = [scale * step if axis in "xy" else 1.0 for axis in axes]
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": factors}]})
    described = [{"name": axis, "type": "channel" if axis == "c" else "space"} for axis in axes]
    for axis in described:
        if unit and axis["name"] != "c":
            axis["unit"] = unit
    record = [{"axes": described, "datasets": datasets}]
    group.attrs.update({"ome": {"multiscales": record}} if version == 3 else {"multiscales": record})
    return folder


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 255, (70, 90, 3)).astype(np.uint8)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("axes", ["cyx", "yxc"])
def test_a_zarr_picture_is_an_image_like_any_other(tmp_path, pixels, version, axes):
    source = open_image(write_ome(tmp_path / "he.zarr", pixels, version=version, axes=axes))
    assert source.levels == ((90, 70), (45, 35)) and source.um_per_px_embedded is None
    assert np.array_equal(source.read(), pixels)
    assert np.array_equal(source.region(20, 10, 33, 40), pixels[10:50, 20:53])
    assert np.array_equal(source.read(0.5), pixels[::2, ::2])  # from the stored level
    assert source.overview().shape == (70, 90, 3)


def test_the_scale_of_a_zarr_picture(tmp_path, pixels):
    path = write_ome(tmp_path / "a", pixels, unit="micrometer", scale=0.25)
    assert open_image(path).um_per_px_embedded == 0.25
    assert open_image(write_ome(tmp_path / "b", pixels, scale=0.25)).um_per_px_embedded is None


def test_bad_zarr_pictures(tmp_path, pixels):
    import zarr

    with pytest.raises(DataError, match=r"3 channel\(s\) of float64|3 channel\(s\) of uint16"):
        open_image(write_ome(tmp_path / "a", pixels.astype(np.uint16)))
    with pytest.raises(DataError, match=r"1 channel\(s\) of uint8"):
        open_image(write_ome(tmp_path / "b", pixels[..., :1]))
    zarr.open_group(tmp_path / "c", mode="w").attrs["other"] = 1
    with pytest.raises(DataError, match=r"describes no picture \(its attributes: other\)"):
        open_image(tmp_path / "c")
    path = write_ome(tmp_path / "d", pixels)
    shutil.rmtree(path / "0")
    with pytest.raises(DataError, match="decoded only in part or not at all"):
        open_image(path)
    (tmp_path / "e").mkdir()
    with pytest.raises(DataError, match="is a folder; expected an image"):
        open_image(tmp_path / "e")
    path = write_ome(tmp_path / "f", pixels)
    for chunk in sorted((path / "0" / "c").rglob("*")):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(DataError, match="decoded only in part"):
        open_image(path).read()


def test_a_store_with_several_images_wants_a_name(tmp_path, pixels):
    import zarr

    store = tmp_path / "own.zarr"
    zarr.open_group(store, mode="w").create_group("images")
    write_ome(store / "images" / "he", pixels)
    assert open_image(store).levels[0] == (90, 70)
    write_ome(store / "images" / "dapi", pixels[:50])
    with pytest.raises(DataError, match=r"holds 2 images \(dapi, he\); expected one: give .*images/<name>"):
        open_image(store)
    assert open_image(store / "images" / "dapi").levels[0] == (90, 50)


# --- stores -----------------------------------------------------------------------------------------------------------


class Store:
    """A SpatialData store: 5 x 4 spots in a coordinate system in which the image is scaled by .5 and moved."""

    def __init__(self, folder):
        reason = "spatialdata is not here (make setup-spatialdata); tests/pipeline/test_isolation.py runs this with it"
        self.sd = pytest.importorskip("spatialdata", reason=reason)
        self.path = folder / "own.zarr"
        self.scale, self.shift, self.multiscale = (0.5, 0.5), (100.0, 50.0), True
        row, column = np.divmod(np.arange(20), 4)
        self.pixel = np.column_stack([40.0 + 30 * column, 30.0 + 30 * row])
        self.name = np.array([f"spot{i}" for i in range(20)])
        self.barcode = [f"{chr(65 + i)}-1" for i in range(20)]
        self.counts = np.random.default_rng(0).poisson(3, (20, 3)).astype(np.float32) + np.float32(1)
        self.layers, self.regions, self.extra_images = {}, np.array(["spots"] * 20), {}
        image = np.full((180, 200, 3), 240, np.uint8)
        image[15:165, 25:145] = np.random.default_rng(1).integers(90, 160, (150, 120, 3))
        self.image = image
        self.order = np.random.default_rng(2).permutation(20)
        self.element = "circles"

    def transformations(self):
        from spatialdata.transformations import Scale, Sequence, Translation

        return {
            "lab": Sequence([Scale(list(self.scale), axes=("x", "y")), Translation(list(self.shift), axes=("x", "y"))])
        }

    def regions_element(self):
        from spatialdata.models import Labels2DModel, ShapesModel
        from spatialdata.transformations import Identity, Scale, Sequence, Translation

        lab = self.pixel * self.scale + self.shift
        if self.element == "labels":  # in pixels of half the size, moved with the image
            labels = np.zeros((90, 100), np.int64)
            for number, (x, y) in enumerate(self.pixel, 1):
                labels[int(y / 2) - 2 : int(y / 2) + 2, int(x / 2) - 2 : int(x / 2) + 2] = number
            own = Sequence([Scale([1.0, 1.0], axes=("x", "y")), Translation(list(self.shift), axes=("x", "y"))])
            return Labels2DModel.parse(labels, dims=("y", "x"), transformations={"lab": own})
        if self.element == "polygons":
            import geopandas
            from shapely import box

            frame = geopandas.GeoDataFrame(
                {"geometry": [box(x - 3, y - 2, x + 3, y + 2) for x, y in lab]}, index=self.name
            )
            return ShapesModel.parse(frame.iloc[np.argsort(self.name)], transformations={"lab": Identity()})
        # The shapes have a transformation of their own.
        order = np.argsort(self.name)
        return ShapesModel.parse(
            (lab[order] - [10, 20]) / 2,
            geometry=0,
            radius=1.0,
            index=self.name[order],
            transformations={
                "lab": Sequence([Scale([2.0, 2.0], axes=("x", "y")), Translation([10.0, 20.0], axes=("x", "y"))])
            },
        )

    def write(self):
        from spatialdata.models import Image2DModel, TableModel

        instance = np.arange(1, 21) if self.element == "labels" else self.name
        table = anndata.AnnData(
            self.counts,
            obs=pd.DataFrame({"region": pd.Categorical(self.regions), "instance": instance}, index=self.barcode),
            var=pd.DataFrame({"gene_ids": [f"ENSG{i:011d}" for i in range(3)]}, index=["TP53", "ACTB", "KRT5"]),
            layers=self.layers,
        )[self.order].copy()
        table = TableModel.parse(table, region=sorted(set(self.regions)), region_key="region", instance_key="instance")
        images = {
            name: Image2DModel.parse(
                pixels.transpose(2, 0, 1),
                dims=("c", "y", "x"),
                scale_factors=[2] if self.multiscale else None,
                transformations=self.transformations(),
            )
            for name, pixels in ({"he": self.image} | self.extra_images).items()
        }
        shapes = {name: self.regions_element() for name in sorted(set(self.regions))}
        kind = "labels" if self.element == "labels" else "shapes"
        shutil.rmtree(self.path, ignore_errors=True)
        self.sd.SpatialData(images=images, tables={"table": table}, **{kind: shapes}).write(self.path)
        return {"counts": self.path, "image": self.path}

    def read(self, options=SPOTS, info=KNOWN, **files):
        return read_slide("spatialdata", self.write() | files, info, options)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def fails(store, match, kind=DataError, **given):
    with pytest.raises(kind, match=match) as caught:
        store.read(**given)
    sentence = str(caught.value)
    assert "\n" not in sentence and "expected" in sentence


@pytest.mark.parametrize("multiscale", [True, False])
@pytest.mark.parametrize("element", ["circles", "polygons", "labels"])
def test_transformations_are_honoured(store, element, multiscale):
    store.element, store.multiscale = element, multiscale
    slide = store.read()
    assert slide.obs_names.tolist() == sorted(store.barcode)
    np.testing.assert_allclose(slide.obsm["spatial_um"], store.pixel * 2.0, atol=1e-6)
    assert np.array_equal(slide.X.toarray(), store.counts.astype(int)) and slide.X.dtype == np.int32
    assert slide.var["gene_id"].tolist() == [f"ENSG{i:011d}" for i in range(3)]
    record = slide.uns["stmorph"]
    assert record["unit"] == "spot" and (record["image_width_px"], record["image_height_px"]) == (200, 180)
    assert record["on_tissue_fraction"] == 1.0


def test_a_rotated_image(store):
    from spatialdata.transformations import Affine

    turn = np.array([[0.0, -0.5, 300.0], [0.5, 0.0, 10.0], [0.0, 0.0, 1.0]])
    store.transformations = lambda: {"lab": Affine(turn, input_axes=("x", "y"), output_axes=("x", "y"))}
    given = store.pixel.copy()
    lab = np.column_stack([given, np.ones(20)]) @ turn.T
    store.pixel = (lab[:, :2] - store.shift) / store.scale  # so that the shapes are written at `lab`
    np.testing.assert_allclose(store.read().obsm["spatial_um"], given * 2.0, atol=1e-6)


def test_the_coordinate_system_gives_the_scale(store):
    slide = store.read(Options(unit="cell", um_per_unit=3.0), INFO)
    record = slide.uns["stmorph"]
    assert record["um_per_px"] == pytest.approx(1.5) and record["unit"] == "cell"
    assert "um_per_unit 3" in record["um_per_px_evidence"]
    fails(store, r"declared as 2\.0000, but is 1\.5000", options=Options(unit="cell", um_per_unit=3.0))
    fails(store, "um_per_unit is -1.0", ConfigError, options=Options(unit="cell", um_per_unit=-1.0))


def test_names_are_asked_for_where_there_are_several(store):
    store.extra_images = {"other": store.image[:150]}
    fails(store, r"holds 2 images \(he, other\)")
    he = store.path / "images" / "he"
    fails(store, r"it has 2 images \(he, other\); .*reader_options\.image", image=he)
    slide = store.read(Options(unit="spot", image="he"), image=he)
    np.testing.assert_allclose(slide.obsm["spatial_um"], store.pixel * 2.0, atol=1e-6)
    # Two names that disagree cannot pass.
    fails(store, r"has 200 x 180 px; expected 200 x 150 px", options=Options(unit="spot", image="other"), image=he)
    fails(store, r"'hires' is not among its images", options=Options(unit="spot", image="hires"), image=he)
    fails(store, r"'counts' is not among its tables \(table\)", options=Options(unit="spot", table="counts"), image=he)


def test_a_table_of_two_regions(store):
    store.regions = np.array(["spots"] * 12 + ["spots2"] * 8)
    fails(store, r"the table has 2 regions \(spots, spots2\); .*reader_options\.region")
    slide = store.read(Options(unit="spot", region="spots"))
    assert slide.n_obs == 12 and json.loads(slide.uns["stmorph"]["lost"]) == {"in another region": 8}
    fails(store, "'spots3' is not among the table's regions", options=Options(unit="spot", region="spots3"))


def test_counts_must_be_raw(store):
    raw = store.counts
    store.counts = np.log1p(raw)
    fails(store, "raw counts")
    store.layers = {"counts": raw}
    slide = store.read(Options(unit="spot", layer="counts"))
    assert np.array_equal(slide.X.toarray(), raw.astype(int))
    fails(store, r"no layer 'raw' \(counts\)", options=Options(unit="spot", layer="raw"))


def test_contradictions(store):
    store.scale = (0.5, 0.6)
    fails(store, r"0\.6 by 0\.5 units of 'lab'; expected square pixels")
    store.scale = (0.5, 0.5)
    fails(
        store,
        r"systems in common \(lab\), 'global' not among them",
        options=Options(unit="spot", coordinate_system="global"),
    )
    store.barcode[3] = store.barcode[4]
    fails(store, r"names 1 barcodes more than once, first 'E-1'|more than once")


def test_damaged_stores(store, tmp_path):
    files = store.write()
    (store.path / "tables" / "table" / "zarr.json").write_text("{")
    with pytest.raises(DataError, match=r"own\.zarr"):
        read_slide("spatialdata", files, KNOWN, SPOTS)
    files = store.write()
    (tmp_path / "own.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="is no folder; expected a SpatialData store"):
        read_slide("spatialdata", files | {"counts": tmp_path / "own.zip"}, KNOWN, SPOTS)

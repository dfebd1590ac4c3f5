import io
import json
import runpy
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stmorph.config.dataset_schema import TILES_ALONE
from stmorph.errors import ConfigError, DataError
from stmorph.image.pictures import ArrayTiles
from stmorph.read import READERS, SlideInfo, read_slide
from stmorph.read.spider import unpack
from stmorph.read.spider_archive import parts_in_order, read_central, stream
from stmorph.read.spider_list import central_tiles, chosen_tiles
from stmorph.read.tar_parts import opened_tar
from stmorph.simulate import SimulationOptions, simulate_slide

SCRIPT = Path(__file__).parents[2] / "workflow/scripts/unpaired.py"
SMALL = SimulationOptions(
    platform="spider", spots=60, um_per_px=2.0, spider_slides=2, spider_parts=3, spider_tile_px=24
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return simulate_slide(SMALL, tmp_path_factory.mktemp("spider"), "S", "P1", 5)


def parts_of(files):
    return [files["image"], files["part_01"], files["part_02"]]


class Archive:
    """A minimal SPIDER archive: three central pictures of one grey each, with a context picture each."""

    def __init__(self, folder):
        self.folder = folder
        self.records = [
            {
                "slide_id": f"s{i % 2}",
                "image_name": f"c{i}.png",
                "context_info": {"0_0": f"x{i}.png"},
                "class": name,
                "split": split,
            }
            for i, (name, split) in enumerate([("Fat", "train"), ("Invasive carcinoma", "train"), ("Fat", "test")])
        ]
        self.pictures = {f"c{i}.png": png(np.full((8, 8, 3), 50 + i, np.uint8)) for i in range(3)}
        self.pictures |= {f"x{i}.png": png(np.full((8, 8, 3), 200, np.uint8)) for i in range(3)}
        self.metadata_first = False
        self.with_metadata = True

    def write(self, parts=2, mode="w"):
        files = [(f"images/{name}", data) for name, data in sorted(self.pictures.items())]
        if self.with_metadata:
            files.insert(0 if self.metadata_first else len(files), ("metadata.json", json.dumps(self.records).encode()))
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode=mode) as archive:
            archive.add(self.folder, "SPIDER-toy", recursive=False)
            for name, data in files:
                member = tarfile.TarInfo(f"SPIDER-toy/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        data, size = packed.getvalue(), -(-len(packed.getvalue()) // parts)
        paths = []
        for number in range(parts):
            paths.append(self.folder / f"spider-toy.tar.{number:02d}")
            paths[-1].write_bytes(data[number * size : (number + 1) * size])
        return paths

    def unpack(self, parts=None, **options):
        return unpack(parts or self.write(), self.folder / "t.npy", self.folder / "t.parquet", **options)


def png(picture):
    packed = io.BytesIO()
    Image.fromarray(picture).save(packed, "PNG")
    return packed.getvalue()


@pytest.fixture
def archive(tmp_path):
    return Archive(tmp_path)


# --- what was drawn comes back ----------------------------------------------------------------------------------------


def test_the_central_pictures_come_back_with_their_labels(drawn, tmp_path):
    truth = pd.read_parquet(drawn["truth"])
    facts = json.loads(drawn["truth_json"].read_text())
    done = unpack(parts_of(drawn), tmp_path / "tiles.npy", tmp_path / "tiles.parquet")
    assert done.tiles == len(truth) and done.lost == {}
    assert len(truth) < facts["pictures"]  # those of the context stay behind
    listed = pd.read_parquet(tmp_path / "tiles.parquet")
    assert listed["barcode"].tolist() == truth["image_name"].tolist()  # sorted by slide and name, though shuffled
    assert listed["label"].tolist() == truth["class"].tolist()
    assert listed["split"].tolist() == truth["split"].tolist() and set(listed["split"]) == {"train", "test"}
    assert (listed.groupby("slide")["split"].nunique() == 1).all()
    stored = dict(stream(parts_of(drawn), truth["image_name"]))
    tiles = ArrayTiles(tmp_path / "tiles.npy")
    got = tiles.read(np.array([4, 0, 4]))
    assert np.array_equal(got[0], stored[listed["barcode"][4]]) and np.array_equal(got[0], got[2])
    assert np.array_equal(got[1], stored[listed["barcode"][0]])
    assert ArrayTiles(tmp_path / "tiles.npy", size_px=12).read(np.array([0])).shape == (1, 12, 12, 3)


def test_tiles_have_tissue_in_them(drawn):
    truth = pd.read_parquet(drawn["truth"])
    level = {name: tile.mean() for name, tile in stream(parts_of(drawn), truth["image_name"])}
    assert max(level.values()) < 235  # glass is 243


def test_same_seed_same_bytes_in_the_real_layout(drawn, tmp_path):
    again = simulate_slide(SMALL, tmp_path, "S", "P1", 5)
    assert {path.name: path.read_bytes() for path in again.values()} == {
        path.name: path.read_bytes() for path in drawn.values()
    }
    assert again["image"].name == "spider-simulated.tar.00"
    data = b"".join(path.read_bytes() for path in parts_of(again))
    with tarfile.open(fileobj=io.BytesIO(data)) as joined:  # as `cat spider-*.tar.* | tar -xf -`
        names = joined.getnames()
        records = json.load(joined.extractfile("SPIDER-simulated/metadata.json"))
    pictures = {name.removeprefix("SPIDER-simulated/images/") for name in names if "/images/" in name}
    assert all(set(one) == {"slide_id", "image_name", "context_info", "class", "split"} for one in records)
    assert all({one["image_name"], *one["context_info"].values()} <= pictures for one in records)
    assert all("2_2" not in one["context_info"] and len(one["context_info"]) <= 24 for one in records)


def test_an_archive_in_one_piece(tmp_path):
    options = SMALL.model_copy(update={"spider_parts": 1, "spider_slides": 1, "spots": 20})
    files = simulate_slide(options, tmp_path, "S", "P1", 5)
    assert sorted(files) == ["image", "truth", "truth_json"] and files["image"].name == "spider-simulated.tar"
    truth = pd.read_parquet(files["truth"])
    assert read_central(files["image"])[0]["barcode"].tolist() == truth["image_name"].tolist()


def test_it_makes_no_slide_and_says_so(drawn):
    info = SlideInfo(dataset="tiles", slide="S", platform="H&E", organ="o", species="human", patient="P1")
    with pytest.raises(ConfigError, match="slide S of tiles is a SPIDER archive, tiles without expression; expected"):
        read_slide("spider", {"image": drawn["image"]}, info)


# --- the step -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "splits"), [({}, {"train", "test"}), ({"split": "train", "size_px": 12}, {"train"})]
)
def test_the_step_makes_one_store_of_the_central_pictures(drawn, tmp_path, capsys, options, splits):
    """The script itself, on the layout as it is drawn: what the truth names, no more, no less."""
    files = {role: str(path) for role, path in sorted(drawn.items(), reverse=True) if not role.startswith("truth")}
    outputs = [str(tmp_path / "tiles.npy"), str(tmp_path / "tiles.parquet")]
    step = SimpleNamespace(
        input=files, output=outputs, params=SimpleNamespace(options=options), log=[str(tmp_path / "log")]
    )
    step.rule, step.wildcards = "unpaired_tiles", []
    runpy.run_path(str(SCRIPT), {"snakemake": step})
    truth = pd.read_parquet(drawn["truth"])
    truth = truth[truth["split"].isin(splits)]
    table, tiles = pd.read_parquet(tmp_path / "tiles.parquet"), np.load(tmp_path / "tiles.npy")
    assert set(table["barcode"]) == set(truth["image_name"]) and len(table) == len(truth) == len(tiles)
    assert tiles.shape[1:] == (options.get("size_px", 24),) * 2 + (3,) and (table["row"] == np.arange(len(table))).all()
    assert f"{len(truth)} tiles; left out:" in capsys.readouterr().out


def test_parts_come_in_order_whatever_the_order_of_the_files():
    files = {"part_10": "k", "part_02": "c", "image": "a", "part_01": "b"}
    assert [str(part) for part in parts_in_order(files)] == ["a", "b", "c", "k"]


def test_the_readers_without_slides_are_those_that_the_configuration_knows():
    assert {name for name, reader in READERS.items() if reader.no_slide} == TILES_ALONE


# --- streaming --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 7])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("first", [True, False])
def test_however_the_archive_is_cut(archive, parts, mode, first):
    archive.metadata_first = first
    paths = archive.write(parts, mode)
    table, lost = read_central(paths)
    assert table["barcode"].tolist() == ["c0.png", "c2.png", "c1.png"] and lost == {}
    found = dict(stream(paths, table["barcode"]))
    assert {name: int(tile[0, 0, 0]) for name, tile in found.items()} == {"c0.png": 50, "c1.png": 51, "c2.png": 52}


def test_context_is_not_read(archive, monkeypatch):
    archive.pictures |= {f"x{i}.png": b"no picture" for i in range(3)}
    assert len(list(stream(archive.write(), ["c0.png", "c2.png"]))) == 2
    read = []
    with opened_tar(archive.write(1)) as members:
        read += [name for name, _ in members]
    assert set(read) == {*archive.pictures, "metadata.json"}


def test_an_unpacked_folder_is_the_same(archive):
    whole = archive.unpack()
    stored = np.load(archive.folder / "t.npy")
    folder = archive.folder / "SPIDER-toy"
    (folder / "images").mkdir(parents=True)
    for name, data in archive.pictures.items():
        (folder / "images" / name).write_bytes(data)
    (folder / "metadata.json").write_text(json.dumps(archive.records))
    assert archive.unpack(folder) == whole
    assert np.array_equal(np.load(archive.folder / "t.npy"), stored)
    (folder / "images" / "c1.png").unlink()
    with pytest.raises(DataError, match=r"lack 1 of 3 pictures .* first 'c1\.png'"):
        archive.unpack(folder)


def test_split_labels_and_size(archive):
    done = archive.unpack(split="train", labels=["FAT", "nothing*", "Inv*"][::2], size_px=4)
    assert done.tiles == 2 and done.lost == {"not chosen": 1}
    assert np.load(archive.folder / "t.npy").shape == (2, 4, 4, 3)
    with pytest.raises(ConfigError, match=r"no class of SPIDER matches 'nothing\*'; expected some of Fat, Invasive"):
        archive.unpack(labels=["Fat", "nothing*"])
    with pytest.raises(ConfigError, match=r"no picture of split 'val' .* expected a split among test, train"):
        archive.unpack(split="val")
    with pytest.raises(ConfigError, match=r"no picture of split 'test' has a class of Inv\*"):
        chosen_tiles(read_central(archive.write())[0], "test", "Inv*")


def test_records_that_stand_twice(archive):
    archive.records.append(dict(archive.records[0]))
    done = archive.unpack()
    assert done.tiles == 3 and done.lost == {"named twice": 1}
    archive.records[-1]["class"] = "Necrosis"
    with pytest.raises(DataError, match=r"1 pictures more than once .* 'c0\.png' \(classes Fat, Necrosis\)"):
        archive.unpack()


# --- bad input --------------------------------------------------------------------------------------------------------


def leaves_nothing(archive, match, parts=None):
    before = sorted(archive.folder.iterdir())
    with pytest.raises(DataError, match=match) as caught:
        archive.unpack(parts)
    sentence = str(caught.value)
    assert "\n" not in sentence and "expected" in sentence
    assert [p for p in archive.folder.iterdir() if p not in before and not p.name.startswith("spider-toy")] == []
    return sentence


def test_pictures_of_two_sizes(archive):
    archive.pictures["c2.png"] = png(np.zeros((6, 6, 3), np.uint8))
    leaves_nothing(archive, r"pictures of two sizes \(c0\.png: 8 px, c2\.png: 6 px\)")
    archive.pictures["c2.png"] = png(np.zeros((6, 8, 3), np.uint8))
    leaves_nothing(archive, r"c2\.png has 8 x 6 px; expected a square")
    archive.pictures["c2.png"] = archive.pictures["c0.png"][:40]
    leaves_nothing(archive, r"picture c2\.png cannot be decoded")


def test_missing_and_truncated_parts(archive):
    archive.metadata_first = True
    parts = archive.write(3)
    leaves_nothing(archive, "truncated", parts[:1])
    leaves_nothing(archive, "cannot be read", parts[1:])
    leaves_nothing(archive, r"tar\.09 does not exist", [parts[0], archive.folder / "spider-toy.tar.09"])
    data = b"".join(part.read_bytes() for part in parts)
    single = archive.folder / "spider-toy.tar"
    for length in range(700, data.index(b"images/c2.png"), 300):  # also within headers and between files
        single.write_bytes(data[:length])
        leaves_nothing(archive, "truncated|pictures that metadata.json names", single)
    single.write_bytes(b"<html>404</html>")
    leaves_nothing(archive, "cannot be read", single)
    with pytest.raises(ConfigError, match="no part of a SPIDER archive"):
        unpack([], archive.folder / "t.npy", archive.folder / "t.parquet")
    archive.with_metadata = False
    leaves_nothing(archive, r"hold no metadata\.json")
    del archive.pictures["c1.png"]
    archive.with_metadata = True
    leaves_nothing(archive, r"lack 1 of 3 pictures .* first 'c1\.png'")


def test_bad_metadata(archive):
    path = archive.folder / "metadata.json"
    for text, match in (
        ("{", "cannot be read"),
        ('{"a": 1}', "no list of records"),
        ("[]", "names no picture"),
        ('[{"image_name": "a"}]', "no column slide_id, class, split"),
    ):
        with pytest.raises(DataError, match=match):
            central_tiles(text, path)
    del archive.records[1]["class"]
    with pytest.raises(
        DataError, match="record 1 has no class; expected image_name, slide_id, class, split in each of 3"
    ):
        central_tiles(json.dumps(archive.records), path)


def test_bad_stores(archive):
    archive.unpack()
    npy = archive.folder / "t.npy"
    npy.write_bytes(npy.read_bytes()[:200])
    with pytest.raises(DataError, match=r"t\.npy cannot be read"):
        ArrayTiles(npy)
    np.save(npy, np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(DataError, match=r"shape \(2, 8, 8\); expected pictures"):
        ArrayTiles(npy)

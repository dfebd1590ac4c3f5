"""Fetching as Snakemake does it: listed first, killed on the way, finished with the same bytes, and never twice."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import copy_of, environment, new_place, tiny_dataset, tiny_study

sys.path.append(str(Path(__file__).parents[1] / "unit"))

from fetch_server import BODY, serving
from hub_server import COMMIT
from hub_server import serving as hub_serving

from stmorph.bundle.contents import bundle_files, study_digests
from stmorph.bundle.given import stamp_of, write_mark
from stmorph.config.workflow import open_study

pytestmark = pytest.mark.pipeline

IMAGE, COUNTS, POSITIONS = (f"downloads/tiny/A/{name}" for name in ("image.tif", "counts.h5", "positions.csv"))
WANTED = (IMAGE, COUNTS, POSITIONS)


def archive_of(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def dataset_of(url):
    dataset = tiny_dataset()
    del dataset["simulate"], dataset["gene_sets"]
    dataset["files"] = {
        "counts": {"path": "{slide}/counts.h5", "archive": "outs", "member": "outs/counts.h5"},
        "positions": {"path": "{slide}/positions.csv", "archive": "outs", "member": "outs/positions.csv"},
        "image": {"path": "{slide}/image.tif", "url": url + "/slow/{slide}"},
        "scalefactors": {"path": "{slide}/scales.json", "url": url + "/absent/{slide}", "size_bytes": 2_000_000},
    }
    dataset["archives"] = {"outs": {"path": "{slide}/outs.tar.gz", "url": url + "/file/{slide}"}}
    return dataset


def kill_while_fetching(place):
    """Start Snakemake, and kill it with all of its processes when half of the image is there."""
    partial = place.folder / "downloads/tiny/A/.image.tif.partial"
    command = place.command(*WANTED)
    with (place.folder / "killed.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=place.folder, env=environment(), stdout=log, stderr=log, start_new_session=True
        )
        while process.poll() is None and not (partial.exists() and partial.stat().st_size > 100_000):
            time.sleep(0.005)
        assert process.poll() is None, (place.folder / "killed.log").read_text()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return partial


def test_listed_killed_finished_and_never_fetched_twice(tmp_path):
    members = {"outs/counts.h5": BODY[:50_000], "outs/positions.csv": BODY[7:90_000]}
    with serving() as site:
        site.named["/file/A"] = archive_of(members)
        dataset = dataset_of(site.url)
        place = new_place(tmp_path, tiny_study(), dataset)
        yaml_file = place.root / "config/datasets/tiny.yaml"

        told = place.make("downloads")
        assert "downloads/tiny/A/outs.tar.gz" in told and "2 files taken out" in told
        total = 2 * len(BODY) + len(site.named["/file/A"]) + 2 * 2_000_000  # /file/B does not answer
        assert f"To fetch: 6 files, {total / 1e6:.1f} MB and 1 of unknown size. Already there: 0." in told
        assert site.asked == []

        partial = kill_while_fetching(place)
        assert partial.exists() and not (place.folder / IMAGE).exists()
        place.make("--unlock")
        place.make(*WANTED)
        assert (place.folder / IMAGE).read_bytes() == BODY
        assert (place.folder / COUNTS).read_bytes() == members["outs/counts.h5"]
        assert (place.folder / POSITIONS).read_bytes() == members["outs/positions.csv"]
        assert not partial.exists()
        ranges = site.ranges("/slow/A")
        assert ranges[0] is None and ranges[1].startswith("bytes=") and len(ranges) == 2

        # What was taken out stays although its archive is gone; a mirror and a digest fetch nothing anew.
        (place.folder / "downloads/tiny/A/outs.tar.gz").unlink()
        dataset["files"]["image"]["mirrors"] = [site.url + "/good/{slide}"]
        dataset["archives"]["outs"]["mirrors"] = [site.url + "/good/{slide}"]
        yaml_file.write_text(yaml.safe_dump(dataset))
        assert place.plan(*WANTED) == {}

        # Another address is another file.
        dataset["files"]["image"]["url"] = site.url + "/good/{slide}"
        yaml_file.write_text(yaml.safe_dump(dataset))
        assert place.plan(*WANTED) == {"fetch": 1}

        # A refusal is one sentence on the terminal, and nothing is left.
        failed = place.run("downloads/tiny/A/scales.json")
        assert failed.returncode != 0
        assert (
            f"stmorph: fetch: downloads/tiny/A/scales.json could not be fetched: {site.url}/absent/A" in failed.stdout
        )
        assert not list((place.folder / "downloads/tiny/A").glob("*scales*"))


NETWORK = {"embed_dim": 24, "depth": 1, "num_heads": 2, "img_size": 32, "patch_size": 8}
EMBEDDING = "results/slides/tiny/A/spot104/network.zarr.zip"


def small_weights():
    """Return a weights file of a vision transformer of one block, in the layout of UNI's."""
    import timm
    import torch

    network = timm.create_model("vit_large_patch16_224", init_values=1e-5, num_classes=0, **NETWORK)
    packed = io.BytesIO()
    torch.save(network.state_dict(), packed)
    return packed.getvalue()


def test_weights_are_fetched_before_the_embedding_that_needs_them(finished, tmp_path, monkeypatch):
    model = {"model": "uni", "options": {"architecture": NETWORK, "input_px": 32, "revision": COMMIT}, "views": 1}
    place = copy_of(finished, tmp_path)
    table = place.study()["tables"]["expression"]
    table["run"]["encoder"] = "network"
    encoders = {**place.study()["encoders"], "network": model}
    place.write({**place.study(), "encoders": encoders, "tables": {"expression": table}, "figures": {}})
    monkeypatch.setenv("HF_TOKEN", "good-token")
    with hub_serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.token = "good-token"
        hub.files["model", "MahmoodLab/UNI"] = {"pytorch_model.bin": small_weights()}
        place.make(EMBEDDING)
    weights = place.folder / f"downloads/weights/MahmoodLab/UNI/{COMMIT}/pytorch_model.bin"
    assert weights.read_bytes() == hub.files["model", "MahmoodLab/UNI"]["pytorch_model.bin"]
    attributes = json.loads(zipfile.ZipFile(place.folder / EMBEDDING).read("zarr.json"))["attributes"]
    assert attributes["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert attributes["dim"] == 24


def test_data_that_nobody_has_stop_the_slides_and_not_the_tables_of_given_scores(tmp_path, monkeypatch):
    dataset = tiny_dataset()
    del dataset["simulate"], dataset["gene_sets"]
    dataset["files"] = {role: path for role, path in dataset["files"].items() if not role.startswith("truth")}
    place = new_place(tmp_path, tiny_study(), {**dataset, "unavailable": "clinical data, not released"})
    monkeypatch.chdir(place.folder)
    study = open_study(place.study(), place.root)
    files = bundle_files(study, "scores")
    for file in files:
        path = Path("results", file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("scores")
        os.utime(path, (10**9, 10**9))
    stamps = {file: stamp_of(Path("results", file)) for file in files}
    write_mark(Path("results"), "scores", study_digests(study, "scores"), stamps)
    assert place.plan("tables") == {"table": 1, "tables": 1}

    failed = place.run("quality", flags=["-n"])
    assert failed.returncode != 0 and "Traceback" not in failed.stdout
    for slide in ("A", "B"):
        assert f"slides.{slide}: not available: clinical data, not released" in failed.stdout


def test_shards_of_tiles_are_unpacked_by_their_own_target(tmp_path):
    place = new_place(tmp_path, tiny_study(datasets=["tiny", "shards"]))
    files = {f"part_{n:02d}" if n else "image": f"{{slide}}/spider-simulated.tar.{n:02d}" for n in range(2)}
    shards = tiny_dataset([("S", "P1")], platform="spider", spider_parts=2, spider_tile_px=24)
    shards |= {"reader": "spider", "platform": "H&E tiles"}
    shards["files"] = {**files, "truth": "{slide}/truth.parquet", "truth_json": "{slide}/truth.json"}
    (place.root / "config/datasets/shards.yaml").write_text(yaml.safe_dump(shards))
    assert place.plan("unpaired") == {"simulate_shards": 1, "unpaired": 1, "unpaired_tiles": 1}

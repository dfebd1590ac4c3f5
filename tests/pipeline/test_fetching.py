"""Fetching as Snakemake does it: listed first, killed on the way, finished with the same bytes, and never twice."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import yaml
from conftest import environment, new_place, tiny_dataset, tiny_study

sys.path.append(str(Path(__file__).parents[1] / "unit"))

from fetch_server import BODY, serving

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

"""Registration on real sections: right where they lie; displaced, mirrored and turned ones are flagged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from stmorph.image.source import open_image
from stmorph.quality.registration import register
from stmorph.quality.under import read_scale, under_units
from stmorph.quality.units import units_of
from stmorph.read import SlideInfo, read_slide

pytestmark = pytest.mark.real

DATASETS = Path(__file__).parents[2] / "config" / "datasets"


class Placed:
    """A section as its dataset's YAML describes it, ready to be placed elsewhere."""

    def __init__(self, folder, dataset, slide):
        config = yaml.safe_load((DATASETS / f"{dataset}.yaml").read_text("utf-8"))
        entry = config["slides"][slide]
        files = {}
        for role, file in {**config["files"], **entry.get("files", {})}.items():
            path = (file if isinstance(file, str) else file["path"]).format(slide=slide, patient=entry["patient"])
            files[role] = next((folder / config["root"]).glob(path))
        shared = {key: config[key] for key in ("platform", "species", "spot_diameter_um", "spot_pitch_um")}
        info = SlideInfo(
            dataset=dataset,
            slide=slide,
            organ=config["organ"],
            patient=entry["patient"],
            um_per_px=entry.get("um_per_px"),
            **shared,
        )
        data = read_slide(config["reader"], files, info)
        self.units = units_of(data)
        image = open_image(files["image"])
        um_per_px = float(data.uns["stmorph"]["um_per_px"])
        self.pixels = image.read(read_scale(image.width_px, image.height_px, um_per_px, self.units.unit_um))
        self.um_per_px = um_per_px * image.width_px / self.pixels.shape[1]
        self.under = under_units(self.pixels, self.um_per_px, self.units.unit_um)

    def moved(self, spatial_um):
        image_um = np.array(self.pixels.shape[1::-1]) * self.um_per_px
        return register(replace(self.units, spatial_um=spatial_um), self.under, image_um)

    def pictured(self, turn):
        pixels = np.ascontiguousarray(turn(self.pixels))
        under = under_units(pixels, self.um_per_px, self.units.unit_um)
        return register(self.units, under, np.array(pixels.shape[1::-1]) * self.um_per_px)


@pytest.fixture(
    scope="module", params=[("her2st", s) for s in ("C2", "C3", "C4", "C5")] + [("mob", f"MOB{k}") for k in (1, 2, 3)]
)
def placed(real_data, request):
    return Placed(real_data, *request.param)


def test_a_real_section_passes(placed):
    found = placed.moved(placed.units.spatial_um)
    assert found.verdict == "pass" and found.best == "as given"
    assert found.score > 0.25 and found.margin > 0.1 and found.confidence > 0.9


@pytest.mark.parametrize("degrees", (0, 90, 135, 180, 270))
def test_two_units_off_is_flagged(placed, degrees):
    angle = np.deg2rad(degrees)
    step = 2 * placed.units.unit_um * np.array([np.cos(angle), np.sin(angle)])
    found = placed.moved(placed.units.spatial_um + step)
    assert found.verdict == "displaced" and found.best_score > found.score + 0.1


@pytest.mark.parametrize(
    ("turn", "kind"),
    [
        (np.array([[-1, 0], [0, 1]]), "mirrored"),
        (np.array([[1, 0], [0, -1]]), "mirrored"),
        (np.array([[0, -1], [1, 0]]), "rotated"),
    ],
)
@pytest.mark.parametrize("off", [0.0, 1.3])
def test_a_turned_array_is_flagged(placed, turn, kind, off):
    """Also when it is not turned about its own middle."""
    spatial_um = placed.units.spatial_um
    middle = spatial_um.mean(axis=0)
    turned = (spatial_um - middle) @ turn.T + middle + off * placed.units.unit_um
    assert placed.moved(turned).verdict == kind


@pytest.mark.parametrize(
    ("turn", "kind"),
    [
        (lambda pixels: pixels[:, ::-1], "mirrored"),
        (lambda pixels: pixels[::-1], "mirrored"),
        (lambda pixels: np.rot90(pixels), "rotated"),
        (lambda pixels: np.rot90(pixels, 2), "rotated"),
    ],
)
def test_a_turned_picture_is_flagged(placed, turn, kind):
    assert placed.pictured(turn).verdict == kind

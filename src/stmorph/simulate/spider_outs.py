"""SPIDER's own layout: a tar in parts, with `metadata.json` and all pictures, central and around them, in one folder.

Sections are cut into windows side by side; those on tissue are central pictures, and the up to 24 windows around one
are its context. The class is the region at the centre. Nothing is measured here but tissue: there are no counts.
"""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..files import whole
from ..image.pictures import fitted
from ..randomness import numpy_generator
from .fields import at, disc_mean
from .options import SimulationOptions
from .programmes import PROGRAMMES
from .render import draw_stain, render
from .tissue import draw_section

ORGAN = "simulated"
UM_PER_PX = 0.5
TILE_PX = 224
CONTEXT = 5
IN_TISSUE_FRACTION = 0.6


def spider_files(out_dir: str | Path, options: SimulationOptions) -> dict[str, Path]:
    """Return the files by role; `image` is the archive or its first part, further ones `part_01`, `part_02`, ..."""
    out_dir = Path(out_dir)
    if options.spider_parts == 1:
        parts = [out_dir / f"spider-{ORGAN}.tar"]
    else:
        parts = [out_dir / f"spider-{ORGAN}.tar.{number:02d}" for number in range(options.spider_parts)]
    roles = {"image": parts[0]} | {f"part_{number:02d}": part for number, part in enumerate(parts) if number}
    return roles | {"truth": out_dir / "truth.parquet", "truth_json": out_dir / "truth.json"}


def write_spider_slide(options: SimulationOptions, out_dir: str | Path, slide: str, patient: str, seed: int) -> None:
    """Draw `spider_slides` sections and write them as SPIDER would, with their truth: `spider_files(out_dir, options)`.

    truth.parquet has one row a central picture: image_name, slide_id, class, split, x_um, y_um, tissue_fraction and
    each programme's mean activity.

    Raises
    ------
    DataError
        A file cannot be written.
    """
    files = spider_files(out_dir, options)
    pictures: dict[str, bytes] = {}
    records, truth, slides = [], [], []
    for number in range(options.spider_slides):
        name = f"{slide}.{number}"
        # The last of several is tested: SPIDER splits by slide.
        split = "test" if number and number == options.spider_slides - 1 else "train"
        drawn, central, facts = _draw(options, name, patient, seed)
        pictures |= drawn
        records += [{**record, "split": split} for record in central["record"]]
        truth.append(central.drop(columns="record").assign(split=split))
        slides.append(facts)
    order = numpy_generator(seed, slide, patient, "spider").permutation(len(records))
    text = json.dumps([records[i] for i in order], indent=1).encode()
    _write_parts([path for role, path in files.items() if not role.startswith("truth")], text, pictures)
    with whole(files["truth"]) as partial:
        table = pd.concat(truth).sort_values(["slide_id", "image_name"], kind="stable", ignore_index=True)
        table.to_parquet(partial, index=False)
    facts = {
        "slide": slide,
        "patient": patient,
        "seed": seed,
        "options": options.model_dump(),
        "um_per_px": UM_PER_PX,
        "tile_um": TILE_PX * UM_PER_PX,
        "pictures": len(pictures),
        "slides": slides,
        "programmes": list(PROGRAMMES),
    }
    with whole(files["truth_json"]) as partial:
        partial.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _draw(
    options: SimulationOptions, slide: str, patient: str, seed: int
) -> tuple[dict[str, bytes], pd.DataFrame, dict]:
    """Return {name: PNG} of all windows, the central ones, and the slide's stain."""
    section = draw_section(options, slide, patient, seed)
    stain = draw_stain(options, slide, patient, seed)
    image, layout = render(section, stain), section.layout
    tile_um = TILE_PX * UM_PER_PX
    side = round(tile_um / options.um_per_px)
    rows, columns = (length // side for length in image.shape[:2])
    row, column = (index.ravel() for index in np.mgrid[:rows, :columns])
    centre = (np.stack([column, row], axis=1) + 0.5) * side * options.um_per_px
    tissue = layout.tissue.astype(np.float32)
    fraction = disc_mean(tissue, centre, tile_um)
    names = np.array([f"{slide}_{r:03d}_{c:03d}.png" for r, c in zip(row, column)])
    table = pd.DataFrame({"image_name": names, "slide_id": slide, "x_um": centre[:, 0], "y_um": centre[:, 1]})
    table["class"] = np.array(layout.names)[at(layout.region, centre)]
    table["tissue_fraction"] = fraction
    for name, field in zip(PROGRAMMES, section.activity):
        table[name] = disc_mean(field, centre, tile_um, tissue)
    central = table[fraction >= IN_TISSUE_FRACTION].copy()

    name_at = dict(zip(zip(row.tolist(), column.tolist()), names.tolist()))
    used, reach = set(), CONTEXT // 2
    around = [(i, j) for i in range(CONTEXT) for j in range(CONTEXT) if (i, j) != (reach, reach)]
    central_records = []
    for index, name, label in zip(central.index, central["image_name"], central["class"]):
        place = {f"{i}_{j}": (int(row[index]) + i - reach, int(column[index]) + j - reach) for i, j in around}
        context = {key: name_at[where] for key, where in place.items() if where in name_at}
        used |= {name, *context.values()}
        central_records.append({"slide_id": slide, "image_name": name, "context_info": context, "class": label})
    central["record"] = central_records

    pictures = {}
    for (i, j), name in name_at.items():
        if name in used:
            window = np.ascontiguousarray(image[i * side : (i + 1) * side, j * side : (j + 1) * side])
            packed = io.BytesIO()
            Image.fromarray(fitted(window, options.spider_tile_px)).save(packed, "PNG", compress_level=4)
            pictures[name] = packed.getvalue()
    facts = {"slide_id": slide, "stain_matrix": stain.matrix.tolist(), "stain_amount": stain.amount.tolist()}
    return pictures, central, facts


def _write_parts(paths: list[Path], metadata: bytes, pictures: dict[str, bytes]) -> None:
    """Write the tar and cut it where a part is full, also within a file, as `split` does."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        # After the pictures, as the names sort: a reader does not know yet which pictures are central.
        files = [(f"images/{name}", pictures[name]) for name in sorted(pictures)]
        for name, content in [*files, ("metadata.json", metadata)]:
            member = tarfile.TarInfo(f"SPIDER-{ORGAN}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    data = packed.getbuffer()
    size = -(-len(data) // len(paths))
    for number, path in enumerate(paths):
        with whole(path) as partial:
            partial.write_bytes(data[number * size : (number + 1) * size])

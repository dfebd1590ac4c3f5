"""What a simulated slide may be asked to be."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SpaceRanger = Literal[1, 2, 4]
Platform = Literal["visium", "visium_hd", "xenium", "hest", "spider"]


class SimulationOptions(BaseModel):
    """The simulator's settings: a closed object, so an unknown key is an error.

    platform: whose file layout is written (`layouts.LAYOUTS`).
    organ_layout: `lobules` (gland lobules, stroma, ducts) or `layers` (capsule, cortex with follicles, medulla).
    spots: in-tissue spots to reach, about; the section is made large enough.
    um_per_px: of the full-resolution image.
    depth: expected molecules per spot on a slide of ordinary depth; depth_sd: spread between slides (log).
    overdispersion: variance of a gene's rate beyond Poisson, as squared coefficient of variation.
    dropout: probability that a gene of one expected molecule is lost altogether; it falls as 1 / mean.
    stain_sd: spread of stain colours (radians) and of stain concentrations (log) between slides.
    patient_sd, slide_sd: spread of programme levels between patients, and between a patient's slides (in standard
    deviations of a programme's own field).
    space_ranger: the version whose layout is written (1: positions without header, 2: csv, 4: parquet; Visium HD as
    version 3 writes it, from 4 on with segmented cells).
    cell_molecules: expected molecules of a cell, where the platform sees cells.
    hd_rotation_deg: how far the array of bins is turned against the image.
    xenium_um_per_px, xenium_rotation_deg: of the morphology image, and how far it is turned against the H&E image.
    hest_technology: what HEST-1k's layout holds: spots of Visium, or square pseudo-spots pooled from Xenium (100 um) or
    Visium HD (128 um). hest_patch_px: side of its patches of 112 um.
    spider_slides: sections in a SPIDER archive; spider_parts: parts it is cut in; spider_tile_px: side of its pictures.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    platform: Platform = "visium"
    organ_layout: Literal["lobules", "layers"] = "lobules"
    spots: int = Field(650, ge=20, le=4992)
    um_per_px: float = Field(1.0, ge=0.2, le=2.5)
    depth: float = Field(5000.0, gt=0)
    depth_sd: float = Field(0.2, ge=0)
    overdispersion: float = Field(0.03, ge=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    stain_sd: float = Field(0.08, ge=0, le=0.3)
    patient_sd: float = Field(0.2, ge=0)
    slide_sd: float = Field(0.1, ge=0)
    noise_genes: int = Field(154, ge=20)
    space_ranger: SpaceRanger = 2
    write_mtx: bool = False
    cell_molecules: float = Field(150.0, gt=0)
    hd_rotation_deg: float = Field(0.6, ge=-180, le=180)
    xenium_um_per_px: float = Field(0.2125, ge=0.1, le=2.5)
    xenium_rotation_deg: float = Field(12.0, ge=-180, le=180)
    hest_technology: Literal["Visium", "Xenium", "Visium HD"] = "Visium"
    hest_patch_px: int = Field(224, ge=8, le=1024)
    spider_slides: int = Field(2, ge=1, le=99)
    spider_parts: int = Field(1, ge=1, le=99)
    spider_tile_px: int = Field(224, ge=8, le=1024)

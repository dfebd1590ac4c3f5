"""Tissue with a known answer: sections in which gene programmes move morphology by rules that are kept."""

from .cells import SimulatedCells, simulated_cells, tile_centres
from .layouts import LAYOUTS, simulate_slide
from .options import SimulationOptions
from .programmes import PROGRAMMES, catalogue, causal_genes, gene_sets, programme_gmt
from .render import draw_stain, render
from .slide import SimulatedSlide, draw_slide
from .tissue import Section, draw_section
from .visium_outs import visium_files

__all__ = [
    "LAYOUTS",
    "PROGRAMMES",
    "Section",
    "SimulatedCells",
    "SimulatedSlide",
    "SimulationOptions",
    "catalogue",
    "causal_genes",
    "draw_section",
    "draw_slide",
    "draw_stain",
    "gene_sets",
    "programme_gmt",
    "render",
    "simulate_slide",
    "simulated_cells",
    "tile_centres",
    "visium_files",
]

"""The genes of simulated tissue: six programmes that move morphology, and genes that move nothing."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from ..errors import ConfigError
from ..files import whole
from ..randomness import numpy_generator

Kind = Literal["programme", "mitochondrial", "ribosomal", "smooth", "noise"]

PROGRAMMES = MappingProxyType(
    {
        "PROLIFERATION": "enlarges and crowds nuclei",
        "MATRIX": "thickens eosin fibres between cells and stretches nuclei along them",
        "LIPID": "opens empty round vacuoles",
        "INFLAMMATION": "adds small, dark, round lymphocyte nuclei",
        "SECRETION": "fills pale grey-blue pools of mucin",
        "KERATIN": "deepens the eosin of the cytoplasm",
    }
)
"""Name of each programme and what its activity does to the tissue."""

GENES_PER_PROGRAMME = 27
MITOCHONDRIAL_GENES = 10
RIBOSOMAL_GENES = 14
SMOOTH_SHARE = 0.55
"""Share of the noise genes that follow a smooth field of their own, one that the tissue does not show."""


@dataclass(frozen=True)
class GeneCatalogue:
    """The genes of a simulation, the same on each of its slides.

    name, gene_id: G symbols and identifiers. kind: what each gene is. programme: its programme, or "".
    share: float64 [G], expected share of a unit's molecules at zero activity (sums to 1).
    slope: float64 [G], change of the log rate as the programme goes from 0 to 1; 0 for other genes.
    field_sd: float64 [G], standard deviation of the log rate's own field; 0 where a gene has none.
    """

    name: tuple[str, ...]
    gene_id: tuple[str, ...]
    kind: tuple[Kind, ...]
    programme: tuple[str, ...]
    share: np.ndarray
    slope: np.ndarray
    field_sd: np.ndarray

    def __len__(self) -> int:
        return len(self.name)

    def log_gain(self, activity: np.ndarray) -> np.ndarray:
        """Return slope x activity of its programme, float64 [n, G], for activities [n, 6] in `PROGRAMMES` order."""
        column = [list(PROGRAMMES).index(p) if p else 0 for p in self.programme]
        return np.asarray(activity, dtype=np.float64)[:, column] * self.slope

    def reference_total(self) -> float:
        """Return the expected molecules, in units of the share, if activities are spread evenly over 0 to 1."""
        slope = np.where(self.slope == 0, 1.0, self.slope)
        mean_gain = np.where(self.slope == 0, 1.0, np.expm1(slope) / slope)
        return float((self.share * mean_gain).sum())


@lru_cache
def catalogue(noise_genes: int = 154) -> GeneCatalogue:
    """Return the genes: 6 x 27 of programmes, 10 mitochondrial, 14 ribosomal, and `noise_genes` that tell nothing.

    Names say what a gene is (`SIMPRO01`: first gene of PROLIFERATION), and none of a programme is a real symbol.
    Rates and slopes belong to the gene, not to a slide or seed, so that slides can be pooled.

    Raises
    ------
    ConfigError
        `noise_genes` is below 20, too few for gene sets without a signal.
    """
    if noise_genes < 20:
        raise ConfigError(f"noise_genes is {noise_genes}; expected at least 20, raise it")
    smooth = round(noise_genes * SMOOTH_SHARE)
    rows: list[tuple[str, Kind, str]] = [
        (f"SIM{programme[:3]}{i:02d}", "programme", programme)
        for programme in PROGRAMMES
        for i in range(1, GENES_PER_PROGRAMME + 1)
    ]
    rows += [(f"MT-SIM{i}", "mitochondrial", "") for i in range(1, MITOCHONDRIAL_GENES + 1)]
    # Numbers beyond those in use, so that a ribosomal filter fires but no real gene is meant.
    rows += [(f"RP{'LS'[i % 2]}{900 + i}", "ribosomal", "") for i in range(1, RIBOSOMAL_GENES + 1)]
    rows += [(f"SIMFLD{i:03d}", "smooth", "") for i in range(1, smooth + 1)]
    rows += [(f"SIMNOI{i:03d}", "noise", "") for i in range(1, noise_genes - smooth + 1)]

    weight, slope, field_sd = (np.zeros(len(rows)) for _ in range(3))
    spread = {"programme": 0.5, "mitochondrial": 0.4, "ribosomal": 0.4, "smooth": 0.8, "noise": 0.8}
    centre = {"programme": 0.45, "mitochondrial": 6.0, "ribosomal": 4.0, "smooth": 0.8, "noise": 0.8}
    for i, (name, kind, _) in enumerate(rows):
        rng = numpy_generator("simulated gene", name)
        weight[i] = centre[kind] * np.exp(spread[kind] * rng.standard_normal())
        slope[i] = rng.uniform(2.0, 3.0) if kind == "programme" else 0.0
        field_sd[i] = {"smooth": 0.35, "mitochondrial": 0.45, "ribosomal": 0.25}.get(kind, 0.0)
    names, kinds, programmes = zip(*rows)
    ids = tuple(f"SIMG{i:011d}" for i in range(1, len(rows) + 1))
    return GeneCatalogue(names, ids, kinds, programmes, weight / weight.sum(), slope, field_sd)


def causal_genes(noise_genes: int = 154) -> dict[str, tuple[str, ...]]:
    """Return the genes of each programme: those whose expression moves the picture."""
    genes = catalogue(noise_genes)
    return {p: tuple(n for n, of in zip(genes.name, genes.programme) if of == p) for p in PROGRAMMES}


def gene_sets(noise_genes: int = 154, decoys: int = 20) -> dict[str, tuple[str, ...]]:
    """Return the six planted sets and `decoys` sets that no programme favours.

    Half of the decoys hold noise genes alone; the others are drawn stratum by stratum, so that each programme and
    the noise genes stand in them as they stand among all genes, and none is enriched by a lucky draw.
    """
    genes = catalogue(noise_genes)
    planted = causal_genes(noise_genes)
    silent = [n for n, kind in zip(genes.name, genes.kind) if kind != "programme"]
    sets = {f"SIM_{programme}": members for programme, members in planted.items()}
    for i in range(1, decoys + 1):
        rng = numpy_generator("decoy set", i)
        size = int(rng.integers(15, 31))
        if i <= decoys // 2:
            name, members = f"SIM_DECOY_NOISE_{i:02d}", rng.choice(silent, min(size, len(silent)), replace=False)
        else:
            each = max(1, round(size * GENES_PER_PROGRAMME / len(genes)))
            parts = [rng.choice(members, each, replace=False) for members in planted.values()]
            rest = round(each * len(silent) / GENES_PER_PROGRAMME)
            parts.append(rng.choice(silent, min(rest, len(silent)), replace=False))
            name, members = f"SIM_DECOY_MIXED_{i:02d}", np.concatenate(parts)
        sets[name] = tuple(sorted(str(m) for m in members))
    return sets


def programme_gmt(path: str | Path, noise_genes: int = 154, decoys: int = 20) -> Path:
    """Write the planted and the decoy gene sets as a GMT file (name, description, genes; tab-separated)."""
    path = Path(path)
    with whole(path) as partial:
        lines = []
        for name, members in gene_sets(noise_genes, decoys).items():
            note = PROGRAMMES.get(name.removeprefix("SIM_"), "no programme: must not be found")
            lines.append("\t".join((name, note, *members)))
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path

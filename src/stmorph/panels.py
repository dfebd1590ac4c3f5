"""Chooses the genes of a run, on the training units only (Stem, section 5.1 and 5.2; He et al. 2020)."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ConfigError, DataError
from .files import whole
from .gene_moments import Moments, highly_variable, raw_moments
from .gene_overlap import gene_overlap, measured_genes
from .slide_file import SlideFile, SlideRows, open_slide, rows_of, slide_rows

if TYPE_CHECKING:
    import anndata

MOST_COMPARED = 200_000_000
"""Counts of training units that `deg` compares: it holds them some four times, 8 GiB."""
_MITOCHONDRIAL = {"human": r"MT-", "mouse": r"mt-"}
_RIBOSOMAL = {"human": r"RP(?:S(?!6K|19BP)\d|L\d|LP\d|SA$)", "mouse": r"Rp(?:s(?!6k|19bp)\d|l\d|lp\d|sa$)"}


@dataclass(frozen=True)
class Panel:
    """The genes of a run, in order, and how they were chosen."""

    genes: tuple[str, ...]
    record: dict[str, str]


def is_mitochondrial(genes: np.ndarray, species: str) -> np.ndarray:
    """Return bool [G]: genes of the mitochondrial genome (`MT-` in human, `mt-` in mouse; not MTOR, MT2A or Mt1)."""
    return _matches(genes, _MITOCHONDRIAL, species)


def is_ribosomal(genes: np.ndarray, species: str) -> np.ndarray:
    """Return bool [G]: ribosomal protein genes (`RPS4X`, `RPLP0`, `RPSA` in human, `Rps4x` in mouse; not RPE or RPN1).

    RPS6KA1 and its kin are kinases and stay, as does RPS19BP1, which only binds one.
    """
    return _matches(genes, _RIBOSOMAL, species)


def _matches(genes: np.ndarray, patterns: Mapping[str, str], species: str) -> np.ndarray:
    pattern = re.compile(patterns.get(species, patterns["human"]))
    return np.array([bool(pattern.match(gene)) for gene in genes], dtype=bool)


def choose_panel(
    slides: "Sequence[anndata.AnnData | SlideRows]",
    options: Mapping[str, Any],
    name: str,
    tested: Mapping[str, Collection[str]] | None = None,
) -> Panel:
    """Return the panel.

    Parameters
    ----------
    slides
        The TRAINING units of each slide that has any: raw counts, `uns['stmorph']`, `var['control']`.
    options
        A `PanelConfig` as plain values.
    name
        What to call the panel in messages.
    tested
        Slide -> genes that it measures, for slides that are only tested: their panel's names, never their counts. A
        gene that one of them lacks is not chosen.

    Notes
    -----
    hmhvg: highly variable genes of each slide, united; of these the smallest N such that the N highest in pooled mean
    and the N highest in pooled standard deviation share `genes` genes (Stem tunes N by hand).
    hvg: the same union, the `genes` highest in pooled mean. deg: Wilcoxon test of each group against the rest, the best
    genes of every group in turn until `genes` are reached. all: every common gene, but the constant ones. Only deg
    reads all counts at once, the others in blocks.

    Raises
    ------
    ConfigError
        deg has nothing to compare, or more counts than fit in memory.
    DataError
        The slides share no genes, or too few are left for the panel.
    """
    slides = [slide_rows(slide) for slide in slides]
    species = str(slides[0].about["species"])
    record = {
        "kind": options["kind"],
        "chosen on": f"{sum(s.n_obs for s in slides)} training units of {len(slides)} slides",
    }
    measured = {str(s.about["slide"]): s.var.index[~s.var["control"].to_numpy(dtype=bool)] for s in slides}
    overlap = gene_overlap({**(tested or {}), **measured})
    common = list(overlap.common)
    if any(overlap.lacking.values()):
        record["genes"] = overlap.sentence()
    if not common:
        raise DataError(
            f"panel {name!r}: the slides have no gene in common ({overlap.sentence()}); "
            "check that they name genes alike (symbols or Ensembl ids)"
        )
    if options["kind"] == "list":
        genes = _from_file(Path(options["file"]), common, name)
        return Panel(genes, {**record, "chosen on": "published list", "file": options["file"]})
    genes = np.array(common)
    dropped = np.zeros(len(genes), dtype=bool)
    if options["drop_mitochondrial"]:
        dropped |= is_mitochondrial(genes, species)
    if options["drop_ribosomal"]:
        dropped |= is_ribosomal(genes, species)
    record["dropped by name"] = str(int(dropped.sum()))
    candidates = genes[~dropped]
    if not len(candidates):
        raise DataError(
            f"panel {name!r}: all {len(common)} common genes are mitochondrial or ribosomal; "
            "keep them (drop_mitochondrial, drop_ribosomal) or look at the gene names"
        )
    moments = [raw_moments(slide, candidates) for slide in slides]
    mean, std = _pooled_moments(moments)
    constant = std == 0
    record["dropped as constant"] = str(int(constant.sum()))
    if options["kind"] == "all":
        return Panel(tuple(sorted(map(str, candidates[~constant]))), record)
    if options["kind"] == "deg":
        chosen = _differential(slides, candidates[~constant], options, name)
    else:
        most = options["hvg_per_slide"]
        variable = [highly_variable(s, candidates, m.library, most) for s, m in zip(slides, moments, strict=True)]
        variable = np.any(variable, axis=0) & ~constant
        record["highly variable"] = str(int(variable.sum()))
        pick = _high_in_both if options["kind"] == "hmhvg" else _high_in_mean
        chosen = candidates[pick(mean, std, variable, options["genes"])]
    if len(chosen) < options["genes"]:
        raise DataError(
            f"panel {name!r}: only {len(chosen)} genes are left of {len(common)} common ones, {options['genes']} were "
            "asked for; lower genes, raise hvg_per_slide or keep mitochondrial and ribosomal genes"
        )
    return Panel(tuple(sorted(map(str, chosen))), record)


def _pooled_moments(moments: Sequence[Moments]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation [G] of raw counts over the units of all slides."""
    n = sum(len(one.library) for one in moments)
    mean = sum(one.total for one in moments) / n
    squares = sum(one.squares for one in moments)
    return mean, np.sqrt(np.maximum(squares / n - mean**2, 0) * n / max(n - 1, 1))


def _high_in_both(mean: np.ndarray, std: np.ndarray, variable: np.ndarray, genes: int) -> np.ndarray:
    among = np.flatnonzero(variable)
    by_mean, by_std = (among[np.argsort(-values[among], kind="stable")] for values in (mean, std))
    for top in range(genes, len(among) + 1):
        both = np.intersect1d(by_mean[:top], by_std[:top])
        if len(both) >= genes:
            return both[np.argsort(-mean[both], kind="stable")][:genes]
    return among


def _high_in_mean(mean: np.ndarray, std: np.ndarray, variable: np.ndarray, genes: int) -> np.ndarray:
    among = np.flatnonzero(variable)
    return among[np.argsort(-mean[among], kind="stable")][:genes]


def _differential(slides: Sequence[SlideRows], genes: np.ndarray, options: Mapping[str, Any], name: str) -> np.ndarray:
    import anndata
    import scanpy

    if (entries := sum(slide.nnz for slide in slides)) > MOST_COMPARED:
        raise ConfigError(
            f"panel {name!r}: kind deg would compare {entries:,} counts of training units at once; expected at most "
            f"{MOST_COMPARED:,}, as many as fit in memory: choose hmhvg or hvg, which read them in parts, or train on "
            "fewer units"
        )
    keys = [str(i) for i in range(len(slides))]
    pooled = anndata.concat([_held(slide, genes) for slide in slides], join="inner", index_unique="/", keys=keys)
    pooled.X = pooled.X.astype(np.float64)
    scanpy.pp.normalize_total(pooled, target_sum=1e4)
    scanpy.pp.log1p(pooled)
    groups = options["groups"] or "leiden"
    if groups == "leiden":
        scanpy.pp.pca(pooled, n_comps=min(30, *(size - 1 for size in pooled.shape)), random_state=0)
        scanpy.pp.neighbors(pooled, random_state=0)
        scanpy.tl.leiden(pooled, flavor="igraph", n_iterations=2, random_state=0)
    elif groups not in pooled.obs:
        raise ConfigError(
            f"panel {name!r}: the slides have no column {groups!r} to compare; "
            f"they have {', '.join(pooled.obs.columns)}"
        )
    pooled = pooled[pooled.obs[groups].notna()].copy()
    pooled.obs[groups] = pooled.obs[groups].astype(str).astype("category")
    sizes = pooled.obs[groups].value_counts()
    compared = sorted(sizes.index[sizes >= 2])
    if len(compared) < 2:
        raise DataError(
            f"panel {name!r}: {groups!r} has {len(compared)} groups with two units or more; "
            "at least two are needed to compare"
        )
    scanpy.tl.rank_genes_groups(pooled, groups, groups=compared, method="wilcoxon")
    ranked = [
        table.loc[(table["pvals_adj"] < 0.05) & (table["logfoldchanges"] > 0), "names"].tolist()
        for table in (scanpy.get.rank_genes_groups_df(pooled, group) for group in compared)
    ]
    chosen: dict[str, None] = {}
    for rank in range(max(map(len, ranked), default=0)):
        for genes in ranked:
            if rank < len(genes) and len(chosen) < options["genes"]:
                chosen.setdefault(genes[rank])
    return np.array(list(chosen))


def _held(slide: SlideRows, genes: np.ndarray) -> "anndata.AnnData":
    """Return some genes of a slide's units, in memory."""
    import anndata
    import scipy.sparse

    column = slide.var.index.get_indexer(list(genes))
    parts = [(index, counts[:, column]) for index, counts in slide.blocks()]
    order = np.argsort(np.concatenate([index for index, _ in parts]), kind="stable")
    counts = scipy.sparse.vstack([part for _, part in parts], format="csr")[order]
    return anndata.AnnData(counts, obs=slide.obs, var=slide.var.loc[list(genes)])


def _from_file(path: Path, common: list[str], name: str) -> tuple[str, ...]:
    try:
        listed = read_panel(path).genes
    except FileNotFoundError as error:
        raise DataError(f"panel {name!r}: {path} does not exist; give a file with one gene a line") from error
    duplicates = sorted({gene for gene in listed if listed.count(gene) > 1})
    if duplicates:
        raise DataError(f"panel {name!r}: {path} names {duplicates[0]} more than once; name each gene once")
    missing = sorted(set(listed) - set(common))
    if missing:
        raise DataError(
            f"panel {name!r}: {len(missing)} of {len(listed)} genes of {path} are not measured on every slide "
            f"({', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}); "
            "take them out of the file or choose other slides"
        )
    return listed


def training_slides(slides: Sequence[str | Path], split: str | Path) -> list[SlideFile]:
    """Return the training units of each slide that has any; test units never leave the file."""
    import pandas as pd

    table = pd.read_parquet(split)
    table = table[table["role"] == "train"]
    found = []
    for path in slides:
        slide = open_slide(path)
        wanted = np.sort(table.loc[table["slide"] == str(slide.about["slide"]), "barcode"].to_numpy(dtype=object))
        if len(wanted):
            found.append(slide.take(rows_of(slide.obs_names, wanted, path)))
    return found


def split_genes(slides: Sequence[str | Path], split: str | Path) -> dict[str, tuple[str, ...]]:
    """Return slide -> the genes it measures, for the slides that a split trains on or tests; no count is read."""
    import pandas as pd

    table = pd.read_parquet(split, columns=["slide", "role"])
    used = set(table.loc[table["role"].isin(["train", "test"]), "slide"])
    return {slide: genes for slide, genes in measured_genes(slides).items() if slide in used}


def write_panel(panel: Panel, path: Path) -> None:
    """Write `# key: value` lines and one gene a line."""
    lines = [f"# {key}: {value}" for key, value in panel.record.items()] + list(panel.genes)
    with whole(path) as partial:
        partial.write_text("\n".join(lines) + "\n")


def read_panel(path: Path) -> Panel:
    """Return a panel as written by `write_panel`, or a plain list of genes.

    Raises
    ------
    DataError
        The file names no gene.
    """
    lines = [line.strip() for line in Path(path).read_text().splitlines() if line.strip()]
    record = dict(line[1:].strip().partition(": ")[::2] for line in lines if line.startswith("#"))
    genes = tuple(line for line in lines if not line.startswith("#"))
    if not genes:
        raise DataError(f"{path} names no gene; expected one gene a line")
    return Panel(genes, record)

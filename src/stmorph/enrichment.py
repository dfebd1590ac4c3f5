"""What important genes have in common: over-representation and a preranked test, by gseapy, offline, from GMT files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from .errors import DataError


def read_gmt(path: str | Path) -> dict[str, list[str]]:
    """Return set name -> genes of a GMT file (name, description, genes, separated by tabs; one set a line).

    Raises
    ------
    DataError
        The file is missing, holds no set, or a line has fewer than three fields, no genes or a name used before.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read as a GMT file ({error}); give a tab-separated text file of gene sets"
        ) from error
    sets: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, *rest = line.split("\t")
        name = name.strip()
        genes = list(dict.fromkeys(gene.strip() for gene in rest[1:] if gene.strip()))
        if not name or not genes:
            raise DataError(
                f"{path}, line {number}: found {len(rest) + 1} fields ({line[:40]!r}); expected a name, a description "
                "and at least one gene, separated by tabs: mend or remove the line"
            )
        if name in sets:
            raise DataError(
                f"{path}, line {number}: the set {name!r} stands there a second time; give each set one name"
            )
        sets[name] = genes
    if not sets:
        raise DataError(
            f"{path} holds no gene set; expected lines of a name, a description and genes, separated by tabs"
        )
    return sets


def over_representation(
    genes: Sequence[str], sets: Mapping[str, Sequence[str]], background: Sequence[str], min_size: int, max_size: int
) -> pd.DataFrame:
    """Return for each set whether `genes` hold more of it than chance would (hypergeometric, Benjamini-Hochberg).

    The background is what was measured: genes outside it cannot be found and do not count. Sets of fewer than
    `min_size` or more than `max_size` measured genes are left out; how many is in `attrs['left_out']`.

    Returns
    -------
    pandas.DataFrame
        term, overlap, set_size (measured genes of the set), p_value, fdr, odds_ratio (a half added to each count; 0
        without overlap), genes; sorted by p, then term.

    Raises
    ------
    DataError
        No set has enough measured genes.
    """
    import gseapy

    tested = _measured(sets, background, min_size, max_size)
    found = gseapy.enrich(
        gene_list=list(genes), gene_sets=tested, background=list(background), outdir=None, no_plot=True, cutoff=1.0
    )
    results = found.results if isinstance(found.results, pd.DataFrame) else pd.DataFrame()
    rows = {row["Term"]: row for _, row in results.iterrows()}
    # gseapy says nothing of sets without overlap; they are tested all the same and belong to the correction.
    table = pd.DataFrame(
        {
            "term": name,
            "overlap": len(set(genes) & set(members)),
            "set_size": len(members),
            "p_value": float(rows[name]["P-value"]) if name in rows else 1.0,
            "odds_ratio": float(rows[name]["Odds Ratio"]) if name in rows else 0.0,
            "genes": ";".join(gene for gene in genes if gene in set(members)),
        }
        for name, members in tested.items()
    )
    table.insert(4, "fdr", _benjamini_hochberg(table["p_value"]))
    table = table.sort_values(["p_value", "term"], kind="stable").reset_index(drop=True)
    table.attrs["left_out"] = len(sets) - len(tested)
    return table


def preranked(
    ranking: pd.Series,
    sets: Mapping[str, Sequence[str]],
    min_size: int,
    max_size: int,
    seed: int,
    permutations: int = 1000,
) -> pd.DataFrame:
    """Return the preranked test of each set on the whole signed ranking.

    Parameters
    ----------
    ranking
        Signed importance, indexed by gene.

    Returns
    -------
    pandas.DataFrame
        term, es, nes, p_value, fdr, leading_edge; sorted by fdr, then |nes| falling.

    Raises
    ------
    DataError
        No set has enough measured genes, or every gene has the same importance.
    """
    import gseapy

    tested = _measured(sets, list(ranking.index), min_size, max_size)
    if ranking.nunique() < 2:
        raise DataError("every gene has the same importance, so there is no ranking to test; train the model longer")
    found = gseapy.prerank(
        rnk=ranking.sort_values(ascending=False, kind="stable"),
        gene_sets=tested,
        min_size=min_size,
        max_size=max_size,
        permutation_num=permutations,
        seed=seed,
        threads=1,
        outdir=None,
        no_plot=True,
    )
    table = found.res2d.rename(
        columns={
            "Term": "term",
            "ES": "es",
            "NES": "nes",
            "NOM p-val": "p_value",
            "FDR q-val": "fdr",
            "Lead_genes": "leading_edge",
        }
    )[["term", "es", "nes", "p_value", "fdr", "leading_edge"]]
    numbers = ["es", "nes", "p_value", "fdr"]
    table[numbers] = table[numbers].astype(float)
    order = table.assign(size=-table["nes"].abs()).sort_values(["fdr", "size", "term"], kind="stable").index
    return table.loc[order].reset_index(drop=True)


def _measured(
    sets: Mapping[str, Sequence[str]], measured: Sequence[str], min_size: int, max_size: int
) -> dict[str, list[str]]:
    known = set(measured)
    reduced = {name: [gene for gene in members if gene in known] for name, members in sets.items()}
    tested = {name: members for name, members in sorted(reduced.items()) if min_size <= len(members) <= max_size}
    if not tested:
        largest = max(map(len, reduced.values()), default=0)
        raise DataError(
            f"none of {len(sets)} gene sets has {min_size} to {max_size} measured genes (the largest has {largest}); "
            "lower min_size, use a larger panel or gene sets of this species"
        )
    return tested


def _benjamini_hochberg(p: pd.Series) -> pd.Series:
    from scipy.stats import false_discovery_control

    return pd.Series(false_discovery_control(p.to_numpy(dtype=float)), index=p.index)

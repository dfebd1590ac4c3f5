"""Does the demo find what the simulator planted? Prints each question with the number that answers it.

make demo && PYTHONPATH=src .venv/bin/python benchmarks/truth.py results/demo
Exits with 1 if an answer is no.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from stmorph.scores.choose import select
from stmorph.scores.rows import read_scores
from stmorph.simulate import causal_genes

CAUSAL = {gene for genes in causal_genes().values() for gene in genes}

DECOY = "SIM_DECOY"


def scores(results: Path, panel: str, label: str) -> pd.DataFrame:
    return read_scores([results / "runs/simulated/new_patient" / panel / label / "seed0/scores.parquet"])


def value(frame: pd.DataFrame, **selector) -> float:
    return float(select(frame, **{"slide": "all", **selector})["value"])


def programme_pcc(results: Path, label: str) -> float:
    """Return the median PCC over the programme genes of the panel, mean of the test slides."""
    genes = pd.read_parquet(results / "runs/simulated/new_patient/HMHVG" / label / "seed0/genes.parquet")
    chosen = genes[(genes["estimator"] == "mean") & genes["gene"].isin(CAUSAL)]
    return float(chosen.groupby("slide")["pcc"].median().mean())


def auc(results: Path) -> float:
    """Return the area under the curve of importance, causal genes against noise genes."""
    table = pd.read_csv(results / "importance/gene_importance/importance.csv")
    causal = table["gene"].isin(CAUSAL).to_numpy()
    ranks = table["importance"].rank().to_numpy()
    n, m = causal.sum(), (~causal).sum()
    return float((ranks[causal].sum() - n * (n + 1) / 2) / (n * m))


def enriched(results: Path) -> list[str]:
    table = pd.read_csv(results / "importance/gene_importance/enrichment.csv")
    return sorted(table.loc[table["fdr"] <= 0.05, "term"])


def main(folder: str) -> int:
    results = Path(folder)
    fixed = {"metric": "pcc", "k": 50, "gene_choice": "train", "estimator": "mean"}
    pcc = {
        name: value(scores(results, "HMHVG", name), **fixed)
        for name in ("stem", "nearest_neighbour", "stem-shuffled", "ridge")
    }
    fid = {
        name: value(scores(results, "all_genes", name), metric="fid", slide="pooled")
        for name in ("geneflow", "shuffled_pixels", "real_against_real", "nearest_neighbour_image")
    }
    answers = [
        (
            "Stem's PCC (genes fixed on training) above nearest neighbours'",
            pcc["stem"],
            pcc["stem"] > pcc["nearest_neighbour"],
            pcc,
        ),
        (
            "Stem's median PCC on programme genes above .5",
            programme_pcc(results, "stem"),
            programme_pcc(results, "stem") > 0.5,
            {},
        ),
        (
            "GeneFlow's FID nearer to real against real than to shuffled pixels",
            fid["geneflow"],
            fid["geneflow"] - fid["real_against_real"] < fid["shuffled_pixels"] - fid["geneflow"],
            fid,
        ),
    ]
    for programme in ("SIM_PROLIFERATION", "SIM_LIPID", "SIM_KERATIN"):
        along = {"metric": "programme_rho_binned", "reference": f"programme: {programme}"}
        paired, shuffled = (
            value(scores(results, "all_genes", name), **along) for name in ("geneflow", "geneflow-shuffled")
        )
        single = {"metric": "programme_rho", "reference": f"programme: {programme}"}
        noise = value(scores(results, "all_genes", "geneflow-shuffled"), **single)
        answers.append(
            (
                f"pictures along {programme}: rank correlation above .8, about 0 when shuffled",
                paired,
                paired > 0.8 and abs(noise) < 0.2,
                {"shuffled, ten bins": shuffled, "shuffled, single tiles": noise},
            )
        )
    answers.append(
        ("importance ranks causal genes above noise genes, AUC above .8", auc(results), auc(results) > 0.8, {})
    )
    found = enriched(results)
    planted = [name for name in found if not name.startswith(DECOY)]
    answers.append(
        (
            "enrichment at FDR 5 % finds planted programmes and nothing else",
            len(planted),
            bool(planted) and planted == found,
            {"found": found},
        )
    )
    for question, number, yes, more in answers:
        extra = ", ".join(
            f"{key} {item:.3f}" if isinstance(item, float) else f"{key} {item}" for key, item in more.items()
        )
        print(f"{'yes' if yes else 'NO ':<4}{number:8.3f}  {question}{f'  ({extra})' if extra else ''}")
    return int(not all(yes for _, _, yes, _ in answers))


if __name__ == "__main__":
    np.seterr(all="ignore")
    sys.exit(main(*sys.argv[1:] or ["results/truth"]))

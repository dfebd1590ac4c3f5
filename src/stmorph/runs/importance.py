"""Gene importance of a generator's runs, and what the important genes have in common."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..batches import Batcher
from ..enrichment import over_representation, preranked, read_gmt
from ..errors import DataError
from ..files import whole
from ..importance.gradients import energy_gradients, integrated_gradients
from ..importance.options import ImportanceOptions
from ..model_file import load_model
from ..randomness import numpy_generator
from .inputs import units_of


def gene_importance(
    entry: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], files: Mapping[str, Sequence[str]], out: str
) -> None:
    """Write the importance of each gene, averaged over the runs (seeds, folds) after scaling each run to mean 1.

    The units are those the models were trained on: which genes a model uses is a question about the model, and test
    units stay unseen.

    Raises
    ------
    DataError
        Integrated gradients do not add up (`max_completeness`).
    """
    options = ImportanceOptions(**entry["options"])
    tables = []
    for run, model, record in zip(runs, files["models"], files["records"], strict=True):
        method = load_model(model, record)
        units = units_of(run, files, ["train"])
        chosen = numpy_generator("gene importance", run["seed"]).permutation(len(units))[: options.max_units]
        units = units.take(np.sort(chosen))
        batcher = Batcher(units, method.needs | {"tiles"})
        parts = np.array_split(np.arange(len(units)), max(1, -(-len(units) // options.chunk)))
        batches = [(units.names()[part], batcher.batch(part)) for part in parts]
        common = {"times": options.times, "draws": options.draws, "at": options.at, "seed": run["seed"]}
        if entry["quantity"] == "velocity_energy":
            found = energy_gradients(method, batches, scaling=options.scaling, **common)
        else:
            found = integrated_gradients(method, batches, steps=options.steps, **common)
            if not found.completeness <= options.max_completeness:
                raise DataError(
                    f"integrated gradients miss f(x) - f(baseline) by {found.completeness:.3g}, more than "
                    f"max_completeness {options.max_completeness:g}; raise importance options steps"
                )
            print(f"completeness of integrated gradients: {found.completeness:.2e}")
        tables.append(_scaled(found.genes))
    mean = pd.concat(tables).groupby("gene", sort=False)[["importance", "signed", "se"]].mean()
    mean["rank"] = mean["importance"].rank(ascending=False, method="first").astype(int)
    mean["n"] = int(sum(table["n"].iloc[0] for table in tables))
    mean["runs"] = len(tables)
    mean["quantity"] = entry["quantity"]
    with whole(out) as partial:
        mean.sort_values("rank").reset_index().to_csv(partial, index=False, float_format="%.8g")


def enrich(entry: Mapping[str, Any], importance: str, gene_sets: str, out: Mapping[str, str]) -> None:
    """Write over-representation among the most important genes, the preranked test, and a picture of both."""
    from ..figures.importance import draw_importance

    genes = pd.read_csv(importance).sort_values("rank")
    sets = read_gmt(gene_sets)
    sizes = {"min_size": entry["min_size"], "max_size": entry["max_size"]}
    top = genes["gene"].head(entry["top"]).tolist()
    over = over_representation(top, sets, genes["gene"].tolist(), **sizes)
    ranked = preranked(genes.set_index("gene")["signed"], sets, seed=0, **sizes)
    for table, name in ((over, "enrichment"), (ranked, "prerank")):
        with whole(out[name]) as partial:
            table.to_csv(partial, index=False, float_format="%.6g")
    significant = over.loc[over["fdr"] <= entry["fdr"], "term"].tolist()
    left_out = over.attrs["left_out"]
    print(f"{Path(gene_sets).name}: {len(over)} sets tested, {left_out} too small or too large; found {significant}")
    draw_importance(genes, over, ranked, entry["fdr"], entry["top"], out["figure"])


def _scaled(genes: pd.DataFrame) -> pd.DataFrame:
    size = genes["importance"].mean()
    columns = ["importance", "signed", "se"]
    return genes.assign(**{name: genes[name] / size for name in columns}) if size > 0 else genes

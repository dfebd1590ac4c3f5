"""Windows of cells as units: a slide whose units are cells becomes one whose units are multi-cell tiles.

A window's counts are the sum of its cells', each times its weight; the cells stay beside them in uns['cells'], for
methods that read the expression of each.
"""

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse

from ..errors import DataError
from ..image.windows import WindowOptions, cells_in_tiles, window_grid

if TYPE_CHECKING:
    import anndata


def window_units(slide: "anndata.AnnData", options: WindowOptions) -> "anndata.AnnData":
    """Return a slide of windows from a slide of cells.

    Parameters
    ----------
    slide
        As `read_slide` gives it, its units cells: counts, obsm['spatial_um'], obs['cell_area_um2'] and, where there
        are outlines, obsm['boundary_um'].
    options
        Size, step, what a cut cell counts, least number of cells.

    Returns
    -------
    anndata.AnnData
        X: CSR, int32, or float64 with `fraction`, the weighted sums; obs array_row, array_col (the place in the grid),
        in_tissue, n_cells; obsm['spatial_um']: the windows' centres; var as it was; uns['stmorph'] with unit `window`,
        lost (of windows), cells_lost (of cells) and windows (the options, JSON); uns['cells']: counts (CSR int32
        [m, G]), barcode [m], start (int64 [n + 1]), cell (int64 [p], rows of counts) and weight (float64 [p]), so that
        window i holds cell[start[i] : start[i + 1]]; uns['cell_outlines_um'], float32 [m, V, 2], where there are some.

    Raises
    ------
    DataError
        The units are no cells, no window fits, or none holds enough cells.
    """
    import anndata

    record = dict(slide.uns["stmorph"])
    if record["unit"] != "cell":
        raise DataError(
            f"slide {record['slide']} of {record['dataset']} has units of the kind {record['unit']!r}; expected cells "
            "for windows: leave windows out of its reader_options"
        )
    size_um = [record[f"image_{side}_px"] * record["um_per_px"] for side in ("width", "height")]
    name, centre = window_grid(*size_um, options)
    half = options.fov_um / 2
    listed = cells_in_tiles(
        name,
        np.concatenate([centre - half, centre + half], axis=1),
        slide.obs_names.to_numpy(dtype=object),
        slide.obsm["spatial_um"],
        slide.obs["cell_area_um2"].to_numpy(dtype=np.float64),
        slide.obsm.get("boundary_um"),
        options.border,
    )
    row = pd.Index(name).get_indexer(listed["tile"])
    cell = slide.obs_names.get_indexer(listed["cell"])
    weight = listed["weight"].to_numpy()
    spread = scipy.sparse.csr_matrix((weight, (row, cell)), shape=(len(name), slide.n_obs))
    counts = scipy.sparse.csr_matrix(spread @ slide.X.astype(np.float64))
    number = np.bincount(row, minlength=len(name))
    genes = ~slide.var["control"].to_numpy(dtype=bool)
    counted = np.asarray(counts[:, genes].sum(axis=1)).ravel() > 0
    enough = number >= options.min_cells
    keep = np.flatnonzero(enough & counted)
    keep = keep[np.argsort(name[keep], kind="stable")]
    lost = {"too few cells": int((~enough).sum()), "no counts": int((enough & ~counted).sum())}
    if not len(keep):
        raise DataError(
            f"slide {record['slide']} of {record['dataset']} keeps none of {len(name)} windows ({lost}); expected some "
            f"with {options.min_cells} cells or more: mend fov_um, border or min_cells"
        )
    if options.border != "fraction":
        counts = counts.astype(np.int32)
    spread = spread[keep]
    spread.sort_indices()
    place = np.rint((centre[keep] - half) / options.step_um).astype(np.int64)
    record |= {
        "unit": "window",
        "lost": json.dumps({reason: n for reason, n in lost.items() if n}, sort_keys=True),
        "cells_lost": record["lost"],
        "windows": options.model_dump_json(),
    }
    outlines = slide.obsm.get("boundary_um")
    return anndata.AnnData(
        X=counts[keep],
        obs=pd.DataFrame(
            {"array_row": place[:, 1], "array_col": place[:, 0], "in_tissue": True, "n_cells": number[keep]},
            index=pd.Index(name[keep], dtype=object),
        ),
        var=slide.var,
        obsm={"spatial_um": centre[keep]},
        uns={
            "stmorph": record,
            "cells": {
                "counts": scipy.sparse.csr_matrix(slide.X),
                "barcode": slide.obs_names.to_numpy(dtype=object),
                "start": spread.indptr.astype(np.int64),
                "cell": spread.indices.astype(np.int64),
                "weight": spread.data.astype(np.float64),
            },
            **({} if outlines is None else {"cell_outlines_um": np.asarray(outlines, dtype=np.float32)}),
        },
    )

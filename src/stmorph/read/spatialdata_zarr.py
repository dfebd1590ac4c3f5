"""A SpatialData store of the user's own: a table, the elements it annotates, and an image, in one coordinate system.

Read through the library `spatialdata` (Marconato et al. 2024), which `make setup-spatialdata` adds. Positions are the
centroids of the annotated element in the coordinate system, taken into pixels of the image by the inverse of the
image's own transformation; the image is `store.zarr/images/<name>`.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse

from ..errors import ConfigError, DataError
from .base import Reader, ReaderOptions, SlideInfo
from .h5ad import AnnDataParts, counts_of
from .join import join
from .tables import reading

if TYPE_CHECKING:
    import anndata

MAX_SKEW = 0.02
"""Largest relative difference between the scales along the image's axes."""


class Options(ReaderOptions):
    """What the reader may be told.

    unit: what a row of the table is; must be given, for the store does not tell.
    table, region, image, coordinate_system: names in the store; None: the only one (of coordinate systems `global`).
    layer: of the table, where the raw counts are; None: X.
    um_per_unit: micrometres in one unit of the coordinate system; None: not told.
    """

    unit: Literal["spot", "pseudo-spot", "bin", "cell"] | None = None
    table: str | None = None
    region: str | None = None
    image: str | None = None
    coordinate_system: str | None = None
    layer: str | None = None
    um_per_unit: float | None = None


def _read(files: dict[str, Path], info: SlideInfo, options: Options) -> "anndata.AnnData":
    path = files["counts"]
    if options.unit is None:
        raise ConfigError(
            f"slide {info.slide} of {info.dataset}: reader_options.unit is not given; expected spot, pseudo-spot, bin "
            f"or cell: say what a row of the table in {path} is"
        )
    if options.um_per_unit is not None and not (math.isfinite(options.um_per_unit) and options.um_per_unit > 0):
        raise ConfigError(
            f"slide {info.slide} of {info.dataset}: reader_options.um_per_unit is {options.um_per_unit}; expected a "
            "length above 0, or null"
        )
    store = _opened(path)
    table = _chosen(store.tables, options.table, "table", path)
    name, instance, elsewhere = _annotated(table, options, path)
    if name not in store:
        raise DataError(
            f"{path}: the table annotates {name!r}, which the store lacks; expected it: write the store again"
        )
    image = _chosen(store.images, options.image, "image", path)
    system = _system(image, store[name], options.coordinate_system, path)
    to_system = _affine(image, system, path)
    positions = _positions(store[name], instance[~elsewhere], system, to_system, path)
    if {"array_row", "array_col"} <= set(table.obs):
        array = table.obs.set_axis(table.obs_names.astype(str)).loc[positions.index, ["array_row", "array_col"]]
        positions[["array_row", "array_col"]] = array.astype(np.int64)
    counts = counts_of(
        AnnDataParts(path, _matrix(table, options.layer, path)[~elsewhere], table.obs[~elsewhere], table.var)
    )
    adata = join(counts, positions, path, positions[["array_col", "array_row"]].to_numpy())
    adata.uns["unit"] = options.unit
    if elsewhere.any():
        adata.uns["lost"]["in another region"] = int(elsewhere.sum())
    if options.um_per_unit is not None:
        scale = math.sqrt(abs(np.linalg.det(to_system[:2, :2])))
        adata.uns["um_per_px"] = scale * options.um_per_unit
        adata.uns["um_per_px_evidence"] = (
            f"{scale * options.um_per_unit:.4f} by the image's transformation to {system!r} ({scale:.4g} units a px) "
            f"and um_per_unit {options.um_per_unit:g}"
        )
    pixels = image["scale0"]["image"] if "scale0" in getattr(image, "children", {}) else image
    adata.uns["image_size_px"] = (int(pixels.sizes["x"]), int(pixels.sizes["y"]))
    return adata


SPATIALDATA = Reader(roles={"counts": True, "image": True}, read=_read, Options=Options)


def _opened(path: Path) -> Any:
    try:
        import spatialdata
    except ImportError as error:
        raise ConfigError(
            f"{path} is to be read through the library spatialdata, which is not installed ({error}); expected it: run "
            "`make setup-spatialdata` in stmorph's folder, or start snakemake with --sdm conda"
        ) from error
    if not path.is_dir():
        raise DataError(f"{path} is no folder; expected a SpatialData store (.zarr): unpack it, or correct the path")
    with reading(path, "a SpatialData store (zarr)"):
        try:
            return spatialdata.read_zarr(path)
        except (OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError):
            raise
        except Exception as error:  # Zarr has exceptions of its own
            raise ValueError(str(error) or type(error).__name__) from error


def _chosen(elements: Any, name: str | None, kind: str, path: Path) -> Any:
    names = sorted(elements)
    if name is None and len(names) == 1:
        return elements[names[0]]
    if name in names:
        return elements[name]
    found = f"{name!r} is not among its {kind}s" if name else f"it has {len(names)} {kind}s"
    raise DataError(
        f"{path}: {found} ({', '.join(names) or 'none'}); expected one of them: name it in reader_options.{kind}"
    )


def _annotated(table: "anndata.AnnData", options: Options, path: Path) -> tuple[str, pd.Series, np.ndarray]:
    """Return the element's name, each row's instance in it, and which rows annotate another element."""
    told = table.uns.get("spatialdata_attrs")
    if not told or told.get("region_key") not in table.obs or told.get("instance_key") not in table.obs:
        raise DataError(
            f"{path}: the table does not say which element its rows belong to; expected region, region_key and "
            "instance_key: write it with spatialdata's TableModel"
        )
    region = table.obs[told["region_key"]].astype(str)
    names = sorted(set(region))
    name = options.region or (names[0] if len(names) == 1 else None)
    if name not in names:
        found = f"{name!r} is not among the table's regions" if name else f"the table has {len(names)} regions"
        raise DataError(
            f"{path}: {found} ({', '.join(names) or 'none'}); expected one of them: name the slide's in "
            "reader_options.region"
        )
    instance = pd.Series(table.obs[told["instance_key"]].to_numpy(), index=table.obs_names.astype(str))
    elsewhere = (region != name).to_numpy()
    twice = instance[~elsewhere].duplicated()
    if twice.any():
        raise DataError(
            f"{path}: {int(twice.sum())} rows of the table annotate an instance of {name!r} that another row "
            f"annotates, first {instance[~elsewhere][twice].iloc[0]!r}; expected each once: mend the table"
        )
    return name, instance, elsewhere


def _system(image: Any, element: Any, name: str | None, path: Path) -> str:
    from spatialdata.transformations import get_transformation

    common = sorted(set(get_transformation(image, get_all=True)) & set(get_transformation(element, get_all=True)))
    if name is None and ("global" in common or len(common) == 1):
        return "global" if "global" in common else common[0]
    if name in common:
        return name
    raise DataError(
        f"{path}: image and annotated element have {len(common)} coordinate systems in common "
        f"({', '.join(common) or 'none'}){f', {name!r} not among them' if name else ''}; expected one: name it in "
        "reader_options.coordinate_system"
    )


def _affine(image: Any, system: str, path: Path) -> np.ndarray:
    """Return the transformation of pixels x, y to the coordinate system, float64 [3, 3]."""
    from spatialdata.transformations import get_transformation

    matrix = np.asarray(
        get_transformation(image, to_coordinate_system=system).to_affine_matrix(("x", "y"), ("x", "y")), np.float64
    )
    scales = np.linalg.svd(matrix[:2, :2], compute_uv=False) if np.isfinite(matrix).all() else np.zeros(2)
    if scales.min() <= 0 or scales.max() / scales.min() - 1 > MAX_SKEW:
        raise DataError(
            f"{path}: a pixel of the image is {scales.max():.4g} by {scales.min():.4g} units of {system!r}; expected "
            "square pixels: choose another coordinate system, or mend the image's transformation"
        )
    return matrix


def _positions(element: Any, instance: pd.Series, system: str, to_system: np.ndarray, path: Path) -> pd.DataFrame:
    import spatialdata

    with reading(path, "an element with centroids"):
        centroids = spatialdata.get_centroids(element, coordinate_system=system)
        centroids = centroids.compute() if hasattr(centroids, "compute") else centroids
    found = pd.DataFrame({"x": centroids["x"].to_numpy(), "y": centroids["y"].to_numpy()}, index=centroids.index)
    if found.index.duplicated().any():
        raise DataError(f"{path}: the annotated element names an instance twice; expected each once: mend the store")
    placed = found.reindex(instance.to_numpy())
    missing = placed["x"].isna().to_numpy()
    if missing.all():
        raise DataError(
            f"{path}: no row of the table is an instance of the annotated element ({instance.index[0]!r} among the "
            f"rows; {found.index[0]!r} in the element); expected the same names: mend the table's instance_key"
        )
    system_xy = np.column_stack([placed[["x", "y"]].to_numpy(np.float64), np.ones(len(placed))])
    xy = (system_xy @ np.linalg.inv(to_system).T)[~missing, :2]
    return pd.DataFrame(
        {"in_tissue": True, "array_row": 0, "array_col": 0, "x_px": xy[:, 0], "y_px": xy[:, 1]},
        index=pd.Index(instance.index[~missing], dtype=object, name="barcode"),
    )


def _matrix(table: "anndata.AnnData", layer: str | None, path: Path) -> scipy.sparse.csr_matrix:
    if layer is not None and layer not in table.layers:
        names = sorted(name for name in table.layers if name is not None)  # None: X, as newer AnnData has it
        raise DataError(
            f"{path}: the table has no layer {layer!r} ({', '.join(names) or 'none'}); expected raw "
            "counts there: correct reader_options.layer"
        )
    return scipy.sparse.csr_matrix(table.X if layer is None else table.layers[layer])

"""HEST-1k's table of samples: read, chosen from by id, organ, technology and species, and whose tissue each is.

`HEST_v<a>_<b>_<c>.csv` (Jaume et al. 2024, "HEST-1k"): UTF-8, with a byte-order mark in some versions, one row a
sample. Samples of one study share `dataset_title`; `patient` counts within a study ("Patient 1") and is often empty, so
it says whose tissue a sample is only together with the study.
"""

import difflib
import hashlib
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import ConfigError, DataError
from .tables import check_columns, reading, text_options

NEEDED = ("id", "dataset_title", "organ", "species", "patient", "st_technology")
NUMBERS = (
    "pixel_size_um_estimated",
    "pixel_size_um_embedded",
    "inter_spot_dist",
    "spot_diameter",
    "spots_under_tissue",
    "fullres_px_width",
    "fullres_px_height",
)
SPECIES = {"Homo sapiens": "human", "Mus musculus": "mouse"}

# Reported by users and not mended (github.com/mahmoodlab/HEST, issue 126): TENX128 is the sample TENX155 under another
# title, and the colorectal study's five patients are all called "Patient 1" though `subseries` tells them apart.
SAME_SAMPLE = {"TENX128": "TENX155"}
_SUBSERIES_PATIENT = re.compile(r"Sample (P\d+)\b")


def read_metadata(path: Path) -> pd.DataFrame:
    """Return the table of samples, indexed by id and sorted by it.

    Columns as in the file (text, "" where empty), those of `NUMBERS` float64 (NaN where empty or absent), and
    `patient_key` (see `patient_key`).

    Raises
    ------
    DataError
        The file is damaged, lacks a column, or names a sample twice.
    """
    with reading(path, "HEST-1k's table of samples (csv)"):
        table = pd.read_csv(path, **text_options(path), dtype=str, keep_default_na=False, encoding="utf-8-sig")
    check_columns(table, NEEDED, path)
    twice = table["id"].duplicated()
    if twice.any():
        raise DataError(
            f"{path} names {int(twice.sum())} samples more than once, first {table['id'][twice].iloc[0]!r}; expected "
            "one row a sample: download the table again"
        )
    table = table.set_index("id").sort_index()
    odd: dict[str, str] = {}  # told only to whoever needs the sample: one slip should not close a thousand others
    for name in NUMBERS:
        text = table[name].str.strip() if name in table else pd.Series("", index=table.index)
        value = pd.to_numeric(text, errors="coerce").astype(np.float64)
        bad = ~np.isfinite(value) & ~text.str.lower().isin(("", "nan", "none"))
        odd |= {sample: f"{name} is {text[sample]!r}" for sample in table.index[bad]}
        table[name] = value
    table.attrs["odd"] = odd
    table["patient_key"] = _patient_keys(table)
    return table


def patient_key(dataset_title: str, patient: str) -> str:
    """Return whose tissue a sample is, a name that is unique over studies: `<digest of the study>_<patient>`.

    Where the patient is not told, all of a study's samples count as one: a split by patients then cannot leak.
    """
    study = hashlib.blake2b(dataset_title.strip().encode(), digest_size=4).hexdigest()
    return f"{study}_{re.sub(r'[^A-Za-z0-9]+', '_', patient).strip('_') or 'unknown'}"


def _patient_keys(table: pd.DataFrame) -> pd.Series:
    patient = table["patient"].str.strip()
    if "subseries" in table:
        named = table["subseries"].str.extract(_SUBSERIES_PATIENT, expand=False)
        # Only where a study gives all its samples one patient, though its subseries name several.
        per_study = pd.DataFrame({"patient": patient, "named": named}).groupby(table["dataset_title"])
        wrong = (per_study["patient"].transform("nunique") == 1) & (per_study["named"].transform("nunique") > 1)
        patient = named.where(wrong & named.notna(), patient)
    keys = pd.Series([patient_key(*one) for one in zip(table["dataset_title"], patient)], index=table.index)
    for copy, original in SAME_SAMPLE.items():
        if copy in keys.index and original in keys.index:
            keys[copy] = keys[original]
    return keys


def sample_row(table: pd.DataFrame, sample: str, path: Path) -> pd.Series:
    """Return a sample's row of `read_metadata`.

    Raises
    ------
    DataError
        There is none, or one of its `NUMBERS` is no number.
    """
    if sample not in table.index:
        near = difflib.get_close_matches(sample, list(table.index), 1)
        hint = f"{near[0]} is the nearest of {len(table)}" if near else f"it has {len(table)} others"
        raise DataError(
            f"{path} has no sample {sample!r} ({hint}); expected the sample's row: correct reader_options.id or the "
            "slide's name, or give a newer table"
        )
    if sample in table.attrs.get("odd", {}):
        raise DataError(
            f"{path}: {table.attrs['odd'][sample]} for {sample}; expected a number or nothing: mend the row, or give "
            "another table"
        )
    return table.loc[sample]


def select_samples(
    table: pd.DataFrame,
    ids: str | Sequence[str] = "*",
    *,
    organ: str | Sequence[str] | None = None,
    technology: str | Sequence[str] | None = None,
    species: str | Sequence[str] | None = None,
    dataset_title: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] = (),
) -> list[str]:
    """Return the ids of the samples that match, sorted by their letters and then by their number.

    Parameters
    ----------
    table
        From `read_metadata`.
    ids, exclude
        Patterns as of file names (`*`, `?`, `[...]`) of ids to take and to leave out; case counts.
    organ, technology, species, dataset_title
        Patterns of these columns, case aside; a species may also be `human` or `mouse`. None: any.

    Raises
    ------
    ConfigError
        Nothing matches: the sentence names the condition that leaves nothing and what there is; or a pattern of `ids`
        matches no sample of the table (a slip of the pen would silently shrink a study).
    """
    for pattern in _listed(ids):
        if not any(fnmatchcase(one, pattern) for one in table.index):
            near = difflib.get_close_matches(pattern.strip("*?"), list(table.index), 1)
            raise ConfigError(
                f"id pattern {pattern!r} matches none of HEST-1k's {len(table)} samples"
                + (f" (the nearest is {near[0]})" if near else "")
                + "; expected ids such as TENX95 or INT*: correct it, or read a newer table of samples"
            )
    keep = pd.Series(_matches(table.index, ids) & ~_matches(table.index, exclude), index=table.index)
    if not keep.any():
        raise ConfigError("exclude leaves none of the samples that ids names; expected at least one: shorten exclude")
    for name, column, patterns in (
        ("organ", "organ", organ),
        ("technology", "st_technology", technology),
        ("species", "species", species),
        ("dataset_title", "dataset_title", dataset_title),
    ):
        if patterns is None:
            continue
        values = table[column]
        hit = _matches(values.str.lower(), [p.lower() for p in _listed(patterns)])
        if name == "species":
            hit |= _matches(values.map(SPECIES).fillna(""), patterns)
        left = keep & hit
        if not left.any():
            there = sorted(set(values[keep]))
            raise ConfigError(
                f"{name} {', '.join(_listed(patterns))!r} leaves none of {int(keep.sum())} samples; expected one of "
                f"{', '.join(there[:12])}{', ...' if len(there) > 12 else ''}: correct {name} or the ids"
            )
        keep = left
    return sorted(table.index[keep], key=_by_number)


def _listed(patterns: str | Iterable[str]) -> list[str]:
    return [patterns] if isinstance(patterns, str) else list(patterns)


def _matches(values: Iterable[str], patterns: str | Iterable[str]) -> np.ndarray:
    wanted = _listed(patterns)
    return np.array([any(fnmatchcase(value, pattern) for pattern in wanted) for value in values], dtype=bool)


def _by_number(sample: str) -> tuple[str, int, str]:
    letters, number = re.match(r"(\D*)(\d*)", sample).groups()
    return letters, int(number or 0), sample

"""All slides of a study in one table, one row a slide."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import DataError

TITLE = "Quality control: one row a slide"
NOTES = (
    "Lost when read: units without counts, outside tissue or outside the image. Tiles lost: those that leave the image "
    "or show no tissue.",
    "um per px: as used, and in brackets as measured by the spots' pitch.",
    "Registration: share of the variance of expression's spatial components that the image under the units foretells "
    "in held-out tissue, as given and at the best other placement (displaced, mirrored or rotated). Pass: better than "
    "every other in at least 90 % of the resamples of tissue. Nothing in training reads it.",
)


def gather_quality(records: Sequence[str | Path]) -> pd.DataFrame:
    """Return the table of some slides' `<slide>.json`, in their order.

    Returns
    -------
    pandas.DataFrame
        One row a slide: dataset, slide, patient, unit, units, genes, counts_median, genes_median (per unit), lost
        (reader's, `reason: count`), kept and lost of each tiling, um_per_px, um_per_px_measured, um_per_px_evidence,
        on_tissue, registration (the verdict), score, rival_score, rival, confidence, best, sentence.

    Raises
    ------
    DataError
        A file is no slide's record.
    """
    return pd.DataFrame([_row(Path(path)) for path in records])


def quality_markdown(table: pd.DataFrame) -> str:
    """Return the table as Markdown, the columns that fit a page."""
    head, body = _shown(table)
    lines = [f"# {TITLE}", "", _line(head), "|" + "---|" * len(head), *(_line(row) for row in body)]
    return "\n".join([*lines, "", *(f"- {note}" for note in NOTES)]) + "\n"


def quality_html(table: pd.DataFrame) -> str:
    """Return the table as one HTML page without outside files."""
    head, body = _shown(table)
    verdict = head.index("registration")
    heads = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    rows = "".join(
        f"<tr class={html.escape(row[verdict])}>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>"
        for row in body
    )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in NOTES)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{TITLE}</title><style>{_STYLE}</style>"
        f"<h1>{TITLE}</h1><div class=scroll><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        f"<ul>{notes}</ul></html>\n"
    )


def _row(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text("utf-8"))
        found = record["registration"]
        tilings = record["tilings"].items()
        return {
            **{key: record[key] for key in ("dataset", "slide", "patient", "platform", "unit", "units", "genes")},
            "counts_median": record["counts_per_unit"]["median"],
            "genes_median": record["genes_per_unit"]["median"],
            "lost": _listed(record["lost"]),
            "tiles_kept": "; ".join(f"{name} {tiling['kept']}" for name, tiling in tilings),
            "tiles_lost": "; ".join(f"{name} {_listed(tiling['lost']) or 'none'}" for name, tiling in tilings),
            **{key: record[key] for key in ("um_per_px", "um_per_px_measured", "um_per_px_evidence")},
            "on_tissue": record["on_tissue_fraction"],
            "registration": found["verdict"],
            **{key: found[key] for key in ("score", "rival_score", "rival", "confidence", "best", "sentence")},
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is no slide's quality record ({type(error).__name__}: {error}); delete it and make it again"
        ) from error


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in counts.items())


def _shown(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    head = [
        "slide",
        "units",
        "genes",
        "counts per unit",
        "genes per unit",
        "lost when read",
        "tiles kept",
        "tiles lost",
    ]
    head += ["um per px", "registration", "score", "best other", "confidence"]
    body = []
    for row in table.itertuples():
        measured = "not measured" if pd.isna(row.um_per_px_measured) else f"{row.um_per_px_measured:.4f}"
        numbers = [row.score, row.rival_score, row.confidence]
        score, rival, confidence = ("" if pd.isna(value) else f"{value:.2f}" for value in numbers)
        body.append(
            [
                f"{row.dataset}/{row.slide}",
                f"{row.units:,} {row.unit}s",
                f"{row.genes:,}",
                f"{row.counts_median:,.0f}",
                f"{row.genes_median:,.0f}",
                row.lost or "none",
                row.tiles_kept,
                row.tiles_lost,
                f"{row.um_per_px:.4f} ({measured})",
                row.registration,
                score,
                f"{rival} {row.rival}".strip(),
                confidence,
            ]
        )
    return head, body


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#222}
h1{font-size:1.3rem}.scroll{overflow-x:auto}
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;text-align:left;vertical-align:top}thead th{border-bottom:1px solid #999}
td{border-top:1px solid #ddd}td:nth-child(10){font-weight:600;color:#c8553d}
td:nth-child(-n+5),td:nth-child(9){white-space:nowrap}td:nth-child(6),td:nth-child(12){min-width:12rem}
tr.pass td:nth-child(10){color:#5a9367}tr.undecided td:nth-child(10){color:#a87a1e}
ul{color:#555;max-width:70rem}
"""

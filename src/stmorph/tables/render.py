"""A gathered table in the paper's own shape, as Markdown and as HTML that needs nothing else."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

LINES = ("measured", "published", "difference")
_ARROWS = {"higher": "↑", "lower": "↓", None: ""}


def to_markdown(gathered: pd.DataFrame, table: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Return the table as Markdown: for each of the paper's rows a line measured here, published, and the difference.

    Parameters
    ----------
    gathered
        From `gather`.
    table
        The `TableConfig` as plain values.
    about
        `paper` (mapping or None), `datasets` (name -> title), `name`.
    """
    heads = _heads(table)
    lines = [f"# {table['description']}", "", *_banner(table, about), ""]
    titles = [f"{group}: {label}" if len(table["groups"]) > 1 else label for group, label, _ in heads]
    lines += [_line(["", "", *titles]), "|---|---|" + "---:|" * len(heads)]
    lines += [_line([row, which, *cells]) for row, which, cells in _body(gathered, table)]
    lines += ["", *(f"- {note}" for note in _notes(gathered))]
    return "\n".join(lines) + "\n"


def to_html(gathered: pd.DataFrame, table: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Return the table as one HTML page without outside files; arguments as for `to_markdown`."""
    groups, columns = table["groups"], table["columns"]
    top = "".join(f"<th colspan={len(columns)} class=g>{html.escape(group['label'])}</th>" for group in groups)
    second = "".join(
        f"<th{' class=first' if i % len(columns) == 0 else ''}>{html.escape(label)} {arrow}</th>"
        for i, (_, label, arrow) in enumerate(_heads(table))
    )
    body = []
    for row, which, cells in _body(gathered, table):
        shown = "".join(
            f"<td{' class=first' if i % len(columns) == 0 else ''}>{_two_lines(cell)}</td>"
            for i, cell in enumerate(cells)
        )
        kind = which.split()[0]  # measured, published, difference or not
        body.append(
            f"<tr class={kind}><th>{html.escape(row)}</th><td class=which>{html.escape(which)}</td>{shown}</tr>"
        )
    banner = "".join(f"<p class=banner>{html.escape(_plain(line))}</p>" for line in _banner(table, about) if line)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in _notes(gathered))
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f"<title>{html.escape(table['description'])}</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(table['description'])}</h1>{banner}"
        f"<div class=scroll><table><thead><tr><th colspan=2></th>{top}</tr><tr><th colspan=2></th>{second}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div><ul>{notes}</ul></html>\n"
    )


def _line(cells: Sequence[str]) -> str:
    """Return a line of a Markdown table; a bar or a line break in a cell would end it."""
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _two_lines(cell: str) -> str:
    """Return a cell's HTML with its interval below the number, so that tables stay narrow."""
    number, bracket, interval = html.escape(cell).partition(" [")
    return f"{number} <br><small>[{interval}</small>" if bracket else number


def _heads(table: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [(g["label"], c["label"], _ARROWS[c["better"]]) for g in table["groups"] for c in table["columns"]]


def _body(gathered: pd.DataFrame, table: Mapping[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Return (row label on its first line, which line, cells) for every line of the table."""
    values = gathered.set_index(["row", "group", "column"]) if len(gathered) else gathered
    digits = {column["label"]: column["digits"] for column in table["columns"]}
    lines = []
    for row in table["rows"]:
        mine = gathered[gathered["row"] == row["label"]]
        present = [which for which in LINES if mine[which].notna().any()]
        if row["run"] is None:
            present = ["why", *(which for which in present if which == "published")]
        elif mine["method"].notna().any() and "measured" not in present:
            present = ["measured", *present]
        for position, which in enumerate(present):
            cells = []
            for group, column, _ in _heads(table):
                place = (row["label"], group, column)
                entry = values.loc[place] if place in values.index else None
                cells.append("" if entry is None or which == "why" else _cell(entry, which, digits[column]))
            label = row["label"] if position == 0 else ""
            name = {"measured": "measured here", "why": f"not measured: {row['why']}"}.get(which, which)
            lines.append((label, name, cells))
    return lines


def _cell(entry: pd.Series, which: str, digits: int) -> str:
    value = entry[which]
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return "undefined" if which == "measured" and not pd.isna(entry["method"]) else ""
    if which == "difference":
        return f"{value:+.{digits}f}"
    text = f"{value:.{digits}f}"
    if which == "measured" and not math.isnan(entry["sd"]):
        return f"{text} ± {entry['sd']:.{digits}f}"
    if which == "measured" and not math.isnan(entry["ci_low"]):
        return f"{text} [{entry['ci_low']:.{digits}f}, {entry['ci_high']:.{digits}f}]"
    return text


def _banner(table: Mapping[str, Any], about: Mapping[str, Any]) -> list[str]:
    measured_on = ", ".join(about["datasets"].values())
    lines = [table["caption"]] if table["caption"] else []
    if about["paper"] is not None:
        paper = about["paper"]
        on = f", on {table['published_on']}" if table["published_on"] else ""
        lines.append(f"Published: {paper['title']} ({paper['authors']}, {paper['year']}; {paper['doi']}){on}.")
    lines.append(f"Measured here on: {measured_on}.")
    if table["published_on"] and table["published_on"] not in about["datasets"].values():
        lines.append(
            "**These are not the paper's data: a difference is between data sets as much as between systems.**"
        )
    return [line for text in lines for line in (text, "")]


def _plain(line: str) -> str:
    return line.replace("**", "")


def _notes(gathered: pd.DataFrame) -> list[str]:
    measured = gathered[gathered["method"].notna()]
    notes = []
    if measured["sd"].notna().any():
        notes.append(f"± is the standard deviation over {int(measured['replicates'].max())} seeds or folds.")
    if measured["ci_low"].notna().any():
        notes.append("Brackets: 95 % interval, bootstrap over test units.")
    for name, text in (("target_space", "Expression is compared in"), ("features", "Picture features")):
        found = sorted(set(measured[name].dropna()))
        if found:
            notes.append(f"{text}: {', '.join(found)}.")
    if len(measured):
        split = ", ".join(sorted(set(measured["split"])))
        units = measured.groupby("method", sort=True)["n"].max()
        notes.append(
            f"Split {split}; test units scored: {', '.join(f'{method} {int(n)}' for method, n in units.items())}."
        )
    if measured["replication"].any():
        notes.append("Split marked `replication`: the paper's own, with its leaks (see leakage.json beside the split).")
    told = sorted({f"{row.method}: {row.note}" for row in measured.itertuples() if row.note})
    return [*notes, *told[:12], *([f"... and {len(told) - 12} more notes (see the CSV)."] if len(told) > 12 else [])]


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#222;max-width:110rem}
h1{font-size:1.3rem}.banner{max-width:60rem;margin:.3rem 0}
.scroll{overflow-x:auto}table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;text-align:right;white-space:nowrap}
tbody th{text-align:left}td.which{text-align:left;color:#666;white-space:normal;min-width:7rem;max-width:14rem}
th,td{vertical-align:top}small{color:#777}
thead th{border-bottom:1px solid #999}.first{border-left:1px solid #ccc}.g{text-align:center;border-left:1px solid #ccc}
tr.published td,tr.difference td{color:#777}tr.measured td,tr.measured th,tr.not td,tr.not th{border-top:1px solid #ddd}
ul{color:#555;max-width:70rem}
"""

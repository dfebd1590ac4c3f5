"""A slide's page: one picture that shows whether the slide can be trusted."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..randomness import numpy_generator
from .measure import Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

MOST_DRAWN = 20_000
"""Units on the map of counts at most; of more, every k-th."""
MOST_RINGS = 1500
"""Units drawn on the image at most, taken at random of more: the tissue under them must be seen."""
PICTURE_PX = 900
_TONES = {"pass": 2, "displaced": 1, "mirrored": 1, "rotated": 1, "undecided": 4}
_GROUPS = {"displaced by 1": "1 unit off", "displaced by 2": "2 units off", "displaced by 5": "5 units off"}


def draw_page(measured: Measured, path: str | Path) -> None:
    """Write a slide's page as PNG, the same bytes for the same slide.

    Raises
    ------
    DataError
        The disk is full or the folder cannot be written.
    """
    from ..figures.style import plt, save

    record = measured.record
    # Places by hand: the automatic layout would draw everything twice.
    figure = plt.figure(figsize=(12.6, 8.6), layout="none")
    _units(figure.add_axes((0.045, 0.40, 0.46, 0.52)), measured)
    _map(figure.add_axes((0.55, 0.64, 0.36, 0.275)), figure.add_axes((0.93, 0.68, 0.011, 0.2)), measured)
    _histogram(figure.add_axes((0.56, 0.385, 0.18, 0.2)), measured.counts, f"counts per {record['unit']}", 0)
    _histogram(figure.add_axes((0.79, 0.385, 0.18, 0.2)), measured.genes, f"genes per {record['unit']}", 2)
    _registration(figure.add_axes((0.075, 0.065, 0.22, 0.225)), record["registration"])
    _facts(figure.add_axes((0.33, 0.03, 0.41, 0.27)), record)
    _stains(figure.add_axes((0.76, 0.05, 0.225, 0.24)), record)
    figure.suptitle(
        f"{record['dataset']} / {record['slide']}   ·   {record['platform']}, patient {record['patient']}   ·   "
        f"{record['units']:,} {record['unit']}s, {record['genes']:,} genes",
        fontsize=11,
        y=0.975,
    )
    save(figure, path)


def _every(n: int) -> slice:
    return slice(None, None, max(1, -(-n // MOST_DRAWN)))


def _units(ax: "Axes", measured: Measured) -> None:
    from PIL import Image

    from ..figures.style import COLOURS

    picture = Image.fromarray(measured.picture)
    height_um, width_um = (side * measured.um_per_px / 1000 for side in measured.picture.shape[:2])
    picture.thumbnail((PICTURE_PX, PICTURE_PX), Image.Resampling.BOX)
    ax.imshow(np.asarray(picture), extent=(0, width_um, height_um, 0), interpolation="bilinear")
    n = len(measured.spatial_um)
    # At random, for every k-th of units on a grid would be stripes.
    part = np.sort(numpy_generator("quality page", n).permutation(n)[:MOST_RINGS])
    xy, lost = measured.spatial_um[part] / 1000, measured.lost[part]
    size = float(np.clip(14_000 / len(xy), 0.5, 30))
    colours = iter((COLOURS[1], COLOURS[4], COLOURS[3], COLOURS[5], COLOURS[7]))
    every = measured.record["tilings"]
    totals = next(iter(every.values()))["lost"]
    for reason in ("", *sorted(totals)):
        here = lost == reason
        count = totals.get(reason, int((measured.lost == "").sum()))
        label = f"{count:,} {f'lost: {reason}' if reason else 'kept'}"
        colour = next(colours) if reason else COLOURS[0]
        # Rings on a white rim: they are seen on tissue of any colour and hide little of it.
        ax.scatter(*xy[here].T, s=size, facecolors="none", edgecolors="white", linewidths=1.7)
        ax.scatter(*xy[here].T, s=size, facecolors="none", edgecolors=colour, linewidths=1.0, label=label)
    ax.set(xlabel="x, mm", ylabel="y, mm", xlim=(0, width_um), ylim=(height_um, 0), aspect="equal")
    drawn = "" if len(xy) == n else f"; {len(xy):,} of {n:,} drawn"
    ax.set_title(f"{measured.record['unit']}s on the image, tiles {next(iter(every))}{drawn}", loc="left")
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.1), ncols=3, borderaxespad=0, handletextpad=0.3)


def _map(ax: "Axes", scale: "Axes", measured: Measured) -> None:
    from matplotlib.colors import LogNorm

    part = _every(len(measured.counts))
    xy, counts = measured.spatial_um[part] / 1000, measured.counts[part]
    low, high = max(1.0, float(np.quantile(counts, 0.02))), float(np.quantile(counts, 0.98))
    dots = ax.scatter(
        *xy.T,
        c=np.maximum(counts, 1),
        s=float(np.clip(7_000 / len(xy), 0.3, 22)),
        cmap="viridis",
        norm=LogNorm(low, max(high, low * 1.01)),
        linewidths=0,
    )
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.invert_yaxis()
    for side in ax.spines.values():
        side.set_visible(False)
    ax.set_title(f"counts per {measured.record['unit']}", loc="left")
    bar = ax.figure.colorbar(dots, cax=scale)
    _plain_ticks(bar.ax.yaxis, high / low)


def _histogram(ax: "Axes", values: np.ndarray, label: str, colour: int) -> None:
    from ..figures.style import COLOURS

    low, high = max(float(values.min()), 1.0), max(float(values.max()), 2.0)
    ax.hist(np.maximum(values, 1), bins=np.geomspace(low, max(high, low * 1.1), 31), color=COLOURS[colour], alpha=0.85)
    median = float(np.median(values))
    ax.axvline(median, color=COLOURS[5], lw=1, ls="--")
    ax.set_xscale("log")
    _plain_ticks(ax.xaxis, high / low)
    ax.tick_params(labelsize=8)
    ax.set_title(f"{label}, median {median:,.0f}", loc="left", fontsize=9)


def _plain_ticks(axis: "Axis", ratio: float) -> None:
    """Label a logarithmic axis, from its lowest to `ratio` times this, with ordinary numbers."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    steps = (1.0,) if ratio > 50 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=steps) if ratio > 4 else MaxNLocator(4))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(labelsize=8)


def _registration(ax: "Axes", found: dict[str, Any]) -> None:
    from ..figures.style import COLOURS

    ax.set_title(
        f"registration: {found['verdict']}", loc="left", fontweight="bold", color=COLOURS[_TONES[found["verdict"]]]
    )
    if not found["scores"]:
        ax.axis("off")
        return
    rows = ["as given", *_GROUPS.values(), "mirrored", "rotated"]
    for name, score in found["scores"].items():
        group = next((row for start, row in _GROUPS.items() if name.startswith(start)), name.split(" ")[0].rstrip(","))
        group = "as given" if name == "as given" else group
        given = group == "as given"
        colour = COLOURS[0] if given else COLOURS[1] if name == found["best"] else COLOURS[5]
        ax.plot(score, rows.index(group), "o", ms=8 if given else 5, color=colour, alpha=1 if given else 0.6, mew=0)
    ax.axvline(found["score"], color=COLOURS[0], lw=0.8, ls="--", zorder=0)
    ax.axvline(0, color="0.8", lw=0.8, zorder=0)
    ax.set(yticks=range(len(rows)), yticklabels=rows, ylim=(len(rows) - 0.5, -0.5))
    ax.set_xlabel("share of expression's variance foretold by the image", fontsize=8)
    ax.tick_params(labelsize=8)


def _facts(ax: "Axes", record: dict[str, Any]) -> None:
    ax.axis("off")
    lost = [f"{count:,} {reason}" for reason, count in record["lost"].items()]
    facts = [("lost when read", ", ".join(lost) or "none")]
    for name, tiling in record["tilings"].items():
        gone = ", ".join(f"{count:,} {reason}" for reason, count in tiling["lost"].items())
        facts.append((f"tiles {name}", f"{tiling['kept']:,} kept; lost: {gone or 'none'}"))
    facts += [
        ("um per px", record["um_per_px_evidence"]),
        ("on tissue", f"{record['on_tissue_fraction']:.1%} of the {record['unit']}s"),
        ("registration", record["registration"]["sentence"]),
    ]
    top = 1.0
    for name, text in facts:
        lines = textwrap.wrap(text, 72)[:4]
        ax.text(0.0, top, name, fontsize=8, fontweight="bold", va="top", transform=ax.transAxes)
        ax.text(0.2, top, "\n".join(lines), fontsize=8, va="top", transform=ax.transAxes)
        top -= 0.085 * len(lines) + 0.05


def _stains(ax: "Axes", record: dict[str, Any]) -> None:
    from matplotlib.patches import Rectangle

    name, tiling = next(iter(record["tilings"].items()))
    stain = tiling["stain"]
    ax.set(xlim=(0, 4), ylim=(2.25, -0.45), xticks=[], yticks=[])
    ax.axis("off")
    ax.set_title(f"stains (fit {stain['fit']}, tiles {name})", loc="left")
    if stain["source"] is None:
        ax.text(0, 0.3, "no stains were fitted to the slide", fontsize=8)
        return
    for row, (label, stains) in enumerate((("this slide", stain["source"]), ("target", stain["target"]))):
        ax.text(0, row + 0.38, label, fontsize=8, va="center")
        for column, dye in enumerate(("haematoxylin", "eosin")):
            vector, strength = np.array(stains["stain_matrix"][column]), stains["max_concentration"][column]
            x = 0.95 + 1.55 * column
            # The dye alone at the amount of its 99th percentile, as the eye would see it.
            ax.add_patch(Rectangle((x, row), 1.4, 0.5, color=np.clip(np.exp(-vector * strength), 0, 1)))
            numbers = " ".join(f"{value:.2f}" for value in vector)
            ax.text(x, row + 0.54, f"{numbers}\nstrength {strength:.2f}", fontsize=7, va="top")
            if row == 0:
                ax.text(x, -0.08, dye, fontsize=8)

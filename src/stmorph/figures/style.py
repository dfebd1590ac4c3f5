"""One look for all figures, and the same bytes for the same numbers."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from ..files import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

plt.rcParams.update(
    {
        "figure.dpi": 110,
        "savefig.dpi": 140,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
    }
)

COLOURS = ("#3b6ea5", "#c8553d", "#5a9367", "#8d6a9f", "#d9a441", "#4f4f4f", "#9fb8ad", "#b76e79")


def save(figure: "Figure", path: str | Path) -> None:
    """Write a figure as PNG without the date and version that would make its bytes differ."""
    with whole(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})
    plt.close(figure)

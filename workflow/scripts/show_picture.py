"""Puts the demo's two telling figures into one picture for the README.

python workflow/scripts/show_picture.py results/demo docs/demo.png
"""

import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.image
import matplotlib.pyplot as plt

results, out = sys.argv[1:]
figure, axes = plt.subplots(1, 2, figsize=(14, 4.9), width_ratios=[1.55, 1.25], constrained_layout=True)
for ax, name, title in zip(
    axes,
    ("samples", "prediction_maps"),
    ("expression to tissue: real tiles, and what each generator drew", "tissue to expression: measured, and predicted"),
):
    ax.imshow(matplotlib.image.imread(f"{results}/figures/{name}.png"))
    ax.set_title(title, fontsize=11)
    ax.axis("off")
figure.savefig(out, dpi=110, metadata={"Software": None})

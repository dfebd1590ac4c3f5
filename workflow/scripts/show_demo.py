"""Says at the end of `make demo` where to look."""

import sys
from pathlib import Path

results = Path(sys.argv[1])
found = [
    ("report", [results / "report.html"]),
    ("tables", sorted((results / "tables").glob("*.md"))),
    ("figures", sorted((results / "figures").glob("*.png"))),
    ("quality", sorted((results / "quality").glob("*.md"))),
    ("gene importance", sorted((results / "importance").glob("*/importance.png"))),
]
print("\nThe demo is made. Look at:")
for name, paths in found:
    for path in paths:
        print(f"  {name:<16} {path}")
print(
    "These are simulated tissue and minutes of training: they show that the workflow works, not how good a system is."
)

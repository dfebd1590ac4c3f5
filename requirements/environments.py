"""Write into each conda environment what its packages need, at the versions of the locks.

python requirements/environments.py

Above the line that starts with MARK stands what the steps import, by hand; below it, all that those need.
"""

import re
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = [ROOT / "requirements" / name for name in ("dev.lock", "spatialdata.lock")]
MARK = "      # And what these need"
STANDS_FOR = {"opencv-python": "opencv-python-headless"}
"""Package -> the build of it without a screen's libraries, which the lock has instead."""


def main() -> None:
    """Write all environments anew."""
    for file in sorted((ROOT / "workflow" / "envs").glob("*.yaml")):
        above = file.read_text().partition(MARK)[0]
        own = re.findall(r"^      - ([A-Za-z0-9._-]+)(?:==|$)", above, re.MULTILINE)
        solved = solve(own)
        for name in own:
            line = f"      - {name}=={solved.pop(name)}"
            above = re.sub(rf"^      - {re.escape(name)}(==.*)?$", line, above, flags=re.MULTILINE)
        below = [f"      - {name}=={version}{marker(name, version)}\n" for name, version in solved.items()]
        file.write_text(f"{above}{MARK}, written by `make lock`.\n{''.join(below)}")


def solve(names: list[str]) -> dict[str, str]:
    """Return package -> version of some packages and all that they need, for Python 3.11 on Linux."""
    lock = locked()
    stand_ins = [f"{name}=={re.search(rf'^{of}==([^ ]+)', lock, re.MULTILINE)[1]}" for name, of in STANDS_FOR.items()]
    command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-config"]
    where = ["--python-platform", "x86_64-unknown-linux-gnu", "--python-version", "3.11"]
    with tempfile.TemporaryDirectory() as folder:
        held = Path(folder) / "held.txt"
        held.write_text("\n".join([*re.findall(r"^\w[^\\\n]*==[^\\\n]*", lock, re.MULTILINE), *stand_ins]))
        wanted = "\n".join(names)
        done = subprocess.run(
            [*command, *where, "-c", held, "-"], input=wanted, text=True, check=True, stdout=subprocess.PIPE
        )
    return dict(line.split("==") for line in done.stdout.split())


def locked() -> str:
    """Return the locks as one text: what both have, they have at the same version."""
    return "\n".join(lock.read_text() for lock in LOCKS)


def marker(name: str, version: str) -> str:
    """Return the marker of what the lock has for Linux only."""
    found = re.search(rf"^{re.escape(name)}=={re.escape(version)} ;(.*)$", locked(), re.MULTILINE)
    return " ; sys_platform == 'linux'" if found and "sys_platform == 'linux'" in found[1] else ""


if __name__ == "__main__":
    main()

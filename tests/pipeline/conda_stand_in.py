"""Answers as `conda` where Snakemake 9 calls it, and makes an environment of pip's part of the file, from the lock.

It proves what Snakemake does with the environments and that their packages are enough, not that conda's solver
finds them: the channels are never asked. What an environment's Python loads, each job tells at its end.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

sys.path.append(str(Path(__file__).parents[1] / "unit"))

from locks import locked_part

ACTIVATE = """\
export CONDA_PREFIX="$1"
export PATH="$1/bin:$PATH"
"""
TELL = '''\
import atexit, importlib.util, json, os, sys


def tell():
    """Write what a job of Snakemake has loaded, from where, and what it would find."""
    main, folder = sys.modules["__main__"], os.environ.get("STMORPH_TOLD")
    snakemake = getattr(main, "snakemake", None)
    if snakemake is None or folder is None:
        return
    loaded = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    told = {
        "script": sys.argv[0].split(".")[-2],  # Snakemake's copy: tmp12345678.<script>.py
        "rule": snakemake.rule,
        "code": snakemake.params.get("code"),
        "prefix": sys.prefix,
        "base": sys.base_prefix,
        "path": sys.path,
        "loaded": {name: file for name, file in loaded.items() if file},
        "found": [name for name in os.environ["STMORPH_HOST_HAS"].split() if importlib.util.find_spec(name)],
    }
    with open(os.path.join(folder, f"{os.getpid()}.json"), "w") as file:
        json.dump(told, file)


atexit.register(tell)
'''


def main(base: Path, words: list[str]) -> None:
    """Answer one command of those that Snakemake gives; refuse any other."""
    with (base / "asked.txt").open("a") as asked:
        asked.write(" ".join(words) + "\n")
    if words == ["--version"]:
        print("conda 25.3.0")
    elif words == ["info", "--json"]:
        print(json.dumps({"conda_prefix": str(base), "platform": "linux-64"}))
    elif words == ["config", "--get", "channel_priority", "--json"]:
        print(json.dumps({"get": {"channel_priority": "strict"}}))
    elif words[:4] == ["env", "create", "--quiet", "--no-default-packages"] and words[4::2] == ["--file", "--prefix"]:
        create(Path(words[5]), Path(words[7]))
    elif words == ["clean", "-y", "--tarballs"]:  # `conda-cleanup-pkgs` of profiles/local
        pass
    else:
        sys.exit(f"the stand-in for conda does not know: conda {' '.join(words)}")


def create(file: Path, prefix: Path) -> None:
    """Make the environment: the Python that the file asks for, and pip's part with the lock's hashes."""
    specs = [item for item in yaml.safe_load(file.read_text())["dependencies"] if isinstance(item, str)]
    (python,) = [spec.partition("==")[2] for spec in specs if spec.startswith("python==")]
    minor = ".".join(python.split(".")[:2])  # which 3.11 there is on a machine differs
    wanted = file.with_suffix(".txt")
    wanted.write_text("\n".join(locked_part(file)) + "\n")
    uv("venv", "--quiet", "--no-project", "--no-python-downloads", "--python", minor, str(prefix))
    pip = ("--quiet", "--python", str(prefix / "bin" / "python"))
    uv("pip", "install", *pip, "--no-deps", "--require-hashes", "-r", str(wanted))
    packages = next(prefix.glob("lib/python*/site-packages"))
    (packages / "tell_what_was_loaded.py").write_text(TELL)
    (packages / "tell_what_was_loaded.pth").write_text("import tell_what_was_loaded\n")


def uv(*words: str) -> None:
    """Run uv, the one of the locked environment where there is one; its words are conda's where it fails."""
    beside = Path(sys.executable).parent / "uv"
    done = subprocess.run([str(beside) if beside.exists() else shutil.which("uv"), *words])
    if done.returncode != 0:
        sys.exit(done.returncode)


def install(base: Path) -> Path:
    """Put the stand-in where `conda` would be: a folder for PATH, and the script that activates an environment."""
    (base / "bin").mkdir(parents=True)
    (base / "bin" / "activate").write_text(ACTIVATE)
    conda = base / "bin" / "conda"
    words = " ".join(f"'{word}'" for word in (sys.executable, Path(__file__).resolve(), base))
    conda.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    conda.chmod(0o755)
    return base / "bin"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

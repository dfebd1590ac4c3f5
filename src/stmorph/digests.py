"""Code and data tracked by content: a changed module reruns exactly its users, a fresh clone reruns nothing."""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
SCRIPTS = PACKAGE.parents[1] / "workflow" / "scripts"


def digest_of(value: Any) -> str:
    """Return a short hex digest of a JSON-able value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_digest(path: str | Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache  # a study of thousands of runs asks for each step and method thousands of times
def script_digest(script: str, *modules: str) -> str:
    """Return a digest of a step: its script, all of the package that the script imports, and some modules more.

    Parameters
    ----------
    script
        Name of a file in workflow/scripts, without its ending.
    modules
        What the step loads by a name of the config, which no import statement shows: a method, a kind of figure.
        Names below the package, e.g. `methods.stem`; a package stands for all of its files.
    """
    files = sorted(script_files(script) | code_files(*modules))
    meanings = [(file.relative_to(PACKAGE).as_posix(), _meaning(file.read_text("utf-8"))) for file in files]
    return digest_of([_meaning((SCRIPTS / f"{script}.py").read_text("utf-8")), meanings])


def code_files(*modules: str) -> frozenset[Path]:
    """Return the files of some modules of this package and of all of the package that they import."""
    return frozenset().union(*(_closure(_path_of(name)) for name in modules))


def script_files(script: str) -> frozenset[Path]:
    """Return the files of this package that a step's script imports, without its frame: `job` changes no result."""
    used = [file for file in _imports(SCRIPTS / f"{script}.py") if file != PACKAGE / "job.py"]
    return frozenset().union(*(_closure(file, whole=False) for file in used))


@cache  # every job asks for the same files
def _meaning(source: str) -> str:
    """Return the syntax tree without docstrings (of constants too), so that a reworded one reruns nothing."""
    return ast.dump(_WithoutBareStrings().visit(ast.parse(source)))


class _WithoutBareStrings(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node


def _path_of(name: str) -> Path:
    path = PACKAGE.joinpath(*name.split("."))
    if path.is_dir():
        return path / "__init__.py"
    path = path.with_suffix(".py")
    if not path.exists():
        raise FileNotFoundError(f"the package has no module {name!r}: {path}")
    return path


@cache
def _closure(path: Path, whole: bool = True) -> frozenset[Path]:
    """Return a file and all of the package that it imports; `whole`: a package stands for all of its files."""
    seen: set[Path] = set()
    todo = [path]
    while todo:
        file = todo.pop()
        if file in seen:
            continue
        seen.add(file)
        if whole and file == path and file.name == "__init__.py" and file.parent != PACKAGE:
            todo += sorted(file.parent.rglob("*.py"))
        todo += _imports(file)
    return frozenset(seen)


@cache
def _imports(file: Path) -> tuple[Path, ...]:
    """Return the files of this package that a file imports, also inside functions."""
    found: list[Path] = []
    package = file.parent.relative_to(PACKAGE).parts if file.is_relative_to(PACKAGE) else ()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                inner = node.module.split(".") if node.module else []
                base = (*package[: len(package) - node.level + 1], *inner)
            elif node.module and node.module.split(".")[0] == PACKAGE.name:
                base = tuple(node.module.split(".")[1:])
            else:
                continue
            found += _files_of(base)
            for alias in node.names:
                found += _files_of((*base, alias.name))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == PACKAGE.name:
                    found += _files_of(tuple(parts[1:]))
    return tuple(found)


def _files_of(parts: tuple[str, ...]) -> list[Path]:
    path = PACKAGE.joinpath(*parts)
    if (path / "__init__.py").exists():
        return [path / "__init__.py"]
    return [path.with_suffix(".py")] if parts and path.with_suffix(".py").exists() else []

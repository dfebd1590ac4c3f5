"""What changes a digest of code, and what does not."""

import hashlib
import os

import pytest

from stmorph import digests

FILES = {
    "__init__.py": '"""The package."""\n',
    "base.py": '"""Base."""\n\nSIZE = 3\n"""How large."""\n\n\n'
    'def base(x):\n    """Return more."""\n    return x + SIZE\n',
    "user.py": "from .base import base\n\n\ndef use():\n    return base(1)\n",
    "lazy.py": "def use():\n    from . import base\n\n    return base.base(1)\n",
    "absolute.py": "import {name}.base\n\nprint({name}.base.SIZE)\n",
    "apart.py": "import json\n\nTEXT = 'base'\n",
    "far.py": "from .user import use\n",
    "group/__init__.py": '"""A group."""\n',
    "group/one.py": "from ..base import base\n",
    "group/two.py": "ONE = 1\n",
    "group/inner/__init__.py": "",
    "group/inner/deep.py": "DEEP = 1\n",
    "circle_a.py": "from . import circle_b\n\nA = 1\n",
    "circle_b.py": "from . import circle_a\n\nB = 1\n",
}
USERS = {"base", "user", "lazy", "absolute", "far", "group", "group.one"}
MODULES = sorted({*USERS, "apart", "group.two", "group.inner", "group.inner.deep", "circle_a", "circle_b"})


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "toy"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.format(name="toy") if name == "absolute.py" else text)
    monkeypatch.setattr(digests, "PACKAGE", folder)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "empty.py").write_text("")
    monkeypatch.setattr(digests, "SCRIPTS", tmp_path / "scripts")
    return folder


def forget():
    for remembered in (digests._closure, digests._imports, digests.script_digest):
        remembered.cache_clear()


def code_digest(*modules):
    return digests.script_digest("empty", *modules)


def all_digests():
    forget()
    return {module: code_digest(module) for module in MODULES}


def changed(package, file, old, new):
    before = all_digests()
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new))
    after = all_digests()
    return {module for module in MODULES if before[module] != after[module]}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SIZE = 3", "SIZE = 3  # a comment"),
        ('"""Base."""', '"""Another word for base."""'),
        ('"""Base."""\n', ""),
        ('"""Return more."""', '"""Return less,\n\n    honestly.\n    """'),
        ('"""How large."""', '"""How very large."""'),
        ("return x + SIZE", "return (x  +  SIZE)\n\n"),
    ],
)
def test_words_and_layout_change_nothing(package, old, new):
    assert changed(package, "base.py", old, new) == set()


def test_a_touch_changes_nothing(package):
    before = all_digests()
    os.utime(package / "base.py", (1, 1))
    assert all_digests() == before


def test_a_changed_module_changes_its_users_only(package):
    assert changed(package, "base.py", "SIZE = 3", "SIZE = 4") == USERS


def test_a_changed_user_changes_not_what_it_uses(package):
    assert changed(package, "user.py", "base(1)", "base(2)") == {"user", "far"}


def test_a_string_that_is_used_counts(package):
    assert changed(package, "apart.py", "'base'", "'other'") == {"apart"}


def test_a_package_stands_for_all_of_its_files(package):
    assert changed(package, "group/two.py", "1", "2") == {"group", "group.two"}
    assert changed(package, "group/inner/deep.py", "1", "2") == {"group", "group.inner", "group.inner.deep"}


def test_a_new_file_of_a_package_counts(package):
    before = all_digests()
    (package / "group" / "three.py").write_text("THREE = 3\n")
    after = all_digests()
    assert {module for module in MODULES if before[module] != after[module]} == {"group"}


def test_circles_end(package):
    assert changed(package, "circle_a.py", "A = 1", "A = 2") == {"circle_a", "circle_b"}


def test_several_modules_in_any_order(package):
    assert code_digest("user", "apart") == code_digest("apart", "user")
    assert code_digest("user", "apart") != code_digest("user")


def test_where_the_package_lies_does_not_matter(package, tmp_path, monkeypatch):
    before = all_digests()
    moved = tmp_path / "elsewhere" / "toy"
    moved.parent.mkdir()
    package.rename(moved)
    monkeypatch.setattr(digests, "PACKAGE", moved)
    assert all_digests() == before


def test_an_absent_module(package):
    with pytest.raises(FileNotFoundError, match="no module 'absent'"):
        code_digest("absent")


SCRIPT_FILES = {
    "step.py": "from toy.job import job\n\nwith job(snakemake):\n    from toy.lazy import use\n\n    use()\n",
    "loader.py": "from toy.job import job\nfrom toy.group import one\n",
}


@pytest.fixture
def scripts(package, tmp_path):
    folder = tmp_path / "scripts"
    for name, text in SCRIPT_FILES.items():
        (folder / name).write_text(text)
    (package / "job.py").write_text("from .apart import TEXT\n")
    return folder


def script_digests():
    forget()
    return {
        "step": digests.script_digest("step"),
        "loader": digests.script_digest("loader"),
        "loader of two": digests.script_digest("loader", "group.two"),
    }


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("lazy.py", {"step"}),  # imported by the script, inside the frame
        ("base.py", {"step", "loader", "loader of two"}),  # imported by what is imported
        ("group/one.py", {"loader", "loader of two"}),
        ("group/two.py", {"loader of two"}),  # named: no import statement shows it
        ("group/inner/deep.py", set()),  # in the folder of a package that is imported, but used by nobody
        ("job.py", set()),  # the frame
        ("apart.py", set()),  # used by the frame alone
        ("far.py", set()),
    ],
)
def test_a_changed_module_changes_the_steps_that_import_it(package, scripts, file, expected):
    before = script_digests()
    with (package / file).open("a") as module:
        module.write("\nCHANGED = 1\n")
    after = script_digests()
    assert {step for step in before if before[step] != after[step]} == expected


def test_a_changed_script_changes_its_own_step(package, scripts):
    before = script_digests()
    (scripts / "step.py").write_text(SCRIPT_FILES["step.py"].replace("use()", "use(2)"))
    (scripts / "loader.py").write_text("# A comment.\n" + SCRIPT_FILES["loader.py"])
    after = script_digests()
    assert {step for step in before if before[step] != after[step]} == {"step"}


def test_digest_of_values():
    assert digests.digest_of({"a": 1, "b": [1, 2]}) == digests.digest_of({"b": [1, 2], "a": 1})
    assert digests.digest_of({"a": [1, 2]}) != digests.digest_of({"a": [2, 1]})


def test_file_digest(tmp_path):
    (tmp_path / "file").write_bytes(b"bytes")
    assert digests.file_digest(tmp_path / "file") == hashlib.sha256(b"bytes").hexdigest()

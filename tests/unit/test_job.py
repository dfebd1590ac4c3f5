"""The frame of a script: which packages a step may see, and that its own interpreter's are left alone."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from stmorph import job

ENVIRONMENT = ["/run/.snakemake/scripts", "/env/lib/python3.11", "/home/me/.local", "/env/lib/python3.11/site-packages"]
HOST = "/host/lib/python3.12/site-packages"
ADDED = [HOST, "/repository/src", "/host/lib/python3.12", HOST, "/repository/workflow/scripts"]


def own(path):
    return job.own_path(path, HOST, "/home/me/.local", "/repository/src")


def test_an_environment_of_its_own_sees_no_package_of_the_host_or_the_user():
    kept = ["/run/.snakemake/scripts", "/env/lib/python3.11", "/env/lib/python3.11/site-packages", "/repository/src"]
    assert own([*ENVIRONMENT, *ADDED]) == kept


def test_the_library_is_found_once_wherever_it_stood():
    assert own(["/repository/src", *ENVIRONMENT, *ADDED]).count("/repository/src") == 1


def test_nothing_of_the_environment_is_lost_where_the_host_added_nothing():
    assert set(own(ENVIRONMENT)) == {*ENVIRONMENT, "/repository/src"} - {"/home/me/.local"}


@pytest.fixture
def path(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    return list(sys.path)


@pytest.mark.parametrize("module", [None, SimpleNamespace(__file__="/elsewhere/snakemake/__init__.py")])
def test_a_step_in_snakemakes_own_environment_keeps_its_path(path, monkeypatch, module):
    """Also where Snakemake runs from a checkout: it is installed here all the same."""
    monkeypatch.setitem(sys.modules, "snakemake", module)
    job._leave_host()
    assert sys.path == path


def test_a_step_elsewhere_loses_what_snakemake_added(path, monkeypatch, tmp_path):
    monkeypatch.setattr(job.site, "getsitepackages", lambda: [str(tmp_path)])
    monkeypatch.setattr(job.site, "getusersitepackages", lambda: str(tmp_path / "user"))
    monkeypatch.setitem(sys.modules, "snakemake", SimpleNamespace(__file__="/host/packages/snakemake/__init__.py"))
    sys.path[:] = [str(tmp_path), "/host/packages", "/host/stdlib"]
    job._leave_host()
    assert sys.path == [str(tmp_path), str(Path(job.__file__).parents[1])]

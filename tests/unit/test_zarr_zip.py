"""Zarr in one file: whole or not at all, the same content the same bytes, a sentence where it cannot be read."""

import errno
import time

import numpy as np
import pytest

from stmorph import zarr_zip
from stmorph.errors import DataError
from stmorph.zarr_zip import opened, written


def write(path, value=7):
    with written(path, {"about": "x"}) as group:
        group.create_array("a", data=np.full((3, 2), value, np.int32))
    return path.read_bytes()


def test_what_was_written_is_read_also_later(tmp_path):
    write(tmp_path / "new" / "a.zarr.zip")
    with opened(tmp_path / "new" / "a.zarr.zip", "numbers", "make it", lazy=True) as group:
        array, attributes = group["a"], dict(group.attrs)
    assert attributes == {"about": "x"} and array[1:].tolist() == [[7, 7], [7, 7]]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.zarr.zip"]


def test_the_same_content_gives_the_same_bytes_whenever_it_is_written(tmp_path, monkeypatch):
    first = write(tmp_path / "a")
    monkeypatch.setattr(time, "time", lambda: 2e9)
    assert write(tmp_path / "b") == first != write(tmp_path / "c", 8)


def test_a_full_disk_is_one_sentence_wherever_it_is_met(tmp_path, monkeypatch):
    def full(folder, partial):
        partial.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "a/c/0/0"))

    monkeypatch.setattr(zarr_zip, "zip_folder", full)
    with pytest.raises(DataError, match=r"a\.zarr\.zip could not be written \(No space left on device\); free space"):
        write(tmp_path / "a.zarr.zip")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_of_who_writes_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), written(tmp_path / "a", {}):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_missing_or_damaged(tmp_path):
    path = tmp_path / "a.zarr.zip"

    def read():
        with opened(path, "numbers", "make it") as group:
            return group["a"][:]

    with pytest.raises(DataError, match=r"a\.zarr\.zip does not exist; expected numbers: make it$"):
        read()
    path.write_bytes(write(tmp_path / "whole")[:-200])
    with pytest.raises(
        DataError, match=r"cannot be read \(ValueError: it is no zip\); expected numbers: delete it and"
    ):
        read()
    with written(path, {}) as group:
        group.create_array("b", data=np.zeros(2))
    with pytest.raises(DataError, match=r"cannot be read \(KeyError: 'a'\); expected numbers"):
        read()

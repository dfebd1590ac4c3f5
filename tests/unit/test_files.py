"""Outputs appear whole or not at all."""

import errno
import os
import resource
import signal

import pytest

from stmorph.errors import DataError
from stmorph.files import remove_leftovers, remove_leftovers_below, scratch, whole


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_whole_writes_and_makes_the_folder(tmp_path):
    with whole(tmp_path / "a" / "b" / "out.txt") as partial:
        partial.write_text("new")
        assert partial.suffix == ".txt"
        assert not (tmp_path / "a/b/out.txt").exists()
    assert left(tmp_path / "a/b") == ["out.txt"]
    assert (tmp_path / "a/b/out.txt").read_text() == "new"


def test_whole_replaces_what_was_there(tmp_path):
    out = tmp_path / "out.txt"
    out.write_text("old and longer")
    with whole(out) as partial:
        partial.write_text("new")
        assert out.read_text() == "old and longer"
    assert out.read_text() == "new"


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_crash_leaves_nothing_and_keeps_the_old(tmp_path, failure):
    out = tmp_path / "out.txt"
    out.write_text("old")
    with pytest.raises(failure), whole(out) as partial:
        partial.write_text("half")
        raise failure("in the middle")
    assert left(tmp_path) == ["out.txt"]
    assert out.read_text() == "old"


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    """A limit on the size of files stops the write as a full disk does, in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(DataError) as error, whole(tmp_path / "out.bin") as partial:
            partial.write_bytes(bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert left(tmp_path) == []
    assert str(tmp_path / "out.bin") in str(error.value) and "free space" in str(error.value)


def test_no_space_at_the_last_moment(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"), whole(tmp_path / "out") as partial:
        partial.write_text("all of it")
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("Can't close file (time = Sat\n, errno = 28, error message = 'No space left', buf = 0x5)", "No space left"),
        ("first line\nsecond line", "first line"),
    ],
)
def test_what_a_library_tells_in_several_lines_is_one_sentence(tmp_path, told, said):
    with pytest.raises(DataError, match=rf"out\.h5 could not be written \({said}\); free"), whole(tmp_path / "out.h5"):
        raise OSError(told)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "taken").write_text("a file, no folder")
    with pytest.raises(DataError, match=r"out\.txt could not be written"), whole(tmp_path / "taken" / "out.txt"):
        raise AssertionError("never entered")
    with pytest.raises(DataError, match=r"out\.txt could not be written"), whole(tmp_path / "taken" / "in" / "out.txt"):
        raise AssertionError("never entered")
    assert left(tmp_path) == ["taken"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_closed_folder_is_one_sentence(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(DataError, match="mend the folder's rights"), whole(closed / "out.txt") as partial:
        partial.write_text("text")


def test_a_body_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(DataError, match="could not be written"), whole(tmp_path / "out"):
        pass
    assert left(tmp_path) == []


def test_an_absent_input_is_not_called_a_failed_output(tmp_path):
    with pytest.raises(FileNotFoundError, match="input"), whole(tmp_path / "out") as partial:
        partial.write_text((tmp_path / "input").read_text())
    assert left(tmp_path) == []


def test_what_a_killed_process_left_is_removed_and_nothing_of_another_file(tmp_path):
    for name in ("S1.png", ".partial-12-S1.png", ".partial-7-my-S1.png", ".partial-7-12-S1.png", ".partial-12-S1.png2"):
        (tmp_path / name).touch()
    (tmp_path / ".partial-13-S1.png.folder" / "chunks").mkdir(parents=True)
    remove_leftovers(tmp_path / "S1.png")
    assert left(tmp_path) == [".partial-12-S1.png2", ".partial-7-12-S1.png", ".partial-7-my-S1.png", "S1.png"]
    remove_leftovers(tmp_path / "not there" / "S1.png")


def test_of_a_folder_of_ones_own_every_leftover_is_removed(tmp_path):
    (tmp_path / "outs/.partial-13-S1.zip.folder/.partial-14-deeper").mkdir(parents=True)
    for name in ("outs/S1.png", "outs/.partial-12-S1.png", ".partial-7-x"):
        (tmp_path / name).touch()
    remove_leftovers_below(tmp_path)
    assert left(tmp_path) == ["outs"] and left(tmp_path / "outs") == ["S1.png"]


def test_a_scratch_folder_is_one_of_its_file_and_goes_in_any_case(tmp_path):
    out = tmp_path / "out.zip"
    with pytest.raises(RuntimeError), scratch(out) as folder:
        (folder / "part").touch()
        raise RuntimeError("in the middle")
    assert left(tmp_path) == []
    with scratch(out) as folder:
        folder.rename(folder.with_name(folder.name.replace(str(os.getpid()), "1")))  # as a killed process leaves it
    assert len(left(tmp_path)) == 1
    remove_leftovers(out)
    assert left(tmp_path) == []

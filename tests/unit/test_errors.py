"""The sentences that do not depend on what a file holds."""

from pathlib import Path

import pytest

from stmorph.errors import DataError, reason_of, unread


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("\n a first line\nand a second"), "a first line"),
        (MemoryError(), "MemoryError"),
        (RuntimeError(" \n"), "RuntimeError"),
        (ValueError("x" * 300), f"{'x' * 200} ..."),
    ],
)
def test_a_reason_is_one_short_line(error, reason):
    assert reason_of(error) == reason


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            PermissionError(13, "Permission denied"),
            "a.csv may not be read ([Errno 13] Permission denied); expected a table: mend the rights of the file and "
            "its folders",
        ),
        (
            MemoryError("8 EiB"),
            "a.csv takes more memory than there is (8 EiB); expected a table: give the job more memory, or split it",
        ),
    ],
)
def test_rights_and_memory_are_told_of_any_file(error, sentence):
    told = unread(Path("a.csv"), error, "a table", "split it")
    assert isinstance(told, DataError) and str(told) == sentence


@pytest.mark.parametrize("error", [OSError("no parquet"), FileNotFoundError(2, "none"), ValueError("13")])
def test_what_a_file_holds_is_told_by_its_reader(error):
    assert unread(Path("a.csv"), error, "a table", "split it") is None

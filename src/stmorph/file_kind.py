"""What a file is that no reader takes, by its first bytes: so that a sentence can name it and say what to do."""

import gzip
import zipfile
import zlib
from pathlib import Path

_SHEET = "save the sheet as CSV in UTF-8, with decimal points"
_UNPACK = "unpack it"
_R = "write it from R as csv, h5 or Matrix Market"
_STARTS = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook (xls)", _SHEET),
    (b"\xff\xfe", "text in UTF-16", "save it in UTF-8 (in Excel: CSV UTF-8)"),
    (b"\xfe\xff", "text in UTF-16", "save it in UTF-8 (in Excel: CSV UTF-8)"),
    (b"ARROW1", "an Arrow file (Feather)", "save it as parquet or csv"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd", _UNPACK),
    (b"\xfd7zXZ\0", "packed by xz", _UNPACK),
    (b"BZh", "packed by bzip2", _UNPACK),
    (b"RDX", "R's own data", _R),
    (b"X\n\0\0\0", "R's own data", _R),
    (b"%PDF", "a PDF", "export the picture from it, or give the original"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file", "run git lfs pull"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture", "save it as a tiled TIFF"),
    (b"\xff\x0a", "a JPEG XL picture", "save it as a tiled TIFF"),
)


def foreign_kind(path: Path) -> tuple[str, str] | None:
    """Return what a file is and what to do with it, in words; None where it may be what a reader takes.

    Parameters
    ----------
    path
        A file, or whatever lies there: what cannot be opened has no kind.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4096)
        if head.startswith(b"\x1f\x8b"):
            with gzip.open(path) as file:
                head = file.read(64)
    except (OSError, EOFError, zlib.error):
        return None
    for start, what, advice in _STARTS:
        if head.startswith(start):
            return what, advice
    if head.startswith(b"PK"):  # Zarr is stored in zips as well
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.namelist()
        except zipfile.BadZipFile:
            return None
        if "xl/workbook.xml" in members:
            return "an Excel workbook (xlsx)", _SHEET
        if members[:1] == ["mimetype"]:
            return "an OpenDocument file", _SHEET
    if head[4:12] in (b"ftypheic", b"ftypmif1", b"ftypheix"):
        return "an HEIC picture", "save it as a tiled TIFF"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page", "download it again; such a page asks for a login or tells of an error"
    return None

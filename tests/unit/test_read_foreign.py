"""Files that another program wrote or damaged: each reads like the vendor's own, or ends in one clear sentence."""

import gzip
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
import test_read_visium
from test_read_visium import INFO

from stmorph.errors import DataError
from stmorph.read import read_slide
from stmorph.read.bins import check_places
from stmorph.read.counts import checked_counts
from stmorph.read.grid import check_on_grid
from stmorph.read.tables import names_of, reading
from stmorph.read.visium import feature_matrix, tissue_positions

outs = test_read_visium.outs


def same_counts(path, reference):
    found = feature_matrix(path)
    assert (found.matrix != reference.matrix).nnz == 0 and found.matrix.dtype == reference.matrix.dtype == np.int32
    assert found.barcode.tolist() == reference.barcode.tolist()
    pd.testing.assert_frame_equal(found.var, reference.var)


def refused(match, read, *given):
    with pytest.raises(DataError, match=match) as caught:
        read(*given)
    assert "\n" not in str(caught.value) and "expected" in str(caught.value)


def places(path):
    found = tissue_positions(path)
    check_on_grid(found, path)
    return found


def put(group, name, values, **options):
    if name in group:
        del group[name]
    group.create_dataset(name, data=values, **options)


def changed(outs, change):
    path = outs.write_h5()
    with h5py.File(path, "r+") as file:
        change(file["matrix"])
    return path


def retyped(*names, to):
    return lambda matrix: [put(matrix, name, to(matrix[name][()])) for name in names]


def names_as(to, **options):
    def change(matrix):
        for group, name in [(matrix, "barcodes"), *((matrix["features"], name) for name in matrix["features"])]:
            put(group, name, to(group[name].asstr()[()]), **options)

    return change


def feature(name, values, **options):
    return lambda matrix: put(matrix["features"], name, values, **options)


def without(*names):
    def change(matrix):
        for name in names:
            del matrix[f"features/{name}"]

    return change


KINDS = h5py.enum_dtype({"Gene Expression": 1, "Antibody Capture": 2}, basetype="i4")

# --- HDF5 of other programs -------------------------------------------------------------------------------------------

SAME = {
    "text of any length": names_as(lambda names: names.astype(object), dtype=h5py.string_dtype("ascii")),
    "text padded with blanks": names_as(lambda names: np.array([f"{name:<40}" for name in names], dtype="S40")),
    "columns of a matrix": retyped("data", "indices", "indptr", "barcodes", to=lambda v: v[:, None]),
    "numbers as doubles": retyped("data", "indices", "indptr", "shape", to=lambda v: v.astype(np.float64)),
    "unsigned indices": retyped("indices", "indptr", to=lambda v: v.astype(np.uint64)),
    "shape as a row": retyped("shape", to=lambda v: v[None]),
    "feature types as a factor": feature("feature_type", np.array([1] * 6 + [2, 1], dtype="i4"), dtype=KINDS),
    "feature types with points": feature(
        "feature_type", [b"Gene.Expression"] * 6 + [b"Antibody.Capture"] + [b"Gene.Expression"]
    ),
    "one genome for all": feature("genome", [b"GRCh38"]),
    "a genome without brackets": feature("genome", np.bytes_("GRCh38")),
    "no genome": without("genome"),
    "genes of no genome": feature("genome", [b"GRCh38"] * 4 + [b"Unknown", b"NA", b"", b"GRCh38"]),
    "target sets": lambda matrix: matrix["features"].create_group("target_sets"),
}


@pytest.mark.parametrize("name", SAME)
def test_h5_of_other_programs_gives_the_same_slide(outs, name):
    reference = feature_matrix(outs.write_h5())
    same_counts(changed(outs, SAME[name]), reference)


@pytest.mark.parametrize("group", ["GRCh38", "matrix"])
def test_genes_beside_the_counts_as_before_cell_ranger_3(outs, group):
    outs.feature_type = ["Gene Expression"] * 8
    path = outs.write_h5()
    reference = feature_matrix(path)
    with h5py.File(path, "r+") as file:
        file.move("matrix/features/id", "matrix/genes")
        file.move("matrix/features/name", "matrix/gene_names")
        del file["matrix/features"]
        if group != "matrix":
            file.move("matrix", group)
    same_counts(path, reference)
    if group == "matrix":
        return
    with h5py.File(path, "r+") as file:
        file.copy(group, "mm10")
    refused(r"matrix.h5 holds genes of the genomes GRCh38 and mm10; expected one species", feature_matrix, path)


REFUSED = {
    "transposed": (retyped("shape", to=lambda v: v[::-1]), "states the shape 100 x 8 .* looks transposed"),
    "three lengths": (retyped("shape", to=lambda v: np.append(v, 1)), "it states the shape"),
    "indices from 1": (retyped("indices", to=lambda v: v + 1), "indices must be < 8"),
    "indices below 0": (retyped("indices", to=lambda v: v - 1), "indices must be >= 0"),
    "indices with fractions": (retyped("indices", to=lambda v: v + 0.5), "indices are no whole numbers"),
    "indptr of NaN": (retyped("indptr", to=lambda v: v * np.nan), "indices are no whole numbers"),
    "symbols cut off": (feature("name", [b"A"] * 5), "holds 5 symbols for 8 genes; expected one a gene"),
    "feature types cut off": (feature("feature_type", [b"A"] * 5), "holds 5 feature types for 8 genes"),
    "genomes cut off": (feature("genome", [b"GRCh38"] * 5), "holds 5 genomes for 8 genes"),
    "names as numbers with fractions": (feature("name", np.ones(8)), "holds float64, not names"),
    "no names at all": (without("id", "name"), "names no genes"),
    "no gene expression": (
        feature("feature_type", [b"Antibody Capture"] * 8),
        r"no feature of the type 'Gene Expression' \(its types: Antibody Capture\)",
    ),
    "two species by symbols": (
        lambda matrix: (feature("name", [b"hg38_A", b"mm10___b"] * 4)(matrix), without("id", "genome")(matrix)),
        "genes of the genomes hg38 and mm10",
    ),
    "two species by Seurat's ids": (
        lambda matrix: (
            feature("id", [f"GRCh38-ENSG{i:011d}" if i % 2 else f"mm10-ENSMUSG{i:011d}" for i in range(8)])(matrix),
            without("genome")(matrix),
        ),
        "genes of the genomes GRCh38 and mm10",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_h5_that_cannot_be_read_right_says_why(outs, name):
    change, says = REFUSED[name]
    refused(f"matrix.h5 .*{says}", feature_matrix, changed(outs, change))


def test_versions_of_gene_ids_are_kept_and_known(outs):
    outs.gene_id = [f"{gene}.{k + 1}" for k, gene in enumerate(outs.gene_id)]
    assert list(outs.read().var["gene_id"]) == outs.gene_id
    outs.gene_id = [f"ENSMUSG{i:011d}.{i}" for i in range(8)]
    test_read_visium.fails(outs, "mouse genes .* expected human")


def test_indices_beyond_a_matrix_end_in_a_sentence_not_in_the_process(tmp_path):
    # SciPy's conversion from columns to rows writes where such an index points.
    matrix = scipy.sparse.csc_matrix(np.ones((3, 2), dtype=np.int64))
    matrix.indices = matrix.indices + np.int32(2**20)
    with pytest.raises(DataError, match=r"m cannot be read \(indices must be < 3\)"):
        checked_counts(tmp_path / "m", matrix, list("abc"), ["g", "h"], ["g", "h"])


# --- Matrix Market ----------------------------------------------------------------------------------------------------


def test_quoted_names_are_read_without_quotes(outs):
    path = outs.write_mtx(packed=False)
    reference = feature_matrix(path)
    for name in ("barcodes.tsv", "features.tsv"):
        rows = path.with_name(name).read_text().splitlines()
        quoted = ["\t".join(f'"{field}"' for field in row.split("\t")) for row in rows]
        path.with_name(name).write_bytes("\r\n".join(quoted).encode())
    same_counts(path, reference)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path, counts: scipy.io.mmwrite(path, scipy.sparse.coo_matrix(counts)), "it looks transposed"),
        (lambda path, counts: scipy.io.mmwrite(path, scipy.sparse.coo_matrix(counts.T), field="pattern"), "a pattern"),
        (lambda path, counts: path.write_bytes(gzip.compress(b"X\n\0\0\3")), "neither HDF5 nor Matrix Market"),
        (lambda path, counts: path.write_bytes(b"PK\x03\x04" + bytes(60)), "neither HDF5 nor Matrix Market"),
    ],
)
def test_what_is_no_matrix_of_counts_says_so(outs, write, says):
    path = outs.write_mtx(packed=False)
    write(path, outs.counts)
    refused(f"matrix.mtx .*{says}", feature_matrix, path)


# --- positions --------------------------------------------------------------------------------------------------------


def saved(name="tissue_positions.csv", change=lambda table: table, **options):
    def write(outs):
        path = outs.folder / name
        table = change(outs.positions)
        table.to_parquet(path) if options.pop("parquet", False) else table.to_csv(path, **{"index": False} | options)
        return path

    return write


def packed(outs):
    path = outs.write_positions()
    path.write_bytes(gzip.compress(path.read_bytes()))
    return path


POSITIONS = {
    "true and false": saved(change=lambda t: t.assign(in_tissue=t["in_tissue"] == 1)),
    "TRUE and FALSE": saved(change=lambda t: t.assign(in_tissue=np.where(t["in_tissue"] == 1, "TRUE", "FALSE"))),
    "whole numbers with a point": saved(change=lambda t: t.assign(array_row=t["array_row"].astype(float))),
    "saved index": saved(index=True),
    "barcodes as index": saved(change=lambda t: t.set_index("barcode").rename_axis(None), index=True),
    "other order": saved(change=lambda t: t[t.columns[::-1]]),
    "semicolons": saved(sep=";"),
    "tabs without header": saved(sep="\t", header=False),
    "Windows, quoted, with a mark": saved(quoting=1, lineterminator="\r\n", encoding="utf-8-sig"),
    "Windows, without header": saved("tissue_positions_list.csv", header=False, lineterminator="\r\n"),
    "packed": saved("tissue_positions.csv.gz"),
    "packed, unknown to its name": packed,
    "not packed, though named so": saved("a.csv.gz", compression=None),
    "parquet named csv": saved(parquet=True),
    "csv named parquet": saved("tissue_positions.parquet"),
    "parquet, barcodes in bytes": saved(
        "a.parquet", lambda t: t.assign(barcode=t["barcode"].str.encode("ascii")), parquet=True
    ),
    "parquet, barcodes as categories": saved("a.parquet", lambda t: t.astype({"barcode": "category"}), parquet=True),
    "parquet, barcodes as index": saved("a.parquet", lambda t: t.set_index("barcode").rename_axis(None), parquet=True),
}


@pytest.mark.parametrize("name", POSITIONS)
def test_positions_of_other_programs_give_the_same_slide(outs, name):
    reference = places(outs.write_positions())
    pd.testing.assert_frame_equal(places(POSITIONS[name](outs)), reference)


def one(column, value):
    return lambda table: table.assign(**{column: table[column].astype(object).mask(table.index == 50, value)})


BAD_POSITIONS = {
    "fraction of a row": (one("array_row", 3.4), r"array_row of \S+ is 3.4; expected a whole number in each of 120"),
    "row beyond any array": (one("array_row", 1e30), "array_row of .* is 1e[+]30; expected a whole number"),
    "no barcode": (one("barcode", None), "a barcode is missing"),
    "not a number": (one("pxl_row_in_fullres", np.nan), r"pxl_row_in_fullres of \S+ is nan; expected a number"),
    "infinite": (one("pxl_row_in_fullres", np.inf), r"pxl_row_in_fullres of \S+ is inf; expected a number"),
    "below 0": (one("pxl_row_in_fullres", -150.0), r"\S+ lies 2\d\d px from where its row and column put it \(1 such"),
    "yes and no": (lambda t: t.assign(in_tissue="yes"), "in_tissue of .* is 'yes'; expected a number"),
    "no row": (lambda t: t.iloc[:0], "lists no spot"),
    "capital header": (lambda t: t.rename(columns=str.upper), "IN_TISSUE"),
}


@pytest.mark.parametrize("name", BAD_POSITIONS)
def test_positions_that_cannot_be_say_where(outs, name):
    change, says = BAD_POSITIONS[name]
    refused(f"tissue_positions.csv.*{says}", places, saved(change=change)(outs))


@pytest.mark.parametrize(
    ("cut", "says"),
    [(3, "lies .* px from where its row and column put it"), (12, "is nan; expected a number")],
)
def test_text_that_ends_within_a_row_is_found(outs, cut, says):
    # With one digit less a position is a number like any other.
    path = saved(change=lambda table: table.round(0))(outs)
    path.write_bytes(path.read_bytes()[: -cut - 1])
    refused(f"tissue_positions.csv.*{says}", places, path)


def test_two_bins_in_one_place():
    table = pd.DataFrame({"array_row": [0, 0, 1], "array_col": [0, 1, 1]}, index=["a", "b", "c"])
    check_places(table, Path("p.csv"))
    with pytest.raises(DataError, match=r"p.csv puts 1 bins where another lies, first c at array_row 0, array_col 1"):
        check_places(table.assign(array_row=0), Path("p.csv"))


def test_scale_factors_with_a_mark_and_beyond_any_length(outs):
    files = outs.files()
    files["scalefactors"].write_text(json.dumps(outs.scale), encoding="utf-8-sig")
    assert read_slide("visium", files, INFO).n_obs == 100
    for text in ("1" + 400 * "0", "1e15", "Infinity"):
        files["scalefactors"].write_text(f'{{"spot_diameter_fullres": {text}}}')
        with pytest.raises(
            DataError, match=r"scalefactors_json.json: spot_diameter_fullres is .*; expected a number above 0"
        ):
            read_slide("visium", files, INFO)


# --- folders, links, rights, memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["counts", "positions", "scalefactors", "image"])
@pytest.mark.parametrize("what", ["folder", "link"])
def test_a_folder_or_a_dangling_link_is_called_one(outs, role, what):
    files = outs.files()
    place = outs.folder / "here.csv"
    place.mkdir() if what == "folder" else place.symlink_to("nowhere.csv")
    with pytest.raises(DataError, match=r"here\.csv") as caught:
        read_slide("visium", files | {role: place}, INFO)
    said = str(caught.value)
    if what == "link":
        assert "a link to nowhere.csv, does not exist; expected a file" in said
    else:
        assert "matrix.mtx" in said if role == "counts" else "is a folder" in said
    assert "\n" not in said and "download it again" not in said


@pytest.mark.parametrize("role", ["counts", "positions", "scalefactors", "image"])
def test_a_file_that_may_not_be_read_says_to_mend_its_rights(outs, role, monkeypatch):
    files, opened = outs.files(), Path.open

    def closed(path, *args, **options):
        if path == files[role]:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **options)

    # Rights do not bind the superuser, as whom tests may run.
    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(DataError, match=rf"{files[role].name} may not be read .*mend the rights"):
        read_slide("visium", files, INFO)


@pytest.mark.skipif(os.getuid() == 0, reason="rights do not bind the superuser")
def test_a_folder_that_may_not_be_entered(outs):
    files = outs.files()
    outs.folder.chmod(0)
    try:
        with pytest.raises(DataError, match="may not be read"):
            read_slide("visium", files, INFO)
    finally:
        outs.folder.chmod(0o755)


def test_what_takes_too_much_memory_is_a_sentence(tmp_path):
    with (
        pytest.raises(DataError, match=r"a.npy takes more memory than there is .*; expected an array"),
        reading(tmp_path / "a.npy", "an array"),
    ):
        raise MemoryError("Unable to allocate 8 EiB")


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([b"a-1", b"b-1"], ["a-1", "b-1"]),
        ([1.0, 20.0], ["1", "20"]),
        (pd.array([3, 4], dtype="Int64"), ["3", "4"]),
        (pd.Categorical(["x", "y"]), ["x", "y"]),
        (["007", "NA"], ["007", "NA"]),
    ],
)
def test_names_of_every_type(values, names):
    assert names_of(pd.Series(values, name="barcode"), Path("t")).tolist() == names

"""Tables and matrices with the marks of the program that wrote them, each as that program really writes it.

Every case was first met in a file of the program named beside it, and is written here in the same bytes or types.
"""

import gzip
import json
import zipfile
from decimal import Decimal

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import test_read_visium
from test_read_foreign import places, refused, same_counts
from test_read_visium import INFO

from stmorph.errors import DataError
from stmorph.read import read_slide
from stmorph.read.h5ad import anndata_parts
from stmorph.read.legacy_st import LEGACY_ST
from stmorph.read.visium import feature_matrix
from stmorph.read.xenium_files import cell_table

outs = test_read_visium.outs


# --- matrices ---------------------------------------------------------------------------------------------------------


def test_names_cut_from_rhdf5_strings(outs):
    # rhdf5 2.42 h5write: text of one length padded with NUL, numbers of R's two types in chunks.
    path = outs.write_h5()
    reference = feature_matrix(path)
    with h5py.File(path, "r+") as file:
        matrix = file["matrix"]
        for group, name in [(matrix, "barcodes"), (matrix["features"], "id"), (matrix["features"], "name")]:
            values = group[name].asstr()[()]
            del group[name]
            group.create_dataset(name, data=values.astype("S60"), chunks=True, compression="gzip")
        data = matrix["data"][()]
        del matrix["data"]
        matrix.create_dataset("data", data=data.astype(np.float64), chunks=(2,), shuffle=True, compression="gzip")
    same_counts(path, reference)


def test_missing_text_of_hdf5r(outs):
    # hdf5r 1.3: NA_character_ is the text NA, one value stands for all features.
    path = outs.write_h5()
    reference = feature_matrix(path)
    with h5py.File(path, "r+") as file:
        features = file["matrix/features"]
        del features["genome"]
        features.create_dataset("genome", data=["NA"], dtype=h5py.string_dtype())
    same_counts(path, reference)


def test_counts_of_probes_are_not_taken_for_counts_of_genes(outs):
    # Space Ranger 2 and later: raw_probe_bc_matrix.h5 names the gene of each probe beside the probe's own id.
    path = outs.write_h5()
    with h5py.File(path, "r+") as file:
        features = file["matrix/features"]
        gene = features["id"][()]
        features["gene_id"] = gene
    feature_matrix(path)
    with h5py.File(path, "r+") as file:
        features = file["matrix/features"]
        del features["id"]
        features["id"] = np.array([name + b"|G|a1b2c3d" for name in gene])
    refused(r"matrix.h5 holds counts of 8 probes .*give filtered_feature_bc_matrix.h5", feature_matrix, path)


R_TABLES = {
    "write.table without col.names": lambda names, rows: [f"{k + 1}\t{row}" for k, row in enumerate(rows)],
    "write.table": lambda names, rows: [names, *(f'"{k + 1}"\t{row}' for k, row in enumerate(rows))],
}


@pytest.mark.parametrize("kind", R_TABLES)
def test_row_numbers_of_r_are_no_names(outs, kind):
    # R 4.2: row names, counted from 1, and one name less in the header than there are columns.
    path = outs.write_mtx(packed=False)
    reference = feature_matrix(path)
    for name, header in (("barcodes.tsv", '"x"'), ("features.tsv", '"id"\t"name"\t"type"')):
        beside = path.with_name(name)
        beside.write_text("\n".join(R_TABLES[kind](header, beside.read_text().splitlines())) + "\n")
    same_counts(path, reference)


def test_a_header_above_the_barcodes_is_found(outs):
    # R's write.table(row.names = FALSE), pandas' to_csv.
    path = outs.write_mtx(packed=False)
    beside = path.with_name("barcodes.tsv")
    beside.write_text("x\n" + beside.read_text())
    refused(
        r"barcodes.tsv has 101 lines, the first 'x', but .*matrix.mtx 100 .*remove the header", feature_matrix, path
    )


def test_a_folder_that_is_not_the_matrix_says_what_to_give(outs):
    refused(r" is a folder without matrix.mtx; .*give filtered_feature_bc_matrix.h5", feature_matrix, outs.folder)


def test_a_loom_file_is_no_feature_matrix(tmp_path):
    # loompy 3: `matrix` is the counts themselves, names lie in row_attrs and col_attrs.
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["matrix"] = np.ones((2, 3))
        file["row_attrs/Gene"] = [b"A", b"B"]
    refused(r"a.h5 has no group 'matrix' \(it has matrix, row_attrs\)", feature_matrix, tmp_path / "a.h5")


def test_a_filter_that_is_not_installed(tmp_path):
    # anndata's write_h5ad(compression=hdf5plugin.FILTERS["zstd"]); blosc from R's rhdf5filters.
    path = tmp_path / "a.h5ad"
    with h5py.File(path, "w") as file:
        file.create_group("obs")
        file.create_group("var")
        space, kind = h5py.h5s.create_simple((100,)), h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        kind.set_chunk((100,))
        kind.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)  # Zstandard
        made = h5py.h5d.create(file.id, b"X", h5py.h5t.NATIVE_INT32, space, kind)
        made.write_direct_chunk((0,), b"(\xb5/\xfd", 0)
    refused(r"a.h5ad is packed by an HDF5 filter that is not installed .*packed by gzip", anndata_parts, path)


# --- tables -----------------------------------------------------------------------------------------------------------


def arrow(change, **options):
    def write(table, path):
        columns = pa.Table.from_pandas(table, preserve_index=False)
        pyarrow.parquet.write_table(change(columns), path, **options)

    return write


def cast(**types):
    def change(table):
        for name, kind in types.items():
            values = table[name]
            if pa.types.is_decimal(kind):
                values = pa.array([Decimal(f"{value:.4f}") for value in values.to_pylist()], kind)
            place = table.column_names.index(name)
            table = table.set_column(place, name, values.cast(kind))
        return table

    return change


PARQUET = {
    # polars 2.1, DataFrame.write_parquet: text as large_string, in dictionaries (Categorical, Enum).
    "large text": arrow(cast(barcode=pa.large_string())),
    "dictionary": arrow(cast(barcode=pa.dictionary(pa.uint32(), pa.large_string()))),
    "small numbers": arrow(cast(in_tissue=pa.bool_(), array_row=pa.uint8(), array_col=pa.int16()), compression="zstd"),
    "decimals": arrow(cast(in_tissue=pa.int8(), pxl_row_in_fullres=pa.decimal128(12, 4))),
    "text": arrow(cast(in_tissue=pa.string(), array_row=pa.string(), pxl_col_in_fullres=pa.string())),
    # DuckDB 2.0, COPY TO (parquet_version v2): hugeint as double, blob, small row groups, delta encodings.
    "blob": arrow(cast(barcode=pa.binary(), array_col=pa.float64()), row_group_size=10),
    "pages of version 2": arrow(
        lambda table: table,
        data_page_version="2.0",
        use_dictionary=False,
        compression="brotli",
        column_encoding={"barcode": "DELTA_BYTE_ARRAY", "in_tissue": "DELTA_BINARY_PACKED"},
    ),
    # pandas 2, to_parquet with indices of two levels.
    "two indices": lambda table, path: table.set_index(["barcode", "array_row"]).to_parquet(path),
}


@pytest.mark.parametrize("name", PARQUET)
def test_parquet_of_other_programs_gives_the_same_slide(outs, name):
    outs.positions = outs.positions.round(4)
    reference = places(outs.write_positions())
    PARQUET[name](outs.positions, outs.folder / "a.parquet")
    pd.testing.assert_frame_equal(places(outs.folder / "a.parquet"), reference)


def r_table(table, path):
    """Write as R 4.2's write.table: row names, quotes, a header without a name for them."""
    lines = [" ".join(f'"{name}"' for name in table.columns)]
    lines += [" ".join([f'"{name}"', *map(str, row)]) for name, row in zip(table.index, table.itertuples(index=False))]
    path.write_text("\n".join(lines).replace(" ", "\t") + "\n")


def test_row_names_of_r_are_the_barcodes(outs):
    reference = places(outs.write_positions())
    r_table(outs.positions.set_index("barcode"), outs.folder / "a.tsv")
    pd.testing.assert_frame_equal(places(outs.folder / "a.tsv"), reference)


@pytest.mark.parametrize("named", ["text", "numbers"])
@pytest.mark.parametrize("program", ["write.csv", "write.table"])
def test_row_names_of_r_are_the_cells_if_they_are_names(tmp_path, named, program):
    names = ["aaaabbbb-1", "ccccdddd-1"] if named == "text" else [1, 2]
    cells = pd.DataFrame({"x_centroid": [1.5, 2.5], "y_centroid": [3.0, 4.0]}, index=names)
    path = tmp_path / "cells.csv"
    cells.to_csv(path) if program == "write.csv" else r_table(cells, path)
    if named == "text":
        found = cell_table(path)
        assert found.index.tolist() == names and found["y_um"].tolist() == [3, 4]
    else:  # row numbers would be taken for other cells
        with pytest.raises(DataError, match="no column cell_id"):
            cell_table(path)


LEGACY = pd.DataFrame([[3, 0], [1, 2]], index=["1x1", "2x1"], columns=["GENE1", "GENE2"])


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path: LEGACY.T.to_csv(path, sep="\t"), "has the spots in its columns .*transpose it"),
        # R's write.table separates by blanks unless told otherwise.
        (lambda path: LEGACY.to_csv(path, sep=" "), "its lines have one field between commas, semicolons or tabs"),
        # R's write.csv2 of counts that were divided.
        (lambda path: (LEGACY / 2).to_csv(path, sep=";", decimal=","), "gene GENE1 of 1x1 has the count '1,5'"),
    ],
)
def test_tables_of_counts_that_are_none(tmp_path, write, says):
    write(tmp_path / "counts.tsv")
    LEGACY.assign(x=[1, 2], y=1, pixel_x=[10.0, 20.0], pixel_y=10.0).to_csv(tmp_path / "spots.tsv", sep="\t")
    files = {"counts": tmp_path / "counts.tsv", "positions": tmp_path / "spots.tsv"}
    refused(f"counts.tsv.*{says}", LEGACY_ST.read, files, INFO, LEGACY_ST.Options())


SENTENCES = {
    # R's write.csv2, polars' write_csv(decimal_comma=True), a spreadsheet in Germany.
    "decimal commas": (
        lambda table: table.to_csv(index=False, sep=";", decimal=","),
        r"pxl_row_in_fullres of \S+ is '\d+,\d+'; expected a number .*: save the table with decimal points",
    ),
    # Seurat's GetTissueCoordinates.
    "Seurat's columns": (
        lambda table: table.set_axis(["barcode", "tissue", "row", "col", "imagerow", "imagecol"], axis=1).to_csv(
            index=False
        ),
        r"has no column in_tissue, array_row, .*its columns: barcode, tissue, row",
    ),
    "bars": (lambda table: table.to_csv(index=False, sep="|"), r"its first line has 1 field\(s\) between commas"),
    "another Unicode": (
        lambda table: table.to_csv(index=False, sep="\t").encode("utf-16"),
        "is text in UTF-16; .*UTF-8",
    ),
    "zstd": (lambda table: b"\x28\xb5\x2f\xfd\x04\x58", "is packed by zstd; .*unpack it"),
    "Feather": (lambda table: b"ARROW1\0\0\xff\xff\xff\xff", "is an Arrow file .* save it as parquet or csv"),
    "RDS": (lambda table: gzip.compress(b"X\n\0\0\0\3\0\4\2\2"), "is R's own data; .*write it from R as csv"),
    "Git LFS": (
        lambda table: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "is a pointer of Git LFS, not the file; .*run git lfs pull",
    ),
    "web page": (lambda table: b"\n<!DOCTYPE html>\n<title>Log in</title>", "is a web page; .*download it again"),
    "xls": (lambda table: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), r"is an Excel workbook \(xls\)"),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_what_is_no_table_is_called_by_its_name(outs, name):
    write, says = SENTENCES[name]
    path = outs.folder / "tissue_positions.csv"
    content = write(outs.positions)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(f"tissue_positions.csv.*{says}", places, path)


@pytest.mark.parametrize(
    ("member", "says"), [("xl/workbook.xml", r"an Excel workbook \(xlsx\)"), ("mimetype", "an OpenDoc")]
)
def test_workbooks_are_told_from_other_zips(outs, member, says):
    path = outs.folder / "tissue_positions.csv"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, "")
    refused(f"is {says}.*save the sheet as CSV in UTF-8", places, path)


def test_scale_factors_and_images_are_called_by_their_names_too(outs):
    files = outs.files()
    files["scalefactors"].write_text("<html>404</html>")
    with pytest.raises(DataError, match=r"scalefactors_json.json is a web page; expected .*download it again"):
        read_slide("visium", files, INFO)
    files["scalefactors"].write_text(json.dumps(outs.scale))
    files["image"].write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n")
    with pytest.raises(DataError, match=r"image.png is a JPEG XL picture; expected a TIFF, .*save it as a tiled TIFF"):
        read_slide("visium", files, INFO)

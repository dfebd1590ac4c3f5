import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from stmorph.config.schema import PanelConfig
from stmorph.errors import DataError
from stmorph.gene_overlap import gene_overlap, measured_genes
from stmorph.panels import choose_panel, split_genes, training_slides

WIDE = [f"G{i:02d}" for i in range(40)] + ["NegControlProbe_1"]
NARROW = [*WIDE[5:30], "OWN", "NegControlProbe_1"]


def write_slide(path, name, genes, seed=0):
    rng = np.random.default_rng(seed)
    counts = scipy.sparse.csr_matrix(rng.poisson(4.0, (50, len(genes))).astype(np.int32))
    found = anndata.AnnData(
        counts,
        obs=pd.DataFrame(index=[f"{name}{i:02d}" for i in range(50)]),
        var=pd.DataFrame({"control": [gene.startswith("Neg") for gene in genes]}, index=genes),
        uns={"stmorph": {"slide": name, "species": "human"}},
    )
    found.write_h5ad(path)
    return path


@pytest.fixture
def study(tmp_path):
    slides = [
        write_slide(tmp_path / "c1.h5ad", "C1", WIDE),
        write_slide(tmp_path / "p1.h5ad", "P1", NARROW, 1),
        write_slide(tmp_path / "x.h5ad", "X", ["G06", "NegControlProbe_1"], 2),
    ]
    rows = [
        pd.DataFrame({"slide": name, "barcode": [f"{name}{i:02d}" for i in range(50)], "role": role})
        for name, role in (("C1", "train"), ("P1", "test"), ("X", "unused"))
    ]
    pd.concat(rows).to_parquet(tmp_path / "split.parquet")
    return slides, tmp_path / "split.parquet"


def test_what_is_common_and_what_each_slide_lacks():
    overlap = gene_overlap({"B": ["x", "y", "z"], "A": ["y", "z", "w"]})
    assert overlap.common == ("y", "z") and overlap.lacking == {"A": ("x",), "B": ("w",)}
    assert overlap.sentence() == "2 of 4 genes are measured on all 2 slides; A lacks 1 (x); B lacks 1 (w)"
    assert gene_overlap({"A": ["y", "x"]}).sentence() == "2 of 2 genes are measured on all 1 slides"


def test_long_lists_are_cut_and_say_so():
    overlap = gene_overlap({"A": [], "B": [f"g{i}" for i in range(9)]})
    assert overlap.sentence().endswith("A lacks 9 (g0, g1, g2, g3, g4, ...)")


def test_controls_are_no_genes_and_damaged_slides_are_told(study, tmp_path):
    found = measured_genes(study[0][:2])
    assert list(found) == ["C1", "P1"] and found["C1"] == tuple(WIDE[:-1]) and "OWN" in found["P1"]
    (tmp_path / "cut.h5ad").write_bytes(study[0][0].read_bytes()[:500])
    with pytest.raises(DataError, match=r"cut.h5ad is no slide"):
        measured_genes([tmp_path / "cut.h5ad"])


def test_a_panel_holds_only_genes_that_tested_slides_measure_too(study):
    train = training_slides(*study)
    tested = split_genes(*study)
    assert set(tested) == {"C1", "P1"}  # a slide in neither role takes no gene away
    options = PanelConfig(kind="hvg", genes=25).model_dump()
    panel = choose_panel(train, options, "x", tested)
    assert panel.genes == tuple(WIDE[5:30])
    assert panel.record["genes"].startswith(
        "25 of 41 genes are measured on all 2 slides; C1 lacks 1 (OWN); P1 lacks 15"
    )
    assert "genes" not in choose_panel(train, options, "x").record
    with pytest.raises(DataError, match=r"only 25 genes are left of 25 common ones, 26 were asked for"):
        choose_panel(train, {**options, "genes": 26}, "x", tested)
    with pytest.raises(DataError, match=r"no gene in common \(0 of 41 genes .* C1 lacks 1"):
        choose_panel(train, options, "x", {"P1": ["OTHER"]})


def test_the_counts_of_tested_slides_choose_nothing(study, tmp_path):
    options = PanelConfig(kind="hmhvg", genes=10).model_dump()
    first = choose_panel(training_slides(*study), options, "x", split_genes(*study))
    write_slide(study[0][1], "P1", NARROW, seed=99)
    second = choose_panel(training_slides(*study), options, "x", split_genes(*study))
    assert first == second

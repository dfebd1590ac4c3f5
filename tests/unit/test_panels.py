"""Genes are chosen on the training units, by known rules: planted answers and what must not matter."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from stmorph.config.schema import PanelConfig
from stmorph.errors import ConfigError, DataError
from stmorph.panels import (
    Panel,
    choose_panel,
    is_mitochondrial,
    is_ribosomal,
    read_panel,
    training_slides,
    write_panel,
)

PLANTED = [f"PLANT{i}" for i in range(12)]
NOISE = [f"NOISE{i:03d}" for i in range(150)]
FLAT = [f"FLAT{i:03d}" for i in range(100)]
NAMED = ["MT-CO1", "RPS4X", "RPLP0", "CONSTANT", "PROBE"]
GENES = sorted([*PLANTED, *NOISE, *FLAT, *NAMED])


def slide(name, units=120, seed=0, genes=GENES, species="human"):
    """Return a slide whose planted genes differ between its halves; flat ones are nearly as high but do not."""
    rng = np.random.default_rng([seed, *name.encode()])
    half = np.arange(units) % 2 == 0
    mean = np.full((units, len(genes)), 2.0)
    for j, gene in enumerate(genes):
        if gene in PLANTED:
            mean[:, j] = np.where(half == (int(gene[5:]) % 2 == 0), 70, 14)
        elif gene in FLAT:
            mean[:, j] = 30 + 0.1 * int(gene[4:])
        elif gene in ("MT-CO1", "RPS4X", "RPLP0", "PROBE"):
            mean[:, j] = np.where(half, 300, 50)
    counts = rng.poisson(mean).astype(np.int32)
    if "CONSTANT" in genes:
        counts[:, genes.index("CONSTANT")] = 500
    found = anndata.AnnData(
        scipy.sparse.csr_matrix(counts),
        obs=pd.DataFrame({"half": np.where(half, "first", "second")}, index=[f"{name}b{i:03d}" for i in range(units)]),
        var=pd.DataFrame({"control": [gene == "PROBE" for gene in genes]}, index=list(genes)),
    )
    found.uns["stmorph"] = {"slide": name, "species": species}
    return found


def options(kind, **other):
    return PanelConfig(**{"kind": kind, "genes": 12, "hvg_per_slide": 40, **other}).model_dump()


@pytest.fixture(scope="module")
def slides():
    return [slide("s1"), slide("s2", units=90)]


@pytest.mark.parametrize("kind", ["hmhvg", "hvg", "deg"])
def test_planted_genes_are_found(slides, kind):
    panel = choose_panel(slides, options(kind, groups="half" if kind == "deg" else None), "x")
    assert panel.genes == tuple(sorted(PLANTED))
    assert panel.record["kind"] == kind and panel.record["chosen on"] == "210 training units of 2 slides"


def test_groups_may_be_found_by_clustering(slides):
    panel = choose_panel(slides, options("deg", groups="leiden"), "x")
    assert set(panel.genes) == set(PLANTED)


@pytest.mark.parametrize("kind", ["hmhvg", "deg"])
def test_filters_and_their_switches(slides, kind):
    asked = {"genes": 14, "hvg_per_slide": 1000, "groups": "half" if kind == "deg" else None}
    panel = choose_panel(slides, options(kind, drop_mitochondrial=False, **asked), "x")
    assert "MT-CO1" in panel.genes and not {"RPS4X", "RPLP0"} & set(panel.genes)
    panel = choose_panel(slides, options(kind, drop_ribosomal=False, **asked), "x")
    assert {"RPS4X", "RPLP0"} <= set(panel.genes) and "MT-CO1" not in panel.genes


@pytest.mark.parametrize("kind", ["hmhvg", "hvg", "deg"])
def test_constant_genes_and_controls_never_enter(slides, kind):
    """Even where every gene is asked for."""
    many = options(kind, genes=12, hvg_per_slide=1000, groups="half" if kind == "deg" else None)
    assert not {"CONSTANT", "PROBE"} & set(choose_panel(slides, many, "x").genes)
    if kind != "deg":
        everything = choose_panel(slides, {**many, "genes": len(PLANTED) + len(NOISE) + len(FLAT)}, "x").genes
        assert everything == tuple(sorted([*PLANTED, *NOISE, *FLAT]))


def test_all_takes_every_common_gene_but_the_constant_and_the_dropped(slides):
    asked = {key: value for key, value in options("all").items() if key != "genes"}
    found = choose_panel(slides, {**asked, "genes": None, "drop_mitochondrial": False, "drop_ribosomal": False}, "x")
    counts = [np.asarray(one.X.todense() if hasattr(one.X, "todense") else one.X) for one in slides]
    varying = np.concatenate(counts).std(axis=0) > 0
    control = slides[0].var["control"].to_numpy(dtype=bool)
    assert list(found.genes) == sorted(slides[0].var_names[varying & ~control])
    assert set(choose_panel(slides, {**asked, "genes": None}, "x").genes) < set(found.genes)


@pytest.mark.parametrize("kind", ["hmhvg", "hvg", "deg"])
def test_too_few_genes(slides, kind):
    asked = options(kind, genes=263, hvg_per_slide=1000, groups="half" if kind == "deg" else None)
    with pytest.raises(
        DataError, match=r"panel 'mine': only \d+ genes are left of 266 common ones, 263 were asked for"
    ):
        choose_panel(slides, asked, "mine")


def test_genes_must_be_common_to_the_slides(slides):
    fewer = slide("s3", genes=[gene for gene in GENES if gene not in PLANTED[:2]])
    panel = choose_panel([*slides, fewer], options("hmhvg", genes=10), "x")
    assert panel.genes == tuple(sorted(PLANTED[2:]))
    other = slide("s4", genes=[f"ENSG{i}" for i in range(30)])
    with pytest.raises(DataError, match="no gene in common"):
        choose_panel([*slides, other], options("hmhvg"), "x")


def test_only_filtered_genes():
    only = [slide("s1", genes=["MT-CO1", "MT-ND1", "RPS4X"])]
    with pytest.raises(DataError, match="all 3 common genes are mitochondrial or ribosomal"):
        choose_panel(only, options("hvg"), "x")


def test_the_order_of_genes_and_slides_does_not_matter(slides):
    turned = [one[:, ::-1].copy() for one in slides[::-1]]
    for kind in ("hmhvg", "hvg"):
        assert (
            choose_panel(turned, options(kind, genes=30), "x").genes
            == choose_panel(slides, options(kind, genes=30), "x").genes
        )


def test_deg_needs_groups_to_compare(slides):
    with pytest.raises(ConfigError, match=r"no column 'tumour' to compare; they have half"):
        choose_panel(slides, options("deg", groups="tumour"), "x")
    one = slides[0][slides[0].obs["half"] == "first"].copy()
    with pytest.raises(DataError, match="has 1 groups with two units or more"):
        choose_panel([one], options("deg", groups="half"), "x")


def test_deg_says_that_it_cannot_hold_a_slide_that_is_too_large(slides, monkeypatch):
    entries = sum(one.X.nnz for one in slides)
    monkeypatch.setattr("stmorph.panels.MOST_COMPARED", entries - 1)
    match = rf"panel 'mine': kind deg would compare {entries:,} counts .* expected at most .* choose hmhvg or hvg"
    with pytest.raises(ConfigError, match=match):
        choose_panel(slides, options("deg", groups="half"), "mine")
    assert choose_panel(slides, options("hvg"), "mine").genes == tuple(sorted(PLANTED))


def written(tmp_path, change):
    """Write two slides and a split: all of `test`, and the last 40 units of s1, are not for training."""
    train, test = slide("s1"), slide("s2", seed=1)
    counts = train.X.toarray()
    counts[80:] = change(counts[80:])
    train.X = scipy.sparse.csr_matrix(counts)
    test.X = scipy.sparse.csr_matrix(change(test.X.toarray()))
    rows = []
    for one in (train, test):
        role = np.where((np.arange(one.n_obs) < 80) & (one is train), "train", "test")
        role[85:90] = "buffer"
        rows.append(pd.DataFrame({"slide": one.uns["stmorph"]["slide"], "barcode": one.obs_names, "role": role}))
        one.write_h5ad(tmp_path / f"{one.uns['stmorph']['slide']}.h5ad")
    pd.concat(rows).iloc[::-1].to_parquet(tmp_path / "split.parquet")
    return [tmp_path / "s2.h5ad", tmp_path / "s1.h5ad"], tmp_path / "split.parquet"


@pytest.mark.parametrize("kind", ["hmhvg", "hvg", "deg"])
def test_a_panel_is_the_same_whatever_the_blocks(tmp_path, monkeypatch, kind):
    asked = options(kind, groups="half" if kind == "deg" else None)
    given = written(tmp_path, lambda counts: counts)
    whole = choose_panel(training_slides(*given), asked, "x")
    monkeypatch.setattr("stmorph.slide_file.BLOCK_ENTRIES", 3000)
    assert len(list(training_slides(*given)[0].blocks())) > 4
    assert choose_panel(training_slides(*given), asked, "x") == whole


@pytest.mark.parametrize("kind", ["hmhvg", "hvg", "deg"])
def test_what_is_not_for_training_cannot_influence(tmp_path, kind):
    asked = options(kind, groups="half" if kind == "deg" else None)
    panels = []
    for name, change in (("as_is", lambda x: x), ("turned", lambda x: x[:, ::-1]), ("loud", lambda x: x * 50 + 7)):
        (tmp_path / name).mkdir()
        slides = training_slides(*written(tmp_path / name, change))
        assert [one.n_obs for one in slides] == [80]
        panels.append(choose_panel(slides, asked, "x"))
    assert panels[0] == panels[1] == panels[2]
    assert panels[0].genes == tuple(sorted(PLANTED))


def test_a_published_list_keeps_its_order(slides, tmp_path):
    (tmp_path / "list.txt").write_text("# from: Table S1\nNOISE005\n\n PLANT3 \nNOISE001\n")
    panel = choose_panel(slides, options("list", genes=None, file=str(tmp_path / "list.txt")), "x")
    assert panel.genes == ("NOISE005", "PLANT3", "NOISE001")
    assert panel.record["chosen on"] == "published list"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("PLANT1\nABSENT\nPROBE\n", r"2 of 3 genes of .* not measured on every slide \(ABSENT, PROBE\)"),
        ("PLANT1\nPLANT2\nPLANT1\n", "names PLANT1 more than once"),
        ("# only a comment\n\n", "names no gene"),
        (None, "does not exist"),
    ],
)
def test_a_faulty_list(slides, tmp_path, text, said):
    path = tmp_path / "list.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=said):
        choose_panel(slides, options("list", genes=None, file=str(path)), "x")


def test_panel_file_round_trip(slides, tmp_path):
    panel = choose_panel(slides, options("hmhvg"), "x")
    write_panel(panel, tmp_path / "panel.txt")
    assert read_panel(tmp_path / "panel.txt") == panel
    odd = Panel(("b", "a"), {"file": "C: odd, with: colons"})
    write_panel(odd, tmp_path / "odd.txt")
    assert read_panel(tmp_path / "odd.txt") == odd


HUMAN = {
    "mt": ["MT-CO1", "MT-ND4L", "MT-RNR2"],
    "ribo": ["RPS4X", "RPS6", "RPL13A", "RPLP0", "RPSA", "RPS27L", "RPL3"],
    "": ["MTOR", "MT2A", "MTHFR", "MT1X", "XMT-1", "RPE", "RPN1", "RPS6KA1", "RPS6KB2", "RPS19BP1", "RPA1", "MRPL10"],
    "mouse": ["mt-Co1", "Rps4x"],
}
MOUSE = {
    "mt": ["mt-Co1", "mt-Nd4l"],
    "ribo": ["Rps4x", "Rps6", "Rplp0", "Rpsa", "Rpl13a"],
    "": ["Mtor", "Mt1", "Mt2", "Rpe", "Rpn1", "Rps6ka1", "Rps19bp1", "Mrpl10"],
    "human": ["MT-CO1", "RPS4X"],
}


@pytest.mark.parametrize(("species", "genes"), [("human", HUMAN), ("mouse", MOUSE), ("simulated", HUMAN)])
def test_names_of_mitochondrial_and_ribosomal_genes(species, genes):
    names = np.array([name for names in genes.values() for name in names])
    assert names[is_mitochondrial(names, species)].tolist() == genes["mt"]
    assert names[is_ribosomal(names, species)].tolist() == genes["ribo"]

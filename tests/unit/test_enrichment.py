"""Gene sets: read with care, tested as the textbook says."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, fisher_exact, hypergeom

from stmorph.enrichment import over_representation, preranked, read_gmt
from stmorph.errors import DataError

GENES = [f"G{i:03d}" for i in range(300)]
SETS = {
    "planted": GENES[:20],
    **{f"decoy{i}": list(np.random.default_rng(i).choice(GENES[20:], 20, replace=False)) for i in range(8)},
}


def write(tmp_path, *lines):
    path = tmp_path / "sets.gmt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_read_gmt(tmp_path):
    path = write(tmp_path, "first\tof two\tA\tB\tA", "", "second\t\tC \t\t")
    assert read_gmt(path) == {"first": ["A", "B"], "second": ["C"]}


def test_read_gmt_of_windows(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_bytes(b"\xef\xbb\xbffirst\tx\tA\tB\r\nsecond\tx\tC\r\n")
    assert read_gmt(path) == {"first": ["A", "B"], "second": ["C"]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("alone", "found 1 fields"),
        ("name\tdescription", "found 2 fields"),
        ("name\tdescription\t\t", "found 4 fields"),
        ("spaces instead of tabs A B", "found 1 fields"),
        ("\tdescription\tA", "found 3 fields"),
        ("good\tagain\tA", "'good' stands there a second time"),
        ("good \tagain\tA", "'good' stands there a second time"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, said):
    path = write(tmp_path, "good\tx\tA\tB", "", "fine\tx\tC", line, "after\tx\tD")
    with pytest.raises(DataError) as error:
        read_gmt(path)
    assert "sets.gmt, line 4: " in str(error.value) and said in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\x00", None])
def test_no_gmt_at_all(tmp_path, content):
    path = tmp_path / "sets.gmt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"sets\.gmt"):
        read_gmt(path)


def test_over_representation_by_hand():
    """The background is what was measured: genes of a set or of the query outside it do not count."""
    genes = [*GENES[:8], *GENES[100:112], "UNMEASURED1", "UNMEASURED2"]
    sets = {**SETS, "beyond": [*GENES[:10], "UNMEASURED1", *(f"X{i}" for i in range(50))]}
    table = over_representation(genes, sets, GENES, 5, 100).set_index("term")
    for name, members in sets.items():
        inside, drawn = set(members) & set(GENES), set(genes) & set(GENES)
        hits = len(inside & drawn)
        expected = hypergeom.sf(hits - 1, len(GENES), len(inside), len(drawn))
        assert table.loc[name, "overlap"] == hits
        assert table.loc[name, "set_size"] == len(inside)
        np.testing.assert_allclose(table.loc[name, "p_value"], expected, rtol=1e-9)
        assert set(filter(None, table.loc[name, "genes"].split(";"))) == inside & drawn
    np.testing.assert_allclose(table["fdr"], false_discovery_control(table["p_value"]))
    square = [[8, 12], [12, 268]]
    np.testing.assert_allclose(table.loc["planted", "odds_ratio"], 8.5 * 268.5 / (12.5 * 12.5))  # Haldane's halves
    np.testing.assert_allclose(table.loc["planted", "p_value"], fisher_exact(square, "greater").pvalue)


def test_a_larger_background_makes_the_same_overlap_rarer():
    more = [*GENES, *(f"H{i}" for i in range(700))]
    small, large = (over_representation(GENES[:10], SETS, back, 5, 100).set_index("term") for back in (GENES, more))
    assert large.loc["planted", "p_value"] < small.loc["planted", "p_value"]


def test_the_planted_set_is_found_and_no_decoy():
    genes = [*GENES[:12], *GENES[200:218]]
    table = over_representation(genes, SETS, GENES, 5, 100)
    assert table.loc[table["fdr"] <= 0.05, "term"].tolist() == ["planted"]
    assert len(table) == len(SETS) and table["p_value"].is_monotonic_increasing


def test_sets_of_other_sizes_are_left_out_and_counted():
    table = over_representation(GENES[:30], {**SETS, "tiny": GENES[:2], "huge": GENES}, GENES, 5, 100)
    assert table.attrs["left_out"] == 2 and not {"tiny", "huge"} & set(table["term"])
    with pytest.raises(DataError, match=r"none of 9 gene sets has 50 to 60 .* largest has 20"):
        over_representation(GENES[:30], SETS, GENES, 50, 60)


def test_no_overlap_at_all():
    table = over_representation(GENES[:3], {"other": GENES[100:110]}, GENES, 5, 100)
    assert table[["overlap", "p_value", "fdr", "odds_ratio"]].iloc[0].tolist() == [0, 1, 1, 0]
    unmeasured = over_representation(["X", "Y"], {"other": GENES[100:110]}, GENES, 5, 100)
    assert unmeasured["p_value"].tolist() == [1]


def test_mouse_symbols_are_taken_as_they_are_written():
    genes = [gene.capitalize() + "x" for gene in GENES]
    table = over_representation(genes[:10], {"a": genes[:12], "b": genes[100:120]}, genes, 5, 100).set_index("term")
    assert table.loc["a", "overlap"] == 10
    np.testing.assert_allclose(table.loc["a", "p_value"], hypergeom.sf(9, 300, 12, 10))


@pytest.fixture(scope="module")
def ranking():
    signed = pd.Series(np.random.default_rng(1).normal(0, 1, len(GENES)), GENES)
    signed[GENES[:20]] += 2
    signed[GENES[20:40]] -= 2
    return signed


def test_preranked_has_the_sign_of_the_ranking(ranking):
    sets = {"up": GENES[:20], "down": GENES[20:40], "none": GENES[100::10]}
    table = preranked(ranking, sets, 5, 100, seed=0, permutations=200).set_index("term")
    assert table.loc["up", "nes"] > 1.5 and table.loc["down", "nes"] < -1.5
    assert (table.loc[["up", "down"], "fdr"] <= 0.05).all() and table.loc["none", "fdr"] > 0.05
    turned = preranked(-ranking, sets, 5, 100, seed=0, permutations=200).set_index("term")
    assert turned.loc["up", "nes"] < -1.5 and turned.loc["down", "nes"] > 1.5
    assert set(table.loc["up", "leading_edge"].split(";")) <= set(sets["up"])


def test_preranked_repeats(ranking):
    sets = {"up": GENES[:20], "down": GENES[20:40], "none": GENES[100::10]}
    first = preranked(ranking, sets, 5, 100, seed=3, permutations=50)
    pd.testing.assert_frame_equal(first, preranked(ranking[::-1], sets, 5, 100, seed=3, permutations=50))


def test_preranked_without_a_ranking():
    with pytest.raises(DataError, match="every gene has the same importance"):
        preranked(pd.Series(0.0, GENES), SETS, 5, 100, seed=0)
    with pytest.raises(DataError, match="largest has 0"):
        preranked(pd.Series([1.0, 2.0], ["A", "B"]), SETS, 5, 100, seed=0)

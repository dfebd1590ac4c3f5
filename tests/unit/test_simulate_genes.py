import numpy as np
import pytest
import scipy.stats

from stmorph.errors import ConfigError
from stmorph.simulate import PROGRAMMES, catalogue, causal_genes, gene_sets, programme_gmt
from stmorph.simulate.counts import draw_counts, expected_counts


def test_genes_are_unique_and_of_the_kinds_that_filters_and_scores_need():
    genes = catalogue()
    assert 300 <= len(genes) <= 400
    assert len(set(genes.name)) == len(set(genes.gene_id)) == len(genes)
    assert sum(k in ("smooth", "noise") for k in genes.kind) >= 120
    assert {"mitochondrial"} == {k for n, k in zip(genes.name, genes.kind) if n.startswith("MT-")}
    assert {"ribosomal"} == {k for n, k in zip(genes.name, genes.kind) if n.startswith(("RPL", "RPS"))}
    assert genes.share.sum() == pytest.approx(1)
    assert ((genes.slope > 0) == [bool(p) for p in genes.programme]).all()


def test_a_gene_keeps_its_rate_relative_to_others_when_noise_genes_are_added():
    few, many = catalogue(60), catalogue(200)
    a, b = few.name.index("SIMPRO01"), few.name.index("SIMKER09")
    c, d = many.name.index("SIMPRO01"), many.name.index("SIMKER09")
    assert few.share[a] / few.share[b] == pytest.approx(many.share[c] / many.share[d])
    with pytest.raises(ConfigError, match="noise_genes is 3"):
        catalogue(3)


def test_no_decoy_set_is_enriched_in_a_programme_and_every_planted_set_is():
    genes, planted = catalogue(), causal_genes()
    sets = gene_sets()
    assert len(sets) == 26
    for name, members in sets.items():
        for programme, causal in planted.items():
            shared = len(set(members) & set(causal))
            p = scipy.stats.hypergeom.sf(shared - 1, len(genes), len(causal), len(members))
            assert (p < 1e-6) == (name == f"SIM_{programme}")
            assert p < 1e-6 or p > 0.1
        in_any = sum(g in members for causal in planted.values() for g in causal)
        assert "DECOY" not in name or scipy.stats.hypergeom.sf(in_any - 1, len(genes), 162, len(members)) > 0.1


def test_gmt_holds_the_sets_and_known_genes_only(tmp_path):
    path = programme_gmt(tmp_path / "simulated.gmt")
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    assert {line[0]: tuple(line[2:]) for line in lines} == gene_sets()
    assert {g for line in lines for g in line[2:]} <= set(catalogue().name)


def test_expected_counts_follow_the_stated_rule():
    genes = catalogue()
    low, high = np.full((1, 6), 0.2), np.full((1, 6), 0.2)
    high[0, list(PROGRAMMES).index("LIPID")] = 0.9
    none = np.zeros((1, len(genes)))
    ratio = expected_counts(genes, high, none, 5000.0) / expected_counts(genes, low, none, 5000.0)
    lipid = np.array([p == "LIPID" for p in genes.programme])
    np.testing.assert_allclose(ratio[0, lipid], np.exp(0.7 * genes.slope[lipid]))
    np.testing.assert_allclose(ratio[0, ~lipid], 1)
    even = np.random.default_rng(0).random((20000, 6))
    total = expected_counts(genes, even, np.zeros((20000, len(genes))), 5000.0).sum(axis=1)
    assert total.mean() == pytest.approx(5000, rel=0.01)


def test_drawn_counts_have_the_stated_mean_variance_and_dropout():
    expected = np.repeat([[1.0, 20.0]], 200_000, axis=0)
    plain = draw_counts(expected, 0.1, 0.0, np.random.default_rng(1))
    np.testing.assert_allclose(plain.mean(axis=0), [1, 20], rtol=0.01)
    np.testing.assert_allclose(plain.var(axis=0), [1 + 0.1, 20 + 0.1 * 400], rtol=0.03)
    dropped = draw_counts(expected, 0.1, 0.3, np.random.default_rng(1))
    lost = 1 - dropped.mean(axis=0) / plain.mean(axis=0)
    np.testing.assert_allclose(lost, [0.3, 0.3 / (0.3 + 20 * 0.7)], atol=0.01)

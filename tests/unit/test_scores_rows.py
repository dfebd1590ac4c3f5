import math

import numpy as np
import pytest

from stmorph.errors import ConfigError, DataError
from stmorph.scores.choose import select
from stmorph.scores.resample import Estimate, over_slides
from stmorph.scores.rows import COLUMNS, Score, read_scores, to_frame, write_scores

ROWS = [
    Score("pcc", 0.5, 0.01, 0.48, 0.52, 300, 10, "oracle", "mean", None, "paired test units", "log1p_cp10k"),
    Score("pcc", 0.4, 0.01, 0.38, 0.42, 300, 10, "train", "mean", None, "paired test units", "log1p_cp10k"),
    Score("pcc", 0.3, n=300, gene_choice="all", estimator="mean", target_space="log1p_cp10k"),
    Score("fid", math.nan, features="morphometric(z)", slide="a", note="undefined"),
]
RUN = {"dataset": "demo", "method": "ridge", "seed": 3}


def test_scores_come_back_as_they_were_written(tmp_path):
    write_scores(ROWS, tmp_path / "one.parquet", RUN)
    write_scores(ROWS[:1], tmp_path / "two.parquet", RUN | {"seed": 4})
    frame = read_scores([tmp_path / "one.parquet", tmp_path / "two.parquet"])
    assert list(frame.columns) == [*RUN, *COLUMNS]
    assert frame.seed.tolist() == [3, 3, 3, 3, 4]
    assert frame[list(COLUMNS)][:4].equals(to_frame(ROWS))
    assert frame.k.isna().tolist() == [False, False, True, True, False]
    assert read_scores([]).empty


def test_the_same_scores_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_scores(ROWS, tmp_path / name, RUN)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_bad_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.parquet cannot be read"):
        read_scores([tmp_path / "absent.parquet"])
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(DataError, match=r"torn\.parquet cannot be read"):
        read_scores([tmp_path / "torn.parquet"])
    to_frame(ROWS).drop(columns="note").to_parquet(tmp_path / "old.parquet")
    with pytest.raises(DataError, match="lacks the columns note"):
        read_scores([tmp_path / "old.parquet"])
    with pytest.raises(ValueError, match="identified by slide"):
        write_scores(ROWS, tmp_path / "x.parquet", {"slide": "a"})
    assert not (tmp_path / "x.parquet").exists()


def test_one_row_is_selected():
    frame = to_frame(ROWS)
    assert select(frame, metric="pcc", k=10, gene_choice="train").value == 0.4
    assert select(frame, metric="pcc", k=None).value == 0.3
    assert math.isnan(select(frame, features="morphometric(z)").value)


def test_a_selector_that_fits_no_row_or_several_says_what_is_near():
    frame = to_frame(ROWS)
    with pytest.raises(ConfigError, match=r"no score fits metric=pcc, k=50.*the nearest scores have k=10 instead"):
        select(frame, metric="pcc", k=50, gene_choice="train")
    with pytest.raises(ConfigError, match=r"2 scores fit metric=pcc, k=10.*gene_choice: oracle, train"):
        select(frame, metric="pcc", k=10)
    with pytest.raises(ConfigError, match="did you mean gene_choice"):
        select(frame, gene_chioce="all")
    with pytest.raises(ConfigError, match="differ in no qualifier"):
        select(to_frame(ROWS[:1] * 2), metric="pcc")
    with pytest.raises(ConfigError, match="is empty"):
        select(to_frame([]), metric="pcc")


def test_all_is_the_mean_of_the_slides_that_are_defined():
    estimates = {
        "b": Estimate(3.0, 10, se=0.3, degrees=9),
        "a": Estimate(1.0, 20, se=0.4, degrees=9),
        "c": Estimate(np.nan, 5, note="no tissue"),
    }
    rows = over_slides(estimates, Score("fid", math.nan))
    assert [row.slide for row in rows] == ["a", "b", "c", "all"]
    assert (rows[-1].value, rows[-1].n, rows[-1].se) == (2.0, 30, pytest.approx(0.25))
    assert rows[-1].ci_low < 2 - 1.96 * 0.25
    assert rows[-1].note == "undefined on 1 of 3 slides; c: no tissue"
    assert math.isnan(rows[2].value)

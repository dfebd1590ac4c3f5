"""A paper's table from scores: known scores to cells, and what a reader sees."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from pydantic import ValidationError

from stmorph.config.schema import TableConfig
from stmorph.errors import ConfigError
from stmorph.scores.rows import Score, write_scores
from stmorph.tables import gather, to_html, to_markdown

PAPER = {"title": "A Paper", "authors": "Others", "year": 2025, "doi": "arXiv:1"}


def table(**other):
    return TableConfig(
        **{
            "description": "Table 1: <all> | of it",
            "published_on": "Their data",
            "groups": [{"label": "Left"}, {"label": "Right"}],
            "columns": [
                {"label": "PCC-10", "metric": "pcc", "k": 10, "gene_choice": "oracle", "estimator": "mean"},
                {"label": "PCC-all", "metric": "pcc", "k": "panel", "estimator": "mean", "digits": 2},
                {"label": "MSE", "metric": "mse", "estimator": "mean", "better": "lower"},
            ],
            "rows": [
                {"label": "ours", "published": {"Left": {"PCC-10": 0.5, "MSE": 2}}, "only": ["Left"]},
                {"label": "theirs", "run": None, "why": "not <done> | here", "published": {"Right": {"MSE": "<0.1"}}},
            ],
            **other,
        }
    ).model_dump()


def cell(tmp_path, values, row="ours", group="Left", splits=None, replication=False, note="", n=100):
    """Write one run's scores for each of `values` (its PCC-10) and return the cell that averages them."""
    paths, runs = [], []
    for i, value in enumerate(values):
        split = splits[i] if splits else "held_out"
        shared = {"estimator": "mean", "target_space": "log1p_cp10k", "n": n}
        scores = [
            Score(
                "pcc", value, k=10, gene_choice="oracle", ci_low=value - 0.1, ci_high=value + 0.1, note=note, **shared
            ),
            Score("pcc", -9.0, k=10, gene_choice="train", **shared),
            Score("pcc", value / 2, k=37, gene_choice="all", **shared),
            Score("pcc", -9.0, k=10, gene_choice="oracle", slide="s1", **shared),
            Score("mse", 1.5, **shared),
            Score("mse", -9.0, **{**shared, "estimator": "median"}),
        ]
        paths.append(str(tmp_path / f"{row}{group}{i}.parquet"))
        runs.append({"dataset": "d", "split": split, "panel": "P", "label": "stem", "seed": i})
        write_scores(scores, paths[-1], {"seed": i})
    return {"row": row, "group": group, "runs": runs, "scores": paths, "replication": replication}


def rows(gathered):
    return {(r["row"], r["group"], r["column"]): r for r in gathered.to_dict("records")}


def test_one_run(tmp_path):
    found = rows(gather(table(), [cell(tmp_path, [0.4])]))
    one = found["ours", "Left", "PCC-10"]
    assert one["measured"] == 0.4 and one["published"] == 0.5
    assert one["difference"] == pytest.approx(-0.1)
    assert (one["ci_low"], one["ci_high"]) == pytest.approx((0.3, 0.5)) and np.isnan(one["sd"])
    assert (one["replicates"], one["n"], one["split"], one["panel"]) == (1, 100, "held_out", "P")
    assert (one["k"], one["gene_choice"], one["target_space"]) == (10, "oracle", "log1p_cp10k")
    whole_panel = found["ours", "Left", "PCC-all"]
    assert whole_panel["measured"] == 0.2 and whole_panel["k"] == 37 and np.isnan(whole_panel["difference"])
    assert found["ours", "Left", "MSE"]["measured"] == 1.5 and found["ours", "Left", "MSE"]["difference"] == -0.5
    assert set(found) == {("ours", "Left", c) for c in ("PCC-10", "PCC-all", "MSE")} | {("theirs", "Right", "MSE")}


def test_seeds_share_their_units(tmp_path):
    one = rows(gather(table(), [cell(tmp_path, [0.4, 0.5, 0.9])]))["ours", "Left", "PCC-10"]
    assert one["measured"] == pytest.approx(0.6) and one["sd"] == pytest.approx(np.std([0.4, 0.5, 0.9], ddof=1))
    assert (one["replicates"], one["n"], one["split"]) == (3, 100, "held_out")
    assert np.isnan(one["ci_low"])


def test_folds_add_their_units(tmp_path):
    splits = ["cv.fold0", "cv.fold0", "cv.fold1", "cv.fold1"]
    one = rows(gather(table(), [cell(tmp_path, [0.1, 0.2, 0.3, 0.4], splits=splits)]))["ours", "Left", "PCC-10"]
    assert one["measured"] == pytest.approx(0.25)
    assert (one["replicates"], one["n"], one["split"]) == (4, 200, "cv")


def test_a_missing_score_names_file_column_and_nearest(tmp_path):
    column = {"label": "PCC-20", "metric": "pcc", "k": 20, "gene_choice": "oracle", "estimator": "mean"}
    lacking = table(columns=[column], rows=[{"label": "ours"}])
    with pytest.raises(ConfigError, match=r"oursLeft0\.parquet: column 'PCC-20': no score fits .*nearest.* k=10"):
        gather(lacking, [cell(tmp_path, [0.4])])
    vague = table(columns=[{"label": "MSE", "metric": "mse"}], rows=[{"label": "ours"}])
    with pytest.raises(ConfigError, match=r"2 scores fit .* select also by estimator"):
        gather(vague, [cell(tmp_path, [0.4])])


class Cells(HTMLParser):
    """Collects the cells of every line of an HTML table."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.lines, self.inside = [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        assert tag in {"html", "meta", "title", "style", "h1", "p", "div", "table", "thead", "tbody", "tr", "th", "td",
                       "ul", "li", "br", "small"}, f"<{tag}> was not escaped"  # fmt: skip
        if tag == "tr":
            self.lines.append([])
        if tag in ("th", "td"):
            self.lines[-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("th", "td")

    def handle_data(self, data):
        if self.inside:
            self.lines[-1][-1] += data


def markdown_lines(text):
    """Return the cells of every line of a Markdown table."""
    found = [line for line in text.splitlines() if line.startswith("|")]
    return [[part.strip().replace("\\|", "|") for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in found]


def shown(tmp_path, cells, about=None, **other):
    config = table(**other)
    about = {"name": "t", "paper": PAPER, "datasets": {"d": "Our data"}, **(about or {})}
    gathered = gather(config, cells)
    return to_markdown(gathered, config, about), to_html(gathered, config, about)


def test_lines_as_in_the_paper(tmp_path):
    text, page = shown(tmp_path, [cell(tmp_path, [0.4])])
    expected = [
        ["ours", "measured here", "0.4000 [0.3000, 0.5000]", "0.20", "1.5000", "", "", ""],
        ["", "published", "0.5000", "", "2.0000", "", "", ""],
        ["", "difference", "-0.1000", "", "-0.5000", "", "", ""],
        ["theirs", "not measured: not <done> | here", "", "", "", "", "", ""],
        ["", "published", "", "", "", "", "", "<0.1"],
    ]
    assert markdown_lines(text)[2:] == expected
    assert {len(line) for line in markdown_lines(text)} == {8}
    assert Cells(page).lines[2:] == expected


def test_spread_over_seeds_is_shown_and_explained(tmp_path):
    text, _ = shown(tmp_path, [cell(tmp_path, [0.4, 0.5])])
    assert "0.4500 ± 0.0707" in text and "standard deviation over 2 seeds or folds" in text
    assert "[" not in markdown_lines(text)[2][2]


def test_an_undefined_measurement_is_said(tmp_path):
    text, _ = shown(tmp_path, [cell(tmp_path, [np.nan], note="constant prediction")])
    assert markdown_lines(text)[2][2:4] == ["undefined", "undefined"]
    assert "stem: constant prediction" in text


def test_a_why_beside_a_run_does_not_hide_it(tmp_path):
    text, _ = shown(tmp_path, [cell(tmp_path, [0.4])], rows=[{"label": "ours", "why": "a word on it"}])
    assert markdown_lines(text)[2][1] == "measured here"


def test_notes_say_how_many_units_as_whole_numbers(tmp_path):
    text, page = shown(tmp_path, [cell(tmp_path, [0.4])])
    assert "Split held_out; test units scored: stem 100." in text
    assert "log1p_cp10k" in text and "log1p_cp10k" in page
    assert "replication" not in text
    assert "replication" in shown(tmp_path, [cell(tmp_path, [0.4], replication=True)])[0]


def test_the_banner_says_whose_data(tmp_path):
    cells = [cell(tmp_path, [0.4])]
    for text in shown(tmp_path, cells):
        assert "not the paper's data" in text.replace("&#x27;", "'") and "Our data" in text and "A Paper" in text
    for text in shown(tmp_path, cells, {"datasets": {"d": "Their data"}}):
        assert "not the paper" not in text
    for text in shown(tmp_path, cells, {"paper": None}, published_on=""):
        assert "not the paper" not in text and "Published" not in text


def test_a_table_without_any_number(tmp_path):
    text, _ = shown(tmp_path, [], rows=[{"label": "theirs", "run": None, "why": "no"}])
    assert markdown_lines(text)[2][:2] == ["theirs", "not measured: no"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"rows": [{"label": "a"}, {"label": "a"}]}, "two rows have one label"),
        ({"groups": [{"label": "a"}, {"label": "a"}], "rows": [{"label": "b"}]}, "two groups have one label"),
        ({"rows": [{"label": "a", "published": {"Middle": {"MSE": 1}}}]}, "names group 'Middle'"),
        ({"rows": [{"label": "a", "published": {"Left": {"MAE": 1}}}]}, "names column 'MAE'"),
        ({"rows": [{"label": "a", "only": ["Middle"]}]}, "names group 'Middle'"),
        ({"rows": [{"label": "a", "run": None}]}, "needs why"),
    ],
)
def test_labels_that_would_lose_numbers_are_refused(other, said):
    with pytest.raises(ValidationError, match=said):
        table(**other)

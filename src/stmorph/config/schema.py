"""What a study and a paper may say. Every object is closed: `check.py` tells an unknown key."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from ..expression import TargetSpace
from .closed import Closed, Name
from .method_schema import JobConfig, JobRule


def _distinct(values: list) -> list:
    repeated = sorted({str(one) for one in values if values.count(one) > 1})
    if repeated:
        raise ValueError(f"{', '.join(repeated)} stands there more than once")
    return values


Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_distinct)]
"""Each once: the same run counted twice would feign agreement between seeds."""


# --- what a run is made of --------------------------------------------------------------------------------------------


class EncoderConfig(Closed):
    """An encoder under a name of the user's choice; `model` may join several by `+`, their options then by name."""

    model: str
    options: dict[str, Any] = {}
    views: Literal[1, 8] = 8


class SplitConfig(Closed):
    """How the units of a dataset are given roles.

    slides, patients: the named ones (`test`) are tested, the rest train (or only those in `train`).
    blocks: `test_fraction` of the square blocks of `block_um` is tested; units within `buffer_um` of a tested one are
    set aside.
    fraction: `test_fraction` of the units at random; leaks, so only as `replication`.
    folds: `k` folds `of` slides, patients, blocks or units (the last as `replication` only); one run per fold.
    """

    dataset: Name
    kind: Literal["slides", "patients", "blocks", "fraction", "folds"]
    test: list[str] = []
    train: list[str] = []
    of: Literal["slides", "patients", "blocks", "units"] | None = None
    k: Annotated[int, Field(ge=2)] | None = None
    test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    block_um: Annotated[float, Field(gt=0)] | None = None
    buffer_um: Annotated[float, Field(ge=0)] | None = None
    replication: bool = False
    seed: int = 0

    @model_validator(mode="after")
    def _complete(self) -> "SplitConfig":
        needed = {
            "slides": ["test"],
            "patients": ["test"],
            "blocks": ["test_fraction", "block_um", "buffer_um"],
            "fraction": ["test_fraction"],
            "folds": ["k", "of"],
        }[self.kind]
        if self.kind == "folds" and self.of == "blocks":
            needed = [*needed, "block_um", "buffer_um"]
        missing = [key for key in needed if getattr(self, key) in (None, [])]
        if missing:
            raise ValueError(f"a split of kind {self.kind!r} also needs {', '.join(missing)}")
        if (self.kind == "fraction" or (self.kind == "folds" and self.of == "units")) and not self.replication:
            raise ValueError(
                "neighbouring units would be trained on and tested; split blocks with a buffer_um, or mark a paper's "
                "own split with replication: true"
            )
        return self


class SubsetConfig(Closed):
    """Some slides of a data set, or other units of them, as a data set of its own."""

    of: Name
    slides: Annotated[list[str], AfterValidator(_distinct)] = []
    reader_options: dict[str, Any] = {}


class PanelConfig(Closed):
    """How the genes of a run are chosen (on the training units only).

    hmhvg: highly variable per slide (`hvg_per_slide`), union over slides, then the `genes` highest in both mean and
    variability.
    hvg: the same union, then the `genes` highest in mean.
    deg: differentially expressed between `groups` (an obs column or `leiden`).
    all: every gene that the slides have in common, but the constant ones.
    list: a published list from `file`, kept for replication.
    """

    kind: Literal["hmhvg", "hvg", "deg", "all", "list"]
    genes: Annotated[int, Field(ge=1)] | None = None
    hvg_per_slide: Annotated[int, Field(ge=1)] = 2000
    drop_mitochondrial: bool = True
    drop_ribosomal: bool = True
    groups: str | None = None
    file: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> "PanelConfig":
        if self.kind == "list" and self.file is None:
            raise ValueError("a panel of kind 'list' also needs file")
        if self.kind not in ("all", "list") and self.genes is None:
            raise ValueError(f"a panel of kind {self.kind!r} also needs genes (how many)")
        return self


class RunConfig(Closed):
    """A run, or a part of one: a table merges its own, its row's and its column group's."""

    dataset: Name | None = None
    split: Name | None = None
    panel: Name | None = None
    method: Name | None = None
    variant: Name | None = None
    condition: Literal["paired", "shuffled"] | None = None
    encoder: Name | None = None
    tiles: Name | None = None
    target_space: TargetSpace | None = None
    options: dict[str, Any] = {}
    training: dict[str, Any] = {}
    sampling: dict[str, Any] = {}
    seeds: Seeds | None = None


# --- tables, figures, importance --------------------------------------------------------------------------------------


class ColumnConfig(Closed):
    """One column: its label and which score fills it.

    features, reference: needed only where a run has several scores of the metric (`programme_*`).
    slide: `all` is the mean of the test slides' own values; `pooled` takes their units as one set (FID, KID).
    """

    label: str
    metric: str
    k: int | Literal["panel"] | None = None
    gene_choice: Literal["oracle", "train", "all"] | None = None
    estimator: str | None = None
    features: str | None = None
    reference: str | None = None
    slide: Literal["all", "pooled"] = "all"
    better: Literal["higher", "lower"] | None = None
    digits: int = 4


class GroupConfig(Closed):
    """A group of columns, e.g. a gene set or a method; `run` says what its runs have in common."""

    label: str
    run: RunConfig = RunConfig()


class RowConfig(Closed):
    """A row. `run: null` with a `why` is a published row that stmorph does not compute."""

    label: str
    run: RunConfig | None = RunConfig()
    why: str | None = None
    published: dict[str, dict[str, float | str]] = {}
    only: list[str] | None = None

    @model_validator(mode="after")
    def _complete(self) -> "RowConfig":
        if self.run is None and not self.why:
            raise ValueError("a row without a run needs why (one sentence for the table)")
        return self


class TableConfig(Closed):
    """A table: rows x groups of columns; a cell's run is the table's, the row's, the group's, merged in that order."""

    description: str
    caption: str = ""
    run: RunConfig = RunConfig()
    groups: Annotated[list[GroupConfig], Field(min_length=1)]
    rows: Annotated[list[RowConfig], Field(min_length=1)]
    columns: Annotated[list[ColumnConfig], Field(min_length=1)]
    published_on: str = ""

    @model_validator(mode="after")
    def _labelled(self) -> "TableConfig":
        labels = {kind: [one.label for one in getattr(self, kind)] for kind in ("rows", "groups", "columns")}
        for kind, names in labels.items():
            if len(set(names)) < len(names):
                raise ValueError(f"two {kind} have one label ({', '.join(names)}); give each its own")
        for row in self.rows:
            named = {*row.published, *(row.only or ())}
            if unknown := sorted(named - set(labels["groups"])):
                raise ValueError(
                    f"row {row.label!r} names group {unknown[0]!r}; allowed: {', '.join(labels['groups'])}"
                )
            named = {column for numbers in row.published.values() for column in numbers}
            if unknown := sorted(named - set(labels["columns"])):
                raise ValueError(
                    f"row {row.label!r} names column {unknown[0]!r}; allowed: {', '.join(labels['columns'])}"
                )
        return self


class FigureConfig(Closed):
    """A figure of a kind (one module of stmorph.figures each) about the runs of a table."""

    kind: Name
    table: Name
    description: str
    caption: str = ""
    options: dict[str, Any] = {}


class ImportanceConfig(Closed):
    """Which genes move a generator's pictures, and what they have in common."""

    description: str
    run: RunConfig
    quantity: Literal["velocity_energy", "integrated_gradients"] = "velocity_energy"
    options: dict[str, Any] = {}
    gene_sets: Name
    min_size: int = 5
    max_size: int = 500
    top: Annotated[int, Field(ge=1)] = 50
    fdr: Annotated[float, Field(gt=0, lt=1)] = 0.05


class PaperConfig(Closed):
    """`config/papers/<name>.yaml`: a paper's tables with the published numbers."""

    title: str
    authors: str
    year: int
    doi: str
    code: str | None = None
    licence_of_code: str | None = None
    tables: dict[Name, TableConfig]


class ScoreConfig(Closed):
    """How scores are taken, the same for every run."""

    k: list[int] = [10, 50]
    bootstrap: Annotated[int, Field(ge=0)] = 200
    estimators: list[Literal["mean", "median", "mode"]] = ["mean", "median", "mode"]
    image_encoder: Name | None = None
    inception_weights: str | None = None
    programmes: str | None = None
    programme_features: dict[str, str] = {}


class StudyConfig(Closed):
    """A complete run: `config/config.yaml`, `config/demo.yaml`, ..."""

    name: Name
    title: str
    scale: Literal["full", "small", "smoke"]
    seeds: Seeds = [0]
    data_root: str | None = None
    downloads: str = "downloads"
    results: str = "results"
    datasets: Annotated[list[Name], Field(min_length=1), AfterValidator(_distinct)]
    subsets: dict[Name, SubsetConfig] = {}
    papers: list[Name] = []
    tiles: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    encoders: Annotated[dict[Name, EncoderConfig], Field(min_length=1)]
    splits: dict[Name, SplitConfig]
    panels: dict[Name, PanelConfig]
    scores: ScoreConfig = ScoreConfig()
    methods: dict[Name, dict[str, Any]] = {}
    tables: dict[Name, dict[str, Any]] = {}
    figures: dict[Name, FigureConfig] = {}
    importance: dict[Name, ImportanceConfig] = {}
    resources: dict[JobRule, JobConfig] = {}

    def dataset_file(self, name: str) -> str:
        """Return the file that says where a data set's files are; a subset's is its data set's."""
        return f"config/datasets/{self.subsets[name].of if name in self.subsets else name}.yaml"

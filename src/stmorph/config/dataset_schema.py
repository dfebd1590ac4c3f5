"""What `config/datasets/<name>.yaml` may say: a dataset's slides, their files, and where the files come from."""

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from .closed import Closed, Name

TILES_ALONE = frozenset({"spider"})
"""Readers of tiles without expression: their data sets make no slides, and no run can be of them."""
SlideName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Url = Annotated[str, Field(pattern=r"^https?://[^\s/]+\S*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


def _relative(path: str) -> str:
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise ValueError("expected a path that stays below its folder (no leading /, no ..)")
    return path


class GateEntry(Closed):
    """Terms that must be accepted before the files are given out, and where the token of the account is looked for."""

    page: Url
    variable: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] = "HF_TOKEN"


class HubEntry(Closed):
    """A repository of the Hugging Face Hub; a commit as `revision` is the same for ever, a branch is not."""

    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Annotated[str, Field(min_length=1)] = "main"
    kind: Literal["dataset", "model"] = "dataset"


class ArchiveEntry(Closed):
    """One published file: its path below the dataset's root and where it is fetched from."""

    path: str
    url: Url | None = None
    mirrors: list[Url] = Field(default_factory=list)
    size_bytes: Annotated[int, Field(ge=1)] | None = None
    sha256: Sha256 | None = None
    md5: Md5 | None = None
    hub: Annotated[str, AfterValidator(_relative)] | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> "ArchiveEntry":
        if self.url is not None and self.hub is not None:
            raise ValueError("url and hub both say where the file is fetched from; give one of them")
        if self.mirrors and self.url is None:
            raise ValueError("mirrors stand in for url, which is missing; name the first of them url")
        if self.fetched:
            _relative(self.path)
        return self

    @property
    def fetched(self) -> bool:
        """Whether the entry says where the file can be fetched from."""
        return self.url is not None or self.hub is not None

    @property
    def digest(self) -> str | None:
        """The key of a digest that is given, if one is."""
        return next((key for key in ("sha256", "md5") if getattr(self, key) is not None), None)


class FileEntry(ArchiveEntry):
    """One file of a slide: below the dataset's root, and published by itself or as the member of an archive."""

    archive: str | None = None
    member: Annotated[str, AfterValidator(_relative)] | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "FileEntry":
        if self.archive is not None and (self.url is not None or self.hub is not None):
            raise ValueError(
                f"archive and {'url' if self.url is not None else 'hub'} both say where the file is fetched from; "
                "give one of them"
            )
        if self.member is not None and self.archive is None:
            raise ValueError("member is a path in an archive, which is missing; name one of the data set's archives")
        return self

    @property
    def fetched(self) -> bool:
        """Whether the entry says where the file can be fetched from."""
        return self.archive is not None or super().fetched


File = Annotated[FileEntry, BeforeValidator(lambda value: {"path": value} if isinstance(value, str) else value)]
"""A bare string is a path."""


class SlideEntry(Closed):
    """One slide of a dataset. `files` overrides the dataset's templates."""

    patient: Name
    organ: str | None = None
    um_per_px: Annotated[float, Field(gt=0)] | None = None
    files: dict[str, File] = Field(default_factory=dict)
    reader_options: dict[str, Any] = Field(default_factory=dict)
    simulate: dict[str, Any] = Field(default_factory=dict)
    unavailable: Annotated[str, Field(min_length=1)] | None = None


class DatasetConfig(Closed):
    """`config/datasets/<name>.yaml`."""

    title: str
    citation: str = ""
    licence: str
    attribution: str
    homepage: str | None = None
    gate: GateEntry | None = None
    hub: HubEntry | None = None
    archives: dict[str, ArchiveEntry] = Field(default_factory=dict)
    unavailable: Annotated[str, Field(min_length=1)] | None = None
    reader: str
    reader_options: dict[str, Any] = Field(default_factory=dict)
    platform: str
    species: Literal["human", "mouse", "simulated"]
    organ: str = "unknown"
    root: str | None = None
    spot_diameter_um: Annotated[float, Field(gt=0)] | None = None
    spot_pitch_um: Annotated[float, Field(gt=0)] | None = None
    files: dict[str, File]
    simulate: dict[str, Any] | None = None
    gene_sets: dict[Name, File] = Field(default_factory=dict)
    slides: Annotated[dict[SlideName, SlideEntry], Field(min_length=1)]

    @model_validator(mode="after")
    def _origins_are_named(self) -> "DatasetConfig":
        for where, entry in self._entries():
            if entry.hub is not None and self.hub is None:
                raise ValueError(f"{where}.hub is a path in a repository, which is missing; say hub: {{repo: ...}}")
        for name, archive in self.archives.items():
            if not archive.fetched:
                raise ValueError(f"archives.{name} has neither url nor hub; say where it is fetched from")
        fetched = [where for where, entry in self._entries() if entry.fetched]
        if self.unavailable is not None and fetched:
            raise ValueError(f"unavailable says that nobody can get the files, but {fetched[0]} says where from")
        self._digest_is_of_one_file()
        for name, slide in self.slides.items():
            own = [role for role, file in slide.files.items() if file.fetched]
            if slide.unavailable is not None and own:
                raise ValueError(
                    f"slides.{name}.unavailable says that nobody can get the files, but slides.{name}.files.{own[0]} "
                    "says where from"
                )
        return self

    def _digest_is_of_one_file(self) -> None:
        for name, archive in self.archives.items():
            if archive.digest is not None and "{slide}" in archive.path and len(self.slides) > 1:
                raise ValueError(
                    f"archives.{name}.{archive.digest} cannot be that of every slide's archive; name one archive each"
                )
        for role, file in self.files.items():
            users = [slide for slide in self.slides.values() if role not in slide.files]
            if file.digest is not None and "{slide}" in file.path and len(users) > 1:
                raise ValueError(
                    f"files.{role}.{file.digest} cannot be that of every slide's file; say it below each slide"
                )

    @property
    def unpaired(self) -> bool:
        """Whether it has tiles without expression, for training without it."""
        return self.reader in TILES_ALONE

    def _entries(self) -> list[tuple[str, ArchiveEntry]]:
        """Return where each entry stands, and the entry."""
        files = [(f"files.{role}", file) for role, file in self.files.items()]
        files += [(f"gene_sets.{name}", file) for name, file in self.gene_sets.items()]
        for name, slide in self.slides.items():
            files += [(f"slides.{name}.files.{role}", file) for role, file in slide.files.items()]
        archives = [(f"archives.{name}", archive) for name, archive in self.archives.items()]
        return [*archives, *files]

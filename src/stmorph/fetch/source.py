"""What is known of one input file: where it lies, or will lie, and where it can be fetched from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """Terms to accept at `page`; the token of the account that did is looked for in the environment's `variable`."""

    page: str
    variable: str


@dataclass(frozen=True)
class HubFile:
    """A file of a repository of the Hugging Face Hub at a revision."""

    repo: str
    revision: str
    kind: str
    file: str


@dataclass(frozen=True)
class Source:
    """One input file. At most one of `url`, `hub` and `archive` says where it comes from.

    sha256, md5, size_bytes: of the file, as published; None where the publisher does not tell.
    member: its path in the archive; None where the archive is one packed file (`.gz`).
    unavailable: why nobody can get the file; of weights, that they are not on disk and what to do.
    """

    path: str
    url: str | None = None
    mirrors: tuple[str, ...] = ()
    size_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    hub: HubFile | None = None
    archive: "Source | None" = None
    member: str | None = None
    gate: Gate | None = None
    unavailable: str | None = None

    @property
    def address(self) -> str | None:
        """What names the bytes: the URL, the hub's file at its revision, the member of an archive."""
        if self.url is not None:
            return self.url
        if self.hub is not None:
            return f"hub:{self.hub.kind}:{self.hub.repo}@{self.hub.revision}/{self.hub.file}"
        if self.archive is not None:
            return f"{self.archive.address}!{self.member or ''}"
        return None

    @property
    def transferred(self) -> bool:
        """Whether the file itself comes over the network, not out of an archive."""
        return self.url is not None or self.hub is not None


@dataclass(frozen=True)
class Archived:
    """An archive and the files that are taken out of it."""

    path: str
    members: tuple[Source, ...]

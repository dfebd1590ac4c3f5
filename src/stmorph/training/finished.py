"""A finished training, kept in the run's work folder: a second copy of the job takes it instead of training again.

Snakemake removes a job's outputs before it submits the job, also when the first copy of it is still at work; what the
first copy made must therefore lie elsewhere too. The same files under two names take no space twice.
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ..digests import file_digest
from ..files import whole

log = logging.getLogger(__name__)


class Finished:
    """The finished files of one run, in `<folder>/finished`, with their digests in `files.json`, which is written last.

    Parameters
    ----------
    folder
        The run's work folder, named by the digests of all that the training depends on.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder) / "finished"
        self._record = self.folder / "files.json"

    def path(self, name: str, like: str | Path) -> Path:
        """Return where the file `name` is to be written before `keep`; its suffix is that of `like`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / (name + Path(like).suffix)

    def keep(self, out: Mapping[str, str]) -> None:
        """Declare the files of `out` (name -> output) finished.

        Raises
        ------
        DataError
            The disk is full or the folder cannot be written.
        """
        content = {name: file_digest(self.path(name, path)) for name, path in out.items()}
        with whole(self._record) as partial:
            partial.write_text(json.dumps(content, indent=1, sort_keys=True))

    def place(self, out: Mapping[str, str]) -> bool:
        """Put the finished files in their places; return False where the run has not finished or a file is damaged.

        Raises
        ------
        DataError
            The disk is full or a folder cannot be written.
        """
        try:
            content = json.loads(self._record.read_text())
        except FileNotFoundError:
            return False
        except ValueError:
            content = {}
        sources = {name: self.path(name, path) for name, path in out.items()}
        for name, source in sources.items():
            if not source.is_file() or file_digest(source) != content.get(name):
                log.warning("%s is missing or damaged; training again", source)
                self._record.unlink()
                return False
        for name, path in out.items():
            with whole(path) as partial:
                _link(sources[name], partial)
                os.utime(partial)  # newer than the inputs, whenever those were made
        return True


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)

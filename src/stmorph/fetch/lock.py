"""The lock file: the digest of every file that was fetched, so that a file which changed on the server is noticed.

One JSON beside the fetched files; it can be kept with a study to pin what its publishers do not.
"""

import fcntl
import json
from pathlib import Path

from ..errors import DataError
from ..files import remove_leftovers, whole

LOCK_NAME = "sources.lock.json"


def read_lock(lock: Path) -> dict[str, dict]:
    """Return address -> `{path, sha256, size_bytes}` of every file fetched so far; of the hub's also the `commit`.

    Raises
    ------
    DataError
        The lock file is damaged.
    """
    try:
        content = json.loads(lock.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{lock} cannot be read ({error}); mend it, or remove it to record digests anew") from error
    sound = isinstance(content, dict) and all(
        isinstance(one, dict) and isinstance(one.get("sha256"), str) for one in content.values()
    )
    if not sound:
        raise DataError(f"{lock} does not hold a sha256 for every address; mend it, or remove it to record them anew")
    return content


def record(lock: Path, address: str, path: str, sha256: str, size_bytes: int, commit: str | None = None) -> None:
    """Enter one fetched file, and the commit that it was of; several processes may do so at once.

    Raises
    ------
    DataError
        The lock file is damaged or cannot be written.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        guard = lock.with_name(f".{lock.name}.guard").open("w")
    except OSError as error:
        raise DataError(
            f"{lock} could not be written ({error.strerror or error}); mend the folder's rights and run again"
        ) from error
    with guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        remove_leftovers(lock)
        content = read_lock(lock)
        entry = {"path": path, "sha256": sha256, "size_bytes": size_bytes} | ({"commit": commit} if commit else {})
        if content.get(address) != entry:
            content[address] = entry
            with whole(lock) as partial:
                partial.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", "utf-8")

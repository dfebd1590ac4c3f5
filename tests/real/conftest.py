import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; a test that asks for it is skipped where the folder is absent."""
    root = Path(__file__).parents[2]
    folder = Path(os.environ.get("STMORPH_TEST_DATA", root.parent / "shared" / "data"))
    folder = folder if folder.is_absolute() else root / folder
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set STMORPH_TEST_DATA to their folder")
    return folder

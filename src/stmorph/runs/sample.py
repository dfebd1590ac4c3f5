"""Draws from the trained model of a run for its test units."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..digests import file_digest
from ..model_file import load_model
from ..samples.draw import sample_to_file
from .inputs import choose_test_units, units_of


def sample_run(run: Mapping[str, Any], files: Mapping[str, Sequence[str]], out: str) -> None:
    """Draw for the run's test units and write samples.zarr.zip.

    A method that deals out real tiles (`wants_real`) gets those of the test units that are not sampled, so that no
    picture is compared with itself; at most half of the test units are then sampled.
    """
    method = load_model(files["model"][0], files["record"][0])
    test = units_of(run, files, ["test"])
    sampling = run["sampling"]
    at_most = sampling["max_units"]
    if method.wants_real:
        at_most = min(at_most or len(test), len(test) // 2)
    chosen = choose_test_units(run, test, at_most)
    units = test.take(chosen)
    rest = test.take(np.setdiff1d(np.arange(len(test)), chosen)) if method.wants_real else None
    print(f"{run['method']}: {sampling['draws']} draws for {len(units)} of {len(test)} test units", flush=True)
    sample_to_file(
        out,
        method,
        units,
        sampling["draws"],
        run["seed"],
        run["method"],
        run["condition"],
        more={"model": file_digest(files["model"][0]), "test_units": len(test)},
        chunk=sampling["chunk"],
        cpu_threads=run["training"].get("cpu_threads", 1),
        real=rest,
    )

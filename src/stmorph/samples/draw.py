"""Draws for test units: each from a seed that depends on the run's seed, the unit and the number of the draw alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..batches import Batcher
from ..errors import DataError, StmorphError
from ..methods.base import Batch, Method
from ..randomness import numpy_generator, seed_of
from ..training.arithmetic import exact, on_cuda
from ..training.options import Accelerator
from ..units import Units
from .store import write_samples

Condition = Literal["paired", "shuffled"]


def draw_seeds(units: Units, draws: int, seed: int) -> np.ndarray:
    """Return the seed of every draw, int64 [n, draws]."""
    return np.array(
        [[seed_of(seed, "draw", str(name), d) for d in range(draws)] for name in units.names()], dtype=np.int64
    ).reshape(len(units), draws)


def conditions_of(units: Units, condition: Condition, seed: int) -> np.ndarray:
    """Return whose condition each unit gets, int64 [n].

    `paired`: its own. `shuffled`: another's, never its own (a random cycle through all units): what a method gives that
    knows the distribution and not the unit.

    Raises
    ------
    DataError
        Fewer than two units cannot be shuffled.
    """
    n = len(units)
    if condition == "paired":
        return np.arange(n)
    if n < 2:
        raise DataError(f"{n} test units cannot exchange their conditions; a shuffled condition needs at least two")
    cycle = numpy_generator(seed, "shuffled condition").permutation(n)
    source = np.empty(n, dtype=np.int64)
    source[cycle] = np.roll(cycle, -1)
    return source


def condition_batcher(method: Method, units: Units) -> Batcher:
    """Return a batcher of what the method may see when it draws, and of nothing else.

    A generator gets no image and no embedding; a predictor gets expression filled with NaN, so that a look at the truth
    shows.
    """
    if method.family == "generator":
        return Batcher(units, method.needs - {"tiles", "embedding"}, method.spec.max_cells or None)
    return Batcher(units, method.needs - {"cells"}, show_expression=False)


def draw_in_chunks(
    method: Method,
    units: Units,
    draws: int,
    seed: int,
    chunk: int = 64,
    condition: Condition = "paired",
    accelerator: Accelerator = "auto",
    cpu_threads: int = 1,
    real: Units | None = None,
) -> Iterator[np.ndarray]:
    """Yield draws of `chunk` units after another, in the order of the units.

    The seeds do not depend on `chunk`; the draws of a method that uses nothing but its seeds do not either, but for the
    last bits of floats, since matrix products sum in an order that depends on the number of rows.

    Parameters
    ----------
    method
        A trained method; it is moved to the device.
    units
        The test units; their expression is in the target space and in the gene order of training.
    draws
        Draws per unit.
    seed
        The run's seed.
    real
        Units whose tiles a floor that sets `wants_real` deals out; others never see them. They must not be those that
        the pictures are scored against.

    Yields
    ------
    np.ndarray
        Predictors float32 [k, draws, G]; generators uint8 [k, draws, H, W, C].

    Raises
    ------
    DataError
        The units' genes are not those of the model, they lack what the method needs, or there are none.
    StmorphError
        A draw has the wrong type or shape, or is not finite.
    """
    if not len(units):
        raise DataError("there are no test units; look at the split's report for what became of them")
    if tuple(units.genes) != tuple(method.spec.genes):
        raise DataError(
            f"the test units have {len(units.genes)} genes, the model {len(method.spec.genes)}, or in another order; "
            "sample with the panel of the training"
        )
    cuda = on_cuda(accelerator)
    device = torch.device("cuda" if cuda else "cpu")
    seeds = draw_seeds(units, draws, seed)
    source = conditions_of(units, condition, seed)
    batcher = condition_batcher(method, units)
    method.to(device).eval()
    if method.wants_real:
        if real is None or real.tiles is None:
            raise DataError(
                f"{type(method).__name__} deals out real tiles and was given none; give it units with tiles"
            )
        method.bind(real.tiles.read(np.arange(len(real))), torch.from_numpy(seeds))
    for start in range(0, len(units), chunk):
        rows = slice(start, start + chunk)
        with exact(cpu_threads, deterministic=not cuda), torch.no_grad():
            batch: Batch = batcher.batch(source[rows]).to(device)
            drawn = method.draw(batch, torch.from_numpy(seeds[rows]))
        yield _checked(method, drawn.cpu().numpy(), len(source[rows]), draws)


def draw_samples(method: Method, units: Units, draws: int, seed: int, **how) -> np.ndarray:
    """Return all draws in one array [n, draws, ...]; parameters and errors are those of `draw_in_chunks`."""
    return np.concatenate(list(draw_in_chunks(method, units, draws, seed, **how)))


def _checked(method: Method, drawn: np.ndarray, n: int, draws: int) -> np.ndarray:
    name = type(method).__name__
    spec = method.spec
    if method.family == "predictor":
        shape, dtype = (n, draws, len(spec.genes)), np.float32
    else:
        shape, dtype = (n, draws, spec.tile_px, spec.tile_px, spec.channels), np.uint8
    if drawn.shape != shape or drawn.dtype != dtype:
        raise StmorphError(
            f"{name}.draw gave {drawn.dtype} {list(drawn.shape)}; expected {np.dtype(dtype)} {list(shape)}: "
            "mend the method"
        )
    if not np.isfinite(drawn).all():
        bad = int(np.argwhere(~np.isfinite(drawn))[0][0])
        raise StmorphError(
            f"{name}.draw gave a number that is not finite, first for unit {bad} of its chunk; train longer or with a "
            "lower learning rate, and see that the method does not look at what it must not see"
        )
    return drawn


def sample_to_file(
    path: str | Path,
    method: Method,
    units: Units,
    draws: int,
    seed: int,
    name: str,
    condition: Condition = "paired",
    more: dict[str, Any] | None = None,
    **how,
) -> None:
    """Draw for the test units and write samples.zarr.zip; only one chunk of draws is in memory at a time.

    Parameters
    ----------
    name
        The method's name in the registry.
    more
        More attributes to store (e.g. the digest of the model).
    how
        `chunk`, `accelerator`, `cpu_threads`, `real` of `draw_in_chunks`, whose errors are raised.
    """
    attributes = {
        "family": method.family,
        "method": name,
        "target_space": method.spec.target_space,
        "genes": list(method.spec.genes),
        "condition": condition,
        "draws": draws,
        **(more or {}),
    }
    names = {
        "seed": draw_seeds(units, draws, seed),
        "slide": units.slide,
        "barcode": units.barcode,
        "condition_of": units.names()[conditions_of(units, condition, seed)],
    }
    write_samples(path, draw_in_chunks(method, units, draws, seed, condition=condition, **how), names, attributes)

"""The state of the machine under which the same numbers come out."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import ConfigError
from .options import Accelerator


def on_cuda(accelerator: Accelerator) -> bool:
    """Return whether to use a CUDA device; `auto`: where there is one.

    Raises
    ------
    ConfigError
        A CUDA device is asked for and there is none.
    """
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ConfigError("accelerator is cuda, but no CUDA device is visible; use auto or cpu")
    return accelerator != "cpu" and torch.cuda.is_available()


@contextmanager
def exact(cpu_threads: int, deterministic: bool = True) -> Iterator[None]:
    """Run with a fixed number of CPU threads and deterministic kernels where they exist; put everything back after.

    Sums on a CPU are split by threads, so their last bits depend on the number. On a GPU deterministic kernels cost
    speed and the same bytes are not promised, so training there goes without. torch's global generator is put back as
    well, so that whoever calls is not disturbed.
    """
    threads = torch.get_num_threads()
    mode = torch.get_deterministic_debug_mode()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.set_num_threads(cpu_threads)
    if deterministic:
        # The same as use_deterministic_algorithms(True, warn_only=True), which imports a compiler (seconds).
        torch.set_deterministic_debug_mode("warn")
        torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
        torch.utils.deterministic.fill_uninitialized_memory = fill

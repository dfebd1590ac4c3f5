"""A polite request to stop is answered after the step at hand."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOPPED = "was told to stop by signal"
"""In the last line of a training's log that ended so: no reason to give the next attempt more memory."""


class StopRequest:
    """Which signal asked for the end; 0: none."""

    number: int = 0


@contextmanager
def stop_requests(pass_on: Callable[[], None] | None = None) -> Iterator[StopRequest]:
    """Note SIGTERM (time limit, scancel) and SIGUSR1 (SLURM's warning) instead of dying of them.

    Outside the main thread Python allows no handlers: then nothing is noted.

    Parameters
    ----------
    pass_on
        Called at each request, for those who let others do the work.
    """
    request = StopRequest()

    def note(number: int, _frame: object) -> None:
        request.number = number
        if pass_on is not None:
            pass_on()

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

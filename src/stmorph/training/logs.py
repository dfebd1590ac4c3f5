"""What can be watched of a training: a table of losses, TensorBoard with pictures, the time left."""

import io
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from tqdm import tqdm

from ..files import whole

SECONDS_BETWEEN_LINES = 30.0


@dataclass(frozen=True)
class TrainingLogs:
    """Where logs go; None: nowhere.

    csv: the finished table of losses, written at the end; it holds no wall time, so the same run gives the same bytes.
    While the run lasts the table grows beside the checkpoints.
    tensorboard: a folder of event files, with the wall time of each.
    progress: a stream for the bar; standard error if None.
    """

    csv: Path | None = None
    tensorboard: Path | None = None
    progress: TextIO | None = None


class LossTable:
    """Lines of step, learning rate, gradient norm and mean losses; the lines so far are part of every checkpoint.

    Parameters
    ----------
    path
        The growing file; on resume it is rewritten from the checkpoint's lines, so that no step appears twice.
    text
        The lines up to the checkpoint, header included; empty for a new run.
    """

    def __init__(self, path: Path, text: str = ""):
        self.text = text
        path.write_text(text)
        self._file = path.open("a")

    def add(self, values: dict[str, float]) -> None:
        """Append a line (`step` first); the first one decides the columns."""
        line = "" if self.text else ",".join(values) + "\n"
        line += ",".join(str(value) if isinstance(value, int) else f"{value:.8g}" for value in values.values()) + "\n"
        self.text += line
        self._file.write(line)
        self._file.flush()

    def close(self, finished: Path | None) -> None:
        """Close the growing file and write the finished table, whole or not at all."""
        self._file.close()
        if finished is not None:
            with whole(finished) as path:
                path.write_text(self.text or "step\n")


class Progress:
    """A bar on a terminal; elsewhere one line at most every half minute, for logs are read, not watched."""

    def __init__(self, total: int, initial: int, stream: TextIO | None = None, silent: bool = False):
        self.total, self.initial, self.step = total, initial, initial
        self.stream = io.StringIO() if silent else (stream or sys.stderr)
        self.start = self.last = time.monotonic()
        self.note = ""
        terminal = self.stream.isatty()
        self.bar = (
            tqdm(total=total, initial=initial, file=self.stream, unit="step", mininterval=0.5) if terminal else None
        )

    def advance(self) -> None:
        """Count one step."""
        self.step += 1
        if self.bar is not None:
            self.bar.update()
        elif time.monotonic() - self.last >= SECONDS_BETWEEN_LINES or self.step == self.total:
            self._line()

    def show(self, loss: float) -> None:
        """Set the loss that is shown."""
        self.note = f"loss {loss:.4g}"
        if self.bar is not None:
            self.bar.set_postfix_str(self.note, refresh=False)

    def close(self) -> None:
        """End the bar."""
        if self.bar is not None:
            self.bar.close()

    def _line(self) -> None:
        self.last = time.monotonic()
        meter = tqdm.format_meter(
            self.step, self.total, self.last - self.start, ncols=0, unit="step", initial=self.initial, postfix=self.note
        )
        self.stream.write(f"training: {meter.strip()}\n")
        self.stream.flush()


class Board:
    """TensorBoard, or nothing where no folder is given."""

    def __init__(self, folder: Path | None, first_step: int):
        self.writer = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            # What a killed run wrote after its checkpoint is hidden: those steps come again.
            self.writer = SummaryWriter(str(folder), purge_step=first_step if first_step else None)

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Add a line of the loss table."""
        if self.writer is not None:
            for name, value in values.items():
                if name != "step":
                    self.writer.add_scalar(f"training/{name}", value, step)

    def pictures(self, real: np.ndarray, drawn: np.ndarray, step: int) -> None:
        """Add a grid: each real tile (uint8 [n, H, W, C]) above the one drawn for the same unit."""
        if self.writer is not None:
            self.writer.add_image("real above drawn", beside(real, drawn), step, dataformats="HWC")

    def close(self) -> None:
        """Write out what is pending."""
        if self.writer is not None:
            self.writer.close()


def beside(real: np.ndarray, drawn: np.ndarray, gap_px: int = 2) -> np.ndarray:
    """Return one picture, uint8 [2 H + gap, n (W + gap) - gap, 3]: the real tiles in the upper row, the drawn below."""
    rows = []
    for tiles in (real, drawn):
        rgb = tiles[..., :3] if tiles.shape[-1] >= 3 else np.repeat(tiles[..., :1], 3, axis=-1)
        framed = np.pad(rgb, ((0, 0), (0, gap_px), (0, gap_px), (0, 0)), constant_values=255)
        rows.append(np.concatenate(list(framed), axis=1))
    return np.concatenate(rows, axis=0)[:-gap_px, :-gap_px]

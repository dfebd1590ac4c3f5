"""Where the bins of an array lie: by their barcodes, by the positions file, and in the image."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import DataError

_LIKE = b"s_000um_00000_00000"
"""10x's barcodes, with 0 for a digit; a suffix like -1 may follow."""


@dataclass(frozen=True)
class ArrayMap:
    """The affine map from array column and row to pixels of the full-resolution image, whatever its turn.

    origin: float64 [2], x and y of column 0, row 0. axes: float64 [2, 2], pixels per step along columns and along rows.
    residual_px: root mean square distance of the positions from the map.
    """

    origin: np.ndarray
    axes: np.ndarray
    residual_px: float

    @property
    def pitch_px(self) -> float:
        """Distance between neighbouring bins, mean of both axes."""
        return float(np.linalg.norm(self.axes, axis=1).mean())

    @property
    def mirrored(self) -> bool:
        """Whether columns and rows run the other way round in the image than x and y do."""
        return bool(np.linalg.det(self.axes) < 0)

    def pixels(self, col_row: np.ndarray) -> np.ndarray:
        """Return x, y [n, 2] of array columns and rows [n, 2], whole or not."""
        return self.origin + col_row @ self.axes

    def places(self, xy_px: np.ndarray) -> np.ndarray:
        """Return columns and rows [n, 2], with fractions, of pixels [n, 2]."""
        return (xy_px - self.origin) @ np.linalg.inv(self.axes)

    def centres(self, positions: pd.DataFrame, top: np.ndarray, left: np.ndarray, side: int) -> np.ndarray:
        """Return x, y [n, 2] of the middle of windows of side x side bins: the mean of their bins' positions.

        The map's own middle, moved by the mean distance of the window's bins from the map: bins that the file does not
        list pull the middle nowhere, and where the registration bends, the middle bends with it.
        """
        middle = self.pixels(np.column_stack([left, top]) + (side - 1) / 2)
        rows, cols = positions["array_row"].to_numpy(), positions["array_col"].to_numpy()
        off = positions[["x_px", "y_px"]].to_numpy() - self.pixels(np.column_stack([cols, rows]))
        shape = (
            int(max(rows.max() + 1, top.max(initial=0) + side)),
            int(max(cols.max() + 1, left.max(initial=0) + side)),
        )

        def window_sum(values: np.ndarray | float) -> np.ndarray:
            total = np.zeros((shape[0] + 1, shape[1] + 1))
            total[rows + 1, cols + 1] = values
            np.cumsum(total, axis=0, out=total)
            np.cumsum(total, axis=1, out=total)
            upper = total[top, left + side] - total[top, left]
            return total[top + side, left + side] - total[top + side, left] - upper

        number = window_sum(1.0)
        return middle + np.column_stack([window_sum(off[:, k]) / np.maximum(number, 1) for k in (0, 1)])


def fit_array(positions: pd.DataFrame, path: Path) -> ArrayMap:
    """Fit the map from array places to pixels, by least squares, and check that the positions follow it.

    Raises
    ------
    DataError
        Fewer than three bins, bins on one line, or positions that do not follow the array.
    """
    place = positions[["array_col", "array_row"]].to_numpy(dtype=np.float64)
    xy = positions[["x_px", "y_px"]].to_numpy(dtype=np.float64)
    if len(place) < 3 or np.linalg.matrix_rank(np.cov(place.T)) < 2:
        raise DataError(
            f"{path} lists {len(place)} bins that span no area of the array; expected the bins of a slide: give the "
            "tissue_positions of the run's outs"
        )
    centred, target = place - place.mean(axis=0), xy - xy.mean(axis=0)
    axes = np.linalg.solve(centred.T @ centred, centred.T @ target)
    away = np.linalg.norm(centred @ axes - target, axis=1)
    fitted = ArrayMap(xy.mean(axis=0) - place.mean(axis=0) @ axes, axes, float(np.sqrt((away**2).mean())))
    sides = np.linalg.norm(axes, axis=1)
    if not fitted.residual_px < 0.3 * fitted.pitch_px or sides.max() > 1.2 * sides.min():
        raise DataError(
            f"{path}: the bins' positions do not follow their rows and columns (off by {fitted.residual_px:.1f} px, "
            f"steps of {sides[0]:.2f} and {sides[1]:.2f} px); expected a square grid: give the tissue_positions of the "
            "run's outs"
        )
    far = np.flatnonzero(away > 2 * fitted.pitch_px)
    if len(far):
        raise DataError(
            f"{path}: {positions.index[far[0]]} lies {away[far[0]]:.0f} px from where its row and column put it "
            f"({len(far)} such bins); expected the bins on their grid, {fitted.pitch_px:.2f} px apart: mend the file"
        )
    return fitted


def bin_size_um(barcode: pd.Index) -> float | None:
    """Return the size that 10x's barcodes state, or None for other barcodes."""
    first = _fields(barcode[:1])
    return float(first[0, 0]) if first is not None and first[0, 0] > 0 else None


def _fields(barcode: pd.Index) -> np.ndarray | None:
    """Return size, row and column [n, 3] of 10x's barcodes, -1 for others; None where not one can be of that kind."""
    text = barcode.to_numpy(dtype=object).astype("S") if _ascii(barcode) else np.zeros(0, "S1")
    if not len(text) or text.dtype.itemsize < len(_LIKE):
        return None
    letters = text.view(np.uint8).reshape(len(text), -1)
    like = np.frombuffer(_LIKE, dtype=np.uint8)
    digit = like == ord("0")
    head = letters[:, : len(like)]
    good = (head[:, ~digit] == like[~digit]).all(axis=1)
    good &= ((head[:, digit] >= ord("0")) & (head[:, digit] <= ord("9"))).all(axis=1)
    if letters.shape[1] > len(like):
        good &= (letters[:, len(like)] == 0) | (letters[:, len(like)] == ord("-"))

    def number(first: int, last: int) -> np.ndarray:
        return (head[:, first:last] - ord("0")).astype(np.int64) @ 10 ** np.arange(last - first - 1, -1, -1)

    values = np.column_stack([number(2, 5), number(8, 13), number(14, 19)])
    values[~good] = -1
    return values


def _ascii(barcode: pd.Index) -> bool:
    return all(map(str.isascii, barcode))


def check_places(positions: pd.DataFrame, path: Path) -> None:
    """Check array rows and columns: from 0, each place once, each barcode once, and as 10x's barcodes say.

    Raises
    ------
    DataError
        They do not.
    """
    if not len(positions):
        raise DataError(f"{path} lists no bin; expected the positions of a slide: take the file from the run's outs")
    if positions.index.has_duplicates:
        twice = positions.index.duplicated()
        raise DataError(
            f"{path} names {int(twice.sum())} barcodes more than once, first {positions.index[twice][0]!r}; expected "
            "each once: give one slide's file"
        )
    rows, cols = positions["array_row"].to_numpy(), positions["array_col"].to_numpy()
    negative = np.flatnonzero((rows < 0) | (cols < 0))
    if len(negative):
        first = negative[0]
        raise DataError(
            f"{path}: {positions.index[first]} lies at array_row {rows[first]}, array_col {cols[first]}; expected rows "
            "and columns from 0: mend the file or take it from the run's outs"
        )
    size = bin_size_um(positions.index)
    if size is None:
        # Where barcodes name places, unique names are unique places.
        twice = np.flatnonzero(pd.Index(rows * 2**32 + cols).duplicated())
        if len(twice):
            first = twice[0]
            raise DataError(
                f"{path} puts {len(twice)} bins where another lies, first {positions.index[first]} at array_row "
                f"{rows[first]}, array_col {cols[first]}; expected each place once: give one slide's file"
            )
        return
    named = _fields(positions.index)
    odd = np.arange(len(positions)) if named is None else np.flatnonzero(named[:, 0] != size)
    if len(odd):
        raise DataError(
            f"{path} holds the barcode {positions.index[odd[0]]!r} beside {positions.index[0]!r}; expected one kind of "
            "barcode and one size of bin: give the file of one folder of binned_outputs"
        )
    row, col = named[:, 1], named[:, 2]
    wrong = np.flatnonzero((row != rows) | (col != cols))
    if len(wrong):
        first = wrong[0]
        advice = "the two columns look exchanged" if ((row == cols) & (col == rows)).all() else "mend the file"
        raise DataError(
            f"{path}: {positions.index[first]} has array_row {rows[first]}, array_col {cols[first]} ({len(wrong)} such "
            f"bins); expected row {row[first]}, column {col[first]} as its barcode says: {advice}"
        )

"""What an encoder is: a name, a dimension and one function from tiles to vectors."""

from abc import ABC, abstractmethod

import numpy as np

from ..errors import DataError


class Encoder(ABC):
    """Base of every encoder.

    Attributes
    ----------
    name: as in the config.
    dim: length of the vector.
    features: the name of every number in the vector, or () where they have no meaning of their own.
    weights_sha256: digest of what decides the vector beside the tile: the weights file, or `morphometric`'s options.
    view_invariant: True where all eight views of a tile give one and the same vector, so that one is computed.
    """

    name: str
    dim: int
    features: tuple[str, ...] = ()
    weights_sha256: str
    view_invariant: bool = False

    @abstractmethod
    def encode(self, tiles: np.ndarray, um_per_px: float) -> np.ndarray:
        """Return the vectors of some tiles.

        Parameters
        ----------
        tiles
            uint8 [n, H, W, 3], RGB.
        um_per_px
            Size of a pixel. Encoders that measure need it; pretrained networks see the tile resized to their input.

        Returns
        -------
        numpy.ndarray
            float32 [n, dim]; a row depends on its own tile alone.

        Raises
        ------
        DataError
            The tiles are not RGB pictures of 8 bits, or the pixel size is not positive.
        """


def check_tiles(tiles: np.ndarray, um_per_px: float, least_px: int = 1) -> None:
    """Refuse what is not uint8 [n, H, W, 3] with sides of `least_px` or more, or a pixel size that is not positive.

    Raises
    ------
    DataError
        As above.
    """
    if tiles.dtype != np.uint8 or tiles.ndim != 4 or tiles.shape[3] != 3:
        raise DataError(
            f"tiles are {tiles.dtype} {list(tiles.shape)} where an encoder needs uint8 [n, height, width, 3]; "
            "give RGB pictures"
        )
    if min(tiles.shape[1:3]) < least_px:
        raise DataError(
            f"tiles are {tiles.shape[1]} x {tiles.shape[2]} px where this encoder needs {least_px} px or more; "
            "enlarge the field of view or the working resolution"
        )
    if not (np.isfinite(um_per_px) and um_per_px > 0):
        raise DataError(f"um_per_px is {um_per_px} where a positive number is needed; state the slide's pixel size")

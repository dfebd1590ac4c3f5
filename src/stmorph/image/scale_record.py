"""What an image file says of its own scale, micrometres per pixel, and whether that can be believed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

_UM = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "inch": 25_400.0}
_SQUARE = 0.01  # relative difference between the scales along x and y from which pixels are not square
_AGREES = 0.02
_PRINTERS_DPI = (72, 96, 150, 300)


@dataclass(frozen=True)
class ScaleRecord:
    """um_per_px: of the full resolution, None where the file says nothing of use. evidence: where, or why nothing."""

    um_per_px: float | None
    evidence: str

    def against(self, used_um_per_px: float) -> str:
        """Return in words how the file's record compares with the scale that is used, for a report.

        A difference is not an error here: a resized copy keeps its original's record. Who reads it decides.
        """
        if self.um_per_px is None:
            return f"the image's own record says nothing ({self.evidence})"
        difference = self.um_per_px / used_um_per_px - 1
        says = f"the image's own record ({self.evidence}) says {self.um_per_px:.4f}"
        if abs(difference) <= _AGREES:
            return f"{says} and agrees"
        return f"{says}, a difference of {difference:+.0%}: one of the two is wrong, or the image was resized"


NOTHING = ScaleRecord(None, "no scale in the file")


def tiff_scale(page: Any, ome: str | None) -> ScaleRecord:
    """Return what a TIFF says: its OME record, Aperio's or ImageJ's description, or its resolution tags; the first that
    speaks.

    Parameters
    ----------
    page
        The `tifffile.TiffPage` of the full resolution.
    ome
        The file's OME-XML, if it has one.
    """
    found = [
        _ome(ome, page.imagewidth, page.imagelength) if ome else NOTHING,
        _aperio(page.description or ""),
        _imagej(page),
        _resolution(page),
    ]
    return next((record for record in found if record.um_per_px is not None), _first_reason(found))


def openslide_scale(properties: Mapping[str, str]) -> ScaleRecord:
    """Return what OpenSlide found in a scanner's file."""
    x, y = (properties.get(f"openslide.mpp-{axis}") for axis in "xy")
    if not x:
        return NOTHING
    return _record(_number(x), _number(y or x), f"{properties.get('openslide.vendor', 'scanner')} record")


def dpi_scale(dpi: tuple[float, float]) -> ScaleRecord:
    """Return what a picture's dots per inch (x, y) say; printers' defaults say nothing."""
    if not dpi[0]:
        return NOTHING
    return _record(25_400 / float(dpi[0]), 25_400 / float(dpi[1] or dpi[0]), "dots per inch")


def _record(x_um: float, y_um: float, source: str) -> ScaleRecord:
    if not x_um > 0:
        return ScaleRecord(None, f"{source}: {x_um:.4g} um per px, which is no length")
    # 72, 96 or 300 dots per inch is a printer's default, not a microscope's scale.
    if any(abs(25_400 / dpi / x_um - 1) < 1e-3 for dpi in _PRINTERS_DPI):
        return ScaleRecord(None, f"{source}: {25_400 / x_um:.0f} dots per inch, a printer's default")
    if not 0.02 < x_um < 20:
        return ScaleRecord(None, f"{source}: {x_um:.4g} um per px, which is no microscope's")
    if not abs(y_um / x_um - 1) <= _SQUARE:
        return ScaleRecord(None, f"{source}: {x_um:.4g} um per px along x but {y_um:.4g} along y")
    return ScaleRecord(x_um, source)


def _first_reason(records: list[ScaleRecord]) -> ScaleRecord:
    return next((record for record in records if record is not NOTHING), NOTHING)


def _ome(xml: str, width_px: int, height_px: int) -> ScaleRecord:
    try:
        elements = list(ElementTree.fromstring(xml).iter())
    except (ElementTree.ParseError, ValueError):
        return ScaleRecord(None, "OME record that cannot be read")
    size = {"SizeX": str(width_px), "SizeY": str(height_px)}
    for element in elements:  # a file may hold several pictures: the record of this one
        if element.tag.endswith("}Pixels") and all(element.get(key) == value for key, value in size.items()):
            x, y = (_ome_length(element, axis) for axis in "XY")
            return NOTHING if x is None else _record(x, y or x, "OME record")
    return NOTHING


def _ome_length(element: ElementTree.Element, axis: str) -> float | None:
    unit = _UM.get(element.get(f"PhysicalSize{axis}Unit", "µm"))
    try:
        length = float(element.get(f"PhysicalSize{axis}", ""))
    except ValueError:
        return None
    return length * unit if unit and length > 0 else None


def _aperio(description: str) -> ScaleRecord:
    found = re.search(r"\bMPP *= *([^|\s]+)", description) if description.startswith("Aperio") else None
    return _record(_number(found[1]), _number(found[1]), "Aperio record") if found else NOTHING


def _imagej(page: Any) -> ScaleRecord:
    """ImageJ and Fiji write their unit in the description, and pixels per unit in the resolution tags."""
    found = re.search(r"^unit=(.+)$", page.description or "", re.MULTILINE)
    if found is None or not page.description.startswith("ImageJ="):
        return NOTHING
    # ImageJ escapes what is not ASCII.
    unit = found[1].strip().replace("\\u00B5", "µ")
    um = _UM.get({"micron": "um", "microns": "um"}.get(unit, unit))
    return NOTHING if um is None else _by_tags(page, um, "ImageJ record")


def _number(text: str) -> float:
    """Return the number that a text is, with a point or (from a scanner set up so) a comma; NaN where it is none."""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return float("nan")


def _resolution(page: Any) -> ScaleRecord:
    um = {2: 25_400.0, 3: 10_000.0}.get(page.tags.valueof("ResolutionUnit"))
    return NOTHING if um is None else _by_tags(page, um, "TIFF resolution")


def _by_tags(page: Any, unit_um: float, source: str) -> ScaleRecord:
    """Return the scale by the resolution tags, which are in pixels per `unit_um`."""
    x, y = (page.tags.valueof(f"{axis}Resolution") for axis in "XY")
    if not x or not x[0] or not x[1]:
        return NOTHING
    y = y if y and y[0] and y[1] else x
    return _record(unit_um * x[1] / x[0], unit_um * y[1] / y[0], source)

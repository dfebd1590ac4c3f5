"""The vendors' file layouts that a simulated slide can be written in.

To add one, write its module (draw with `tissue.draw_section`, count with `counts`, render with `render`), enter it here
and name it in `options.Platform`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from .hest_outs import hest_files, write_hest_slide
from .options import SimulationOptions
from .slide import write_visium_slide
from .spider_outs import spider_files, write_spider_slide
from .visium_hd_outs import visium_hd_files, write_hd_slide
from .visium_outs import visium_files
from .xenium_outs import xenium_files
from .xenium_slide import write_xenium_slide


@dataclass(frozen=True)
class Layout:
    """One vendor's layout.

    files: (out_dir, options) -> the files by role, with `truth` and `truth_json`, known before anything runs.
    write: (options, out_dir, slide, patient, seed) draws the slide and writes just these files.
    """

    files: Callable[[Path, SimulationOptions], dict[str, Path]]
    write: Callable[[SimulationOptions, Path, str, str, int], None]


LAYOUTS: dict[str, Layout] = {
    "visium": Layout(lambda out_dir, options: visium_files(out_dir, options.space_ranger), write_visium_slide),
    "visium_hd": Layout(lambda out_dir, options: visium_hd_files(out_dir, options.space_ranger), write_hd_slide),
    "xenium": Layout(lambda out_dir, options: xenium_files(out_dir), write_xenium_slide),
    "hest": Layout(lambda out_dir, options: hest_files(out_dir, options.hest_technology), write_hest_slide),
    "spider": Layout(spider_files, write_spider_slide),
}
"""Layout of every platform that can be simulated."""


def simulate_slide(
    options: SimulationOptions, out_dir: str | Path, slide: str, patient: str, seed: int
) -> dict[str, Path]:
    """Draw a slide and write it in its platform's layout, with its truth; return the files by role.

    Raises
    ------
    ConfigError
        The platform has no layout.
    DataError
        A file cannot be written.
    """
    if options.platform not in LAYOUTS:
        raise ConfigError(f"simulate.platform is {options.platform!r}; expected one of {', '.join(LAYOUTS)}")
    layout = LAYOUTS[options.platform]
    layout.write(options, Path(out_dir), slide, patient, seed)
    return layout.files(Path(out_dir), options)

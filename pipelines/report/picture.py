"""Figures to files."""

import warnings
from pathlib import Path

from matplotlib.figure import Figure


def save_picture(figure: Figure, path: Path) -> None:
    """A name in letters that the font lacks is drawn as boxes; tables and pages have it in full."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(path)

"""Which classes are taken for which."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.report.picture import save_picture

MOST_NUMBERS = 20  # classes with which a number still fits into a cell


def confusion_picture(confusion: NDArray[np.int64], title: str, path: Path) -> None:
    """Write a PNG of [C, C], rows the truth. A colour is the share of its row; the numbers are samples."""
    classes = len(confusion)
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    size = min(12.0, 3.5 + 0.35 * min(classes, MOST_NUMBERS))
    figure = Figure(figsize=(size, size), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if classes <= MOST_NUMBERS:
        for (row, column), number in np.ndenumerate(confusion):
            if number:
                color = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, str(number), ha="center", va="center", fontsize=7, color=color)
        axes.set_xticks(range(classes))
        axes.set_yticks(range(classes))
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(title, fontsize=10)
    save_picture(figure, path)

"""The handwritten digits that scikit-learn ships: 1,797 real images of 8 x 8 pixels."""

import numpy as np
from sklearn.datasets import load_digits

from pipelines.data.dataset import ArraySamples, LabelledData
from pipelines.data.pixels import pixels_of
from pipelines.data.request import DataRequest


def digits(request: DataRequest) -> LabelledData:
    """Pixels [N, 1, 8, 8] in 0 .. 1, ten classes."""
    bunch = load_digits()
    x = bunch.images.astype(np.float32)[:, None] / 16
    pixels = pixels_of(request.images, 1.0, x.shape[1:], "data set 'digits'")
    return LabelledData(request.name, ArraySamples(x, bunch.target.astype(np.int64), pixels), classes=10)

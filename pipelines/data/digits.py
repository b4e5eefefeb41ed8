"""The handwritten digits that scikit-learn ships: 1,797 real images of 8 x 8 pixels."""

import numpy as np
from sklearn.datasets import load_digits

from pipelines.data.dataset import ArraySamples, LabelledData
from pipelines.data.request import DataRequest


def digits(request: DataRequest) -> LabelledData:
    """Pixels [N, 1, 8, 8] in 0 .. 1, ten classes."""
    bunch = load_digits()
    pixels = bunch.images.astype(np.float32)[:, None] / 16
    return LabelledData(request.name, ArraySamples(pixels, bunch.target.astype(np.int64)), classes=10)

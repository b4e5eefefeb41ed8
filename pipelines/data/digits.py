"""The handwritten digits that scikit-learn ships: 1,797 real images of 8 x 8 pixels."""

import numpy as np
from sklearn.datasets import load_digits

from pipelines.data.dataset import DataRequest, LabelledData


def digits(request: DataRequest) -> LabelledData:
    bunch = load_digits()
    pixels = bunch.images.astype(np.float32)[:, None] / 16  # [N, 1, 8, 8] in 0 .. 1
    return LabelledData(request.name, pixels, bunch.target.astype(np.int64), classes=10)

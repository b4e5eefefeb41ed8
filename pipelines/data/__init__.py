"""Data sets by name. To add one: a function from the `data` section to a `LabelledData`, and a line here."""

from pipelines.data.dataset import ArraySplit, Data, DataRequest, LabelledData, Split, images_of, some, split_labelled
from pipelines.data.digits import digits
from pipelines.data.fashion_mnist import fashion_mnist
from pipelines.data.npz import npz

DATASETS = {"digits": digits, "fashion-mnist": fashion_mnist, "npz": npz}


def load_data(request: DataRequest) -> Data:
    """The data set that `request.name` names, split the same way every time. Raises DataError."""
    return split_labelled(DATASETS[request.name](request), request)


__all__ = [
    "DATASETS",
    "ArraySplit",
    "Data",
    "DataRequest",
    "LabelledData",
    "Split",
    "images_of",
    "load_data",
    "some",
    "split_labelled",
]

"""Data sets by name. To add one: a function from the `data` section to a `LabelledData`, and a line here."""

from pipelines.data.cifar import cifar10, cifar100
from pipelines.data.dataset import (
    ArraySamples,
    ArraySplit,
    Data,
    LabelledData,
    Load,
    Samples,
    Split,
    images_of,
    some,
    split_labelled,
)
from pipelines.data.digits import digits
from pipelines.data.fashion_mnist import fashion_mnist
from pipelines.data.image_folder import image_folder
from pipelines.data.loaders import from_import_path
from pipelines.data.npz import npz
from pipelines.data.parquet import parquet
from pipelines.data.request import DataRequest, ImagesRequest
from pipelines.data.s3 import SCHEME, local_copy
from pipelines.errors import DataError

DATASETS: dict[str, Load] = {
    "cifar10": cifar10,
    "cifar100": cifar100,
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "image-folder": image_folder,
    "npz": npz,
    "parquet": parquet,
}


def load_data(request: DataRequest) -> Data:
    """The data set that `request.name` names, split the same way every time. Raises DataError.

    A path that starts with `s3://` is fetched into the cache on disk first. A name with a colon is the user's own code.
    """
    if ":" in request.name:
        return from_import_path(request)
    load, uri = DATASETS[request.name], request.path
    if uri is None or not uri.startswith(SCHEME):
        return split_labelled(load(request), request)
    request = request.at(str(local_copy(uri, request.cache_gb)))
    try:
        return split_labelled(load(request), request)
    except DataError as exc:  # the user knows that place, not the cache
        raise DataError(exc.what, f"{exc.where} (fetched from {uri})", exc.fix) from exc


__all__ = [
    "DATASETS",
    "ArraySamples",
    "ArraySplit",
    "Data",
    "DataRequest",
    "ImagesRequest",
    "LabelledData",
    "Samples",
    "Split",
    "images_of",
    "load_data",
    "some",
    "split_labelled",
]

"""A data set of one's own: a folder with one folder of JPEG or PNG files per class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from pipelines.data.dataset import LabelledData
from pipelines.data.images import Broken, Decode, ImageSamples, centre_of, read_image
from pipelines.data.pixels import AS_THEY_ARE, Pixels, pixels_of
from pipelines.data.request import DataRequest
from pipelines.errors import DataError
from pipelines.imports import code_digest, trusted

SUFFIXES = {".jpg", ".jpeg", ".png"}
SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
LAYOUT = "the folder holds one folder of JPEG or PNG files per class, or train, val and test folders of such"


def image_folder(request: DataRequest) -> LabelledData:
    """Images [N, C, H, W] as data.images says; the classes are the names of the folders, in the order of the alphabet.

    Folders `train` and `val` or `test` on top are the set's own splits. Files in deeper folders count for their class.
    Raises DataError.
    """
    where = f"data set 'image-folder', folder {request.path}"
    if request.path is None:
        raise DataError("data set 'image-folder' needs a folder", "data.path", f"set data.path; {LAYOUT}")
    root = Path(request.path)
    files = {part: _by_class(folder, where) for part, folder in _splits_of(root, where).items()}
    names = sorted(files["train"])
    for part, by_class in files.items():
        for name in sorted(set(by_class) - set(names)):
            raise DataError(f"{part} has a class {name!r} that train has not", where, "give train some images of it")
    _check_classes(names, request, where)
    paths: list[Path] = []
    labels: list[int] = []
    own = {}
    for part, by_class in files.items():
        start = len(paths)
        for number, name in enumerate(names):
            paths += by_class.get(name, [])
            labels += [number] * len(by_class.get(name, []))
        own[part] = np.arange(start, len(paths))
    decode, described, pixels = _decoding(request, where)
    broken = Broken(request.images.skip)
    samples = ImageSamples(
        root=root,
        paths=paths,
        y=np.array(labels, dtype=np.int64),
        decode=decode,
        described=f"{described} {pixels} {names}",
        pixels=pixels,
        workers=request.images.workers,
        broken=broken,
        sample_shape=_shape_of_first(paths, decode, broken),
    )
    return LabelledData(request.name, samples, request.classes or len(names), own.get("validation"), own.get("test"))


def _splits_of(root: Path, where: str) -> dict[str, Path]:
    """The folders of the set's own splits by our names, or the whole as `train`."""
    try:
        folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as exc:
        raise DataError(f"the folder cannot be read: {exc}", where, f"set data.path; {LAYOUT}") from exc
    if "train" not in folders or len(set(folders) & set(SPLITS)) < 2:
        return {"train": root}
    if others := set(folders) - set(SPLITS):
        text = f"beside train there is {min(others)!r}, which is no split"
        raise DataError(text, where, f"remove it; {LAYOUT}")
    splits: dict[str, Path] = {}
    for name in sorted(folders, key=list(SPLITS).index):
        if SPLITS[name] in splits:
            raise DataError(f"two folders are the {SPLITS[name]} split", where, f"keep one of {', '.join(folders)}")
        splits[SPLITS[name]] = root / name
    return splits


def _by_class(folder: Path, where: str) -> dict[str, list[Path]]:
    """The image files of each class, sorted, so that every machine sees them in the same order."""
    found = {
        place.name: sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        for place in folder.iterdir()
        if place.is_dir() and not place.name.startswith(".")
    }
    found = {name: files for name, files in found.items() if files}
    if not found:
        raise DataError(f"there are no images in {folder}", where, LAYOUT)
    return found


def _check_classes(names: Sequence[str], request: DataRequest, where: str) -> None:
    if request.classes is not None and request.classes < len(names):
        text = f"there are {len(names)} folders of classes, and data.classes is {request.classes}"
        raise DataError(text, where, "correct data.classes, or remove the folders that are no class")


def _decoding(request: DataRequest, where: str) -> tuple[Decode, str, Pixels]:
    """How a file becomes numbers, in words for the digest, and what a batch of them then goes through."""
    images = request.images
    if images.transform is None:
        centre = centre_of(images)
        return centre, repr(centre), pixels_of(images, 255.0, (images.channels, images.size, images.size), where)
    kwargs = dict(images.transform_kwargs)
    made = trusted(images.transform, request.trust, "data.trust", DataError)(**kwargs)
    if not callable(made):
        fix = "name a class or function that returns a function from a PIL image to a tensor"
        raise DataError(f"{images.transform!r} gave a {type(made).__name__}", "data.images.transform", fix)
    name, own = images.transform, made

    def decode(image: object) -> Tensor:
        tensor = own(image)
        if not isinstance(tensor, Tensor):
            fix = "let it end with a tensor, e.g. torchvision's ToTensor"
            raise DataError(f"the transform gave a {type(tensor).__name__}", f"data.images.transform = {name}", fix)
        return tensor

    return decode, f"{name} {sorted(kwargs.items())} {code_digest(request.trust)}", AS_THEY_ARE


def _shape_of_first(paths: Sequence[Path], decode: Decode, broken: Broken) -> tuple[int, ...]:
    """Of the first image that decodes. Raises DataError."""
    for path in paths:
        image = read_image(path, decode)
        if isinstance(image, Tensor):
            return tuple(image.shape)
        broken.add(path, image)
    raise DataError("no image can be decoded", str(paths[0]), "give readable JPEG or PNG files")

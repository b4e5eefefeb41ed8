import io
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.config import Data
from pipelines.data import Split, load_data, some
from pipelines.data import digests as digests_module
from pipelines.errors import DataError

CLASSES = ("ape", "bee", "cow")


def encoded(array: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


def colour(number: int) -> np.ndarray:
    """A plain picture whose red channel says which it is."""
    return np.full((6, 8, 3), (number, 100, 200), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """36 pictures, 12 a class; the number of each modulo 3 is its class."""
    root = tmp_path / "pictures"
    for n in range(36):
        path = root / CLASSES[n % 3] / ("deeper" if n % 2 else "") / f"{n:02}.PNG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(colour(n)))
    (root / "ape" / "notes.txt").write_text("no picture")
    (root / ".hidden").mkdir()
    return root


def request(path: Path, images: dict[str, Any] | None = None, **changes: Any) -> Data:
    return Data(name="image-folder", path=str(path), images={"size": 4, "workers": 2, **(images or {})}, **changes)


def numbers(*splits: Split) -> list[int]:
    return sorted(int(n) for split in splits for n in (some(split, 100)[0][:, 0, 0, 0] * 255).round())


def test_every_picture_is_in_one_split_with_its_class(folder: Path) -> None:
    data = load_data(request(folder))
    assert (data.classes, data.sample_shape, data.target_shape) == (3, (3, 4, 4), ())
    assert numbers(data.train, data.validation, data.test) == list(range(36))
    for part in (data.train, data.validation, data.test):
        x, y = some(part, 100)
        assert len(part) == len(y)
        assert (x[:, 0, 0, 0] * 255 % 3).round().tolist() == y.tolist()
        assert torch.bincount(y, minlength=3).unique().numel() == 1 or len(part) % 3
        torch.testing.assert_close(x[:, 1:, 2, 3] * 255, torch.tensor([[100.0, 200.0]]).expand(len(x), 2))


def test_the_order_is_the_generators(folder: Path) -> None:
    train = load_data(request(folder)).train

    def order(seed: int | None) -> list[float]:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return [float(n) for x, _ in train.batches(5, generator) for n in x[:, 0, 0, 0]]

    assert order(None) == order(None)
    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == sorted(order(None))
    assert [len(y) for _, y in train.batches(5)] == [5, 5, 5, 5, 1]


def test_folders_named_so_are_its_own_splits(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    for n in range(30):
        part = "train" if n < 18 else "val" if n < 24 else "test"
        path = root / part / CLASSES[n % 3] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(colour(n)))
    data = load_data(request(root, validation=0.4, test=0.5))
    assert [numbers(s) for s in (data.train, data.validation, data.test)] == [
        list(range(18)),
        list(range(18, 24)),
        list(range(24, 30)),
    ]
    (root / "extra").mkdir()
    with pytest.raises(DataError, match="'extra', which is no split"):
        load_data(request(root))
    (root / "extra").rmdir()
    (root / "test" / "dog").mkdir()
    (root / "test" / "dog" / "x.png").write_bytes(encoded(colour(1)))
    with pytest.raises(DataError, match="test has a class 'dog' that train has not"):
        load_data(request(root))
    (root / "valid").mkdir()
    with pytest.raises(DataError, match="two folders are the validation split"):
        load_data(request(root))


def test_the_shorter_side_is_brought_to_size_and_the_middle_cut_out(tmp_path: Path) -> None:
    """Against Pillow by hand; a JPEG, grey, with a palette or an alpha channel are pictures like any other."""
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (20, 40, 3), dtype=np.uint8)
    pictures = {
        "a": Image.fromarray(wide),
        "b": Image.fromarray(wide.transpose(1, 0, 2)),
        "c": Image.fromarray(wide[..., 0]),
        "d": Image.fromarray(wide).quantize(16),
        "e": Image.fromarray(np.dstack([wide, wide[..., :1]])),
    }
    for name, picture in pictures.items():
        for n in range(4):
            (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / "set" / name / f"{n}.png")
    prepared = {"size": 6, "resize": 10, "mean": [0.5] * 3, "std": [0.25] * 3}
    data = load_data(request(tmp_path / "set", prepared, test=0.25, validation=0.25))
    for image, label in zip(*some(data.train, 100), strict=True):
        picture = pictures["abcde"[int(label)]].convert("RGB")
        size = (20, 10) if picture.width > picture.height else (10, 20)
        small = np.asarray(picture.resize(size, Image.Resampling.BILINEAR)).astype(np.float32) / 255
        top, left = (size[1] - 6) // 2, (size[0] - 6) // 2
        by_hand = (small[top : top + 6, left : left + 6].transpose(2, 0, 1) - 0.5) / 0.25
        np.testing.assert_allclose(image.numpy(), by_hand, atol=1e-5)
    grey = load_data(request(tmp_path / "set", {"channels": 1}, test=0.25, validation=0.25))
    assert grey.sample_shape == (1, 4, 4)
    assert grey.digest != data.digest


def test_a_jpeg_is_a_picture_whatever_it_is_called(tmp_path: Path) -> None:
    for n in range(12):
        path = tmp_path / CLASSES[n % 3] / f"{n}.{('jpg', 'JPEG', 'png')[n // 4]}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(colour(10 * n), "JPEG"))
    data = load_data(request(tmp_path, test=0.25, validation=0.25))
    np.testing.assert_allclose(numbers(data.train, data.validation, data.test), range(0, 120, 10), atol=3)


NOISE = encoded(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
BAD_IMAGES = {
    "cut short": NOISE[:900],
    "no image": b"text",
    "empty": b"",
    "another format": encoded(colour(1), "BMP"),
    "broken inside": NOISE[:200] + bytes(100) + NOISE[300:],
}


@pytest.mark.parametrize("content", BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_a_picture_that_does_not_decode_is_named_and_skipped_up_to_a_limit(
    folder: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [folder / "bee" / "01.PNG", folder / "cow" / "02.PNG"]
    (folder / "bee" / "01.PNG").write_bytes(content)
    bad[1].write_bytes(content)

    def read(limit: int) -> list[int]:
        data = load_data(request(folder, {"skip": limit}))
        first = numbers(data.train, data.validation, data.test)
        assert numbers(data.train, data.validation, data.test) == first  # the second time they count no more
        return first

    with caplog.at_level(logging.WARNING):
        assert read(2) == sorted(set(range(36)) - {2})  # bee 01 is beside bee deeper/01
    for path in bad:
        assert sum(str(path) in record.getMessage() for record in caplog.records) == 1
    message = r"(?s)image\(s\) cannot be decoded.*skip allows {}.*0[12]\.PNG.*data\.images\.skip"
    for limit in (0, 1):
        with pytest.raises(DataError, match=message.format(limit)):
            read(limit)


def test_a_batch_of_broken_pictures_is_no_batch(folder: Path) -> None:
    for n, path in enumerate(sorted((folder / "bee").rglob("*.PNG"))):
        if n:
            path.write_bytes(b"")
    data = load_data(request(folder, {"skip": 11}))
    sizes = [len(y) for part in (data.train, data.validation, data.test) for _, y in part.batches(1)]
    assert sizes == [1] * 25


def test_the_digest_is_of_names_contents_and_preparation(folder: Path) -> None:
    first = load_data(request(folder)).digest
    assert load_data(request(folder)).digest == first
    assert load_data(request(folder, {"size": 5})).digest != first
    assert load_data(request(folder, {"mean": [0.5] * 3, "std": [1] * 3})).digest != first
    assert load_data(request(folder, seed=1)).digest != first
    picture = folder / "ape" / "00.PNG"
    picture.write_bytes(encoded(colour(77)))
    assert load_data(request(folder)).digest != first
    picture.write_bytes(encoded(colour(0)))
    assert load_data(request(folder)).digest == first
    picture.rename(picture.with_name("another.PNG"))
    assert load_data(request(folder)).digest != first


def test_contents_are_hashed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    original = digests_module.sha256_of

    def counting(path: Path) -> str:
        hashed.append(path)
        return original(path)

    monkeypatch.setattr(digests_module, "sha256_of", counting)
    load_data(request(folder))
    assert len(hashed) == 36
    load_data(request(folder))
    assert len(hashed) == 36
    time.sleep(0.01)
    (folder / "ape" / "00.PNG").write_bytes(encoded(colour(0)))
    load_data(request(folder))
    assert hashed[36:] == [folder / "ape" / "00.PNG"]


def test_pictures_are_decoded_when_they_are_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.data import images

    opened: list[Path] = []
    original = images.read_image

    def counting(path: Path, decode: images.Decode) -> Any:
        opened.append(path)
        return original(path, decode)

    monkeypatch.setattr(images, "read_image", counting)
    data = load_data(request(folder))
    assert len(opened) == 0
    some(data.train, 2)
    assert 0 < len(opened) <= 6  # batches ahead, not the set


class Inverted:
    """A transform of the user's own."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: Image.Image) -> torch.Tensor:
        array = np.asarray(image.resize((self.size, self.size))).astype(np.float32)
        return torch.from_numpy(255 - array).permute(2, 0, 1)


def no_tensor() -> Any:
    return lambda image: image


def sizes_as_they_are() -> Any:
    return lambda image: torch.zeros(1, *image.size)


def test_the_users_own_transform(folder: Path) -> None:
    mine = {"transform": f"{__name__}:Inverted", "transform_kwargs": {"size": 5}}
    data = load_data(request(folder, mine, trust=[__name__]))
    assert data.sample_shape == (3, 5, 5)
    assert sorted((255 - some(data.train, 1)[0][:, 1, 0, 0]).tolist()) == [100]
    assert data.digest != load_data(request(folder, {**mine, "transform_kwargs": {"size": 4}}, trust=[__name__])).digest
    with pytest.raises(DataError, match=r"(?s)not trusted.*data\.trust"):
        load_data(request(folder, mine))
    with pytest.raises(DataError, match=r"gave a (Png)?Image"):
        load_data(request(folder, {"transform": f"{__name__}:no_tensor"}, trust=[__name__]))
    (folder / "ape" / "00.PNG").write_bytes(encoded(colour(0)[:3]))
    data = load_data(request(folder, {"transform": f"{__name__}:sizes_as_they_are"}, trust=[__name__]))
    with pytest.raises(DataError, match="to one size"):
        numbers(data.train, data.validation, data.test)


def test_a_transform_whose_code_has_changed_makes_other_data(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    code = tmp_path / "own_transform.py"
    digests = []
    for grey in (1, 1, 2):
        code.write_text(f"import torch\ndef grey(): return lambda image: torch.full((3, 4, 4), {grey}.0)\n")
        digests.append(load_data(request(folder, {"transform": "own_transform:grey"}, trust=["own_transform"])).digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_folder_without_pictures_is_refused(tmp_path: Path, folder: Path) -> None:
    for path in (tmp_path / "none", folder / "ape" / "deeper"):
        with pytest.raises(DataError, match=r"(?s)data\.path|no images"):
            load_data(request(path))
    with pytest.raises(DataError, match="3 folders of classes"):
        load_data(request(folder, classes=2))
    with pytest.raises(DataError, match=r"data\.path"):
        load_data(Data(name="image-folder"))

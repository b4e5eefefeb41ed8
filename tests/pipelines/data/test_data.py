from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.data import load_data
from pipelines.errors import DataError


@dataclass(frozen=True)
class Request:
    name: str = "digits"
    path: str | None = None
    validation: float = 0.2
    test: float = 0.2
    seed: int = 0


def test_the_split_is_a_partition_in_which_every_class_has_its_share() -> None:
    data = load_data(Request())
    parts = [data.train, data.validation, data.test]
    assert sum(map(len, parts)) == 1797
    images = {part.x[i].tobytes() for part in parts for i in range(len(part))}
    assert len(images) == len({image.tobytes() for part in parts for image in part.x}) > 1780  # a few digits are twins
    for part in parts:
        shares = np.bincount(part.y, minlength=10) / len(part)
        assert np.abs(shares - 0.1).max() < 0.01
    assert data.sample_shape == (1, 8, 8)
    assert 0 <= data.train.x.min() <= data.train.x.max() <= 1


def test_the_digest_names_images_labels_and_split(tmp_path: Path) -> None:
    assert load_data(Request()).digest == load_data(Request()).digest
    assert load_data(Request()).digest != load_data(Request(seed=1)).digest
    assert load_data(Request()).digest != load_data(Request(test=0.3)).digest
    x, y = np.random.default_rng(0).random((60, 3)), np.arange(60) % 2
    digests = []
    for labels in (y, 1 - y):
        np.savez(tmp_path / "d.npz", x=x, y=labels)
        digests.append(load_data(Request("npz", str(tmp_path / "d.npz"))).digest)
    assert digests[0] != digests[1]


X, Y = np.zeros((40, 2, 2)), np.arange(40) % 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "no labels"),
        ({"y": Y}, "no array `x`"),
        ({"x": X, "y": Y[:-1]}, "do not fit"),
        ({"x": X, "y": Y.astype(float)}, "whole numbers"),
        ({"x": X, "y": Y - 1}, "whole numbers"),
        ({"x": X, "y": np.array([object()] * 40)}, "cannot be read"),  # would have to be unpickled
        ({"x": X[:4], "y": Y[:4]}, "too few"),
        ({"x": X, "y": np.array([0] * 39 + [1])}, "too few"),
    ],
)
def test_data_that_cannot_be_used_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        load_data(Request("npz", str(path)))


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    request = Request("npz", str(path))
    with pytest.raises(DataError, match="cannot be read"):
        load_data(request)
    for content in (b"", b"text", b"PK\x03\x04broken"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            load_data(request)
    with pytest.raises(DataError, match="needs a file"):
        load_data(replace(request, path=None))

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.config import Data
from pipelines.data import load_data, some
from pipelines.errors import DataError


def npz_request(path: Path, **changes: Any) -> Data:
    return Data(name="npz", path=str(path), **changes)


def test_the_split_is_a_partition_in_which_every_class_has_its_share() -> None:
    data = load_data(Data())
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
    assert load_data(Data()).digest == load_data(Data()).digest
    assert load_data(Data()).digest != load_data(Data(seed=1)).digest
    assert load_data(Data()).digest != load_data(Data(test=0.3)).digest
    x, y = np.random.default_rng(0).random((60, 3)), np.arange(60) % 2
    digests = []
    for labels in (y, 1 - y):
        np.savez(tmp_path / "d.npz", x=x, y=labels)
        digests.append(load_data(npz_request(tmp_path / "d.npz")).digest)
    assert digests[0] != digests[1]


X, Y = np.zeros((40, 2, 2)), np.arange(40) % 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "no labels"),
        ({"y": Y}, "no array `x`"),
        ({"x": X, "y": Y[:-1]}, "do not fit"),
        ({"x": X, "y": Y.astype(str)}, "whole numbers"),
        ({"x": X, "y": np.full(40, np.nan)}, "no finite numbers"),
        ({"x": X, "y": Y, "x_test": X}, "no array `y_test`"),
        ({"x": X, "y": Y, "x_test": X[:, :1], "y_test": Y}, "other shapes"),
        ({"x": X, "y": Y, "x_test": X[:0], "y_test": Y[:0]}, "no samples"),
        ({"x": X[:0], "y": Y[:0]}, "no samples"),
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
        load_data(npz_request(path))


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    request = npz_request(path)
    with pytest.raises(DataError, match="cannot be read"):
        load_data(request)
    for content in (b"", b"text", b"PK\x03\x04broken"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            load_data(request)
    with pytest.raises(DataError, match="needs a file"):
        load_data(Data(name="npz"))


def test_float_targets_are_numbers_to_be_predicted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((50, 4)), rng.random((50, 2))
    np.savez(tmp_path / "d.npz", x=x, y=y)
    data = load_data(npz_request(tmp_path / "d.npz"))
    assert (data.classes, data.target_shape, data.sample_shape) == (0, (2,), (4,))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [30, 10, 10]
    by_input = {tuple(a.tolist()): b for a, b in zip(x.astype(np.float32), y.astype(np.float32), strict=True)}
    for part in (data.train, data.validation, data.test):
        inputs, targets = some(part, 50)
        assert targets.dtype == torch.float32
        for a, b in zip(inputs.numpy(), targets.numpy(), strict=True):
            assert (by_input.pop(tuple(a.tolist())) == b).all()
    assert not by_input


def test_a_class_for_every_pixel(tmp_path: Path) -> None:
    y = np.zeros((20, 3, 3), np.uint8)
    y[:, 1, 1] = 2
    np.savez(tmp_path / "d.npz", x=np.zeros((20, 1, 3, 3)), y=y)
    data = load_data(npz_request(tmp_path / "d.npz"))
    assert (data.classes, data.target_shape) == (3, (3, 3))
    assert some(data.test, 2)[1].dtype == torch.int64


def test_splits_of_its_own_are_kept_apart(tmp_path: Path) -> None:
    x, y = np.arange(60.0)[:, None], np.arange(60) % 2
    own = {"x_validation": x[40:46], "y_validation": y[40:46], "x_test": x[46:], "y_test": y[46:]}
    np.savez(tmp_path / "d.npz", x=x[:40], y=y[:40], **own)
    data = load_data(npz_request(tmp_path / "d.npz", validation=0.4, test=0.5))
    assert [sorted(some(part, 60)[0][:, 0].tolist()) for part in (data.train, data.validation, data.test)] == [
        list(range(40)),
        list(range(40, 46)),
        list(range(46, 60)),
    ]


def test_classes_that_do_not_occur_can_be_declared(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    assert load_data(npz_request(tmp_path / "d.npz")).classes == 2
    assert load_data(npz_request(tmp_path / "d.npz", classes=7)).classes == 7
    with pytest.raises(DataError, match=r"data\.classes is 1"):
        load_data(npz_request(tmp_path / "d.npz", classes=1))


def test_inputs_are_normalised_per_channel(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((40, 2, 3, 3)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=Y)
    plain, other = (
        load_data(npz_request(tmp_path / "d.npz", images=images)) for images in ({}, {"mean": [0.5, 1], "std": [2, 4]})
    )
    by_hand = (plain.train.x - np.array([0.5, 1]).reshape(1, 2, 1, 1)) / np.array([2, 4]).reshape(1, 2, 1, 1)
    np.testing.assert_allclose(some(other.train, 40)[0].numpy(), by_hand, atol=1e-6)
    assert other.digest != plain.digest
    grey = load_data(Data(images={"mean": [0.5], "std": [0.25]}))
    np.testing.assert_allclose(some(grey.train, 9)[0], (some(load_data(Data()).train, 9)[0] - 0.5) / 0.25, atol=1e-6)
    with pytest.raises(DataError, match=r"3 means.*\[2, 3, 3\]"):
        load_data(npz_request(tmp_path / "d.npz", images={"mean": [0.5] * 3, "std": [1] * 3}))


def test_every_name_is_described_and_the_nearest_is_offered() -> None:
    from pipelines.data import DATASETS

    description = Data.model_fields["name"].description or ""
    for name, load in DATASETS.items():
        assert f"`{name}`" in description
        assert load.__doc__
    with pytest.raises(ValueError, match=r"did you mean 'cifar100'\?"):
        Data(name="cifar1000")
    with pytest.raises(ValueError, match="takes no path"):
        Data(name="mine:loaders", path="somewhere")


def test_labels_per_pixel_may_leave_pixels_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, (40, 4, 4))
    y[:, 0, 0] = 255
    np.savez(tmp_path / "maps.npz", x=rng.random((40, 1, 4, 4)), y=y)
    data = load_data(Data(name="npz", path=str(tmp_path / "maps.npz"), classes=3))
    assert (data.classes, data.target_shape) == (3, (4, 4))
    assert load_data(Data(name="npz", path=str(tmp_path / "maps.npz"))).classes == 3

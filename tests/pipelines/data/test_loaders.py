import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pipelines.config import Data
from pipelines.data import load_data, some
from pipelines.errors import DataError


def points(first: int, last: int) -> TensorDataset:
    n = torch.arange(first, last)
    return TensorDataset(n[:, None].float(), n % 3)


def loaders(batch: int = 4, shuffle: bool = True, generator: bool = False, **options: Any) -> tuple[DataLoader[Any], ...]:
    own = torch.Generator() if generator else None
    train = DataLoader(points(0, 30), batch, shuffle=shuffle, generator=own, **options)
    return train, DataLoader(points(30, 40), batch), DataLoader(points(40, 50), batch)


class Module(pl.LightningDataModule):
    num_classes = 3

    def setup(self, stage: str) -> None:
        self.ready = [*getattr(self, "ready", []), stage]

    def train_dataloader(self) -> Any:
        assert "fit" in self.ready
        return DataLoader(points(0, 30), 5)

    def val_dataloader(self) -> Any:
        return DataLoader(points(30, 40), 5)

    def test_dataloader(self) -> Any:
        assert "test" in self.ready
        return DataLoader(points(40, 50), 5)


class WithDigest(Module):
    digest = "version 7"


class Without(pl.LightningDataModule):
    def train_dataloader(self) -> Any:
        return DataLoader(points(0, 30), 5)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for n in range(7):
            yield torch.tensor([float(n)]), torch.tensor(n % 3)


def streams() -> dict[str, Any]:
    return {"train": DataLoader(Stream(), 2), "val": DataLoader(points(0, 5)), "test": DataLoader(points(5, 9))}


def floats() -> list[Any]:
    x = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    return [DataLoader(TensorDataset(x, x.sum(dim=1)), 8)] * 3


def broken(kind: str) -> Any:
    good = DataLoader(points(0, 9), 4)
    match kind:
        case "raises":
            raise RuntimeError("no such table")
        case "two":
            return good, good
        case "number":
            return 7
        case "list":
            return [good], good, good
        case "iterator":
            return iter(good), good, good
        case "none":
            return {"train": good, "test": good}
        case "dicts":
            return [DataLoader([{"x": torch.zeros(2), "y": 1}] * 4)] * 3
        case "alone":
            return [DataLoader(torch.zeros(4, 2))] * 3
        case _:
            return [DataLoader([])] * 3


def request(name: str, **changes: Any) -> Data:
    return Data(**{"name": f"{__name__}:{name}", "trust": [__name__], "classes": 3, **changes})


def batches(split: Any, size: int, seed: int | None = None) -> list[list[float]]:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    found = [(x[:, 0].tolist(), y.tolist()) for x, y in split.batches(size, generator)]
    assert all([n % 3 for n in x] == y for x, y in found)
    return [x for x, _ in found]


def joined(lists: list[list[float]]) -> list[float]:
    return list(itertools.chain.from_iterable(lists))


@pytest.mark.parametrize("own", [1, 4, 30])
@pytest.mark.parametrize("size", [1, 4, 7, 100])
def test_own_batches_are_cut_or_joined_to_the_size_that_is_wanted(own: int, size: int) -> None:
    train = load_data(request("loaders", kwargs={"batch": own, "shuffle": False})).train
    found = batches(train, size)
    assert joined(found) == list(range(30))
    assert [len(x) for x in found[:-1]] == [size] * (len(found) - 1)
    assert 0 < len(found[-1]) <= size
    assert len(train) == 30


@pytest.mark.parametrize("generator", [False, True], ids=["torch's random state", "its own generator"])
def test_a_shuffling_loader_follows_the_generator(generator: bool) -> None:
    train = load_data(request("loaders", kwargs={"generator": generator})).train
    first = batches(train, 4, 1)
    assert sorted(joined(first)) == list(range(30))
    before = torch.get_rng_state()
    assert batches(train, 4, 1) == first != batches(train, 4, 2)
    assert batches(train, 4) == batches(train, 4)
    assert (torch.get_rng_state() == before).all()  # the caller's draws are not disturbed
    shared = torch.Generator().manual_seed(0)
    orders = [[x.tolist() for x, _ in train.batches(4, shared)] for _ in range(2)]
    assert orders[0] != orders[1]  # another order each epoch


def test_the_last_incomplete_batch_that_the_loader_drops_is_not_counted() -> None:
    train = load_data(request("loaders", kwargs={"drop_last": True})).train
    assert len(train) == len(joined(batches(train, 4))) == 28


def test_a_module_is_set_up_and_its_splits_are_kept() -> None:
    data = load_data(request("Module", classes=None))
    assert (data.classes, data.sample_shape, data.name) == (3, (1,), f"{__name__}:Module")
    kept = [sorted(some(s, 99)[0][:, 0].tolist()) for s in (data.train, data.validation, data.test)]
    assert kept == [list(range(30)), list(range(30, 40)), list(range(40, 50))]


def test_nothing_is_copied_where_the_sizes_agree() -> None:
    whole = torch.zeros(8, 2), torch.zeros(8, dtype=torch.int64)
    from pipelines.data.loaders import LoaderSplit

    (batch,) = LoaderSplit([whole], "here").batches(8)
    assert batch[0].data_ptr() == whole[0].data_ptr()


def test_a_stream_is_counted_by_reading_it() -> None:
    data = load_data(request("streams"))
    assert [len(s) for s in (data.train, data.validation, data.test)] == [7, 5, 4]
    assert joined(batches(data.train, 3)) == list(range(7))


def test_float_targets_have_no_classes() -> None:
    data = load_data(request("floats", classes=None))
    assert (data.classes, data.target_shape) == (0, ())


def test_the_digest_is_the_users_or_of_what_can_be_read() -> None:
    plain = load_data(request("Module")).digest
    assert load_data(request("Module")).digest == plain
    assert load_data(request("loaders", kwargs={"shuffle": False, "batch": 6})).digest != plain
    own = load_data(request("WithDigest")).digest
    assert own == load_data(request("WithDigest")).digest != plain


def test_what_the_first_batch_does_not_show_is_in_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options and code decide what comes later; the code may lie in another module of the trusted package."""
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "own_data"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "sets.py").write_text(f"from {__name__} import loaders\ndef made(seed=0): return loaders(shuffle=False)\n")
    helper = package / "augment.py"
    helper.write_text("STRENGTH = 1\n")

    def digest(**kwargs: int) -> str:
        return load_data(Data(name="own_data.sets:made", trust=("own_data",), classes=3, kwargs=kwargs)).digest

    digests = [digest(), digest(seed=1)]
    helper.write_text("STRENGTH = 2\n")
    digests.append(digest())
    assert len(set(digests)) == 3
    assert digest() == digests[2]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("broken", {"kwargs": {"kind": "raises"}}, "RuntimeError: no such table"),
        ("broken", {"kwargs": {"kind": "two"}}, "(?s)gave a tuple.*three loaders"),
        ("broken", {"kwargs": {"kind": "number"}}, "gave a int"),
        ("broken", {"kwargs": {"kind": "list"}}, "train loader is a list"),
        ("broken", {"kwargs": {"kind": "iterator"}}, "again and again"),
        ("broken", {"kwargs": {"kind": "none"}}, "validation loader is a NoneType"),
        ("broken", {"kwargs": {"kind": "dicts"}}, "a batch is dict"),
        ("broken", {"kwargs": {"kind": "alone"}}, "a batch is Tensor"),
        ("broken", {"kwargs": {"kind": "empty"}}, "gives nothing"),
        ("broken", {"kwargs": {"knd": "two"}}, "unexpected keyword"),
        ("Without", {}, "it failed"),
        ("loaders", {"classes": None}, r"(?s)how many classes.*data\.classes"),
        ("loaders", {"trust": []}, r"(?s)not trusted.*data\.trust"),
        ("loaders", {"trust": ["tests.pipelines.datax"]}, "not trusted"),
        ("DataLoader", {}, "no function or class of a trusted module"),
        ("loadersx", {}, "cannot be imported"),
    ],
)
def test_what_cannot_be_used_is_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(request(name, **changes))


def test_a_loader_that_fails_on_its_way_is_named() -> None:
    class Failing(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, n: int) -> Any:
            if n == 3:
                raise OSError("disk gone")
            return torch.zeros(1), 0

    from pipelines.data.loaders import LoaderSplit

    with pytest.raises(DataError, match=r"(?s)OSError: disk gone.*train"):
        list(LoaderSplit(DataLoader(Failing(), 2), "train").batches(2))

"""The user's own loaders: a LightningDataModule, or a function that returns loaders of train, validation and test."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pipelines.data.dataset import Data
from pipelines.data.request import DataRequest
from pipelines.errors import DataError
from pipelines.imports import code_digest, trusted

CONTRACT = (
    "return three loaders (train, validation, test) of batches (inputs, targets), "
    "or be a LightningDataModule with train_dataloader, val_dataloader and test_dataloader"
)
PARTS = ("train", "validation", "test")


def from_import_path(request: DataRequest) -> Data:
    """What `module:Class` or `module:function` makes, called with `data.kwargs`. Nothing of the sets is copied.

    The digest is the `digest` of what was made, where it has one, else it is taken of the lengths and the first batch
    of each loader, the `kwargs` and the code below `data.trust`: it cannot see other changes further down. The number of
    classes is `data.classes`, or the `num_classes` or `classes` of the module or of the training set; float targets have
    none.
    Raises DataError.
    """
    where = f"data.name = {request.name}"
    made = trusted(request.name, request.trust, "data.trust", DataError)
    try:
        given = made(**dict(request.kwargs))
        loaders = _loaders_of(given, where)
    except DataError:
        raise
    except Exception as exc:  # the user's own code may raise anything
        raise DataError(f"it failed: {type(exc).__name__}: {exc}", where, f"mend it; it must {CONTRACT}") from exc
    splits = {part: LoaderSplit(loader, f"{where}, {part}") for part, loader in zip(PARTS, loaders, strict=True)}
    first = {part: _first(split) for part, split in splits.items()}
    x, y = first["train"]
    return Data(
        name=request.name,
        classes=_classes(request, given, loaders[0], y, where),
        digest=_digest(given, splits, first, f"{sorted(request.kwargs.items())} {code_digest(request.trust)}"),
        sample_shape=tuple(x.shape[1:]),
        target_shape=tuple(y.shape[1:]),
        **splits,
    )


@dataclass(frozen=True, slots=True, eq=False)
class LoaderSplit:
    """A loader of the user's. Its own batches are cut or joined to the size that is asked for.

    Order: the loader's. Where it shuffles, its draws come from a seed that `generator` gives, or from 0 without one, and the
    caller's own random state is left alone; so the same generator means the same order.
    """

    loader: Any
    where: str
    _length: list[int] = field(default_factory=list)  # counted at most once

    def __len__(self) -> int:
        if not self._length:
            self._length.append(_length_of(self.loader) or sum(len(y) for _, y in self._own_batches(None)))
        return self._length[0]

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        held: list[tuple[Tensor, Tensor]] = []
        count = 0
        for x, y in self._own_batches(generator):
            held.append((x, y))
            count += len(y)
            if count < size:
                continue
            x, y = _joined(held)
            whole = count - count % size
            yield from zip(torch.split(x[:whole], size), torch.split(y[:whole], size), strict=True)
            held, count = ([(x[whole:], y[whole:])], count - whole) if count > whole else ([], 0)
        if held:
            yield _joined(held)

    def _own_batches(self, generator: torch.Generator | None) -> Iterator[tuple[Tensor, Tensor]]:
        seed = 0 if generator is None else int(torch.randint(2**62, (), generator=generator))
        if isinstance(self.loader, DataLoader) and isinstance(self.loader.generator, torch.Generator):
            self.loader.generator.manual_seed(seed)
        state = torch.Generator().manual_seed(seed).get_state()
        with _random_state(state):
            own = iter(self.loader)
        while True:
            try:
                with _random_state(state):
                    batch = next(own)
            except StopIteration:
                return
            except DataError:
                raise
            except Exception as exc:  # the user's own code may raise anything
                raise DataError(f"the loader failed: {type(exc).__name__}: {exc}", self.where, "mend the loader") from exc
            yield _pair(batch, self.where)


@contextmanager
def _random_state(state: Tensor) -> Iterator[None]:
    """Torch draws from `state`, which is moved on, instead of its own."""
    outer = torch.get_rng_state()
    torch.set_rng_state(state)
    try:
        yield
    finally:
        state.copy_(torch.get_rng_state())
        torch.set_rng_state(outer)


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return parts[0] if len(parts) == 1 else (torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))


def _pair(batch: Any, where: str) -> tuple[Tensor, Tensor]:
    if isinstance(batch, list | tuple) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch):
        x, y = batch
        if len(x) == len(y) > 0:
            return x, y
    found = (
        [list(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in batch]
        if (isinstance(batch, list | tuple))
        else type(batch).__name__
    )
    raise DataError(f"a batch is {found}, not (inputs, targets)", where, "let the loader give pairs of tensors [n, ...]")


def _loaders_of(given: Any, where: str) -> tuple[Any, Any, Any]:
    if callable(getattr(given, "train_dataloader", None)):
        given.prepare_data()
        for stage in ("fit", "test"):
            given.setup(stage)
        found = (given.train_dataloader(), given.val_dataloader(), given.test_dataloader())
    elif isinstance(given, Mapping):
        found = (given.get("train"), given.get("validation", given.get("val")), given.get("test"))
    elif isinstance(given, list | tuple) and len(given) == 3:
        found = (given[0], given[1], given[2])
    else:
        raise DataError(f"it gave a {type(given).__name__}", where, f"it must {CONTRACT}")
    for part, loader in zip(PARTS, found, strict=True):
        if isinstance(loader, list | tuple) or not isinstance(loader, Iterable) or isinstance(loader, Iterator):
            text = f"the {part} loader is a {type(loader).__name__}"
            raise DataError(text, where, f"it must be iterable again and again, like a DataLoader; {CONTRACT}")
    return found


def _length_of(loader: Any) -> int | None:
    """Samples in one pass, where that can be told without one."""
    if not isinstance(loader, DataLoader) or loader.batch_size is None or not isinstance(loader.sampler, Sized):
        return None
    if isinstance(loader.dataset, torch.utils.data.IterableDataset):
        return None
    count = len(loader.sampler)
    return count - count % loader.batch_size if loader.drop_last else count


def _first(split: LoaderSplit) -> tuple[Tensor, Tensor]:
    for pair in split._own_batches(None):
        return pair
    raise DataError("the loader gives nothing", split.where, "a split needs at least one sample")


def _classes(request: DataRequest, given: Any, loader: Any, y: Tensor, where: str) -> int:
    if request.classes is not None:
        return request.classes
    if y.is_floating_point():
        return 0
    for owner in (given, getattr(loader, "dataset", None)):
        for name in ("num_classes", "classes"):
            value = getattr(owner, name, None)
            if isinstance(value, int) and value > 0:
                return value
            if isinstance(value, list | tuple) and value:
                return len(value)
    raise DataError("the data do not say how many classes there are", where, "set data.classes, e.g. data: {classes: 10}")


def _digest(given: Any, splits: Mapping[str, LoaderSplit], first: Mapping[str, tuple[Tensor, Tensor]], made_by: str) -> str:
    own = getattr(given, "digest", None)
    own = own() if callable(own) else own
    digest = hashlib.sha256()
    if own is not None:
        digest.update(str(own).encode())
        return digest.hexdigest()[:16]
    digest.update(made_by.encode())
    for part in PARTS:
        digest.update(f"{part} {len(splits[part])}".encode())
        for tensor in first[part]:
            array = np.ascontiguousarray(tensor.detach().cpu().numpy())
            digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()[:16]

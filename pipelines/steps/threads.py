"""How many CPU threads torch uses, for a while."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def torch_threads(number: int | None) -> Iterator[None]:
    """None leaves torch's own choice. The setting belongs to the whole process."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)

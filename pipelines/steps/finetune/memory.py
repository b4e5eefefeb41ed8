"""How a machine says that its memory is too small."""

import torch

WORDS = ("not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory")


def is_out_of_memory(exc: BaseException) -> bool:
    """On a GPU torch has an error of its own for it; on a CPU it is a RuntimeError like any other, but for its text."""
    if isinstance(exc, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(exc, RuntimeError) and any(word in str(exc).lower() for word in WORDS)

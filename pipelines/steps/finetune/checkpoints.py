"""Checkpoints in a folder: each is there whole or not at all, and the one before it is kept."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)
KEPT = 2


class Checkpoints:
    """The newest states of one training. `work` says which: states of another one are not taken for its own."""

    def __init__(self, folder: Path, work: str) -> None:
        self.folder, self.work = folder, work

    def save(self, state: dict[str, Any]) -> Path:
        """Write to one side, then rename: a kill leaves the old ones. Raises OSError, e.g. on a full disk."""
        self.folder.mkdir(exist_ok=True)  # where its parent is gone, nobody wants it any more
        paths = self._paths()
        number = int(paths[-1].stem) + 1 if paths else 1
        path = self.folder / f"{number:08d}.ckpt"
        part = path.with_suffix(".part")
        try:
            _write({**state, "work": self.work}, part)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        for old in [*paths, path][:-KEPT]:
            old.unlink(missing_ok=True)
        return path

    def load(self, suits: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any] | None:
        """The newest state that is whole, of this work, and suits; None: there is none."""
        for path in reversed(self._paths()):
            try:
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as exc:  # a torn file fails in whatever part of the format it was cut
                logger.warning(
                    "the checkpoint %s cannot be read (%s); trying the one before", path, exc or type(exc).__name__
                )
                continue
            if state.get("work") == self.work and suits(state):
                return state
        return None

    def clear(self) -> None:
        for path in [*self._paths(), *self.folder.glob("*.part")]:
            path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.ckpt"))


def _write(state: dict[str, Any], path: Path) -> None:
    try:
        with path.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except RuntimeError as exc:  # so torch says that its last bytes did not fit any more
        raise OSError(f"{path} cannot be written: {str(exc).splitlines()[0]}") from exc

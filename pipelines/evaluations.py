"""The source is evaluated once per version, data set, task and machine: what it answered is kept in the data folder."""

import hashlib
import importlib.metadata
import inspect
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from pipelines.environment import data_folder
from pipelines.imports import code_digest
from pipelines.tasks import Task


def evaluation_folder(source_uri: str, weights_digest: str, data_digest: str, task: Task, trust: Sequence[str]) -> Path:
    """Where they lie. The digest of the weights tells apart equal names in two registries, and replaced versions.

    The code below `trust` counts, too: the factory that builds the source may be there, and helpers of the task.
    """
    machine = (platform.node(), platform.machine(), torch.__version__)
    own = (type(task).__module__, type(task).__qualname__, repr(task) if _says_it_all(task) else repr(sorted(_state(task))))
    code = (importlib.metadata.version("secateur"), hashlib.sha256(_source_of(task)).hexdigest(), code_digest(trust))
    parts = (source_uri, weights_digest, data_digest, *own, *code, *machine)
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return data_folder() / "evaluations" / key


def _source_of(task: Task) -> bytes:
    """The file of its class: other code may give other figures."""
    try:
        return Path(inspect.getfile(type(task))).read_bytes()
    except (OSError, TypeError):  # made in a notebook, or frozen: nothing to read
        return b""


def _says_it_all(task: Task) -> bool:
    """Has it a text of its own, without an address in memory?"""
    return type(task).__repr__ is not object.__repr__


def _state(task: Task) -> list[tuple[str, str]]:
    return [(name, repr(value)) for name, value in vars(task).items()]

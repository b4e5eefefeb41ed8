"""Other people's code, by its import path, and only from where the user said it may come: importing runs it."""

import hashlib
import importlib
import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.errors import SecateurError

PICKLE = "pickle"  # among the trusted it is no import path: what is stored as a pickle may be opened, which runs code too


def trusted(
    path: str, trust: Sequence[str], field: str, error: type[SecateurError], who: str = "the recipe"
) -> Callable[..., Any]:
    """The function or class at `package.module:name`, if it lies below one of the `trust` import paths.

    `field` is the part of the recipe that lists those, e.g. `data.trust`; `who` wants it. Raises `error`.
    """
    module_name, _, name = path.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise error(f"{path!r} is no import path", who, "write it as package.module:name")
    if not is_below(module_name, trust):
        fix = f"if you know that code, add {module_name!r} to {field}; importing it runs it"
        raise error(f"{who} wants to run {path!r}, which is not trusted", f"{field} = {json.dumps(list(trust))}", fix)
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as exc:
        fix = "install the package it is in, or run secateur in the folder where it lies"
        raise error(f"{path!r} cannot be imported: {exc}", "this environment", fix) from exc
    # a trusted module may have imported anything: only what was defined below a trusted path counts
    if not callable(found) or not is_below(getattr(found, "__module__", None) or "", trust):
        raise error(f"{path!r} is no function or class of a trusted module", who, "name one that it defines")
    return found  # type: ignore[no-any-return]


def is_below(module_name: str, trust: Sequence[str]) -> bool:
    """Is that module a trusted one, or part of a trusted package?"""
    prefixes = [prefix for prefix in trust if prefix != PICKLE]
    return any(module_name == prefix or module_name.startswith(f"{prefix}.") for prefix in prefixes)


def code_digest(trust: Sequence[str]) -> str:
    """Of the source files of the trusted modules, and of all in the trusted packages: other code is other work.

    16 hexadecimal digits. What is not found adds nothing: whoever needs it will say so.
    """
    digest = hashlib.sha256()
    for prefix in sorted(set(trust) - {PICKLE}):
        for name, path in _files_of(prefix):
            digest.update(f"{prefix} {name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def _files_of(module_name: str) -> Iterator[tuple[str, Path]]:
    """(name below the package, file) in an order that is the same everywhere."""
    try:
        spec = importlib.util.find_spec(module_name)
    except Exception:  # the package that it lies in may raise anything when it is imported
        spec = None
    if spec is None:
        return
    for folder in map(Path, spec.submodule_search_locations or ()):
        files = ((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*.py") if path.is_file())
        yield from sorted(files)
    if not spec.submodule_search_locations and spec.origin is not None and Path(spec.origin).is_file():
        yield Path(spec.origin).name, Path(spec.origin)

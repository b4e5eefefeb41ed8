"""Other people's code, by its import path, and only from where the user said it may come: importing runs it."""

import importlib
import json
from collections.abc import Callable, Sequence
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

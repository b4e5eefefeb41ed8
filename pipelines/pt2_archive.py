"""Is a .pt2 file only numbers and a graph? `torch.export.load` would also unpickle, link and evaluate what it finds in it.

A file that passes holds: raw tensors, objects that torch's restricted (`weights_only`) reader takes, JSON, and a graph
that calls nothing but operators and whose symbolic sizes are plain arithmetic.
"""

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pipelines.errors import SourceError

_TEXTS = re.compile(r"(^|/)(archive_format|archive_version|byteorder|version|serialization_id)$")
_PAYLOADS = re.compile(r"(^|/)data/(weights|constants)/[^/]*_config\.json$")
_RAW = re.compile(r"(weight|tensor)_\d+$")
_TARGETS = re.compile(r"torch\.ops\.\w+(\.\w+)+|_operator\.\w+|math\.\w+|torch\.sym_\w+")
_SYMBOL = re.compile(r"[a-z]+\d+|[A-Z]\w*|floor|ceiling|sqrt")
_ARITHMETIC = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.operator, ast.unaryop, ast.cmpop, ast.boolop,
    ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant,
)  # fmt: skip


def check_archive(path: Path) -> None:
    """Raises SourceError unless loading the file runs no code out of it. Nothing in it is unpickled to find out."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
            raw = set(_raw_tensors(archive, names))
            for name in names:
                if name not in raw and (why := _objection(name, archive.read(name))):
                    raise _refusal(path, f"{name} {why}")
    except (zipfile.BadZipFile, KeyError, TypeError, AttributeError, UnicodeDecodeError) as exc:
        raise _refusal(path, f"it cannot be read: {exc!r}") from exc


def _raw_tensors(archive: zipfile.ZipFile, names: list[str]) -> Iterator[str]:
    """Files that are read as bytes, by the word of the tables beside them."""
    for table in filter(_PAYLOADS.search, names):
        for entry in json.loads(archive.read(table))["config"].values():
            if entry["use_pickle"] is False and _RAW.fullmatch(entry["path_name"]):
                yield f"{table.rpartition('/')[0]}/{entry['path_name']}"


def _objection(name: str, content: bytes) -> str | None:
    if _TEXTS.search(name) and len(content) < 100:
        return None
    if name.endswith(".json"):
        try:
            return _objection_to(json.loads(content))
        except ValueError:
            return "is no JSON"
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # of many kinds: whatever it is, it is no tensor
        return "holds more than tensors, and loading it would run code"
    return None


def _objection_to(part: Any) -> str | None:
    """What in a piece of the graph's JSON is no operator and no arithmetic."""
    if isinstance(part, list):
        return next(filter(None, map(_objection_to, part)), None)
    if not isinstance(part, dict):
        return None
    if "expr_str" in part and not _is_arithmetic(part["expr_str"]):
        return f"computes a size by {part['expr_str']!r}"
    if "target" in part and "inputs" in part and not _TARGETS.fullmatch(str(part["target"])):
        return f"calls {part['target']!r}, which is no operator"
    return next(filter(None, map(_objection_to, part.values())), None)


def _is_arithmetic(text: object) -> bool:
    try:
        nodes = list(ast.walk(ast.parse(str(text), mode="eval")))
    except (SyntaxError, ValueError):
        return False
    names = [node.id for node in nodes if isinstance(node, ast.Name)]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    plain = all(isinstance(node, _ARITHMETIC) for node in nodes)
    return plain and all(map(_SYMBOL.fullmatch, names)) and all(map(re.compile(r"\w+").fullmatch, texts))


def _refusal(path: Path, why: str) -> SourceError:
    return SourceError(
        f"the exported graph is refused: {why}", path.name, "export the model again with torch.export and register that file"
    )

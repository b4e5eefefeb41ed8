"""Is what is downloaded what was stored? Digests of the files lie beside them, and a seal on those in MLflow's own
database, where whoever can only write to the artifact store cannot change it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines import lineage
from pipelines.architecture import digest_of
from pipelines.errors import SourceError

HOLDS_DIGESTS = "MLmodel"
FOLDERS = ("data", "extra_files")  # what a model is made of: a file more in these is a change, too


def digests_of(root: Path) -> dict[str, str]:
    """SHA-256 of every stored file, by its path below `root`."""
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return {name: digest_of(root / name) for name in files if name != HOLDS_DIGESTS}


def seal_of(metadata: Mapping[str, Any]) -> str:
    """One digest of the files' digests and of what is said about the architecture."""
    parts = [metadata.get(lineage.DIGESTS_KEY), metadata.get(lineage.ARCHITECTURE_KEY)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def check_digests(root: Path, metadata: Mapping[str, Any], seal: str | None, where: str) -> None:
    """Raises SourceError if a file is not the one that was stored; models that others stored have no digests."""
    stored = metadata.get(lineage.DIGESTS_KEY)
    if stored is None and seal is None:
        return
    kept = dict(stored) if isinstance(stored, dict) else {}
    present = {path.relative_to(root).as_posix() for folder in FOLDERS for path in (root / folder).rglob("*")}
    added = {name for name in present - kept.keys() if (root / name).is_file()}
    changed = {name for name, digest in kept.items() if not (root / name).is_file() or digest_of(root / name) != digest}
    if seal is not None and seal != seal_of(metadata):
        changed.add(HOLDS_DIGESTS)
    if found := sorted(added | changed):
        raise SourceError(
            f"the stored model was changed after it was registered: {', '.join(found)}",
            where,
            "find out who writes to the artifact store; use another version, or register the model again",
        )

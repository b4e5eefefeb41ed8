"""Options of the command line that stand for parts of a recipe. Each raises ConfigError."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from pipelines.config.data import Data
from pipelines.config.section import Section
from pipelines.data import DATASETS
from pipelines.errors import ConfigError
from pipelines.names import did_you_mean


def data_section(name: str | None, path: str | None) -> Data:
    """The data section that a command line means. Raises ConfigError."""
    name = name or ("npz" if path else Data().name)
    if ":" in name:
        fix = "write a recipe with data.name and data.trust, or name one of: " + ", ".join(sorted(DATASETS))
        raise ConfigError(f"{name!r} is code, which a recipe must trust", "--data", fix)
    if name not in DATASETS:
        raise ConfigError(f"no data set {name!r}", "--data", did_you_mean(name, DATASETS))
    return Data(name=name, path=path)


def ratio_list(text: str, where: str) -> tuple[float, ...]:
    """`0.25, 0.5` as ratios above 0 and below 1. Raises ConfigError that names the first that is none."""
    tokens = [token.strip() for token in text.split(",")]
    for token in tokens:
        try:
            is_ratio = 0 < float(token) < 1
        except ValueError:
            is_ratio = False
        if not is_ratio:
            raise ConfigError(f"{token!r} is no ratio above 0 and below 1", where, "write e.g. 0.25,0.5,0.75")
    return tuple(float(token) for token in tokens)


def parse_budget(texts: Sequence[str]) -> dict[str, float | str]:
    """`macs=2x`, `latency_ms=5` as a command line gives them. Raises ConfigError."""
    found: dict[str, float | str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name or not value:
            raise ConfigError(f"{text!r} is no budget", "--budget", "write e.g. --budget macs=2x or --budget latency_ms=5")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = value
    return found


S = TypeVar("S", bound=Section)


def parse_section(kind: type[S], raw: Mapping[str, Any], where: str) -> S:
    """One section alone. Raises ConfigError with all mistakes."""
    try:
        return kind.model_validate(raw)
    except ValidationError as exc:
        errors: list[dict[str, Any]] = [dict(error) for error in exc.errors()]
    texts = [": ".join([*map(str, e["loc"]), str(e.get("ctx", {}).get("error", e["msg"]))]) for e in errors]
    raise ConfigError("; ".join(texts), where, "correct it; --help describes every option")

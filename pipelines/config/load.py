"""Read a recipe."""

from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import ValidationError

from pipelines.config.mistakes import mistakes_in
from pipelines.config.recipe import CompressConfig
from pipelines.errors import ConfigError


def load_config(path: str | Path) -> CompressConfig:
    """Read and check a YAML recipe. Raises ConfigError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"the configuration cannot be read: {exc}", str(path), "give the path of a YAML file") from exc
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ConfigError(f"this is not YAML: {exc}", str(path), "mend the line that is named above") from exc
    return parse_config(raw, str(path), Path(path).parent)


def parse_config(raw: object, where: str, folder: Path = Path()) -> CompressConfig:
    """The same for data that is already in memory; `folder` is where the files that it names lie."""
    if not isinstance(raw, Mapping):
        raise ConfigError("a configuration is a mapping", where, "start with `source:` and `candidates:`")
    try:
        return CompressConfig.model_validate(raw, context={"folder": folder})
    except ValidationError as exc:
        mistakes = mistakes_in(exc, CompressConfig)
    if len(mistakes) == 1:
        place, text, fix = mistakes[0]
        raise ConfigError(f"{place}: {text}", where, fix)
    lines = [f"{place}: {text} ({fix})" for place, text, fix in mistakes]
    raise ConfigError("\n".join([f"{len(lines)} mistakes in the configuration", *lines]), where, "correct each of them")

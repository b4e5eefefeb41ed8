"""Names of registered models where MLflow takes fewer characters than in a registered model's own name."""

import re

from pipelines.errors import ConfigError


def quoted(text: str) -> str:
    """A value in MLflow's search language, which has no way to escape a quote. Raises ConfigError for both kinds."""
    if ("'" in text and '"' in text) or text.endswith("\\"):
        raise ConfigError(
            f"{text!r} cannot be searched for: MLflow has no way to write it in a search",
            "a name or a tag in the registry",
            "let it hold one kind of quotes only, and no backslash at its end",
        )
    return f'"{text}"' if "'" in text else f"'{text}'"


def logged_name(name: str) -> str:
    """For the LoggedModel behind a version: `prod.digits` may be registered, but not logged, under that name."""
    return re.sub(r"[/:.%\"']", "-", name)

"""Names of registered models where MLflow takes fewer characters than in a registered model's own name."""

import re


def quoted(text: str) -> str:
    """A value in MLflow's search language, which has no way to escape a quote."""
    return f'"{text}"' if "'" in text else f"'{text}'"


def logged_name(name: str) -> str:
    """For the LoggedModel behind a version: `prod.digits` may be registered, but not logged, under that name."""
    return re.sub(r"[/:.%\"']", "-", name)

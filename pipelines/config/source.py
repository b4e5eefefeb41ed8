"""Which registered model is compressed, and whose code may rebuild it."""

import re
from typing import Any

from pydantic import Field, field_validator

from pipelines.config.section import Section

MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[\w-]+)|/(?P<version>[1-9]\d*))")


class Source(Section):
    """The registered model to compress."""

    model: str = Field(description="`models:/name@alias` or `models:/name/3`; an alias is pinned to its version first")
    trust: tuple[str, ...] = Field(
        default=("pipelines.models",),
        description="import paths whose functions may be called to rebuild a registered model, with all below them; "
        "naming one here means running its code. `pickle` is none of them: it allows versions that are stored as pickles "
        "to be opened, which runs code out of the registry",
    )
    factory: str | None = Field(
        default=None,
        description="`package.module:function` that makes the model, for a version that does not name it: one stored with "
        "its weights, or an exported graph (pt2), whose answers it must then give",
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of `factory`")

    @field_validator("trust", mode="before")
    @classmethod
    def _one_is_enough(cls, value: object) -> object:
        """`trust: pickle` needs no list."""
        return (value,) if isinstance(value, str) else value

    @field_validator("model")
    @classmethod
    def _is_model_uri(cls, value: str) -> str:
        if not MODEL_URI.fullmatch(value):
            raise ValueError(f"{value!r} is no model of a registry; write models:/name@alias or models:/name/3")
        return value

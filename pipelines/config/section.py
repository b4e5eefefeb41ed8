"""What every section of the configuration shares."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    elsewhere: ClassVar[Mapping[str, str]] = {}  # no field, but what its name means can be had: by writing this

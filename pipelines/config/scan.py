"""Which registered versions are compressed without being asked for one by one."""

from pydantic import Field, model_validator

from pipelines.config.recipe import CompressConfig
from pipelines.config.section import Section


class ScanConfig(Section):
    """A recipe, and the versions that it is for. The recipe's own source.model is replaced by each of them in turn."""

    recipe: CompressConfig
    models: str = Field(default="*", description="a glob of registered models' names, e.g. vision-*")
    alias: str | None = Field(default="champion", description="versions that carry this alias")
    tag: str | None = Field(default=None, description="or versions that carry this tag, as key=value")
    include_compressed: bool = Field(
        default=False, description="also versions that secateur made: a champion that was promoted is then pruned again"
    )
    deployment: str | None = Field(
        default=None, description="`compress/name` of the Prefect deployment that does the work; default: this flow run"
    )
    retry_failed: bool = Field(default=False, description="start again what has failed; a killed run is always begun anew")
    limit: int = Field(default=20, ge=1, description="start at most so many in one scan; the rest has its turn in the next")

    @model_validator(mode="after")
    def _looks_for_something(self) -> "ScanConfig":
        if self.alias is None and self.tag is None:
            raise ValueError("name an alias or a tag that the versions to compress carry")
        if self.tag is not None and not all(self.tag.partition("=")):
            raise ValueError(f"tag {self.tag!r} is no key=value")
        return self

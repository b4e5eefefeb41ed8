"""How latency is taken."""

from typing import Any, Literal

from pydantic import AliasChoices, Field, field_validator

from pipelines.config.section import Section

Engine = Literal["eager", "compile", "onnxruntime"]


class Measure(Section):
    """Latency: taken after all training has ended, every model in turn in each round.

    Of each list the first entry makes the primary condition, which the table, the gate and a latency budget go by; a single
    value is a list of one.
    """

    batch_sizes: tuple[int, ...] = Field(
        default=(64,),
        min_length=1,
        validation_alias=AliasChoices("batch_sizes", "batch_size"),
        description="samples per call; also `batch_size: 64`",
    )
    thread_counts: tuple[int, ...] = Field(
        default=(1,),
        min_length=1,
        validation_alias=AliasChoices("thread_counts", "threads"),
        description="CPU threads while measuring; also `threads: 1`",
    )
    engines: tuple[Engine, ...] = Field(
        default=("eager",),
        min_length=1,
        validation_alias=AliasChoices("engines", "engine"),
        description="`eager`, `compile` (torch.compile), `onnxruntime` (needs secateur[onnx])",
    )
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="where the models run while they are timed")
    rounds: int = Field(default=50, ge=3, description="timed calls per model and condition")
    warmup: int = Field(default=10, ge=0, description="untimed calls per model before; more until the times are steady")

    @field_validator("batch_sizes", "thread_counts", "engines", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | str) else value

    @field_validator("batch_sizes", "thread_counts", "engines")
    @classmethod
    def _each_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        for entry in value:
            if value.count(entry) > 1:
                raise ValueError(f"{entry!r} is there {value.count(entry)} times; once is enough")
        return value

    @field_validator("batch_sizes", "thread_counts")
    @classmethod
    def _are_counts(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        for number in value:
            if number < 1:
                raise ValueError(f"{number} is too small; at least 1")
        return value

    @property
    def batch_size(self) -> int:
        """Of the primary condition."""
        return self.batch_sizes[0]

    @property
    def threads(self) -> int:
        """Of the primary condition."""
        return self.thread_counts[0]

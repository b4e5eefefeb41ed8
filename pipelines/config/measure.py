"""How latency is taken."""

from pydantic import Field

from pipelines.config.section import Section


class Measure(Section):
    """Latency: taken after all training has ended, every model in turn in each round."""

    batch_size: int = Field(default=64, ge=2, description="images per call")
    threads: int = Field(default=1, ge=1, description="CPU threads of torch while measuring")
    rounds: int = Field(default=50, ge=3, description="timed calls per model")
    warmup: int = Field(default=10, ge=0, description="untimed calls per model before")

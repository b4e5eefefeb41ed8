"""One checked request, and the data that it names."""

import functools
import threading
from dataclasses import dataclass
from pathlib import Path

from pipelines.architecture import ModelRef
from pipelines.config import CompressConfig
from pipelines.config import Data as DataSection
from pipelines.data import Data, load_data
from pipelines.registry import SourceVersion, Store
from pipelines.tasks import Task, task_of

EVALUATION = "evaluation"  # of a candidate, in its folder
_reading = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One checked request: from here on, failures are not the user's."""

    config: CompressConfig
    source: SourceVersion
    model: ModelRef
    folder: str
    key: str  # of the same work: source, data, recipe and code
    flow_run_url: str | None = None  # in the Prefect UI
    again: bool = False  # also what was done before, to the last version
    regularized: ModelRef | None = None  # a copy of the source, trained for the cut, where the recipe asks for one

    @property
    def data(self) -> Data:
        return read_data(self.config.data)

    @property
    def task(self) -> Task:
        return task_of(self.data, self.config.task, self.config.source.trust)

    @property
    def store(self) -> Store:
        return Store(self.config.tracking.uri)

    def folder_of(self, title: str) -> Path:
        number = [candidate.title for candidate in self.config.candidates].index(title)
        return Path(self.folder) / f"candidate-{number}"


def read_data(section: DataSection) -> Data:
    """Read once, whoever asks and however many ask at once."""
    with _reading:
        return _data_of(section.model_dump_json())


@functools.lru_cache(maxsize=2)
def _data_of(section: str) -> Data:
    return load_data(DataSection.model_validate_json(section))

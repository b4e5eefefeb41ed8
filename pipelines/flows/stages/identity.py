"""When is work the same work? And has it been done?"""

import hashlib
import importlib.metadata
import json

from pipelines import registry
from pipelines.config import CompressConfig
from pipelines.data import Data
from pipelines.flows.stages.job import Job, read_data
from pipelines.imports import code_digest
from pipelines.registry import SourceVersion
from pipelines.steps.compare import Comparison


def key_of(config: CompressConfig) -> str:
    """Equal for equal work: source version, data, recipe and code. Raises SecateurError."""
    data = read_data(config.data)
    return work_key(config, registry.resolve(registry.open_store(config.tracking.uri), config.source.model), data)


def identify(config: CompressConfig) -> tuple[SourceVersion, str]:
    """The pinned source and the key of the work that this recipe would do with it; nothing is downloaded."""
    source = registry.resolve(registry.open_store(config.tracking.uri), config.source.model)
    return source, work_key(config, source, read_data(config.data))


def earlier_result(job: Job) -> Comparison | None:
    experiment_id = registry.experiment_of(job.store, job.source, job.config.registration.experiment)
    if experiment_id is None:
        return None
    return registry.find_finished(job.store, experiment_id, job.source.name, job.key)


def work_key(config: CompressConfig, source: SourceVersion, data: Data) -> str:
    """Of the same work: source, data, recipe and code. 16 hexadecimal digits."""
    recipe = config.model_dump(
        mode="json",
        include={"task", "calibration", "candidates", "finetune", "evaluate", "measure", "export", "gate", "registration"},
    )
    code = [importlib.metadata.version("secateur"), code_digest([*config.source.trust, *config.data.trust])]
    parts = [source.uri, source.model_id, source.run_id, data.digest, recipe, *code]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

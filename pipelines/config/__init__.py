"""One typed configuration: the YAML recipe, the CLI and the flow's form in the Prefect UI are all this.

A ratio is always the fraction REMOVED. Accuracies are fractions, 0 to 1. Unset fields take the default shown.
"""

from pipelines.config.candidate import Candidate, read_ratios
from pipelines.config.command_line import data_section, parse_budget, parse_section, ratio_list
from pipelines.config.data import Calibration, Data
from pipelines.config.evaluate import Evaluate, Task
from pipelines.config.export import Export
from pipelines.config.finetune import Distillation, Finetune, Hardware, Regularization
from pipelines.config.load import load_config, parse_config
from pipelines.config.measure import Measure
from pipelines.config.promotion import PromoteConfig
from pipelines.config.recipe import CompressConfig
from pipelines.config.registration import CopyTo, Gate, Promotion, Registration, Tracking
from pipelines.config.scan import ScanConfig
from pipelines.config.source import MODEL_URI, Source

__all__ = [
    "MODEL_URI",
    "Calibration",
    "Candidate",
    "CompressConfig",
    "CopyTo",
    "Data",
    "Distillation",
    "Evaluate",
    "Export",
    "Finetune",
    "Gate",
    "Hardware",
    "Measure",
    "PromoteConfig",
    "Promotion",
    "Registration",
    "Regularization",
    "ScanConfig",
    "Source",
    "Task",
    "Tracking",
    "data_section",
    "load_config",
    "parse_budget",
    "parse_config",
    "parse_section",
    "ratio_list",
    "read_ratios",
]

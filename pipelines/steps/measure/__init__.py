"""What calling a model costs on this machine: time, memory and, where it is counted, energy."""

from pipelines.steps.measure.engines import ENGINES, missing_package
from pipelines.steps.measure.side_by_side import MeasureOptions, conditions_of, measure
from pipelines.steps.measure.warm_up import warm_up

__all__ = ["ENGINES", "MeasureOptions", "conditions_of", "measure", "missing_package", "warm_up"]

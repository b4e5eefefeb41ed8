"""pruning_core: verified structured pruning of any PyTorch model. Knows torch; no files, network or platform.

result = prune(model, example_inputs, PruningSpec(ratio=0.5))
result.model, result.plan, result.report
"""

from pruning_core.api import PruneResult, apply, inspect, plan, prune
from pruning_core.calibration import Calibration
from pruning_core.cost import Cost, cost
from pruning_core.coupling.rules import Context, Sym, rule
from pruning_core.couplings import ChannelSlice, Coupling, couplings
from pruning_core.criteria import CRITERIA
from pruning_core.errors import ModelError, PlanError, PruningError, SpecError, VerifyError
from pruning_core.latency import measure_latency
from pruning_core.latency_table import LatencyTable
from pruning_core.persist import load, rebuild, save
from pruning_core.plan import GroupCut, PruningPlan, TensorSlice
from pruning_core.report import ModelReport, PruneReport
from pruning_core.sensitivity import Sensitivity, SensitivityRow, sensitivity
from pruning_core.spec import PruningSpec

__all__ = [
    "CRITERIA",
    "Calibration",
    "ChannelSlice",
    "Context",
    "Cost",
    "Coupling",
    "GroupCut",
    "LatencyTable",
    "ModelError",
    "ModelReport",
    "PlanError",
    "PruneReport",
    "PruneResult",
    "PruningError",
    "PruningPlan",
    "PruningSpec",
    "Sensitivity",
    "SensitivityRow",
    "SpecError",
    "Sym",
    "TensorSlice",
    "VerifyError",
    "apply",
    "cost",
    "couplings",
    "inspect",
    "load",
    "measure_latency",
    "plan",
    "prune",
    "rebuild",
    "rule",
    "save",
    "sensitivity",
]

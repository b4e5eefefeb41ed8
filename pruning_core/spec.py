"""What was asked: one frozen, validated record."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pruning_core.allocators import ALLOCATORS
from pruning_core.channels import parse_channels, to_ranges
from pruning_core.cost_model import COSTS
from pruning_core.criteria import CRITERIA, NEEDS
from pruning_core.errors import SpecError, nearest
from pruning_core.normalizers import NORMALIZERS
from pruning_core.policies import GROUP_POLICIES, POLICIES

COMPENSATIONS = ("none", "least_squares", "sequential")
AXES = {"-1": "inner", "-2": "outer"}  # a reshape axis by its number
ELSEWHERE = {"refit": "compensation: sequential", "iterative": "steps"}  # what is asked for here under another name


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningSpec:
    """A request, in the words of the field. `ratio` is the fraction removed.

    Raises: SpecError at birth for any value that makes no sense, naming the nearest valid one.
    """

    ratio: float = None  # type: ignore[assignment]  # default: 0.5, or 0 (nothing else goes) where `ratios` name layers
    criterion: str = "auto"  # reconstruction with calibration data, l2_norm without
    allocator: str = "auto"  # budget where one is given, per_layer where only `ratios` are, else uniform
    normalizer: str = "tss"
    policy: str = "average"
    group_policy: str = "sum"
    reshape_axis: str = "auto"  # auto | inner (-1) | outer (-2)
    group_axis: str = "within"  # within | whole
    min_channels: int = 8
    round_to: int = 2
    round_mode: str = "nearest"  # nearest | up | down
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    ratios: Mapping[str, float] = field(default_factory=dict)  # layer name or glob -> ratio
    slamp_p: int = 1
    budget: Mapping[str, float | str] = field(default_factory=dict)  # macs, params, size_mb, latency_ms -> limit or "2.0x"
    steps: int = 1  # iterative pruning: score, prune, score again
    compensation: str = "auto"  # sequential with calibration data | least_squares | none
    recalibrate_bn: bool = False
    seed: int = 0
    index: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # layer -> exactly the channels to remove

    def __post_init__(self) -> None:
        object.__setattr__(self, "reshape_axis", AXES.get(str(self.reshape_axis), self.reshape_axis))
        object.__setattr__(self, "exclude", _globs("exclude", self.exclude))
        object.__setattr__(self, "include", _globs("include", self.include))
        usual = 0.0 if self.ratios else 0.5
        object.__setattr__(self, "ratio", usual if self.ratio is None else _ratio("ratio", self.ratio))
        object.__setattr__(self, "ratios", {str(k): _ratio(f"ratios[{k!r}]", v) for k, v in dict(self.ratios).items()})
        index = {str(k): parse_channels(v, f"index[{k!r}]") for k, v in dict(self.index).items()}
        for layer, channels in index.items():
            if not channels:
                raise SpecError(
                    f"index[{layer!r}] names no channel", f"index[{layer!r}]", "name at least one, or leave it out"
                )
        object.__setattr__(self, "index", index)
        _one_of("criterion", self.criterion, ("auto", *CRITERIA))
        _one_of("allocator", self.allocator, ("auto", *ALLOCATORS))
        _one_of("compensation", self.compensation, ("auto", *COMPENSATIONS))
        object.__setattr__(self, "budget", {str(k): _target(str(k), v) for k, v in dict(self.budget).items()})
        if self.budget and self.allocator not in ("auto", "budget"):
            raise SpecError(
                f"a budget is given and the allocator is {self.allocator!r}", "allocator", "leave one of them out"
            )
        if self.allocator == "budget" and not self.budget:
            raise SpecError("the allocator 'budget' has no target", "budget", 'say e.g. budget={"macs": "2.0x"}')
        _one_of("normalizer", self.normalizer, NORMALIZERS)
        _one_of("policy", self.policy, POLICIES)
        _one_of("group_policy", self.group_policy, GROUP_POLICIES)
        _one_of("reshape_axis", self.reshape_axis, ("auto", "inner", "outer"))
        _one_of("group_axis", self.group_axis, ("within", "whole"))
        _one_of("round_mode", self.round_mode, ("nearest", "up", "down"))
        for name in ("min_channels", "round_to", "slamp_p", "steps"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise SpecError(f"{name} is {value!r}, not a whole number of 1 or more", name, "pass e.g. 1, 2 or 8")

    def resolved(self, has_calibration: bool) -> PruningSpec:
        """The same with every `auto` decided."""
        criterion = "reconstruction" if has_calibration and not self.index else "l2_norm"
        allocator = "budget" if self.budget else "per_layer" if self.ratios and not self.ratio else "uniform"
        return dataclasses.replace(
            self,
            criterion=criterion if self.criterion == "auto" else self.criterion,
            allocator=allocator if self.allocator == "auto" else self.allocator,
            compensation=("sequential" if has_calibration else "none") if self.compensation == "auto" else self.compensation,
        )

    @property
    def unheeded(self) -> tuple[str, ...]:
        """Options that are asked for, other than the defaults, and that mean nothing to a criterion of damages."""
        if self.index or "damage" not in NEEDS.get(self.criterion, ()):
            return ()
        usual = {f.name: f.default for f in dataclasses.fields(self)}
        asked = {name: getattr(self, name) for name in ("normalizer", "policy")}
        return tuple(f"{name} {value!r}" for name, value in asked.items() if value != usual[name])

    def to_dict(self) -> dict[str, Any]:
        data = dataclasses.asdict(self)
        index = {layer: to_ranges(channels) for layer, channels in self.index.items()}
        return {**data, "exclude": list(self.exclude), "include": list(self.include), "index": index}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PruningSpec:
        """Raises: SpecError for a name that is no option."""
        known = [f.name for f in dataclasses.fields(cls)]
        for name in data:
            if name not in known:
                fix = f"write `{ELSEWHERE[name]}`" if name in ELSEWHERE else nearest(name, known)
                raise SpecError(f"{name!r} is not an option of PruningSpec", name, fix)
        return cls(**data)


def _target(name: str, value: object) -> float | str:
    """Raises: SpecError unless it is a positive number, or a factor above 1 such as "2.0x"."""
    _one_of("budget", name, COSTS)
    if isinstance(value, str) and re.fullmatch(r"\s*\d+(\.\d+)?\s*[xX]\s*", value) and float(value.strip()[:-1]) >= 1:
        return value.strip()
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf"):
        return float(value)
    raise SpecError(f"budget[{name!r}] is {value!r}", "budget", 'give a limit above 0, or a factor from 1 on such as "2.0x"')


def _ratio(name: str, value: object) -> float:
    """Raises: SpecError unless 0 <= value < 1."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(f"{name} is {value!r}, not a number", name, "pass the fraction to remove, e.g. 0.5")
    if not 0 <= value < 1:
        fix = "pass the fraction to remove, at least 0 and below 1; 1 would leave no channel at all"
        raise SpecError(f"{name} is {value}, outside [0, 1)", name, fix)
    return float(value)


def _one_of(name: str, value: object, known: Iterable[str]) -> None:
    if value not in list(known):
        raise SpecError(f"{name} {value!r} is unknown", name, nearest(str(value), known))


def _globs(name: str, value: object) -> tuple[str, ...]:
    globs = (value,) if isinstance(value, str) else value
    if not isinstance(globs, list | tuple) or not all(isinstance(g, str) for g in globs):
        raise SpecError(f"{name} is {value!r}, not a list of name globs", name, "pass e.g. ['head.*']")
    return tuple(globs)

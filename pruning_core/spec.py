"""What was asked: one frozen, validated record."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pruning_core.allocators import ALLOCATORS
from pruning_core.channels import parse_channels, to_ranges
from pruning_core.criteria import CRITERIA
from pruning_core.errors import SpecError, nearest
from pruning_core.normalizers import NORMALIZERS
from pruning_core.policies import GROUP_POLICIES, POLICIES

REFUSED = "nothing was touched"


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningSpec:
    """A request, in the words of the field. `ratio` is the fraction removed.

    Raises: SpecError at birth for any value that makes no sense, naming the nearest valid one.
    """

    ratio: float = 0.5
    criterion: str = "l2_norm"
    allocator: str = "uniform"
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
    index: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # layer -> exactly the channels to remove

    def __post_init__(self) -> None:
        object.__setattr__(self, "reshape_axis", {-1: "inner", -2: "outer"}.get(self.reshape_axis, self.reshape_axis))  # type: ignore[call-overload]
        object.__setattr__(self, "exclude", _globs("exclude", self.exclude))
        object.__setattr__(self, "include", _globs("include", self.include))
        object.__setattr__(self, "ratio", _ratio("ratio", self.ratio))
        object.__setattr__(self, "ratios", {str(k): _ratio(f"ratios[{k!r}]", v) for k, v in dict(self.ratios).items()})
        index = {str(k): parse_channels(v, f"index[{k!r}]") for k, v in dict(self.index).items()}
        object.__setattr__(self, "index", index)
        _one_of("criterion", self.criterion, CRITERIA)
        _one_of("allocator", self.allocator, ALLOCATORS)
        _one_of("normalizer", self.normalizer, NORMALIZERS)
        _one_of("policy", self.policy, POLICIES)
        _one_of("group_policy", self.group_policy, GROUP_POLICIES)
        _one_of("reshape_axis", self.reshape_axis, ("auto", "inner", "outer"))
        _one_of("group_axis", self.group_axis, ("within", "whole"))
        _one_of("round_mode", self.round_mode, ("nearest", "up", "down"))
        for name in ("min_channels", "round_to", "slamp_p"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise SpecError(f"{name} is {value!r}, not a whole number of 1 or more", name, "pass e.g. 1, 2 or 8")

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
                raise SpecError(f"{name!r} is not an option of PruningSpec", name, nearest(name, known))
        return cls(**data)


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

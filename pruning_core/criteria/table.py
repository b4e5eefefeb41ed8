"""The one signature of a criterion, and the table of them. Shape legend: C channels, R everything else, flattened."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from torch import Tensor

from pruning_core.errors import SpecError
from pruning_core.registry import Registry


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What the feature maps of one layer's channels were like over the calibration samples."""

    magnitude_C: Tensor  # mean of |a| over samples and positions
    zeros_C: Tensor  # share of entries that are exactly zero
    nuclear_C: Tensor | None = None  # sum of singular values of the map; only measured when asked for


@dataclass(frozen=True, slots=True, eq=False)
class ChannelView:
    """One weight as its group sees it: pruned axis first, so that no criterion asks what layer it came from.

    A criterion of whole groups (WHOLE) sees all weights of the group so, their slices side by side along R.
    What was not observed is None; a criterion that needs it says so.
    """

    name: str
    weight_CR: Tensor
    grad_CR: Tensor | None = None  # mean over samples of dL/dw
    square_CR: Tensor | None = None  # mean over samples of (dL/dw)^2, each sample's own gradient
    features: Features | None = None
    gamma_C: Tensor | None = None  # |gamma| of the BatchNorm behind the layer
    damage_C: Tensor | None = None  # of each channel's removal, after the best repair
    samples: int = 1  # over which the means run
    seed: int = 0


Criterion = Callable[[ChannelView], Tensor]
WORDS = ("features", "nuclear", "gamma", "gradients", "squares", "damage")  # what a criterion may need, besides the weights
WITH_DATA = frozenset({"features", "nuclear", "gradients", "squares", "damage"})
WITH_LABELS = frozenset({"gradients", "squares"})

CRITERIA: Registry[Criterion] = Registry("criterion")
NEEDS: dict[str, frozenset[str]] = {}
WHOLE: set[str] = set()  # criteria that look at every slice of a group at once, and not at each member by itself


def criterion(*, needs: Collection[str] = (), whole: bool = False) -> Callable[[Criterion], Criterion]:
    """Register a criterion under its function's name, with what it reads besides the weights (of WORDS)."""
    assert set(needs) <= set(WORDS)

    def add(fn: Criterion) -> Criterion:
        CRITERIA.register(fn)
        NEEDS[fn.__name__] = frozenset(needs)
        if whole:
            WHOLE.add(fn.__name__)
        return fn

    return add


def without_data(alternative: str) -> str:
    return f"pass calibration data, or use {alternative!r}, which looks at weights only"


def missing(name: str, what: str, view: ChannelView, fix: str) -> SpecError:
    """What a criterion raises when its field was not observed."""
    return SpecError(f"criterion {name!r} needs {what} and found none", f"parameter {view.name!r}", fix)

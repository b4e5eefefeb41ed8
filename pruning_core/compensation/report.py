"""What the compensation of one layer brought."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Repair:
    """Errors are shares of the energy of the original layer's answers, on rows that were not learned from."""

    layer: str
    rows: int
    ridge: float  # share of the Gram matrix's mean diagonal; infinite where the layer was left as it was
    error_before: float
    error_after: float

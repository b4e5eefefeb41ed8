"""What the compensation brought, layer by layer, and what it could not learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TOLD = 4  # layers that a note names


@dataclass(frozen=True, slots=True)
class Repair:
    """Errors are shares of the energy of the original layer's answers, on rows that were not learned from."""

    layer: str
    rows: int
    ridge: float  # share of the Gram matrix's mean diagonal; infinite where the layer was left as it was
    error_before: float
    error_after: float
    inputs: int = 0  # that the layer reads, kernel positions counted one by one where they are regressed one by one
    constant: int = 0  # of those: the same in all rows, so that nothing can be learned of them but their sum


def constant_inputs(repairs: Sequence[Repair]) -> list[str]:
    """A note on the layers some of whose inputs are the same in all the calibration data, if there are any."""
    found = [f"{r.constant} of {r.inputs} of {r.layer}" for r in repairs if r.constant]
    more = f" and {len(found) - TOLD} more layers" if len(found) > TOLD else ""
    why = "they never change in the calibration data, so what they do elsewhere cannot be learned"
    return [f"constant inputs: {', '.join(found[:TOLD])}{more} ({why})"] if found else []

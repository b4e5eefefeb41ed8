"""Nets written as users write them, each around one thing that pruners get wrong. Truth is in the `Case` of each."""

from collections.abc import Mapping

from tests.awkward import (
    attention,
    branching,
    control,
    indexing,
    norms,
    recurrent,
    reshaping,
    signatures,
    sizes,
    spatial,
    transformers,
    weights,
)
from tests.models import Case

_FAMILIES = (
    attention,
    transformers,
    branching,
    control,
    indexing,
    norms,
    recurrent,
    reshaping,
    signatures,
    sizes,
    spatial,
    weights,
)

AWKWARD: Mapping[str, Case] = {name: case for family in _FAMILIES for name, case in family.CASES.items()}
assert len(AWKWARD) == sum(len(family.CASES) for family in _FAMILIES), "two awkward nets share a name"

"""Normalisations over a pruned axis are called approximate."""

import pytest

import pruning_core as pc
from tests.awkward import norms


@pytest.mark.parametrize("name", sorted(name for name in norms.CASES if "group" in name or "layer" in name))
def test_statistics_over_a_pruned_axis_are_named(name: str) -> None:
    case = norms.CASES[name]
    plan = pc.plan(case.build(), case.inputs(), pc.PruningSpec(ratio=0.5))
    assert bool(plan.approximate) == case.approximate

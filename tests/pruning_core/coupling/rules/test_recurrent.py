"""The axes of a recurrent layer: steps in time stay, the batch passes through."""

import pytest

import pruning_core as pc
from tests.awkward import AWKWARD


@pytest.mark.parametrize("name", ["lstm_over_channels", "gru_over_channels", "rnn_over_channels", "lstm_unbatched_time"])
def test_steps_in_time_are_locked_by_name(name: str) -> None:
    case = AWKWARD[name]
    plan = pc.plan(case.build(), case.inputs(), pc.PruningSpec(ratio=0.5))
    assert any("steps in time" in lock.reason for lock in plan.locked)


def test_the_batch_of_a_recurrent_layer_may_be_cut_with_its_states() -> None:
    case = AWKWARD["lstm_channels_as_batch"]
    result = pc.prune(case.build(), case.inputs(), pc.PruningSpec(ratio=0.5), check="numeric")
    assert {"conv", "lstm"} <= {layer for cut in result.plan.cuts for layer in cut.layers}
    assert not result.plan.approximate

"""Which samples of the calibration data are read."""

import pytest
import torch

from pruning_core.calibration import Batch, Calibration
from pruning_core.inputs import ExampleInputs
from pruning_core.observe.reading import after


@pytest.mark.parametrize("count", [0, 1, 3, 5, 7, 9, 10, 12])
@pytest.mark.parametrize("sizes", [[10], [3, 4, 3], [1] * 10])
def test_the_samples_after_the_first(sizes: list[int], count: int) -> None:
    x = torch.arange(10.0)[:, None]
    found = [batch.inputs.args[0] for batch in after(Calibration(list(x.split(sizes))), count)]
    assert [number for part in found for number in part.flatten().tolist()] == list(range(count, 10))
    assert all(len(part) and part.untyped_storage().data_ptr() == x.untyped_storage().data_ptr() for part in found)


def test_what_has_no_entry_per_sample_goes_along() -> None:
    table = torch.randn(3, 4)
    batch = Batch(ExampleInputs.of({"x": torch.arange(5.0)[:, None], "table": table}), target=torch.zeros(5))
    (found,) = after([batch], 3)
    assert found.inputs.kwargs["x"].flatten().tolist() == [3, 4]
    assert found.inputs.kwargs["table"] is table

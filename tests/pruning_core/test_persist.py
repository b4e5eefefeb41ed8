"""A saved model comes back as it was saved."""

from pathlib import Path

import pytest
import torch

import pruning_core as pc
from tests.awkward import AWKWARD
from tests.models import NETS


@pytest.mark.parametrize("name", ["residual", "lstm_head"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_the_precision_is_that_of_the_saved_model(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    case = {**NETS, **AWKWARD}[name]
    result = pc.prune(case.build(), case.inputs(), pc.PruningSpec())
    model = result.model.to(dtype)
    pc.save(model, result.plan, tmp_path)
    again = pc.load(case.build, tmp_path)
    assert again.state_dict().keys() == model.state_dict().keys()
    for key, tensor in again.state_dict().items():
        assert tensor.dtype == model.state_dict()[key].dtype
        assert torch.equal(tensor, model.state_dict()[key])
    x = case.inputs()
    assert isinstance(x, torch.Tensor)
    if dtype is torch.float64:
        torch.testing.assert_close(again.eval()(x.to(dtype)), model.eval()(x.to(dtype)))

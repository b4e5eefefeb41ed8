"""Where calibration data goes; the meta device stands for one that the data is not on."""

import torch
from torch import nn

from pruning_core.calibration import Calibration, device_of

META = torch.device("meta")


def test_batches_and_targets_go_to_the_device() -> None:
    pairs = [(torch.ones(3, 2), torch.zeros(3)), (torch.ones(2, 2), torch.zeros(2))]
    (first, second) = Calibration(pairs, samples=4, labelled=True, device=META)
    for batch, size in ((first, 3), (second, 1)):
        assert isinstance(batch.target, torch.Tensor)
        assert batch.inputs.args[0].device == batch.target.device == META
        assert len(batch) == len(batch.target) == size
    assert all(tensor.device.type == "cpu" for pair in pairs for tensor in pair)


def test_the_device_is_the_model_s_unless_the_data_says_another() -> None:
    model, x = nn.Linear(2, 2), torch.ones(3, 2)
    found = Calibration.of(x, model)
    assert found is not None
    assert found.device == torch.device("cpu")
    own = Calibration(x, device=META)
    assert Calibration.of(own, model) is own
    assert Calibration.of(None, model) is None


def test_a_model_on_several_devices_or_without_memory_has_none() -> None:
    assert device_of(nn.Linear(2, 2)) == torch.device("cpu")
    assert device_of(nn.Linear(2, 2, device="meta")) is None
    assert device_of(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"))) is None
    assert device_of(nn.ReLU()) is None

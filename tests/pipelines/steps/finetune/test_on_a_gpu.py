"""Training on a GPU: it learns, goes on after a stop, and gives the module back where it was."""

from pathlib import Path

import pytest
import torch

from pipelines.config import Distillation
from pipelines.data import Data
from pipelines.steps.evaluate import evaluate
from pipelines.steps.finetune import Stopped, finetune
from pipelines.tasks import task_of
from tests.pipelines.steps.finetune.nets import net, options

if not torch.cuda.is_available():
    pytest.skip("needs a GPU, and this machine has none", allow_module_level=True)

GPU = {"accelerator": "gpu"}


@pytest.mark.parametrize("precision", ["auto", "32", "bf16"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_learns(data: Data, tmp_path: Path, precision: str, optimizer: str) -> None:
    module = net()
    changes = {"optimizer": optimizer, "gradient_clip": 1.0, "distillation": Distillation(weight=0.2)}
    wanted = options(hardware={**GPU, "precision": precision}, **changes)
    trained = finetune(module, data, task_of(data), wanted, tmp_path, teacher=net(1))
    assert trained.notes == ()
    assert trained.curve[-1].train_loss < trained.curve[0].train_loss
    assert {tensor.device.type for tensor in module.state_dict().values()} == {"cpu"}
    assert evaluate(module, data.test, task_of(data))["accuracy"] == 1.0


def test_a_stopped_training_goes_on(data: Data, tmp_path: Path) -> None:
    left = iter(range(14))
    wanted = options(hardware=GPU, checkpoint_minutes=0.0)
    with pytest.raises(Stopped):
        finetune(net(dropout=0.3), data, task_of(data), wanted, tmp_path, should_stop=lambda: next(left, None) is None)
    module = net(dropout=0.3)
    trained = finetune(module, data, task_of(data), wanted, tmp_path)
    assert trained.resumed_at == 15
    assert len(trained.curve) == 5
    assert evaluate(module, data.test, task_of(data))["accuracy"] == 1.0

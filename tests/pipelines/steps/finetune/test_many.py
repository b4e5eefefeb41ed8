"""What another process of the training says when it fails."""

from pathlib import Path
from typing import Any

import pytest
from torch.multiprocessing.spawn import ProcessException

from pipelines.data import Data
from pipelines.errors import TrainingError
from pipelines.steps.finetune import finetune
from pipelines.steps.finetune.many import told_by
from pipelines.steps.finetune.memory import is_out_of_memory
from pipelines.steps.finetune.records import Diverged
from pipelines.tasks import task_of
from tests.pipelines.steps.finetune.nets import options
from tests.pipelines.steps.finetune.test_faults import BreaksAt


def as_told(exc: Exception) -> Exception:
    """As torch writes down what a process raised."""
    lines = [
        "\n\n-- Process 1 terminated with the following error:",
        "Traceback (most recent call last):",
        '  File "fit.py", line 3, in fit',
        "    fit()",
        f"{type(exc).__module__}.{type(exc).__qualname__}: {exc}\n",
    ]
    return told_by(ProcessException("\n".join(lines), 1, 99))


def test_our_own_errors_stay_what_they_are() -> None:
    error = TrainingError("the machines do not train the same", "finetune.hardware", "give the same: on all")
    told = as_told(error)
    assert isinstance(told, TrainingError)
    assert str(told) == str(error)


def test_lack_of_memory_is_known_as_such() -> None:
    assert is_out_of_memory(as_told(RuntimeError("[enforce fail] not enough memory: you tried to allocate 7 bytes")))


def test_anything_else_is_quoted() -> None:
    assert "training diverged: no number in epoch 2, step 9" in str(as_told(Diverged("no number", 2, 9)))
    assert "failed: ValueError: what is it" in str(as_told(ValueError("what is it")))
    assert "failed" in str(told_by(ProcessException("", 1, 99)))


def test_a_process_that_fails_ends_the_training_with_its_words(data: Data, tmp_path: Path) -> None:
    two: Any = options(batch_size=8, hardware={"accelerator": "cpu", "devices": 2, "strategy": "ddp_fork"})
    with pytest.raises(TrainingError, match="training diverged: the loss is no finite number in epoch 1, step 1"):
        finetune(BreaksAt(1), data, task_of(data), two, tmp_path)

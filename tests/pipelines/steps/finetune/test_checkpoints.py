"""Checkpoints that were cut, that do not fit on the disk, and that belong to something else."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from pipelines.data import Data
from pipelines.steps.finetune import finetune
from pipelines.steps.finetune.checkpoints import Checkpoints
from pipelines.tasks import task_of
from tests.conftest import files_below
from tests.pipelines.steps.finetune.nets import options


def state(number: int) -> dict[str, object]:
    return {"step": number, "weights": {"a": torch.full((1000,), float(number))}}


def test_the_newest_is_loaded_and_two_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "made", "work")
    assert checkpoints.load() is None
    paths = [checkpoints.save(state(number)) for number in range(4)]
    assert sorted((tmp_path / "made").iterdir()) == paths[2:]
    loaded = checkpoints.load()
    assert loaded is not None
    assert loaded["step"] == 3
    assert torch.equal(loaded["weights"]["a"], torch.full((1000,), 3.0))
    suiting = checkpoints.load(lambda found: found["step"] % 2 == 0)
    assert suiting is not None
    assert suiting["step"] == 2
    checkpoints.clear()
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_one_that_was_cut_gives_way_to_the_one_before(
    tmp_path: Path, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path, "work")
    first, second = checkpoints.save(state(1)), checkpoints.save(state(2))
    whole = second.read_bytes()
    second.write_bytes(whole[: int(len(whole) * share)])
    loaded = checkpoints.load()
    assert loaded is not None
    assert loaded["step"] == 1
    assert str(second) in caplog.text
    first.write_bytes(b"")
    assert checkpoints.load() is None


def test_a_state_of_other_work_is_not_taken(tmp_path: Path) -> None:
    Checkpoints(tmp_path, "one").save(state(1))
    assert Checkpoints(tmp_path, "two").load() is None
    assert Checkpoints(tmp_path, "one").load() is not None


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "work")
    path = checkpoints.save(state(1))
    torch.save({"work": "work", "code": _Bomb()}, path)
    assert checkpoints.load() is None


class _Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return pytest.fail, ("it was run",)


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file can grow over 20 kB, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_checkpoints_that_are_there(tmp_path: Path, small_files: None) -> None:
    checkpoints = Checkpoints(tmp_path / "made", "work")
    path = checkpoints.save(state(1))
    with pytest.raises(OSError, match=r"File too large|cannot be written"):
        checkpoints.save({"step": 2, "weights": torch.zeros(100_000)})
    assert list(path.parent.iterdir()) == [path]
    loaded = checkpoints.load()
    assert loaded is not None
    assert loaded["step"] == 1


def test_a_disk_that_is_full_costs_the_checkpoints_and_not_the_training(
    tmp_path: Path, small_files: None, data: Data, caplog: pytest.LogCaptureFixture
) -> None:
    module = nn.Sequential(nn.Linear(2, 3000), nn.ReLU(), nn.Linear(3000, 3))
    wanted = options(epochs=2, checkpoint_minutes=0)
    trained = finetune(module, data, task_of(data), wanted, tmp_path)
    assert len(trained.curve) == 2
    assert trained.curve[-1].val_metric > 0.9
    assert "no checkpoint after step 1" in trained.notes[0]
    assert "training goes on without checkpoints" in caplog.text
    assert not files_below(tmp_path)

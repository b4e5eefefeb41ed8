"""The folder that outlives a killed process, and what is written down in it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.architecture import ModelRef
from pipelines.errors import RegistryError, StorageError, TrainingError, UnderWayError
from pipelines.flows import stages, work
from pipelines.flows.work import recall, remember, work_place
from pipelines.records import CompressedModel, Primary, Score, Scores, Size
from pipelines.steps.finetune import Epoch
from tests.conftest import quick_config
from tests.pipelines.tasks import own

MODEL = CompressedModel(
    title="half",
    method="l2_norm/uniform",
    ratio=0.5,
    asked="0.5",
    channels=3,
    channels_before=6,
    size=Size(params=10, macs=20, size_bytes=30),
    model=ModelRef(factory="a.b:c", kwargs={"width": 4}, plans=("plan.json",), weights="w.safetensors", trust=("a",)),
    after_cut=Primary(0.1, 0.2),
    after_pruning=Primary(1 / 3, 0.4),
    scores=Scores(validation=Score(value=1 / 3, drop=0.1 + 0.2), test=Score(value=0.6, drop=0.0), weights_digest="d"),
    curve=(Epoch(1, 0.1 + 0.2, 0.9, 1e-3, 10, 1.5), Epoch(2, 1e-300, 1.0)),
    training={"kept_epoch": 2},
)


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (KeyboardInterrupt(), True),
        (RuntimeError("a bug"), True),
        (RegistryError("w", "w", "f", retryable=True), True),
        (StorageError("full", "w", "f"), True),
        (RegistryError("w", "w", "f"), False),
        (TrainingError("w", "w", "f"), False),
    ],
    ids=["interrupt", "bug", "store is away", "disk is full", "store refuses", "diverged"],
)
def test_what_another_try_can_use_stays(tmp_path: Path, error: BaseException, stays: bool) -> None:
    def fail() -> None:
        with work_place(tmp_path, "key") as folder:
            (folder / "weights").touch()
            raise error

    with pytest.raises(type(error)):
        fail()
    assert (tmp_path / "key" / "weights").exists() == stays


def test_nothing_stays_after_success(tmp_path: Path) -> None:
    with work_place(tmp_path, "key") as folder:
        (folder / "weights").touch()
    assert not list(tmp_path.iterdir())


def test_nobody_else_works_there_and_a_killed_process_does_not_keep_it(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from pipelines.flows.work import work_place\n"
        "with work_place(Path(sys.argv[1]), 'key'): print('in', flush=True); time.sleep(600)"
    )
    environ = {**os.environ, "PYTHONPATH": "."}
    process = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path],
        cwd=Path(__file__).parents[3],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        with pytest.raises(UnderWayError, match="under way in another process"), work_place(tmp_path, "key"):
            pass
        with work_place(tmp_path, "other key"):
            pass
    finally:
        process.kill()
        process.communicate()
    with work_place(tmp_path, "key") as folder:
        assert folder == tmp_path / "key"


def test_what_nobody_came_back_for_is_removed(tmp_path: Path) -> None:
    for name, days in (("old", work.FORGOTTEN_DAYS + 1), ("young", 1)):
        with pytest.raises(KeyboardInterrupt), work_place(tmp_path, name):
            raise KeyboardInterrupt
        then = time.time() - days * 86400
        os.utime(tmp_path / name / work.LOCK, (then, then))
    with work_place(tmp_path, "key"):
        assert {path.name for path in tmp_path.iterdir()} == {"young", "key"}


def test_a_model_is_written_down_to_the_last_digit(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    assert recall(path, CompressedModel) is None
    assert remember(path, MODEL) is MODEL
    assert recall(path, CompressedModel) == MODEL
    assert recall(path, CompressedModel).curve[0].seconds == 1.5  # type: ignore[union-attr]
    path.write_bytes(path.read_bytes()[:-20])
    assert recall(path, CompressedModel) is None


def test_a_disk_that_is_full_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written down"):
        remember(tmp_path / "missing" / "model.json", MODEL)


def test_other_code_of_the_users_is_other_work(store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task, a gate, a factory or data that were edited: what was finished before is not taken for the answer."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("own_task", "own_data"):
        (tmp_path / f"{name}.py").write_text(f"from {own.__name__} import FewMistakes as Mine, loaders\n")
    config = quick_config(
        store_uri,
        source={"model": "models:/digits-resnet@champion", "trust": ["pipelines.models", "own_task"]},
        task="own_task:Mine",
        data={"name": f"{own.__name__}:loaders", "classes": 10, "trust": [own.__name__, "own_data"]},
    )
    keys = [stages.key_of(config), stages.key_of(config)]
    for name in ("own_task", "own_data"):
        with (tmp_path / f"{name}.py").open("a") as file:
            file.write("TEMPERATURE = 2\n")
        keys.append(stages.key_of(config))
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3

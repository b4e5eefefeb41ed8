from pathlib import Path

import pytest
import torch

from pipelines.config import Data as DataSection
from pipelines.data import load_data
from pipelines.evaluations import evaluation_folder
from pipelines.models import small_resnet
from pipelines.steps.evaluate import Evaluations, assess, assess_all, evaluate, load_evaluation, remembered
from pipelines.tasks import Classification, Regression, Task
from tests.pipelines.tasks.detection import Detection

DATA = load_data(DataSection())
TASK = Classification(10)


@pytest.fixture(scope="module")
def made() -> Evaluations:
    torch.manual_seed(0)
    return assess_all(small_resnet(width=4), DATA, TASK, batch_size=100)


def test_one_pass_gives_the_same_numbers_whatever_the_batch(made: Evaluations) -> None:
    torch.manual_seed(0)
    module = small_resnet(width=4)
    assert made.test.metrics["accuracy"] == evaluate(module, DATA.test, TASK)["accuracy"]
    assert set(made.test.metrics) == {"accuracy", "top5_accuracy", "calibration_error"}
    assert len(made.validation) == len(DATA.validation)
    with torch.no_grad():
        torch.testing.assert_close(made.test.kept["logits"], module(torch.from_numpy(DATA.test.x)))  # in their order
    assert made.test.kept["target"].tolist() == DATA.test.y.tolist()


class Hungry(torch.nn.Module):
    """Cannot take more than `most` samples at once, and says so as torch does on a CPU."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.net, self.most = small_resnet(width=8), most

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.most:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
        answers: torch.Tensor = self.net(x)
        return answers


def test_a_batch_that_does_not_fit_is_halved_once(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    module = Hungry(32)
    wanted = assess(module, DATA.test, TASK, 32)
    assert not caplog.records
    found = assess(module, DATA.test, TASK, 64)
    assert found.metrics == pytest.approx(wanted.metrics)
    assert len(found) == len(wanted) == len(DATA.test)
    assert "evaluated in batches of 32 instead of 64" in caplog.text
    with pytest.raises(RuntimeError, match="can't allocate"):
        assess(module, DATA.test, TASK, 128)


def test_evaluated_once_and_found_again(made: Evaluations, tmp_path: Path) -> None:
    calls: list[int] = []

    def make() -> Evaluations:
        calls.append(1)
        return made

    folder = tmp_path / "a" / "b"
    for _ in range(3):
        found = remembered(folder, make)
    assert len(calls) == 1
    assert found.test.metrics == made.test.metrics
    assert torch.equal(found.validation.kept["logits"], made.validation.kept["logits"])
    assert load_evaluation(folder, "test").metrics == made.test.metrics
    file = folder / "test.safetensors"
    file.write_bytes(file.read_bytes()[:1000])  # cut in half
    assert remembered(folder, make).test.metrics == made.test.metrics
    assert len(calls) == 2
    assert not list(folder.parent.glob("*.part"))


def test_another_question_is_another_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECATEUR_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    code = tmp_path / "own_net.py"
    code.write_text("def make(): return Net(width=8)\n")
    asked: list[tuple[str, str, str, Task, tuple[str, ...]]] = [
        ("models:/m/1", "w", "d", TASK, ()),
        ("models:/m/2", "w", "d", TASK, ()),
        ("models:/m/1", "v", "d", TASK, ()),
        ("models:/m/1", "w", "e", TASK, ()),
        ("models:/m/1", "w", "d", Classification(11), ()),
        ("models:/m/1", "w", "d", Regression("r2"), ()),
        ("models:/m/1", "w", "d", Detection(1), ()),
        ("models:/m/1", "w", "d", Detection(2), ()),
        ("models:/m/1", "w", "d", TASK, ("own_net",)),
    ]
    folders = [evaluation_folder(*question) for question in asked]
    assert len(set(folders)) == len(asked)
    assert folders == [evaluation_folder(*question) for question in asked]
    assert evaluation_folder("models:/m/1", "w", "d", Detection(1), ()) == folders[6]  # no address in memory
    assert all(folder.is_relative_to(tmp_path) for folder in folders)
    code.write_text("def make(): return Net(width=9)\n")  # the weights may be the same, the answers are not
    assert evaluation_folder(*asked[-1]) not in folders

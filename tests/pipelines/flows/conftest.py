"""The compress flow for real, six times in a row, by one worker: a Prefect server takes long to start."""

import base64
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines import environment
from pipelines.errors import CandidateError
from pipelines.flows import stages
from pipelines.flows.stages import pruning, training
from pipelines.servers import free_port, mlflow_server
from pipelines.steps.compare import Comparison
from pruning_core import latency_table
from tests.conftest import quick_config, run_count, steady_time


@dataclass(frozen=True)
class Flow:
    """One flow run: the store that it worked on, what it said, what was in the store before and after."""

    uri: str
    comparison: Comparison
    before: tuple[int, int, int]
    after: tuple[int, int, int]


@dataclass(frozen=True)
class Flows:
    first: Flow
    repeated: Flow  # the same again
    chained: Flow  # compresses the version that the first made, judged by a task of one's own
    kinds: Flow  # other ways to say what goes
    lossy: Flow  # one candidate cannot be pruned, another cannot be exported
    killed: Flow  # the first again, killed in mid-training and begun anew
    done_after_kill: tuple[str, ...]  # what the second process pruned and trained


@pytest.fixture(scope="session")
def prefect() -> Iterator[None]:
    """A Prefect server for all flows of the session."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def mlflow_url(demo_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real `mlflow server` on a copy of the demo's store. Every test makes registered models of its own there."""
    folder = tmp_path_factory.mktemp("mlflow-server")
    shutil.copyfile(demo_home / "mlflow.db", folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(environment.HOME_VARIABLE, str(folder))
        patch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")  # to a receiver on this machine
        patch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
        patch.setenv("MLFLOW_WEBHOOK_CACHE_TTL", "1")  # seconds; by default, a new webhook is seen after a minute
        patch.setenv("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", base64.urlsafe_b64encode(bytes(range(32))).decode())
        with mlflow_server(f"sqlite:///{folder / 'mlflow.db'}", free_port()) as server:
            yield server.ready()


@pytest.fixture(scope="session")
def flows(prefect: None, demo_home: Path, shared_folder: Path, once: Callable[..., object]) -> Flows:
    result = once("flows", lambda: _run_all(demo_home, shared_folder / "flows"))
    assert isinstance(result, Flows)
    return result


@pytest.fixture
def own_copy(flows: Flows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The store after the first flow, to be changed."""
    monkeypatch.setenv(environment.HOME_VARIABLE, str(tmp_path))
    return _copy(flows.first.uri, tmp_path)


def _run_all(demo_home: Path, folder: Path) -> Flows:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(environment.HOME_VARIABLE, str(folder))
        first = _run(_copy(f"sqlite:///{demo_home / 'mlflow.db'}", folder / "first"))
        repeated = _run(_copy(first.uri, folder / "repeated"))
        chained = _run(
            _copy(first.uri, folder / "chained"),
            source={"model": "models:/digits-resnet/2", "trust": ["pipelines.models", "tests.pipelines.tasks"]},
            task="tests.pipelines.tasks.own:FewMistakes",
            candidates=[{"ratio": 0.4, "normalizer": "softmax"}],
            gate={"max_accuracy_drop": 1},
        )
        ratios = folder / "ratios.yaml"
        ratios.write_text("criterion: l2_norm\nratios: {stem.0: 0.25, stage2.1.conv1: 0.5}\n")
        killed, done_after_kill = _run_killed(_copy(f"sqlite:///{demo_home / 'mlflow.db'}", folder / "killed"), folder)
        patch.setattr(latency_table, "_time", steady_time)
        kinds = _run(
            _copy(first.uri, folder / "kinds"),
            source={"model": "models:/digits-resnet/1"},
            calibration={"samples": 4000},
            candidates=[
                {"index": {"stage1.0.conv1": "11, 0, 1, 3-10"}},
                {"ratios_from": str(ratios), "recalibrate_bn": True},
                {"budget": {"latency_ms": "1.3x"}},
            ],
            finetune={"epochs": 0},
            gate={"max_accuracy_drop": 1},
        )
        patch.setattr(stages, "prune_candidate", _some_cannot_be_pruned)
        patch.setattr(stages, "register_candidate", _some_cannot_be_exported)
        lossy = _run(
            _copy(first.uri, folder / "lossy"),
            candidates=[{"ratio": 0.5}, {"ratio": 0.25}, {"ratio": 0.35}],
            finetune={
                "epochs": 1,
                "learning_rate": 0.003,
                "threads": 1,
                "regularization": {"kind": "bn_l1", "epochs": 1},
            },
        )
    return Flows(first, repeated, chained, kinds, lossy, killed, done_after_kill)


def _run(uri: str, **changes: object) -> Flow:
    from pipelines.flows.compress import compress

    before = run_count(uri)
    comparison = compress(quick_config(uri, **changes))
    return Flow(uri, comparison, before, run_count(uri))


KILLED = """
import sys
from tests.conftest import quick_config
from pipelines.flows.compress import compress
compress(quick_config(sys.argv[1]))
"""


def _run_killed(uri: str, home: Path) -> tuple[Flow, tuple[str, ...]]:
    """kill -9 while the second of three candidates is trained; then the same again."""
    from prefect.settings import PREFECT_API_URL

    before = run_count(uri)
    environ = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value()), "PYTHONPATH": "."}
    process = subprocess.Popen([sys.executable, "-c", KILLED, uri], cwd=Path(__file__).parents[3], env=environ)
    deadline = time.monotonic() + 200
    while not list((home / "work").glob("*/candidate-1/checkpoints/*.ckpt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        prune, finetune = pruning.prune, training._finetune
        patch.setattr(pruning, "prune", lambda r, *rest: done.append(f"prune {r.title}") or prune(r, *rest))
        patch.setattr(
            training, "_finetune", lambda job, m, *rest: done.append(f"train {m.title}") or finetune(job, m, *rest)
        )
        flow = _run(uri)
    return Flow(uri, flow.comparison, before, flow.after), tuple(done)


def _copy(uri: str, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(uri.removeprefix("sqlite:///"), folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


_prune, _register = stages.prune_candidate, stages.register_candidate


def _some_cannot_be_pruned(job: stages.Job, candidate: Any, should_stop: Any) -> Any:
    if candidate.ratio == 0.5:
        raise CandidateError("the saw is blunt", "here", "sharpen it")
    return _prune(job, candidate, should_stop)


def _some_cannot_be_exported(job: stages.Job, runs: Any, baseline: Any, model: Any, latency: Any, row: Any) -> Any:
    if row.ratio == 0.35:
        raise CandidateError("no export today", "here", "come back tomorrow")
    return _register(job, runs, baseline, model, latency, row)

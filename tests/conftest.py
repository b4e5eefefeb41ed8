"""Settings and expensive fixtures that every test shares. Each is made once, also when several workers run the tests."""

import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipelines import environment

# before anything imports MLflow or Prefect
_prefect_home = tempfile.TemporaryDirectory(prefix="prefect-home-")
os.environ["PREFECT_HOME"] = _prefect_home.name
environment.prepare()

import torch  # noqa: E402
from filelock import FileLock  # noqa: E402

if TYPE_CHECKING:
    from pipelines.config import CompressConfig

torch.set_num_threads(1)  # the workers share the cores


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The tests of the flows go to one worker, those of S3 too, so that the others need not wait for what only they use."""
    from xdist.scheduler import LoadScopeScheduling

    class FlowsTogether(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((place for place in ("flows", "s3") if f"/{place}/" in nodeid), nodeid)

    return FlowsTogether(config, log)


def pytest_make_parametrize_id(val: object, argname: str) -> None:
    """Bytes need an id of their own: gzip, for one, writes the time into them, and no two workers collect the same test."""
    if isinstance(val, bytes):
        raise pytest.UsageError(f"give ids to the cases of {argname!r}: bytes make no stable id")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The same for all workers of one test session."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def once(shared_folder: Path) -> Callable[..., object]:
    """once(name, make): what `make()` gave the first worker that asked; it must be picklable."""

    def get(name: str, make: Callable[[], object]) -> object:
        path = shared_folder / f"{name}.pickle"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                path.write_bytes(pickle.dumps(make()))
        return pickle.loads(path.read_bytes())  # noqa: S301  our own

    return get


@pytest.fixture(scope="session")
def demo_home(shared_folder: Path, once: Callable[..., object]) -> Path:
    """A data folder with the demo's model trained and registered for real, by the demo's own code."""
    home = shared_folder / "home"

    def make() -> str:
        from pipelines.demo import demo_config
        from pipelines.first_version import first_version

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(environment.HOME_VARIABLE, str(home))
            found = first_version(demo_config())
            assert found is not None
            return found.source.uri

    assert once("demo-home", make) == "models:/digits-resnet/1"
    return home


@pytest.fixture
def home(demo_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of one's own with a copy of that store; the artifacts are shared."""
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copyfile(demo_home / "mlflow.db", folder / "mlflow.db")
    monkeypatch.setenv(environment.HOME_VARIABLE, str(folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.fixture
def store_uri(home: Path) -> str:
    return f"sqlite:///{home / 'mlflow.db'}"


def quick_config(tracking_uri: str, **changes: object) -> "CompressConfig":
    """A real recipe, with little training and few timings."""
    from pipelines.config import parse_config

    raw: dict[str, object] = {
        "source": {"model": "models:/digits-resnet@champion"},
        "calibration": {"samples": 256},
        "candidates": [
            {"ratio": 0.3},
            {"ratio": 0.6, "allocator": "slamp", "criterion": "l2_norm", "compensation": "none"},
            {"name": "hopeless", "ratio": 0.97, "criterion": "l2_norm", "compensation": "none"},
        ],
        "finetune": {"epochs": 2, "learning_rate": 0.003, "threads": 1},
        "measure": {"batch_size": 16, "rounds": 5, "warmup": 1},
        "gate": {"max_accuracy_drop": 0.1},
        "tracking": {"uri": tracking_uri},
    }
    return parse_config({**raw, **changes}, "test")


def run_count(tracking_uri: str) -> tuple[int, int, int]:
    """(runs, versions, logged models) in a SQLite store: what a refused request must not change."""
    import sqlite3

    connection = sqlite3.connect(tracking_uri.removeprefix("sqlite:///"))
    try:
        tables = ("runs", "model_versions", "logged_models")
        return tuple(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)  # type: ignore[return-value]  # noqa: S608
    finally:
        connection.close()


def files_below(folder: Path) -> set[str]:
    return {os.path.relpath(path, folder) for path in folder.rglob("*") if path.is_file()}


def steady_time(_op: object, _values: object, shapes: "list[tuple[int, ...]]", _device: str, _threads: int) -> float:
    """Milliseconds of a call on a machine that takes a microsecond per thousand entries read, with a cliff every 8."""
    from math import ceil, prod

    return sum(prod(8 * ceil(n / 8) for n in shape) for shape in shapes) / 1e6


@pytest.fixture
def steady_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency tables that do not depend on what else this machine is doing."""
    from pruning_core import latency_table

    monkeypatch.setattr(latency_table, "_time", steady_time)

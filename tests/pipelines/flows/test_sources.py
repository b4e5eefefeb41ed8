"""A model that somebody logged by MLflow's default, a graph without code: compressed, exported, served, compressed again."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow.entities import LoggedModelStatus, Run
from mlflow.models import Model

from pipelines import environment, lineage, registry
from pipelines.architecture import load_module
from pipelines.errors import ConfigError
from pipelines.exported_graph import ExportedGraph
from pipelines.flows import stages
from pipelines.promotion import judge
from pipelines.registry import Store
from pipelines.steps.compare import Row, compare
from pipelines.steps.prune import primary_of
from tests.conftest import quick_config, run_count

LOADS_IT = """
import sys
import mlflow, numpy, torch
assert not any("pipelines" in path for path in sys.path)
uri, images, file, *models = sys.argv[1:]
mlflow.set_tracking_uri(uri)
x = numpy.load(images)
with torch.inference_mode():
    answers = [mlflow.pytorch.load_model(model)(torch.from_numpy(x)).numpy() for model in models]
numpy.save(file, numpy.stack(answers))
"""


@dataclass(frozen=True)
class Compressed:
    job: stages.Job
    rows: tuple[Row, ...]
    runs: registry.Runs

    @property
    def store(self) -> Store:
        return self.job.store

    def version(self, number: int) -> Any:
        return self.store.client.get_model_version(self.job.source.name, str(number))

    def run(self) -> Run:
        return self.store.client.get_run(self.runs.candidates[0].run_id)


@dataclass(frozen=True)
class World:
    uri: str
    folder: Path
    first: Compressed  # of the bare graph, in every form
    again: Compressed  # of what the first made


@pytest.fixture(scope="module")
def world(demo_home: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("sources")
    shutil.copyfile(demo_home / "mlflow.db", folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(environment.HOME_VARIABLE, str(folder))
        log_by_default(registry.open_store(uri), folder)
        first = by_hand(uri, folder / "first", export={"formats": ["pt2", "onnx"], "int8": True})
        again = by_hand(uri, folder / "again", source={"model": "models:/bare/2"}, finetune={"epochs": 0})
    return World(uri, folder, first, again)


@dataclass(frozen=True)
class Server:
    process: "subprocess.Popen[bytes]"
    address: str
    log: Path


@contextlib.contextmanager
def serving(world: World, model: str) -> Iterator[Server]:
    """`mlflow models serve`; it is long in coming up."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["models", "serve", "-m", model, "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it looks for uvicorn there
    environ = {**os.environ, "MLFLOW_TRACKING_URI": world.uri, "PYTHONPATH": "", "PATH": path}
    folder = Path(tempfile.mkdtemp(dir=world.folder))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command],
            cwd=folder,
            env=environ,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield Server(process, f"http://127.0.0.1:{port}", folder / "log")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def log_by_default(store: Store, folder: Path) -> None:
    """The demo's model as a user would log it who knows MLflow and not us."""
    client = store.client
    source = registry.resolve(store, "models:/digits-resnet@champion")
    module = load_module(registry.fetch_model(store, source, folder / "demo", trust=("pipelines.models",)))
    run_id = client.create_run(source.experiment_id).info.run_id
    saved, example = Model(run_id=run_id), np.zeros((4, 1, 8, 8), dtype=np.float32)
    mlflow.pytorch.save_model(
        module, str(folder / "bare"), mlflow_model=saved, pip_requirements=["torch"], input_example=example
    )
    logged = client.create_logged_model(source.experiment_id, name="bare", source_run_id=run_id)
    client.log_model_artifacts(logged.model_id, str(folder / "bare"))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.create_registered_model("bare")
    client.create_model_version("bare", f"models:/{logged.model_id}", run_id, model_id=logged.model_id)


def by_hand(uri: str, folder: Path, **changes: Any) -> Compressed:
    """What the flow does, without Prefect."""
    fixed = {"source": {"model": "models:/bare/1"}, "candidates": [{"ratio": 0.4}], "gate": {"max_accuracy_drop": 0.1}}
    config = quick_config(uri, **{**fixed, **changes})
    job = stages.prepare(config, folder)
    title = config.candidates[0].title
    with registry.open_runs(job.store, job.source, [title], job.data, experiment=None, tags={}) as runs:
        pruned = stages.prune_candidate(job, config.candidates[0])
        models = [stages.evaluate_source(job), stages.finetune_candidate(job, runs, pruned, stages.Listeners())]
        latencies = stages.measure_latency(job, models)
        rows = judge(compare(job.source.uri, models, latencies, job.task), config.gate, "knee").rows
        rows = tuple(
            stages.register_candidate(job, runs, rows[0], model, latency, row)
            for model, latency, row in zip(models, latencies, rows, strict=True)
        )
    return Compressed(job, rows, runs)


def images(world: World) -> tuple[Any, Any]:
    x, y = next(iter(world.first.job.data.test.batches(200)))
    return x.numpy(), y.numpy()


def test_a_graph_without_code_is_pruned_and_trained(world: World) -> None:
    source, candidate = world.first.rows
    assert source.test.value > 0.97
    assert candidate.channels_removed == pytest.approx(0.4, abs=0.05)
    assert candidate.params < 0.55 * source.params
    assert candidate.test.value > 0.95
    assert candidate.version == 2
    assert isinstance(load_module(world.first.job.model), ExportedGraph)


def test_the_description_says_how_the_source_was_had(world: World) -> None:
    text = world.first.version(2).description
    assert "exported graph was pruned itself, without source code; batch norms and dropouts are put into training" in text
    assert text.startswith("Pruned version 1: ")


def test_a_version_of_a_version_keeps_the_chain(world: World) -> None:
    assert len(world.again.job.model.history) == 1
    assert world.again.rows[1].params < world.again.rows[0].params == world.first.rows[1].params
    assert world.again.rows[0].test.value == pytest.approx(world.first.rows[1].test.value, abs=0.004)
    root = Path(mlflow.artifacts.download_artifacts("models:/bare/3", dst_path=str(world.folder / "third")))
    plans = [json.loads((root / "extra_files" / f"plan-{n}.json").read_text()) for n in (1, 2)]
    assert plans[0] != plans[1]
    assert not (root / "extra_files" / "plan-3.json").exists()


def test_it_loads_where_none_of_our_code_is(world: World, tmp_path: Path) -> None:
    x, _ = images(world)
    np.save(tmp_path / "x.npy", x)
    script = tmp_path / "loads_it.py"
    script.write_text(LOADS_IT)
    arguments = [world.uri, tmp_path / "x.npy", tmp_path / "y.npy", "models:/bare/2", "models:/bare/3"]
    subprocess.run([sys.executable, "-I", str(script), *map(str, arguments)], check=True, cwd=tmp_path, timeout=300)
    answers = np.load(tmp_path / "y.npy")
    again = world.again.store
    for number, found in zip((2, 3), answers, strict=True):
        source = registry.resolve(again, f"models:/bare/{number}")
        module = load_module(registry.fetch_model(again, source, tmp_path / str(number), trust=()))
        with torch.inference_mode():
            np.testing.assert_allclose(module(torch.from_numpy(x)).numpy(), found, atol=1e-4)


def test_the_onnx_forms_are_models_of_their_own(world: World) -> None:
    """Loadable by both of MLflow's ways, for any batch size; the numbers in the run are theirs."""
    x, y = images(world)
    run = world.first.run()
    forms = {
        form["kind"]: form for form in mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/{lineage.EXPORT_FILE}")["forms"]
    }
    assert list(forms) == ["pt2", "onnx", "int8"]
    text = world.first.version(2).description
    module = mlflow.pytorch.load_model("models:/bare/2")
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    for kind in ("onnx", "int8"):
        uri = forms[kind]["uri"]
        assert f"`{uri}`" in text
        served = mlflow.pyfunc.load_model(uri)
        found = next(iter(served.predict(x).values()))
        assert served.metadata.flavors["onnx"]
        if kind == "onnx":
            np.testing.assert_allclose(found, expected, atol=1e-3)
            assert mlflow.onnx.load_model(uri).opset_import[0].version == 18
        assert next(iter(served.predict(x[:1]).values())).shape == (1, 10)
        assert (found.argmax(1) == y).mean() > 0.9
    metrics = run.data.metrics
    assert forms["int8"]["size_bytes"] < 0.6 * forms["onnx"]["size_bytes"]
    assert metrics["int8_accuracy"] == forms["int8"]["primary"]["test"]
    assert metrics["int8_val_accuracy"] > world.first.rows[0].validation.value - 0.1
    assert forms["onnx"]["error"] < 1e-4 < forms["int8"]["error"]


def test_a_form_that_cannot_be_made_is_a_note(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator that ONNX does not have, and an 8-bit form below the gate: the version is there, with the reason."""
    from pipelines.flows import exports

    def no_such_operator(*args: object, **options: object) -> None:
        raise RuntimeError("no ONNX function found for aten.odd\n and many more lines")

    monkeypatch.setattr(torch.onnx, "export", no_such_operator)
    first = world.first
    model = dataclasses.replace(first.job.model)
    run_id = first.store.client.create_run(first.runs.experiment_id).info.run_id
    export = registry.Export(run_id=run_id, name="bare", model=model, images=images(world)[0][:7])
    options = first.job.config.export
    made = exports.export_forms(
        first.store, export, options, first.job.data, first.job.task, exports.Least(0.9, 0.0), tmp_path / "a"
    )
    assert [form.kind for form in made.forms] == ["pt2"]
    (note,) = made.notes
    assert note == "no ONNX form: torch cannot write the model as ONNX: no ONNX function found for aten.odd"
    assert first.store.client.get_run(run_id).data.tags[lineage.EXPORT_NOTES] == note
    kept, notes = exports._judge(
        dataclasses.replace(made.forms[0], primary=primary_of(load_module(model), first.job.data, first.job.task)),
        first.job.task,
        exports.Least(1.0, 0.001),
    )
    assert not kept
    assert "worse than the source, 0.001 are allowed" in notes[0]


def test_what_cannot_be_exported_here_is_known_before_anything_runs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.export import onnx

    monkeypatch.setattr(onnx, "PACKAGES", ("onnx", "onnxruntime_of_nobody"))
    before = run_count(world.uri)
    with pytest.raises(ConfigError, match=r"onnxruntime_of_nobody is not installed") as caught:
        stages.prepare(world.first.job.config, world.folder / "never")
    assert "secateur[onnx]" in caught.value.fix
    assert run_count(world.uri) == before
    assert not (world.folder / "never").exists()


@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_it_is_served(world: World, kind: str) -> None:
    x, _ = images(world)
    facts = mlflow.artifacts.load_dict(f"{world.first.run().info.artifact_uri}/{lineage.EXPORT_FILE}")["forms"]
    uri = next(form["uri"] for form in facts if form["kind"] == kind) or "models:/bare/2"
    with serving(world, uri) as server:
        answers = answer(server, x[:3])
    if kind == "onnx":  # by the names of the outputs
        (answers,) = answers.values()
    with torch.inference_mode():
        expected = mlflow.pytorch.load_model("models:/bare/2")(torch.from_numpy(x[:3])).numpy()
    np.testing.assert_allclose(answers, expected, atol=1e-4)


def answer(server: Server, x: Any) -> Any:
    """What the server says about the images, once it is up."""
    body = json.dumps({"inputs": x.tolist()}).encode()
    request = urllib.request.Request(f"{server.address}/invocations", body, {"Content-Type": "application/json"})  # noqa: S310
    for _ in range(600):
        try:
            with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
                return json.loads(response.read())["predictions"]
        except urllib.error.HTTPError as exc:
            raise AssertionError(exc.read().decode()) from exc
        except OSError:
            assert server.process.poll() is None, server.log.read_text()
            time.sleep(0.2)
    raise AssertionError(server.log.read_text())

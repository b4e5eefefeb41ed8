"""The command line as a user meets it. What is refused must leave the store as it was."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import pruning_core as pc
from pipelines import cli
from pipelines.architecture import load_module
from pipelines.config import load_config
from pipelines.flows import stages
from pipelines.flows.stages import job
from tests.conftest import files_below, run_count

GOOD: dict[str, Any] = {
    "source": {"model": "models:/digits-resnet@champion"},
    "candidates": [{"ratio": 0.5}],
    "finetune": {"epochs": 200, "threads": 1},
}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """run("compress", recipe): exit status, stdout and stderr of the command line in this process."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")  # none of these may get as far as to need it
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def get(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["secateur", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capfd.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, out, err

    return get


def recipe(folder: Path, **changes: Any) -> str:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **changes}))
    return str(path)


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"source": {"model": "models:/digit-resnet@champion"}}, 2, ["no registered model", "did you mean 'digits-resnet'"]),
        ({"source": {"model": "models:/digits-resnet@champoin"}}, 2, ["no alias", "did you mean 'champion'"]),
        ({"source": {"model": "models:/digits-resnet/77"}}, 2, ["no version 77"]),
        ({"candidates": [{"ratio": 1.0}]}, 2, ["candidates[0].ratio", "less than 1"]),
        ({"candidates": [{"ratio": -0.2}]}, 2, ["candidates[0].ratio", "-0.2"]),
        ({"candidates": [{"ratio": "half"}]}, 2, ["candidates[0].ratio", "'half'"]),
        (
            {"candidates": [{"ratio": 0.5, "criterion": "l2norm"}]},
            2,
            ["criterion 'l2norm' is unknown", "did you mean 'l2_norm'"],
        ),
        ({"candidates": []}, 2, ["candidates", "empty"]),
        ({"candidates": [{"ratio": 0.5}], "calibration": {"samples": -1}}, 2, ["calibration.samples", "-1"]),
        ({"candidates": [{"index": {"stem.0": "1, 2-"}}]}, 2, ["candidates[0].index", "'2-' at column 4"]),
        ({"candidates": [{"index": {"stem.0": "1, 40"}}]}, 2, ["candidates[0]", "channel 40", "0 to 31"]),
        ({"candidates": [{"index": {"stem.1.0": "1"}}]}, 2, ["no layer 'stem.1.0'", "did you mean"]),
        ({"candidates": [{"budget": {"macs": "500x"}}]}, 2, ["candidates[0]", "cannot be reached", "min_channels"]),
        ({"candidates": [{"budget": {"latency_ms": 1e-9}}]}, 2, ["latency_ms", "cannot be reached"]),
        ({"candidates": [{"ratios_from": "nowhere.yaml"}]}, 2, ["nowhere.yaml", "secateur recommend"]),
        (
            {"candidates": [{"ratios": {"stem.0": 0.5, "stage1.0.conv2": 0.25}}]},
            2,
            ["cut together have different ratios", "stage1.0.conv2 0.25"],
        ),
        (
            {"candidates": [{"ratio": 0.5, "criterion": "reconstruction"}], "calibration": {"samples": 0}},
            2,
            ["candidates[0]", "needs calibration data"],
        ),
        ({"finetune": {"epochz": 3}}, 2, ["finetune.epochz", "did you mean 'epochs'"]),
        ({"candidates": [{"ratio": 0.5, "ratios": {"no-such-layer": 0.5}}]}, 2, ["candidates[0]", "no-such-layer"]),
        ({"data": {"name": "npz", "path": "unlabelled.npz"}}, 2, ["no labels", "np.savez"]),
        ({"data": {"name": "npz", "path": "other.npz"}}, 2, ["cannot take these images"]),
        ({"source": {"model": GOOD["source"]["model"], "trust": []}}, 2, ["not trusted"]),
        ({"tracking": {"uri": "sqlite:////proc/nowhere/mlflow.db"}}, 1, ["no MLflow store"]),
        ({"tracking": {"uri": "sqlite:///readonly.db"}}, 1, ["cannot be written"]),
        ({"tracking": {"uri": "sqlite:///blocked.db"}}, 1, ["artifact store cannot be written"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_bad_input_is_refused_and_leaves_nothing_behind(
    run: Run,
    home: Path,
    store_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    status: int,
    words: list[str],
) -> None:
    folder = tmp_path / "user"
    folder.mkdir()
    monkeypatch.chdir(folder)
    np.savez("unlabelled.npz", x=np.zeros((90, 1, 8, 8)))
    np.savez("other.npz", x=np.zeros((90, 3, 9, 9)), y=np.arange(90) % 10)
    (folder / "readonly.db").write_text("not even a database")
    _block_artifacts(home / "mlflow.db", folder / "blocked.db")
    path = recipe(folder, **changes)
    before, files = run_count(store_uri), files_below(folder) | files_below(home)
    code, out, err = run("compress", path)
    assert (code, out) == (status, "")
    assert all(word in err for word in words), err
    assert err.startswith("error: ")
    assert "  where: " in err
    assert "  fix:   " in err
    assert "Traceback" not in err
    assert run_count(store_uri) == before
    assert files_below(folder) | files_below(home) == files


def _block_artifacts(store: Path, copy: Path) -> None:
    """A store whose experiments keep their artifacts where nobody can write."""
    with sqlite3.connect(store) as source, sqlite3.connect(copy) as target:
        source.backup(target)
        target.execute("UPDATE experiments SET artifact_location = 'file:///proc/nowhere'")
    source.close()
    target.commit()
    target.close()


def test_what_went_otherwise_than_asked_is_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that is skipped is named, also where the command then fails for another reason."""
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    (tmp_path / "pictures" / "a" / "00.png").write_bytes(b"no picture")
    data = {"name": "image-folder", "path": "pictures", "images": {"size": 8, "skip": 1}}
    for _ in range(2):
        job._data_of.cache_clear()
        code, _out, err = run("compress", recipe(tmp_path, data=data))
        assert code == 2
        assert err.count("warning: image skipped (1 of 1 allowed): pictures/a/00.png: ") == 1
        assert "error: the model cannot take these images" in err


def test_a_mistake_on_the_command_line_has_status_2(run: Run) -> None:
    for arguments in ("compress",), ("compress", "no-such-file.yaml"), ("--nonsense",), ("compres", "x.yaml"):
        code, _out, err = run(*arguments)
        assert code == 2
        assert "Traceback" not in err


def test_version_and_help(run: Run) -> None:
    assert run("--version")[:2] == (0, "secateur 0.1.0\n")
    code, out, _err = run("--help")
    assert code == 0
    assert all(command in out for command in ("compress", "inspect", "recommend", "demo", "ui"))


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys; import pipelines.cli; print({'torch', 'mlflow', 'prefect'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_inspect_shows_the_layers_and_why_one_is_locked(run: Run) -> None:
    code, out, err = run("inspect", "models:/digits-resnet@champion")
    assert (code, err) == (0, "")
    assert "stage2.0.shortcut.0" in out
    assert "locked: reaches the model output" in out
    assert "169,834" in out
    code, _out, err = run("inspect", "models:/nothing@champion")
    assert code == 2
    assert "no registered model" in err


def test_a_recommendation_is_edited_and_handed_back(run: Run, store_uri: str, tmp_path: Path) -> None:
    before = run_count(store_uri)
    code, out, err = run("recommend", "models:/digits-resnet@champion", "--ratio", "0.5", "--exclude", "stage2.1.conv1")
    assert code == 0
    assert re.search(r"# 32 -> \d\d channels", out)
    assert "stage1.1.conv2" in out  # is cut together with the stem
    assert "locked: reaches the model output" in out
    assert "# As they are: MACs 4,475,520 -> " in out  # of one image, as `inspect` says
    assert all(word in err for word in ("models:/digits-resnet/1", "width", "scores", "stage2.1.conv1"))
    options = yaml.safe_load(out)
    assert (options["criterion"], options["allocator"]) == ("l2_norm", "per_layer")
    assert set(options["ratios"]) == {"stem.0", "stage1.0.conv1", "stage1.1.conv1", "stage2.0.conv1", "stage2.0.conv2"}
    edited = {**options, "ratios": {**options["ratios"], "stem.0": 0.5}}
    (tmp_path / "ratios.yaml").write_text(yaml.safe_dump(edited))
    request = load_config(recipe(tmp_path, candidates=[{"ratios_from": "ratios.yaml"}], tracking={"uri": store_uri}))
    job = stages.prepare(request, tmp_path / "work")
    model, images = load_module(job.model), torch.from_numpy(job.data.train.x[:2])
    cuts = {c.group: len(c.keep) for c in pc.plan(model, images, request.candidates[0].spec()).cuts}
    wanted = pc.plan(model, images, pc.PruningSpec(ratio=0.5, allocator="slamp", exclude=("stage2.1.conv1",))).cuts
    assert cuts == {**{c.group: len(c.keep) for c in wanted}, "stem.0": 16}
    assert run_count(store_uri) == before


def test_a_recommendation_from_data_meets_a_budget(run: Run, store_uri: str) -> None:
    arguments = ("--budget", "macs=2x", "--data", "digits", "--samples", "128")
    code, out, _err = run("recommend", "models:/digits-resnet/1", *arguments)
    assert code == 0
    options = yaml.safe_load(out)
    assert options["criterion"] == "reconstruction"
    assert max(options["ratios"].values()) > 0.2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["models:/digits-resnt@champion"], ["no registered model", "did you mean 'digits-resnet'"]),
        (["digits-resnet"], ["no model of a registry", "models:/name@alias"]),
        (["models:/digits-resnet/1", "--criterion", "l2norm"], ["did you mean 'l2_norm'"]),
        (["models:/digits-resnet/1", "--allocator", "slam"], ["did you mean 'slamp'"]),
        (["models:/digits-resnet/1", "--ratio", "1"], ["ratio", "less than 1"]),
        (["models:/digits-resnet/1", "--budget", "macs"], ["'macs' is no budget", "macs=2x"]),
        (["models:/digits-resnet/1", "--budget", "mac=2x"], ["did you mean 'macs'"]),
        (["models:/digits-resnet/1", "--budget", "macs=2x", "--ratio", "0.5"], ["in one way only"]),
        (["models:/digits-resnet/1", "--budget", "macs=500x"], ["cannot be reached"]),
        (["models:/digits-resnet/1", "--data", "digit"], ["did you mean 'digits'"]),
        (["models:/digits-resnet/1", "--exclude", "stem.9"], ["matches no layer"]),
        (["models:/digits-resnet/1", "--criterion", "reconstruction"], ["needs calibration data", "--data"]),
    ],
)
def test_a_recommendation_that_makes_no_sense_is_refused(run: Run, arguments: list[str], words: list[str]) -> None:
    code, out, err = run("recommend", *arguments)
    assert (code, out) == (2, "")
    assert all(word in err for word in words), err
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 3


def test_ctrl_c_in_mid_flow_leaves_no_run_open(home: Path, store_uri: str, tmp_path: Path) -> None:
    """The whole path of a user: our own short-lived Prefect server, training under way, one SIGINT."""
    environment = {**os.environ, "PYTHONWARNINGS": ""}
    for name in ("PREFECT_HOME", "PREFECT_API_URL"):
        environment.pop(name, None)
    command = [sys.executable, "-c", "from pipelines.cli import main; main()", "compress", recipe(tmp_path)]
    before = run_count(store_uri)
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        deadline = time.monotonic() + 200
        while run_count(store_uri)[0] < before[0] + 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(2)  # into the training
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert "stopped" in output
    assert "Traceback" not in output
    with sqlite3.connect(home / "mlflow.db") as connection:
        rows = connection.execute("SELECT name, status, end_time IS NOT NULL FROM runs ORDER BY start_time").fetchall()
    connection.close()
    assert rows[-3:] == [
        ("compress digits-resnet v1", "KILLED", 1),
        ("baseline", "KILLED", 1),
        ("reconstruction-uniform-0.5", "KILLED", 1),
    ]
    assert run_count(store_uri)[1:] == before[1:]
    left = files_below(home / "work")
    assert len({name.partition("/")[0] for name in left}) <= 1  # one folder: the same command goes on from there
    assert not _processes_with(str(home))


def _processes_with(text: str) -> list[str]:
    """Command lines of running processes whose environment names `text`: a server that we left behind."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"PREFECT_HOME={text}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text())
        except OSError:
            continue
    return found

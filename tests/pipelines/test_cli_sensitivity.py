"""`secateur sensitivity` on a registered model: whole, stopped and taken up again, and on something else."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

import pruning_core as pc
from pipelines import cli, registry
from pipelines.architecture import ModelRef, save_weights
from pipelines.models import small_resnet
from pipelines.registry import Export
from tests.conftest import run_count

MODEL = "models:/digits-resnet@champion"
QUICK = ("--samples", "64", "--exclude", "stage1*", "--exclude", "stem*")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """run(model, option, ...): exit status, stdout and stderr of `secateur sensitivity`, in a folder of its own."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def get(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["secateur", "sensitivity", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capfd.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, out, err

    return get


def stored(path: str = "sensitivity.json") -> dict[str, Any]:
    return dict(json.loads(Path(path).read_text()))


def test_a_whole_run_gives_table_file_and_heat_map_and_makes_nothing_in_the_registry(run: Run, store_uri: str) -> None:
    before = run_count(store_uri)
    code, out, err = run(MODEL, *QUICK)
    assert (code, err.startswith("sensitivity of models:/digits-resnet/1: done")) == (0, True), err
    assert "9 of 9 points" in out
    assert run_count(store_uri) == before
    file = stored()
    assert file["subject"]["model"] == "models:/digits-resnet/1"
    assert (file["subject"]["learned_from"], file["subject"]["judged_by"]) == (64, 64)
    assert file["figure"] == "accuracy"
    assert file["baseline"] > 0.9
    groups = ["stage2.0.conv1", "stage2.0.conv2", "stage2.1.conv1"]
    assert [(row["group"], row["ratio"]) for row in file["rows"]] == [(g, r) for r in (0.5, 0.75, 0.25) for g in groups]
    assert [row["kept"] for row in file["rows"]] == [32] * 3 + [16] * 3 + [48] * 3
    for row in file["rows"]:
        assert row["drop"] == pytest.approx(file["baseline"] - row["figure"])
        assert row["macs_factor"] > 1
    for line in (*groups, "-25%", "-75%"):
        assert line in out
    picture = matplotlib.image.imread("sensitivity.png")
    assert picture.shape[0] > 300
    assert picture.shape[1] > 300
    assert sorted(p.name for p in Path.cwd().iterdir()) == ["sensitivity.json", "sensitivity.png"]


def test_the_time_runs_out_and_a_second_call_computes_only_what_is_missing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _err = run(MODEL, *QUICK, "--minutes", "0", "--ratios", "0.5")
    assert code == 0
    assert "minutes are over" in out
    assert stored()["rows"] == []
    real, rows = pc.sensitivity, []

    def two_points(*arguments: Any, **options: Any) -> pc.Sensitivity:
        asked = iter([False, False, True])
        return real(*arguments, **{**options, "stop": lambda: next(asked)})

    monkeypatch.setattr(pc, "sensitivity", two_points)
    assert run(MODEL, *QUICK, "--ratios", "0.5")[0] == 0
    rows = stored()["rows"]
    assert len(rows) == 2
    monkeypatch.setattr(pc, "sensitivity", real)
    code, out, _err = run(MODEL, *QUICK, "--ratios", "0.5")
    assert code == 0
    assert "holds 2 of 3 points" in out
    assert stored()["rows"][:2] == rows
    code, out, _err = run(MODEL, *QUICK, "--ratios", "0.25")  # the others stay
    assert "holds 3 of 6 points" in out
    assert [row["ratio"] for row in stored()["rows"]] == [0.5] * 3 + [0.25] * 3


def test_ctrl_c_loses_no_point(home: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from pipelines.cli import main; main()", "sensitivity", MODEL, "--samples", "256"]
    environment = {**os.environ, "PYTHONWARNINGS": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    file = tmp_path / "sensitivity.json"
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        deadline = time.monotonic() + 200
        while not file.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)  # into the next point
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert "stopped" in output
    assert "Traceback" not in output
    rows = stored(str(file))["rows"]
    assert 1 <= len(rows) < 18
    assert f"{len(rows)} of 18 points in sensitivity.json" in output
    assert {p.name for p in tmp_path.iterdir()} >= {"sensitivity.json", "sensitivity.png"}
    assert not list(tmp_path.glob(".*.part"))


def test_a_file_of_another_model_or_of_other_settings_is_left_alone(run: Run, store_uri: str, tmp_path: Path) -> None:
    quick = (*QUICK, "--ratios", "0.5", "--compensation", "none")
    assert run(MODEL, *quick)[0] == 0
    before = Path("sensitivity.json").read_bytes()
    _register_another(store_uri, tmp_path)
    changes: tuple[tuple[tuple[str, ...], str], ...] = (
        (("models:/digits-resnet/2", *quick), "model: models:/digits-resnet/1 there, models:/digits-resnet/2 here"),
        ((MODEL, *quick, "--criterion", "l2_norm"), "criterion 'auto' there, 'l2_norm' here"),
        ((MODEL, *quick, "--figure", "loss"), "figure: accuracy there, loss here"),
        ((MODEL, *quick, "--samples", "65"), "learned_from: 64 there, 65 here"),
    )
    for arguments, words in changes:
        code, _out, err = run(*arguments)
        assert (code, words in err) == (2, True), err
        assert "--again" in err
        assert Path("sensitivity.json").read_bytes() == before
    assert "weights: " in run("models:/digits-resnet/2", *quick)[2]
    assert run("models:/digits-resnet/2", *quick, "--again")[0] == 0
    assert stored()["subject"]["model"] == "models:/digits-resnet/2"


def _register_another(store_uri: str, folder: Path) -> None:
    """Version 2: the same structure with other weights."""
    store = registry.open_store(store_uri)
    experiment = store.client.get_experiment_by_name("digits-resnet")
    run_id = store.client.create_run(experiment.experiment_id).info.run_id
    weights = save_weights(small_resnet(), folder / "w.safetensors")
    model = ModelRef(
        factory="pipelines.models:small_resnet", kwargs={}, plans=(), weights=str(weights), trust=("pipelines",)
    )
    images = np.random.default_rng(0).random((7, 1, 8, 8), dtype=np.float32)
    export = Export(run_id=run_id, name="digits-resnet", model=model, images=images)
    exported = registry.export_model(store, export, folder / "export")
    assert registry.create_version(store, "digits-resnet", exported, run_id, {}, "") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("models:/nothing@champion",), "no registered model"),
        ((MODEL, "--ratios", "0.5,half"), "'half' is no ratio"),
        ((MODEL, "--ratios", "0.5,1"), "'1' is no ratio"),
        ((MODEL, "--samples", "100000"), "100000 samples were asked for"),
        ((MODEL, "--data", "digit"), "did you mean 'digits'"),
        ((MODEL, "--data-path", "nowhere.npz"), "the file cannot be read"),
        ((MODEL, "--criterion", "l2norm"), "did you mean 'l2_norm'"),
        ((MODEL, "--figure", "acuracy"), "did you mean 'accuracy'"),
        ((MODEL, "--exclude", "no-such-layer"), "matches no layer"),
        ((MODEL, "--out", "no/such/folder.json"), "cannot be written"),
        ((MODEL, "--out", "not-ours.json"), "no table of sensitivities"),
        ((MODEL, "--out", "not-ours.json", "--again"), "no table of sensitivities"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing_behind(run: Run, arguments: tuple[str, ...], words: str) -> None:
    Path("not-ours.json").write_text('{"name": "something of the user"}')
    code, out, err = run(*arguments)
    assert (code, out) == (2, ""), err
    assert words in err
    assert err.startswith("error: ")
    assert "  fix:   " in err
    assert [p.name for p in Path.cwd().iterdir()] == ["not-ours.json"]
    assert "something of the user" in Path("not-ours.json").read_text()

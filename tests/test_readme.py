"""What the README says is run: its Python, its recipe, its commands, its make targets."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = "\n".join(code for language, code in BLOCKS if language == "sh")

SHAPES = """
from torch import nn

def make(width: int = 24) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10),
    )
"""


@pytest.mark.parametrize("code", [code for code in PYTHON if "mlflow" not in code])
def test_the_engine_examples_run(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 (our own text)


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", README, flags=re.MULTILINE))
    assert {"demo", "test", "ui"} <= named
    assert named <= targets


def test_every_verb_exists() -> None:
    from pipelines.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    named = set(re.findall(r"^secateur (\w+)", SHELL, flags=re.MULTILINE))
    assert named
    assert named <= known
    assert CliRunner().invoke(app, ["--help"]).exit_code == 0


def test_pictures_exist() -> None:
    for path in re.findall(r"(?:\]\(|src=\")(\.docs/[^)\"]+)", README):
        assert (ROOT / path).is_file()


def test_a_users_own_model_as_the_readme_says(tmp_path: Path) -> None:
    """register.py and shapes.yaml word for word, in a folder of one's own."""
    (register,) = [code for code in PYTHON if "# register.py" in code]
    (recipe,) = [code for language, code in BLOCKS if language == "yaml"]
    (tmp_path / "shapes.py").write_text(SHAPES)
    (tmp_path / "register.py").write_text(register)
    (tmp_path / "shapes.yaml").write_text(recipe)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_", "SECATEUR_"))}
    env |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "OMP_NUM_THREADS": "1"}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "register.py")
    secateur = str(Path(sys.executable).with_name("secateur"))
    options = {"--factory": "shapes:make", "--trust": "shapes", "--tracking-uri": "sqlite:///mlflow.db"}
    ours = ("models:/shapes/1", *(word for option in options.items() for word in option))
    assert "Conv2d" in run(secateur, "inspect", *ours)
    assert "minutes are over" in run(secateur, "sensitivity", *ours, "--data-path", "images.npz", "--minutes", "0")
    table = run(secateur, "compress", "shapes.yaml")
    assert "version 2" in table

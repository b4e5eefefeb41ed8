"""Energy and memory of a call."""

from pathlib import Path

import pytest
import torch

from pipelines.steps.measure.energy import energy_mj
from pipelines.steps.measure.machine import describe_machine
from pipelines.steps.measure.memory import peak_memory

MEGABYTE = 2**20


def counter(folder: Path, name: str, microjoules: int, most: int = 10**9) -> Path:
    (folder / name).mkdir()
    (folder / name / "max_energy_range_uj").write_text(f"{most}\n")
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")
    return folder / name / "energy_uj"


def test_energy_is_that_of_all_packages_and_survives_an_overflow(tmp_path: Path) -> None:
    first, second = counter(tmp_path, "intel-rapl:0", 5000), counter(tmp_path, "intel-rapl:1", 990_000, most=1_000_000)
    counter(tmp_path, "intel-rapl:0:0", 7)  # the cores: a part of package 0

    def run() -> None:
        first.write_text(str(int(first.read_text()) + 2000))
        second.write_text(str((int(second.read_text()) + 20_000) % 1_000_000))

    assert energy_mj(run, tmp_path, seconds=0) == pytest.approx(22)  # one call


def test_no_counters_no_number(tmp_path: Path) -> None:
    assert energy_mj(lambda: None, tmp_path, seconds=0) is None
    counter(tmp_path, "intel-rapl:0", 0).write_text("permission denied")
    assert energy_mj(lambda: None, tmp_path, seconds=0) is None


def test_the_memory_of_a_call_is_seen() -> None:
    def make_small() -> object:
        return lambda: torch.ones(1)

    def make_large() -> object:
        weights = torch.ones(24 * MEGABYTE // 4)
        return lambda: weights + 1  # as much again, gone after the call

    small, large = peak_memory(make_small, "cpu"), peak_memory(make_large, "cpu")  # type: ignore[arg-type]
    if small is None or large is None:
        pytest.skip("this system does not tell")
    assert large - small > 40 * MEGABYTE
    assert large < 80 * MEGABYTE
    assert small < 8 * MEGABYTE


def test_the_machine_says_what_it_is() -> None:
    machine = describe_machine("cpu")
    assert machine["torch"] == torch.__version__
    assert machine["cores"] >= 1
    assert machine["cpu"]
    assert "gpu" not in machine

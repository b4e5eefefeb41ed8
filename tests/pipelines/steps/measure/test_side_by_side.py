from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pipelines.architecture import ModelRef, load_module, save_weights, stored_tensors, weights_digest
from pipelines.config import Data as DataSection
from pipelines.config import Measure
from pipelines.data import load_data
from pipelines.errors import CandidateError
from pipelines.models import small_resnet
from pipelines.records import Condition, Score, Scores
from pipelines.report import latency_table
from pipelines.steps.measure import measure, side_by_side
from pipelines.steps.prune import Request, describe_source, prune
from pruning_core import PruningSpec

DATA = load_data(DataSection())


def ref(width: int, folder: Path) -> ModelRef:
    torch.manual_seed(0)
    weights = save_weights(small_resnet(width=width), folder / f"{width}.safetensors")
    return ModelRef(
        factory="pipelines.models:small_resnet",
        kwargs={"width": width},
        plans=(),
        weights=str(weights),
        trust=("pipelines.models",),
    )


def test_every_model_is_timed_under_the_same_conditions(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    options = Measure(batch_sizes=(8,), thread_counts=(1,), rounds=7, warmup=1)
    try:
        result = measure({"wide": ref(64, tmp_path), "narrow": ref(8, tmp_path)}, DATA, options)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert list(result) == ["wide", "narrow"]
    wide, narrow = (latency.primary for latency in result.values())
    assert wide.condition == narrow.condition == Condition(engine="eager", device="cpu", batch_size=8, threads=1)
    for timing in (wide, narrow):
        assert len(timing.samples_ms) == 7
        assert 0 < min(timing.samples_ms) <= timing.p50_ms <= timing.p90_ms <= timing.p99_ms <= max(timing.samples_ms)
        assert timing.throughput == pytest.approx(8000 / timing.p50_ms)
    assert narrow.p50_ms < wide.p50_ms  # 64 times the work
    assert (wide.speedup, wide.speedup_low, wide.speedup_high) == (1, 1, 1)
    assert narrow.speedup_low <= narrow.speedup <= narrow.speedup_high  # above 1 where the machine is quiet


def test_more_images_than_there_are_are_made_by_repeating(tmp_path: Path) -> None:
    result = measure({"m": ref(8, tmp_path)}, DATA, Measure(batch_sizes=(len(DATA.test) + 5,), rounds=3, warmup=0))
    assert result["m"].primary.p50_ms > 0


def test_without_the_source_a_condition_has_no_factor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def picky(module: nn.Module, batch: torch.Tensor, threads: int) -> Callable[[], object]:
        if module.head.in_features == 16:
            raise RuntimeError("no kernel")
        return lambda: module(batch)

    monkeypatch.setitem(side_by_side.ENGINES, "compile", picky)
    options = Measure(batch_sizes=(4,), engines=("eager", "compile"), rounds=3, warmup=0)
    result = measure({"source": ref(8, tmp_path), "small": ref(4, tmp_path)}, DATA, options)
    assert [len(result[title].timings) for title in ("source", "small")] == [1, 1]
    assert result["small"].failures == {"compile, batch 4, 1 thread": "the source cannot be run under it"}


def test_a_condition_that_fails_costs_the_others_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The primary one first; one engine fails for one of the models."""
    whole = ref(8, tmp_path)

    def picky(module: nn.Module, batch: torch.Tensor, threads: int) -> Callable[[], object]:
        if module.head.in_features == 16:
            raise RuntimeError("no kernel\nfor this")
        return lambda: module(batch)

    monkeypatch.setitem(side_by_side.ENGINES, "compile", picky)
    options = Measure(batch_sizes=(4, 2), engines=("eager", "compile"), rounds=3, warmup=0)
    result = measure({"b": ref(4, tmp_path), "a": whole}, DATA, options)
    names = [
        "eager, batch 4, 1 thread",
        "eager, batch 2, 1 thread",
        "compile, batch 4, 1 thread",
        "compile, batch 2, 1 thread",
    ]
    assert [str(timing.condition) for timing in result["b"].timings] == names
    assert [str(timing.condition) for timing in result["a"].timings] == names[:2]
    assert result["a"].failures == dict.fromkeys(names[2:], "RuntimeError: no kernel")
    table = latency_table(result["a"])
    assert list(table["condition"]) == names
    assert list(table["failure"]) == ["", "", *["RuntimeError: no kernel"] * 2]
    with pytest.raises(CandidateError, match="put another engine first"):
        measure({"a": whole}, DATA, Measure(engines=("compile",), rounds=3))


def test_the_digest_is_that_of_the_weights(tmp_path: Path) -> None:
    source = ref(4, tmp_path)
    digest = measure({"m": source}, DATA, Measure(batch_sizes=(2,), rounds=3, warmup=0))["m"].weights_digest
    assert digest == weights_digest(load_file(source.weights)) == weights_digest(stored_tensors(load_module(source)))
    changed = load_file(source.weights)
    changed["head.bias"][3] += 1e-3
    assert weights_digest(changed) != digest
    renamed = {name.replace("head", "tail"): tensor for name, tensor in load_file(source.weights).items()}
    assert weights_digest(renamed) != digest


def test_pruning_writes_a_plan_and_smaller_weights(tmp_path: Path) -> None:
    source = ref(16, tmp_path)
    before = Path(source.weights).read_bytes()
    scores = Scores(validation=Score(value=1, drop=0), test=Score(value=1, drop=0), weights_digest="d")
    baseline = describe_source(source, DATA, scores)
    request = Request(title="half", asked="0.5", ratio=0.5, spec=PruningSpec(ratio=0.5, min_channels=2))
    pruned = prune(request, source, DATA, tmp_path / "work")
    assert pruned.removed == pytest.approx(0.5)
    assert pruned.size.params < baseline.size.params / 3
    assert pruned.size.macs < baseline.size.macs / 3
    assert pruned.size.size_bytes == Path(pruned.model.weights).stat().st_size
    assert len(pruned.model.plans) == 1
    assert Path(source.weights).read_bytes() == before
    assert baseline.size.macs > baseline.size.params  # of one image, and convolutions use a weight many times

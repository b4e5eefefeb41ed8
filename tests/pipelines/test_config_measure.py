"""The sections that say what a model is judged by and how it is timed."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.config import CompressConfig, parse_config
from pipelines.errors import ConfigError, DataError
from pipelines.flows import stages
from pipelines.flows.stages.request import latencies_of
from pipelines.latencies import keep, table_path
from pipelines.records import Condition
from pipelines.steps.measure import conditions_of, engines
from tests.conftest import quick_config


def parse(**changes: Any) -> CompressConfig:
    return parse_config({"source": {"model": "models:/m@a"}, "candidates": [{"ratio": 0.5}], **changes}, "recipe.yaml")


def test_one_value_is_a_list_of_one_and_the_first_is_the_primary() -> None:
    one = parse(measure={"batch_size": 8, "threads": 2, "engine": "compile"}).measure
    assert (one.batch_sizes, one.thread_counts, one.engines) == ((8,), (2,), ("compile",))
    several = parse(measure={"batch_sizes": [8, 64], "thread_counts": [2, 1], "engines": ["eager", "onnxruntime"]}).measure
    assert (several.batch_size, several.threads) == (8, 2)
    conditions = conditions_of(several)
    assert conditions[0] == Condition(engine="eager", device="cpu", batch_size=8, threads=2)
    assert len(set(conditions)) == len(conditions) == 8
    on_gpu = conditions_of(several.model_copy(update={"device": "cuda"}))
    assert {condition.threads for condition in on_gpu} == {2}
    config = parse(measure=several.model_dump(), task="regression")
    assert parse_config(config.model_dump(mode="json"), "again") == config
    assert config.task.name == "regression"


def test_a_latency_budget_is_timed_where_the_models_will_be(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Some GPU")
    candidates = [{"budget": {"latency_ms": "1.5x"}}, {"budget": {"macs": "2x"}}]
    tables = {
        device: latencies_of(config.measure, config.candidates[0])
        for device in ("cpu", "cuda")
        for config in [parse(measure={"threads": 2, "device": device}, candidates=candidates)]
    }
    assert {device: table and (table.device, table.threads) for device, table in tables.items()} == {
        "cpu": ("cpu", 2),
        "cuda": ("cuda", 2),
    }
    for table in tables.values():
        assert table is not None
        keep(table)
    assert [path.exists() for path in (table_path(2), table_path(2, "cuda"))] == [True, True]
    assert table_path(2) != table_path(2, "cuda")
    config = parse(candidates=candidates)
    assert latencies_of(config.measure, config.candidates[1]) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measure": {"batch_sizes": [64, 0]}}, "0 is too small; at least 1"),
        ({"measure": {"threads": 0}}, "0 is too small; at least 1"),
        ({"measure": {"engines": []}}, "measure.engines: the list is empty"),
        ({"measure": {"engines": "tensorrt"}}, "'tensorrt' is not allowed"),
        ({"measure": {"engines": []}}, "list at least one: `eager`"),
        ({"measure": {"batch_size": [8, 8]}}, "8 is there 2 times"),
        ({"measure": {"threads": 2.5}}, "it must be a list\n"),
        ({"measure": {"engines": ["onnx"]}}, "it is: `eager`, `compile`"),
        ({"measure": {"batchsize": 3}}, "did you mean 'batch_sizes'?"),
        ({"evaluate": {"confidence": 1.0}}, "evaluate.confidence"),
        ({"task": {"nme": "regression"}}, "did you mean 'name'?"),
        ({"data": "digits"}, "it must be a mapping of its fields\n"),
        ({"finetune": {"learning_rate": float("inf")}}, "must be a finite number"),
    ],
    ids=lambda value: value.split(":")[0] if isinstance(value, str) else None,
)
def test_mistakes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(**changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "clasification"}, "did you mean 'classification'?"),
        ({"task": "segmentation"}, "not the logits"),
        ({"task": "regression"}, "answers 10 numbers per sample; the targets have 1"),
        ({"task": "tests.pipelines.tasks.own:FewMistakes"}, "add 'tests.pipelines.tasks.own' to source.trust"),
        ({"finetune": {"hardware": {"accelerator": "gpu"}}}, "training cannot run so: No supported gpu"),
        ({"finetune": {"hardware": {"accelerator": "tpu"}}}, "training cannot run so: Requirement 'torch_xla"),
        ({"finetune": {"hardware": {"strategy": "dpp"}}}, "invalid strategy name: `strategy='dpp'`"),
        ({"finetune": {"hardware": {"strategy": "ddp", "devices": 2}}}, "use ddp_spawn, or leave it out"),
        ({"finetune": {"hardware": {"num_nodes": 2}}}, "set MASTER_ADDR"),
        ({"measure": {"device": "cuda"}}, "torch finds no CUDA device here"),
        ({"measure": {"engines": ["eager", "onnxruntime"]}}, "'onnxruntime' needs not_a_package"),
    ],
    ids=["name", "segmentation", "regression", "trust", "gpu", "tpu", "strategy", "ddp", "nodes", "cuda", "package"],
)
def test_what_cannot_be_judged_or_timed_is_refused_at_once(
    store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(engines, "PACKAGES", ("not_a_package",))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises((ConfigError, DataError)) as caught:
        stages.prepare(quick_config(store_uri, **changes), tmp_path / "work")
    assert message in str(caught.value)

"""The sections that say what a model is judged by and how it is timed."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.config import CompressConfig, parse_config
from pipelines.errors import ConfigError, DataError
from pipelines.flows import stages
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measure": {"batch_sizes": [64, 0]}}, "0 is too small; at least 1"),
        ({"measure": {"threads": 0}}, "0 is too small; at least 1"),
        ({"measure": {"engines": []}}, "measure.engines: the list is empty"),
        ({"measure": {"engines": "tensorrt"}}, "'tensorrt' is not allowed"),
        ({"measure": {"batchsize": 3}}, "did you mean 'batch_sizes'?"),
        ({"evaluate": {"confidence": 1.0}}, "evaluate.confidence"),
        ({"task": {"nme": "regression"}}, "did you mean 'name'?"),
    ],
    ids=["batch", "threads", "none", "engine", "field", "confidence", "task"],
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
        ({"measure": {"device": "cuda"}}, "torch finds no CUDA device here"),
        ({"measure": {"engines": ["eager", "onnxruntime"]}}, "'onnxruntime' needs not_a_package"),
    ],
    ids=["name", "segmentation", "regression", "trust", "cuda", "package"],
)
def test_what_cannot_be_judged_or_timed_is_refused_at_once(
    store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(engines, "PACKAGES", ("not_a_package",))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises((ConfigError, DataError)) as caught:
        stages.prepare(quick_config(store_uri, **changes), tmp_path / "work")
    assert message in str(caught.value)

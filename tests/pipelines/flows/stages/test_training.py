"""Training before the cut, on a registered model: a copy is trained and cut, the source stays what it was."""

from pathlib import Path

import pytest
import torch

from pipelines.architecture import load_module
from pipelines.errors import ConfigError
from pipelines.flows import stages
from pipelines.steps.finetune import Epoch
from tests.conftest import quick_config


def scales(module: torch.nn.Module) -> float:
    return sum(
        t.abs().sum().item() for name, t in module.state_dict().items() if ".norm" in name and name.endswith("weight")
    )


@pytest.mark.parametrize(("kind", "strength"), [("bn_l1", 0.1), ("group_lasso", 0.01)])
def test_candidates_are_cut_from_a_regularized_copy(store_uri: str, tmp_path: Path, kind: str, strength: float) -> None:
    def job_of(weight: float) -> stages.Job:
        regularization = {"kind": kind, "weight": weight, "epochs": 1}
        finetune = {"epochs": 0, "learning_rate": 0.003, "threads": 1, "regularization": regularization}
        config = quick_config(store_uri, finetune=finetune, calibration={"samples": 0})  # a repair would touch all layers
        return stages.prepare(config, tmp_path / str(weight))

    job = job_of(strength)
    before = Path(job.model.weights).read_bytes()
    curve: list[Epoch] = []
    trained = stages.regularize_source(job, stages.Listeners(on_epoch=curve.append))
    assert [epoch.number for epoch in curve] == [1]
    assert Path(job.model.weights).read_bytes() == before
    assert trained.model == job.model
    assert trained.regularized is not None
    source, copy = load_module(job.model), load_module(trained.regularized)
    unpenalised = stages.regularize_source(job_of(0), stages.Listeners()).regularized
    assert unpenalised is not None
    assert scales(copy) < 0.98 * scales(load_module(unpenalised))
    pruned = stages.prune_candidate(trained, job.config.candidates[0])
    kept = dict(load_module(pruned.model).named_parameters())["head.bias"]  # no cut touches it
    assert torch.equal(kept, copy.head.bias)
    assert not torch.equal(kept, source.head.bias)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"kind": "l1"}, ["finetune.regularization.kind", "'bn_l1'"]),
        ({"kind": "bn_l1", "wieght": 1}, ["finetune.regularization.wieght", "did you mean 'weight'"]),
        ({"kind": "bn_l1", "epochs": 0}, ["finetune.regularization.epochs", "greater than or equal to 1"]),
    ],
)
def test_a_mistake_is_named_with_its_place(store_uri: str, section: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        quick_config(store_uri, finetune={"regularization": section})
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_the_recipe_says_it_and_it_is_other_work(store_uri: str, tmp_path: Path) -> None:
    plain = quick_config(store_uri)
    assert plain.finetune.regularization.kind == "none"
    keys = {
        stages.prepare(quick_config(store_uri, finetune={"regularization": {"kind": kind}}), tmp_path / kind).key
        for kind in ("none", "bn_l1", "group_lasso")
    }
    assert len(keys) == 3

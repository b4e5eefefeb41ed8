from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import pruning_core as pc
from pipelines.architecture import ModelRef, load_module, save_weights, trusted_factory
from pipelines.errors import SourceError
from pipelines.models import digits_resnet

X = torch.rand(3, 1, 8, 8)


@pytest.fixture
def ref(tmp_path: Path) -> ModelRef:
    torch.manual_seed(1)
    weights = save_weights(digits_resnet(width=16), tmp_path / "w.safetensors")
    return ModelRef(
        factory="pipelines.models:digits_resnet",
        kwargs={"width": 16},
        plans=(),
        weights=str(weights),
        trust=("pipelines.models",),
    )


def test_a_model_comes_back_from_its_references(ref: ModelRef) -> None:
    torch.manual_seed(1)
    expected = digits_resnet(width=16).eval()
    loaded = load_module(ref)
    assert not loaded.training
    torch.testing.assert_close(loaded(X), expected(X), rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_a_model_that_was_pruned_twice_comes_back(ref: ModelRef, tmp_path: Path) -> None:
    module, plans = load_module(ref), []
    for number, ratio in enumerate((0.3, 0.4)):
        result = pc.prune(module, X, pc.PruningSpec(ratio=ratio, min_channels=2))
        module = result.model
        plans.append(tmp_path / f"plan-{number}.json")
        plans[-1].write_text(result.plan.to_json())
    weights = save_weights(module, tmp_path / "pruned.safetensors")
    loaded = load_module(replace(ref, plans=tuple(map(str, plans)), weights=str(weights)))
    assert loaded.stem[0].out_channels < 11  # type: ignore[index, union-attr, operator]
    torch.testing.assert_close(loaded(X), module.eval()(X), rtol=0, atol=0)


def test_the_weights_file_holds_tensors_only(ref: ModelRef) -> None:
    state = digits_resnet(width=16).state_dict()
    assert {name: tensor.shape for name, tensor in load_file(ref.weights).items()} == {
        name: tensor.shape for name, tensor in state.items()
    }


@pytest.mark.parametrize(
    ("factory", "trust", "message"),
    [
        ("os:system", ("pipelines.models",), "not trusted"),
        ("pipelines.models_of_others:make", ("pipelines.models",), "not trusted"),
        ("pipelines.models:digits_resnet", (), "not trusted"),
        ("pipelines.models:nn.Linear", ("pipelines.models",), "no factory"),
        ("pipelines.models", ("pipelines.models",), "no factory"),
        ("../x:y", ("pipelines.models",), "no factory"),
        ("pipelines.models:nothing", ("pipelines.models",), "cannot be imported"),
        ("pipelines.models.sub:nothing", ("pipelines.models",), "cannot be imported"),
        ("pipelines.models:nn", ("pipelines.models",), "no function of a trusted module"),
        ("pipelines.architecture:load_file", ("pipelines.architecture",), "no function of a trusted module"),
    ],
)
def test_code_runs_only_from_trusted_places(factory: str, trust: tuple[str, ...], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        trusted_factory(factory, trust)


def test_weights_of_another_model_are_refused(ref: ModelRef) -> None:
    with pytest.raises(SourceError, match="do not fit"):
        load_module(replace(ref, kwargs={"width": 8}))

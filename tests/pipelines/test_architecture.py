from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import pruning_core as pc
from pipelines.architecture import ModelRef, load_module, save_weights, trusted_factory, unpickle
from pipelines.errors import SourceError
from pipelines.exported_graph import load_graph
from pipelines.models import small_resnet
from tests.pipelines.exported import exported, small

X = torch.rand(3, 1, 8, 8)


@pytest.fixture
def ref(tmp_path: Path) -> ModelRef:
    torch.manual_seed(1)
    weights = save_weights(small_resnet(width=16), tmp_path / "w.safetensors")
    return ModelRef(
        factory="pipelines.models:small_resnet",
        kwargs={"width": 16},
        plans=(),
        weights=str(weights),
        trust=("pipelines.models",),
    )


def test_a_model_comes_back_from_its_references(ref: ModelRef) -> None:
    torch.manual_seed(1)
    expected = small_resnet(width=16).eval()
    loaded = load_module(ref)
    assert not loaded.training
    torch.testing.assert_close(loaded(X), expected(X), rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def pruned_twice(ref: ModelRef, folder: Path) -> tuple[ModelRef, nn.Module]:
    """As the service does it: the second cut is made of what came back of the first."""
    module = load_module(ref)
    for number, ratio in enumerate((0.3, 0.4)):
        result = pc.prune(load_module(ref), X, pc.PruningSpec(ratio=ratio, min_channels=2))
        module, plan = result.model, folder / f"plan-{number}.json"
        plan.write_text(result.plan.to_json())
        weights = save_weights(module, folder / f"pruned-{number}.safetensors")
        ref = replace(ref, plans=(*ref.plans, str(plan)), weights=str(weights))
    return ref, module


def test_a_model_that_was_pruned_twice_comes_back(ref: ModelRef, tmp_path: Path) -> None:
    ref, module = pruned_twice(ref, tmp_path)
    loaded = load_module(ref)
    assert loaded.stem[0].out_channels < 11  # type: ignore[index, union-attr, operator]
    torch.testing.assert_close(loaded(X), module.eval()(X), rtol=0, atol=0)


def test_an_exported_graph_that_was_pruned_twice_comes_back(tmp_path: Path) -> None:
    """With a constant that is in no state dict and has to be cut with its channels."""
    source = small()
    program = exported(source, tmp_path / "m.pt2")
    weights = save_weights(load_graph(program), tmp_path / "w.safetensors")
    ref = ModelRef(program=str(program), weights=str(weights))
    torch.testing.assert_close(load_module(ref)(X), source(X))
    ref, module = pruned_twice(ref, tmp_path)
    assert len(ref.chain) == 2
    loaded = load_module(ref)
    assert loaded.get_buffer("scale").shape[0] == loaded.get_parameter("head.weight").shape[1] < 9
    torch.testing.assert_close(loaded(X), module.eval()(X), rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("as_graph", [False, True])
def test_tied_weights_stay_tied(tmp_path: Path, as_graph: bool) -> None:
    source = tied()
    weights = save_weights(source, tmp_path / "w.safetensors")
    ref = ModelRef(factory=f"{__name__}:tied", trust=("tests",), weights=str(weights))
    if as_graph:
        ref = ModelRef(program=str(exported(source, tmp_path / "m.pt2")), weights=str(weights))
    ref, module = pruned_twice(ref, tmp_path)
    loaded = load_module(ref)
    torch.testing.assert_close(loaded(X), module(X), rtol=0, atol=0)
    assert loaded.get_parameter("3.weight") is loaded.get_parameter("5.weight")
    assert len(loaded.get_parameter("3.weight")) < 20


def tied() -> nn.Module:
    torch.manual_seed(0)
    first, again = nn.Linear(32, 32), nn.Linear(32, 32)
    again.weight = first.weight
    parts = (nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), first, nn.ReLU(), again, nn.ReLU(), nn.Linear(32, 10))
    return nn.Sequential(*parts).eval()


def test_a_pickle_is_opened_only_if_it_is_trusted(tmp_path: Path) -> None:
    source = small()
    torch.save(source, tmp_path / "m.pth")
    weights = save_weights(source, tmp_path / "w.safetensors")
    ref = ModelRef(pickled=str(tmp_path / "m.pth"), weights=str(weights), trust=("pickle",))
    pruned, module = pruned_twice(ref, tmp_path)
    assert type(load_module(pruned)).__name__ == "Small"
    torch.testing.assert_close(load_module(pruned)(X), module(X), rtol=0, atol=0)
    with pytest.raises(SourceError, match="not trusted"):
        load_module(replace(ref, trust=("tests",)))


def test_trusted_pickles_are_no_trusted_module() -> None:
    """`pickle` is also a module of Python, whose functions run anything."""
    with pytest.raises(SourceError, match="not trusted"):
        trusted_factory("pickle:loads", ("pickle",))


@pytest.mark.parametrize(
    ("content", "message"), [("class", "class is not here"), ("list", "holds a list"), ("junk", "cannot be opened")]
)
def test_a_pickle_that_is_no_model_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, message: str
) -> None:
    path = tmp_path / "m.pth"
    if content == "junk":
        path.write_bytes(b"junk")
    else:
        torch.save(small() if content == "class" else [1], path)
    monkeypatch.delattr("tests.pipelines.exported.Small")
    with pytest.raises(SourceError, match=message):
        unpickle(path, ("pickle",))


def test_wrong_arguments_of_the_factory_are_named(ref: ModelRef) -> None:
    with pytest.raises(SourceError, match="does not take its arguments") as caught:
        load_module(replace(ref, kwargs={"wdith": 3}))
    assert "wdith" in str(caught.value)


def test_the_weights_file_holds_tensors_only(ref: ModelRef) -> None:
    state = small_resnet(width=16).state_dict()
    assert {name: tensor.shape for name, tensor in load_file(ref.weights).items()} == {
        name: tensor.shape for name, tensor in state.items()
    }


@pytest.mark.parametrize(
    ("factory", "trust", "message"),
    [
        ("os:system", ("pipelines.models",), "not trusted"),
        ("pipelines.models_of_others:make", ("pipelines.models",), "not trusted"),
        ("pipelines.models:small_resnet", (), "not trusted"),
        ("pipelines.models:nn.Linear", ("pipelines.models",), "no import path"),
        ("pipelines.models", ("pipelines.models",), "no import path"),
        ("../x:y", ("pipelines.models",), "no import path"),
        ("pipelines.models:nothing", ("pipelines.models",), "cannot be imported"),
        ("pipelines.models.sub:nothing", ("pipelines.models",), "cannot be imported"),
        ("pipelines.models:nn", ("pipelines.models",), "no function or class of a trusted module"),
        ("pipelines.architecture:load_file", ("pipelines.architecture",), "no function or class of a trusted module"),
    ],
)
def test_code_runs_only_from_trusted_places(factory: str, trust: tuple[str, ...], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        trusted_factory(factory, trust)


def test_weights_of_another_model_are_refused(ref: ModelRef) -> None:
    with pytest.raises(SourceError, match="do not fit"):
        load_module(replace(ref, kwargs={"width": 8}))

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pruning_core as pc
from pipelines.errors import SourceError
from pipelines.exported_graph import (
    ExportedGraph,
    check_batch_sizes,
    difference,
    example_of,
    graph_of,
    is_training_form,
    load_graph,
    read_program,
)
from tests.pipelines.exported import Fixed, exported, small

X = torch.randn(9, 1, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(small(), tmp_path_factory.mktemp("p") / "small.pt2")


def graph(path: Path) -> ExportedGraph:
    return graph_of(read_program(path))


def step(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> Tensor:
    torch.manual_seed(seed)  # of the dropouts
    optimizer.zero_grad()
    loss = module.train()(X).square().mean()
    loss.backward()
    optimizer.step()
    return loss.detach()


def test_the_graph_trains_as_the_class_would(program: Path) -> None:
    """Same dropouts, same batch statistics, same gradients, same running statistics: to the last digits."""
    module, of_graph = small(), graph(program)
    optimizers = [torch.optim.SGD(m.parameters(), 0.1) for m in (module, of_graph)]
    for seed in range(3):
        losses = [step(m, o, seed) for m, o in zip((module, of_graph), optimizers, strict=True)]
        torch.testing.assert_close(losses[1], losses[0])
    ours = of_graph.state_dict()
    for name, tensor in module.state_dict().items():
        if "num_batches" not in name:  # nobody reads these
            torch.testing.assert_close(ours[name], tensor, msg=lambda text, name=name: f"{name}: {text}")
    torch.testing.assert_close(of_graph.eval()(X), module.eval()(X))


def test_modes_change_back_and_forth(program: Path) -> None:
    of_graph, expected = graph(program), small()(X)
    assert not of_graph.training
    torch.testing.assert_close(of_graph(X), expected)
    statistics = of_graph.get_buffer("norm1.running_mean").clone()
    assert difference(of_graph.train()(X), expected) > 0.01
    assert not torch.equal(of_graph.get_buffer("norm1.running_mean"), statistics)
    of_graph.get_buffer("norm1.running_mean").copy_(statistics)
    nn.Module.train(parent := nn.Sequential(of_graph), mode=False)
    assert not of_graph.training, "a parent's call reaches the graph"
    assert torch.equal(parent(X), parent(X))


def test_a_copy_has_a_mode_of_its_own(program: Path) -> None:
    of_graph = graph(program)
    other = copy.deepcopy(of_graph)
    other.train()
    assert torch.equal(of_graph(X), of_graph(X))
    assert not torch.equal(other(X), other(X))


def test_a_file_is_read_once_and_shared_with_nobody(program: Path) -> None:
    first, again = load_graph(program), load_graph(program)
    with torch.no_grad():
        first.get_parameter("head.bias").add_(1)
    torch.testing.assert_close(again(X), small()(X))
    torch.testing.assert_close(load_graph(program)(X), small()(X))
    torch.testing.assert_close(first(X), small()(X) + 1)


def test_a_file_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    load_graph(exported(small(), tmp_path / "m.pt2"))
    torch.testing.assert_close(load_graph(exported(small(seed=5), tmp_path / "m.pt2"))(X), small(seed=5)(X))


def test_a_pruned_graph_still_trains(program: Path) -> None:
    result = pc.prune(graph(program), X, pc.PruningSpec(ratio=0.5, min_channels=2), check="numeric")
    pruned = result.model
    assert isinstance(pruned, ExportedGraph)
    assert pruned.get_parameter("conv2.weight").shape == (8, 6, 3, 3)
    optimizer = torch.optim.SGD(pruned.parameters(), 0.1)
    losses = [float(step(pruned, optimizer, 0)) for _ in range(5)]
    assert losses[-1] < losses[0]
    assert torch.equal(pruned.eval()(X), pruned(X))


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's own
@pytest.mark.parametrize("how", ["decomposed", "no momentum"])
def test_norms_that_cannot_be_trained_are_named_and_left_alone(tmp_path: Path, how: str) -> None:
    module = small(momentum=None if how == "no momentum" else 0.1)
    path = exported(module, tmp_path / "m.pt2")
    if how == "decomposed":
        torch.export.save(torch.export.load(path).run_decompositions(), path)
    of_graph = graph(path)
    assert len(of_graph.frozen_norms) == (2 if how == "decomposed" else 1)
    before = of_graph.get_buffer("norm1.running_mean").clone()
    of_graph.train()(X)
    assert torch.equal(of_graph.get_buffer("norm1.running_mean"), before)
    if how == "decomposed":
        torch.testing.assert_close(of_graph(X), module(X))


def test_a_graph_that_was_exported_while_training_answers_as_if_it_was_not(tmp_path: Path) -> None:
    program = read_program(exported(small().train(), tmp_path / "m.pt2"))
    assert is_training_form(program)
    torch.testing.assert_close(graph_of(program)(X), small()(X), atol=0.5, rtol=0.5)  # exporting renewed no statistics
    assert torch.equal(graph_of(program)(X), graph_of(program)(X))
    assert not is_training_form(read_program(exported(small(), tmp_path / "e.pt2")))


def test_a_batch_size_that_nothing_depends_on_is_free(tmp_path: Path) -> None:
    """MLflow exports an example of one input with a batch of one; only its own checks stand in the way of others."""
    program = read_program(exported(small(), tmp_path / "m.pt2", batch=1, dynamic=False))
    with pytest.raises(AssertionError, match="Guard failed"):
        program.module()(X)
    check_batch_sizes(graph_of(program), example_of(program))
    torch.testing.assert_close(graph_of(program)(X), small()(X))


def test_a_batch_size_that_stands_in_the_graph_is_refused(tmp_path: Path) -> None:
    program = read_program(exported(Fixed(), tmp_path / "m.pt2", batch=3, dynamic=False))
    with pytest.raises(SourceError, match="no batch of another size") as caught:
        check_batch_sizes(graph_of(program), example_of(program))
    assert "batch of 3" in caught.value.where


@pytest.mark.parametrize("answers", [torch.full((2, 2), torch.nan), torch.zeros(2, 3)])
def test_no_number_is_never_close(answers: Tensor) -> None:
    assert difference(answers, torch.zeros(2, 2)) == float("inf")

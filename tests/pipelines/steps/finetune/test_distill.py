"""What is learned from the source model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pruning_core as pc
from pipelines.config import Distillation
from pipelines.data import ArraySplit, Data
from pipelines.exported_graph import graph_of
from pipelines.models import small_resnet
from pipelines.steps.finetune import boundary_layers, finetune
from pipelines.steps.finetune.distill import Teacher, feature_distance
from pipelines.tasks import Classification, task_of
from tests.pipelines.steps.finetune.nets import options


def cut_resnet() -> tuple[nn.Module, nn.Module, dict[str, tuple[int, ...]]]:
    """A source, what a cut without repair makes of it, and where they meet."""
    torch.manual_seed(0)
    source = small_resnet(width=8).eval()
    result = pc.prune(source, torch.randn(2, 1, 8, 8), pc.PruningSpec(ratio=0.5, criterion="l2_norm", min_channels=1))
    return source, result.model, boundary_layers(result.plan, result.model)


def test_each_group_has_one_layer_and_the_channels_that_it_kept() -> None:
    source, pruned, layers = cut_resnet()
    found = dict(source.named_modules())
    assert {"stage1.0.conv1", "stage1.1.conv2", "stage2.1.conv2"} <= set(layers)
    assert "stem.0" not in layers  # its group ends in stage1.1.conv2
    for name, kept in layers.items():
        module = dict(pruned.named_modules())[name]
        assert len(kept) == module.weight.shape[0] < found[name].weight.shape[0]  # type: ignore[union-attr, operator]


def test_channels_of_parts_that_chose_for_themselves_are_those_of_the_source() -> None:
    """Each group of the second convolution keeps other inputs than the first ones."""
    torch.manual_seed(0)
    source = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2), nn.ReLU(), nn.Conv2d(6, 4, 1)).eval()
    spec = pc.PruningSpec(ratio=0.5, criterion="l2_norm", group_policy="none", min_channels=1, round_to=1, exclude=("2",))
    result = pc.prune(source, torch.randn(2, 3, 6, 6), spec)
    kept = list(boundary_layers(result.plan, result.model)["0"])
    assert result.plan.reorders
    torch.testing.assert_close(result.model[0].weight, source[0].weight[kept])  # type: ignore[index]


def test_features_agree_before_anything_but_the_outputs_of_a_layer_was_cut() -> None:
    """The first convolution sees the same image: its kept channels are the teacher's, to the last digit."""
    torch.manual_seed(0)
    source = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(4, 2)).eval()
    x = torch.randn(3, 1, 5, 5)
    result = pc.prune(source, x, pc.PruningSpec(index={"0": "1, 4-6"}, min_channels=1))
    layers = boundary_layers(result.plan, result.model)
    assert layers == {"0": (0, 2, 3, 7)}
    teacher = Teacher(source, Distillation(weight=0, features=2.0), Classification(2).distillation_loss, layers)
    loss = teacher.teach(result.model, x, lambda output: output.sum() * 0)
    assert loss.item() == 0
    with torch.no_grad():
        result.model[0].bias += 0.5  # type: ignore[index, union-attr, operator]
        expected = 2 * 0.25 / float(source[0](x)[:, [0, 2, 3, 7]].square().mean())
    assert teacher.teach(result.model, x, lambda output: output.sum() * 0).item() == pytest.approx(expected, rel=1e-5)


def test_features_of_linear_layers_lie_on_the_last_axis() -> None:
    torch.manual_seed(0)
    source = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    x = torch.randn(2, 5, 3)  # tokens
    result = pc.prune(source, x, pc.PruningSpec(index={"0": "0, 5"}, min_channels=1))
    teacher = Teacher(source, Distillation(weight=0, features=1.0), _none, boundary_layers(result.plan, result.model))
    assert teacher.teach(result.model, x, lambda output: output.sum() * 0).item() == 0


def _none(output: Tensor, _teacher: Tensor, _temperature: float) -> Tensor:
    return output.sum() * 0


def test_the_loss_is_the_sum_that_was_asked_for() -> None:
    source, pruned, layers = cut_resnet()
    x, y = torch.randn(4, 1, 8, 8), torch.tensor([1, 2, 3, 4])
    task = Classification(10)
    options = Distillation(weight=0.3, temperature=2.0)
    loss = Teacher(source, options, task.distillation_loss, layers).teach(pruned, x, lambda output: task.loss(output, y))
    with torch.no_grad():
        mine, its = pruned(x), source(x)
        p, q = F.softmax(mine / 2, dim=1), F.softmax(its / 2, dim=1)
        by_hand = 0.7 * F.cross_entropy(mine, y) + 0.3 * 4 * (q * (q / p).log()).sum() / 4
    assert loss.item() == pytest.approx(float(by_hand), rel=1e-5)


@pytest.mark.parametrize(("share", "weight", "features"), [(1.0, 0.4, 2.0), (0.25, 0.1, 0.5), (0.0, 0.0, 0.0)])
def test_a_share_is_of_both_weights(share: float, weight: float, features: float) -> None:
    source, pruned, layers = cut_resnet()
    x, y = torch.randn(4, 1, 8, 8), torch.tensor([1, 2, 3, 4])
    task = Classification(10)

    def loss(options: Distillation, share: float) -> Tensor:
        teacher = Teacher(source, options, task.distillation_loss, layers)
        return teacher.teach(pruned, x, lambda output: task.loss(output, y), share)

    expected = loss(Distillation(weight=weight, features=features), 1.0)
    torch.testing.assert_close(loss(Distillation(weight=0.4, features=2.0), share), expected)


def test_the_share_falls_evenly_and_then_the_source_is_not_asked_any_more(tmp_path: Path) -> None:
    """16 batches of 4 samples an epoch."""
    source, pruned, _ = cut_resnet()
    asked: list[int] = []
    source.register_forward_hook(lambda *_: asked.append(1))

    class Noting(Classification):
        def distillation_loss(self, output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
            return output.sum() * 0 + 1  # so that the loss says the weight

        def loss(self, output: Tensor, target: Tensor) -> Tensor:
            return output.sum() * 0

    split = ArraySplit(np.zeros((64, 1, 8, 8), np.float32), np.arange(64) % 10)
    data = Data("noise", 10, split, split, split, "digest", (1, 8, 8))
    taught = Distillation(weight=0.5, epochs=1.5)
    wanted = options(epochs=3, batch_size=4, distillation=taught)
    curve = finetune(pruned, data, Noting(10), wanted, tmp_path, teacher=source).curve
    by_hand = [0.5 * max(0.0, 1 - batch / 24) for batch in range(48)]
    assert [epoch.train_loss for epoch in curve] == pytest.approx([np.mean(by_hand[i : i + 16]) for i in (0, 16, 32)])
    assert len(asked) == 24
    assert Teacher(source, Distillation(epochs=None), _none, {}).share(1000.0) == 1


def test_the_teacher_learns_nothing_and_no_hook_stays() -> None:
    source, pruned, layers = cut_resnet()
    teacher = Teacher(source, Distillation(weight=0.5, features=1.0), Classification(10).distillation_loss, layers)
    teacher.teach(pruned, torch.randn(4, 1, 8, 8), lambda output: output.sum()).backward()
    assert all(parameter.grad is None for parameter in source.parameters())
    assert all(parameter.grad is not None for parameter in pruned.parameters())
    assert not any(layer._forward_hooks for module in (source, pruned) for layer in module.modules())


def test_the_distance_is_none_where_both_agree_and_one_for_silence() -> None:
    features = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    assert float(feature_distance(features, features)) == 0
    assert float(feature_distance(torch.zeros(2, 2), features)) == pytest.approx(1)
    assert float(feature_distance(torch.zeros(2, 2), torch.zeros(2, 2))) == 0


def test_training_by_features_alone_brings_them_together(tmp_path: Path) -> None:
    source, pruned, layers = cut_resnet()
    rng = np.random.default_rng(0)
    split = ArraySplit(rng.normal(size=(64, 1, 8, 8)).astype(np.float32), np.arange(64) % 10)
    data = Data("noise", 10, split, split, split, "digest", (1, 8, 8))
    taught = Distillation(weight=1.0, temperature=1e-6, features=1.0)
    wanted = options(epochs=10, learning_rate=0.003, distillation=taught)

    class Silent(Classification):
        def distillation_loss(self, output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
            return output.sum() * 0

    curve = finetune(pruned, data, Silent(10), wanted, tmp_path, teacher=source, features=layers).curve
    assert curve[-1].train_loss < 0.5 * curve[0].train_loss


def test_features_that_nobody_can_compare_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An exported graph has the layers' names and not their outputs."""
    source, _, _ = cut_resnet()
    x = torch.zeros(4, 1, 8, 8)
    program = torch.export.export(source.eval(), (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},))
    graph = graph_of(program)
    result = pc.prune(graph, x, pc.PruningSpec(ratio=0.5, criterion="l2_norm", compensation="none"))
    layers = boundary_layers(result.plan, result.model)
    split = ArraySplit(np.zeros((32, 1, 8, 8), np.float32), np.arange(32) % 10)
    data = Data("noise", 10, split, split, split, "digest", (1, 8, 8))
    for features in (1.0, 0.0):
        wanted = options(epochs=1, distillation=Distillation(features=features))
        trained = finetune(result.model, data, task_of(data), wanted, tmp_path, teacher=graph, features=layers)
        assert bool(trained.notes) == (features > 0)
    assert "name its class in source.factory" in caplog.text


def test_the_distillation_loss_is_zero_only_where_both_agree() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 3.0]], dtype=torch.float64)
    assert Classification(2).distillation_loss(logits, logits + 7, 4.0) == pytest.approx(0, abs=1e-12)
    p, q = (torch.softmax(v / 4, dim=1) for v in (logits, logits.flip(1)))
    by_hand = float((q * (q / p).log()).sum() / 2 * 16)
    assert Classification(2).distillation_loss(logits, logits.flip(1), 4.0) == pytest.approx(by_hand)


def test_it_is_on_unless_it_is_switched_off() -> None:
    from pipelines.config import Finetune

    assert Finetune().distillation.weight > 0
    assert task_of is not None

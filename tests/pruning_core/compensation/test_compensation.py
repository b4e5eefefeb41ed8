"""What compensation must do: nets with redundant channels lose nothing, and every net loses less than without."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.coupling.analysis import Decisions, resolve
from pruning_core.coupling.groups import channel_groups
from pruning_core.damage import Damages
from pruning_core.inputs import ExampleInputs
from pruning_core.observe.gram import Gram
from pruning_core.study import study
from tests.models import NETS


def redundant(model: nn.Module, layer: str) -> None:
    """Make the second half of a layer's channels copies of the first half."""
    for tensor in model.get_submodule(layer).state_dict().values():
        if tensor.ndim:
            half = len(tensor) // 2
            tensor[half:] = tensor[:half]


class Net(nn.Module):
    """Convolution, depthwise, transposed and grouped convolutions, a residual sum, linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.inner, self.inner_norm = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.up = nn.ConvTranspose2d(16, 12, 2, stride=2)
        self.grouped = nn.Conv2d(12, 16, 3, groups=2, padding=1)
        self.hidden, self.head = nn.Linear(16, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.inner_norm(self.inner(F.relu(self.depth(x)))))
        x = F.relu(self.grouped(F.relu(self.up(x))))
        return self.head(F.relu(self.hidden(x.mean((2, 3)))))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    net = Net()
    net(torch.randn(64, 3, 8, 8))  # running statistics that fit
    return net.eval()


def images(n: int, seed: int = 1) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def error(model: nn.Module, other: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        want = model(x)
        return float((other(x) - want).square().sum() / (want - want.mean(dim=0)).square().sum())


def prune(net: nn.Module, compensation: str, **options: object) -> pc.PruneResult:
    spec = pc.PruningSpec(compensation=compensation, min_channels=2, **options)  # type: ignore[arg-type]
    return pc.prune(net, images(2), spec, pc.Calibration([images(32, k) for k in range(6)]))


@pytest.mark.parametrize("compensation", ["least_squares", "sequential"])
@pytest.mark.parametrize("layer", ["hidden", "up"])
def test_copies_of_other_channels_are_removed_for_nothing(net: Net, layer: str, compensation: str) -> None:
    if layer == "hidden":
        redundant(net, layer)
    else:  # outputs of a transposed convolution lie on the second axis
        with torch.no_grad():
            net.up.weight[:, [4, 5, 10, 11]] = net.up.weight[:, [0, 1, 6, 7]]
            net.up.bias[[4, 5, 10, 11]] = net.up.bias[[0, 1, 6, 7]]
    index = {"hidden": tuple(range(12, 24))} if layer == "hidden" else {"up": (4, 5, 10, 11)}
    bare = prune(net, "none", index=index)
    mended = prune(net, compensation, index=index)
    lost = error(net, bare.model, images(16, 9))
    assert lost > 1e-2
    assert error(net, mended.model, images(16, 9)) < 1e-3 * lost


def test_each_step_of_compensation_helps(net: Net) -> None:
    errors = {
        kind: error(net, prune(net, kind, ratio=0.5, criterion="reconstruction").model, images(64, 9))
        for kind in ("none", "least_squares", "sequential")
    }
    assert errors["sequential"] < errors["least_squares"] < errors["none"]
    assert errors["sequential"] < 0.5 * errors["none"]


def test_reconstruction_chooses_better_than_chance(net: Net) -> None:
    def lost(criterion: str, seed: int) -> float:
        return error(net, prune(net, "sequential", ratio=0.5, criterion=criterion, seed=seed).model, images(64, 9))

    assert lost("reconstruction", 0) < sum(lost("random", seed) for seed in range(3)) / 3


def test_defaults_with_and_without_data() -> None:
    given, bare = pc.PruningSpec().resolved(True), pc.PruningSpec().resolved(False)
    assert (given.criterion, given.compensation) == ("reconstruction", "sequential")
    assert (bare.criterion, bare.compensation) == ("l2_norm", "none")
    assert pc.PruningSpec(criterion="l1_norm", compensation="none").resolved(True).criterion == "l1_norm"


def test_what_was_mended_is_reported(net: Net) -> None:
    result = prune(net, "sequential", ratio=0.5)
    assert {r.layer for r in result.report.repairs} >= {"inner.weight", "up.weight", "grouped.weight", "head.weight"}
    for repair in result.report.repairs:
        assert math.isinf(repair.ridge) or repair.error_after < repair.error_before
    assert "compensated" in str(result.report)


def test_the_model_of_the_caller_is_untouched(net: Net) -> None:
    net.train()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    result = prune(net, "sequential", ratio=0.5, recalibrate_bn=True)
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert net.training
    assert all(module.training for module in result.model.modules())
    assert all(p.requires_grad for p in net.parameters())


def test_what_compensation_alone_brings_can_be_seen(net: Net) -> None:
    def found(**options: object) -> tuple[list[dict[str, Tensor]], nn.Module]:
        seen: list[dict[str, Tensor]] = []
        spec = pc.PruningSpec(ratio=0.5, **options)  # type: ignore[arg-type]

        def look(model: nn.Module) -> None:
            seen.append({name: t.clone() for name, t in model.state_dict().items()})

        return seen, pc.prune(net, images(2), spec, images(64), on_compensated=look).model

    (between,), both = found(recalibrate_bn=True)
    none, alone = found()
    assert none == found(recalibrate_bn=True, compensation="none")[0] == []
    assert all(torch.equal(between[name], t) for name, t in alone.state_dict().items())
    assert any(not torch.equal(between[name], t) for name, t in both.state_dict().items())


def test_recalibration_takes_the_statistics_of_the_pruned_net(net: Net) -> None:
    net.inner_norm.running_mean.fill_(50.0)
    batches = [images(32, k) for k in range(3)]
    result = pc.prune(net, images(2), pc.PruningSpec(compensation="none", recalibrate_bn=True, ratio=0.25), batches)
    with torch.no_grad():
        pruned = result.model
        seen = [pruned.inner(F.relu(pruned.depth(F.relu(pruned.norm(pruned.stem(b)))))) for b in batches]  # type: ignore
    # the first norm is recalibrated too, in the same pass: near, not equal
    want = torch.cat(seen).mean((0, 2, 3))
    torch.testing.assert_close(pruned.inner_norm.running_mean, want, rtol=0.2, atol=0.1)  # type: ignore


@pytest.mark.parametrize("name", sorted(NETS))
def test_other_nets_lose_less_with_it(name: str) -> None:
    case = NETS[name]
    model, shape = case.build().eval(), case.inputs()
    assert isinstance(shape, Tensor)
    batches = [torch.randn(8, *shape.shape[1:], generator=torch.Generator().manual_seed(k)) for k in range(6)]
    spec = pc.PruningSpec(ratio=0.5, min_channels=2)
    mended = pc.prune(model, batches[0], spec, batches)
    bare = pc.apply(model, mended.plan, batches[0])
    test = torch.randn(16, *shape.shape[1:], generator=torch.Generator().manual_seed(99))
    assert error(model, mended.model, test) < error(model, bare, test)


def test_constant_activations_and_dead_channels_give_numbers(net: Net) -> None:
    with torch.no_grad():
        net.norm.weight[:4] = 0
        net.norm.bias[:4] = torch.tensor([0.0, -1.0, 0.0, 2.0])
    result = prune(net, "sequential", ratio=0.5)
    assert all(bool(t.isfinite().all()) for t in result.model.state_dict().values())


@pytest.mark.parametrize("compensation", ["least_squares", "sequential"])
def test_inputs_that_never_change_are_told(compensation: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh(), nn.Conv2d(4, 6, 1), nn.Tanh(), nn.Conv2d(6, 2, 1)).eval()
    x = torch.randn(64, 3, 4, 4)
    spec = pc.PruningSpec(index={"0": "3"}, compensation=compensation)
    assert "constant" not in str(pc.prune(net, x[:2], spec, calibration=x).report)
    with torch.no_grad():
        net[0].weight[1] = 0
        net[0].bias[1] = 1
    report = pc.prune(net, x[:2], spec, calibration=x).report
    mended = {repair.layer: (repair.inputs, repair.constant) for repair in report.repairs}
    assert mended["2.weight"] == (3, 1)
    assert "constant inputs: 1 of 3 of 2.weight (they never change in the calibration data" in str(report)


def test_data_that_makes_no_numbers_is_named(net: Net) -> None:
    with pytest.raises(pc.ModelError, match="NaN or infinite"):
        pc.prune(net, images(2), pc.PruningSpec(), [torch.full((4, 3, 8, 8), float("nan"))])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pc.Calibration(images(4), samples=9), "9 samples were asked for, the calibration data holds 4"),
        (lambda: pc.Calibration([]), "holds 0"),
        (lambda: iter([images(4)]), "read only once"),
        (lambda: 5, "is a int"),
    ],
)
def test_calibration_data_that_cannot_be_used(net: Net, make: Callable[[], object], message: str) -> None:
    with pytest.raises(pc.SpecError, match=message):
        pc.prune(net, images(2), pc.PruningSpec(), make())


def test_compensation_without_data_is_refused(net: Net) -> None:
    with pytest.raises(pc.SpecError, match="needs calibration data"):
        pc.prune(net, images(2), pc.PruningSpec(compensation="sequential"))


def test_labels_are_asked_for(net: Net) -> None:
    with pytest.raises(pc.SpecError, match="labels"):
        pc.prune(net, images(2), pc.PruningSpec(criterion="taylor"), images(8))


def test_a_layer_of_very_many_inputs_is_mended_without_its_gram_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flattened map in front of a linear layer: its Gram matrix would have 81 million entries."""
    torch.manual_seed(0)
    wide = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 36, 3, padding=1), nn.Flatten(), nn.Linear(9216, 4)
    )
    largest = 0

    def add(gram: Gram, x: Tensor, y: Tensor | None = None) -> None:
        nonlocal largest
        largest = max(largest, x.shape[2])
        plain_add(gram, x, y)

    plain_add = Gram.add
    monkeypatch.setattr(Gram, "add", add)
    data = (torch.randn(200, 12) @ torch.randn(12, 768)).reshape(200, 3, 16, 16)  # images have few degrees of freedom
    result = pc.prune(wide, data[:2], pc.PruningSpec(ratio=0.5), data)
    assert result.report.after.params < 0.6 * result.report.before.params
    assert largest < 1000
    repair = next(repair for repair in result.report.repairs if repair.layer == "4.weight")
    assert repair.rows == 200
    assert repair.error_after < 0.5 * repair.error_before


def test_damages_do_not_depend_on_how_often_the_data_is_repeated(net: Net) -> None:
    few = [images(64, k) for k in range(3)]

    def damage(batches: list[Tensor]) -> dict[str, float]:
        subject = study(net, ExampleInputs.of(images(2)))
        groups = [g for g in channel_groups(resolve(subject.trace, Decisions())) if not g.reason]
        found = Damages(subject, pc.Calibration(batches)).of(groups, compared=True)
        return {name: float(scores.sum()) for name, scores in found.items()}

    once, often = damage(few), damage(few * 4)
    for name, total in once.items():
        assert 1 / 3 < total / often[name] < 3, name


def test_a_model_without_derivatives_says_how_its_groups_were_compared() -> None:
    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 32), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(F.relu(self.first(x))).detach()

    data = torch.randn(64, 8)
    report = pc.prune(Rounded(), data[:2], pc.PruningSpec(budget={"macs": "1.5x"}), data).report
    assert "autograd cannot follow the model" in str(report)


class Squeezed(nn.Module):
    """Of a single image it loses the axis of the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.second(F.relu(self.first(x))))
        return F.log_softmax(self.head(F.adaptive_avg_pool2d(x, 1).squeeze()), dim=1)


class OneOutputEach(nn.Module):
    """As many outputs as samples."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.relu(self.second(F.relu(self.first(x))))
        return list(self.head(x.mean((2, 3))).unbind())


@pytest.mark.parametrize("compensation", ["sequential", "least_squares"])
@pytest.mark.parametrize("kind", [Squeezed, OneOutputEach])
def test_models_that_take_a_sample_alone_otherwise_or_not_at_all(kind: type[nn.Module], compensation: str) -> None:
    spec = pc.PruningSpec(allocator="slamp", compensation=compensation, min_channels=2)
    report = pc.prune(kind().eval(), images(2), spec, images(129)).report
    assert ("single samples" in str(report)) == (kind is Squeezed)  # the other one has a gradient for each
    assert len(report.repairs) > 1


@pytest.mark.parametrize("criterion", ["l2_norm", "reconstruction"])
def test_data_that_the_model_does_not_take(net: Net, criterion: str) -> None:
    spec = pc.PruningSpec(criterion=criterion, compensation="sequential", min_channels=2)
    with pytest.raises(pc.ModelError, match="fails on the calibration data"):
        pc.prune(net, images(2), spec, torch.randn(8, 2, 8, 8))


class ReadsAVector(nn.Module):
    """A gate made from a learned vector without an axis of samples."""

    def __init__(self) -> None:
        super().__init__()
        self.code, self.inner, self.gate = nn.Parameter(torch.randn(16)), nn.Linear(16, 24), nn.Linear(24, 16)
        self.conv, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(x)).mean((2, 3)) * self.gate(F.relu(self.inner(self.code))))


@pytest.mark.parametrize("compensation", ["sequential", "least_squares"])
def test_a_linear_layer_of_one_vector(compensation: str) -> None:
    spec = pc.PruningSpec(compensation=compensation, min_channels=2)
    report = pc.prune(ReadsAVector().eval(), images(2), spec, images(64)).report
    assert "head.weight" in {repair.layer for repair in report.repairs}


def flat_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5)).eval()


def recalibrated(model: nn.Module, x: Tensor, sizes: list[int]) -> nn.Module:
    spec = pc.PruningSpec(recalibrate_bn=True, compensation="none", criterion="l2_norm", min_channels=2)
    return pc.prune(model, x[:2], spec, x if sizes == [] else list(x.split(sizes))).model


@pytest.mark.parametrize("sizes", [[], [128, 1], [1, 128], [127, 1, 1], [1] * 129])
def test_recalibration_with_samples_that_stand_alone(sizes: list[int]) -> None:
    x = torch.randn(129, 8, generator=torch.Generator().manual_seed(0))
    pruned = recalibrated(flat_net(), x, sizes)
    mean = pruned[0](x).mean(0)  # type: ignore[index]
    torch.testing.assert_close(pruned[1].running_mean, mean, rtol=1e-4, atol=1e-5)  # type: ignore[index]
    if len(sizes) < 4:
        torch.testing.assert_close(pruned[1].running_var, pruned[0](x).var(0), rtol=0.05, atol=0)  # type: ignore[index]


def test_recalibration_from_one_sample_says_that_it_is_too_little() -> None:
    with pytest.raises(pc.ModelError, match="more than 1 value per channel"):
        recalibrated(flat_net(), torch.randn(1, 8), [])


def test_recalibration_weighs_every_sample_alike(net: Net) -> None:
    x = images(33)
    x[-1] *= 10
    whole, parts = recalibrated(net, x, [33]), recalibrated(net, x, [32, 1])
    one, other = whole.norm.running_var, parts.norm.running_var  # type: ignore[union-attr]
    torch.testing.assert_close(other, one, rtol=0.1, atol=0)  # type: ignore[arg-type]

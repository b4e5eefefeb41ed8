"""A pruned model is a model: it trains, goes to disk and back, is copied, exported, and pruned again."""

import copy
import io
import pickle
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.inputs import ExampleInputs
from pruning_core.tree import tensors
from tests.awkward import AWKWARD
from tests.models import NETS, Case, seeded

CASES = {**NETS, **AWKWARD}
SAMPLE = sorted(
    [
        *NETS,
        "transformer_encoder",
        "lstm_head",
        "attention_fused_qkv",
        "weight_norm",
        "tied_embedding",
        "unet",
        "auxiliary_head",
    ]
)
HALF = pc.PruningSpec(ratio=0.5)


def outputs(model: nn.Module, case: Case) -> list[torch.Tensor]:
    given = ExampleInputs.of(case.inputs())
    return list(tensors(model(*given.args, **given.kwargs)))


@pytest.mark.parametrize("name", SAMPLE)
def test_it_trains(name: str) -> None:
    case = CASES[name]
    model = pc.prune(case.build(), case.inputs(), HALF).model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss = sum((t.square().mean() for t in outputs(model, case)), torch.zeros(()))
    loss.backward()
    assert all(p.grad is None or p.grad.shape == p.shape for p in model.parameters())
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())
    optimizer.step()
    assert all(torch.isfinite(t).all() for t in outputs(model.eval(), case))


@pytest.mark.parametrize("name", SAMPLE)
def test_it_goes_to_disk_and_back_without_pickle(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    result = pc.prune(case.build(), case.inputs(), HALF)
    pc.save(result.model, result.plan, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plan.json", "weights.safetensors"]
    again = pc.load(case.build, tmp_path).eval()
    with torch.no_grad():
        for got, want in zip(outputs(again, case), outputs(result.model.eval(), case), strict=True):
            assert torch.equal(got, want)


@pytest.mark.parametrize("name", [n for n in SAMPLE if n != "weight_norm"])
def test_it_is_copied_pickled_and_filled(name: str) -> None:
    case = CASES[name]
    model = pc.prune(case.build(), case.inputs(), HALF).model.eval()
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]  # noqa: S301 (our own bytes)
    twins[0].load_state_dict(model.state_dict())
    with torch.no_grad():
        for twin in twins:
            for got, want in zip(outputs(twin, case), outputs(model, case), strict=True):
                assert torch.equal(got, want)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["residual", "grouped", "flatten_linear", "attention_fused_qkv", "transformer_encoder"])
def test_it_is_exported_and_the_export_is_pruned(name: str) -> None:
    """torch.export of a pruned model, and pruning of a graph that has no Python code left."""
    case = CASES[name]
    x = case.inputs()
    assert isinstance(x, torch.Tensor)
    batch = torch.export.Dim("batch", min=1, max=64)
    file = io.BytesIO()
    torch.export.save(torch.export.export(case.build(), (x,), dynamic_shapes=({0: batch},)), file)
    file.seek(0)
    graph = torch.export.load(file).module()
    result = pc.prune(graph, x, HALF, check="numeric")
    assert result.report.params_after < 0.6 * result.report.params_before
    plain = pc.prune(case.build(), x, HALF)
    assert result.report.params_after == plain.report.params_after
    more = torch.cat([x, x, x])
    torch.testing.assert_close(result.model(more), plain.model(more), rtol=1e-4, atol=1e-5)
    again = torch.export.export(result.model, (x,), dynamic_shapes=({0: batch},)).module()
    torch.testing.assert_close(again(more), result.model(more))
    again = pc.PruningPlan.from_json(result.plan.to_json())
    torch.testing.assert_close(pc.apply(graph, again)(x), result.model(x))


@pytest.mark.filterwarnings("ignore")  # the exporter's own deprecations
@pytest.mark.parametrize("name", ["residual", "transformer_encoder"])
def test_it_goes_to_onnx(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    x = case.inputs()
    assert isinstance(x, torch.Tensor)
    model = pc.prune(case.build(), x, HALF).model.eval()
    program = torch.onnx.export(model, (x,), dynamo=True, opset_version=18, verbose=False)
    assert program is not None
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), model(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["residual", "depthwise_separable", "transformer_encoder"])
def test_it_is_pruned_again(name: str) -> None:
    case = CASES[name]
    first = pc.prune(case.build(), case.inputs(), pc.PruningSpec(ratio=0.3, min_channels=1))
    second = pc.prune(first.model, case.inputs(), pc.PruningSpec(ratio=0.3, min_channels=1), check="numeric")
    assert second.report.params_before == first.report.params_after
    assert second.report.params_after < first.report.params_after


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    case = NETS["residual"]
    model = case.build().to(dtype)
    x = case.inputs()
    assert isinstance(x, torch.Tensor)
    result = pc.prune(model, x.to(dtype), HALF, check="numeric")
    assert {p.dtype for p in result.model.parameters()} == {dtype}


def test_a_model_without_memory() -> None:
    """On the meta device there are no weights to score, and the lower channels stay."""
    case = NETS["residual"]
    model = case.build().to("meta")
    result = pc.prune(model, case.inputs(), HALF)
    assert {p.device.type for p in result.model.parameters()} == {"meta"}
    assert all(cut.keep == tuple(range(len(cut.keep))) for cut in result.plan.cuts)


def test_hooks_and_extra_attributes_come_along() -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)))()
    seen: list[torch.Size] = []
    model[0].register_forward_hook(lambda _m, _i, out: seen.append(out.shape))
    model.note = {"origin": "user"}  # type: ignore[assignment]
    pruned = pc.prune(model, torch.randn(1, 3, 8, 8), HALF).model
    assert pruned.note == {"origin": "user"}
    seen.clear()
    pruned(torch.randn(1, 3, 8, 8))
    assert seen == [torch.Size([1, 8, 6, 6])]


@pytest.mark.parametrize("name", ["caches_bias", "caches_tensor", "mha_self", "residual"])
def test_a_model_that_has_run_before(name: str) -> None:
    """What it cached at its first forward must not come along into the pruned copy."""
    case = CASES[name]
    model = case.build()
    outputs(model, case)
    result = pc.prune(model, case.inputs(), HALF, check="numeric")
    outputs(result.model.eval(), case)

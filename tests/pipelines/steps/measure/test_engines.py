import copy

import pytest
import torch
from torch import nn

from pipelines.steps.measure import ENGINES, engines, missing_package


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh()).eval()


@pytest.mark.parametrize("engine", list(ENGINES))
def test_every_engine_gives_the_module_s_answer(engine: str, module: nn.Module) -> None:
    if package := missing_package(engine):
        pytest.skip(f"without {package}")
    before = copy.deepcopy(module.state_dict())
    for size in (5,) if engine == "compile" else (5, 3):  # to compile takes seconds
        batch = torch.randn(size, 4)
        with torch.inference_mode():
            answer = ENGINES[engine](module, batch, 1)()
            expected = module(batch)
        found = answer if isinstance(answer, torch.Tensor) else torch.from_numpy(answer[0])  # type: ignore[index]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_onnx_is_exported_once_per_module(module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    if package := missing_package("onnxruntime"):
        pytest.skip(f"without {package}")
    monkeypatch.setattr(torch.onnx, "export", lambda *_args, **_options: pytest.fail("exported again"))
    with torch.inference_mode():
        for size, threads in ((2, 1), (7, 2)):
            assert ENGINES["onnxruntime"](module, torch.randn(size, 4), threads)() is not None


def test_a_gpu_that_onnxruntime_cannot_use_is_no_gpu(module: nn.Module) -> None:
    """It would take the CPU instead, and its times would go into the table as the GPU's."""
    if package := missing_package("onnxruntime"):
        pytest.skip(f"without {package}")
    import onnxruntime

    model = engines._exported(module, torch.randn(2, 4))
    assert engines.open_session(model, 1, "cpu").get_providers() == ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        assert "CUDAExecutionProvider" in engines.open_session(model, 1, "cuda").get_providers()
        return
    with pytest.raises(RuntimeError, match="install onnxruntime-gpu"):
        engines.open_session(model, 1, "cuda")

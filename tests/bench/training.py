"""Fashion-MNIST for the accuracy benchmark, and the one recipe that every net and every pruned model is trained with."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from pipelines.config import Data
from pipelines.data import ArraySamples, some
from pipelines.data.fashion_mnist import fashion_mnist
from pipelines.tasks import Classification
from tests.bench.small_nets import NETS

BATCH = 128
STEPS_PER_EPOCH = 60_000 // BATCH
SOURCE_EPOCHS, SOURCE_RATE = 4, 0.1
MEAN, DEVIATION = 0.2860, 0.3530  # of the training images' pixels


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """x [N, 1, 28, 28] normalised, y [N]. Nothing is ever chosen by the test images."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor

    def to(self, device: str) -> "Images":
        return Images(self.x.to(device), self.y.to(device), self.test_x.to(device), self.test_y.to(device))


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """The source model's answers to every training image [N, classes] and to its mirror image."""

    plain: Tensor
    mirrored: Tensor
    weight: float = 0.5
    temperature: float = 4.0
    epochs: float = 2.0  # over which the weight falls to nothing, as the product's does

    @classmethod
    def of(cls, model: nn.Module, x: Tensor) -> "Teacher":
        return cls(answers(model, x), answers(model, x.flip(3)))


def load_images() -> Images:
    data = fashion_mnist(Data(name="fashion-mnist"))
    assert isinstance(data.samples, ArraySamples)
    assert data.own_test is not None
    rest = np.setdiff1d(np.arange(len(data.samples.y)), data.own_test)
    (x, y), (test_x, test_y) = (some(data.samples.part(chosen), len(chosen)) for chosen in (rest, data.own_test))
    return Images((x - MEAN) / DEVIATION, y, (test_x - MEAN) / DEVIATION, test_y)


def trained(net: str, seed: int, images: Images, folder: Path) -> nn.Module:
    """The source model in eval mode, on the CPU: trained once, where the images are, then read from the cache."""
    path = folder / f"{net}-{seed}.safetensors"
    torch.manual_seed(seed)
    model = NETS[net]()
    if path.exists():
        model.load_state_dict(load_file(path))
        return model.eval()
    # A third faster. Not for pruned models: there oneDNN's gradient of a strided 1x1 layer of odd width writes out of bounds
    model.to(images.x.device, memory_format=torch.channels_last)
    train(model, images.x, images.y, steps=SOURCE_EPOCHS * STEPS_PER_EPOCH, rate=SOURCE_RATE, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, part)
    part.replace(path)
    return model.to("cpu", memory_format=torch.contiguous_format)


def train(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    rate: float,
    seed: int,
    teacher: Teacher | None = None,
    half: bool = False,
) -> None:
    """SGD with Nesterov momentum, one cycle up to `rate` and down to nothing, mirror images. In place; ends in eval mode.

    `half`: convolutions and linear layers compute in bfloat16 (autocast), which is twice as fast on a CPU that can do it.
    Not strided depthwise layers, whose gradient oneDNN has no fast bfloat16 kernel for: half of MobileNetV2-like's time.
    """
    generator = torch.Generator().manual_seed(seed)
    model.train()
    if half:
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d) and layer.groups > 1 and layer.stride != (1, 1):
                _in_float32(layer)
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    per_epoch = len(x) // BATCH
    for step in range(steps):
        place = step % per_epoch
        if place == 0:  # on whatever device, the same draws
            batches = torch.randperm(len(x), generator=generator).to(x.device).split(BATCH)
            mirrors = (torch.rand(per_epoch, BATCH, generator=generator) < 0.5).to(x.device)
        chosen, mirror = batches[place], mirrors[place]
        batch = torch.where(mirror[:, None, None, None], x[chosen].flip(3), x[chosen])
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            logits = model(batch).float()
        loss = F.cross_entropy(logits, y[chosen])
        if teacher is not None:
            taught = torch.where(mirror[:, None], teacher.mirrored[chosen], teacher.plain[chosen])
            loss = torch.lerp(
                loss,
                Classification(10).distillation_loss(logits, taught, teacher.temperature),
                teacher.weight * max(0.0, 1 - step / (teacher.epochs * per_epoch)),
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


def _in_float32(layer: nn.Module) -> None:
    forward = layer.forward

    def exact(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float())

    layer.forward = exact  # type: ignore[method-assign]


def answers(model: nn.Module, x: Tensor) -> Tensor:
    """Logits [N, classes]."""
    with torch.no_grad():
        return torch.cat([model(part) for part in x.split(100)])


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((answers(model, x).argmax(1) == y).float().mean())

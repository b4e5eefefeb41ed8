"""Small nets as exported programs."""

from pathlib import Path

import torch
from torch import Tensor, nn


class Small(nn.Module):
    """Every kind of thing that evaluation and training do differently, and a constant that a cut must follow."""

    def __init__(self, momentum: float | None = 0.1) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12, momentum=momentum)
        self.drop2d, self.conv2, self.norm2 = nn.Dropout2d(0.3), nn.Conv2d(12, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.drop, self.head = nn.Dropout(0.4), nn.Linear(16, 10)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 16), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop2d(torch.relu(self.norm1(self.conv1(x))))
        x = torch.relu(self.norm2(self.conv2(x))).mean(dim=(2, 3)) + torch.tensor(0.25)  # a constant of the code
        return self.head(self.drop(x * self.scale))  # type: ignore[no-any-return]


class Fixed(nn.Module):
    """Its graph holds the batch size as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.reshape(x.shape[0], -1))  # type: ignore[no-any-return]


def small(seed: int = 0, momentum: float | None = 0.1) -> Small:
    torch.manual_seed(seed)
    module = Small(momentum)
    for norm in (module.norm1, module.norm2):
        nn.init.normal_(norm.running_mean, 0, 0.1)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    return module.eval()


def exported(module: nn.Module, path: Path, batch: int = 4, dynamic: bool = True) -> Path:
    """`path`, where the program now lies."""
    torch.manual_seed(1)
    shapes = ({0: torch.export.Dim.AUTO},) if dynamic else None
    program = torch.export.export(module, (torch.randn(batch, 1, 8, 8),), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path
